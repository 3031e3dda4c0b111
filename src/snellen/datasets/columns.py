"""Map columns of a table to the parts of a sample."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from snellen._util.words import counted
from snellen.datasets.cells import as_list, boxes_in, missing, outlines_in, texts_of
from snellen.datasets.options import (
    UNKNOWN,
    WAYS,
    AnswerAs,
    answers_of,
    by_letter,
    options_in,
    separated,
    unlettered,
)
from snellen.errors import BadOption, DataError, did_you_mean
from snellen.parsing.choices import LETTERS
from snellen.types import Outline, Region

__all__ = ["COLUMNS", "ROLES", "AnswerAs", "BoxAs", "ColumnMapping", "Parts", "document_columns", "values_at"]

F = TypeVar("F", bound=Callable[..., Any])

BoxAs = Literal["xywh", "xyxy", "unit-xywh", "unit-xyxy"]

#: Default column names; the first that exists is used.
USUAL = {
    "image": tuple(
        "image img image_path imagepath path filepath file_name filename file image_name image_bytes".split()
    ),
    "label": ("label", "class", "class_name", "category", "target", "fine_label", "labels"),
    "id": ("id", "index", "image_id", "uid", "key"),
    "question": ("question",),
}

#: Parts of a sample that protocols read, so that a column is never taken for one by its name alone.
ROLES = ("hint", "pair", "rationale")

OPTIONS = """``image`` (several, separated by commas), ``label``, ``id``: column names (the usual names
    are found automatically); an image is a path, base64 text, or bytes. For other tasks: ``question``
    (empty if it stands in the picture); ``reference``: columns of reference answers or captions (a dot
    leads into nested cells); ``choices``: the columns of the options, one column with a list, a JSON
    object of letters, or texts separated by ; | or line ends, or the question's column if it ends in the
    options; ``answer`` with ``answer_as`` (letter, which is usual, letters, index from 0, number from 1,
    text, yes-no); ``hint``; ``rationale``; ``category``, to break down figures by; ``pair``: rows with equal
    values form a pair; ``box`` with ``box_as`` (xywh, xyxy, unit-xywh, unit-xyxy), ``box_label`` and
    ``polygon``; ``each``: a column of lists whose items are separate questions."""


@dataclass(frozen=True, kw_only=True)
class ColumnMapping:
    """Which column holds what; None if absent, or if the usual names are to be tried."""

    image: tuple[str, ...] = ()
    label: str | None = None
    id: str | None = None
    question: str | None = None
    reference: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    answer: str | None = None
    answer_as: AnswerAs | None = None
    hint: str | None = None
    rationale: str | None = None
    category: str | None = None
    pair: tuple[str, ...] = ()
    box: str | None = None
    box_as: BoxAs = "xywh"
    box_label: str | None = None
    polygon: str | None = None
    each: str | None = None

    def named(self) -> dict[str, str]:
        """All named columns, by role."""
        roles = {}
        for option in fields(self):
            value = getattr(self, option.name)
            for column in (value,) if isinstance(value, str) else value or ():
                if column and not option.name.endswith("_as"):
                    roles[column.partition(".")[0]] = option.name
        return roles

    def resolve(self, present: Sequence[str], where: str) -> ColumnMapping:
        """Fill in the usual column names, where they exist.

        Raises:
            BadOption: a named column does not exist.
            DataError: no column of images.
        """
        for column, role in self.named().items():
            if column not in present:
                raise BadOption(
                    f"{role}={column!r}: no such column in {where}.{did_you_mean(column, present)} "
                    f"Its columns: {', '.join(present)}."
                )
        spelled = {column.casefold(): column for column in reversed(list(present))}
        usual = {
            role: next((spelled[name] for name in names if name in spelled), None)
            for role, names in USUAL.items()
        }
        image = self.image or ((usual["image"],) if usual["image"] else ())
        if not image:
            raise DataError(
                f"{where}: no image column among {', '.join(present)}. Set it with: -D image=COLUMN"
            )
        # A column with another role is not the label; nor is any column of a table of questions.
        other = self.asks or self.question is not None
        free = None if other or usual["label"] in self.named() else usual["label"]
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        if usual["id"] is not None and usual["id"].casefold() == "image_id" and (other or self.reference):
            usual["id"] = None  # several questions about an image
        resolved = {
            "image": image,
            "label": self.label or free,
            "id": usual["id"] if self.id is None else self.id,
        }
        if self.asks or self.reference:
            resolved["question"] = usual["question"] if self.question is None else self.question
        return ColumnMapping(**{**values, **resolved})

    @property
    def protocol(self) -> str | None:
        """The protocol that fits these columns, for the default."""
        if self.box is not None:
            return "grounding"
        if self.answer_as == "yes-no" and self.answer is not None:
            return "yes-no"
        if self.choices:
            return "rationale" if self.rationale else "multiple-choice"
        if self.reference and self.label is None:
            return "caption" if self.question is None else "vqa"
        return None

    @property
    def asks(self) -> bool:
        """Whether the rows are for a task other than classification."""
        return bool(self.answer or self.choices or self.box or self.each)

    def parts(self, record: Mapping[str, Any], item: int | None = None) -> Parts:
        """Return a row's content apart from image, label and id; ``item`` is an index into the ``each``
        list.
        """
        question = _text(record, self.question) if self.question else self.question
        if self.question and not question and self.each is None:
            raise DataError(f"{self.question}: the question is empty.")
        options = self._options(record)
        if options is None and self.choices and question:
            question, options = options_in(question)
        if self.each is not None and item is not None:
            question = values_at(record, self.each)[item]
        options = options or {}
        if len(options) == 1:
            raise DataError(
                f"{', '.join(self.choices)}: a single option, {self._named(options)}. Options in one cell "
                'are a list, a JSON object of letters ({"A": "red", "B": "blue"}), or separated by ; | or '
                "line ends; those in several columns are set with choices=COLUMN,COLUMN"
            )
        references = tuple(
            text for path in self.reference for text in values_at(record, path) if text.strip()
        )
        answers: tuple[int, ...] = ()
        if self.answer is not None:
            said = _at(record, self.answer)
            if self.answer_as == "yes-no":
                references = (_YES_NO.get(str(said).strip().lower().removesuffix(".0"), str(said)),)
            elif options:
                how = self.answer_as or "letter"
                answers = answers_of(said, options, how)
                if not answers and str(said).strip().casefold() not in UNKNOWN:
                    raise DataError(
                        f"{self.answer}={str(said)[:60]!r} is none of the options ({self._named(options)}), "
                        f"read as answer_as={how}. {self._other_ways(said, options)}"
                    )
        if answers:
            references = tuple(list(options.values())[i] for i in answers)
        extra = {
            role: text
            for role, column in (
                ("hint", self.hint),
                ("rationale", self.rationale),
                ("category", self.category),
            )
            if column is not None and (text := "\n".join(values_at(record, column))) not in ("", "nan")
        }
        if self.hint is not None:
            extra.setdefault("hint", "")
        if self.pair:
            parts = [record.get(column) for column in self.pair]
            if not any(map(missing, parts)):  # otherwise it forms no pair
                extra["pair"] = "/".join(map(str, parts))
        return Parts(
            question, tuple(options.values()), answers, references, extra, self._regions(record, question)
        )

    def _options(self, record: Mapping[str, Any]) -> dict[str, str] | None:
        """Return options by their column or position; None if they are part of the question."""
        if len(self.choices) > 1:
            # By the letters of their positions: a column can have any name.
            options = {LETTERS[i]: _text(record, column) or "" for i, column in enumerate(self.choices)}
            return {letter: text for letter, text in options.items() if text not in ("", "nan")}
        if not self.choices or self.choices == (self.question,):
            return None
        lettered = by_letter(_at(record, self.choices[0]))
        if lettered is not None:
            return {letter: text for letter, text in lettered.items() if text not in ("", "nan")}
        listed = [text.strip() for text in values_at(record, self.choices[0], gaps=True, numbers=True)]
        if len(listed) == 1 and isinstance(_at(record, self.choices[0]), str):
            listed = separated(listed[0])
        if len(listed) > len(LETTERS):
            raise DataError(f"{len(listed)} options, but there are only {len(LETTERS)} letters.")
        # Empty options keep their letter, since the answer may be given by letter.
        return {x: text for x, text in zip(LETTERS, unlettered(listed), strict=False) if text}

    @staticmethod
    def _named(options: Mapping[str, str]) -> str:
        shown = ", ".join(f"{letter}: {text[:30]!r}" for letter, text in list(options.items())[:5])
        return f"{shown}{' …' if len(options) > 5 else ''}"

    @staticmethod
    def _other_ways(said: Any, options: Mapping[str, str]) -> str:
        """Say which reading of the answer would match an option."""
        ways = [way for way in WAYS if answers_of(said, options, way)]
        if ways:
            return f"Set another with -D answer_as={ways[0]}."
        return f"Allowed: {', '.join(WAYS)} (-D answer_as=)."

    def _corners(self, box: Sequence[float]) -> tuple[float, float, float, float]:
        """Return a box as left, top, right, bottom."""
        a, b, c, d = box
        corners = (a, b, a + c, b + d) if self.box_as.endswith("xywh") else (a, b, c, d)
        left, top, right, bottom = corners
        if not all(map(math.isfinite, corners)) or right <= left or bottom <= top:
            raise DataError(f"{self.box}={list(box)} as {self.box_as} has no area.")
        return corners

    def _regions(self, record: Mapping[str, Any], question: str | None) -> tuple[tuple[Region, bool], ...]:
        """Return regions, and whether their numbers are fractions of the picture."""
        if self.box is None:
            return ()
        boxes = boxes_in(_at(record, self.box), self.box)
        names = values_at(record, self.box_label) if self.box_label else [question or ""] * len(boxes)
        if len(names) != len(boxes):
            raise DataError(
                f"{counted(len(boxes), 'box', 'boxes')} and {counted(len(names), 'name')} ({self.box_label})."
            )
        outlines: list[tuple[Outline, ...]] = [()] * len(boxes)
        if self.polygon and boxes:
            outlines = outlines_in(_at(record, self.polygon), self.polygon, len(boxes))
        shares = self.box_as.startswith("unit")
        return tuple(
            (Region(self._corners(box), name, drawn), shares)
            for box, name, drawn in zip(boxes, names, outlines, strict=True)
        )


_YES_NO = {"1": "yes", "0": "no", "true": "yes", "false": "no", "yes": "yes", "no": "no"}


class Parts(typing.NamedTuple):
    """The content of a row."""

    question: str | None
    choices: tuple[str, ...]
    answers: tuple[int, ...]
    references: tuple[str, ...]
    extra: dict[str, str]
    regions: tuple[tuple[Region, bool], ...]


def _text(record: Mapping[str, Any], column: str | None) -> str | None:
    value = _at(record, column) if column is not None else None
    return None if missing(value) and not isinstance(value, str) else str(value).strip()


def _at(record: Any, path: str) -> Any:
    """Return a cell's content, or the part that a dotted path leads to; a list of structs gives a list."""
    head, _, rest = path.partition(".")
    value = record.get(head) if isinstance(record, Mapping) else None
    if not rest or value is None:
        return value
    return [_at(item, rest) for item in value] if isinstance(value, list) else _at(value, rest)


def values_at(
    record: Mapping[str, Any], path: str, *, gaps: bool = False, numbers: bool = False
) -> list[str]:
    """Return the texts in a cell: one, a list, or a list written as text (with ``numbers``, of numbers too).
    Nulls are dropped, or, with ``gaps``, kept as empty texts.

    Raises:
        DataError: the cell holds keys and values instead of texts.

    >>> values_at({"a": [{"b": "x"}, {"b": 1}]}, "a.b"), values_at({"a": "['x', 'y']"}, "a")
    (['x', '1'], ['x', 'y'])
    """
    return texts_of(_at(record, path), path, gaps=gaps, numbers=numbers)


def listed_labels(value: Any) -> list[Any]:
    """Return the classes in a cell: one, a list, or a list written as text.

    >>> listed_labels("cat"), listed_labels("['cat', 'dog']"), listed_labels([3, 7])
    (['cat'], ['cat', 'dog'], [3, 7])
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = as_list(value) or value
    return list(value) if isinstance(value, list | tuple) else [value]


#: The registration of a data set with these options.
COLUMNS = ("columns", ColumnMapping)


def document_columns(factory: F) -> F:
    """Put the options of :class:`ColumnMapping` into a factory's docstring, in place of ``{columns}``."""
    factory.__doc__ = (inspect.getdoc(factory) or "").replace("{columns}", OPTIONS)
    return factory


def satisfies(record: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """Return whether a row meets a condition: a value, ``present``, or ``{max: …}`` for a number."""
    for column, wanted in where.items():
        value = record.get(column)
        if wanted == "present":
            if value is None or value == []:
                return False
        elif isinstance(wanted, Mapping):
            if not float(value if value is not None else "nan") <= float(wanted["max"]):
                return False
        elif value != wanted:
            return False
    return True


def items_of(record: Mapping[str, Any], each: str | None) -> Iterator[int | None]:
    """Return the indices of the list whose items are separate questions; one None without such a list."""
    if each is None:
        yield None
    else:
        yield from range(len(values_at(record, each)))
