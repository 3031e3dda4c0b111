"""Metrics, their intervals, and tests."""
