"""Shared by all parsers: words, reasoning, refusals, and answer markers."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from snellen.types import Outcome

__all__ = [
    "SENTENCE_END",
    "ParseFailure",
    "ParsedAnswer",
    "Token",
    "capped",
    "ends_clause",
    "failure",
    "is_refusal",
    "marked",
    "marked_text",
    "normalize",
    "plain",
    "split_thinking",
    "strip_thinking",
    "tokenize",
    "tokens",
]

#: Of a longer answer, its beginning and its end are read, where answers stand.
HEAD, TAIL = 4_000, 16_000


@dataclass(frozen=True, slots=True)
class ParseFailure:
    """Why no answer could be parsed, and the resulting outcome."""

    reason: str
    outcome: Outcome = Outcome.UNPARSED

    def __bool__(self) -> bool:
        return False


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ParsedAnswer(Generic[T]):
    """What was read from an answer, and the name of the rule that read it; a failure has none."""

    value: T | ParseFailure
    rule: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.value, ParseFailure):
            object.__setattr__(self, "rule", None)


class Token(NamedTuple):
    """A word of normalized text and its position."""

    word: str
    start: int
    end: int


def strip_thinking(text: str) -> str:
    """Remove text in thinking tags; an unclosed tag removes everything after it.

    >>> strip_thinking("<think>a cat? no.</think> dog")
    ' dog'
    """
    return split_thinking(text)[1]


def split_thinking(text: str) -> tuple[str, str]:
    """Split a text into the part in thinking tags and the rest; an unclosed tag extends to the end.

    >>> split_thinking("<think>a cat? no.</think> dog")
    ('a cat? no.', ' dog')
    """
    text = text.replace("◁", "<").replace("▷", ">")  # as Kimi-VL writes its tags
    text = re.sub(r"\[(/?THINK)\]", r"<\1>", text)  # and Magistral
    text = _APRIEL.sub("<think>", text).replace("[BEGIN FINAL RESPONSE]", "</think>")
    text = text.replace("[END FINAL RESPONSE]", "")
    thoughts: list[str] = []
    rest: list[str] = []
    done, opened = 0, False  # up to where the text is sorted, and whether that place is within a thought
    for tag in _THINKING.finditer(text):
        if opened and not tag["end"]:
            continue  # an opening tag within a thought belongs to it
        if opened:
            thoughts.append(text[done : tag.start()])
        elif tag["end"]:  # the prompt contained the opening tag
            thoughts.append("".join(rest) + text[done : tag.start()])
            rest = []
        else:
            rest.append(text[done : tag.start()])
        opened, done = not tag["end"], tag.end()
    (thoughts if opened else rest).append(text[done:])
    return "\n".join(thoughts), "".join(rest)


#: The first line of Apriel's reasoning, which ends at its "[BEGIN FINAL RESPONSE]".
_APRIEL = re.compile(r"\A\s*Here are my reasoning steps:\s*\n")
_THINKING = re.compile(r"<(?P<end>/?)(?:think|seed:think|thinking|thought|reasoning|scratchpad)>", re.I)


#: Tokens of chat templates and of markup without meaning for the answer.
_MARKS = re.compile(
    r"(?i:<\|[a-z_]{1,40}\|>|</?s>|^\s*\ufeff|^\s*ASSISTANT:)|</?(?:b|i|u|em|strong|p|br|span|div|center)\s?/?>"
)
_STYLED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")


def plain(text: str) -> str:
    r"""Return an answer without reasoning, remains of chat templates, markup and LaTeX font commands; of a
    long one, the beginning and the end (see :func:`capped`).

    >>> plain(r"<|begin_of_box|>\boxed{\text{B}}<|end_of_box|>")
    '\\boxed{B}'
    """
    text = _MARKS.sub(" ", capped(strip_thinking(text)).replace("\ufeff", ""))
    text = _STYLED.sub(r"\1", _STYLED.sub(r"\1", text))
    text = re.sub(r"\\boxed\s+([A-Za-z0-9]+)\b", r"\\boxed{\1}", text)
    return re.sub(r"\\[()\[\]]", " ", text).strip()


def capped(text: str) -> str:
    """Return the first 4,000 and the last 16,000 characters of a text, on lines of their own.

    >>> len(capped("yes " * 10**5))
    20001
    """
    return text if len(text) <= HEAD + TAIL else f"{text[:HEAD]}\n{text[-TAIL:]}"


def normalize(text: str) -> str:
    """Normalize text: NFKC, case folded, "isn't" as "is not"."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = re.sub(r"[\u2018\u2019\u02bc`´]", "'", text)
    text = re.sub(r"\b(is|are|was|were|do|does|did|has|have|could|would|should)nt\b", r"\1 not", text)
    return re.sub(r"n't\b", " not", re.sub(r"\bcan't\b|\bcannot\b", "can not", text))


_ASCII_WORD = re.compile(r"[A-Za-z0-9]+")


def tokenize(normal: str) -> list[Token]:
    """Return maximal runs of letters, digits and their combining marks."""
    if normal.isascii():
        return [Token(match[0], *match.span()) for match in _ASCII_WORD.finditer(normal)]
    tokens_found: list[Token] = []
    start = None
    for i, char in enumerate(f"{normal} "):
        if char.isalnum() or unicodedata.category(char)[0] == "M":
            start = i if start is None else start
        elif start is not None:
            tokens_found.append(Token(normal[start:i], start, i))
            start = None
    return tokens_found


def tokens(text: str) -> tuple[str, ...]:
    """Return the words of a text as the parsers see them.

    >>> tokens("Jack-o’-Lantern!")
    ('jack', 'o', 'lantern')
    """
    return tuple(token.word for token in tokenize(normalize(text)))


_REFUSAL = re.compile(
    r"\bi(?: am|'m) (?:sorry|unable|not able)\b"
    r"|(?:^|[.!?,\n])\s{0,4}we(?: are|'re) (?:sorry\b(?! for\b)|unable\b|not able\b)"
    # A sign may say "Sorry, we're closed" or "Unable to process payment".
    r"|^\W*(?:sorry[,.!]? (?:but )?(?:i\b|no image\b|the (?:image|picture|photo)\b|unable\b|can ?not\b)"
    r"|unable to (?:assist|help|answer|identify|determine|view|see|process (?:this|the|your)))\b"
    # A "we" in mid-sentence may describe the picture.
    r"|(?:\bi|(?:^|[.!?,\n])\s{0,4}we) (?:can ?not|could not|will not|won't|must decline|decline)\b.{0,40}?"
    r"\b(?:assist|help|answer|identify|determine|provide|comply|process|view|see(?! you\b)|tell|describe|"
    r"recogni[sz]e|analy[sz]e|classify)\b|\bas an ai\b|\bi do not have the ability\b"
)


#: Quoted text, such as the words on a sign.
_QUOTED = re.compile(r"\"[^\"\n]{0,300}\"|\u201c[^\u201c\u201d\n]{0,300}\u201d")


#: What a picture does not show: a statement about it, where a question asks whether it shows something.
_NOT_SEEN = re.compile(r"\b(?:i|we) can not (?:see|find) (?:a|an|any|the) (?!(?:image|picture|photo)\b)")


def is_refusal(text: str, *, seeing: bool = True) -> bool:
    """Return whether the text declines to answer ("I'm sorry, but I can't …").

    Args:
        text: The answer.
        seeing: Whether "I can't see a dog" declines; it is an answer to "Is there a dog?".
    """
    normal = _QUOTED.sub(" ", normalize(capped(text)))
    return bool(_REFUSAL.search(normal if seeing else _NOT_SEEN.sub(" ", normal)))


def failure(text: str, truncated: bool, reason: str) -> ParseFailure:
    """Return why an answer fails: it is empty, declines, was truncated, or else the given reason."""
    if not text.strip():
        reason = "empty answer"
    elif is_refusal(text):
        return ParseFailure("refusal", Outcome.REFUSED)
    if truncated:
        return ParseFailure(f"cut off: {reason}", Outcome.TRUNCATED)
    return ParseFailure(reason)


_CLAUSE_END = re.compile(r"[.,;:!?<>()\[\]{}\n\u2014\u2013|。、،؛]|\s-\s")


def ends_clause(gap: str) -> bool:
    """Return whether the text between two words ends a clause."""
    return gap != " " and bool(_CLAUSE_END.search(gap))


_MARKER = re.compile(
    r"\b(?P<final>(?:final|correct|right)\s+)?(?:answers?|option|choice)['\"*_]*"
    r"(?:\s+(?:to|for|of)\s[^.:\n]{0,80}?)?"
    r"(?:\s*[:=]|\s+(?:is|are|would be|must be|should be)\b(?!n['’]t))[*_:]*\s*(?:that\s)?"
    r"|(?P<box>\\boxed\s*\{)|(?P<tag><answer>)|答案\s*(?:是|为|:|：)\s*|选择?(?=\s*[a-z]\b)"
    r"|选项\s*(?:是|为|:|：)?\s*(?=[a-z]\b)"
)
#: Words before a marker that negate it.
_AGAINST = re.compile(
    r"(?:\bnot\b|n't\b|\bnever\b|\bwrong\b|\bincorrect\b|\bleast\b|\bworst\b|\bif\b)[^.!?\n,;]{0,24}$"
    r"|\b(?:i\sdoubt|(?:you|one|some|people|they)\s(?:might|may|could|would)\s(?:think|say|guess|assume|expect))\b"
    r"(?:(?!\bbut\b)[^.!?\n,;]){0,40}$"
    r"|\bif\s(?:it|this|that|the\s\w{1,20})\s(?:were|was|had)\b[^.!?\n]{0,60}$"
    r"|[不别勿非](?:能|要|会|可|应)?$|(?:错误|錯誤|不正确|不正確|误|誤)的?$"
)
#: Of an answer with endless markers, this many are read: the last ones.
MARKERS = 20
#: Words whose period ends no sentence, like that of a single letter ("T. F. Riehl").
_ABBREVIATIONS = (
    "st mt ft mr mrs ms dr prof rev gen col lt sgt capt jr sr vs etc dept inc co corp ltd univ ave blvd rd "
    "jan feb mar apr jun jul aug sep sept oct nov dec approx fig vol ed eds est ca cf"
).split()
#: The end of a sentence, but for spaces behind it.
SENTENCE_END = (
    r"(?<!\b[^\W\d])(?<![^\x00-\x7f][A-Za-z])"
    + "".join(rf"(?<!\b(?i:{word}))" for word in _ABBREVIATIONS)
    + r"(?:[!?]|(?<!\b(?i:no))\.|\.(?!\s\d))(?=\s|$)"
)
#: Where a marked span ends.
_STRETCH_END = re.compile(rf"\n|。|{SENTENCE_END}")


def _spans(normal: str) -> list[tuple[int, int]]:
    """Return the spans that an answer marks as its answer; if some are marked as final, only those. A marker
    within the span of another one narrows it; a negated marker ("I don't think the answer is") marks
    nothing.
    """
    matches = [
        m for m in _MARKER.finditer(normal) if not _AGAINST.search(normal[max(0, m.start() - 60) : m.start()])
    ][-MARKERS:]
    spans: list[tuple[re.Match[str], int, int]] = []
    for place, marker in enumerate(matches):
        following = matches[place + 1] if place + 1 < len(matches) else None
        start = marker.end() + len(normal[marker.end() :]) - len(normal[marker.end() :].lstrip(" \n\t:"))
        end = _end(normal, marker, start)
        if "would be" in marker[0] and re.search(r"\bif\b", normal[start:end]):
            continue
        if following is not None and following.end() <= end:
            if not re.search(r"[.!?]\s", normal[start : following.start()]):
                continue
            end = following.start()
        spans.append((marker, start, end))
    final = [span for span in spans if span[0]["final"] or span[0]["box"] or span[0]["tag"]]
    return [(start, end) for _, start, end in final or spans]


def _end(normal: str, marker: re.Match[str], start: int) -> int:
    """Return the end of a marked span: at the closing brace or tag, or with the sentence."""
    if marker["box"]:
        depth = 1
        for brace in re.finditer(r"[{}]", normal[start:]):
            depth += 1 if brace[0] == "{" else -1
            if not depth:
                return start + brace.start()
        return len(normal)
    stop = (re.compile("</answer>") if marker["tag"] else _STRETCH_END).search(normal, start)
    return stop.start() if stop else len(normal)


def marked(normal: str, words: list[Token]) -> list[list[int]]:
    """Return the words (by number) of each span that a normalized answer marks as its answer."""
    stretches = []
    for start, end in _spans(normal):
        first = bisect_left(words, start, key=lambda token: token.start)
        last = bisect_left(words, end, key=lambda token: token.start)
        if first < last:
            stretches.append(list(range(first, last)))
    return stretches


def marked_text(text: str) -> list[str]:
    """Return the spans that an answer marks as its answer, in the original spelling.

    >>> marked_text("Hmm, 3 + 4. The answer is: 7.")
    ['7']
    """
    # Lower-cased letter by letter, since case folding may change the length of a text.
    lower = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    stretches = (text[start:end].strip().removesuffix(".") for start, end in _spans(lower))
    return [stretch for stretch in stretches if stretch]
