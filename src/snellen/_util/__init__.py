"""Small helpers that any package may use; nothing here imports a package above it."""
