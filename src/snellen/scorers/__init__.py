"""Scorers that need a model or all predictions of a run."""
