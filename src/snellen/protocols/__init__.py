"""How a model is examined, one file each."""
