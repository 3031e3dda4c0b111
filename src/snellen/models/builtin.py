"""The location of the built-in models' weights."""

from pathlib import Path

__all__ = ["NAMES", "WEIGHTS"]

NAMES = ("llava", "llava-skewed", "clip", "classifier")
#: A folder per name, in the standard Hugging Face format.
WEIGHTS = Path(__file__).parent / "pico" / "weights"
