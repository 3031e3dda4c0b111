"""Perceptual hashes, by which pictures that look alike are found."""

from __future__ import annotations

from snellen.images import Image

__all__ = ["NEAR", "is_plain", "perceptual"]

#: The most differing bits (of 64) between perceptual hashes of near-duplicates.
NEAR = 4
#: A picture with fewer gray levels between its darkest and lightest part is plain.
PLAIN = 8


def perceptual(image: Image) -> int:
    """Return a hash of 64 bits: the discrete cosine transform (imagehash's ``phash``).

    Raises:
        ImportError: imagehash is not installed.
        ImageError: the image cannot be decoded.
    """
    import imagehash

    return int(str(imagehash.phash(image.pixels)), 16)


def is_plain(image: Image) -> bool:
    """Return whether a picture has nearly one color, so that its hash says nothing."""
    import numpy as np

    small = np.asarray(image.pixels.convert("L").resize((32, 32)), dtype=int)
    return bool(small.max() - small.min() < PLAIN)
