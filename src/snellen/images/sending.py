"""Images as they leave the machine: in a format and size that a server takes, without metadata."""

from __future__ import annotations

import struct
import threading
from bisect import bisect_left
from collections.abc import Collection
from contextlib import nullcontext

from snellen.images import LOSSY, Image, encode, shrunk

__all__ = ["as_sent", "without_metadata"]


def as_sent(
    image: Image, formats: Collection[str], max_side: int | None = None, max_bytes: int | None = None
) -> tuple[str, bytes]:
    """Return the media type and encoded bytes for a server that accepts these formats (Pillow's names).

    The file's own picture is sent, without metadata, if it has an accepted format, is upright, has a single
    frame, and is within the limits. Otherwise the picture is re-encoded: lossless sources as PNG; lossy
    ones, and those whose PNG would be too large, as JPEG of quality 95, downscaled step by step until it
    fits.

    Raises:
        ImageError: as for :func:`~snellen.images.decode`.
    """
    known = image.header
    # An MPO file is a JPEG, followed by other pictures.
    format = "JPEG" if known.format == "MPO" else known.format
    single = known.frames == 1 or known.format == "MPO"
    fits = max_side is None or max(known.size) <= max_side
    if format in formats and format in METADATA_FREE and known.upright and single and fits:
        try:
            data = without_metadata(format, image.data)
        except ValueError:  # decoders are more lenient
            data = b""
        if data and (max_bytes is None or len(data) <= max_bytes):
            return f"image/{format.lower()}", data
    large = known.size[0] * known.size[1] > LARGE
    with _RESIZING if large else nullcontext():
        return _reencoded(image, formats, max_side, max_bytes)


def _reencoded(
    image: Image, formats: Collection[str], max_side: int | None, max_bytes: int | None
) -> tuple[str, bytes]:
    known = image.header
    picture = shrunk(image.decoded(), max_side)
    if known.format not in LOSSY and "PNG" in formats:
        data = encode(picture, "PNG")
        if max_bytes is None or len(data) <= max_bytes:
            return "image/png", data
    kind = "JPEG" if "JPEG" in formats else "PNG"
    data = encode(picture, kind)
    while max_bytes is not None and len(data) > max_bytes and max(picture.size) > 64:
        picture = picture.resize((max(1, picture.width * 3 // 4), max(1, picture.height * 3 // 4)))
        data = encode(picture, kind)
    return f"image/{kind.lower()}", data


#: From so many pixels on, few pictures are in memory at a time.
LARGE = 4_000_000
_RESIZING = threading.BoundedSemaphore(2)
#: Formats (Pillow's names) whose files :func:`without_metadata` rewrites.
METADATA_FREE = frozenset({"JPEG", "PNG", "WEBP"})
#: JPEG segments (ITU-T T.81) that the picture needs: JFIF, the color profile, Adobe's color transform. All
#: other APPn are metadata: Exif, XMP, IPTC, further pictures.
_NEEDED_APP = {0xE0, 0xE2, 0xEE}
#: PNG chunks (ISO 15948) without which the picture is the same.
_PNG_METADATA = {b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME"}
_WEBP_METADATA = {b"EXIF", b"XMP "}
#: In VP8X: that there are such chunks.
_WEBP_FLAGS = 0b1100


def without_metadata(format: str, data: bytes) -> bytes:
    """Return a file of the same picture, color profile included, without metadata and whatever follows the
    picture (a phone's video, say). The picture's data stay as they are.

    Args:
        format: one of :data:`METADATA_FREE`.
        data: a whole file.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp}[format](data)
    except (IndexError, struct.error) as error:
        raise ValueError(f"a damaged {format} file") from error


def _jpeg(data: bytes) -> bytes:
    marks = _markers(data)
    whole = memoryview(data)  # its parts are not copied until they are joined
    kept: list[bytes | memoryview] = [whole[:2]]
    at = 2

    def following(at: int) -> int:
        """Return the place of the last 0xFF of the next marker; any before it are fill bytes."""
        place = bisect_left(marks, at)
        if place == len(marks):
            raise ValueError("a JPEG file without an end")
        return marks[place]

    while True:
        mark = following(at)
        kind = data[mark + 1]
        if kind == 0xD9:
            kept.append(b"\xff\xd9")
            return b"".join(kept)
        (length,) = struct.unpack_from(">H", data, mark + 2)
        end = mark + 2 + length
        metadata = kind == 0xFE or (0xE0 <= kind <= 0xEF and not _needed(kind, data[mark + 2 : end]))
        if not metadata:
            kept.append(whole[mark:end])
        at = end
        if kind == 0xDA:  # a scan's data follow, and fill bytes
            scan = end = following(at)
            while end > at and data[end - 1] == 0xFF:
                end -= 1
            kept.append(whole[at:end])
            at = scan


def _markers(data: bytes) -> list[int]:
    """Return the places of 0xFF before a marker: neither a stuffed byte nor a restart follows. A scan's data
    are most of a file, and a search byte by byte takes longer than decoding it.
    """
    import numpy as np

    every = np.frombuffer(data, dtype=np.uint8)
    places = np.flatnonzero(every[:-1] == 0xFF)
    codes = every[places + 1]
    marking = (codes != 0) & (codes != 0xFF) & ((codes < 0xD0) | (codes > 0xD7))
    found: list[int] = places[marking].tolist()
    return found


def _needed(kind: int, body: bytes) -> bool:
    # APP2 holds color profiles, but also the index of further pictures (MPF).
    return kind in _NEEDED_APP and (kind != 0xE2 or body[2:].startswith(b"ICC_PROFILE\x00"))


def _png(data: bytes) -> bytes:
    kept, at, kind = [data[:8]], 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ValueError("a PNG file without an end")
        if kind not in _PNG_METADATA:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _webp(data: bytes) -> bytes:
    (size,) = struct.unpack_from("<I", data, 4)
    kept, at = [], 12
    while at < min(8 + size, len(data)):
        kind, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length + length % 2
        chunk = data[at:end]
        if kind == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~_WEBP_FLAGS]) + chunk[9:]
        if kind not in _WEBP_METADATA:
            kept.append(chunk)
        at = end
    body = b"".join(kept)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
