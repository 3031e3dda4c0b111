"""Match models, protocols and data sets, and refuse invalid combinations before the evaluation starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snellen._util.redaction import redact
from snellen.datasets.base import DATASETS, Selection, select
from snellen.engine.compatibility import incompatibility
from snellen.errors import BadOption, DataError, Unsupported, UsageError
from snellen.models.base import MODELS, Budget, Limits, Model
from snellen.protocols.base import PROTOCOLS, Protocol, check_protocol
from snellen.registry import parse_name
from snellen.scorers.base import Scorer
from snellen.types import Usage

__all__ = [
    "NamedProtocols",
    "Task",
    "check_scorer",
    "compatible",
    "live_models",
    "load_all",
    "match_models",
    "refuse_unpriced",
    "resolve",
    "with_options",
]

#: Protocols by title, and the protocols for each data set.
NamedProtocols = list[tuple[str, Protocol]]
Task = tuple[Selection, str, Protocol]


def refuse(protocol: Protocol, selection: Selection) -> None:
    """Refuse a data set that does not fit a protocol, judging by its class names and its first sample.

    Raises:
        DataError: as stated.
    """
    check_protocol(protocol, selection.labels, selection.background)
    if protocol.classifies:
        return
    sample = selection.first()
    if (lacks := protocol.missing_fields(sample)) is not None:
        own = selection.data.protocol
        hint = f" Its own protocol: {own}." if own and own != protocol.name else ""
        raise DataError(
            f"The protocol {protocol.name!r} needs {lacks}; {selection.name} has none (sample {sample.id!r})."
            f"{hint} Set columns with -D question=, -D choices=, -D reference= and others; see: snellen ls "
            "datasets"
        )


#: Longer option values are cut in titles.
LONGEST_VALUE = 24


def with_options(title: str, options: Mapping[str, Any]) -> str:
    """Return a protocol's title with the options that were set separately.

    >>> with_options("closed-set?rounds=3", {"candidates": 5, "rounds": 1})
    'closed-set?rounds=3&candidates=5'
    """
    _, _, own = parse_name(title)
    more = [
        f"{key}={value if len(str(value)) <= LONGEST_VALUE else '…'}"
        for key, value in options.items()
        if key not in own
    ]
    return title + ("&" if own else "?") * bool(more) + "&".join(more)


def refuse_unpriced(model: Model) -> None:
    """Refuse a hosted model without a known price if there is a budget.

    Raises:
        BadOption: as stated.
    """
    if model.limits.budget is not None and model.remote and model.price(Usage(1, 1, 1)) is None:
        raise BadOption(
            f"--max-cost: the price of {model.name} is unknown. Set price_in= and price_out= among "
            "its options, in US dollars per million tokens (0 for your own server), or in a prices.toml."
        )


def check_scorer(scorer: Scorer, limits: Limits) -> None:
    """Refuse a scorer whose requirements are not met, or whose model must not be called.

    Raises:
        UsageError, MissingExtra, ModelError: as stated.
    """
    scorer.check()
    for model in scorer.models():
        model.limits = limits
        refuse_unpriced(model)


def compatible(asked: NamedProtocols, selection: Selection) -> tuple[NamedProtocols, list[DataError]]:
    """Return the protocols that fit a data set, and why the others do not."""
    fit: NamedProtocols = []
    refused = []
    for title, protocol in asked:
        try:
            refuse(protocol, selection)
            fit.append((title, protocol))
        except DataError as error:
            refused.append(error)
    return fit, refused


def match_models(
    models: Sequence[Model],
    selections: Sequence[Selection],
    protocols: Sequence[NamedProtocols],
    *,
    default: bool = False,
) -> tuple[list[tuple[Model, list[Task]]], list[str]]:
    """Return the protocols and data that each model supports, and in words why it does not support the rest.

    Args:
        default: the user named no protocol, so a model that cannot be asked the first one takes the next.

    Raises:
        Unsupported: no model supports anything.
    """
    matches: list[tuple[Model, list[Task]]] = []
    skipped: list[str] = []
    blind = False
    for model in models:
        able: list[Task] = []
        for selection, asked in zip(selections, protocols, strict=True):
            fits = [pair for pair in asked if incompatibility(model, pair[1]) is None]
            for title, protocol in (fits or asked)[:1] if default else asked:
                reason = incompatibility(model, protocol)
                if reason is None and (lacks := model.missing_fields(selection.first)) is not None:
                    reason = f"{model.name} lacks {lacks} ({selection.name})"
                    blind = True
                if reason is None:
                    protocol.for_model(model)
                    able.append((selection, title or protocol.name, protocol))
                elif reason not in skipped:
                    skipped.append(reason)
        matches.append((model, able))
    if not any(tasks for _, tasks in matches):
        hint = "" if blind else f" {_what_works(models[0])}"
        raise Unsupported(f"{skipped[0]}.{hint}".rstrip())
    return matches, skipped


def live_models(names: Sequence[str], options: Mapping[str, Any], max_cost: float | None) -> list[Model]:
    """Return models for interactive use, which share a budget.

    Raises:
        UsageError: as its subclasses say.
    """
    if max_cost is not None and not 0 < max_cost < math.inf:
        raise BadOption(f"--max-cost {max_cost} is not allowed; allowed: a number above 0.")
    limits = Limits(budget=None if max_cost is None else Budget(max_cost))
    models = []
    for name in dict.fromkeys(names):
        model = MODELS.make(name, options)
        model.name, model.limits = redact(name), limits
        refuse_unpriced(model)
        models.append(model)
    return models


def load_all(name: str, options: Mapping[str, Any]) -> Selection:
    """Load a whole data set.

    Raises:
        UsageError: as its subclasses say; samples without an image.
    """
    selection = select(DATASETS.make(name, options))
    if not selection.first().images:
        raise DataError(f"{name} has no images (sample {selection.first().id!r}).")
    return selection


_PLURALS = {"model": "models", "data": "datasets", "protocol": "protocols"}


def resolve(sort: str, given: Any, kind: Any, options: Mapping[str, Any]) -> list[Any]:
    """Resolve names or objects, each once.

    Raises:
        UsageError: none, or an invalid one; or options for an object that already exists.
    """
    items = [given] if isinstance(given, str | Path | kind) else list(given or ())
    if not items:
        raise UsageError(f"At least one --{sort} is required. List them with: snellen ls {_PLURALS[sort]}")
    resolved: list[Any] = []
    for item in items:
        name = f"folder:{item}" if isinstance(item, Path) and sort == "data" else item
        if not isinstance(name, str | kind):
            raise UsageError(f"{sort}={item!r} is not allowed; allowed: a name, or a {kind.__name__}.")
        if options and not isinstance(name, str):
            raise BadOption(
                f"{sort}={item!r} is already an object, so {', '.join(options)} cannot be set; set it on "
                "the object."
            )
        if name not in resolved:
            resolved.append(name)
    return resolved


def _what_works(model: Model) -> str:
    names = []
    for scheme, entry in PROTOCOLS.entries.items():
        if getattr(entry.factory, "kind", None) in model.kinds:
            names.append(scheme)
    return f"Protocols that {model.name} supports: {', '.join(names)}. {model.hint}"
