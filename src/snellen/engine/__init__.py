"""The evaluation engine: runs protocols on models, caches answers, resumes."""
