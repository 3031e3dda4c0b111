"""Degraded pictures: smaller, blurred, compressed, noisy, faint, rotated, cropped. Drawn by seed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from snellen.errors import BadOption, did_you_mean
from snellen.images import Image, encode

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Pixels

    #: Gray levels of a picture, [height, width, 3].
    Levels = np.ndarray[Any, Any]

__all__ = ["DEGRADATIONS", "Degradation", "degraded", "read_degradation"]


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """A way to degrade pictures.

    Attributes:
        unit: of its levels, if any; ``about``: what a level means.
        levels: the usual ones, from easy to hard.
        low, high: the range of levels.
        rising: whether a higher level is easier; None if levels have no order of difficulty.
        apply: takes a picture, a level and a seed.
    """

    unit: str
    about: str
    levels: tuple[float, ...]
    low: float
    high: float
    rising: bool | None
    apply: Callable[[Pixels, float, int], Pixels]


def _size(picture: Pixels, level: float, _: int) -> Pixels:
    from PIL.Image import Resampling

    share = level / max(picture.size)
    if share >= 1:
        return picture
    width, height = (max(1, round(side * share)) for side in picture.size)
    return picture.resize((width, height), Resampling.LANCZOS)


def _blur(picture: Pixels, level: float, _: int) -> Pixels:
    from scipy.ndimage import gaussian_filter

    return _picture(gaussian_filter(_levels(picture), (level, level, 0), mode="nearest"))


def _jpeg(picture: Pixels, level: float, _: int) -> Pixels:
    from PIL import Image as pillow

    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=round(level))
    with pillow.open(buffer) as file:
        return file.convert("RGB")


def _noise(picture: Pixels, level: float, seed: int) -> Pixels:
    import numpy as np

    levels = _levels(picture)
    return _picture(levels + level * np.random.default_rng(seed).standard_normal(levels.shape))


def _contrast(picture: Pixels, level: float, _: int) -> Pixels:
    levels = _levels(picture)
    middle = levels.mean()
    return _picture(middle + level * (levels - middle))


def _rotation(picture: Pixels, level: float, _: int) -> Pixels:
    from PIL.Image import Resampling

    color = tuple(round(value) for value in _levels(picture).mean((0, 1)))
    return picture.rotate(level, Resampling.BICUBIC, expand=True, fillcolor=color)


def _crop(picture: Pixels, level: float, _: int) -> Pixels:
    width, height = (max(1, round(side * level)) for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


#: By name. Severities of blur, noise and contrast span those of ImageNet-C (Hendrycks and Dietterich,
#: arXiv 1903.12261).
DEGRADATIONS: dict[str, Degradation] = {
    "size": Degradation(
        unit="px",
        about="the longer side",
        levels=(1024, 768, 512, 384, 256, 192, 128, 96, 64, 48, 32),
        low=1,
        high=16384,
        rising=True,
        apply=_size,
    ),
    "blur": Degradation(
        unit="px",
        about="standard deviation of a Gaussian",
        levels=(1, 2, 4, 8, 16),
        low=0.1,
        high=200,
        rising=False,
        apply=_blur,
    ),
    "jpeg": Degradation(
        unit="",
        about="JPEG quality",
        levels=(80, 50, 30, 20, 10, 5),
        low=1,
        high=95,
        rising=True,
        apply=_jpeg,
    ),
    "noise": Degradation(
        unit="gray levels",
        about="standard deviation of Gaussian noise",
        levels=(10, 20, 40, 80, 120),
        low=0.1,
        high=255,
        rising=False,
        apply=_noise,
    ),
    "contrast": Degradation(
        unit="",
        about="share of the contrast that is left",
        levels=(0.5, 0.3, 0.2, 0.1, 0.05, 0.02),
        low=0.001,
        high=1,
        rising=True,
        apply=_contrast,
    ),
    "rotation": Degradation(
        unit="degrees",
        about="counter-clockwise",
        levels=(15, 45, 90, 135, 180),
        low=-360,
        high=360,
        rising=None,
        apply=_rotation,
    ),
    "crop": Degradation(
        unit="",
        about="share of each side that is left around the center",
        levels=(0.8, 0.6, 0.4, 0.3, 0.2),
        low=0.01,
        high=1,
        rising=True,
        apply=_crop,
    ),
}


def read_degradation(text: str) -> tuple[str, float]:
    """Parse ``NAME:LEVEL``, such as ``size:448``.

    Raises:
        BadOption: no such degradation, or a level out of its range.
    """
    name, _, level = text.partition(":")
    if name not in DEGRADATIONS:
        raise BadOption(
            f"degrade={text!r} is not allowed.{did_you_mean(name, DEGRADATIONS)} Allowed: NAME:LEVEL with "
            f"{', '.join(DEGRADATIONS)}, such as size:448."
        )
    known = DEGRADATIONS[name]
    try:
        value = float(level)
    except ValueError:
        value = float("nan")
    if not known.low <= value <= known.high:
        raise BadOption(
            f"degrade={text!r} is not allowed; allowed: {name}:LEVEL with a level from {known.low:g} to "
            f"{known.high:g} ({known.about})."
        )
    return name, value


def degraded(image: Image, name: str, level: float, seed: int = 0) -> Image:
    """Return the decoded picture degraded, as PNG. Noise depends on the picture and the seed alone.

    Raises:
        ImageError: on use, if the image cannot be decoded.
    """

    def load() -> bytes:
        key = hashlib.sha256(f"{image.sha256} {name} {level!r} {seed}".encode()).digest()
        picture = DEGRADATIONS[name].apply(image.decoded(), level, int.from_bytes(key[:8]))
        return encode(picture)

    return Image(load, f"{image.name}, {name} {level:g}")


def _levels(picture: Pixels) -> Levels:
    import numpy as np

    return np.asarray(picture, dtype=float)


def _picture(levels: Levels) -> Pixels:
    import numpy as np
    from PIL import Image as pillow

    return pillow.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))
