"""Import results of LMMs-Eval and VLMEvalKit as runs: their stored answers, read by our parsers."""

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


@dataclass(frozen=True, kw_only=True)
class ImportedResult:
    """A stored answer.

    Attributes:
        choices, answers: the options and the positions of the correct ones, if any.
        references: reference answers in free text.
        said: the model's answer.
        score: the other tool's score, from 0 to 1; None if absent.
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
    """The result of an import.

    Attributes:
        run: the new run.
        theirs: the other tool's mean score; None if it scored nothing, or on a scale other than 0 to 1.
        changed: ids of samples with a different score, with its score and ours.
        other_scale: whether its scores cannot be compared with ours.
    """

    run: Run
    theirs: float | None
    changed: tuple[tuple[str, float, float], ...]
    other_scale: bool = False


def read_results(path: Path) -> list[ImportedResult]:
    """Read a file of results: LMMs-Eval's ``*_samples_*.jsonl``, or VLMEvalKit's ``*.xlsx``, ``.tsv`` or
    ``.csv``.

    Sources: https://github.com/EvolvingLMMs-Lab/lmms-eval (``--log_samples``),
    https://github.com/open-compass/VLMEvalKit (columns ``index``, ``question``, ``A`` …, ``answer``,
    ``prediction``, ``hit``).

    Raises:
        DataError: no such file, or another layout.
        MissingExtra: openpyxl, needed for ``.xlsx``, is not installed.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    if path.suffix == ".jsonl":
        results = list(_lmms(path))
    elif path.suffix in (".xlsx", ".tsv", ".csv"):
        results = list(_vlmevalkit(path))
    else:
        raise DataError(
            f"{path}: unknown layout. Allowed: LMMs-Eval's samples (.jsonl), VLMEvalKit's predictions "
            "(.xlsx, .tsv, .csv)."
        )
    if not results:
        raise DataError(f"{path}: no rows.")
    results = [_storable(result) for result in results]
    seen: set[str] = set()
    for result in results:
        if result.id in seen:
            raise DataError(f"{path}: duplicate id {result.id!r}.")
        seen.add(result.id)
    return results


def _storable(result: ImportedResult) -> ImportedResult:
    """Return it with texts that every database accepts."""
    return replace(
        result,
        id=storable(result.id),
        question=storable(result.question),
        said=storable(result.said),
        choices=tuple(map(storable, result.choices)),
        references=tuple(map(storable, result.references)),
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield non-empty lines with their numbers.

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
            id=id_,
            question=str(doc.get("question") or row.get("input") or _prompt(row)),
            said=_likeliest(answered, choices) or _first(answered),
            choices=choices,
            answers=right,
            references=tuple(choices[place] for place in right) or truths,
            score=_score(row),
        )


def _texts(truths: Sequence[Any]) -> tuple[str, ...]:
    """Return non-empty texts; an empty reference says nothing."""
    return tuple(str(truth) for truth in truths if truth is not None and str(truth).strip())


def _prompt(row: Mapping[str, Any]) -> str:
    """Return the prompt, if it is among the arguments."""
    arguments: Any = row.get("arguments")
    while isinstance(arguments, Mapping | list) and arguments:
        arguments = next(iter(arguments.values())) if isinstance(arguments, Mapping) else arguments[0]
    return str(arguments or "")


def _likeliest(answered: Any, choices: Sequence[str]) -> str:
    """Return the letter of the most likely option, if answers are log-likelihoods; else an empty text."""
    scores = answered if isinstance(answered, list) and len(answered) == len(choices) > 1 else []
    pairs = [
        score[0] if isinstance(score, list) and len(score) == 1 else score for score in scores
    ]  # resps is nested
    if not pairs or not all(isinstance(score, list) and len(score) == 2 for score in pairs):
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
    """Return the harness's score: its first metric that is a number, or a mapping that says whether the
    answer is right.
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
            # Corpus-level scores (CIDEr) appear here as lists of references.
            if isinstance(value.get("pred"), str) and isinstance(value.get("answer"), str):
                return float(value["pred"] == value["answer"])
    return None


def _options(doc: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a row's options: a list (possibly written as text), or columns A, B, C …"""
    for key in ("choices", "options"):
        value = doc.get(key)
        if isinstance(value, str) and value.strip().startswith("["):
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                continue
        if isinstance(value, list) and value:
            return tuple(map(str, value))
    options = []
    for letter in LETTERS:
        value = doc.get(letter)
        if value is None or str(value).strip() in ("", "nan"):
            break
        options.append(str(value))
    return tuple(options)


def _places(target: Any, choices: Sequence[str]) -> tuple[int, ...]:
    """Return the positions of the correct options; if there are several, all must be found."""
    several = target if isinstance(target, list) else [target]
    if isinstance(target, str) and re.fullmatch(r"\s*[A-Za-z](\s*[,;]\s*[A-Za-z])+\s*", target):
        several = re.split(r"[,;]", target)
    places = [_place(answer, choices) for answer in several]
    return () if None in places else tuple(sorted({place for place in places if place is not None}))


def _place(target: Any, choices: Sequence[str]) -> int | None:
    """Return an option's position: by number, by letter, by text, or by a number written as text."""
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
            id=row["index"],
            question=str(row.get("question", "")),
            said=row["prediction"],
            choices=choices,
            answers=right,
            references=tuple(choices[place] for place in right) or _texts([row["answer"]]),
            score=float(hit) if hit.replace(".", "", 1).isdecimal() else None,
        )


class _RecordedProtocol(Replay):
    """A model known only by its name and its answers."""

    def __init__(self, name: str, results: Sequence[ImportedResult]) -> None:
        super().__init__(ANSWER)
        self.name = name
        answers = json.dumps([[result.id, result.said] for result in results])
        self._answers = hashlib.sha256(answers.encode()).hexdigest()

    def identity(self) -> Mapping[str, Any]:
        return {**super().identity(), "imported": self.name, "answers": self._answers}


class _Results(Dataset):
    """Stored answers as a data set. The files contain no images; ``meta`` holds the answers."""

    labels = ()

    def __init__(self, name: str, results: Sequence[ImportedResult]) -> None:
        self.name, self._results = name, results

    def __len__(self) -> int:
        return len(self._results)

    def row(self, index: int) -> Row:
        return Row(self._results[index].id, None)

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        result = self._results[index]
        return Sample(
            result.id,
            question=result.question,
            choices=result.choices,
            answers=result.answers,
            references=result.references,
            meta={ANSWER: result.said},
        )

    def digest(self, index: int) -> str:
        result = self._results[index]
        content = [result.question, result.choices, result.answers, result.references]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def import_results(
    path: Path,
    *,
    model: str,
    workspace: Store | Path | str | None = None,
    protocol: str | Protocol | None = None,
) -> ImportReport:
    """Import a file of results as a run of the workspace; no model is called.

    Answers are parsed again by the protocol: by default ``multiple-choice`` if rows have options,
    ``yes-no`` if all references are yes or no, else ``vqa``. An answer that the other tool could not
    parse and scored at random is ``unparsed`` here.

    Args:
        model: the model's name in the run.

    Raises:
        DataError, MissingExtra: as for :func:`read_results`.
        UsageError: a protocol that does not fit.
    """
    results = read_results(path)
    if protocol is None:
        protocol = _fitting(results)
    made = PROTOCOLS.make(protocol) if isinstance(protocol, str) else protocol
    replay = _RecordedProtocol(model, results)
    imported = run(
        model=replay,
        data=_Results(f"import:{path.name}", results),
        protocol=made,
        workspace=workspace,
    )
    theirs = [result.score for result in results if result.score is not None]
    if any(not 0 <= score <= 1 for score in theirs):
        return ImportReport(imported, None, (), other_scale=True)
    ours = {row["id"]: row["metrics"].get(imported.primary) for row in imported.findings()}
    changed = tuple(
        (result.id, result.score, our_score)
        for result in results
        if result.score is not None
        and (our_score := ours.get(result.id)) is not None
        and our_score != result.score
    )
    return ImportReport(imported, sum(theirs) / len(theirs) if theirs else None, changed)


def _fitting(results: Sequence[ImportedResult]) -> str:
    if any(result.choices and result.answers for result in results):  # the others are open questions
        several = any(len(result.answers) > 1 for result in results)
        return "multiple-choice?all_that_apply=true" if several else "multiple-choice"
    truths = {text.strip().lower() for result in results for text in result.references}
    if truths and truths <= {"yes", "no"}:
        return "yes-no"
    return "vqa"
