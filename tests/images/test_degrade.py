"""Degraded pictures, within one gray level of formulas in NumPy."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as pillow

from snellen.datasets.base import DATASETS
from snellen.errors import BadOption
from snellen.images import Image, encode
from snellen.images.degrade import DEGRADATIONS, degraded, read_degradation


def image(width: int = 40, height: int = 30, seed: int = 0) -> Image:
    """A colored picture with edges and noise."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 256, (height, width, 3))
    levels[height // 3 :, width // 2 :] = (200, 30, 90)
    return Image(lambda: encode(pillow.fromarray(levels.astype(np.uint8))), "drawn")


def after(name: str, level: float, given: Image | None = None, seed: int = 0) -> np.ndarray:
    return np.asarray(degraded(given or image(), name, level, seed).pixels, dtype=float)


BEFORE = np.asarray(image().pixels, dtype=float)


@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_blur_is_a_gaussian(sigma):
    """Along each axis, weights exp(-x²/2σ²) up to four σ, edges repeated."""
    reach = int(4 * sigma + 0.5)
    x = np.arange(-reach, reach + 1)
    weights = np.exp(-(x**2) / (2 * sigma**2))
    weights /= weights.sum()
    expected = BEFORE
    for axis in (0, 1):
        pad = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
        expected = np.apply_along_axis(np.convolve, axis, np.pad(expected, pad, "edge"), weights, "valid")
    assert np.abs(after("blur", sigma) - expected).max() <= 1


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_contrast_shrinks_towards_the_mean(share):
    expected = BEFORE.mean() + share * (BEFORE - BEFORE.mean())
    assert np.abs(after("contrast", share) - expected).max() <= 1
    assert np.array_equal(after("contrast", 1), BEFORE)


def test_noise_has_its_deviation_and_its_seed():
    gray = Image(lambda: encode(pillow.new("RGB", (200, 200), (128, 128, 128))), "gray")
    noisy = after("noise", 20, gray)
    assert noisy.std() == pytest.approx(20, rel=0.02)
    assert noisy.mean() == pytest.approx(128, abs=0.5)
    assert np.array_equal(noisy, after("noise", 20, gray))
    assert not np.array_equal(noisy, after("noise", 20, gray, seed=1))


def test_jpeg_is_that_of_its_quality_table():
    """The standard luminance table, scaled by (200 - 2q)/100, is in the file that was decoded."""
    buffer = io.BytesIO()
    image().pixels.save(buffer, "JPEG", quality=60)
    with pillow.open(buffer) as file:
        expected = np.asarray(file.convert("RGB"), dtype=float)
        first = file.quantization[0][:8]  # type: ignore[attr-defined] # JPEG files alone have it
    assert np.array_equal(after("jpeg", 60), expected)
    row = (16, 11, 10, 16, 24, 40, 51, 61)  # the first of the standard's table
    assert list(first) == [(value * 80 + 50) // 100 for value in row]


def test_sizes_and_crops():
    assert degraded(image(400, 300), "size", 40).size == (40, 30)
    assert degraded(image(), "size", 400).size == (40, 30)  # never larger
    assert np.array_equal(after("crop", 0.5), BEFORE[7:22, 10:30])
    flat = Image(lambda: encode(pillow.new("RGB", (64, 32), (9, 8, 7))), "flat")
    assert (after("size", 16, flat) == (9, 8, 7)).all()


def test_rotation_by_quarters_loses_nothing():
    assert np.array_equal(after("rotation", 90), np.rot90(BEFORE))
    assert np.array_equal(after("rotation", 180), BEFORE[::-1, ::-1])
    turned = degraded(image(), "rotation", 45)
    assert turned.size[0] > 40  # all of the picture stays
    corner = np.asarray(turned.pixels)[0, 0]
    assert np.abs(corner - BEFORE.mean((0, 1))).max() <= 1


@given(st.sampled_from(sorted(DEGRADATIONS)), st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_any_picture_at_any_usual_level(name, width, height):
    given = image(width, height)
    for level in DEGRADATIONS[name].levels:
        found = degraded(given, name, level)
        assert found.pixels.mode == "RGB"
        assert min(found.size) >= 1
        assert found.sha256 == degraded(given, name, level).sha256


def test_as_an_option_of_any_data_set(tmp_path):
    for kind in "ab":
        (tmp_path / kind).mkdir()
        for i in range(2):
            image(60, 40, i).pixels.save(tmp_path / kind / f"{i}.png")
    plain = DATASETS.make(f"folder:{tmp_path}")
    small = DATASETS.make(f"folder:{tmp_path}?degrade=size:32")
    assert [small.row(i) for i in range(4)] == [plain.row(i) for i in range(4)]
    assert small.sample(0, small.labels, None).images[0].size == (32, 21)
    assert small.digest(0) != plain.digest(0)
    assert "size 32 px" in small.notes[-1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("blurr:3", "Did you mean 'blur'"),
        ("blur", "a level from 0.1 to 200"),
        ("jpeg:96", "a level from 1 to 95"),
        ("size:x", "a level from 1 to 16384"),
        ("contrast:nan", "a level from 0.001 to 1"),
    ],
)
def test_what_is_no_degradation(text, said):
    with pytest.raises(BadOption, match=said):
        read_degradation(text)
