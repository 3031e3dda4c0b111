"""Protocols: how a model is evaluated, one file each."""
