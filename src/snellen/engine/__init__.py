"""The examiner: drives protocols over a model, remembers, resumes."""
