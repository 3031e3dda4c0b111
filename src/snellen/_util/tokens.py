"""About how many tokens texts and images are, where no tokenizer is at hand: pure."""

from __future__ import annotations

__all__ = ["image_tokens", "text_tokens"]

#: Of English text.
CHARACTERS_A_TOKEN = 4


def text_tokens(characters: int) -> float:
    """Tokens of so many characters."""
    return characters / CHARACTERS_A_TOKEN


def image_tokens(size: tuple[int, int]) -> int:
    """Tokens of an image of so many pixels, as OpenAI counts them for GPT-4o at high detail: 85, and 170 for
    each tile of 512 pixels a side, once it fits into 2048 pixels a side and its shorter side into 768
    (https://platform.openai.com/docs/guides/images-vision). Others count otherwise.

    >>> image_tokens((1024, 1024))
    765
    """
    width, height = size
    scale = min(1.0, 2048 / max(width, height), 768 / min(width, height))
    tiles = -(-round(width * scale) // 512) * -(-round(height * scale) // 512)
    return 85 + 170 * tiles
