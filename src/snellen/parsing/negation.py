"""Which names a text affirms, and which it denies: "not a cat", "the cat is ruled out", "❌ cat"."""

from __future__ import annotations

import re
from itertools import product
from typing import NamedTuple

from snellen.parsing.scripts import negates
from snellen.parsing.text import Token, ends_clause

__all__ = ["SIGNS_AGAINST", "VERBS", "Mention", "affirmed"]


class Mention(NamedTuple):
    """A run of tokens [first, last] that is a form of these labels (several if they share the form)."""

    first: int
    last: int
    labels: frozenset[str]


_CUES = frozenset(
    "not no never neither nor without except excluding unlike lack lacks lacking fails hardly absence "
    "mistaken confused unlikely impossible doubt zero nobody exclude excludes excluded eliminate eliminates "
    "eliminated refuse if whether kein keine keinen nicht ohne weder pas aucun aucune sans não nenhum "
    "nenhuma sem не нет без bukan tidak không non nessun nessuna senza sin ningún ninguna geen niet zonder "
    "nie bez inte ingen inget utan".split()
)
_CUE_PAIRS = {
    ("anything", "but"),
    ("rather", "than"),
    ("instead", "of"),
    ("other", "than"),
    ("opposed", "to"),
    ("negative", "for"),
    ("free", "of"),
    ("free", "from"),
    ("least", "likely"),
    ("far", "from"),
    ("devoid", "of"),
    ("nothing", "like"),
    ("wrong", "to"),
    *product(("rule", "rules", "ruled", "ruling"), ("out",)),
    *product(("wrong", "incorrect"), ("answer", "class", "label", "option", "choice", "name")),
}
#: Phrases in which a cue does not negate.
_SAYINGS = {
    ("no", "doubt"),
    ("no", "question"),
    ("not", "only"),
    ("not", "just"),
    ("not", "merely"),
    ("without", "doubt"),
    ("without", "question"),
    ("none", "other"),
    *product(("no", "without", "little"), ("doubt",)),
}
_TURNS = frozenset("but however sondern mais mas ma pero а tapi melainkan mà sino".split())
#: Words that turn a name into the subject of a sentence.
VERBS = frozenset("is are was were does do did can could would should has have".split())


#: What denies the name before it: behind a colon, behind a verb, or behind "not".
_DENIALS = frozenset("no nope nah none false absent negative unlikely incorrect wrong excluded".split())
#: The same right behind the name, and what a name may be called before its verb.
_GONE = frozenset("absent negative yok değil".split())
_CALLED = frozenset("option class label answer choice".split())
_SEEMS = frozenset("be been seems looks sounds".split())
_REJECTED = frozenset(
    "not never absent incorrect wrong unlikely impossible excluded eliminated missing rejected".split()
)
_THERE = frozenset("present visible shown seen there detected found".split())
#: A cross behind a name, an empty box before it, and "but it is not" at the end of its sentence.
_CROSSED = re.compile(r"\s{0,2}[:=\u2013\u2014-]?\s{0,2}[✗✘❌✖×]|~~")
_UNCHECKED = re.compile(r"[-*]\s?\[\s?\]\s{1,3}$|[✗✘❌✖🚫¬]\s?$")
#: Signs that take back what they stand at.
SIGNS_AGAINST = re.compile(r"[✗✘❌✖×🚫¬]|~~|\[\s\]")
#: "Is it a dog?" asks.
_ASKING = re.compile(
    r"(?:^|[.!?\n])\s*(?:is|are|was|could|can|might|would|does)\s(?:it|this|that|these|they|there)\b[^.!?\n]{0,40}$"
)
_UNANSWERED = re.compile(r"\W{0,3}\?(?!\W{1,3}(?:yes|yeah|yep|indeed|correct|right)\b)")
_WOULD = re.compile(r"\bwould (?:be|have been) (?:an? |the )?$")
_AFTER_ALL = re.compile(
    r"[\s,.]{0,3}\b(?:but|however)[\s,]{1,2}(?:it|that|this)(?:'s| is| was| does| did) not(?: one)?"
    r"\s{0,2}(?:[.!?\n]|$)"
    r"|\?\s{0,2}(?:i do not think so|(?:it|that) is not)\b"
)


def affirmed(normal: str, words: list[Token], mentions: list[Mention]) -> list[Mention]:
    """Return the mentions that no cue negates, before them in their clause or right after them."""
    within = {i for m in mentions for i in range(m.first, m.last + 1)}
    lists = _list_ends(normal, words)
    negated_from: set[int] = set()
    negative = False
    for i, token in enumerate(words):
        follows = words[i + 1].word if i + 1 < len(words) else ""
        gap = normal[words[i - 1].end : token.start] if i else ""
        if ends_clause(gap) or (token.word in _TURNS and i not in within):
            # The last item of a list follows its "or".
            negative = negative and gap.strip() == "," and (lists[i] or token.word in ("or", "nor"))
        if i not in within:
            after = words[i - 1].word if i else ""
            pair = (after, token.word) in _CUE_PAIRS and words[max(0, i - 2)].word not in ("none", "no")
            cue = token.word in _CUES or pair
            saying = (token.word, follows) in _SAYINGS and i + 1 not in within
            saying = saying or (after, token.word) in _SAYINGS
            negative = negative or (cue and not saying)
        if negative:
            negated_from.add(i)
    return [
        m
        for m in mentions
        if m.first not in negated_from
        and not _denied(normal, words, m)
        and not negates(normal, words[m.first].start, words[m.last].end)
    ]


def _list_ends(normal: str, words: list[Token]) -> list[bool]:
    """Return for each word whether an "or" follows before its sentence ends, as in "not a cat, dog, or
    bird".
    """
    ends = [False] * len(words)
    for i in range(len(words) - 2, -1, -1):
        gap = normal[words[i].end : words[i + 1].start]
        if not ends_clause(gap.replace(",", "")):
            ends[i] = ends[i + 1] or words[i + 1].word in ("or", "nor")
    return ends


def _denied(normal: str, words: list[Token], mention: Mention) -> bool:
    """Match "The cat is not there", "the cat is clearly not there", "cat: no", "Cat? Not at all."."""
    start, end = words[mention.first].start, words[mention.last].end
    if _CROSSED.match(normal[end : end + 12]) or _UNCHECKED.search(normal[max(0, start - 12) : start]):
        return True
    if _AFTER_ALL.match(normal[end : end + 40]):
        return True
    before, behind = normal[max(0, start - 80) : start], normal[end : end + 40]
    if re.match(r"\W{0,3}\?(?!\W{1,3}(?:yes|yeah|yep|indeed|correct|right)\b)", behind) and _ASKING.search(
        before
    ):
        return True
    if _WOULD.search(before) and re.match(r"\s+if\b", behind):
        return True
    rest = [word.word for word in words[mention.last + 1 : mention.last + 6]]
    if not rest:
        return False
    gap = normal[words[mention.last].end : words[mention.last + 1].start]
    if gap == " " and rest[0] in _GONE:
        return True
    if rest[0] in _DENIALS or rest[:2] == ["not", "at"]:
        behind = normal[words[mention.last + 1].end :][:1]
        return behind == ")" if "(" in gap else bool(re.search(r"[:?=]|\s[-\u2013\u2014]\s", gap))
    if rest[0] == "not" and rest[1:2] and rest[1] in _THERE and re.fullmatch(r"\s?[:=\u2013\u2014-]?\s", gap):
        return True
    if ends_clause(gap):
        return False
    if rest[:2] == ["ruled", "out"]:
        return True
    if len(rest) > 1 and rest[0] in _CALLED:
        rest = rest[1:]
    if rest[0] not in VERBS and rest[0] not in _SEEMS:
        return False
    while len(rest) > 1 and rest[0] not in _REJECTED:
        article = rest[0] in ("a", "an", "the") and rest[1] in ("wrong", "incorrect")
        if not (article or rest[0] in VERBS or rest[0] in _SEEMS or rest[0].endswith("ly")):
            break
        rest = rest[1:]
    return rest[0] in _REJECTED or rest[:2] == ["ruled", "out"]
