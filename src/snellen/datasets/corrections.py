"""Corrected labels: a file that names samples whose labels are wrong, and a data set that obeys it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from snellen._util.words import counted
from snellen.datasets.dataset import Around, Dataset, Row
from snellen.errors import BadOption, DataError, did_you_mean, reason_of
from snellen.types import Sample

__all__ = ["Action", "Corrected", "Correction", "read_corrections"]

#: What to do about a label. ``review`` is undecided, and changes nothing; an ``ambiguous`` sample, of which
#: several classes are right, leaves the data like a dropped one.
Action = Literal["review", "keep", "correct", "drop", "ambiguous"]


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What to do about one sample.

    Attributes:
        label: the label at the time of the review; ``correct``: the right one, with the action ``correct``.
        image: SHA-256 of its first image at that time, if it is known.
    """

    id: str
    label: str
    action: Action
    correct: str = ""
    image: str = ""


def read_corrections(path: Path) -> list[Correction]:
    """Read ``labels.json`` as :func:`snellen.decisions.labels.write_corrections` writes it.

    Raises:
        DataError: it cannot be read, or is of another form.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["corrections"]
        known = [
            Correction(
                id=str(row["id"]),
                label=str(row["label"]),
                action=row.get("action", "review"),
                correct=str(row.get("correct") or ""),
                image=str(row.get("image") or ""),
            )
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"corrections={path}: cannot be read ({reason_of(error)}). Write one with: snellen labels RUN "
            "RUN -o labels.json"
        ) from error
    for row in known:
        if row.action not in get_args(Action):
            raise DataError(
                f"corrections={path}: {row.id!r} has the action {row.action!r}."
                f"{did_you_mean(str(row.action), get_args(Action))} Allowed: {', '.join(get_args(Action))}."
            )
        if row.action == "correct" and not row.correct:
            raise DataError(f"corrections={path}: {row.id!r} has no 'correct' label to be corrected to.")
    return known


class Corrected(Around):
    """A data set with some labels corrected, and some samples dropped.

    Raises:
        DataError: a sample that does not exist, or has another label than when it was reviewed.
        BadOption: a label that is not one of the classes.
    """

    def __init__(self, data: Dataset, corrections: Sequence[Correction], name: str) -> None:
        acting = {row.id: row for row in corrections if row.action not in ("review", "keep")}
        self._labels: dict[str, str] = {}
        self._places: list[int] = []
        met: set[str] = set()
        for place in range(len(data)):
            id_, label = data.row(place)
            row = acting.get(id_)
            if row is not None:
                met.add(id_)
                self._check(row, label, data, name)
                self._check_image(row, place, data, name)
            if row is None or row.action == "correct":
                self._places.append(place)
            if row is not None and row.action == "correct":
                self._labels[id_] = row.correct
        if missing := [id_ for id_ in acting if id_ not in met]:
            raise DataError(
                f"corrections={name}: {data.name} has no sample {missing[0]!r}"
                f"{f' and {len(missing) - 1} more' if missing[1:] else ''}. Was the file written for other "
                "data?"
            )
        dropped = len(data) - len(self._places)
        note = (
            f"{data.name}: {counted(len(self._labels), 'label')} corrected, "
            f"{counted(dropped, 'sample')} dropped"
        )
        super().__init__(data, note)

    @staticmethod
    def _check(row: Correction, label: str | None, data: Dataset, name: str) -> None:
        if row.label != label:
            raise DataError(
                f"corrections={name}: {row.id!r} was {row.label!r} when it was reviewed, and is {label!r} "
                "now. Was the file written for other data?"
            )
        if row.action == "correct" and row.correct not in data.labels:
            raise BadOption(
                f"corrections={name}: {row.correct!r} is no class of {data.name}."
                f"{did_you_mean(row.correct, data.labels)}"
            )

    @staticmethod
    def _check_image(row: Correction, place: int, data: Dataset, name: str) -> None:
        images = data.sample(place, data.labels, data.background).images if row.image else ()
        if row.image and (not images or images[0].sha256 != row.image):
            raise DataError(
                f"corrections={name}: {row.id!r} shows another image than when it was reviewed. Was the file "
                "written for other data?"
            )

    def __len__(self) -> int:
        return len(self._places)

    def row(self, index: int) -> Row:
        id_, label = self._data.row(self._places[index])
        return Row(id_, self._labels.get(id_, label))

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        sample = self._data.sample(self._places[index], labels, background)
        label = self._labels.get(sample.id, sample.label)
        return replace(sample, label=label, also=tuple(name for name in sample.also if name != label))

    def digest(self, index: int) -> str:
        return self._data.digest(self._places[index])
