"""Results of LMMs-Eval and VLMEvalKit as runs: their stored answers, read by our parsers."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from snellen._util.redaction import storable
from snellen.api import run
from snellen.datasets.base import Dataset, Row
from snellen.errors import DataError, reason_of, require
from snellen.models.replay import Replay
from snellen.parsing.choices import LETTERS
from snellen.protocols.base import PROTOCOLS, Protocol
from snellen.runs.run import Run
from snellen.storage.store import Store
from snellen.types import Sample

__all__ = ["ImportReport", "ImportedResult", "import_results", "read_results"]

ANSWER = "answer of the model"


@dataclass(frozen=True)
class ImportedResult:
    """A stored answer.

    Attributes:
        choices, answers: the options and the places of the right ones, where there are some.
        references: true answers in free text.
        said: what the model answered.
        score: what the other tool made of it: 1, 0 or between; None where it does not say.
    """

    id: str
    question: str
    said: str
    choices: tuple[str, ...] = ()
    answers: tuple[int, ...] = ()
    references: tuple[str, ...] = ()
    score: float | None = None


@dataclass(frozen=True)
class ImportReport:
    """What was imported.

    Attributes:
        run: the run that it is now.
        theirs: the other tool's mean score over what it scored; None where it scored nothing, or on another
            scale than from 0 to 1.
        changed: ids of samples that it and we judge differently, with its score and ours.
        other_scale: whether its scores cannot be compared with ours.
    """

    run: Run
    theirs: float | None
    changed: tuple[tuple[str, float, float], ...]
    other_scale: bool = False


def read_results(path: Path) -> list[ImportedResult]:
    """Read a file of results: LMMs-Eval's ``*_samples_*.jsonl``, VLMEvalKit's ``*.xlsx``, ``.tsv`` or
    ``.csv``.

    Sources: https://github.com/EvolvingLMMs-Lab/lmms-eval (``--log_samples``),
    https://github.com/open-compass/VLMEvalKit (columns ``index``, ``question``, ``A`` …, ``answer``,
    ``prediction``,
    ``hit``).

    Raises:
        DataError: no such file, or of another layout.
        MissingExtra: openpyxl is not installed, which ``.xlsx`` takes.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    if path.suffix == ".jsonl":
        found = list(_lmms(path))
    elif path.suffix in (".xlsx", ".tsv", ".csv"):
        found = list(_vlmevalkit(path))
    else:
        raise DataError(
            f"{path}: neither LMMs-Eval's samples (.jsonl) nor VLMEvalKit's predictions (.xlsx, .tsv, .csv)."
        )
    if not found:
        raise DataError(f"{path}: no rows.")
    found = [_storable(one) for one in found]
    seen: set[str] = set()
    for one in found:
        if one.id in seen:
            raise DataError(f"{path}: two rows have the id {one.id!r}.")
        seen.add(one.id)
    return found


def _storable(one: ImportedResult) -> ImportedResult:
    """With texts that a database takes."""
    return replace(
        one,
        id=storable(one.id),
        question=storable(one.question),
        said=storable(one.said),
        choices=tuple(map(storable, one.choices)),
        references=tuple(map(storable, one.references)),
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that hold something, with their numbers.

    Raises:
        DataError: they cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:  # splitlines() would cut texts at U+2028
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({reason_of(error)}).") from error


def _lmms(path: Path) -> Iterator[ImportedResult]:
    for number, line in _lines(path):
        try:
            row = json.loads(line)
            if not isinstance(row, Mapping):
                raise TypeError(f"a {type(row).__name__} instead of an object")
            answered = row["filtered_resps"] if row.get("filtered_resps") else row["resps"]
            id_, target = str(row["doc_id"]), row["target"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}, line {number}: not a sample of LMMs-Eval ({reason_of(error)}); expected doc_id, "
                "target and resps."
            ) from error
        doc = row["doc"] if isinstance(row.get("doc"), Mapping) else {}
        choices = _options(doc)
        right = _places(target, choices)
        truths = _texts(target if isinstance(target, list) else [target])
        yield ImportedResult(
            id_,
            str(doc.get("question") or row.get("input") or _prompt(row)),
            _likeliest(answered, choices) or _first(answered),
            choices,
            right,
            tuple(choices[place] for place in right) or truths,
            _score(row),
        )


def _texts(truths: Sequence[Any]) -> tuple[str, ...]:
    """Those that say something: of the others, nobody knows what is true."""
    return tuple(str(one) for one in truths if one is not None and str(one).strip())


def _prompt(row: Mapping[str, Any]) -> str:
    """The prompt, where it stands among the arguments."""
    found: Any = row.get("arguments")
    while isinstance(found, Mapping | list) and found:
        found = next(iter(found.values())) if isinstance(found, Mapping) else found[0]
    return str(found or "")


def _likeliest(answered: Any, choices: Sequence[str]) -> str:
    """The letter of the likeliest option, where answers are their log-likelihoods; else nothing."""
    told = answered if isinstance(answered, list) and len(answered) == len(choices) > 1 else []
    pairs = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in told]  # resps nests
    if not pairs or not all(isinstance(one, list) and len(one) == 2 for one in pairs):
        return ""
    if not all(isinstance(n, int | float) and isinstance(greedy, bool) for n, greedy in pairs):
        return ""
    values = [float(n) for n, _ in pairs]
    best = values.index(max(values))
    return LETTERS[best] if best < len(LETTERS) else ""


def _first(value: Any) -> str:
    while isinstance(value, list) and value:
        value = value[0]
    return "" if isinstance(value, list) or value is None else str(value)


def _score(row: Mapping[str, Any]) -> float | None:
    """What the harness made of it: the first of its metrics that is a number, or a mapping that says whether
    it is right.
    """
    known = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "input", "filter"}
    names = row.get("metrics")
    for key in names if isinstance(names, list) else [k for k in row if k not in known]:
        value = row.get(key)
        if isinstance(value, bool | int | float):
            return float(value)
        if isinstance(value, Mapping):
            for inner in ("score", "accuracy", "is_correct", "correct"):
                if isinstance(value.get(inner), bool | int | float):
                    return float(value[inner])
            # What is scored over all samples at once (CIDEr) stands here with lists of references.
            if isinstance(value.get("pred"), str) and isinstance(value.get("answer"), str):
                return float(value["pred"] == value["answer"])
    return None


def _options(doc: Mapping[str, Any]) -> tuple[str, ...]:
    """The options of a row: a list (perhaps written as one), or columns A, B, C …"""
    for key in ("choices", "options"):
        value = doc.get(key)
        if isinstance(value, str) and value.strip().startswith("["):
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                continue
        if isinstance(value, list) and value:
            return tuple(map(str, value))
    found = []
    for letter in LETTERS:
        value = doc.get(letter)
        if value is None or str(value).strip() in ("", "nan"):
            break
        found.append(str(value))
    return tuple(found)


def _places(target: Any, choices: Sequence[str]) -> tuple[int, ...]:
    """The places of the right options; of several, all must be found."""
    several = target if isinstance(target, list) else [target]
    if isinstance(target, str) and re.fullmatch(r"\s*[A-Za-z](\s*[,;]\s*[A-Za-z])+\s*", target):
        several = re.split(r"[,;]", target)
    found = [_place(one, choices) for one in several]
    return () if None in found else tuple(sorted({place for place in found if place is not None}))


def _place(target: Any, choices: Sequence[str]) -> int | None:
    """The place of an option: by number, by letter, by text, or by a number that is written as text."""
    if not choices:
        return None
    if isinstance(target, int) and not isinstance(target, bool):
        return target if 0 <= target < len(choices) else None
    said = str(target).strip()
    bare = said.strip("().")
    if len(bare) == 1 and bare.upper() in LETTERS[: len(choices)]:
        return LETTERS.index(bare.upper())
    if said in choices:
        return list(choices).index(said)
    return int(said) if said.isdecimal() and int(said) < len(choices) else None


def _vlmevalkit(path: Path) -> Iterator[ImportedResult]:
    import pandas as pd

    try:
        if path.suffix == ".xlsx":
            require("openpyxl", "exchange", "Reading .xlsx")
            table = pd.read_excel(path, dtype=str, keep_default_na=False)
        else:
            table = pd.read_csv(
                path, sep="\t" if path.suffix == ".tsv" else ",", dtype=str, keep_default_na=False
            )
    except (ValueError, OSError, KeyError, pd.errors.ParserError, BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as a table ({reason_of(error)}).") from error
    lacks = [name for name in ("index", "prediction", "answer") if name not in table.columns]
    if lacks:
        raise DataError(
            f"{path}: not VLMEvalKit's predictions: no column {', '.join(lacks)}. Its columns: "
            f"{', '.join(map(str, table.columns))}."
        )
    for row in table.to_dict("records"):
        choices = _options({str(key): value for key, value in row.items()})
        right = _places(row["answer"], choices)
        hit = {"true": "1", "false": "0"}.get(said := str(row.get("hit", "")).strip().lower(), said)
        yield ImportedResult(
            row["index"],
            str(row.get("question", "")),
            row["prediction"],
            choices,
            right,
            tuple(choices[place] for place in right) or _texts([row["answer"]]),
            float(hit) if hit.replace(".", "", 1).isdecimal() else None,
        )


class _RecordedProtocol(Replay):
    """A model that is known by its name and its answers."""

    def __init__(self, name: str, results: Sequence[ImportedResult]) -> None:
        super().__init__(ANSWER)
        self.name = name
        told = json.dumps([[one.id, one.said] for one in results])
        self._answers = hashlib.sha256(told.encode()).hexdigest()

    def identity(self) -> Mapping[str, Any]:
        return {**super().identity(), "imported": self.name, "answers": self._answers}


class _Results(Dataset):
    """Stored answers as a data set. Their images are not in the files; the answers are in ``meta``."""

    labels = ()

    def __init__(self, name: str, results: Sequence[ImportedResult]) -> None:
        self.name, self._results = name, results

    def __len__(self) -> int:
        return len(self._results)

    def row(self, index: int) -> Row:
        return Row(self._results[index].id, None)

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        one = self._results[index]
        return Sample(
            one.id,
            question=one.question,
            choices=one.choices,
            answers=one.answers,
            references=one.references,
            meta={ANSWER: one.said},
        )

    def digest(self, index: int) -> str:
        one = self._results[index]
        told = [one.question, one.choices, one.answers, one.references]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def import_results(
    path: Path,
    *,
    model: str,
    workspace: Store | Path | str | None = None,
    protocol: str | Protocol | None = None,
) -> ImportReport:
    """Read a file of results into a run of the workspace; the model is not called.

    Answers are read anew by the protocol: by default ``multiple-choice`` where rows have options,
    ``yes-no`` where all truths are yes or no, else ``vqa``. So an answer that the other tool could not read
    and filled in at random is ``unparsed`` here.

    Args:
        model: what the run is to call the model.

    Raises:
        DataError, MissingExtra: as :func:`read_results`.
        UsageError: a protocol that does not fit.
    """
    results = read_results(path)
    if protocol is None:
        protocol = _fitting(results)
    made = PROTOCOLS.make(protocol) if isinstance(protocol, str) else protocol
    replay = _RecordedProtocol(model, results)
    found = run(
        model=replay,
        data=_Results(f"import:{path.name}", results),
        protocol=made,
        workspace=workspace,
    )
    theirs = [one.score for one in results if one.score is not None]
    if any(not 0 <= score <= 1 for score in theirs):
        return ImportReport(found, None, (), other_scale=True)
    ours = {row["id"]: row["metrics"].get(found.primary) for row in found.findings()}
    changed = tuple(
        (one.id, one.score, mine)
        for one in results
        if one.score is not None and (mine := ours.get(one.id)) is not None and mine != one.score
    )
    return ImportReport(found, sum(theirs) / len(theirs) if theirs else None, changed)


def _fitting(results: Sequence[ImportedResult]) -> str:
    if any(one.choices and one.answers for one in results):  # the others it asks openly
        several = any(len(one.answers) > 1 for one in results)
        return "multiple-choice?all_that_apply=true" if several else "multiple-choice"
    truths = {text.strip().lower() for one in results for text in one.references}
    if truths and truths <= {"yes", "no"}:
        return "yes-no"
    return "vqa"
