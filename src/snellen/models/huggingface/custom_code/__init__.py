"""Checkpoints that answer by code of their own, which comes with them: one file for each family.

Their code runs only with ``trust_remote_code=true``. What transformers itself has needs none of this.
"""
