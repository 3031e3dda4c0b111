"""Videos, medical images and depths of more than 8 bits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as pillow

from helpers import COLORS, Scripted, film
from snellen.api import run
from snellen.datasets.base import DATASETS, select
from snellen.errors import BadOption, DataError, ImageError
from snellen.images import Image, decode


def near(picture: Any, color: Any) -> bool:
    return bool(np.abs(np.subtract(picture.getpixel((30, 20)), color)).max() < 40)


class TestVideos:
    @pytest.fixture
    def clips(self, tmp_path: Path) -> Path:
        for name in ("forward", "backward"):
            colors = COLORS if name == "forward" else COLORS[::-1]
            film(tmp_path / "clips" / name / "0.mp4", colors)
            film(tmp_path / "clips" / name / "1.mov", colors)
        return tmp_path / "clips"

    def test_evenly_spaced_frames_in_order(self, clips):
        data = DATASETS.make(f"folder:{clips}", {"frames": 4})
        for sample in select(data):
            colors = COLORS if sample.label == "forward" else COLORS[::-1]
            assert len(sample.images) == 4
            assert all(near(image.pixels, color) for image, color in zip(sample.images, colors, strict=True))
        two = DATASETS.make(f"folder:{clips}", {"frames": 2}).sample(0, data.labels, None)
        assert [near(image.pixels, c) for image, c in zip(two.images, (COLORS[2], COLORS[1]), strict=True)]

    def test_a_run_asks_about_all_frames_together(self, clips, workspace):
        def say(request: Any) -> str:
            assert len(request.images) == 4
            return "forward" if near(request.images[0].pixels, COLORS[0]) else "backward"

        found = run(
            model=Scripted(say), data=f"folder:{clips}", data_options={"frames": 4},
            protocol="closed-set?rounds=1",
        )  # fmt: skip
        assert found.metrics["accuracy"].value == 1

    def test_without_frames_they_are_left_out_with_advice(self, clips):
        with pytest.raises(DataError, match="only videos, which -D frames=8 reads"):
            DATASETS.make(f"folder:{clips}")
        pillow.new("RGB", (9, 9)).save(clips / "forward" / "x.png")
        pillow.new("RGB", (9, 9)).save(clips / "backward" / "x.png")
        notes = " ".join(DATASETS.make(f"folder:{clips}").notes)
        assert "2 .mov" in notes
        assert "-D frames=8" in notes

    def test_what_cannot_be_read(self, clips, monkeypatch):
        with pytest.raises(BadOption, match="allowed: 1 to 64"):
            DATASETS.make(f"folder:{clips}", {"frames": 0})
        (clips / "forward" / "2.mp4").write_bytes(b"no video")
        with pytest.raises(ImageError, match="a broken video"):
            _ = Image.frames(clips / "forward" / "2.mp4", 3)[0].data
        monkeypatch.setattr("snellen.images.MAX_PIXELS", 1000)
        with pytest.raises(ImageError, match="3,072 pixels per frame"):
            _ = Image.frames(clips / "forward" / "0.mp4", 3)[0].data

    def test_the_missing_extra_is_named(self, clips, monkeypatch):
        monkeypatch.setitem(sys.modules, "av", None)
        with pytest.raises(ImageError, match=r"pip install 'snellen\[video\]'"):
            _ = Image.frames(clips / "forward" / "0.mp4", 5)[0].data


class TestDicom:
    def scan(self, path: Path, values: Any, **more: Any) -> Path:
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        file.Rows, file.Columns = values.shape
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
        for name, value in more.items():
            setattr(file, name, value)
        file.PixelData = values.astype(np.uint16).tobytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        file.save_as(path)
        return path

    def gray(self, path: Path, **more: Any) -> list[int]:
        picture = np.asarray(decode(path.read_bytes(), "x", **more))
        return [int(v) for v in picture[0, :, 0]]

    def test_it_is_scaled_by_its_range_or_its_window(self, tmp_path):
        values = np.array([[100, 1100, 2100, 3100]] * 2)
        assert self.gray(self.scan(tmp_path / "a.dcm", values)) == [0, 85, 170, 255]
        windowed = self.scan(tmp_path / "b.dcm", values, WindowCenter=1600, WindowWidth=1000)
        low, *_, high = self.gray(windowed)
        assert (low, high) == (0, 255)
        assert self.gray(windowed, window=(1100, 3100)) == [0, 0, 127, 255]

    def test_units_and_inverted_scans(self, tmp_path):
        values = np.array([[0, 1000, 2000]] * 2)
        hounsfield = self.scan(tmp_path / "a.dcm", values, RescaleSlope=1, RescaleIntercept=-1000)
        assert self.gray(hounsfield, window=(0, 1000)) == [0, 0, 255]
        inverted = self.scan(tmp_path / "b.dcm", values, PhotometricInterpretation="MONOCHROME1")
        assert self.gray(inverted) == [255, 127, 0]

    def test_in_class_folders(self, tmp_path, workspace):
        for i, name in enumerate(("healthy", "ill")):
            self.scan(tmp_path / "scans" / name / "0.dcm", np.full((8, 8), 500 + 3000 * i))
            self.scan(tmp_path / "scans" / name / "1.dcm", np.full((8, 8), 600 + 3000 * i))
        found = run(
            model=Scripted(lambda r: "ill" if r.images[0].pixels.getpixel((0, 0))[0] > 100 else "healthy"),
            data=f"folder:{tmp_path}/scans",
            data_options={"window": "0,4000"},
            protocol="closed-set?rounds=1",
        )
        assert found.metrics["accuracy"].value == 1
        assert "values from 0 (black) to 4000 (white)" in " ".join(found.manifest.data.notes)

    def test_bounds_and_broken_files(self, tmp_path, monkeypatch):
        path = self.scan(tmp_path / "a.dcm", np.zeros((40, 40)))
        assert Image.from_path(path).size == (40, 40)
        with pytest.raises(ImageError, match="cannot be read"):
            decode(path.read_bytes()[:-100], "x")
        monkeypatch.setattr("snellen.images.MAX_PIXELS", 1000)
        with pytest.raises(ImageError, match="40 x 40 pixels in 1 frames"):
            decode(path.read_bytes(), "x")

    def test_the_missing_extra_is_named(self, tmp_path, monkeypatch):
        path = self.scan(tmp_path / "a.dcm", np.zeros((4, 4)))
        monkeypatch.setitem(sys.modules, "pydicom", None)
        with pytest.raises(ImageError, match=r"pip install 'snellen\[dicom\]'"):
            decode(path.read_bytes(), "x")


class TestWindow:
    def test_of_a_tiff_of_16_bits(self, tmp_path):
        values = np.array([[0, 1000, 2000, 3000]] * 4, dtype=np.uint16)
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            pillow.fromarray(values).save(tmp_path / name / "0.tif")
        plain = DATASETS.make(f"folder:{tmp_path}")
        windowed = DATASETS.make(f"folder:{tmp_path}?window=1000,2000")
        rows = [
            [
                pixel[0]
                for pixel in (d.sample(0, d.labels, None).images[0].pixels.getpixel((x, 0)) for x in range(4))
            ]
            for d in (plain, windowed)
        ]
        assert rows == [[0, 62, 124, 186], [0, 0, 255, 255]]
        assert select(plain).fingerprint() != select(windowed).fingerprint()
        assert plain.labels == windowed.labels

    @pytest.mark.parametrize("text", ["1", "5,2", "a,b", "1,2,3"])
    def test_what_is_no_window(self, tmp_path, photos, text):
        with pytest.raises(BadOption, match="allowed: LOW,HIGH"):
            DATASETS.make(f"folder:{photos}", {"window": text})
