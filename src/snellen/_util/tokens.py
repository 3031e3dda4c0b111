"""Estimate the number of tokens in texts and images without a tokenizer. Pure."""

from __future__ import annotations

__all__ = ["image_tokens", "text_tokens"]

#: Of English text.
CHARACTERS_A_TOKEN = 4


def text_tokens(characters: int) -> float:
    """Estimate the tokens in a text of this many characters."""
    return characters / CHARACTERS_A_TOKEN


def image_tokens(size: tuple[int, int]) -> int:
    """Estimate the tokens of an image of this size in pixels, by OpenAI's rule for GPT-4o at high detail:
    scale it to fit into 2048 pixels a side and its shorter side to 768, then count 85, plus 170 per tile
    of 512 pixels a side (https://platform.openai.com/docs/guides/images-vision). Other models count
    differently.

    >>> image_tokens((1024, 1024))
    765
    """
    width, height = size
    scale = min(1.0, 2048 / max(width, height), 768 / min(width, height))
    tiles = -(-round(width * scale) // 512) * -(-round(height * scale) // 512)
    return 85 + 170 * tiles
