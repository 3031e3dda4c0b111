"""Small helpers for every package; nothing here imports a package above it."""
