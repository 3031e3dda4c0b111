"""How a failing model is mended: fine-tuning, its baselines, and models put together from parts."""

from __future__ import annotations

from snellen.tuning.tuning import TunedModel, Tuning

__all__ = ["TunedModel", "Tuning"]
