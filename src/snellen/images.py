"""The only room that decodes pixels or reads an image address: limits, hashing, encoding."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from snellen.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels
    from PIL.ImageFile import ImageFile

__all__ = [
    "EXTENSIONS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "Image",
    "cleaned",
    "decode",
    "encode",
    "is_hash",
    "preview",
]

#: What an image file may be at most, checked before it is decoded.
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 80_000_000  # below the number at which Pillow warns
#: Formats that are decoded, whatever a file is called.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
#: What people may upload: formats, pixels.
UPLOADS = ("PNG", "JPEG", "MPO", "WEBP")
UPLOAD_PIXELS = 24_000_000
#: The EXIF tag that says how a picture is to be turned.
ORIENTATION = 0x0112
#: The values of that tag for pictures that lie on a side.
QUARTERS = (5, 6, 7, 8)
EXTENSIONS = frozenset(".png .jpg .jpeg .jfif .webp .gif .bmp .tif .tiff .ppm .pgm .avif".split())


class Image:
    """An image by promise: read, hashed and decoded when asked, and then kept while the sample lives.

    Args:
        load: gives the encoded bytes.
        name: its address in words, for messages.
    """

    def __init__(self, load: Callable[[], bytes], name: str) -> None:
        self._load = load
        self.name = name
        self._pixels: Pixels | None = None

    @classmethod
    def from_path(cls, path: Path) -> Image:
        """The image in a file; at most ``MAX_BYTES`` of it are read."""
        return cls(lambda: _read(path), str(path))

    @classmethod
    def recorded(cls, sha256: str, size: tuple[int, int] | None, load: Callable[[], bytes]) -> Image:
        """An image whose hash is known, and its size in pixels where it matters; ``load`` gives the bytes."""
        image = cls(load, f"image {sha256[:12]}")
        image.sha256 = sha256
        if size is not None:
            image.size = size
        return image

    @cached_property
    def data(self) -> bytes:
        """The encoded bytes, as they stand in the file.

        Raises:
            ImageError: missing, unreadable, empty, or larger than ``MAX_BYTES``.
        """
        return self._load()

    @cached_property
    def sha256(self) -> str:
        """The hash of the encoded bytes, in hex."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pixels(self) -> Pixels:
        """The picture in RGB, upright, as a person would see it.

        Raises:
            ImageError: as :func:`decode`.
        """
        if self._pixels is None:
            self._pixels = decode(self.data, self.name)
        return self._pixels

    @cached_property
    def _known(self) -> _Known:
        return _header(self.data, self.name)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture in pixels, read off the header; no pixel is decoded.

        Raises:
            ImageError: as :func:`decode`.
        """
        width, height = self._known.size
        return (height, width) if self._known.turned else (width, height)

    def preview(self, side: int = 192) -> bytes:
        """A JPEG of at most ``side`` pixels a side. Pixels are not kept for it: a large JPEG is decoded at a
        fraction of its size, which is faster.

        Raises:
            ImageError: as :func:`decode`.
        """
        small = self._pixels or decode(self.data, self.name, at_least=side)
        return preview(small, side)

    def as_sent(
        self, formats: Collection[str], max_side: int | None = None, max_bytes: int | None = None
    ) -> tuple[str, bytes]:
        """Media type and encoded bytes for a server that takes these formats (Pillow's names).

        The bytes are the original ones where they can be: in one of the formats, upright, of one frame, and
        within the limits. Else the picture is encoded again: as PNG where it was without loss, as JPEG of
        quality 95 where it was not or where PNG would be too large, smaller by and by until it fits.

        Raises:
            ImageError: as :func:`decode`.
        """
        known = self._known
        plain = known.format in formats and known.upright and known.frames == 1
        if (
            plain
            and (max_side is None or max(known.size) <= max_side)
            and (max_bytes is None or len(self.data) <= max_bytes)
        ):
            return f"image/{known.format.lower()}", self.data
        picture = self._pixels or decode(self.data, self.name)
        if max_side is not None and max(picture.size) > max_side:
            picture = picture.copy()
            picture.thumbnail((max_side, max_side))
        if known.format not in ("JPEG", "MPO", "WEBP", "AVIF"):
            data = encode(picture, "PNG")
            if max_bytes is None or len(data) <= max_bytes:
                return "image/png", data
        data = encode(picture, "JPEG")
        while max_bytes is not None and len(data) > max_bytes and max(picture.size) > 64:
            picture = picture.resize((max(1, picture.width * 3 // 4), max(1, picture.height * 3 // 4)))
            data = encode(picture, "JPEG")
        return "image/jpeg", data

    def __repr__(self) -> str:
        return f"Image({self.name!r})"


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():  # a pipe would be waited for, a device read for ever
            what = "a folder, not an image" if path.is_dir() else "no such file"
            raise ImageError(f"{path}: cannot be read ({what}).")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}).") from error
    if len(data) > MAX_BYTES:
        raise ImageError(
            f"{path}: images of at most {MAX_BYTES:,} bytes are read, and it is larger. "
            "Shrink the file or remove it."
        )
    return data


def decode(data: bytes, name: str, *, at_least: int | None = None) -> Pixels:
    """Decode an image to upright RGB: the first frame, transparency over white.

    Args:
        at_least: how many pixels a side are enough: a JPEG may then be decoded at a fraction of its size.

    Raises:
        ImageError: empty, not an image, truncated, or of more than ``MAX_PIXELS`` pixels (which is
            read off the header, before any pixel is decoded).
    """
    from PIL import ImageOps

    with _opened(data, name) as file:
        if at_least is not None:
            file.draft(None, (at_least, at_least))
        file.load()
        return _to_rgb(ImageOps.exif_transpose(file))


class _Known(NamedTuple):
    """What an image's header says."""

    format: str
    size: tuple[int, int]
    upright: bool
    turned: bool  # by a quarter, so that height and width change places
    frames: int


def _header(data: bytes, name: str) -> _Known:
    with _opened(data, name) as file:
        # To look for an orientation where there is none would decode a PNG.
        tagged = any(key in file.info for key in ("exif", "xmp", "XML:com.adobe.xmp"))
        way = file.getexif().get(ORIENTATION, 1) if tagged else 1
        return _Known(file.format or "", file.size, way == 1, way in QUARTERS, getattr(file, "n_frames", 1))


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[ImageFile]:
    """The opened file, its size checked; what goes wrong with it becomes an ImageError."""
    from PIL import Image as pillow
    from PIL import UnidentifiedImageError

    if not data:
        raise ImageError(f"{name}: an empty file, not an image. Remove it.")
    try:
        with pillow.open(io.BytesIO(data), formats=_formats()) as file:
            width, height = file.size
            if width * height > MAX_PIXELS:
                raise _too_large(name, f"{width} x {height} pixels")
            yield file
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        raise _too_large(name, str(error)) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image that can be read. Remove or replace it.") from error
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise ImageError(f"{name}: a broken image ({error}). Remove or replace it.") from error


def _too_large(name: str, size: str) -> ImageError:
    return ImageError(
        f"{name}: {size}; at most {MAX_PIXELS:,} pixels are decoded. Shrink the image or remove it."
    )


def _formats() -> list[str]:
    from PIL import Image as pillow

    pillow.init()
    return [name for name in FORMATS if name in pillow.OPEN]


def _to_rgb(image: Pixels) -> Pixels:
    from PIL import Image as pillow

    if image.mode.startswith("I") or image.mode == "F":  # 16 bits and more: Pillow would clip them
        import numpy as np

        values = np.asarray(image, dtype=np.float64)
        if image.mode.startswith("I;16"):
            top = 65535.0
        else:  # 32 bits or floats, which say nothing of their range
            most = values.max(initial=0)
            top = 65535.0 if most > 255 else 255.0 if most > 1 else 1.0
        return pillow.fromarray((values * (255 / top)).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        paper = pillow.new("RGBA", layer.size, "white")
        return pillow.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


def encode(image: Pixels, format: str = "PNG", quality: int = 95) -> bytes:
    """The encoded bytes of a picture."""
    buffer = io.BytesIO()
    # Fast compression: charts are noisy, so more effort gains next to nothing.
    image.save(buffer, format, **({"compress_level": 1} if format == "PNG" else {"quality": quality}))
    return buffer.getvalue()


def cleaned(data: bytes, name: str) -> bytes:
    """An upload decoded and encoded again: the pixels and nothing else, no EXIF, comment or profile. A JPEG
    stays one (quality 92), all else becomes a PNG.

    Raises:
        ImageError: as :func:`decode`; or no PNG, JPEG or WebP, or of more than ``UPLOAD_PIXELS`` pixels.
    """
    from PIL import Image as pillow

    known = _header(data, name)
    if known.format not in UPLOADS:
        raise ImageError(f"{name}: {known.format} images are not taken. Allowed: PNG, JPEG, WebP.")
    if known.size[0] * known.size[1] > UPLOAD_PIXELS:
        raise ImageError(
            f"{name}: {known.size[0]} x {known.size[1]} pixels; at most {UPLOAD_PIXELS:,} are taken. "
            "Shrink the image."
        )
    picture = decode(data, name)
    bare = pillow.new("RGB", picture.size)
    bare.paste(picture)
    return encode(bare, "JPEG", 92) if known.format in ("JPEG", "MPO") else encode(bare)


def is_hash(text: str) -> bool:
    """Whether a text is a sha256 in hex, and nothing that leads elsewhere."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


def preview(image: Pixels, side: int = 192) -> bytes:
    """A JPEG of at most ``side`` pixels a side."""
    small = image.copy()
    small.thumbnail((side, side))
    return encode(small, "JPEG", 75)
