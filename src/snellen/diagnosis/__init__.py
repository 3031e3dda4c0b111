"""Diagnose why a model fails at classification: labels, prompts, decoding, features, training; one part
each.
"""
