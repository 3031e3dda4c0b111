"""Read yes or no from free text, by an ordered table of rules: the first one that finds an answer decides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from snellen.parsing.lexicon import YES_NO
from snellen.parsing.statements import YesNoText, foreign_statement, statement
from snellen.parsing.text import (
    ParsedAnswer,
    ParseFailure,
    ends_clause,
    failure,
    marked,
    normalize,
    plain,
    tokenize,
)

__all__ = ["parse_yes_no", "read_yes_no"]

#: The characters of an answer that may come again.
SHORT = 64


def _phrases(text: str) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(t.word for t in tokenize(phrase)) for phrase in normalize(text).split(","))


_YES = _phrases(", ".join(yes for yes, _ in YES_NO.values()))
_NO = _phrases(", ".join(no for _, no in YES_NO.values()))
#: Words that answer only if a clause ends behind them ("Correct, …").
_AGREES = _phrases(
    "true, correct, that is right, that's right, that is correct, that's correct, absolutely, definitely, "
    "indeed, affirmative, exactly, 正确, 没错, verdadero, vrai, richtig, verdadeiro, vero, верно, صحيح, "
    "doğru, सही, ถูกต้อง, benar, betul, así es, por supuesto que sí, efectivamente, effectivement, "
    "tout à fait, genau, esatto, certo, isso mesmo, com certeza, конечно, đúng vậy, kesinlikle, elbette"
)
_DISAGREES = _phrases(
    "false, incorrect, wrong, that is wrong, that's wrong, that is not correct, that is not right, "
    "that is incorrect, not correct, not true, not at all, not really, probably not, most likely not, "
    "i do not think so, i do not believe so, by no means, negative, 错误, 错, 不正确, falso, faux, falsch, "
    "неверно, خطأ, yanlış, गलत, ผิด, sai, salah"
)
#: Words that answer only if they are the whole answer; before more text, they are politeness.
_ALONE = {
    True: _phrases(
        "sure, certainly, of course, y, 1, right, okay, ok, i think so, i believe so, it is, it does, it has,"
        "they are, they do, there is, there are, yes it is, he is, she is, he does, she does"
    ),
    False: _phrases(
        "n, 0, none, neither, never, it is not, it does not, they are not, they do not, there is not, "
        "there are not, he is not, she is not, he does not, she does not, none that i can see"
    ),
}
#: Words after a bare "no" without punctuation that make it an answer ("No there is not").
_AFTER_NO = frozenset("there it its this that the i we in a an because since as".split())
#: Words after "yes" or "no" that make it a possibility ("Yes would need a dog").
_IF = frozenset("would could might may means requires needs if".split())
#: Words before an answer in its sentence ("Unfortunately, no", "I would say yes", "(A) Yes").
_FILLERS = frozenset(
    "unfortunately actually well hmm sorry sure indeed i d would say think believe so my guess is thus ok "
    "okay probably most likely answer go with therefore hence then oh ah hm just simply clearly no doubt "
    "without a b c option certainly it s was but".split()
)
#: Both in one breath, if the second one ends its clause: "Yes and no.", but not "Yes, no dogs are there".
_BOTH = re.compile(
    r"\byes\b[^\w.!?;:\n]*(?:(?:but|and|or|then)\W+)?no\b(?=\s*(?:[.,;:!?\n]|$))"
    r"|\bno\b[^\w.!?;:\n]*(?:(?:but|and|or|then)\W+)?yes\b(?=\s*(?:[.,;:!?\n]|$))"
)
_OFFERED = re.compile(r"\byes\b\W{0,3}(?:or|/)\W{0,3}no\b|\bno\b\W{0,3}(?:or|/)\W{0,3}yes\b")


def parse_yes_no(text: str, *, truncated: bool = False, question: str | None = None) -> bool | ParseFailure:
    """Return whether an answer says yes or no: where it is marked, at its start or at the start of a
    sentence, or as a statement ("There is no dog").

    Args:
        text: The answer.
        truncated: Whether it was cut off, so that its last word may be half of one.
        question: The question. With it, a statement counts only if it is about what was asked.

    >>> parse_yes_no("**Yes**, there is."), parse_yes_no("There is no dog.")
    (True, False)
    >>> parse_yes_no("I have no idea")
    ParseFailure(reason='says neither yes nor no', outcome=<Outcome.UNPARSED: 'unparsed'>)
    """
    return read_yes_no(text, truncated=truncated, question=question).value


def read_yes_no(text: str, *, truncated: bool = False, question: str | None = None) -> ParsedAnswer[bool]:
    """Return what :func:`parse_yes_no` does, and which of the :data:`RULES` decided."""
    read = _read_again if len(text) <= SHORT else _read
    return read(text, truncated, question)


def _read(text: str, truncated: bool, question: str | None) -> ParsedAnswer[bool]:
    text = plain(text)
    normal = _OFFERED.sub(" ", re.sub("[、。،।]", ". ", normalize(text)).replace("ๆ", ""))
    words = tokenize(normal)
    cut = truncated and len(words) > 1
    if cut and words[-1].end == len(normal):
        words = words[:-1]
    if _BOTH.search(normal):
        return ParsedAnswer(failure(text, truncated, "says both yes and no"))
    answer = YesNoText(normal, words, cut, question)
    for name, rule in RULES.items():
        said = set(rule(answer))
        if len(said) == 1 and (one := next(iter(said))) is not None:
            return ParsedAnswer(one, name)
        if said:
            reason = "says both yes and no" if {True, False} <= said else "says neither yes nor no"
            return ParsedAnswer(failure(text, truncated, reason))
    return ParsedAnswer(failure(text, truncated, "says neither yes nor no"))


#: Most answers are a word, the same again and again.
_read_again = lru_cache(maxsize=1024)(_read)

_JSON = re.compile(r"[\"'](\w{1,40})[\"']\s{0,4}:\s{0,4}[\"']?(yes|no|true|false)[\"']?\s{0,4}(?=[,}\n])")


def _json(answer: YesNoText) -> Iterator[bool | None]:
    """``{"answer": true}``; among several keys, the one called answer."""
    found = {key: value in ("yes", "true") for key, value in _JSON.findall(answer.normal)}
    named = [value for key, value in found.items() if "answer" in key]
    yield from named or (found.values() if len(found) == 1 else ())


_CORRECTED = re.compile(
    r"\b(?:wait|correction|scratch that|my mistake|on second thought|i meant)\b[\s,.:;\u2014-]{1,6}"
    r"(?:(?:the|my) answer (?:is|should be) |it(?:'s| is| should be) )?[\"'*]{0,3}(yes|no)\b"
    r"(?=\W{0,3}(?:[.,;!\n]|$))"
)


def _corrected(answer: YesNoText) -> Iterator[bool | None]:
    """``Yes. Wait, no.``: the last word takes back what was said before it."""
    *_, last = [None, *_CORRECTED.finditer(answer.normal)]
    if last is not None and not answer.cut and not re.search(r"\b(?:yes|no)\b", answer.normal[last.end() :]):
        yield last[1] == "yes"


def _marked(answer: YesNoText) -> Iterator[bool | None]:
    """``Answer: yes``: a marked answer starts with its word, and nothing outside it counts."""
    for stretch in marked(answer.normal, answer.words):
        yield _said(answer, stretch[0])


def _whole(answer: YesNoText) -> Iterator[bool | None]:
    """``Sure.``, ``0``: an answer of nothing but such words."""
    for value, phrases in _ALONE.items():
        length = answer.phrase(0, phrases)
        if length and length == len(answer.words):
            yield value


def _opening(answer: YesNoText) -> Iterator[bool | None]:
    """``No. It is a cat.``, ``Looking at the image, yes``: at the start of a sentence or a line, also after
    fillers or an introduction.
    """
    for i, token in enumerate(answer.words):
        if token.word in _FIRST_WORDS and _opens(answer, i) and (said := _said(answer, i)) is not None:
            yield said


_FIRST_WORDS = {phrase[0] for phrases in (_YES, _NO, _AGREES, _DISAGREES) for phrase in phrases}
_COPULA = re.compile(
    r"\b(?:is|be|say|(?:is|that['’]s|it['’]s)\sa|答案是)\s{0,3}[\"'*(]{0,3}(yes|no|true|false|是|否|有|没有)\b(?=\W{0,4}(?:[.!?\n]|$))"
    r"|\b(?:statement|claim|assertion|sentence|this|that|it)\s+(?:is|seems|appears)\s+"
    r"(?:(not)\s+)?(?:(true|correct|right|accurate)|(?:false|incorrect|wrong|inaccurate))\b(?=\W{0,4}(?:[.!?\n]|$))"
)
_OPEN = re.compile(r"\b(?:not|if|whether)\b")


def _copula(answer: YesNoText) -> Iterator[bool | None]:
    """``The response is no.``, ``The statement is not correct.``"""
    for match in _COPULA.finditer(answer.normal):
        if _OPEN.search(answer.normal[max(0, match.start() - 40) : match.start()]):
            continue
        said, negated, right = match.groups()
        yield said in ("yes", "true", "是", "有") if said else (right is not None) != (negated is not None)


#: The rules in their order, by name.
RULES: dict[str, Callable[[YesNoText], Iterator[bool | None]]] = {
    "json": _json,
    "correction": _corrected,
    "marked": _marked,
    "whole": _whole,
    "opening": _opening,
    "copula": _copula,
    "statement": statement,
    "foreign statement": foreign_statement,
}


def _said(answer: YesNoText, i: int) -> bool | None:
    """Return what the words from number ``i`` on would mean in the position of an answer."""
    for value, phrases in ((False, _NO), (True, _YES), (False, _DISAGREES), (True, _AGREES)):
        if not (length := answer.phrase(i, phrases)):
            continue
        behind = i + length
        follows = answer.words[behind].word if behind < len(answer.words) else None
        gap = answer.gap(behind)
        if gap.lstrip(" *_\"')").startswith("?"):
            return None
        if follows is None:  # "doubt" may have followed in a truncated answer
            return None if answer.cut and not value and not ends_clause(gap) else value
        if follows in _IF:
            return None
        if ends_clause(gap):
            return value
        if answer.words[i].word in ("yes", "yeah", "yep") or (
            answer.words[i].word == "no" and follows in _AFTER_NO
        ):
            return value
    return None


#: How an introduction starts: "Looking at the image, yes".
_INTRODUCES = frozenset("looking based according in from judging given on at considering after as by".split())


#: What starts the end of a sentence of reasoning: "Both are equal, so yes".
_CONCLUDES = frozenset("so thus therefore hence but".split())


def _opens(answer: YesNoText, i: int) -> bool:
    """Return whether the word at ``i`` starts a sentence or a line, ignoring fillers and an introduction."""
    words = answer.words
    if i and "," in answer.gap(i):
        first = i - 1
        while first and i - first < 12 and not re.search(r"[.!?:;\n,]", answer.gap(first)):
            first -= 1
        if words[first].word in _INTRODUCES and (not first or re.search(r"[.!?:;\n]", answer.gap(first))):
            return True
    start = i
    while i and start - i < 12:
        gap = answer.gap(i)
        if re.search(r"[.!?:;\n]", gap) or ("," in gap and words[i].word in _CONCLUDES):
            return True
        i -= 1
        if words[i].word not in _FILLERS:
            return False
    return not i
