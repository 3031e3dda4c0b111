"""Text to answer, or to a :class:`ParseFailure`: pure functions, one library for every protocol.

Nothing is guessed. A name counts only as whole words; of names within names the longest counts; a
negated name does not count; an answer that names several classes is a failure, unless it marks one of
them as its answer ("The answer is …"); so is one that was cut off where its last name may go on.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from snellen.types import Outcome

__all__ = [
    "ParseFailure",
    "is_refusal",
    "parse_label",
    "parse_yes_no",
    "split_thinking",
    "strip_thinking",
    "tokens",
]


@dataclass(frozen=True, slots=True)
class ParseFailure:
    """Why no answer could be read, and the outcome that it makes."""

    reason: str
    outcome: Outcome = Outcome.UNPARSED

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Token:
    """A word of normalised text and where it stands."""

    word: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Mention:
    """A run of tokens [first, last] that is a form of these labels (several: of the same form)."""

    first: int
    last: int
    labels: frozenset[str]


# ── text ────────────────────────────────────────────────────────────────────────────────────────────


def strip_thinking(text: str) -> str:
    """Leave out what stands in thinking tags; an unclosed one hides all that follows it.

    >>> strip_thinking("<think>a cat? no.</think> dog")
    ' dog'
    """
    return split_thinking(text)[1]


def split_thinking(text: str) -> tuple[str, str]:
    """What stands in thinking tags, and what does not; an unclosed tag hides all that follows it.

    >>> split_thinking("<think>a cat? no.</think> dog")
    ('a cat? no.', ' dog')
    """
    text = text.replace("◁", "<").replace("▷", ">")  # as Kimi-VL writes its tags
    tag = r"(?:think|thinking|thought|reasoning|scratchpad)"
    thoughts: list[str] = []

    def keep(found: re.Match[str]) -> str:
        thoughts.append(found["thought"])
        return ""

    for pattern in (
        rf"<(?P<tag>{tag})>(?P<thought>.*?)</(?P=tag)>",
        rf"^(?P<thought>.*)</{tag}>",  # the opening tag was in the prompt
        rf"<{tag}>(?P<thought>.*)$",
    ):
        text = re.sub(pattern, keep, text, flags=re.S | re.I)
    return "\n".join(thoughts), text


def _normalise(text: str) -> str:
    """One form for letters that look or sound the same: NFKC, case folded, "isn't" as "is not"."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = re.sub(r"[\u2018\u2019\u02bc`´]", "'", text)
    return re.sub(r"n't\b", " not", re.sub(r"\bcan't\b|\bcannot\b", "can not", text))


def _tokenise(normal: str) -> list[Token]:
    """Maximal runs of letters, digits and their combining marks."""
    found: list[Token] = []
    start = None
    for i, char in enumerate(f"{normal} "):
        if char.isalnum() or unicodedata.category(char)[0] == "M":
            start = i if start is None else start
        elif start is not None:
            found.append(Token(normal[start:i], start, i))
            start = None
    return found


def tokens(text: str) -> tuple[str, ...]:
    """The words of a text as the parser sees them.

    >>> tokens("Jack-o’-Lantern!")
    ('jack', 'o', 'lantern')
    """
    return tuple(token.word for token in _tokenise(_normalise(text)))


_REFUSAL = re.compile(
    r"\b(?:i(?: am|'m) (?:sorry|unable|not able)|(?:i )?(?:can ?not|could not|will not|won't|am unable to|"
    r"am not able to|must decline|decline)\b.{0,40}?\b(?:assist|help|answer|identify|determine|provide|"
    r"comply|process|view|see|tell|describe|recogni[sz]e|analy[sz]e|classify)|as an ai\b|"
    r"i do not have the ability|unable to (?:assist|help|answer|identify|determine|view|see|process))"
)


def is_refusal(text: str) -> bool:
    """Whether the text declines to answer ("I'm sorry, but I can't …")."""
    return bool(_REFUSAL.search(_normalise(text)))


def _failure(text: str, truncated: bool, reason: str) -> ParseFailure:
    if not text.strip():
        reason = "empty answer"
    elif is_refusal(text):
        return ParseFailure("refusal", Outcome.REFUSED)
    if truncated:
        return ParseFailure(f"cut off: {reason}", Outcome.TRUNCATED)
    return ParseFailure(reason)


# ── names ───────────────────────────────────────────────────────────────────────────────────────────

_IRREGULAR = {
    "man": "men",
    "woman": "women",
    "person": "people",
    "child": "children",
    "mouse": "mice",
    "goose": "geese",
    "foot": "feet",
    "tooth": "teeth",
    "ox": "oxen",
    "leaf": "leaves",
    "loaf": "loaves",
    "wolf": "wolves",
    "calf": "calves",
    "half": "halves",
    "shelf": "shelves",
    "elf": "elves",
    "thief": "thieves",
    "scarf": "scarves",
    "knife": "knives",
    "life": "lives",
    "wife": "wives",
    "cactus": "cacti",
    "fungus": "fungi",
}
_REGULAR = {plural: single for single, plural in _IRREGULAR.items()}
#: Words in -s that are no plurals of the word without it (a glass is not glasses).
_NO_PLURAL = frozenset("glasses eyeglasses sunglasses news lens gas series species".split())


def _numbers(word: str) -> Iterator[str]:
    """The other grammatical number of a word: its plural, and its singular if it looks like a plural."""
    if len(word) < 2 or not word.isalpha():
        return
    if f"{word}es" in _NO_PLURAL or f"{word}s" in _NO_PLURAL:
        return
    if word in _IRREGULAR:
        yield _IRREGULAR[word]
    if word in _REGULAR:
        yield _REGULAR[word]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        yield f"{word}es"
    elif word.endswith("y") and word[-2] not in "aeiou":
        yield f"{word[:-1]}ies"
    else:
        yield f"{word}s"
        if word.endswith("o"):
            yield f"{word}es"
    if word in _NO_PLURAL or len(word) < 4 or word.endswith(("ss", "us", "is")):
        return
    if word.endswith("ies"):
        yield f"{word[:-3]}y"
    elif word.endswith(("ses", "xes", "zes", "ches", "shes")):
        yield word[:-2]
    if word.endswith("s"):
        yield word[:-1]


class _Vocabulary:
    """Every form of every label: its name, synonyms, other grammatical number, words run together.

    A form that is the very name of one label is never taken as a mere variant of another.
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
        for label, more in synonyms:
            for name in more if label in known else ():
                others.setdefault(tokens(name), set()).add(label)
        for form, owners in [*names.items(), *others.items()]:
            for variant in _variants(form):
                variants.setdefault(variant, set()).update(owners)
        for name in (*labels, *(n for _, more in synonyms for n in more)):
            self.gaps |= {c for c in _normalise(name) if not c.isalnum()}
        self.forms = {**variants, **others, **names}
        self.forms.pop((), None)
        self.by_first: dict[str, list[tuple[str, ...]]] = {}
        for form in self.forms:
            self.by_first.setdefault(form[0], []).append(form)
        # Words run together or parted ("light house" for "lighthouse"); names before their variants.
        self.squeezed: dict[str, set[str]] = {}
        for table in (names, others, variants):
            found: dict[str, set[str]] = {}
            for form, owners in table.items():
                found.setdefault("".join(form), set()).update(owners)
            self.squeezed = {**found, **self.squeezed}
        self.squeezed.pop("", None)

    def mentions(self, normal: str, words: list[Token]) -> list[Mention]:
        """All mentions that do not overlap, the longest first to be taken."""
        found = []
        for i, token in enumerate(words):
            for form in self.by_first.get(token.word, ()):
                run = words[i : i + len(form)]
                if tuple(t.word for t in run) == form and self._together(normal, run):
                    found.append(Mention(i, i + len(form) - 1, frozenset(self.forms[form])))
            for parts in range(1, 4):
                run = words[i : i + parts]
                owners = self.squeezed.get("".join(t.word for t in run))
                if len(run) == parts and owners and self._together(normal, run):
                    found.append(Mention(i, i + parts - 1, frozenset(owners)))
        free = bytearray(b"\1" * len(words))
        taken: list[Mention] = []
        for mention in sorted(found, key=lambda m: (m.first - m.last, m.first)):
            span = slice(mention.first, mention.last + 1)
            if all(free[span]):
                free[span] = bytes(mention.last + 1 - mention.first)
                taken.append(mention)
        whole = [m for m in taken if not _within_compound(normal, words, m)]
        return sorted(whole, key=lambda m: m.first)

    def _together(self, normal: str, run: list[Token]) -> bool:
        """Nothing between the words that would part them; a full stop may follow an abbreviation."""
        gaps = ((a.word, normal[a.end : b.start]) for a, b in pairwise(run))
        return all(set(g.replace(".", "") if len(w) <= 2 else g) <= self.gaps for w, g in gaps)

    def goes_on(self, form: tuple[str, ...]) -> bool:
        """Whether some longer name begins with this one."""
        begun = self.by_first.get(form[0], ())
        return any(len(other) > len(form) and other[: len(form)] == form for other in begun)


def _within_compound(normal: str, words: list[Token], mention: Mention) -> bool:
    """Whether a hyphen joins the name to another word: a sea-lion is no lion."""
    start, end = words[mention.first].start, words[mention.last].end
    before, after = normal[max(0, start - 2) : start], normal[end : end + 2]
    return bool(re.fullmatch(r"\w[-\u2010\u2011]", before) or re.fullmatch(r"[-\u2010\u2011]\w", after))


def _squeeze(text: str) -> str:
    return " ".join(_normalise(text).split())


def _variants(form: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if form:
        for word in _numbers(form[-1]):
            yield (*form[:-1], word)
    if len(form) > 1:
        yield ("".join(form),)


@lru_cache(maxsize=64)
def _vocabulary(labels: tuple[str, ...], synonyms: tuple[tuple[str, tuple[str, ...]], ...]) -> _Vocabulary:
    return _Vocabulary(labels, synonyms)


# ── negation ────────────────────────────────────────────────────────────────────────────────────────

_CUES = frozenset(
    "not no never neither nor without except excluding unlike lack lacks lacking hardly absence mistaken "
    "confused".split()
)
_CUE_PAIRS = {("rather", "than"), ("instead", "of"), ("other", "than"), ("opposed", "to")}
#: Sayings in which a cue does not negate.
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
_TURNS = frozenset("but however".split())
_VERBS = frozenset("is are was were does do did can could would should has have".split())
_CLAUSE_END = re.compile(r"[.,;:!?<>()\[\]{}\n\u2014\u2013|]|\s-\s")


def _affirmed(normal: str, words: list[Token], mentions: list[Mention]) -> list[Mention]:
    """The mentions that no cue negates, before them in their clause or right after them."""
    within = {i for m in mentions for i in range(m.first, m.last + 1)}
    lists = _list_ends(normal, words)
    negated_from: set[int] = set()
    negative = False
    for i, token in enumerate(words):
        follows = words[i + 1].word if i + 1 < len(words) else ""
        gap = normal[words[i - 1].end : token.start] if i else ""
        if _ends_clause(gap) or (token.word in _TURNS and i not in within):
            negative = negative and gap.strip() == "," and lists[i]
        if i not in within:
            after = words[i - 1].word if i else ""
            pair = (after, token.word) in _CUE_PAIRS and words[max(0, i - 2)].word not in ("none", "no")
            cue = token.word in _CUES or pair
            saying = (token.word, follows) in _SAYINGS
            negative = negative or (cue and not saying)
        if negative:
            negated_from.add(i)
    return [m for m in mentions if m.first not in negated_from and not _denied(normal, words, m)]


def _ends_clause(gap: str) -> bool:
    return bool(_CLAUSE_END.search(gap))


def _list_ends(normal: str, words: list[Token]) -> list[bool]:
    """For each word, whether an "or" follows before its sentence ends, as in "not a cat, dog, or bird"."""
    found = [False] * len(words)
    for i in range(len(words) - 2, -1, -1):
        gap = normal[words[i].end : words[i + 1].start]
        if not _ends_clause(gap.replace(",", "")):
            found[i] = found[i + 1] or words[i + 1].word in ("or", "nor")
    return found


def _denied(normal: str, words: list[Token], mention: Mention) -> bool:
    """ "The cat is not there", "cat: no"."""
    rest = words[mention.last + 1 : mention.last + 3]
    if not rest:
        return False
    gap = normal[words[mention.last].end : rest[0].start]
    if rest[0].word in ("no", "false"):
        return bool(re.search(r"[:?=]|\s[-\u2013\u2014]\s", gap))
    if _ends_clause(gap) or len(rest) < 2:
        return False
    return rest[0].word in _VERBS and rest[1].word in ("not", "absent", "never")


#: An answer that is longer has lost its way, and would take long to read.
LONGEST = 20_000

# ── answers ─────────────────────────────────────────────────────────────────────────────────────────

_MARKER = re.compile(
    r"\b(?P<final>(?:final|correct|right)\s+)?(?:answer|option|choice)['\"*_]*"
    r"(?:\s+(?:to|for|of)\s[^.:\n]{0,80}?)?\s*(?:is|would be|:|=)['\"*_:]*\s*(?:that\s)?"
    r"|(?P<box>\\boxed\s*\{)|(?P<tag><answer>)"
)
#: Where a marked stretch ends; the full stop of an abbreviation ("St. Bernard") ends nothing.
_STRETCH_END = re.compile(r"\n|(?<!\b\w)(?<!\b\w\w)[.!?](?=\s|$)")


def _marked(normal: str, words: list[Token]) -> list[list[int]]:
    """The words (by number) of each stretch that the answer itself marks as its answer; where some are
    marked as final, those alone.
    """
    found = list(_MARKER.finditer(normal))
    final = [m for m in found if m["final"] or m["box"] or m["tag"]]
    stretches = []
    for marker in final or found:
        closing = re.compile(r"\}") if marker["box"] else re.compile("</answer>") if marker["tag"] else None
        start = marker.end() + len(normal[marker.end() :]) - len(normal[marker.end() :].lstrip(" \n\t*_:\"'"))
        stop = (closing or _STRETCH_END).search(normal, start)
        end = stop.start() if stop else len(normal)
        first = bisect_left(words, start, key=lambda token: token.start)
        last = bisect_left(words, end, key=lambda token: token.start)
        if first < last:
            stretches.append(list(range(first, last)))
    return stretches


def parse_label(
    text: str,
    labels: Iterable[str],
    synonyms: Mapping[str, tuple[str, ...]] | None = None,
    *,
    truncated: bool = False,
) -> str | ParseFailure:
    """The one label that an answer names.

    Casing, punctuation, Markdown, quotes, articles, hyphens and underscores, Unicode forms and
    grammatical number do not matter.

    Args:
        text: the answer.
        labels: the label set.
        synonyms: other names of labels.
        truncated: the answer was cut off: its last word may not be whole.

    >>> parse_label("**A Polar-Bear.**", ["polar bear", "bear"])
    'polar bear'
    >>> parse_label("It's not a dog, it's a cat", ["cat", "dog"])
    'cat'
    >>> parse_label("scarf and caterpillar", ["car", "cat"])
    ParseFailure(reason='names no class', outcome=<Outcome.UNPARSED: 'unparsed'>)
    """
    labels = tuple(labels)
    more = tuple((k, tuple(v)) for k, v in sorted((synonyms or {}).items()))
    vocabulary = _vocabulary(labels, more)
    text = strip_thinking(text)
    if len(text) > LONGEST:
        return ParseFailure(f"an answer of {len(text):,} characters; at most {LONGEST:,} are read")
    if text.strip() in labels and not truncated:
        return text.strip()
    normal = _normalise(text)
    words = _tokenise(normal)
    cut = truncated and bool(words)
    if cut and words[-1].end == len(normal):  # the last word may be half a word
        words = words[:-1]
    if not truncated:
        whole = vocabulary.exact.get(_squeeze(text)) or vocabulary.squeezed.get(_bare(words))
        if whole and len(whole) == 1:
            return next(iter(whole))
    mentions = vocabulary.mentions(normal, words)
    if cut and mentions and mentions[-1].last == len(words) - 1:
        last = mentions[-1]
        if vocabulary.goes_on(tuple(t.word for t in words[last.first :])):
            mentions = mentions[:-1]
    affirmed = _affirmed(normal, words, mentions)
    stretches = _marked(normal, words)
    if stretches:  # then what stands elsewhere is no answer, and where it names no class, there is none
        inside = {i for stretch in stretches for i in stretch}
        affirmed = [m for m in affirmed if m.first in inside and m.last in inside]
    named = {m.labels for m in affirmed}
    if len(named) == 1 and len(only := next(iter(named))) == 1:
        return next(iter(only))
    several = sorted({label for group in named for label in group})
    reason = f"names several classes: {', '.join(several[:5])}" if named else "names no class"
    return _failure(text, truncated, reason)


def _bare(words: list[Token]) -> str:
    """The words run together, without a leading article."""
    if len(words) > 1 and words[0].word in ("a", "an", "the"):
        words = words[1:]
    return "".join(token.word for token in words)


_YES = frozenset("yes yeah yep yup y true".split())
_NO = frozenset("no nope nah n false".split())
#: What may follow a bare "no" without punctuation for it to be an answer ("No there is not").
_AFTER_NO = frozenset("there it its this that the i we in a an because since as".split())
#: What may stand before an answer in its sentence ("Unfortunately, no", "I would say yes").
_FILLERS = frozenset(
    "unfortunately actually well hmm sorry sure indeed i d would say think believe so my guess is".split()
)
_BOTH = re.compile(
    r"\byes\b\W*(?:(?:but|and|or|then)\W+)?no\b(?!\s+(?:doubt|question))"
    r"|\bno\b\W*(?:(?:but|and|or|then)\W+)?yes\b"
)


def parse_yes_no(text: str, *, truncated: bool = False) -> bool | ParseFailure:
    """Whether an answer says yes or no: at its start, at that of a sentence, or where it is marked.

    >>> parse_yes_no("**Yes**, there is."), parse_yes_no("The answer is no.")
    (True, False)
    >>> parse_yes_no("I have no idea")
    ParseFailure(reason='says neither yes nor no', outcome=<Outcome.UNPARSED: 'unparsed'>)
    """
    text = strip_thinking(text)[:LONGEST]
    normal = re.sub(r"\byes\b\W{0,3}(?:or|/)\W{0,3}no\b|\byes\s*/\s*no\b", " ", _normalise(text))
    words = _tokenise(normal)
    cut = truncated and len(words) > 1
    if cut and words[-1].end == len(normal):
        words = words[:-1]
    if _BOTH.search(normal):
        return _failure(text, truncated, "says both yes and no")
    stretches = _marked(normal, words)
    # A marked answer begins with its word; whatever else it says, nothing outside it counts.
    places = [s[0] for s in stretches] or [i for i in range(len(words)) if _opens(normal, words, i)]
    decided = {_said(normal, words, i, cut) for i in places} - (set() if stretches else {None})
    if len(decided) == 1 and (answer := next(iter(decided))) is not None:
        return answer
    reason = "says both yes and no" if len(decided - {None}) > 1 else "says neither yes nor no"
    return _failure(text, truncated, reason)


def _said(normal: str, words: list[Token], i: int, cut: bool) -> bool | None:
    """What the word at ``i`` would say if it stood where an answer stands."""
    word = words[i].word
    follows = words[i + 1] if i + 1 < len(words) else None
    short = len(words) == 1
    if word in _YES and (len(word) > 1 or short) and (word != "true" or short):
        return True
    if word not in _NO or ((len(word) == 1 or word == "false") and not short):
        return None
    if follows is None:  # where the answer was cut off, "doubt" may have followed
        return None if cut and not _ends_clause(normal[words[i].end :]) else False
    if _ends_clause(normal[words[i].end : follows.start]):
        return False
    return False if follows.word in _AFTER_NO else None


def _opens(normal: str, words: list[Token], i: int) -> bool:
    """Whether the word at ``i`` begins a sentence or a line, fillers apart."""
    while i:
        if re.search(r"[.!?:;\n]", normal[words[i - 1].end : words[i].start]):
            return True
        i -= 1
        if words[i].word not in _FILLERS:
            return False
    return True
