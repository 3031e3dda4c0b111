"""Check data, and optionally a model on it, before a run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from snellen._util.words import counted
from snellen.datasets.base import DATASETS, Selection
from snellen.engine.compatibility import size_of_first
from snellen.errors import SnellenError, Unsupported, UsageError
from snellen.metrics.format import dollars, duration, number
from snellen.models.base import LocalModel, PromptSize
from snellen.runs.estimate import Forecast
from snellen.runs.filters import DataSource, Filters
from snellen.runs.overview import Overview, overview
from snellen.runs.plan import Plan, SharedResources

__all__ = ["Preflight", "preflight"]

#: Samples to measure a local model's speed on.
MEASURED = 8
#: The most classes to list with their counts.
LISTED = 20


@dataclass(kw_only=True)
class Preflight:
    """What a check found.

    Attributes:
        size: the prompt of the first sample, if the model reports it.
        speed: of a local model, in samples per second.
        refused: why the model cannot be evaluated.
    """

    data: Overview
    model: str = ""
    protocol: str = ""
    size: PromptSize | None = None
    forecast: Forecast | None = None
    speed: float | None = None
    refused: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **vars(self),
            "data": self.data.as_dict(),
            "size": None if self.size is None else self.size._asdict(),
            "forecast": None if self.forecast is None else self.forecast.as_dict(),
            "problems": list(self.problems()),
        }

    def problems(self) -> Iterator[str]:
        """Yield what should be looked at before a run, in words, with what to do."""
        yield from self.data.problems()
        if self.refused:
            yield self.refused.rstrip(".")

    def lines(self) -> Iterator[str]:
        """Describe the data, the prompt, and the estimate."""
        data = self.data
        of = f" of {counted(len(data.classes), 'class', 'classes')}" if data.classes else ""
        yield f"{data.name}: {counted(data.n, 'sample')}{of}"
        yield from data.notes
        if data.classes:
            shown = [f"{name} {count}" for name, count in list(data.classes.items())[:LISTED]]
            more = f" … and {len(data.classes) - LISTED} more" if len(data.classes) > LISTED else ""
            yield f"Samples per class: {', '.join(shown)}{more}"
        if data.sizes is not None:
            kinds = ", ".join(f"{count} {name}" for name, count in data.formats.items())
            modes = ", ".join(f"{count} {name}" for name, count in data.modes.items())
            low, middle, high = data.sizes
            yield f"Images: {kinds}; {modes}; longer side {low} to {high} pixels, median {middle}"
        if data.near is None and data.sizes is not None:
            yield "Near-duplicates were not searched; that needs: pip install imagehash"
        if self.size is not None:
            context = "" if self.size.context is None else f" of {self.size.context:,} that fit"
            yield f"A prompt of {self.protocol} for {self.model}, {self.size.tokens:,} tokens{context}:"
            yield self.size.prompt
        if self.forecast is not None:
            low, high = self.forecast.requests
            requests = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            text = (
                f"Estimate for {self.model} with {self.protocol}: {requests} "
                f"request{'' if high == 1 else 's'}"
            )
            if self.speed:
                text += f", {duration(self.forecast.samples / self.speed)} at {number(self.speed)} samples/s"
            if self.forecast.cost is not None:
                text += f", $ {' to '.join(dict.fromkeys(map(dollars, self.forecast.cost)))}"
            yield text


def preflight(
    data: str,
    model: str | None = None,
    protocol: str | None = None,
    *,
    filters: Filters | None = None,
    data_options: Mapping[str, Any] | None = None,
    model_options: Mapping[str, Any] | None = None,
    protocol_options: Mapping[str, Any] | None = None,
) -> Preflight:
    """Read all images of a data set once and describe them; with a model, also show a prompt, measure a local
    model's speed on a few samples, and estimate requests and cost. Nothing is stored, and no hosted model is
    asked.

    Raises:
        UsageError: as for :class:`snellen.runs.plan.Plan`, for the data set.
    """
    chosen = filters or Filters(skip_invalid=True)
    options = {**(data_options or {}), **({"split": chosen.split} if chosen.split else {})}
    selection = DataSource(data, options, chosen, 0)()
    result = Preflight(data=overview(selection, _train(data, options, selection)))
    if model is None:
        return result
    resources = SharedResources()  # the model is loaded once
    with tempfile.TemporaryDirectory() as workspace:
        settings: dict[str, Any] = {
            "models": [model], "data": [data], "protocols": [protocol] if protocol else [],
            "data_options": data_options or {}, "model_options": model_options or {}, "workspace": workspace,
            "protocol_options": protocol_options or {}, "resources": resources,
        }  # fmt: skip
        try:
            plan = Plan(**settings, filters=chosen)
            (made, ((_, title, asked), *_)) = plan.pairs[0]
            result.model, result.protocol = model, title
            result.forecast = plan.forecasts()[0]
            result.size = size_of_first(made, asked.for_model(made), plan.shown(selection, asked))
            if isinstance(made, LocalModel):
                few = replace(chosen, limit=min(chosen.limit or MEASURED, MEASURED))
                result.speed = _speed(Plan(**settings, filters=few))
        except (UsageError, Unsupported) as error:
            result.refused = str(error)
        finally:
            for used in resources.models.values():
                used.close()
    return result


def _speed(plan: Plan) -> float | None:
    try:
        return plan.run()[0].metrics.items_per_second
    finally:
        plan.store.close()


def _train(data: str, options: Mapping[str, Any], selection: Selection) -> Selection | None:
    """Return the training split, if the data set has one other than the selection."""
    try:
        split = DATASETS.make(data, {**options, "split": "train"})
        train = Filters(skip_invalid=True).apply(split, 0)
        same = train.id(0) == selection.id(0) and train.digest(0) == selection.digest(0)
    except SnellenError:
        return None
    return None if same and len(train) == len(selection) else train
