"""Names of classes from a file, and names that mean nothing to a model."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from snellen.errors import DataError

__all__ = ["odd_names", "read_labels", "read_names", "read_synonyms"]

#: Names that ship with the package: the 1,000 classes of ILSVRC 2012 by their WordNet 3.0 ids, with those
#: lemmas that no other class has (Princeton University, "WordNet"; Russakovsky et al., IJCV 2015).
BUILT_IN = {"imagenet": "imagenet_names.tsv"}

#: The first cell of a table's heading.
HEADINGS = ("id", "label", "index", "class", "class_id", "number", "wnid", "synset")

Names = dict[str, tuple[str, ...]]


def read_names(source: str) -> Names:
    """Return names by id: the first one is the class, the others are synonyms.

    Args:
        source: ``imagenet`` (by WordNet id, and by number from 0 to 999); or a file: JSON ({"id": "name"},
            {"id": ["name", "synonym"]}, or a list of names by number), CSV or TSV (id, name, synonyms …), or
            text (an id, then the name; or one name per line, by number). A name with commas is several.

    Raises:
        DataError: it cannot be read, or an id has no name.
    """
    if source in BUILT_IN:
        text = files("snellen.datasets").joinpath(BUILT_IN[source]).read_text(encoding="utf-8")
        rows = list(csv.reader(text.splitlines(), delimiter="\t"))
        # By WordNet id, whose order is that of the classes' numbers.
        return {key: tuple(row[1:]) for number, row in enumerate(rows) for key in (row[0], str(number))}
    path = Path(source).expanduser()
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            table = json.loads(text)
            pairs: Iterator[tuple[str, Any]] = (
                ((str(i), name) for i, name in enumerate(table))
                if isinstance(table, list)
                else iter(table.items())
            )
        else:
            pairs = _rows(text, path.suffix.lower())
        names = {str(key): _several(value) for key, value in pairs}
    except OSError as error:
        raise DataError(f"names={source}: cannot be read ({error.strerror}).") from error
    except (ValueError, AttributeError) as error:
        raise DataError(
            f"names={source}: cannot be read ({error}). Expected JSON, CSV or text with an id and a "
            "name per line, or: names=imagenet"
        ) from error
    if empty := [key for key, value in names.items() if not value]:
        raise DataError(f"names={source}: no name for {', '.join(empty[:5])}.")
    return names


def read_synonyms(source: str) -> Names:
    """Return further names by class, from JSON: ``{"class": ["other name", …], …}``.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    try:
        table = json.loads(Path(source).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"synonyms={source}: cannot be read as JSON ({error}).") from error
    if not isinstance(table, dict) or not all(isinstance(v, list) for v in table.values()):
        raise DataError(f'synonyms={source}: expected {{"class": ["other name", …], …}}.')
    return {key: tuple(map(str, value)) for key, value in table.items()}


def read_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return class names as given, or the lines of ``@FILE``.

    Raises:
        DataError: the file cannot be read.
    """
    if len(labels) != 1 or not labels[0].startswith("@"):
        return tuple(labels)
    path = Path(labels[0][1:]).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"labels={labels[0]}: cannot be read ({error}).") from error
    return tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _rows(text: str, ending: str) -> Iterator[tuple[str, Any]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if ending in (".csv", ".tsv"):
        rows = [row for row in csv.reader(lines, delimiter="\t" if ending == ".tsv" else ",") if row]
        header = [cell.strip().lower() for cell in rows[0]] if rows else []
        if header[:1] and header[0] in (
            "id",
            "label",
            "index",
            "class",
            "class_id",
            "number",
            "wnid",
            "synset",
        ):
            rows = rows[1:]
        yield from ((row[0].strip(), row[1:]) for row in rows)
    elif lines and all(re.match(r"(?:n\d{8}|\d+)[\s:,]+\S", line) for line in lines):
        for line in lines:
            key, name = re.split(r"[\s:,]+", line, maxsplit=1)
            yield key, name
    else:
        yield from ((str(number), line) for number, line in enumerate(lines))


def _several(value: Any) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else str(value).split(",")
    return tuple(part for part in (str(part).strip() for part in parts) if part)


def odd_names(labels: Sequence[str]) -> str | None:
    """Return what is wrong with class names that mean nothing to a model, and what to do; None if nothing is.

    >>> odd_names(["n01440764", "n01443537"])[:32], odd_names(["cat", "7"])
    ('the class names are WordNet ids ', None)
    """
    if labels and all(re.fullmatch(r"n\d{8}", label) for label in labels):
        return (
            f"the class names are WordNet ids ({labels[0]} …), which models cannot read. Use ImageNet's "
            "names with -D names=imagenet, or yours with -D names=FILE"
        )
    if labels and all(re.fullmatch(r"-?\d+(?:\.0)?", label) for label in labels):
        return (
            f"the class names are numbers ({', '.join(labels[:3])} …). Unless the images show numbers, name "
            "the classes with -D names=FILE (a number and a name per line)"
        )
    return None
