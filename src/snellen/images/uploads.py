"""Images that strangers upload."""

from __future__ import annotations

from snellen.errors import ImageError
from snellen.images import Image, decode, encode

__all__ = ["cleaned"]

#: Limits of uploads: formats, pixels.
UPLOADS = ("PNG", "JPEG", "MPO", "WEBP")
UPLOAD_PIXELS = 24_000_000


def cleaned(data: bytes, name: str) -> bytes:
    """Decode and re-encode an upload, keeping only its pixels: no EXIF, comments or profile. A JPEG stays a
    JPEG (quality 92); everything else becomes a PNG.

    Raises:
        ImageError: as for :func:`decode`; or not a PNG, JPEG or WebP, or more than ``UPLOAD_PIXELS`` pixels.
    """
    from PIL import Image as pillow

    known = Image(lambda: data, name).header
    if known.format not in UPLOADS:
        raise ImageError(f"{name}: {known.format} images are not accepted. Allowed: PNG, JPEG, WebP.")
    if known.size[0] * known.size[1] > UPLOAD_PIXELS:
        raise ImageError(
            f"{name}: {known.size[0]} x {known.size[1]} pixels; at most {UPLOAD_PIXELS:,} are accepted. "
            "Shrink the image."
        )
    picture = decode(data, name)
    bare = pillow.new("RGB", picture.size)
    bare.paste(picture)
    return encode(bare, "JPEG", 92) if known.format in ("JPEG", "MPO") else encode(bare)
