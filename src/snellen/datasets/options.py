"""Read the options of a question, and which of them is right, from cells of tables."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from snellen.datasets.cells import as_list
from snellen.parsing.choices import LETTERS

__all__ = ["UNKNOWN", "WAYS", "AnswerAs", "answers_of", "by_letter", "options_in", "separated", "unlettered"]

#: How a cell names the right option.
AnswerAs = Literal["letter", "letters", "index", "number", "text", "yes-no"]
#: Those that name an option. An index counts from 0, a number from 1.
WAYS: tuple[AnswerAs, ...] = ("letter", "letters", "index", "number", "text")
#: Cells that mean "unknown", as in test splits whose answers are secret.
UNKNOWN = frozenset({"", "nan", "none", "null", "?", "-1", "-1.0", "n/a"})


def by_letter(value: Any) -> dict[str, str] | None:
    """Return the options of an object of letters, which may be written as JSON; None if it is no such object.

    >>> by_letter('{"A": "red", "B": 2}'), by_letter("red")
    ({'A': 'red', 'B': '2'}, None)
    """
    if isinstance(value, str) and value.strip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if not isinstance(value, Mapping):
        return None
    letters = {str(key).strip().strip("().").upper(): text for key, text in value.items()}
    if not letters or any(len(key) != 1 or key not in LETTERS for key in letters):
        return None
    texts = {letter: letters[letter] for letter in sorted(letters)}
    return {letter: "" if text is None else str(text).strip() for letter, text in texts.items()}


def separated(text: str) -> list[str]:
    """Split texts in one cell at line ends, semicolons, bars, or letters in parentheses.

    >>> separated("red; blue;green"), separated("a, b"), separated("one")
    (['red', 'blue', 'green'], ['a, b'], ['one'])
    >>> separated("(a) Open (b) Closed"), separated("(b) one (a) two")
    (['Open', 'Closed'], ['(b) one (a) two'])
    """
    pieces = re.split(r"(?:^|\s)\(([a-zA-Z])\)\s+", text.strip())
    letters, texts = "".join(pieces[1::2]).upper(), [piece.strip() for piece in pieces[2::2]]
    if not pieces[0] and len(texts) > 1 and letters == LETTERS[: len(texts)] and all(texts):
        return texts
    for mark in ("\n", ";", "|"):
        parts = [part.strip() for part in text.split(mark)]
        if len(parts) > 1 and all(parts):
            return parts
    return [text]


#: An option's letter and text: "A) 3.5", "(A) 3.5", "[A] 3.5", "A. 3.5", "A: 3.5".
_LETTERED = re.compile(r"(?:[\[(]([A-Z])[\])]|([A-Z])(?:\)|[.:](?=\s)))\s*(.*)", re.S)


def unlettered(options: Sequence[str]) -> list[str]:
    """Strip the letters from options if each has the letter of its position."""
    read = [match for option in options if (match := _LETTERED.fullmatch(option)) is not None]
    letters = "".join(match[1] or match[2] for match in read)
    if len(read) < len(options) or len(read) < 2 or letters != LETTERS[: len(read)]:
        return list(options)
    return [match[3] for match in read]


#: Where an option can start in a question: at the start of a line, or after a comma.
_STYLES = (
    re.compile(r"(?:^|\n)[^\S\n]{0,8}\(([A-Z])\)\s{0,8}"),
    re.compile(r"(?:^|\n)[^\S\n]{0,8}([A-Z])[.)]\s{1,8}"),
    re.compile(r"(?:^|\n|,|Options:)\s{0,8}([A-Z]):\s{1,8}"),
    re.compile(r"(?:^|\n)[^\S\n]{0,8}([A-Z]):(?!//)"),
)
_HEADING = re.compile(r"\n?\s{0,8}(?:Options|Choices)\s{0,4}:?\s{0,8}$", re.I)
_ASKED_AFTER = re.compile(r"\n(?=(?:choose|please|answer|select)\b)", re.I)


def options_in(text: str) -> tuple[str, dict[str, str]]:
    r"""Split a question that ends in its options, in the style that gives the longest run A, B, C …

    >>> options_in("How many?\nOptions: A: 1, B: 2, or so, C: 3")
    ('How many?', {'A': '1', 'B': '2, or so', 'C': '3'})
    """
    best: list[re.Match[str]] = []
    for style in _STYLES:
        run: list[re.Match[str]] = []
        for match in style.finditer(text):
            if match[1] == LETTERS[len(run)]:
                run.append(match)
            elif match[1] == "A":
                run = [match]
        if len(run) > len(best):
            best = run
    if len(best) < 2:
        return text, {}
    head = _HEADING.sub("", text[: best[0].start()]).rstrip()
    ends = [*(match.start() for match in best[1:]), len(text)]
    options = {m[1]: text[m.end() : end].strip() for m, end in zip(best, ends, strict=True)}
    last = best[-1][1]
    # Text after the last option asks for a letter and is not part of the option.
    options[last] = _ASKED_AFTER.split(options[last])[0].strip()
    return head, options


def answers_of(value: Any, options: Mapping[str, str], how: AnswerAs) -> tuple[int, ...]:
    """Return the positions of the correct options; empty if the cell names none."""
    keys, texts = list(options), list(options.values())
    if how in ("index", "number"):
        number = re.fullmatch(r"(\d{1,9})(?:\.0)?", str(value).strip())
        place = int(number[1]) - (how == "number") if number else -1
        # A place among all options, including empty ones, which are not shown.
        letter = LETTERS[place] if 0 <= place < len(LETTERS) else ""
        return (keys.index(letter),) if letter in keys else ()
    said = "" if value is None else str(value).strip()
    if how == "letters":
        if said.startswith("[") and isinstance(value, str):
            value = as_list(said) or value
        listed = " ".join(map(str, value)) if isinstance(value, list) else said
        letters = re.findall("[A-Z]", listed) if re.fullmatch(r"[A-Z](?:[\s,;/&]*[A-Z])*", listed) else []
        return tuple(sorted({keys.index(letter) for letter in letters if letter in keys}))
    if how == "text":
        return tuple(i for i, text in enumerate(texts) if text == said)[:1]
    if len(said) > 1 and said in texts:
        return (texts.index(said),)
    match = re.fullmatch(r"[\[(]?([A-Za-z])(?:[\]).:].*|)", said, re.S)
    return (keys.index(match[1].upper()),) if match is not None and match[1].upper() in keys else ()
