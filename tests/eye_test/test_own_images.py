"""The eye test on own images: what it finds, what it says, and what it costs."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers import Scripted
from snellen.cli import app
from snellen.datasets.base import DATASETS, select
from snellen.decisions.early import EarlyStop
from snellen.decisions.race import next_look
from snellen.errors import BadOption, Unsupported, UsageError
from snellen.eye_test.own_images import longest, run_own_images
from snellen.eye_test.psychometric import CurvePoint, fit
from snellen.eye_test.record import keep_own_card
from snellen.reports.own_images import draw_own_card, enough_table
from snellen.runs.plan import SharedResources
from snellen.runs.run import list_runs
from snellen.storage.store import Store
from snellen.testing import Server, completion

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]

runner = CliRunner()
COLORS = {"red": (250, 20, 20), "blue": (20, 20, 250)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Sixty pictures of 300 pixels in two classes."""
    folder = tmp_path_factory.mktemp("photos")
    for name, color in COLORS.items():
        (folder / name).mkdir()
        for i in range(30):
            picture = Image.new("RGB", (300, 200), color)
            picture.putpixel((i, 0), (i, i, i))
            picture.save(folder / name / f"{i}.png")
    return folder


def sees(image, limit: int) -> str:
    """The color, if the picture has at least so many pixels a side; otherwise the other one for a third."""
    red, _, blue = np.asarray(image.pixels, dtype=int).mean((0, 1))
    right, wrong = ("red", "blue") if red > blue else ("blue", "red")
    drawn = hashlib.sha256(np.asarray(image.pixels).tobytes()).digest()[0]
    return right if max(image.size) >= limit or drawn > 100 else wrong


def seen_up_to(limit: int, request) -> str:
    return sees(request.images[0], limit)


def looker(limit: int) -> Scripted:
    return Scripted(lambda request: sees(request.images[0], limit), "looker")


def test_the_smallest_size_that_loses_nothing(photos, tmp_path):
    (found,) = run_own_images(
        looker(120), f"folder:{photos}", degradations=["size"], within=0.05, workspace=tmp_path
    )
    assert [level.level for level in found.levels] == [256, 192, 128, 96, 64, 48, 32]
    assert [level.score for level in found.levels[:3]] == [1, 1, 1]
    assert all(level.change.real() for level in found.levels[3:])
    assert found.enough.level == 128
    assert found.sentence.startswith("Size 128 px loses less than 5 points (difference +0.0 points, 95% CI -")
    # The figures are those of the runs, image by image.
    plain = {row["id"]: row for row in found.plain.outcomes.to_dict("records")}
    for level in found.levels:
        rows = level.run.outcomes.to_dict("records")
        gains = [
            (row["prediction"] == row["label"])
            - (plain[row["id"]]["prediction"] == plain[row["id"]]["label"])
            for row in rows
        ]
        assert level.change.difference.value == pytest.approx(np.mean(np.array(gains, dtype=float)))
    json.dumps(found.as_dict())


def test_several_models_share_images_and_budget(photos, tmp_path):
    names = {"sharp": looker(50), "dull": looker(200)}
    shared = SharedResources()
    cards = {
        name: run_own_images(
            model,
            f"folder:{photos}",
            degradations=["size"],
            levels={"size": [224, 64]},
            within=0.05,
            max_cost=1.0,
            workspace=tmp_path / name,
            resources=shared,
        )
        for name, model in names.items()
    }
    assert shared.budget is not None  # of all of them
    assert len(shared.selections) == 3  # as they are, and at two sizes: read once
    draw_own_card(cards, None, tmp_path / "card.svg")
    drawn = (tmp_path / "card.svg").read_text()
    assert "sharp: up to 64 px" in drawn
    assert "dull: up to 224 px" in drawn
    columns = [[*column.cells] for column in enough_table(cards).columns]
    assert columns == [["sharp", "dull"], ["100.0", "100.0"], ["64", "224"]]


def test_few_images_are_not_enough_to_tell(photos, tmp_path):
    (found,) = run_own_images(
        looker(1), f"folder:{photos}", degradations=["blur"], within=0.01, limit=12, workspace=tmp_path
    )
    assert found.enough is None
    assert found.sentence.startswith("Not enough images to tell whether blur 1 px loses less than 1 point (")


def test_an_early_loss_is_said(photos, tmp_path):
    (found,) = run_own_images(looker(290), f"folder:{photos}", degradations=["size"], workspace=tmp_path)
    assert found.enough is None
    assert found.sentence.startswith("Already size 256 px loses points (difference -")


def test_a_later_level_does_not_count_after_a_loss(photos, tmp_path):
    """Levels are tested in order: 64 pixels, at which all is well again, come after 128, which lose."""
    model = Scripted(lambda r: sees(r.images[0], 10_000 if max(r.images[0].size) == 128 else 1), "odd")
    (found,) = run_own_images(
        model, f"folder:{photos}", degradations=["size"], within=0.1, workspace=tmp_path
    )
    assert found.levels[4].change.difference.low > -0.1
    assert found.enough.level == 192


def test_levels_are_tested_from_easy_to_hard_in_whatever_order_they_are_given(photos, tmp_path):
    how = {"degradations": ["size"], "within": 0.1, "workspace": tmp_path}
    (found,) = run_own_images(looker(120), f"folder:{photos}", levels={"size": [64, 192, 64, 128]}, **how)
    assert [level.level for level in found.levels] == [192, 128, 64]
    assert found.enough.level == 128


def test_tokens_and_dollars(photos, tmp_path):
    """A server that counts an image's pixels as tokens."""

    def answer(asked):
        import io

        with Image.open(io.BytesIO(asked.images[0])) as picture:
            pixels = picture.width * picture.height
            red, _, blue = np.asarray(picture.convert("RGB"), dtype=int).mean((0, 1))
        usage = {"prompt_tokens": pixels, "completion_tokens": 1}
        return {**completion("red" if red > blue else "blue"), "usage": usage}

    with Server(answer) as server:
        (found,) = run_own_images(
            f"openai:any?base_url={server.url}",
            f"folder:{photos}",
            degradations=["size"],
            levels={"size": [150, 30]},
            protocol="closed-set?rounds=1",
            within=0.05,
            model_options={"price_in": 1.0, "price_out": 0.0},
            workspace=tmp_path,
        )
    half, tenth = found.levels
    assert half.tokens == 150 * 100
    assert half.cost == pytest.approx(60 * 150 * 100 / 1e6)
    assert tenth.tokens == 30 * 20
    assert "for 1% of the tokens: $0.04 instead of $3.60" in found.sentence


def test_an_encoder_of_fixed_size_saves_no_tokens(tmp_path):
    (found,) = run_own_images(
        "pico:llava", "chart:shapes?n=56", degradations=["size"], levels={"size": [64]}, within=0.2,
        workspace=tmp_path,
    )  # fmt: skip
    assert "smaller images save no tokens with this model" in found.sentence


def test_a_known_ceiling_does_not_move_the_threshold():
    """Right answers that reach 70% at most, halfway at 100: lapses of 10% at most would move it."""
    levels = [12.5, 25, 50, 100, 200, 400, 800]
    points = [
        CurvePoint(x, round(2000 * (0.1 + 0.6 / (1 + np.exp(-3 * np.log(x / 100))))), 2000) for x in levels
    ]
    assert fit(points, 0.1, ceiling=0.7).threshold == pytest.approx(100, rel=0.05)
    assert fit(points, 0.1).threshold > 130


def test_what_is_refused(photos, tmp_path):
    with pytest.raises(BadOption, match="Did you mean 'blur'"):
        run_own_images(looker(1), f"folder:{photos}", degradations=["blurr"], workspace=tmp_path)
    for i in range(4):
        (tmp_path / "small" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (i, 0, 0)).save(tmp_path / "small" / "ab"[i % 2] / f"{i}.png")
    with pytest.raises(UsageError, match="at most 20 pixels a side"):
        run_own_images(
            looker(1), f"folder:{tmp_path / 'small'}", degradations=["size"], workspace=tmp_path / "ws"
        )


class TestStoppedEarly:
    """No more images of a level than it takes to tell."""

    def test_levels_end_where_they_are_told_apart(self, photos, tmp_path):
        limit = 120
        asked: set[tuple[str, int]] = set()

        def answer(request):
            asked.add((request.sample.id, max(request.images[0].size)))
            return sees(request.images[0], limit)

        given: dict[str, Any] = {"degradations": ["size"], "within": 0.3, "workspace": tmp_path}
        test = EarlyStop(within=0.3)
        (found,) = run_own_images(Scripted(answer, "looker"), f"folder:{photos}", **given, test=test)
        levels = found.levels
        assert 0 < (levels[0].asked or 0) < 60
        assert all(level.change.difference.low >= -0.3 for level in levels[:-1])
        assert levels[-1].change.difference.low < -0.3
        assert found.curve is None
        assert found.enough == levels[-2]
        assert (
            f"{sum(level.asked or 0 for level in levels)} answers instead of {60 * len(levels)}"
            in found.sentence
        )
        # Nothing else was asked, and its runs say why they ended.
        assert len(asked) == 60 + sum(level.asked or 0 for level in levels)
        assert min(size for _, size in asked) == levels[-1].level
        run = levels[0].run
        assert run.status == "stopped"
        assert "--stop-early" in run.manifest.stopped
        assert run.metrics["accuracy"].low is None
        assert json.loads(json.dumps(found.as_dict()))["levels"][0]["asked"] == levels[0].asked
        # The whole readings contain those that were stopped.
        (whole,) = run_own_images(Scripted(answer, "looker"), f"folder:{photos}", **given)
        for early, late in zip(levels, whole.levels, strict=False):
            gap = early.change.difference
            assert gap.low <= late.change.difference.value <= gap.high

    def test_it_goes_on_to_the_same_end(self, photos, tmp_path):
        """Once more, it asks nobody."""
        ends = []
        for name in ("looker", None):
            model = looker(120) if name else Scripted(lambda _: pytest.fail("asked again"), "looker")
            given: dict[str, Any] = {"degradations": ["contrast"], "within": 0.2, "workspace": tmp_path}
            ends.append(run_own_images(model, f"folder:{photos}", **given, test=EarlyStop(within=0.2)))
        assert ends[0][0].as_dict() == ends[1][0].as_dict()

    def test_every_interval_holds_at_once(self, tmp_path):
        """Of 40 models that lose exactly as much as is allowed, hardly any is said to lose less."""
        assert sum(self.kept(seed) for seed in range(40)) <= 3

    @staticmethod
    def kept(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        before, after = (rng.random(160) < share for share in (0.9, 0.8))
        test, n = EarlyStop(within=0.1), 0
        while n < 160:
            n = next_look(n, 160)
            change = test.change(after[:n].astype(float), before[:n].astype(float), np.ones(160))
            if change.low >= -0.1:
                return True
            if change.high < -0.1:
                return False
        return False

    def test_what_is_known_already_changes_nothing(self, photos, tmp_path):
        """The whole runs are there: the same levels, samples and figures as without them."""
        given: dict[str, Any] = {"degradations": ["size"], "within": 0.3}
        data, test = f"folder:{photos}", EarlyStop(within=0.3)
        (fresh,) = run_own_images(looker(120), data, **given, workspace=tmp_path / "a", test=test)
        run_own_images(looker(120), data, **given, workspace=tmp_path / "b")
        (known,) = run_own_images(
            looker(120), data, **given, workspace=tmp_path / "b", test=EarlyStop(within=0.3)
        )
        assert [level.asked for level in known.levels] == [level.asked for level in fresh.levels]
        assert [level.change for level in known.levels] == [level.change for level in fresh.levels]
        assert [level.score for level in known.levels] == [level.score for level in fresh.levels]

    def test_the_score_is_that_of_all_images_by_the_change(self, photos, tmp_path):
        (found,) = run_own_images(
            looker(120),
            f"folder:{photos}",
            degradations=["size"],
            within=0.3,
            workspace=tmp_path,
            test=EarlyStop(within=0.3),
        )
        plain = found.plain.metrics["accuracy"].value
        for level in found.levels:
            assert level.score == pytest.approx(plain + level.change.difference.value)

    def test_an_image_of_many_questions_may_be_still_to_come(self):
        """The heaviest unit is not among those seen, and may lose all that it has."""
        weights = np.full(200, 0.5)
        weights[150] = 100.5  # 1 on average
        seen = np.ones(96) * weights[:96]
        change = EarlyStop(within=0.15).change(seen, seen, weights)
        assert change.low < -0.9

    def test_models_that_stop_apart_share_the_longest_axis(self, photos, tmp_path):
        cards = {
            name: run_own_images(
                Scripted(partial(seen_up_to, limit), name),
                f"folder:{photos}",
                degradations=["size"],
                within=0.3,
                workspace=tmp_path,
                test=EarlyStop(within=0.3),
            )
            for name, limit in (("dull", 200), ("sharp", 60))
        }
        dull, sharp = (len(readings[0].levels) for readings in cards.values())
        assert dull < sharp
        kept = keep_own_card(Store(tmp_path), cards, "photos")
        assert kept is not None
        assert len(kept.content["panels"][0]["levels"]) == sharp
        draw_own_card(cards, None, tmp_path / "card.png")
        assert longest([readings[0] for readings in cards.values()]) is cards["sharp"][0]

    def test_scores_of_whole_runs_are_refused(self, tmp_path):
        with pytest.raises(Unsupported, match="Leave --stop-early out"):
            run_own_images(
                Scripted(lambda _: "a star"),
                "chart:shapes?n=28",
                protocol="caption",
                degradations=["blur"],
                workspace=tmp_path,
                test=EarlyStop(within=0.1),
            )


def test_the_command(tmp_path):
    words = ["eye-test", "pico:llava", "--data", "chart:shapes?n=28", "-w", str(tmp_path / "ws")]
    card = tmp_path / "card.png"
    told = runner.invoke(app, [*words, "--with", "blur:1:8,rotation:90", "--within", "10", "-o", str(card)])
    assert told.exit_code == 0, told.output
    assert "Blur 1 px loses less than 10 points" in told.stdout.replace("\n", " ")
    assert "The hardest is rotation 90 degrees" in told.stdout.replace("\n", " ")
    assert card.stat().st_size > 20_000
    document = json.loads(
        runner.invoke(app, [*words, "--with", "blur:1:8", "--json", "-o", str(card)]).stdout
    )
    assert [level["level"] for level in document["readings"][0]["levels"]] == [1, 8]
    named = {run.data for run in list_runs(tmp_path / "ws")}
    assert {
        "chart:shapes?n=28",
        "chart:shapes?n=28&degrade=blur:1",
        "chart:shapes?n=28&degrade=blur:8",
    } <= named
    words.insert(1, "pico:clip")
    told = runner.invoke(app, [*words, "--with", "blur:1", "-o", str(card)])
    assert "Up to where less than 2 points are lost" in " ".join(told.stdout.split())
    document = json.loads(runner.invoke(app, [*words, "--with", "blur:1", "--json", "-o", str(card)]).stdout)
    assert [one["model"] for one in document["models"]] == ["pico:clip", "pico:llava"]
    assert document["card"] == str(card)
    refused = runner.invoke(app, [*words, "--chart", "chart:acuity"])
    assert "cannot be used with --data" in str(refused.exception)
    alone = runner.invoke(app, ["eye-test", "pico:llava", "--with", "blur", "-w", str(tmp_path / "ws")])
    assert "--with is for your own images and needs --data" in str(alone.exception)
    wrong = runner.invoke(app, [*words, "--with", "blur:0"])
    assert str(wrong.exception).startswith("--with 'blur:0' is not allowed")
    assert len(select(DATASETS.make("chart:shapes?n=28&degrade=blur:8"))) == 28


def test_images_that_cannot_be_read(tmp_path):
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(6):
            file = tmp_path / "photos" / name / f"{i}.png"
            Image.new("RGB", (90, 60), (40 * i, 9, ord(name))).save(file)
    (tmp_path / "photos" / "a" / "3.png").write_bytes(b"no picture")
    words = ["eye-test", "pico:llava", "--data", f"folder:{tmp_path}/photos", "-w", str(tmp_path / "ws")]
    refused = runner.invoke(app, [*words, "--with", "size"])
    assert "a/3.png: not a readable image" in str(refused.exception)
    assert "--skip-invalid" in str(refused.exception)
    told = runner.invoke(app, [*words, "--with", "size", "--skip-invalid"])
    assert "11 unparsed" in told.stdout
    assert "Nothing can be lost: no answer could be read (snellen show" in told.stdout.replace("\n", " ")


def test_what_one_of_several_models_cannot_do_is_refused_before_any_is_asked(tmp_path):
    words = ["eye-test", "pico:llava", "pico:clip", "--data", "chart:shapes?n=28", "-p", "closed-set"]
    refused = runner.invoke(app, [*words, "-w", str(tmp_path / "ws")])
    assert "pico:clip can score, but closed-set needs generate" in str(refused.exception)
    assert not (tmp_path / "ws").exists()
