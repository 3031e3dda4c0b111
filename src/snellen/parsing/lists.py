"""Find the list of letters that an answer gives where several options may be right."""

from __future__ import annotations

import re
import string

from snellen.parsing.text import ParseFailure

__all__ = ["LOOSE", "NEGATIVE", "listed"]

#: What rejects or doubts an option in the clause before it.
NEGATIVE = re.compile(
    r"\b(?:not|never|neither|nor|cannot|wrong|incorrect|false|eliminat\w*|exclud\w*|rul(?:e|ed|ing)|least|worst|"
    r"except|unlike|unlikely|doubt|unless|all but|than|instead|if|either|or)\b|n['’]t\b",
    re.I,
)
#: A letter that means an option anywhere; "A" before a lower-case word is an article, "I" a pronoun.
LOOSE = re.compile(r"(?<![\w'’])([B-HJ-Z]|A(?!\s+[a-z]))(?![\w'’])")
_SMALL_LIST = re.compile(r"\W{0,4}[a-j](?:\s?(?:,|;|&|/|\band\b)\s?(?:and\s)?[a-j]\b){1,9}\W{0,4}")
#: "A, B and D", also with parentheses, and in other languages.
_LETTER_LIST = re.compile(
    r"(?<![A-Za-z0-9_'’À-ɏ])[(*]{0,3}[A-Z][)*]{0,3}(?:(?:\s?[,;/&、]\s?(?:and\s)?|\s?(?:\band\b|\by\b|\bet\b|\bund\b|\be\b|\bи\b|\bve\b"
    r"|\bdan\b|\bvà\b|और|และ|和|と|와|과|و)\s?)[(*]{0,3}(?:option\s)?[A-Z](?![A-Za-z'’])[)*]{0,3}){1,25}"
)
#: What rejects the options before it.
_REJECTED = re.compile(
    r"\s(?:is|are|was|were)\s(?:\w{1,12}\s)?(?:not|n['’]t|wrong|incorrect|false)\b|\s(?:isn|aren)['’]t\b"
)


def listed(text: str, options: int) -> tuple[int, ...] | ParseFailure | None:
    """Return the options of the only list of letters that an answer affirms, or that it is; None if there
    is no list.
    """
    if _SMALL_LIST.fullmatch(text.strip()):
        text = text.upper()
    affirmed: list[set[str]] = []
    for match in _LETTER_LIST.finditer(text):
        before = re.split(r"[.!?;\n]", text[max(0, match.start() - 80) : match.start()])[-1]
        behind = re.split(r"[.!?;\n]", text[match.end() : match.end() + 60])[0]
        if not (NEGATIVE.search(before) or _REJECTED.match(behind)):
            affirmed.append(set(re.findall(r"[A-Z]", re.sub(r"[A-Za-z]{2,}", " ", match[0]))))
    if not affirmed:
        return None
    if len(affirmed) > 1 or not affirmed[0] <= set(string.ascii_uppercase[:options]):
        return ParseFailure("names several lists of options, or other letters")
    single = set(LOOSE.findall(text)) - affirmed[0]
    # Another letter may only be rejected: "A and C are correct, but B is not".
    if any(not re.search(rf"\b{letter}\b\)?(?:{_REJECTED.pattern})", text) for letter in single):
        return ParseFailure("names a list of options, and another one")
    return tuple(sorted(map(string.ascii_uppercase.index, affirmed[0])))
