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
    "mistaken confused kein keine keinen nicht weder pas não не bukan tidak không".split()
)
_CUE_PAIRS = {
    ("anything", "but"),
    ("rather", "than"),
    ("instead", "of"),
    ("other", "than"),
    ("opposed", "to"),
    ("least", "likely"),
    ("wrong", "to"),
    ("nie", "jest"),
    *product(("non",), ("è", "é", "sono")),
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
}
#: What denies a name only directly before it: "zero dogs", but not "zero-sugar lemonade"; "sans chien", but
#: not "sans doute un chien"; "if it is a dog", but not "if I had to guess, a dog".
_RIGHT_BEFORE = re.compile(
    r"(?:^|(?<=[\s(]))(?:zero|far from|free (?:of|from)|devoid of|negative for|nothing like|exclud(?:e|es|ed)"
    r"|eliminat(?:e|es|ed)|rul(?:e|es|ed|ing) out|ohne|sans|aucune?|senza|nessuna?|sin|ningún|ninguna"
    r"|sem|nenhuma?|zonder|geen|bez|inte|ingen|inget|utan|нет|без|non"
    r"|i (?:really |seriously )?doubt (?:that |whether |if )?(?:it|this|that|there)(?:'s| is)"
    r"|(?:unlikely|impossible) (?:to be|that (?:it|this|that)(?:'s| is))"
    r"|(?<!as )(?:if|whether) (?:it|this|that|there)(?:'s| is| was| were)) "
    r"(?:(?:an?|any|the|en|ett|een|eine?|une?|una|uma?) )?$"
)
_TURNS = frozenset("but however sondern mais mas ma pero а tapi melainkan mà sino".split())
#: Words that turn a name into the subject of a sentence.
VERBS = frozenset("is are was were does do did can could would should has have".split())


#: What denies the name before it: behind a colon, at the end of a clause there, behind a verb, behind "not".
_DENIALS = frozenset("no false".split())
_ENTRIES = frozenset("nope nah none absent negative unlikely incorrect wrong excluded".split())
#: The same right behind the name, and what a name may be called before its verb.
_GONE = frozenset("absent negative yok değil".split())
_CALLED = frozenset("option class label answer choice".split())
_SEEMS = frozenset("be been seems looks sounds".split())
_REJECTED = frozenset("not never absent incorrect wrong".split())
#: These only at the end of a clause: the cat that is excluded from the house is a cat.
_OUT = frozenset("unlikely impossible excluded eliminated rejected".split())
_THERE = frozenset("present visible shown seen there detected found".split())
#: A cross behind a name, an empty box before it, and "but it is not" at the end of its sentence.
_CROSSED = re.compile(r"\s{0,2}[:=\u2013\u2014-]?\s{0,2}[✗✘❌✖]|~~")
_UNCHECKED = re.compile(r"[-*]\s?\[\s?\]\s{1,3}$|[✗✘❌✖🚫¬]\s?$")
#: Signs that take back what they stand at.
SIGNS_AGAINST = re.compile(r"[✗✘❌✖🚫¬]|~~|\[\s\]")
#: "Is it a dog?" asks.
_ASKING = re.compile(
    r"(?:^|[.!?\n])\s*(?:is|are|was|could|can|might|would|does)\s(?:it|this|that|these|they|there)\b[^.!?\n]{0,40}$"
)
_WOULD = re.compile(r"\bwould (?:be|have been) (?:an? |the )?$")
_IF_IT_HAD = re.compile(r"\s+if (?:it|this|that|they) (?:had|has|were|was)\b")
_AFTER_ALL = re.compile(
    r"[\s,.]{0,3}\b(?:but|however)[\s,]{1,2}(?:it|that|this)(?:'s| is| was| does| did) not(?: one)?"
    r"\s{0,2}(?:[.!?\n]|$)"
    r"|\?\s{0,2}(?:i do not think so|(?:it|that) is not)\b"
)
#: Words behind "no" that make it no answer: "I have no idea".
_NOT_NO = frozenset("idea way clue means doubt question information reason need".split())


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
    before, behind = normal[max(0, start - 80) : start], normal[end : end + 40]
    if _CROSSED.match(behind) or _UNCHECKED.search(before) or _AFTER_ALL.match(behind):
        return True
    if _RIGHT_BEFORE.search(before) or (_WOULD.search(before) and _IF_IT_HAD.match(behind)):
        return True
    if not normal[end:].strip(" ?*_\n\"'") and "?" in behind and _ASKING.search(before):
        return True
    rest = _clause(normal, words, mention.last)
    if not rest:
        return False
    gap = normal[words[mention.last].end : words[mention.last + 1].start]
    if words[mention.last].word == "no" and gap == " " and rest[0] in _NOT_NO:
        return True
    return _entered(normal, words, mention.last, gap, rest) or (not ends_clause(gap) and _said_of(rest, gap))


def _clause(normal: str, words: list[Token], last: int) -> list[str]:
    """Return the next words, up to the end of their clause, at most six."""
    rest: list[str] = []
    for i in range(last + 1, min(len(words), last + 7)):
        if rest and ends_clause(normal[words[i - 1].end : words[i].start]):
            break
        rest.append(words[i].word)
    return rest


def _entered(normal: str, words: list[Token], last: int, gap: str, rest: list[str]) -> bool:
    """Match "cat: no", "cat (wrong)", "cat? Not at all."."""
    closes = re.match(r"\)?\s{0,2}(?:[.,;!\n)]|$)", normal[words[last + 1].end :]) is not None
    if "(" in gap:
        return closes and rest[0] in _DENIALS | _ENTRIES
    if rest[0] in _DENIALS or rest[:2] == ["not", "at"]:
        return bool(re.search(r"[:?=]|\s[-\u2013\u2014]\s", gap))
    itself = words[last].word in _ENTRIES | _DENIALS  # a class may be called "absent"
    if rest[0] == "not" and rest[1:2] and rest[1] in _THERE:
        return gap == " " or (":" in gap and not itself)
    return rest[0] in _ENTRIES and closes and not itself and bool(re.search(r"[:?=]", gap))


def _said_of(rest: list[str], gap: str) -> bool:
    """Match "the cat is clearly not there", "the cat option can be ruled out", "cat absent"."""
    if gap == " " and (rest[0] in _GONE or rest[:2] == ["ruled", "out"]):
        return True
    if len(rest) > 1 and rest[0] in _CALLED:
        rest = rest[1:]
    if rest[0] not in VERBS and rest[0] not in _SEEMS:
        return False
    seems = rest[0] in _SEEMS
    while len(rest) > 1 and rest[0] not in _REJECTED:
        article = rest[0] in ("a", "an", "the") and rest[1] in ("wrong", "incorrect")
        if not (article or rest[0] in VERBS or rest[0] in _SEEMS or rest[0].endswith("ly")):
            break
        rest = rest[1:]
    if rest[:2] in (["not", "wrong"], ["not", "incorrect"]):
        return False
    if seems or rest[0] in _OUT:  # what looks wrong side up is there
        return rest[0] in _REJECTED | _OUT and len(rest) == 1
    return rest[0] in _REJECTED or rest[:2] == ["ruled", "out"]
