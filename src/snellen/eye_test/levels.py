"""Which levels of a degradation to test images at."""

from __future__ import annotations

from collections.abc import Sequence

from snellen.engine.pending import readable
from snellen.errors import ImageError, UsageError
from snellen.images.degrade import DEGRADATIONS
from snellen.runs.plan import Plan
from snellen.types import Sample

__all__ = ["in_order", "usual"]

#: Sizes that at least this share of the images exceed are worth testing.
EXCEED = 0.5


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
