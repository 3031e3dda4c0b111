"""Evenly spaced frames of videos, through PyAV."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

from snellen.errors import ImageError

__all__ = ["VIDEOS", "frames"]

VIDEOS = frozenset(".mp4 .mov .m4v .webm .mkv .avi .gif".split())
#: The most frames to decode on the way to the next one that is wanted.
LONGEST = 3_000


@lru_cache(maxsize=4)
def frames(path: Path, count: int, max_pixels: int) -> tuple[bytes, ...]:
    """Return evenly spaced frames of a video as PNG: those in the middle of ``count`` equal parts.

    Args:
        max_pixels: the limit of a frame, checked before it is decoded.

    Raises:
        ImageError: missing, broken, without a picture, too large, or PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ImageError(
            f"{path}: reading videos needs PyAV. Install it with: pip install 'snellen[video]'"
        ) from error
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ImageError(f"{path}: a file without a picture. Remove it.")
            stream = container.streams.video[0]
            size = stream.codec_context.width * stream.codec_context.height
            if size > max_pixels:
                raise ImageError(f"{path}: {size:,} pixels per frame, and the limit is {max_pixels:,}.")
            return tuple(_encoded(frame) for frame in _wanted(container, stream, count, path))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise ImageError(f"{path}: a broken video ({error}). Remove or replace it.") from error


def _wanted(container: Any, stream: Any, count: int, path: Path) -> list[Any]:
    """Decode until each wanted moment, from the last key frame before it."""
    import av

    duration = float(stream.duration * stream.time_base) if stream.duration else 0.0
    if not duration and container.duration:
        duration = container.duration / av.time_base
    start = float((stream.start_time or 0) * stream.time_base)
    moments = [start + duration * (i + 0.5) / count for i in range(count)]
    found = []
    for moment in moments:
        if stream.time_base and duration:
            container.seek(int(moment / stream.time_base), stream=stream, backward=True)
        last = None
        for number, frame in enumerate(container.decode(stream)):
            if number > LONGEST:
                raise ImageError(f"{path}: more than {LONGEST:,} frames between key frames.")
            if last is not None and frame.time is not None and frame.time > moment:
                break
            last = frame
        if last is None:
            raise ImageError(f"{path}: a video without frames. Remove it.")
        found.append(last)
    return found


def _encoded(frame: Any) -> bytes:
    buffer = io.BytesIO()
    picture = frame.to_image()
    turned = round(getattr(frame, "rotation", 0) or 0) % 360  # as the camera was held
    if turned:
        picture = picture.rotate(turned, expand=True)
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
