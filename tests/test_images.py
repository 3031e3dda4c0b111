"""Pixels as a person would see them, and what is refused before decoding."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pillow

from snellen import images
from snellen.errors import ImageError
from snellen.images import Image, decode, encode, preview


def encoded(image: pillow.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises that many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("image", "format", "pixel"),
    [
        (pillow.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG", (255, 255, 255)),
        (pillow.new("RGBA", (4, 4), (255, 0, 0, 255)), "PNG", (255, 0, 0)),
        (pillow.new("LA", (4, 4), (0, 255)), "PNG", (0, 0, 0)),
        (pillow.new("L", (4, 4), 128), "PNG", (128, 128, 128)),
        (pillow.new("1", (4, 4), 1), "PNG", (255, 255, 255)),
        (pillow.new("P", (4, 4), 0), "GIF", (0, 0, 0)),
        (pillow.new("CMYK", (4, 4), (0, 0, 0, 0)), "TIFF", (255, 255, 255)),
        (pillow.fromarray(np.full((4, 4), 65535, np.uint16)), "PNG", (255, 255, 255)),
        (pillow.fromarray(np.full((4, 4), 32768, np.uint16)), "PNG", (127, 127, 127)),
        (pillow.fromarray(np.full((4, 4), 200, np.uint16)), "PNG", (0, 0, 0)),
        (pillow.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF", (127, 127, 127)),
    ],
    ids=lambda value: value.mode if isinstance(value, pillow.Image) else str(value),
)
def test_every_mode_is_seen_as_rgb(image, format, pixel):
    found = decode(encoded(image, format), "x")
    assert found.mode == "RGB"
    assert found.getpixel((1, 1)) == pixel


def test_a_turned_photograph_stands_upright():
    image = pillow.new("RGB", (20, 10), "blue")
    exif = pillow.Exif()
    exif[0x0112] = 6
    assert decode(encoded(image, "JPEG", exif=exif), "x").size == (10, 20)


def test_the_first_frame_of_an_animation():
    frames = [pillow.new("RGB", (4, 4), color) for color in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data, "x").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "file is empty"),
        (b"hello, I am text", "not a readable image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a readable image"),
        (encoded(pillow.new("RGB", (64, 64)))[:60], "broken image"),
        (encoded(pillow.effect_noise((64, 64), 90).convert("RGB"), "JPEG")[:900], "broken image"),
        (bomb(60_000, 60_000), "the limit is 80,000,000 pixels"),
        (bomb(9_200, 9_200), "9200 x 9200 pixels, and the limit is 80,000,000"),
    ],
)
def test_what_is_refused_is_named(data, message):
    with pytest.raises(ImageError, match=message) as caught:
        decode(data, "folder/file.png")
    assert str(caught.value).startswith("folder/file.png")


def test_large_files_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    path = tmp_path / "big.png"
    path.write_bytes(b"x" * 11)
    with pytest.raises(ImageError, match="larger than the limit of 10 bytes"):
        _ = Image.from_path(path).data
    with pytest.raises(ImageError, match="cannot be read"):
        _ = Image.from_path(tmp_path / "none.png").data


def test_an_image_is_read_once(red):
    calls = []
    image = Image(lambda: calls.append(1) or encode(red), "x")
    assert image.pixels.size == (12, 8)
    assert len(image.sha256) == 64
    assert image.data
    assert calls == [1]


@given(st.integers(1, 400), st.integers(1, 400))
def test_previews_are_small_and_keep_their_shape(width, height):
    found = decode(preview(pillow.new("RGB", (width, height))), "x")
    assert max(found.size) <= 192
    if max(width, height) <= 192:
        assert found.size == (width, height)


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_decode_or_be_refused(data):
    try:
        assert decode(data, "x").mode == "RGB"
    except ImageError:
        pass
