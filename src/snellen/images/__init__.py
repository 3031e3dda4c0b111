"""The only module that decodes images or reads image files: limits, hashing, encoding."""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from snellen.errors import ImageError
from snellen.images.depth import in_eight_bits, is_deep
from snellen.images.dicom import decode_dicom, dicom_size, is_dicom
from snellen.images.lazy import lazy
from snellen.images.video import VIDEOS, frames

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels
    from PIL.ImageFile import ImageFile

__all__ = [
    "EXTENSIONS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "VIDEOS",
    "Header",
    "Image",
    "cropped",
    "decode",
    "encode",
    "is_hash",
    "preview",
    "shrunk",
    "too_many_bytes",
]

#: Limits of an image file, checked before it is decoded.
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 80_000_000  # below the number at which Pillow warns
#: Formats that are decoded, whatever the file extension.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF", "JPEG2000")
#: Formats that lose detail, so that another loss is no harm.
LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "HEIF", "JPEG2000")
#: The EXIF orientation tag.
ORIENTATION = 0x0112
#: Orientations that swap width and height.
QUARTERS = (5, 6, 7, 8)
EXTENSIONS = frozenset(
    ".png .apng .jpg .jpeg .jfif .webp .gif .bmp .tif .tiff .ppm .pgm .avif".split()
    + ".heic .heif .jp2 .j2k .dcm".split()
)


class Image:
    """A lazy image: read, hashed and decoded on first use, then cached while the sample lives.

    Args:
        load: returns the encoded bytes.
        name: the image's location, for messages.
    """

    def __init__(self, load: Callable[[], bytes], name: str) -> None:
        self._load = load
        self.name = name
        self._pixels: Pixels | None = None

    @classmethod
    def from_path(cls, path: Path) -> Image:
        """Return the image in a file; at most ``MAX_BYTES`` are read."""
        return cls(lambda: _read(path), str(path))

    @classmethod
    def recorded(cls, sha256: str, size: tuple[int, int] | None, load: Callable[[], bytes]) -> Image:
        """Return an image whose hash, and optionally size in pixels, is known; ``load`` returns its bytes."""
        image = cls(load, f"image {sha256[:12]}")
        image.sha256 = sha256
        if size is not None:
            image.size = size
        return image

    @classmethod
    def frames(cls, path: Path, count: int) -> tuple[Image, ...]:
        """Return evenly spaced frames of a video, decoded on first use."""

        def load(place: int) -> bytes:
            return frames(path, count, MAX_PIXELS)[place]

        return tuple(cls(partial(load, i), f"{path}, frame {i + 1} of {count}") for i in range(count))

    def windowed(self, low: float, high: float) -> Image:
        """Return the picture with these values, of more than 8 bits, as black and white."""
        return Image(
            lambda: encode(decode(self.data, self.name, window=(low, high))),
            f"{self.name}, {low:g} to {high:g}",
        )

    @lazy
    def data(self) -> bytes:
        """The encoded bytes, exactly as in the file.

        Raises:
            ImageError: missing, unreadable, empty, or larger than ``MAX_BYTES``.
        """
        return self._load()

    @lazy
    def sha256(self) -> str:
        """The SHA-256 hash of the encoded bytes, in hex."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def proven(self) -> str:
        """:attr:`sha256` of a file that begins as a picture within the limits does, which is known without
        decoding it.

        Raises:
            ImageError: as for :func:`decode`, where the header tells.
        """
        if not is_dicom(self.data):
            with _opened(self.data, self.name):
                pass
        return self.sha256

    @property
    def pixels(self) -> Pixels:
        """The picture in upright RGB, as a person would see it.

        Raises:
            ImageError: as for :func:`decode`.
        """
        if self._pixels is None:
            self._pixels = decode(self.data, self.name)
        return self._pixels

    def decoded(self) -> Pixels:
        """Return the picture like :attr:`pixels`, without keeping it.

        Raises:
            ImageError: as for :func:`decode`.
        """
        return self._pixels or decode(self.data, self.name)

    @lazy
    def header(self) -> Header:
        """What the file says about the picture, read without decoding.

        Raises:
            ImageError: as for :func:`decode`.
        """
        return _header(self.data, self.name)

    @lazy
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture in pixels, read from the header without decoding.

        Raises:
            ImageError: as for :func:`decode`.
        """
        width, height = self.header.size
        return (height, width) if self.header.turned else (width, height)

    def preview(self, side: int = 192) -> bytes:
        """Return a JPEG of at most ``side`` pixels a side. Pixels are not cached: a large JPEG is decoded at
        a fraction of its size, which is faster.

        Raises:
            ImageError: as for :func:`decode`.
        """
        small = self._pixels or decode(self.data, self.name, at_least=side)
        return preview(small, side)

    def __repr__(self) -> str:
        return f"Image({self.name!r})"


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():  # opening a pipe would block, reading a device might never end
            what = "a folder, not an image" if path.is_dir() else "no such file"
            raise ImageError(f"{path}: cannot be read ({what}).")
        with path.open("rb") as file:
            # As many bytes are set aside as are asked for, before any is read.
            size = os.fstat(file.fileno()).st_size or MAX_BYTES  # some file systems do not tell
            data = file.read(min(size, MAX_BYTES) + 1)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}).") from error
    if len(data) > MAX_BYTES:
        raise too_many_bytes(str(path), MAX_BYTES)
    return data


def too_many_bytes(name: str, limit: int) -> ImageError:
    """Return the error of an image file that is too large to be read."""
    return ImageError(
        f"{name}: larger than the limit of {limit:,} bytes per image. Shrink the file or remove it."
    )


def decode(
    data: bytes, name: str, *, at_least: int | None = None, window: tuple[float, float] | None = None
) -> Pixels:
    """Decode an image to upright RGB: the first frame, with transparency over white, colors in sRGB, and
    values of more than 8 bits scaled by their range (see :func:`snellen.images.depth.top_value`).

    Args:
        window: the values of more than 8 bits that become black and white.
        at_least: the pixels a side that suffice; a JPEG may then be decoded at a fraction of its size.

    Raises:
        ImageError: empty, not an image, truncated, or larger than ``MAX_PIXELS`` pixels (checked in the
            header, before decoding).
    """
    from PIL import ImageOps

    if is_dicom(data):
        return decode_dicom(data, name, window, MAX_PIXELS)
    with _opened(data, name) as file:
        if at_least is not None:
            file.draft(None, (at_least, at_least))
        file.load()
        profile = file.info.get("icc_profile")
        picture = _to_rgb(ImageOps.exif_transpose(file), getattr(file, "tag_v2", {}), window)
        return _in_srgb(picture, profile) if profile and file.mode in ("RGB", "RGBA") else picture


def cropped(path: Path, box: tuple[float, float, float, float]) -> bytes:
    """Return a part of an image file as PNG.

    Args:
        box: left, top, right, bottom in pixels of the upright picture; clipped to it.

    Raises:
        ImageError: as for :func:`decode`; or the box is empty or outside the picture.
    """
    picture = _decoded(path)
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    right, bottom = min(picture.width, math.ceil(box[2])), min(picture.height, math.ceil(box[3]))
    if right <= left or bottom <= top:
        raise ImageError(
            f"{path}: the box {list(box)} is not in the image of {picture.width} x {picture.height}."
        )
    return encode(picture.crop((left, top, right, bottom)))


@lru_cache(maxsize=2)  # the objects of an image follow each other
def _decoded(path: Path) -> Pixels:
    return decode(_read(path), str(path))


class Header(NamedTuple):
    """The properties in an image's header."""

    format: str
    size: tuple[int, int]
    upright: bool
    turned: bool  # by 90 degrees, which swaps height and width
    frames: int
    mode: str  # Pillow's
    transparent: bool


def _header(data: bytes, name: str) -> Header:
    if is_dicom(data):
        return Header("DICOM", dicom_size(data, name), True, False, 1, "I;16", False)
    with _opened(data, name) as file:
        # Looking for an orientation that is not there would decode a PNG.
        tagged = any(key in file.info for key in ("exif", "xmp", "XML:com.adobe.xmp"))
        way = file.getexif().get(ORIENTATION, 1) if tagged else 1
        count, clear = getattr(file, "n_frames", 1), _is_transparent(file)
        return Header(file.format or "", file.size, way == 1, way in QUARTERS, count, file.mode, clear)


def _is_transparent(image: Pixels) -> bool:
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[ImageFile]:
    """Open an image and check its size; any failure becomes an ImageError."""
    from PIL import Image as pillow
    from PIL import UnidentifiedImageError

    if not data:
        raise ImageError(f"{name}: the file is empty. Remove it.")
    try:
        if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
            _read_heif(name)
        with pillow.open(io.BytesIO(data), formats=_formats()) as file:
            width, height = file.size
            if width * height > MAX_PIXELS:
                raise _too_large(name, f"{width} x {height} pixels")
            yield file
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        size = re.search(r"\d+ pixels", str(error))
        raise _too_large(name, size[0] if size else "too many pixels") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not a readable image. Remove or replace it.") from error
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise ImageError(f"{name}: a broken image ({error}). Remove or replace it.") from error


def _too_large(name: str, size: str) -> ImageError:
    return ImageError(
        f"{name}: {size}, and the limit is {MAX_PIXELS:,} pixels. Shrink the image or remove it."
    )


#: Of the files that begin with "ftyp", those that are pictures coded with HEVC.
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def _read_heif(name: str) -> None:
    """Let Pillow read HEIC and HEIF.

    Raises:
        ImageError: pillow-heif is not installed.
    """
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise ImageError(
            f"{name}: reading HEIC needs pillow-heif. Install it with: pip install pillow-heif"
        ) from error
    register_heif_opener()


def _in_srgb(image: Pixels, profile: bytes) -> Pixels:
    """Convert colors from an embedded profile (iPhones write Display P3) to sRGB; a broken profile is
    ignored, as browsers do.
    """
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    return image if converted is None else converted


def _formats() -> list[str]:
    from PIL import Image as pillow

    pillow.init()
    return [name for name in FORMATS if name in pillow.OPEN]


def _to_rgb(image: Pixels, tags: Mapping[int, object], window: tuple[float, float] | None) -> Pixels:
    from PIL import Image as pillow

    if is_deep(image.mode):
        return in_eight_bits(image, tags, window)
    if _is_transparent(image):
        layer = image.convert("RGBA")
        paper = pillow.new("RGBA", layer.size, "white")
        return pillow.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


def encode(image: Pixels, format: str = "PNG", quality: int = 95) -> bytes:
    """Encode a picture."""
    buffer = io.BytesIO()
    # Fast compression: more effort gains next to nothing on noisy charts.
    image.save(buffer, format, **({"compress_level": 1} if format == "PNG" else {"quality": quality}))
    return buffer.getvalue()


def is_hash(text: str) -> bool:
    """Return whether a text is a SHA-256 hash in hex, so that it is safe in a path."""
    return re.fullmatch(r"[0-9a-f]{64}", text) is not None


def preview(image: Pixels, side: int = 192) -> bytes:
    """Return a JPEG of at most ``side`` pixels a side."""
    return encode(shrunk(image, side), "JPEG", 75)


def shrunk(image: Pixels, side: int | None) -> Pixels:
    """Return a picture of at most ``side`` pixels a side, if that is set; itself if it is small enough."""
    if side is None or max(image.size) <= side:
        return image
    small = image.copy()
    small.thumbnail((side, side))
    return small
