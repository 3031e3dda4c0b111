"""Read yes or no from free text."""

from __future__ import annotations

import re

from snellen.parsing.text import (
    LONGEST,
    ParseFailure,
    Token,
    ends_clause,
    failure,
    marked,
    normalize,
    strip_thinking,
    tokenize,
)

__all__ = ["parse_yes_no"]

_YES = frozenset("yes yeah yep yup y true".split())
_NO = frozenset("no nope nah n false".split())
#: Words after a bare "no" without punctuation that make it an answer ("No there is not").
_AFTER_NO = frozenset("there it its this that the i we in a an because since as".split())
#: Words before an answer in its sentence ("Unfortunately, no", "I would say yes").
_FILLERS = frozenset(
    "unfortunately actually well hmm sorry sure indeed i d would say think believe so my guess is".split()
)
_BOTH = re.compile(
    r"\byes\b\W*(?:(?:but|and|or|then)\W+)?no\b(?!\s+(?:doubt|question))"
    r"|\bno\b\W*(?:(?:but|and|or|then)\W+)?yes\b"
)


def parse_yes_no(text: str, *, truncated: bool = False) -> bool | ParseFailure:
    """Return whether an answer says yes or no: at its start, at the start of a sentence, or where it is
    marked.

    >>> parse_yes_no("**Yes**, there is."), parse_yes_no("The answer is no.")
    (True, False)
    >>> parse_yes_no("I have no idea")
    ParseFailure(reason='says neither yes nor no', outcome=<Outcome.UNPARSED: 'unparsed'>)
    """
    text = strip_thinking(text)[:LONGEST]
    normal = re.sub(r"\byes\b\W{0,3}(?:or|/)\W{0,3}no\b|\byes\s*/\s*no\b", " ", normalize(text))
    words = tokenize(normal)
    cut = truncated and len(words) > 1
    if cut and words[-1].end == len(normal):
        words = words[:-1]
    if _BOTH.search(normal):
        return failure(text, truncated, "says both yes and no")
    stretches = marked(normal, words)
    # A marked answer starts with its word, and nothing outside it counts.
    places = [s[0] for s in stretches] or [i for i in range(len(words)) if _opens(normal, words, i)]
    decided = {_said(normal, words, i, cut) for i in places} - (set() if stretches else {None})
    if len(decided) == 1 and (answer := next(iter(decided))) is not None:
        return answer
    reason = "says both yes and no" if len(decided - {None}) > 1 else "says neither yes nor no"
    return failure(text, truncated, reason)


def _said(normal: str, words: list[Token], i: int, cut: bool) -> bool | None:
    """Return what the word at ``i`` would mean in the position of an answer."""
    word = words[i].word
    follows = words[i + 1] if i + 1 < len(words) else None
    short = len(words) == 1
    if word in _YES and (len(word) > 1 or short) and (word != "true" or short):
        return True
    if word not in _NO or ((len(word) == 1 or word == "false") and not short):
        return None
    if follows is None:  # "doubt" may have followed in a truncated answer
        return None if cut and not ends_clause(normal[words[i].end :]) else False
    if ends_clause(normal[words[i].end : follows.start]):
        return False
    return False if follows.word in _AFTER_NO else None


def _opens(normal: str, words: list[Token], i: int) -> bool:
    """Return whether the word at ``i`` starts a sentence or a line, ignoring fillers."""
    while i:
        if re.search(r"[.!?:;\n]", normal[words[i - 1].end : words[i].start]):
            return True
        i -= 1
        if words[i].word not in _FILLERS:
            return False
    return True
