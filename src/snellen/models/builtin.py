"""Where the weights of the built-in models lie."""

from pathlib import Path

__all__ = ["NAMES", "WEIGHTS"]

NAMES = ("llava", "llava-skewed", "clip", "classifier")
#: A folder per name, in the ordinary Hugging Face format.
WEIGHTS = Path(__file__).parent / "pico" / "weights"
