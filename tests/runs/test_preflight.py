"""What is said of data before a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image as pillow

from helpers import COLORS, command_line, film
from snellen.datasets.base import DATASETS, select
from snellen.errors import Unsupported
from snellen.models.base import MODELS, PromptSize
from snellen.runs.filters import Filters
from snellen.runs.overview import brief, overview
from snellen.runs.plan import Plan
from snellen.runs.preflight import preflight


@pytest.fixture
def folder(tmp_path: Path, photos: Path) -> Path:
    """Photos with all that can be wrong with them."""
    top = tmp_path / "photos"
    shutil.copytree(photos, top)
    shutil.copy(top / "star" / "0.png", top / "ring" / "same.png")  # in two classes
    shutil.copy(top / "key" / "0.png", top / "key" / "again.png")  # twice in one
    pillow.open(top / "cup" / "3.bmp").convert("RGB").save(top / "heart" / "near.jpg", quality=80)
    pillow.new("RGBA", (20, 20), (9, 9, 9, 0)).save(top / "star" / "seethrough.png")
    (top / "star" / "broken.png").write_bytes(b"no picture")
    (top / "star" / "notes.txt").write_text("x")
    return top


class TestOverview:
    def test_all_that_is_wrong(self, folder):
        found = overview(select(DATASETS.make(f"folder:{folder}"), skip_invalid=True))
        assert found.n == 25
        assert found.classes == {"key": 5, "heart": 5, "ring": 5, "star": 6, "cup": 4}
        assert [sorted(group) for group in found.conflicts] == [["ring/same.png", "star/0.png"]]
        assert sorted(map(sorted, found.duplicates))[0] == ["key/0.png", "key/again.png"]
        assert [set(pair) for pair in found.near or []] == [{"cup/3.bmp", "heart/near.jpg"}]
        assert found.transparent == 1
        assert [id_ for id_, _ in found.invalid] == ["star/broken.png"]
        assert found.formats["PNG"] == 8
        assert found.sizes is not None
        problems = "\n".join(found.problems())
        for words in (
            "1 sample cannot be read (star/broken.png", "--skip-invalid", "1 image is in several classes",
            "1 image occurs more than once (key/", "1 pair of pictures in different classes",
            "1 image has transparency",
        ):  # fmt: skip
            assert words in problems

    def test_images_that_are_in_the_training_split(self, tmp_path, photos):
        for split in ("train", "test"):
            shutil.copytree(photos, tmp_path / split)
        for path in (tmp_path / "train").rglob("1.jpg"):
            path.unlink()
        shutil.rmtree(tmp_path / "test" / "key")
        found = preflight(f"folder:{tmp_path}").data
        assert found.n == 16
        assert len(found.shared) == 12
        assert "12 images are in the training split too" in "\n".join(found.problems())

    def test_few_images_per_class(self, photos):
        found = overview(select(DATASETS.make(f"folder:{photos}"), per_class=2))
        assert "5 classes have fewer than 3 images" in "\n".join(found.problems())


class TestBrief:
    def test_classes_that_a_limit_leaves_out(self, tmp_path):
        rows = "".join(f"{i}.png,{name}\n" for name in "abc" for i in range(4))
        (tmp_path / "sorted.csv").write_text(f"image,label\n{rows}")
        data = DATASETS.make(f"csv:{tmp_path}/sorted.csv")
        (first, second) = brief(select(data, limit=5))
        assert "5 samples of 2 classes, 1 to 4 each" in first
        assert "--limit 5 leaves out 1 of 3 classes (c)" in second
        assert "--per-class N, or --shuffle" in second
        assert len(brief(select(data))) == 1
        assert len(brief(select(data, per_class=2))) == 1

    def test_every_run_begins_with_them(self, folder, workspace):
        plan = Plan(models=["pico:clip"], data=[f"folder:{folder}"], filters=Filters(skip_invalid=True))
        assert "25 samples of 5 classes, 4 to 6 each" in " ".join(plan.notes)


class TestContext:
    @pytest.fixture
    def many(self, tmp_path: Path, photos: Path) -> str:
        """Five classes among 998 names."""
        names = [f"some long name of a class {i}" for i in range(993)] + sorted(
            p.name for p in photos.iterdir()
        )
        (tmp_path / "labels.txt").write_text("\n".join(names))
        return f"folder:{photos}?labels=@{tmp_path}/labels.txt"

    def test_a_prompt_that_cannot_fit_is_refused_before_the_run(self, many, workspace):
        with pytest.raises(
            Unsupported, match=r"tokens, and the context of pico:llava is 1,024\. Offer fewer names"
        ):
            Plan(models=["pico:llava"], data=[many], protocols=["closed-set?rounds=1"]).run()
        (found,) = Plan(
            models=["pico:llava"], data=[many], protocols=["closed-set?rounds=1&candidates=5"],
            filters=Filters(limit=5),
        ).run()  # fmt: skip
        assert found.metrics.outcomes["error"] == 0

    def test_the_check_says_so_too(self, many):
        found = preflight(many, "pico:llava", "closed-set")
        assert found.size is not None
        assert found.size.tokens > (found.size.context or 0)
        assert "Offer fewer names" in "\n".join(found.problems())

    def test_the_size_of_a_prompt(self):
        model = MODELS.make("pico:llava")
        from snellen.types import ask

        request = ask(select(DATASETS.make("chart:shapes?n=28")).first().images, "What is it?")
        size = model.prompt_size(request)
        assert isinstance(size, PromptSize)
        assert "What is it?" in size.prompt
        assert 3 < size.text_tokens < size.tokens < 200
        assert size.context == 1024


class TestCommand:
    def test_data_alone(self, folder, capsys):
        assert command_line("check", "-d", f"folder:{folder}") == 0
        out = capsys.readouterr().out
        assert "25 samples of 5 classes" in out
        assert "left out, since they are no images: 1 .txt" in out
        assert "To look at" in out

    def test_with_a_model(self, photos, capsys):
        assert command_line("check", "-d", f"folder:{photos}", "-m", "pico:llava", "-p", "closed-set") == 0
        out = capsys.readouterr().out
        assert "tokens of 1,024 that fit" in out
        assert "star" in out
        assert "samples/s" in out
        assert "Nothing to look at" in out

    def test_a_hosted_model_is_not_asked(self, photos, capsys, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        price = ("-M", "price_in=1", "-M", "price_out=2")
        assert command_line("check", "-d", f"folder:{photos}", "-m", "openai:gpt-4o", *price, "--json") == 0
        document = json.loads(capsys.readouterr().out)
        assert document["forecast"]["cost"][1] > 0
        assert document["speed"] is None

    def test_the_estimate_follows_the_protocols_options(self, photos, capsys, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        given = ("check", "-d", f"folder:{photos}", "-m", "openai:gpt-4o", "-p", "closed-set", "--json")
        requests = []
        for rounds in (1, 3):
            assert command_line(*given, "-P", f"rounds={rounds}") == 0
            requests.append(json.loads(capsys.readouterr().out)["forecast"]["requests"][1])
        assert requests[1] == 3 * requests[0] > 0

    def test_what_the_model_cannot_do(self, photos, capsys):
        assert command_line("check", "-d", f"folder:{photos}", "-m", "pico:clip", "-p", "closed-set") == 0
        assert "pico:clip can score, but closed-set needs generate" in capsys.readouterr().out

    def test_a_protocol_without_a_model(self, photos, capsys):
        assert command_line("check", "-d", f"folder:{photos}", "-p", "closed-set") == 2
        assert "name one with -m MODEL" in capsys.readouterr().err


def test_frames_that_two_videos_share_are_no_duplicates(tmp_path):
    film(tmp_path / "forward" / "0.mp4", COLORS)
    film(tmp_path / "backward" / "0.mp4", COLORS[::-1])
    found = overview(select(DATASETS.make(f"folder:{tmp_path}", {"frames": 4})))
    assert found.duplicates == []
    assert found.near == []  # of plain pictures, none are alike
