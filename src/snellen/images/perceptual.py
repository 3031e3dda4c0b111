"""Perceptual hashes, by which pictures that look alike are found."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from snellen.images import Image

__all__ = ["NEAR", "look", "near_pairs", "pixel_hash"]

#: The most differing bits (of 64) between perceptual hashes of near-duplicates.
NEAR = 4
#: A picture with fewer gray levels between its darkest and lightest part is plain.
PLAIN = 8


def look(image: Image) -> int | None:
    """Return a hash of 64 bits: the discrete cosine transform (imagehash's ``phash``); None for a picture of
    nearly one color, of which it would say nothing.

    Raises:
        ImportError: imagehash is not installed.
        ImageError: the image cannot be decoded.
    """
    import imagehash
    import numpy as np

    small = np.asarray(image.pixels.convert("L").resize((32, 32)), dtype=int)
    if small.max() - small.min() < PLAIN:
        return None
    return int(str(imagehash.phash(image.pixels)), 16)


def pixel_hash(image: Image) -> str:
    """Return a hash of a picture's size and pixels (SHA-256, hex), whatever its file's format.

    Raises:
        ImageError: the image cannot be decoded.
    """
    return hashlib.sha256(f"{image.pixels.size}".encode() + image.pixels.tobytes()).hexdigest()


def near_pairs(looks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the positions of looks that differ in few bits, each pair once.

    >>> list(near_pairs([0b0, 0b11111, 0b1]))
    [(0, 2), (1, 2)]
    """
    import numpy as np

    values = np.array(looks, dtype=np.uint64)
    for i in range(len(values) - 1):
        apart = np.bitwise_count(values[i + 1 :] ^ values[i])
        yield from ((i, i + 1 + j) for j in np.flatnonzero(apart <= NEAR).tolist())
