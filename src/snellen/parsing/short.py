"""Read short free-form answers: a word, a number, a phrase, without the sentence around it."""

from __future__ import annotations

import json
import re

from snellen.parsing.lexicon import any_of
from snellen.parsing.text import (
    SENTENCE_END,
    ParsedAnswer,
    ParseFailure,
    failure,
    is_refusal,
    marked_text,
    normalize,
    plain,
    strip_thinking,
)

__all__ = ["parse_short", "read_short"]

#: A longer text is not a short answer, whatever it contains.
LONGEST_SHORT = 2_000


def parse_short(
    text: str, *, truncated: bool = False, verbatim: bool = False, numeric: bool = False
) -> str | ParseFailure:
    """Return the answer as text: the marked part ("The answer is 7"), or else all of it, without the
    sentence around it ("It is red.") and without an explanation in a separate paragraph. Which words it
    keeps does not depend on the truth.

    Args:
        text: The answer.
        truncated: Whether it was cut off.
        verbatim: Whether the task is to transcribe: then markers ("Option: Renewal") and apologies ("Sorry,
            we're closed") may be what the picture says, and the whole answer is kept.
        numeric: Whether the task is to give a number: then the only one in a sentence is the answer.

    >>> parse_short("So 3 + 4 = 7. The answer is: **7**."), parse_short(" a red car ")
    ('7', 'a red car')
    >>> parse_short("I think it is red."), parse_short("Red, as the picture shows.")
    ('red', 'Red')
    """
    return read_short(text, truncated=truncated, verbatim=verbatim, numeric=numeric).value


def read_short(
    text: str, *, truncated: bool = False, verbatim: bool = False, numeric: bool = False
) -> ParsedAnswer[str]:
    """Return what :func:`parse_short` does, and the rule: the whole answer, or its marked, framed or
    emphasized part, the value in JSON, the only number.
    """
    if verbatim:
        text = strip_thinking(text).strip()
        if truncated or not text or _DECLINES.search(normalize(text[:200])):
            return ParsedAnswer(
                failure(text, truncated, "empty answer" if not text else "no complete answer")
            )
        return ParsedAnswer(text, "whole")
    text = plain(text)
    if not truncated and (value := _json(text)) is not None:
        return ParsedAnswer(value, "json")
    stretches = marked_text(text) or _headed(text)
    if not stretches and is_refusal(text):
        return ParsedAnswer(failure(text, truncated, "refusal"))
    if truncated and stretches and text.endswith(stretches[-1]):
        stretches = stretches[:-1]  # a truncated answer may have continued
    distinct = dict.fromkeys(filter(None, map(_bare, stretches)))
    if len(distinct) > 1:
        several = ", ".join(list(distinct)[:3])[:80]
        return ParsedAnswer(failure(text, truncated, f"marks several answers: {several}"))
    if distinct:
        return ParsedAnswer(next(iter(distinct)), "marked")
    if truncated or not text:
        return ParsedAnswer(failure(text, truncated, "empty answer" if not text else "no marked answer"))
    if len(text) > LONGEST_SHORT:
        reason = f"an answer of {len(text):,} characters, where a short one was requested"
        return ParsedAnswer(ParseFailure(reason))
    whole = _bare(_unexplained(_POLITE.sub("", text)))
    if (value := _emphasized(whole)) is not None:
        return ParsedAnswer(_bare(value), "emphasized")
    framed = _bare(_framed(whole))
    if numeric and (only := _only_number(framed)) is not None:
        return ParsedAnswer(only, "only number")
    if not framed:
        return ParsedAnswer(failure("", truncated, "empty answer"))
    return ParsedAnswer(framed, "whole" if framed == _bare(text) else "framed")


#: Politeness before an answer.
_POLITE = re.compile(r"^\W{0,4}(?:sure|certainly|of course|great question)(?:\s?[!,.:]\s+)(?=\S)", re.I)
_BOLD = re.compile(r"\*\*([^*\n]{1,80})\*\*")


def _emphasized(text: str) -> str | None:
    """Return the only bold part of a single line."""
    bold = _BOLD.findall(text)
    return bold[0] if len(bold) == 1 and "\n" not in text and not bold[0].endswith(":") else None


def _json(text: str) -> str | None:
    """Return the value of a JSON object's only key, or of the one for the answer."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        read = json.loads(text[start : end + 1])
    except (ValueError, RecursionError):
        return None
    if not isinstance(read, dict):
        return None
    keys = [key for key in read if re.search(r"answer|prediction|response|result|output", key, re.I)]
    value = read[keys[0]] if len(keys) == 1 else next(iter(read.values())) if len(read) == 1 else None
    if isinstance(value, bool) or not isinstance(value, str | int | float | list):
        return None
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


_SCALE = r"(?:hundred|thousand|million|billion|trillion|dozen)"
_SIGNED = r"(?:\b(?:minus|negative)\s)?"
#: A number with all that makes it this number: its sign, and thousands or millions.
_NUMERAL = re.compile(
    rf"{_SIGNED}(?<![\w.,])[-−$€£]?\d(?:[\d,.]*\d)?(?:%|(?:[KMB]|bn)\b|\s{_SCALE}\b)?(?![\w])"
)
_NUMBER_WORD = re.compile(
    rf"{_SIGNED}\b(?:(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)(?:[-\s](?:one|two|three|four|five|six|"
    r"seven|eight|nine))?|zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen"
    rf"|sixteen|seventeen|eighteen|nineteen|one(?=[-\s]{_SCALE}))(?:[-\s]{_SCALE})?\b",
    re.I,
)
#: What makes a number a bound of another one.
_BOUNDS = re.compile(
    r"\b(?:not|n['’]t|or|between|than|at\s(?:least|most)|over|under|up\sto|below|above|minimum|maximum)\b|[=/\\^×·]|\d[eE][-+]?\d",
    re.I,
)


def _only_number(text: str) -> str | None:
    """Return the only number of a sentence: "There are three birds on the wire."."""
    if len(text) > 200 or _BOUNDS.search(text):
        return None
    found = _NUMERAL.findall(text) + _NUMBER_WORD.findall(text)
    if not found and re.match(r"(?:there\s(?:is|are)\s)?no\s\w+", text, re.I):
        return "0"
    return found[0] if len(found) == 1 and found[0] != text.strip() else None


#: The speaker declines; a sign or a receipt does not say "I".
_DECLINES = re.compile(
    r"^\W*(?:i(?: am|'m) (?:very )?sorry,? (?:but )?i\b|i(?: am|'m) (?:unable|not able)\b"
    r"|(?:sorry,? (?:but )?)?i can ?not (?:assist|help|answer|identify|determine|provide|comply|view)\b"
    r"|as an ai\b)"
)
_HEADING = re.compile(r"^[#*\s]{0,12}(?:final\s|short\s|the\s)?answer[*:\s]{0,6}$", re.I)
_DASHED = re.compile(r"^(?:final\s)?answer\s?[-–—=]\s?(.+)$", re.I)


def _headed(text: str) -> list[str]:
    """Return what stands below a heading ("### Final Answer"), or behind "Answer - "."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    below = [lines[i + 1] for i, line in enumerate(lines[:-1]) if _HEADING.match(line)]
    return below or [match[1] for line in lines if (match := _DASHED.match(line))]


_EXPLAINS = re.compile(
    r"[*_#]{0,4}(?:explanation|reason(?:ing)?|justification|rationale|note|because|details?)\b", re.I
)
_EMPHASIZED = re.compile(r"\*\*[^*\n]{1,200}\*\*\.?")


def _unexplained(text: str) -> str:
    """Return the paragraph with the answer: the one before an explanation, or the only emphasized one."""
    paragraphs = [part.strip() for part in re.split(r"\n[ \t]*\n", text) if part.strip()]
    if len(paragraphs) < 2:
        return text
    if _EXPLAINS.match(paragraphs[1]):
        return paragraphs[0]
    emphasized = [part for part in paragraphs if _EMPHASIZED.fullmatch(part)]
    return emphasized[0] if len(emphasized) == 1 else text


_PICTURE = (
    r"(?:the|this)\s(?:given\s|provided\s)?"
    r"(?:image|picture|photo|photograph|chart|graph|figure|document|table|diagram|scene|sign|map|page)"
)
_BEFORE = (
    r"(?:(?:so|thus|therefore|hence|well|ok|okay),?\s)?"
    rf"(?:(?:according\sto|based\son|from|in|looking\sat|as\sshown\sin|as\sseen\sin)\s(?:{_PICTURE}|the\s\w+),?\s)?"
    r"(?:i\s(?:think|believe|guess|would\ssay)\s|i['’]d\ssay\s|it\s(?:seems|appears)\s)?(?:that\s)?"
    r"(?:(?:most\s)?(?:probably|likely)\s|maybe\s|perhaps\s)?"
)
_FRAMES = [
    re.compile(pattern, re.I | re.S)
    for pattern in (
        rf"{_BEFORE}(?:it\sis|it['’]s|this\sis|that\sis|they\sare|these\sare|it\sreads|it\ssays)\s(?P<x>.+)",
        rf"{_BEFORE}(?:the\s)?(?:\w{{1,20}}\s){{0,2}}(?:value|total|number|amount|result|text|word|color|colour|name|title"
        r"|date|year|percentage|count|sum|difference|average|ratio|price|time|answer|object|label|country|brand|page"
        rf"|category)(?:\s(?:of|in|on|for)\s[^.,;:]{{1,60}}?)?(?:\s\w{{1,12}})?(?:\s(?:is|are|was|reads|says)\s|:\s)"
        r"(?P<x>.+)",
        # Any subject and its predicate: "The car is blue", "It was built in 1932".
        rf"{_BEFORE}(?:the|this|that|its?|he|she|his|her|my)\s?[^.,;:\n]{{0,60}}?\s(?:(?:is|are|was|were)\s(?:written|signed"
        r"|built|dated|made|located|held|published|founded|established|called|named|titled)\s(?:in|on|by|at|as|from)?"
        r"|belongs?\sto|measures|weighs|costs|equals|shows|reads|says|starts\sat|ends\sat|peaked\s(?:in|at)"
        r"|makes\sup|appears?\sto\sbe|seems?\sto\sbe|looks\slike|is|are|was|were)\s(?P<x>.+)",
        r"(?:it|this|that|they)\s(?:isn['’]t|is\snot|aren['’]t|are\snot)\s[^,.]{1,40},\s(?:but\s)?(?:it['’]s|it\sis|they\sare)?\s?"
        r"(?P<x>[^,.]{1,60})",
        # What it is not: "Not London but Paris.", "Paris, not London."
        r"not\s[^,.\n]{1,40}?,?\sbut\s(?P<x>[^,.\n]{1,60})",
        r"(?P<x>[^,\n]{1,60}?)(?:,|\sand|,\sand)\s(?:not|rather\sthan)\s[^,.\n]{1,60}",
        r"(?:(?:most\s)?(?:probably|likely)|maybe|perhaps)\s(?P<x>[^\n]{1,60})",
        r"(?P<x>[^,\n]{1,60}),\si\s(?:think|believe|guess|would\ssay)",
        r"(?P<x>[^,(\n]{1,60}?)\s(?:\((?:because|since|as)\s[^\n]{1,160}\)|because\s[^\n]{1,160})",
        rf"(?P<x>(?:an?|the|some)\s[^,.\n]{{1,60}}?)\s(?:is|are)\s(?:shown|depicted|pictured)(?:\s(?:in|on)\s{_PICTURE})?",
        rf"{_PICTURE}\s(?:depicts|displays)\s(?P<x>[^\n]{{1,100}})",
        r"(?P<x>yes|no),\s[^\n]{1,160}",
        rf"{_BEFORE}(?:i\s(?:can\s)?see|we\s(?:can\s)?see|there\s(?:is|are)|{_PICTURE}\s(?:shows|contains))\s"
        rf"(?P<x>.{{1,200}}?)(?:\s(?:in|on)\s{_PICTURE})",
        rf"(?P<x>.{{1,200}}?),\s(?:as|according\sto|based\son)\s{_PICTURE}(?:\sshows)?",
        r"(?P<x>[^,]{1,60}),\s(?:reading|looking|judging|going|measured|counting|since|because)\s[^\n]{1,160}",
        r"(?:approximately|about|around|roughly|nearly|almost)\s(?P<x>[\d$€£.,\-]+\D{0,20})",
        r"(?P<x>yes|no),\s(?:it|they|there|he|she|this|that|these|those)\s(?:is|are|was|were|does|do|did|has|have|can)"
        r"(?:\snot|n['’]t)?",
        r"(?:la\s)?(?:respuesta|réponse|risposta|resposta)(?:\scorrect[ae]|\scorretta)?\s(?:es|est|è|é)\s(?P<x>.+)",
        r"a\sresposta\sé\s(?P<x>.+)",
        r"die\santwort\s(?:ist|lautet)\s(?P<x>.+)",
        r"(?:es\sist|das\sist|c['’]est|esto\ses|es(?=\s(?:un|una|el|la|los|las)\b)|è|é|это|het\sis|det\sär|to\sjest)\s(?P<x>[^\n]{1,60})",
        r"(?:这是|這是)(?P<x>[^\n]{1,60})",
        r"(?:これは|それは)(?P<x>[^\n]{1,60}?)(?:です|だ)",
        r"(?:이것은|그것은)\s?(?P<x>[^\n]{1,60}?)(?:입니다|이다)",
        r"(?:答えは|正解は)(?P<x>.+?)(?:です|だ)?",
        r"(?:答案|答案应该)是(?P<x>.+)",
        r"(?:정답은|답은)\s?(?P<x>.+?)(?:입니다|이다)?",
        r"ответ\s?[:—–-]\s?(?P<x>.+)",
        rf"{any_of('answer')}\s?[:：]\s?(?P<x>.+)",
    )
]


_THEN = re.compile(
    r"(?P<x>[^\n]{1,60}?)\.\s{1,4}(?:The|This|It|There|As|In|Because|Based)\s[^\n]{8,400}\.", re.S
)


#: "London? No, Paris."
_INSTEAD = re.compile(
    r"[^,.?!\n]{1,60}[.?!]\s(?:wait,?\s)?(?:no|actually),\s(?:it(?:['’]s|\sis)\s)?(?P<x>[^,.?!\n]{1,60})\.?",
    re.I,
)
#: Where a second sentence begins.
_NEXT = re.compile(rf"{SENTENCE_END}\s+[A-Z]")


def _framed(text: str) -> str:
    """Return the answer in a single sentence that frames it ("It is red.", "Red, as the picture shows.")."""
    if (first := _THEN.fullmatch(text.strip())) is not None:
        text = _bare(first["x"])
    if (instead := _INSTEAD.fullmatch(text.strip())) is not None:
        return _framed(instead["x"])
    sentence = re.sub(r"[.。]{1,2}$", "", text.strip())
    if "\n" in sentence or _NEXT.search(sentence):
        return text
    for frame in _FRAMES:
        if (match := frame.fullmatch(sentence)) is not None:
            return _framed(match["x"]) if len(match["x"]) < len(sentence) else text
    return text


def _bare(text: str) -> str:
    """Strip emphasis or quotes around the whole text, a period after them, and a closing JSON bracket.

    >>> _bare('**"42"**.'), _bare('"red"}'), _bare('"a" and "b"'), _bare("It is red.")
    ('42', 'red', '"a" and "b"', 'It is red.')
    """
    text = re.sub(r"^(?:[-•*]|>(?=\s+[^\W\d])|#{1,6})\s{1,4}(?=\S)", "", text.strip())
    if text.count("}") > text.count("{"):
        text = text.rstrip("} \n")
    bare = text
    while (shorter := _unwrapped(bare.strip())) != bare:
        bare = shorter
    return re.sub(r"(?<=\d)\s%", "%", bare.strip("*"))


#: Pairs that can enclose a whole text.
_PAIRS = ("**", "**"), ("*", "*"), ("__", "__"), ("_", "_"), ("`", "`"), ("$", "$"), ('"', '"'), ("'", "'")
_QUOTES = ("\u201c", "\u201d"), ("\u2018", "\u2019"), ("«", "»"), ("\u201e", "\u201c")


def _unwrapped(text: str) -> str:
    """Strip the outermost pair, and a period after it; return the text unchanged if there is none."""
    inner = text.removesuffix(".")
    if re.fullmatch(r"\([^()]+\)|\[[^\[\],]+\]", inner):
        return inner[1:-1]
    for begin, end in (*_PAIRS, *_QUOTES):
        if len(inner) > len(begin + end) and inner.startswith(begin) and inner.endswith(end):
            inside = inner[len(begin) : -len(end)]
            if begin not in inside and end not in inside:
                return inside
    return text
