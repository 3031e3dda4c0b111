"""Data sets in the Hub's format, and their parquet files."""

from __future__ import annotations

import pytest

from helpers import picture
from snellen.api import run
from snellen.datasets.base import DATASETS
from snellen.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set in the Hub's format, with the features that it would have there."""
    import datasets

    top = tmp_path_factory.mktemp("hub")
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "fine_label": datasets.ClassLabel(names=["cat", "dog", "clutter"]),
            "caption": datasets.Value("string"),
        }
    )
    for split, n in (("train", 4), ("test", 6)):
        rows = {
            "img": [{"bytes": picture(c).data, "path": None} for c in ["red", "blue", "lime"][:1] * n],
            "fine_label": [i % 2 for i in range(n)],
            "caption": [f"caption {i}" for i in range(n)],
        }
        target = top / "data" / f"{split}-00000-of-00001.parquet"
        target.parent.mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(target))
    return top


class TestHub:
    def test_names_come_from_the_features(self, folder, monkeypatch, tmp_path):
        data = DATASETS.make(f"hub:{folder}", {"background": "clutter", "reference": "caption"})
        assert data.labels == ("cat", "dog", "clutter")
        assert len(data) == 6
        assert "split 'test'" in data.notes[0]
        sample = data.sample(1, data.labels, "clutter")
        assert (sample.label, sample.references) == ("dog", ("caption 1",))
        assert sample.images[0].data == picture("red").data

    def test_splits_and_limits(self, folder):
        assert len(DATASETS.make(f"hub:{folder}@train")) == 4
        assert len(DATASETS.make(f"hub:{folder}?split=train")) == 4
        few = DATASETS.make(f"hub:{folder}?limit=3")
        assert len(few) == 3
        assert few.sample(2, few.labels, None).label == "cat"

    def test_a_run(self, folder, workspace):
        found = run(model="pico:clip", data=f"hub:{folder}", protocol="rank", limit=4)
        assert found.metrics.n == 4
        assert found.source == f"hub:{folder}"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("nobody/nothing", "hf download --repo-type dataset nobody/nothing"),
            ("{folder}@dev", "cannot be loaded"),
        ],
    )
    def test_what_is_not_there(self, folder, name, message):
        with pytest.raises(DataError, match=message):
            DATASETS.make(f"hub:{name.format(folder=folder)}")
