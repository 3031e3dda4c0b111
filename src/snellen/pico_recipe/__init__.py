"""Training of the built-in models."""
