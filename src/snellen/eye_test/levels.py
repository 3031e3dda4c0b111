"""Which levels of a degradation to test images at, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.engine.pending import readable
from snellen.errors import ImageError, UsageError
from snellen.images.degrade import DEGRADATIONS
from snellen.models.base import MODELS, Model
from snellen.registry import with_option
from snellen.runs.filters import Filters
from snellen.runs.plan import Plan, SharedResources
from snellen.types import Kind, Sample

if TYPE_CHECKING:
    from snellen.storage.store import Store

__all__ = ["in_order", "plan_of", "usual"]

#: Sizes that at least this share of the images exceed are worth testing.
EXCEED = 0.5


def plan_of(
    model: str | Model,
    data: str,
    *,
    degrade: str | None = None,
    protocol: str | None = None,
    limit: int | None = None,
    skip_invalid: bool = False,
    model_options: Mapping[str, Any] | None = None,
    data_options: Mapping[str, Any] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    max_cost: float | None = None,
    workspace: Store | Path | str | None = None,
    resources: SharedResources | None = None,
) -> Plan:
    """Return the plan of one level, or of the images as they are; options as for
    :func:`~snellen.eye_test.own_images.run_own_images`.

    Args:
        degrade: ``NAME:LEVEL``.

    Raises:
        UsageError: as for :class:`snellen.runs.plan.Plan`.
    """
    made = MODELS.make(model, model_options or {}) if isinstance(model, str) else model
    unasked = [] if Kind.GENERATE in made.kinds else ["rank"]
    # Named, so that levels can be told apart where runs are listed.
    named = with_option(data, "degrade", degrade) if degrade else data
    return Plan(
        models=[model],
        data=[named],
        protocols=[protocol] if protocol else unasked,
        model_options=model_options or {},
        data_options={
            key: value for key, value in (data_options or {}).items() if not (degrade and key == "degrade")
        },
        filters=Filters(limit=limit, shuffle=limit is not None, skip_invalid=skip_invalid),
        seed=seed,
        batch_size=batch_size,
        max_cost=max_cost,
        workspace=workspace,
        resources=resources,
    )


def in_order(name: str, levels: Sequence[float]) -> list[float]:
    """Return levels from easy to hard, each once."""
    rising = DEGRADATIONS[name].rising
    return list(dict.fromkeys(levels)) if rising is None else sorted(set(levels), reverse=rising)


def usual(name: str, plan: Plan) -> list[float]:
    """Return the usual levels; of sizes, those that at least half of the images exceed.

    Raises:
        UsageError: there are none.
    """
    known = list(DEGRADATIONS[name].levels)
    if name != "size":
        return known
    (selection,) = plan.selections
    samples = (sample for _, sample in readable(selection, range(len(selection)), []))
    sides = sorted(filter(None, (_side(sample) for sample in samples)))
    typical = sides[int(EXCEED * (len(sides) - 1))] if sides else 0
    sizes = [level for level in known if level < typical]
    if not sizes:
        raise UsageError(
            f"{selection.name}: most images have at most {typical} pixels a side, so there is no smaller "
            "size to test. Use other degradations: --with blur,jpeg,noise"
        )
    return sizes


def _side(sample: Sample) -> int:
    """Return the longer side of a sample's first image; 0 for one that cannot be read: its run says so."""
    try:
        return max(sample.images[0].size) if sample.images else 0
    except ImageError:
        return 0
