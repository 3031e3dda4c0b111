"""Count how often names occur in texts: millions of texts, thousands of names, one pass."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from snellen.errors import DataError, require

__all__ = ["Exposures", "TrainingText", "count", "texts"]

ENDINGS = (".jsonl", ".json", ".parquet", ".txt")


class TrainingText(NamedTuple):
    """The text of one training example: what the model learned to write, and what it was asked; a list of
    options, for example, names classes that were not taught.
    """

    answers: str
    prompts: str = ""


class Exposures(NamedTuple):
    """In how many texts each class is named: in what was to be written, and in prompts; and how many texts
    there are.
    """

    answers: Counter[str]
    prompts: Counter[str]
    texts: int


def count(names: Mapping[str, Sequence[str]], lines: Iterable[TrainingText]) -> Exposures:
    """Count in how many texts each class occurs, under any of its names, as whole words regardless of case.
    Plurals in -s, -es or -ies count.

    Aho–Corasick (A. V. Aho and M. J. Corasick, CACM 18, 1975, through pyahocorasick) finds all names in
    one pass over each text, however many there are.

    Args:
        names: the names of each class.

    Raises:
        MissingExtra: pyahocorasick is not installed.
    """
    ahocorasick: Any = require("ahocorasick", "diagnose", "Counting names in captions")
    automaton = ahocorasick.Automaton()
    owners: dict[str, set[str]] = {}
    for owner, known in names.items():
        for name in {owner, *known}:
            word = _plain(name)
            plural = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
            for form in (word, plural, f"{word}s", f"{word}es"):
                owners.setdefault(f" {form} ", set()).add(owner)
    for word, indices in owners.items():
        if word.strip():
            automaton.add_word(word, tuple(indices))
    automaton.make_automaton()
    answers: Counter[str] = Counter()
    prompts: Counter[str] = Counter()
    number = 0
    for line in lines:
        number += 1
        for counted, text in ((answers, line.answers), (prompts, line.prompts)):
            if text:
                seen = {owner for _, indices in automaton.iter(f" {_plain(text)} ") for owner in indices}
                counted.update(seen)
    return Exposures(answers, prompts, number)


_BREAKS = re.compile(r"[\W_]+")


def _plain(text: str) -> str:
    """Return lower-case words separated by single spaces, so that a space is a word boundary."""
    return _BREAKS.sub(" ", text.lower()).strip()


def texts(path: Path) -> Iterator[TrainingText]:
    """Yield the texts of a file, one per image or conversation, without loading the file. Turns of users and
    systems, and fields called ``prompt`` or ``question``, are prompts; everything else is an answer.

    JSON lines and parquet: all strings of a row joined (including nested lists and turns); JSON: a list
    of such rows, as in LLaVA's instructions; text: one per line.

    Raises:
        DataError: the file is missing, has another extension, or does not fit its extension's layout.
    """
    if path.suffix not in ENDINGS:
        raise DataError(f"{path}: unsupported extension. Captions can be {', '.join(ENDINGS)}.")
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path)
            return
        with path.open(encoding="utf-8") as file:
            if path.suffix == ".txt":
                yield from (TrainingText(line) for line in file if line.strip())
            elif path.suffix == ".json":
                rows = json.load(file)
                if not isinstance(rows, list):
                    raise DataError(f"{path}: expected a list of rows, found {type(rows).__name__}.")
                yield from map(_text, rows)
            else:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        try:
                            yield _text(json.loads(line))
                        except ValueError as error:
                            raise DataError(f"{path}, line {number}: not JSON ({error}).") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: does not fit its extension ({error}).") from error


def _parquet(path: Path) -> Iterator[TrainingText]:
    parquet: Any = require("pyarrow.parquet", "local", "Reading parquet")
    try:
        file = parquet.ParquetFile(path)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: not a parquet file ({error}).") from error
    for batch in file.iter_batches(batch_size=10_000):
        for row in batch.to_pylist():
            yield _text(row)


#: Keys that identify a row rather than describe it.
_NAMES = frozenset(
    {"id", "image", "images", "model", "stage", "figure", "path", "url", "file_name", "from", "role", "type"}
)


#: Whose turns are prompts, and fields that hold prompts.
_ASKING = frozenset({"human", "user", "system"})
_PROMPTS = frozenset({"prompt", "question", "instruction", "choices", "options"})


def _text(row: Any) -> TrainingText:
    """Return all strings within a row, separated by periods, prompts apart."""
    answers: list[str] = []
    prompts: list[str] = []

    def walk(value: Any, into: list[str]) -> None:
        if isinstance(value, str):
            into.append(value)
        elif isinstance(value, Mapping):
            said_by = str(value.get("from") or value.get("role") or "").lower()
            into = prompts if said_by in _ASKING else into
            for key, inner in value.items():
                if key not in _NAMES:
                    walk(inner, prompts if key in _PROMPTS else into)
        elif isinstance(value, list | tuple):
            for inner in value:
                walk(inner, into)

    walk(row, answers)
    return TrainingText(" . ".join(answers), " . ".join(prompts))
