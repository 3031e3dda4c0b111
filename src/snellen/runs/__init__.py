"""Runs: plan, execute, resume, rescore, compare."""
