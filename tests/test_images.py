"""Pixels as a person would see them, and what is refused before decoding."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pillow
from PIL import ImageCms
from PIL.PngImagePlugin import PngInfo

from snellen import images
from snellen.errors import ImageError
from snellen.images import Image, decode, encode, preview
from snellen.images.sending import as_sent, without_metadata


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
        (pillow.fromarray(np.full((4, 4), 200, np.uint16)), "PNG", (49, 49, 49)),
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


def test_heic_jpeg_2000_and_animated_png_are_read():
    pillow_heif = pytest.importorskip("pillow_heif")
    picture = pillow.new("RGB", (64, 48), (200, 40, 40))
    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture).save(buffer, quality=95)
    second = pillow.new("RGB", (64, 48), (0, 0, 255))
    animated = encoded(picture, "PNG", save_all=True, append_images=[second])
    for data in (buffer.getvalue(), encoded(picture, "JPEG2000"), animated):
        seen = Image(io.BytesIO(data).getvalue, "a picture")
        assert seen.size == (64, 48)
        assert np.abs(np.asarray(seen.pixels, dtype=int) - (200, 40, 40)).max() < 8
        assert as_sent(seen, ("PNG", "JPEG"))[0] in ("image/jpeg", "image/png")


def test_heic_is_bounded_as_other_formats_are(monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(pillow.new("RGB", (64, 48))).save(buffer)
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    with pytest.raises(ImageError, match="the limit is 1,000 pixels"):
        decode(buffer.getvalue(), "a.heic")
    with pytest.raises(ImageError, match="broken image|not a readable image"):
        decode(buffer.getvalue()[:200], "b.heic")


@pytest.mark.parametrize(
    ("most", "tags", "white"),
    [(4000, {}, 4095), (60_000, {}, 65_535), (900, {}, 1023), (900, {281: 4095}, 4095), (16_000, {}, 16_383)],
)
def test_twelve_bits_in_sixteen_are_not_black(most, tags, white):
    values = np.linspace(0, most, 64 * 64).reshape(64, 64).astype(np.uint16)
    seen = np.asarray(decode(encoded(pillow.fromarray(values), "TIFF", tiffinfo=tags), "a scan"))
    assert seen.max() == most * 255 // white
    assert seen.min() == 0


def display_p3() -> bytes:
    """An ICC profile with the primaries of Display P3 (adapted to D50) and a gamma of 2.2."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    name = b"P3 for a test\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78),
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.51512, 0.2412, -0.00105),
        b"gXYZ": xyz(0.29198, 0.69225, 0.04189),
        b"bXYZ": xyz(0.1571, 0.06657, 0.78407),
    }
    tags |= {
        key: b"curv\0\0\0\0\0\0\0\1" + struct.pack(">H", round(2.2 * 256))
        for key in (b"rTRC", b"gTRC", b"bTRC")
    }
    table, body, at = b"", b"", 128 + 4 + 12 * len(tags)
    for key, value in tags.items():
        value += bytes(-len(value) % 4)
        table += key + struct.pack(">II", at + len(body), len(value))
        body += value
    size = at + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02200000, b"mntr", b"RGB ", b"XYZ ")
    header += (
        struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
        + b"acsp"
        + bytes(28)
        + fixed(0.9642)
        + fixed(1)
        + fixed(0.8249)
    )
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def test_colors_are_converted_from_their_profile():
    """Against the matrices of both color spaces."""
    wide = (200, 90, 90)
    seen = decode(
        encoded(pillow.new("RGB", (4, 4), wide), "PNG", icc_profile=display_p3()), "a photo"
    ).getpixel((1, 1))
    p3 = np.array([[0.51512, 0.29198, 0.1571], [0.2412, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
    srgb = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.7141]])
    linear = np.linalg.inv(srgb) @ p3 @ (np.array(wide) / 255) ** 2.2
    expected = 255 * np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.abs(linear) ** (1 / 2.4) - 0.055
    )
    assert np.abs(np.array(seen) - expected).max() < 2
    assert seen[0] > wide[0] + 5
    broken = encoded(pillow.new("RGB", (4, 4), wide), "PNG", icc_profile=b"no profile" * 20)
    assert decode(broken, "a photo").getpixel((1, 1)) == wide


#: It tells when it was made: once for all tests.
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noisy(mode: str = "RGB") -> pillow.Image:
    noise = np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return pillow.fromarray(noise).convert(mode)


def with_secrets(format: str, mode: str = "RGB", **options: Any) -> bytes:
    """A file that tells where it was made, by whom and with which program."""
    exif = pillow.Exif()
    exif[0x0131] = "SECRET editor"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[29] = "SECRET day"
    text = PngInfo()
    text.add_text("Author", "SECRET name")
    text.add_itxt("XML:com.adobe.xmp", "<SECRET/>", zip=False)
    more: dict[str, Any] = {"exif": exif, "icc_profile": PROFILE, **options}
    told: dict[str, dict[str, Any]]
    told = {"PNG": {"pnginfo": text}, "JPEG": {"comment": b"SECRET words"}, "WEBP": {"xmp": b"<SECRET/>"}}
    return encoded(noisy(mode), format, **more, **told[format])


class TestWhatLeavesTheMachine:
    @pytest.mark.parametrize(
        ("format", "options"),
        [
            ("JPEG", {}),
            ("JPEG", {"progressive": True}),
            ("JPEG", {"mode": "L"}),
            ("JPEG", {"mode": "CMYK"}),
            ("JPEG", {"restart_marker_blocks": 2}),
            ("PNG", {}),
            ("PNG", {"mode": "RGBA"}),
            ("PNG", {"mode": "P"}),
            ("WEBP", {}),
            ("WEBP", {"lossless": True, "mode": "RGBA"}),
        ],
        ids=str,
    )
    def test_metadata_stay_and_the_picture_is_the_same(self, format, options):
        data = with_secrets(format, **options)
        assert b"SECRET" in data
        left = without_metadata(format, data + b"SECRET video")
        assert b"SECRET" not in left
        before, after = pillow.open(io.BytesIO(data)), pillow.open(io.BytesIO(left))
        assert np.array_equal(np.asarray(before), np.asarray(after))
        assert after.mode == before.mode
        assert after.info.get("icc_profile") == before.info["icc_profile"]
        assert not after.getexif()
        media, sent = as_sent(Image(lambda: data, "x"), {format})
        assert (media, sent) == (f"image/{format.lower()}", without_metadata(format, data))
        assert without_metadata(format, left) == left

    def test_further_pictures_of_a_phone_stay(self):
        data = encoded(noisy(), "MPO", save_all=True, append_images=[noisy("L").convert("RGB")])
        media, sent = as_sent(Image(lambda: data, "x"), {"JPEG"})
        assert (media, b"MPF" in sent) == ("image/jpeg", False)
        assert len(sent) < len(data) * 0.7
        assert np.array_equal(np.asarray(decode(sent, "x")), np.asarray(decode(data, "x")))

    def test_what_is_turned_is_sent_upright_without_metadata(self):
        exif = pillow.Exif()
        exif[0x0112], exif[0x0131] = 6, "SECRET editor"
        data = encoded(noisy(), "JPEG", exif=exif)
        _, sent = as_sent(Image(lambda: data, "x"), {"JPEG"})
        assert b"SECRET" not in sent
        assert pillow.open(io.BytesIO(sent)).size == (40, 60)

    @given(st.data())
    def test_damage_is_no_traceback(self, data):
        """Cut off or changed anywhere: sent as decoders read it, or refused as unreadable."""
        format = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP"]))
        file = bytearray(with_secrets(format))
        for place in data.draw(st.lists(st.integers(0, len(file) - 1), max_size=3)):
            file[place] = data.draw(st.integers(0, 255))
        broken = bytes(file[: data.draw(st.integers(1, len(file)))])
        try:
            as_sent(Image(lambda: broken, "x"), {format})
        except ImageError:
            pass
