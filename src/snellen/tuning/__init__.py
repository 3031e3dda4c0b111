"""Fine-tuning, its baselines, and models assembled from parts."""

from __future__ import annotations

from snellen.tuning.tuning import TunedModel, Tuning

__all__ = ["TunedModel", "Tuning"]
