"""Decisions: which model to use, from as few answers as possible."""
