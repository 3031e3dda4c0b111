"""Read class names from free text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise

from snellen.parsing.negation import SIGNS_AGAINST, VERBS, Mention, affirmed
from snellen.parsing.plurals import other_numbers
from snellen.parsing.scripts import Splitter
from snellen.parsing.text import (
    ParsedAnswer,
    ParseFailure,
    Token,
    capped,
    failure,
    marked,
    normalize,
    strip_thinking,
    tokenize,
    tokens,
)

__all__ = ["affirmed_labels", "parse_label", "read_label"]


# ── names ───────────────────────────────────────────────────────────────────────────────────────────


class _Vocabulary:
    """Every form of every label: its name, synonyms, other grammatical number, words joined.

    A form that is the exact name of one label is never taken as a variant of another.
    """

    def __init__(self, labels: tuple[str, ...], synonyms: tuple[tuple[str, tuple[str, ...]], ...]):
        names: dict[tuple[str, ...], set[str]] = {}
        others: dict[tuple[str, ...], set[str]] = {}
        variants: dict[tuple[str, ...], set[str]] = {}
        known = set(labels)
        self.exact: dict[str, set[str]] = {}
        self.gaps = set(" \t-_'/*\"&\u2010\u2011")
        for label in labels:
            names.setdefault(tokens(label), set()).add(label)
            self.exact.setdefault(_squeeze(label), set()).add(label)
        # "tench, Tinca tinca" has two names.
        listed = [(label, tuple(label.split(","))) for label in labels if "," in label]
        for label, more in (*synonyms, *listed):
            for name in more if label in known else ():
                others.setdefault(tokens(name), set()).add(label)
        for form, owners in [*names.items(), *others.items()]:
            for variant in _variants(form):
                variants.setdefault(variant, set()).update(owners)
        for name in (*labels, *(n for _, more in synonyms for n in more)):
            self.gaps |= {c for c in normalize(name) if not c.isalnum()}
        self.forms = {**variants, **others, **names}
        self.forms.pop((), None)
        self.by_first: dict[str, list[tuple[str, ...]]] = {}
        for form in self.forms:
            self.by_first.setdefault(form[0], []).append(form)
        # Words joined or split ("light house" for "lighthouse"); names before their variants.
        self.squeezed: dict[str, set[str]] = {}
        for table in (names, others, variants):
            names_of: dict[str, set[str]] = {}
            for form, owners in table.items():
                names_of.setdefault("".join(form), set()).update(owners)
            self.squeezed = {**names_of, **self.squeezed}
        self.squeezed.pop("", None)
        self.beginnings = {name[: i + 1] for name in self.squeezed for i in range(len(name))}
        self.spelled = {name: normalize(name).strip() for name in labels}
        self.splitter = Splitter({word for form in self.forms for word in form})

    def mentions(self, normal: str, words: list[Token]) -> list[Mention]:
        """Return all non-overlapping mentions, preferring the longest."""
        mentions = []
        for i, token in enumerate(words):
            if token.word not in self.beginnings:
                continue
            article = _is_article(normal, words, i)
            for form in self.by_first.get(token.word, ()):
                run = words[i : i + len(form)]
                if article and len(form) == 1:
                    continue
                if tuple(t.word for t in run) == form and self.together(normal, run):
                    owners = self.told_apart(normal, run, self.forms[form])
                    mentions.append(Mention(i, i + len(form) - 1, owners))
            joined = ""
            if article:
                continue
            for parts, part in enumerate(words[i : i + 3], start=1):
                joined += part.word
                if joined not in self.beginnings:
                    break
                owned = None if (joined,) in self.forms and parts == 1 else self.squeezed.get(joined)
                if owned and self.together(normal, run := words[i : i + parts]):
                    mentions.append(Mention(i, i + parts - 1, self.told_apart(normal, run, owned)))
        free = bytearray(b"\1" * len(words))
        taken: list[Mention] = []
        for mention in sorted(mentions, key=lambda m: (m.first - m.last, m.first)):
            span = slice(mention.first, mention.last + 1)
            if all(free[span]):
                free[span] = bytes(mention.last + 1 - mention.first)
                taken.append(mention)
        outside_compounds = [m for m in taken if not _within_compound(normal, words, m)]
        return sorted(outside_compounds, key=lambda m: m.first)

    def together(self, normal: str, run: list[Token]) -> bool:
        """Return whether nothing separates the words; a period may follow an abbreviation."""
        gaps = ((a.word, normal[a.end : b.start]) for a, b in pairwise(run))
        return all(set(g.replace(".", "") if len(w) <= 2 else g) <= self.gaps for w, g in gaps)

    def told_apart(self, normal: str, run: list[Token], owners: Iterable[str]) -> frozenset[str]:
        """Return those of several names with the same words whose signs stand there: C++, C# or C."""
        owners = frozenset(owners)
        if len(owners) < 2:
            return owners
        found: dict[str, str] = {}
        for owner in owners:
            spelled = self.spelled.get(owner, "")
            start = run[0].start - (len(spelled) - len(spelled.lstrip(_SIGNS)))
            end = start + len(spelled)
            before, behind = normal[max(0, start - 1) : start], normal[end : end + 1]
            begins, ends = spelled[:1] in _SIGNS, spelled[-1:] in _SIGNS
            joined = (begins and before.isalnum()) or (ends and behind.isalnum())
            # What is left of the signs there, but for those that end a sentence, belongs to another name.
            if start >= 0 and normal[start:end] == spelled and not joined and behind not in ("+", "#", "%"):
                found[owner] = spelled
        longest = max(map(len, found.values()), default=0)
        if not found:
            return owners
        return frozenset(owner for owner, spelled in found.items() if len(spelled) == longest)

    def goes_on(self, form: tuple[str, ...]) -> bool:
        """Return whether a longer name starts with this one."""
        begun = self.by_first.get(form[0], ())
        return any(len(other) > len(form) and other[: len(form)] == form for other in begun)


#: Signs that tell names with the same words apart.
_SIGNS = "+-#%$.*/!?@&^~=<>\u2212"


def _is_article(normal: str, words: list[Token], i: int) -> bool:
    """Return whether "a" or "I" is a word of the sentence rather than a class: "a letter", "I see"."""
    word = words[i].word
    if word not in ("a", "i") or i + 1 == len(words):
        return False
    follows = words[i + 1]
    adjacent = normal[words[i].end : follows.start] in (" ", "'")
    return adjacent and (word == "i" or follows.word not in VERBS)


def _within_compound(normal: str, words: list[Token], mention: Mention) -> bool:
    """Return whether a hyphen joins the name to another word: a sea-lion is not a lion."""
    start, end = words[mention.first].start, words[mention.last].end
    before, after = normal[max(0, start - 2) : start], normal[end : end + 2]
    return bool(re.fullmatch(r"\w[-\u2010\u2011]", before) or re.fullmatch(r"[-\u2010\u2011]\w", after))


def _squeeze(text: str) -> str:
    return " ".join(normalize(text).split())


def _variants(form: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if form:
        for word in other_numbers(form[-1]):
            yield (*form[:-1], word)
    if len(form) > 1:
        yield ("".join(form),)


@lru_cache(maxsize=64)
def _vocabulary(labels: tuple[str, ...], synonyms: tuple[tuple[str, tuple[str, ...]], ...]) -> _Vocabulary:
    return _Vocabulary(labels, synonyms)


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────


def parse_label(
    text: str,
    labels: Iterable[str],
    synonyms: Mapping[str, tuple[str, ...]] | None = None,
    *,
    truncated: bool = False,
) -> str | ParseFailure:
    """Return the one label that an answer names.

    Ignores case, punctuation, Markdown, quotes, articles, hyphens, Unicode forms, and grammatical number.

    Args:
        text: the answer.
        labels: the label set.
        synonyms: other names of labels.
        truncated: the answer was cut off, so its last word may be incomplete.

    >>> parse_label("**A Polar-Bear.**", ["polar bear", "bear"])
    'polar bear'
    >>> parse_label("It's not a dog, it's a cat", ["cat", "dog"])
    'cat'
    >>> parse_label("scarf and caterpillar", ["car", "cat"])
    ParseFailure(reason='names no class', outcome=<Outcome.UNPARSED: 'unparsed'>)
    """
    return read_label(text, labels, synonyms, truncated=truncated).value


def read_label(
    text: str,
    labels: Iterable[str],
    synonyms: Mapping[str, tuple[str, ...]] | None = None,
    *,
    truncated: bool = False,
) -> ParsedAnswer[str]:
    """Return what :func:`parse_label` does, and whether the name was the whole answer, marked, or named in a
    text.
    """
    labels = tuple(labels)
    more = tuple((k, tuple(v)) for k, v in sorted((synonyms or {}).items()))
    vocabulary = _vocabulary(labels, more)
    text = capped(strip_thinking(text))
    if text.strip() in labels and not truncated:
        return ParsedAnswer(text.strip(), "whole")
    normal = normalize(text)
    words = vocabulary.splitter.split(tokenize(normal))
    cut = truncated and bool(words)
    if cut and words[-1].end == len(normal):  # the last word may be incomplete
        words = words[:-1]
    if not truncated:
        exact = vocabulary.exact.get(_squeeze(text))
        if not exact and vocabulary.together(normal, words) and not SIGNS_AGAINST.search(text):
            exact = vocabulary.squeezed.get(_bare(words))
        if exact and len(exact) == 1:
            return ParsedAnswer(next(iter(exact)), "whole")
    mentions = vocabulary.mentions(normal, words)
    if cut and mentions and mentions[-1].last == len(words) - 1:
        last = mentions[-1]
        if vocabulary.goes_on(tuple(t.word for t in words[last.first :])):
            mentions = mentions[:-1]
    named_here = affirmed(normal, words, mentions)
    stretches = marked(normal, words)
    if stretches:  # then text elsewhere is not an answer, and if the marked part names no class, nothing does
        inside = {i for stretch in stretches for i in stretch}
        named_here = [m for m in named_here if m.first in inside and m.last in inside]
    named = {m.labels for m in named_here}
    if len(named) == 1 and len(only := next(iter(named))) == 1:
        return ParsedAnswer(next(iter(only)), "marked" if stretches else "named")
    several = sorted({label for group in named for label in group})
    reason = f"names several classes: {', '.join(several[:5])}" if named else "names no class"
    return ParsedAnswer(failure(text, truncated, reason))


def affirmed_labels(text: str, labels: Iterable[str]) -> set[str] | None:
    """Return all labels that a text names without negating them; None if a name belongs to several.

    >>> sorted(affirmed_labels("a cat and a bird, but no dog", ["cat", "dog", "bird"]))
    ['bird', 'cat']
    """
    vocabulary = _vocabulary(tuple(labels), ())
    normal = normalize(text)
    words = vocabulary.splitter.split(tokenize(normal))
    named = {mention.labels for mention in affirmed(normal, words, vocabulary.mentions(normal, words))}
    return None if any(len(owners) > 1 for owners in named) else {next(iter(owners)) for owners in named}


def _bare(words: list[Token]) -> str:
    """Return the words joined, without a leading article."""
    if len(words) > 1 and words[0].word in ("a", "an", "the"):
        words = words[1:]
    return "".join(token.word for token in words)
