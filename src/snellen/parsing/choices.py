"""Read lettered options from free text."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence

from snellen.parsing.formulas import cut_from_a_number, formula
from snellen.parsing.labels import affirmed_labels, parse_label
from snellen.parsing.letters import stated
from snellen.parsing.lists import LOOSE, NEGATIVE, listed
from snellen.parsing.text import (
    ParsedAnswer,
    ParseFailure,
    failure,
    marked_text,
    normalize,
    plain,
    tokenize,
    tokens,
)
from snellen.parsing.yes_no import parse_yes_no

__all__ = ["LETTERS", "parse_choice", "parse_choices", "read_choices"]

LETTERS = string.ascii_uppercase
#: Of an answer with more lines, so many at its beginning and at its end are looked at one by one.
LINES = 30
#: The most characters of an answer that lists several options by their texts.
LONGEST_LIST = 200

Read = tuple[int, ...] | ParseFailure | None


def parse_choice(text: str, options: Sequence[str], *, truncated: bool = False) -> int | ParseFailure:
    """Return the index of the one option that an answer chooses: by its letter in any formatting, or else by
    its text, if that names exactly one option.

    A letter followed by another option's text, a rejected one ("A is wrong"), or several letters are not
    an answer, unless one of them is marked as the answer ("The answer is B") or stands alone on the first
    line.

    >>> parse_choice("**(B)** circle", ["star", "circle"]), parse_choice("It is a star.", ["star", "circle"])
    (1, 0)
    >>> parse_choice("A dog is shown, A or B.", ["star", "circle"])
    ParseFailure(reason='names no option', outcome=<Outcome.UNPARSED: 'unparsed'>)
    """
    chosen = read_choices(text, options, several=False, truncated=truncated).value
    return chosen if isinstance(chosen, ParseFailure) else chosen[0]


def parse_choices(
    text: str, options: Sequence[str], *, truncated: bool = False
) -> tuple[int, ...] | ParseFailure:
    """Return the indices of all options that an answer chooses, in order, if several may be right.

    >>> parse_choices("A, C and D", ["1", "2", "3", "4"]), parse_choices("AC", ["1", "2", "3"])
    ((0, 2, 3), (0, 2))
    """
    return read_choices(text, options, several=True, truncated=truncated).value


def read_choices(
    text: str, options: Sequence[str], *, several: bool, truncated: bool = False
) -> ParsedAnswer[tuple[int, ...]]:
    """Return what :func:`parse_choices` does, or a single index unless ``several`` may be right; and the rule
    that read it: one of :data:`snellen.parsing.letters.RULES`, "whole", "marked", "lines", "clause", "text".
    """
    return _Reader(options, several=several).read(text, truncated)


#: Formatting around letters, and words before them. All patterns match in linear time:
#: none nests a repetition in another.
_DRESSING = str.maketrans(dict.fromkeys("()[]{}<>\"'*_`$#.,:;!?&+/“”‘’。，、：-–—", " "))
_BEFORE = frozenset(
    "the answer answers option options choice choices letter letters is are correct right best final both "
    "and definitely likely probably most clearly therefore thus so hence assistant choose pick select ans "
    "sure certainly of course".split()
)
#: Where the statement of an answer ends and the discussion of others begins.
_AFTER = re.compile(
    r"(?i:\b(?:rather than|instead of|and not|but not|because|since)\b)|,\s*not\s+(?=[(\[*\"']{0,4}[A-Z]\b)"
)
_NOT_BUT = re.compile(
    r"\bnot\b[^.;!?\n]{0,40}\bbut\s+(?:it is\s+|rather\s+|option\s+)?[(\[*\"']{0,4}([A-Z])\b"
)
#: A capital at the start of a text, separated from the rest: "B. circle", "(B) circle", "B - circle".
_BEGINS = re.compile(
    r"[(\[*_\"'`$#\s-]{0,8}([A-Z])(?!['’]\w)(?:[)\]*\"'`$:.,]{1,6}\s*|\s+[-–—]\s+|\s*$)(.*)", re.S
)
#: Words that turn it into a sentence: "(A) is wrong", "A. can be ruled out".
_VERB = re.compile(
    r"(?:is|was|are|seems|looks|can|could|cannot|does|has|would|may|might|shows|says|represents)\b", re.I
)
#: Words directly after an option that reject it.
_TAKEN_BACK = re.compile(
    r"\W{0,4}(?:(?:is|was|are)\s+(?:\w+ly\s+)?(?:not|incorrect|wrong|false)\b|(?:incorrect|wrong|false)\b)"
    r"|\W{0,4}\?\W{0,4}no\b",
    re.I,
)
_FOR = re.compile(
    r"(?:\b(?:answer|option|choice|letter|is|be|choose|select|pick|with|so|therefore|thus|hence)|['’]s)\s+"
    r"(?:(?:definitely|likely|probably|clearly|option|answer|choice|letter)\s+)?[(\[*\"']{0,4}([A-Z])"
    r"[)\]*\"']{0,4}\s*$"
)
_IS_RIGHT = re.compile(
    r"(?:^|\bso\s+|\boption\s+)[(\[*\"']{0,4}([A-Z])[)\]*\"']{0,4}\s+is\s+(?:the\s+)?(?:correct|right|best|answer|true)\b",
    re.I,
)
#: What takes back the answer before it.
_CORRECTS = re.compile(
    r"(?i:\b(?:no,?\swait|wait|correction|scratch\sthat|my\smistake|made\sa\smistake|(?:sorry,?\s)?I\smeant|edit"
    r"|hold\son|on\scloser\s(?:inspection|look)|no,\ssorry|hmm,?\sno|(?<=\.\.)\s?no|but\snow|on\ssecond\sthought"
    r"|looking\s(?:again|more\sclosely|closer)|let\s(?:me)\s(?:correct|reconsider|re-?(?:check|think|examine)))\b)"
)
#: The first part of a text that has a second part.
_FIRST = re.compile(r"(.{0,80}?[A-Z][)\]*\"']{0,4})[.,]\s", re.S)
_AN_OPTION = re.compile(r"(?i:\boption\s+)[(\[*\"']{0,4}([A-Z])\b(?!['’])")


class _Reader:
    """Reads answers about one list of options."""

    def __init__(self, options: Sequence[str], *, several: bool) -> None:
        self.options, self.multi_query = options, several
        self.distinct = tuple(option for option in options if options.count(option) == 1)
        self.texts = {" ".join(option.casefold().split()).rstrip("."): option for option in self.distinct}

        formulas = [formula(option) for option in self.distinct]
        self.formulas = {
            key: option
            for key, option in zip(formulas, self.distinct, strict=True)
            if len(key) > 1 and formulas.count(key) == 1
        }

    def read(self, text: str, truncated: bool) -> ParsedAnswer[tuple[int, ...]]:
        """Return the options that an answer chooses."""
        text = unicodedata.normalize("NFKC", plain(text)).strip()
        if not truncated and (exact := self._exact(text)) is not None:
            return ParsedAnswer(exact, "whole")
        if not self.multi_query and not truncated and (corrected := self._corrected(text)) is not None:
            return corrected
        if self.multi_query and not truncated and (places := listed(text, len(self.options))) is not None:
            return ParsedAnswer(places, "list")
        if not truncated and (found := self._stated(text)) is not None:
            place, rule = found
            return ParsedAnswer((place,), rule)
        stretches = [part.strip() for part in marked_text(text)]
        if truncated:  # a truncated answer may end in half a word
            values = [part if not text.endswith(part) else _FIRST.match(part) for part in stretches]
            stretches = [part if isinstance(part, str) else part[1] for part in values if part is not None]
        if stretches:
            answers = {self._stretch(part) for part in stretches}
            clear = answers - {None}
            if len(clear) == 1 and (answer := next(iter(clear))) is not None:
                return ParsedAnswer(answer, "marked")
            if clear:
                failures = (answer for answer in clear if isinstance(answer, ParseFailure))
                return ParsedAnswer(next(failures, ParseFailure("marks several options as its answer")))
            return ParsedAnswer(self._by_text("\n".join(stretches), text, truncated), "marked")
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        if truncated:
            lines = lines[:-1]
        if (found_in := self._lines(lines)) is not None:
            return ParsedAnswer(found_in, "lines")
        said = self._said(" \n".join(lines))
        if said is not None:
            return ParsedAnswer(said, "clause")
        if truncated:  # the first sentence is the answer; later text was still on the way to one
            first = re.match(r".{1,400}?[.!?\n](?=\s|$)", text, re.S)
            return ParsedAnswer(self._by_text(first[0] if first else "", text, truncated), "text")
        return ParsedAnswer(self._by_text(text, text, truncated), "text")

    def _corrected(self, text: str) -> ParsedAnswer[tuple[int, ...]] | None:
        """Return the answer that takes back another one before it, or that none is left; None if nothing is
        taken back.
        """
        *_, last = [None, *_CORRECTS.finditer(text)]
        if last is None or not _loose(text[: last.start()]) or not _loose(text[last.end() :]):
            return None
        said = self.read(text[last.end() :].lstrip(" ,.:;—–-*"), truncated=False)
        if not isinstance(said.value, ParseFailure):
            return said
        several = len(set(_loose(text))) > 1
        return ParsedAnswer(ParseFailure("takes back its answer")) if several else None

    def _exact(self, text: str) -> tuple[int, ...] | None:
        """Return the option with exactly this text; a single letter means the option's letter."""
        option = self.texts.get(" ".join(text.casefold().strip(" *\"'`\n").split()).rstrip("."))
        option = option or self.formulas.get(formula(text))
        letter = len(text.strip(" *\"'`.()[]\n")) < 2
        return None if option is None or letter else (self.options.index(option),)

    def _stated(self, text: str) -> tuple[int, str] | None:
        """Return the option whose letter an answer states, unless another option's text follows it; and the
        rule.
        """
        if self.multi_query:
            return None
        letters = LETTERS[: len(self.options)]
        for letter, option in zip(letters, self.options, strict=False):  # "(B) dog" states what "B" does
            ends = r"\W{0,4}$" if len(option) == 1 else r"(?!\w)"
            own = rf"(?<![A-Za-z0-9]){letter}[\s).:*\"'=/、\]–-]{{1,4}}\(?{re.escape(option)}\)?(?={ends})"
            text = re.sub(own, letter, text, flags=re.M if len(option) == 1 else 0)
        if (found := stated(text, letters)) is None:
            return None
        (letter, end), rule = found
        place = letters.index(letter)
        before = tokens(text[max(0, end - 200) : end])
        for other, option in enumerate(self.options):  # "sample A" may be option B
            named = tokens(option)
            if other != place and len(named) > 1 and len(named[-1]) == 1 and before[-len(named) :] == named:
                return None
        rest = text[end:].split("\n", 1)[0][:400]
        others = (other for other in range(len(letters)) if other != place)
        return None if any(self._is(rest, other) for other in others) else (place, rule)

    def _lines(self, lines: Sequence[str]) -> Read:
        """Return the first line if it is an answer and nothing else, and no other line is another answer."""
        if not lines:
            return None
        if len(lines) > 2 * LINES:
            lines = [*lines[:LINES], *lines[-LINES:]]
        read = [self._stretch(line) for line in lines]
        places = {i for value in read if isinstance(value, tuple) for i in value}
        first = read[0]
        if first is None and len(lines) == 2 and lines[0].lower().strip(" #*:") in ("answer", "answers"):
            first = read[1]
        if first is None and sum(isinstance(value, tuple) for value in read) < 2:
            return None
        if isinstance(first, tuple) and places <= set(first):
            return first
        if self.multi_query and places and not any(isinstance(value, ParseFailure) for value in read):
            return tuple(sorted(places))
        if len(places) > 1:
            return ParseFailure(f"names several options: {', '.join(LETTERS[i] for i in sorted(places))}")
        return first

    def _stretch(self, text: str) -> Read:
        """Return the options of a text that is only an answer; None if it contains anything else."""
        if (exact := self._exact(text)) is not None:
            return exact
        if (contrary := _NOT_BUT.search(text)) is not None:
            return self._place(contrary[1])
        head = _AFTER.split(text, maxsplit=1)[0]
        if (verbatim := self._verbatim(head)) is not None:
            return verbatim
        letters = _letters(head)
        if letters:
            places = [LETTERS.index(letter) for letter in letters]
            if max(places) >= len(self.options):
                return ParseFailure(f"names no option: {text[:40]!r}")
            if self.multi_query or len(set(places)) == 1:
                return tuple(sorted(set(places)))
            return ParseFailure(f"names several options: {', '.join(sorted(set(letters)))}")
        begins = _BEGINS.fullmatch(_undressed(head))
        if begins is None or LETTERS.index(begins[1]) >= len(self.options) or _VERB.match(begins[2]):
            return None
        place = LETTERS.index(begins[1])
        rest = begins[2].strip()
        own = self._is(rest, place)
        behind = self._behind(rest, place) if own else rest
        if _TAKEN_BACK.match(behind) or _TAKEN_BACK.match(text[len(head) :] if own and not behind else ""):
            return None
        if more := self._listed(behind, place) if own else set():
            if self.multi_query:
                return tuple(sorted({place, *more}))
            return ParseFailure("names several options")
        others = {LETTERS.index(letter) for letter in _loose(rest)} - {place}
        if others & set(range(len(self.options))) and not own:
            return ParseFailure("names several options")
        said = parse_label(rest, self.distinct)
        if isinstance(said, str) and self.options.index(said) != place and not own:
            return ParseFailure(f"the letter {begins[1]}, and the text of another option")
        return (place,)

    def _is(self, rest: str, place: int) -> bool:
        """Return whether a text starts with an option's text."""
        wanted = tokens(self.options[place])
        return bool(wanted) and tokens(rest)[: len(wanted)] == wanted

    def _verbatim(self, text: str) -> tuple[int, ...] | None:
        """Return the option with exactly this letter and text; its text may itself be a letter."""
        begins = _BEGINS.fullmatch(_undressed(text))
        place = LETTERS.index(begins[1]) if begins is not None else len(self.options)
        if begins is None or place >= len(self.options):
            return None
        wanted = tokens(self.options[place])
        return (place,) if wanted and tokens(begins[2]) == wanted else None

    def _behind(self, rest: str, place: int) -> str:
        """Return the rest of a text after the option's text with which it starts."""
        words = tokenize(normalize(rest))[: len(tokens(self.options[place]))]
        return normalize(rest)[words[-1].end :]

    def _listed(self, text: str, place: int) -> set[int]:
        """Return the other options that a normalized text names by letter and text: "b. blue", "(c)
        green".
        """
        places = set()
        for other, option in enumerate(self.options[: len(LETTERS)]):
            wanted = r"\W+".join(map(re.escape, tokens(option)))
            letter = LETTERS[other].lower()
            if other != place and wanted and re.search(rf"(?<!\w){letter}\b[)\].:*\s-]+{wanted}\b", text):
                places.add(other)
        return places

    def _place(self, letter: str) -> Read:
        place = LETTERS.index(letter)
        return (place,) if place < len(self.options) else ParseFailure(f"names no option: {letter!r}")

    def _said(self, text: str) -> Read:
        """Return what running text says in favor of an option, clause by clause; rejections do not count."""
        places: set[int] = set()
        for sentence in re.split(r"(?<!\b[A-Z])[.!?](?=\s|$)|[.!?](?=\s*$)|\n", text):
            if re.match(r"\s*(?:if|unless|suppose)\b", sentence, re.I) or "all but" in sentence.lower():
                continue
            if (contrary := _NOT_BUT.search(sentence)) is not None:
                places.add(LETTERS.index(contrary[1]))
                continue
            for clause in re.split(r"[,;:]|\bbut\b", sentence):
                said = _AFTER.split(clause, maxsplit=1)[0].strip(" .*")
                if NEGATIVE.search(said):
                    continue
                for pattern in (_FOR, _IS_RIGHT):
                    if (match := pattern.search(said)) is not None and match[1].isupper():
                        places.add(LETTERS.index(match[1]))
        within = sorted(place for place in places if place < len(self.options))
        if len(within) > 1 and not self.multi_query:
            return ParseFailure(f"names several options: {', '.join(LETTERS[i] for i in within)}")
        return tuple(within) or None

    def _by_text(self, within: str, text: str, truncated: bool) -> tuple[int, ...] | ParseFailure:
        """Return the option whose text an answer names, in the same way as class names."""
        said = self._named(within, truncated)
        if isinstance(said, str):
            place = self.options.index(said)
            # The letter in "Vitamin C" is the option's own.
            own = re.compile(rf"(?<!\w){re.escape(said)}(?!\w)", re.I)
            around = own.sub(lambda match: re.sub(r"\w", "x", match[0]), within)
            others = {LETTERS.index(letter) for letter in (*_loose(around), *_AN_OPTION.findall(around))}
            if (others & set(range(len(self.options)))) - {place} and len(tokens(said)) < len(tokens(within)):
                return ParseFailure("the text of one option, and the letter of another")
            if cut_from_a_number(said, within):
                return ParseFailure("names no option, but a number that holds one")
            return (place,)
        if said.reason.startswith("names several"):
            named = affirmed_labels(within, self.distinct) if len(within) <= LONGEST_LIST else None
            if self.multi_query and named and not truncated:
                return tuple(sorted(map(self.options.index, named)))
            return failure(text, truncated, "names several options")
        return failure(text, truncated, "names no option")

    def _named(self, text: str, truncated: bool) -> str | ParseFailure:
        """Return the one option that a text names. Yes and no are read as such: the "no" in "there is no
        one" is not an answer.
        """
        polar = {word: option for option in self.distinct for word in [" ".join(tokens(option))]}
        if not {"yes", "no"} <= set(polar):
            return parse_label(text, self.distinct, truncated=truncated)
        # No statement says which: "There is no one in the room" answers "Is the room empty?" with yes.
        said = parse_yes_no(text, truncated=truncated, question="")
        if not isinstance(said, ParseFailure):
            return polar["yes" if said else "no"]
        others = [option for word, option in polar.items() if word not in ("yes", "no")]
        return parse_label(text, others, truncated=truncated) if others else said


def _undressed(text: str) -> str:
    """Strip the words that introduce an answer: "The answer is", "Option"."""
    words = text.split(" ")
    last = len(words) - 1
    first = next((i for i, word in enumerate(words) if word.lower().strip(":*") not in _BEFORE), last)
    return " ".join(words[min(first, last) :])


def _letters(text: str) -> str:
    """Return the letters of a text with nothing but letters and their formatting; empty if it has anything
    else.
    """
    words = text.translate(_DRESSING).split()
    if len(words) > 60:
        return ""
    first = next((i for i, word in enumerate(words) if word.lower() not in _BEFORE), len(words))
    rest = [word for word in words[first:] if word.lower() != "and"]
    if len(rest) == 1 and len(rest[0]) == 1 and rest[0].isascii() and rest[0].isalpha():
        return rest[0].upper()
    if not rest or not all(word.isascii() and word.isalpha() and word.isupper() for word in rest):
        return ""
    if len(rest) == 1:  # "ACD", but not a word: letters in order, each once
        return rest[0] if list(rest[0]) == sorted(set(rest[0])) else ""
    return "".join(rest) if all(len(word) == 1 for word in rest) else ""


def _loose(text: str) -> list[str]:
    return LOOSE.findall(text[:2000])
