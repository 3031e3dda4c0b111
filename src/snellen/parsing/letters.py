"""Find the letter that an answer states, by an ordered table of rules: the first one that finds one decides.

Every rule looks for a form in which letters are given in answers, whatever the question; what the options
say is left to :mod:`snellen.parsing.choices`. All patterns are bounded, so that time is linear.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from snellen.parsing.text import ANSWER_PARTS, ANSWER_WORDS

__all__ = ["RULES", "Place", "stated"]

#: A letter, and where it stands.
Place = tuple[str, int]

#: A capital on its own; letters of other scripts may touch it ("正解はDです").
_LETTER = r"(?<![A-Za-z0-9_'’$\\^])(?P<letter>[A-Z])(?![A-Za-z0-9_$^]|['’](?![dt][ıiuü]r))"
_OPEN = r"[\s(\[{<\"'*_`「『【（“‘:：=—–>→-]{0,8}"
_CLOSE = r"[)\]}>\"'*_`」』】）”’]{0,6}"
#: What ends a letter's clause, or follows it in languages with postpositions; no second letter.
_ENDS = (
    rf"{_CLOSE}(?!\s{{0,4}}[,/&+]\s{{0,4}}\(?[A-Z]\b)"
    r"\s{0,4}(?:[.,;!。，、।\n]|$|\((?![A-Z]\))|です|だ|입니다|이다|है|şıkkıdır|seçeneğidir|['’][dt][ıiuü]r)"
)


def stated(text: str, letters: str) -> tuple[Place, str] | None:
    """Return the letter that an answer states with the position after it, and the rule that found it; None if
    no rule finds exactly one of the letters.

    >>> stated('Look. {"selected_option": "B"}', "ABCD"), stated("Die Antwort lautet C.", "ABCD")
    ((('B', 28), 'json'), (('C', 20), 'marker'))
    >>> stated("Between B and D, D fits better.", "ABCD"), stated("A or B", "ABCD")
    ((('D', 18), 'verdict'), None)
    """
    for name, rule in RULES.items():
        places = list(rule(text))
        if len({letter for letter, _ in places}) > 1 or any(letter not in letters for letter, _ in places):
            return None
        if places:
            return places[-1], name
    return None


def _rule(pattern: str) -> Callable[[str], Iterator[Place]]:
    """Return a rule that finds every match of a pattern that nothing before it negates or supposes."""
    compiled = re.compile(pattern)

    def find(text: str) -> Iterator[Place]:
        for match in compiled.finditer(text):
            before = text[max(0, match.start() - 80) : match.start()]
            if not (_AGAINST.search(before) or _AGAINST.search(_within(match))):
                yield match["letter"], match.end("letter")

    return find


def _within(match: re.Match[str]) -> str:
    """Return what a match has before its letter, but for the "not" of a correction."""
    return re.sub(
        r"^(?i:not\s[^.!?\n]{1,20}\sbut|but|not\s[^,]*,)",
        "",
        match.string[match.start() : match.start("letter")],
    )


#: Negations in languages other than English: whole words, and parts of words.
_NOT_WORDS = "nicht|pas|non?|não|не|değil|không|bukan|tidak"
_NOT_PARTS = "不|ない|아니|ไม่|नहीं|ليس"
#: What turns a statement round, in the same clause before it.
_AGAINST = re.compile(
    r"(?i:\b(?:not|never|if|whether|unless|thought|initially|least|worst|except|wrong|incorrect"
    rf"|{_NOT_WORDS})\b|n['’]t\b)[^.!?,;\n]{{0,60}}$"
    r"|\b[Ii]f\b(?!\s(?:I|we)\s(?:had|have|were|must)\b)[^.!?\n]{0,60}$"
    rf"|(?:{_NOT_PARTS})[^.!?,;。\n]{{0,10}}$"
)
#: A line with nothing but a letter, and a line of a list with a check mark.
_LINE = re.compile(rf"{_OPEN}{_LETTER}{_CLOSE}[.。,;]?\s{{0,4}}{_CLOSE}")
_CHECKED = re.compile(rf"{_OPEN}{_LETTER}[^\n]{{0,200}}[✓✔✅☑]")


def _last_line(text: str) -> Iterator[Place]:
    """Reasoning, and then a last line that is only a letter; no other such line, but in a list of options."""
    lines = [line for line in re.finditer(r"[^\n]+", text) if line[0].strip(" `*_\r\t")]
    matches = [(_LINE.fullmatch(line[0]), line.start()) for line in lines]
    if matches and matches[-1][0] is not None:
        yield from ((match["letter"], at + match.end("letter")) for match, at in matches if match is not None)


def _checked(text: str) -> Iterator[Place]:
    """``B. dog ✓``, where the other options have no check mark."""
    for line in re.finditer(r"[^\n]+", text):
        if (match := _CHECKED.match(line[0])) is not None:
            yield match["letter"], line.start() + match.end("letter")


_KEYS = r"\w{0,20}(?:answer|option|choice|letter|prediction|response|selected|selection)\w{0,20}"
_NOUNS = (
    r"(?i:\b(?:answer|ans|response|prediction|selection|conclusion|verdict|output|result|choice|pick)\b"
    rf"|\b(?:{ANSWER_WORDS}|lösung|yanıt|jawabannya|câu trả lời|вариант|richtig ist)\b)|{ANSWER_PARTS}"
    r"|正确选项|选项|正解|解答|回答|الجواب|ตอบ|故选|应选|选择?|所以选"
)
_OPTION = (
    r"(?i:option|choice|letter|answer|opción|opção|opzione|вариант|letra|lettera|lettre|buchstabe|pilihan|şık"
    r"|ตัวเลือก|विकल्प|선택지)"
)
_BEST = r"(?:correct|right|better|best|the\s+(?:correct|right|best)\b|the\s+answer\b|true\b)"
_FITS = r"(?:fits|matches|describes|answers|suits|is\s+supported|works|corresponds)"

_RIGHT = (
    r"(?:\b(?:bonne|juste|correcte|correct[ao]|richtig|korrekt|certa|correta|giusta|corretta|doğru|đúng|benar)"
    r"|правильн|верн|正确|正確|正しい|正解|정답|맞|صحيح|सही|ถูก)"
)

#: The rules in their order, by name.
RULES: dict[str, Callable[[str], Iterator[Place]]] = {
    "json": _rule(rf"[\"'](?i:{_KEYS})[\"']\s{{0,4}}:\s{{0,4}}[\"']?\(?{_LETTER}\)?[\"']?\s{{0,4}}[,}}\n]"),
    "tag": _rule(rf"<(?i:(?:final_?)?(?:answer|option|choice))>{_OPEN}{_LETTER}{_CLOSE}\.?\s{{0,4}}</"),
    "correction": _rule(
        rf"\b(?:(?i:but|not\s[^.!?\n]{{1,20}},)\s(?:it\sis|it['’]s)|(?i:not)\s[^.!?\n]{{1,20}}\sbut)\s"
        rf"(?:{_OPTION}\s)?{_OPEN}{_LETTER}{_ENDS}"
    ),
    "last line": _last_line,
    "check mark": _checked,
    "marker": _rule(
        rf"(?:{_NOUNS})[^\n.。,;!?A-Z(]{{0,40}}{_OPEN}(?:{_OPTION}\s{{1,3}})?{_OPEN}{_LETTER}{_ENDS}"
    ),
    "verdict": _rule(
        rf"(?:^|[\n.,;:!]\s{{0,4}}|(?i:\b(?:but|thus|so|hence|therefore|that\s(?:is\swhy|makes)|makes|making|{_OPTION}))\s)"
        rf"\(?{_LETTER}\)?\s{{1,3}}(?:(?:clearly|definitely|therefore)\s)?"
        rf"(?:is\s{{1,3}}(?:clearly\s|definitely\s)?{_BEST}|{_BEST}|(?:best\s)?{_FITS}|seems\s{_BEST})(?![^.\n]{{0,20}}\?)"
    ),
    "question": _rule(
        rf"\?\s(?i:no)[.,;]\s(?:{_OPTION}\s)?{_OPEN}{_LETTER}{_CLOSE}\s(?:is|does)\s{{0,2}}[.!]"
    ),
    "foreign verdict": _rule(
        rf"(?:^|[\n.,;:!。]\s{{0,4}})\(?{_LETTER}\)?"
        rf"(?:\s{{1,3}}(?:est|es|ist|é|è|là|adalah|[—–-]|(?=doğru|benar|đúng))|\s{{0,2}}(?=[^\x00-\u024f]))"
        rf"(?![^\n.。!?]{{0,40}}(?:\b(?:{_NOT_WORDS})\b|{_NOT_PARTS}))[^\n.。!?A-Z]{{0,24}}?{_RIGHT}"
    ),
    "others rejected": _rule(
        rf"^{_OPEN}{_LETTER}{_CLOSE}[.;,]\s{{1,3}}(?:{_OPTION}\s)?\(?[A-Z]\)?\s(?:is|was)\s(?:\w{{1,20}}ly\s)?"
        rf"(?:wrong|incorrect|not|false)\b"
    ),
    "last sentence": _rule(rf"[a-z]{{2}}[)\"']{{0,2}}[.!]\s{{1,4}}{_OPEN}{_LETTER}{_CLOSE}[.!]?\s{{0,8}}$"),
    "closing": _rule(
        rf"(?i:\b(?:only|say|think|choose|pick|select|go with|guess|likely|finally|leaves|leaving"
        rf"|it['’]s|it\sis|so|thus|hence|therefore))"
        rf",?\s{{1,3}}(?:{_OPTION}\s{{1,3}})?{_OPEN}{_LETTER}{_CLOSE}\s{{0,4}}[.!]?\s{{0,8}}$"
    ),
}
