"""The command: what it prints, what it refuses and in which words."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from typer.testing import CliRunner

from snellen.cli import app, main
from snellen.datasets.shapes import draw, figure
from snellen.tuning.recipes import RECIPES

pytestmark = pytest.mark.slow


runner = CliRunner()


class TestCommand:
    def call(self, *words: str) -> tuple[int, str]:
        found = runner.invoke(app, ["tune", *words])
        said = found.output + (str(found.exception) if found.exception else "")
        return found.exit_code, said

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["pico:llava", "--data", "folder:{photos}", "-o", "{tmp}/o"], "--hold-out 0.2"),
            (["pico:llava", "--data", "jsonl:{tmp}/x.jsonl", "-o", "{tmp}/o"], "no such file"),
            (["pico:llava", "--data", "folder:{one}", "-o", "{tmp}/o", "--hold-out", "0.5"], "at least two"),
            (
                ["pico:llava", "--data", "folder:{bad}", "-o", "{tmp}/o", "--hold-out", "0.5"],
                "not a readable image",
            ),
            (["pico:llava", "--data", "chart:shapes", "-o", "{tmp}/o", "-T", "steps=3"], "no such option"),
            (["pico:llava", "--data", "chart:shapes", "-o", "{tmp}/o", "--push-to-hub", "x"], "ORG/NAME"),
            (
                [
                    "pico:llava",
                    "--data",
                    "chart:shapes",
                    "-o",
                    "{tmp}/o",
                    "--train-split",
                    "train",
                    "--hold-out",
                    "1",
                ],
                "one of --train",
            ),
            (["pico:llava", "--data", "chart:shapes", "-o", "{tmp}/o", "--oversample", "x"], "rare, hard"),
            ("pico:llava --data chart:shapes -o {tmp}/o -T learning_rate=abc".split(), "a number"),
            (
                "pico:llava --data chart:shapes -o {tmp}/o -T per_device_train_batch_size=0".split(),
                "1 or more",
            ),
            ("pico:llava --data chart:shapes -o {tmp}/o -T hub_token=x".split(), "--push-to-hub"),
            ("pico:llava --data chart:shapes -o {tmp}/o -L r=abc".split(), "whole number"),
            ("pico:llava --data chart:shapes -o {tmp}/o -L nope=3".split(), "-L nope"),
            ("pico:llava --data chart:shapes -o {tmp}/o -L target_modules=[a".split(), "YAML"),
            (
                "pico:llava --data chart:shapes -o {tmp}/o --recipe full -L r=4".split(),
                "needs a recipe with adapters",
            ),
            (
                "pico:llava --data chart:shapes -o {tmp}/o --recipe full --merge".split(),
                "needs a recipe with adapters",
            ),
            (
                "pico:llava --data chart:shapes -o {tmp}/o --recipe head --mix chart:shapes".split(),
                "--mix cannot be used",
            ),
            ("pico:llava --data chart:shapes -o {tmp}/o --train-limit 0".split(), "--train-limit 0"),
            ("pico:llava --data chart:shapes -o {tmp}/o --public".split(), "--push-to-hub"),
            (
                "pico:llava --data folder:{split} -o {tmp}/o --hold-out 0.2".split(),
                "already has a training split",
            ),
            (
                "pico:llava --data folder:{one2} --train folder:{one2} -o {tmp}/o --leaks drop".split(),
                "all of them",
            ),
            (["pico:classifier", "--data", "chart:shapes", "-o", "{tmp}/o"], "cannot be fine-tuned"),
            (
                ["pico:llava", "--data", "chart:shapes", "-o", "{tmp}/o", "--mix", "chart:shapes@x"],
                "shapes@x",
            ),
        ],
    )
    def test_what_is_wrong_is_said(self, words, said, photos, tmp_path):
        for kind, names in {"one": ["star"], "bad": ["star", "ring"]}.items():
            for name in names:
                (tmp_path / kind / name).mkdir(parents=True)
                for i in range(3):
                    draw(figure(f"{name}{i}", name), 48).save(tmp_path / kind / name / f"{i}.png")
        (tmp_path / "bad" / "star" / "broken.png").write_bytes(b"no image")
        for split in ("train", "test"):
            shutil.copytree(photos, tmp_path / "split" / split)
        places = {"photos": photos, "tmp": tmp_path, "one": tmp_path / "one", "bad": tmp_path / "bad"}
        places |= {"split": tmp_path / "split", "one2": photos}
        words = [word.format(**places) for word in words]
        code, told = self.call(*words, "--workspace", str(tmp_path / "ws"))
        assert code != 0
        assert said in told
        assert not (tmp_path / "o" / "adapter_model.safetensors").exists()

    def test_skip_bad(self, photos, tmp_path):
        folder = tmp_path / "photos"
        shutil.copytree(photos, folder)
        (folder / "star" / "broken.png").write_bytes(b"no image")
        code, told = self.call(
            *f"pico:llava --data folder:{folder} --hold-out 0.5 -o {tmp_path / 'o'} --skip-invalid".split(),
            *f"-T max_steps=2 --quiet --workspace {tmp_path / 'ws'} --json".split(),
        )
        assert code == 0, told
        document = json.loads(told)
        assert document["results"][0]["task"].startswith("folder:photos (held out)")
        assert any("Forgetting is not measured" in note for note in document["notes"])


def test_help_names_what_there_is(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["snellen", "tune", "--help"])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().out
    for recipe in RECIPES:
        assert recipe in told
