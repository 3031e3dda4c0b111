"""Medical images (DICOM), through pydicom."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from snellen.errors import ImageError
from snellen.images.depth import scaled

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

__all__ = ["decode_dicom", "dicom_size", "is_dicom"]


def is_dicom(data: bytes) -> bool:
    """Return whether bytes are a DICOM file."""
    return data[128:132] == b"DICM"


def _read(data: bytes, name: str, *, pixels: bool) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise ImageError(
            f"{name}: reading DICOM needs pydicom. Install it with: pip install 'snellen[dicom]'"
        ) from error
    try:
        return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=not pixels)
    except Exception as error:  # whatever a broken file makes of it
        raise ImageError(f"{name}: a broken DICOM file ({error}). Remove or replace it.") from error


def dicom_size(data: bytes, name: str) -> tuple[int, int]:
    """Return width and height in pixels from the header.

    Raises:
        ImageError: broken, without an image, or pydicom is not installed.
    """
    header = _read(data, name, pixels=False)
    width, height = header.get("Columns"), header.get("Rows")
    if not width or not height:
        raise ImageError(f"{name}: a DICOM file without an image. Remove it.")
    return int(width), int(height)


def decode_dicom(data: bytes, name: str, window: tuple[float, float] | None, max_pixels: int) -> Pixels:
    """Decode the first frame as a radiologist would see it: the stored rescaling, the window (the user's, or
    the first in the file, or the range of values), and the photometric interpretation.

    Raises:
        ImageError: broken, in a compression that cannot be read, or of more than ``max_pixels`` pixels.
    """
    import numpy as np

    width, height = dicom_size(data, name)
    file = _read(data, name, pixels=True)
    frames = int(file.get("NumberOfFrames") or 1)
    if width * height * frames > max_pixels:
        raise ImageError(
            f"{name}: {width} x {height} pixels in {frames} frames, and the limit is {max_pixels:,} pixels."
        )
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    try:
        values = np.asarray(file.pixel_array)
        if frames > 1:
            values = values[0]
        if values.ndim == 3:
            from PIL import Image as pillow
            from pydicom.pixels.processing import convert_color_space

            space = str(file.PhotometricInterpretation)
            rgb = values if space == "RGB" else convert_color_space(values, space, "RGB")
            return pillow.fromarray(np.asarray(rgb, dtype=np.uint8))
        rescaled = apply_modality_lut(values, file)
        if window is None:
            shown = np.asarray(apply_voi_lut(rescaled, file), dtype=np.float64)
            window = float(shown.min()), float(shown.max())
        else:
            shown = np.asarray(rescaled, dtype=np.float64)
    except Exception as error:  # a missing decoder, or broken pixels
        raise ImageError(f"{name}: its pixels cannot be read ({error}).") from error
    low, high = window
    if str(file.get("PhotometricInterpretation")) == "MONOCHROME1":  # small values are white
        low, high, shown = -high, -low, -shown
    return scaled(shown, low, high)
