"""Diagnose a model, for Python users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snellen.diagnosis.analysis import Subject
from snellen.diagnosis.diagnosis import Diagnosis, chosen, references_of
from snellen.diagnosis.diagnosis import diagnose as diagnose_subject
from snellen.errors import BadOption, one_of
from snellen.runs.filters import Filters
from snellen.storage.store import Store

__all__ = ["diagnose"]


def diagnose(
    *,
    model: str,
    data: str | Path,
    only: Sequence[str] = (),
    references: Sequence[str] | None = None,
    train_split: str | None = None,
    captions: Sequence[Path | str] = (),
    prompts: Sequence[str] = (),
    layers: str = "last",
    limit: int | None = None,
    skip_invalid: bool = False,
    model_options: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    max_cost: float | None = None,
    max_concurrency: int | None = None,
    workspace: Path | str | None = None,
) -> Diagnosis:
    """Find out why a model fails: labels, prompts, order, decoding, features, training data.

    Finished evaluations are reused. ``diagnosis.write("report.html")`` writes the page.

    Args:
        model: the model's name.
        data: the data set's name; it needs classes.
        only: names of parts: gap, sweep, prompts, order, cot, decoding, probe, exposure, size, confusions.
        references: models to compare with; by default the built-in ones for a built-in model.
        train_split: the split to fit probes on.
        captions: files with the model's training texts, to count classes in.
        prompts: additional wordings.
        layers: whose hidden states to probe: ``last`` or ``all``.
        limit: use the first N samples only.
        skip_invalid: skip unreadable images and list them.
        model_options: of the model and its references.
        data_options: of the data set.
        batch_size: requests per batch.
        max_cost: a limit in US dollars for hosted models.
        max_concurrency: the most concurrent requests to a hosted model.
        workspace: by default ``$SNELLEN_WORKSPACE``, or ``./snellen-workspace``.

    Raises:
        UsageError: as its subclasses say: an unknown part, model or data set, or no classes.
        Stopped: a model gave up, or the budget is used up.
    """
    # Long for its options alone.
    only = [only] if isinstance(only, str) else only
    references = [references] if isinstance(references, str) else references
    for name, value in {"model": model, "data": str(data) if isinstance(data, Path) else data}.items():
        if not isinstance(value, str):
            raise BadOption(
                f"{name}={type(value).__name__}(…): a diagnosis takes names, to reuse their runs."
            )
    one_of("layers", layers, ("last", "all"))
    chosen(only)  # fail early on misspelled parts
    subject = Subject(
        model=model,
        data=f"folder:{data}" if isinstance(data, Path) else data,
        store=Store(workspace),
        references=references_of(model) if references is None else references,
        train=train_split,
        captions=[Path(file) for file in captions],
        prompts=prompts,
        layers=layers,
        filters=Filters(limit=limit, skip_invalid=skip_invalid),
        data_options=data_options or {},
        model_options=model_options or {},
        batch_size=batch_size,
        max_cost=max_cost,
        max_concurrency=max_concurrency,
    )
    try:
        return diagnose_subject(subject, only)
    finally:
        subject.close()
