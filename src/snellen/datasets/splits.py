"""Other splits of a named data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snellen.datasets.base import DATASETS
from snellen.datasets.dataset import Dataset
from snellen.errors import UsageError
from snellen.registry import parse_name

__all__ = ["named_split", "training_split"]


def named_split(name: str, options: Mapping[str, Any], split: str) -> Dataset:
    """Open a split of a data set, overriding any split in its name.

    Raises:
        UsageError: there is none, or it does not exist.
    """
    scheme, rest, own = parse_name(name)
    return DATASETS.make(f"{scheme}:{rest}", {**own, **options, "split": split})


def training_split(name: str, options: Mapping[str, Any]) -> Dataset | None:
    """Return the training split of a data set without a named split; None if there is none."""
    if "split" in {**parse_name(name)[2], **options}:
        return None
    try:
        return named_split(name, options, "train")
    except UsageError:
        return None
