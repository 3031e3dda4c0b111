"""Choosing between models: the decision, what is asked for it, kills, budgets, errors, and the command."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import snellen
from helpers import Scripted, until
from snellen.cli import app
from snellen.datasets.base import DATASETS, select
from snellen.decisions.decision import ArmResult, Decision
from snellen.decisions.field import RaceOrder
from snellen.errors import BadOption, DataError, ImageError, Stopped, Unsupported, UsageError
from snellen.reports.decisions import race_page
from snellen.runs.filters import Filters
from snellen.runs.run import Run, open_run
from snellen.storage.store import Store
from snellen.testing import Server, fault

DATA = "chart:shapes?n=280"
PROTOCOL = "closed-set?rounds=1"
runner = CliRunner()


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]


@pytest.fixture(scope="module")
def truth() -> dict[str, str]:
    """The class of each drawn picture, by its bytes' hash."""
    return {s.images[0].sha256: str(s.label) for s in select(DATASETS.make(DATA))}


def lucky(digest: str, name: str, share: float) -> bool:
    """Whether a model is right about an image: always the same, at a rate."""
    drawn = hashlib.sha256(f"{digest} {name}".encode()).digest()
    return int.from_bytes(drawn[:4]) / 2**32 < share


def guesser(truth: dict[str, str], name: str, share: float) -> Scripted:
    """A model that is right about a share of the images."""

    def answer(request):
        digest = request.images[0].sha256
        return truth[digest] if lucky(digest, name, share) else "nothing of the kind"

    return Scripted(answer, name)


class Sized(Scripted):
    """A scripted model that says how many parameters it has."""

    def __init__(self, script, name: str, parameters: int):
        super().__init__(script, name)
        self.parameters = parameters

    def metadata(self):
        return {"parameters": self.parameters}


def service(truth: dict[str, str], name: str, share: float, **how) -> Server:
    """The same as a server."""

    def answer(asked):
        digest = hashlib.sha256(asked.images[0]).hexdigest()
        return truth[digest] if lucky(digest, name, share) else "nothing of the kind"

    return Server(answer, **how)


def hosted(server: Server) -> str:
    return f"openai:m?base_url={server.url}"


def one_is_broken(folder: Path, count: int) -> None:
    """So many images of each of two classes, of which ``a/3.png`` is none."""
    for name in "ab":
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (i, 9, ord(name))).save(folder / name / f"{i}.png")
    (folder / "a" / "3.png").write_bytes(b"no picture")


def test_the_best_is_found_and_the_others_are_asked_less(truth, tmp_path):
    models = [guesser(truth, name, share) for name, share in (("a", 0.95), ("b", 0.85), ("c", 0.3))]
    decision = snellen.choose(models=models, data=DATA, protocols=[PROTOCOL], within=0.01, workspace=tmp_path)
    assert decision.choice == "a"
    assert decision.tied == ()
    asked = {model.name: len(model.asked) for model in models}
    assert asked["c"] < asked["b"] < 280
    assert decision.answers == sum(asked.values())
    assert decision.full_answers == 3 * 280
    assert decision.sentence.startswith(
        "Use a: 95% sure that none of the 3 is more than 1 point better on images like these. "
    )
    dropped = {arm.name: arm.dropped for arm in decision.arms}
    assert dropped["b"].by == dropped["c"].by == "a"
    # Every model was asked the same first images.
    first = [request.images[0].sha256 for request in models[2].asked]
    assert {request.images[0].sha256 for request in models[0].asked} >= set(first)
    json.dumps(decision.as_dict())


def test_it_cannot_be_told_from_a_full_run(tmp_path):
    """Built-in models: nobody is shown to be better than the choice when all of them answer everything."""
    names = ["pico:llava", "pico:llava-skewed", "pico:clip"]
    decision = snellen.choose(models=names, data="chart:shapes?n=140", within=0.1, workspace=tmp_path)
    assert decision.choice is not None
    runs = [
        snellen.run(model=name, data="chart:shapes?n=140", workspace=tmp_path, progress=False)
        for name in names
    ]
    chosen = next(run for run in runs if run.model == decision.choice)
    others = [run for run in runs if run is not chosen]
    for other in others:
        (pair,) = snellen.compare([other, chosen], across=True)
        assert not (pair.real and pair.result.difference.value > 0)
    assert {run.id for run in runs} == {arm.run for arm in decision.arms}


def test_its_runs_are_marked_and_can_be_completed(truth, tmp_path):
    models = [guesser(truth, name, share) for name, share in (("a", 0.95), ("b", 0.4))]
    decision = snellen.choose(models=models, data=DATA, protocols=[PROTOCOL], workspace=tmp_path)
    run = open_run(decision.arms[0].run, tmp_path)
    assert run.status == "stopped"
    assert run.manifest.raced
    assert "snellen resume" in run.manifest.stopped
    assert run.metrics["accuracy"].low is None
    (pair,) = snellen.compare([open_run(arm.run, tmp_path) for arm in decision.arms])
    assert "by a race, so that intervals for a fixed number do not hold" in pair.unfinished[0]
    assert pair.raced
    assert not pair.real
    told = runner.invoke(app, ["compare", *(arm.run for arm in decision.arms), "-w", str(tmp_path)])
    assert "none: a race ended it" in told.stdout
    assert "is better" not in told.stdout
    assert "A race ended some of these runs" in told.stdout.replace("\n", " ")
    already = len(models[0].asked)
    full = snellen.run(model=models[0], data=DATA, protocol=PROTOCOL, workspace=tmp_path, progress=False)
    assert full.id == run.id
    assert (full.status, full.manifest.raced) == ("finished", False)
    assert full.metrics["accuracy"].low is not None
    assert len(models[0].asked) == 280 > already


def test_ties_and_what_is_preferred(truth, tmp_path):
    script = guesser(truth, "both", 0.9).script
    models = [Sized(script, "large", 900), Sized(script, "small", 100)]
    decision = snellen.choose(
        models=models, data=DATA, protocols=[PROTOCOL], within=0.05, prefer="size", workspace=tmp_path
    )
    assert decision.choice == "small"
    assert decision.tied == ("large",)
    assert "large may be used as well. (Chosen by size.)" in decision.sentence


@pytest.mark.exhaustive
def test_the_race_goes_on_for_the_preferred_one(truth, tmp_path):
    """Of two good models the smaller one is preferred: it is not enough that the larger is safe."""

    def decide(prefer, folder):
        sizes = (("large", 0.93, 900), ("small", 0.92, 100), ("bad", 0.4, 1))
        models = [Sized(guesser(truth, name, share).script, name, size) for name, share, size in sizes]
        return snellen.choose(
            models=models, data=DATA, protocols=[PROTOCOL], within=0.12, prefer=prefer, workspace=folder
        )

    first, preferring = decide(None, tmp_path / "a"), decide("size", tmp_path / "b")
    assert preferring.choice == "small"
    assert preferring.images >= first.images


def test_a_sole_survivor_is_no_choice(truth, tmp_path):
    broken = Server(lambda asked: "x", faults=lambda n: fault.status(401, "bad key"))
    with service(truth, "a", 0.95) as first, broken as second:
        decision = snellen.choose(
            models=[hosted(first), hosted(second)], data=DATA, protocols=[PROTOCOL], workspace=tmp_path
        )
        assert len(first.asked) == 16
    assert decision.choice is None
    assert "Not decided. Only openai:m" in decision.sentence
    assert "could be asked." in decision.sentence


def test_undecided_says_so(truth, tmp_path):
    models = [guesser(truth, "x", 0.8), guesser(truth, "y", 0.8)]
    decision = snellen.choose(
        models=models,
        data=DATA,
        protocols=[PROTOCOL],
        within=0.001,
        filters=Filters(limit=40),
        workspace=tmp_path,
    )
    assert decision.choice is None
    assert decision.sentence.startswith(f"Not decided between {decision.leader} and ")
    assert "All images were asked." in decision.sentence
    gap = next(arm.gap for arm in decision.arms if arm.gap is not None)
    assert gap.low < 0 < gap.high


def test_of_exactly_these_images_all_is_known_in_the_end(truth, tmp_path):
    models = [guesser(truth, "x", 0.8), guesser(truth, "y", 0.7)]
    decision = snellen.choose(
        models=models, data=DATA, protocols=[PROTOCOL], within=0.001, population=True, workspace=tmp_path
    )
    shares = {
        name: np.mean([lucky(digest, name, share) for digest in truth])
        for name, share in (("x", 0.8), ("y", 0.7))
    }
    assert decision.choice == max(shares, key=shares.__getitem__)
    assert "on exactly these images" in decision.sentence


def test_a_model_that_says_the_largest_class_to_everything_does_not_win(tmp_path):
    for i in range(220):
        name = "scratch" if i % 11 == 0 else "nominal"
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, i % 7, 0)).save(tmp_path / "photos" / name / f"{i}.png")
    data = select(DATASETS.make(f"folder:{tmp_path / 'photos'}"))
    label = {s.images[0].sha256: str(s.label) for s in data}
    constant = Scripted(lambda r: "nominal", "constant")

    def sees(request):
        digest = request.images[0].sha256
        return label[digest] if label[digest] == "scratch" or lucky(digest, "s", 0.8) else "scratch"

    seeing = Scripted(sees, "seeing")
    how = {"data": tmp_path / "photos", "protocols": [PROTOCOL], "within": 0.05, "population": True}
    decision = snellen.choose(models=[constant, seeing], workspace=tmp_path / "ws", **how)
    assert decision.weighing == "balanced"
    assert decision.choice == "seeing"
    plain = snellen.choose(models=[constant, seeing], workspace=tmp_path / "ws", score="plain", **how)
    assert plain.choice == "constant"


def test_protocols_of_one_model_race_and_the_choice_is_measured_elsewhere(tmp_path, truth):
    """A model that knows the names only when it is asked in the plural."""

    def answer(request):
        digest = request.images[0].sha256
        good = "kinds" in request.messages[-1].text
        return truth[digest] if lucky(digest, "m", 0.95 if good else 0.5) else "nothing of the kind"

    model = Scripted(answer, "m")
    prompts = ["Which of these kinds is it? {names}", "Which of these is it? {names}"]
    protocols = [f"closed-set?rounds=1&prompt={quote(text)}" for text in prompts]
    decision = snellen.choose(models=[model], data=DATA, protocols=protocols, workspace=tmp_path)
    assert "kinds" in decision.choice
    assert decision.of == 280 - 56
    (told,) = (note for note in decision.notes if "kept apart, which did not choose it" in note)
    data = select(DATASETS.make(DATA))
    order = RaceOrder.drawn(data, 0, None)
    apart = [data[place].images[0].sha256 for unit in order.units[224:] for place in unit]
    share = np.mean([lucky(digest, "m", 0.95) for digest in apart])
    assert f"is right on {100 * share:.1f}% (" in told
    words = ["choose", "-m", "pico:llava", "-d", "chart:shapes?n=56", "-w", str(tmp_path), "--prompt", "A?"]
    assert "--prompt needs --protocol" in str(runner.invoke(app, words).exception)


def test_questions_about_one_image_are_one_unit(tmp_path):
    rows = []
    for i in range(40):
        Image.new("RGB", (8, 8), (i, 9, 9)).save(tmp_path / f"{i}.png")
        rows += [{"image": f"{i}.png", "question": f"{q}?", "answer": "yes"} for q in "abc"]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    name = f"jsonl:{tmp_path / 'x.jsonl'}?question=question&reference=answer"
    order = RaceOrder.drawn(select(DATASETS.make(name)), 0, None)
    assert Counter(map(len, order.units)) == {3: 40}
    assert not order.plain
    assert order.weights.mean() == pytest.approx(1)
    models = [Scripted(lambda r: "yes", "right"), Scripted(lambda r: "no", "wrong")]
    decision = snellen.choose(models=models, data=name, workspace=tmp_path / "ws", within=0.1)
    assert decision.choice == "right"
    assert decision.answers == decision.images * 2 * 3


def test_dollars_on_the_way_are_those_of_the_race(truth, tmp_path):
    """Also where runs hold more answers than the race has asked for."""
    options = {"price_in": 1000.0, "price_out": 1000.0}
    seen: dict[str, list[tuple[int, float | None, float | None]]] = {"fresh": [], "known": []}
    with service(truth, "a", 0.9) as first, service(truth, "b", 0.5) as second:
        models = [hosted(first), hosted(second)]
        for name, looks in seen.items():

            def watch(look, looks=looks) -> None:
                looks.append((look.images, look.cost, look.forecast))

            given: dict[str, Any] = {"model_options": options, "workspace": tmp_path / name}
            if name == "known":
                for model in models:
                    snellen.run(model=model, data=DATA, protocol=PROTOCOL, progress=False, **given)
            decision = snellen.choose(
                models=models,
                data=DATA,
                protocols=[PROTOCOL],
                within=0.1,
                watch=watch,
                **given,
            )
            assert looks[-1][1] == pytest.approx(decision.cost, rel=0.02)
    assert [n for n, _, _ in seen["fresh"]] == [n for n, _, _ in seen["known"]]
    for (_, cost, forecast), (_, known, known_forecast) in zip(*seen.values(), strict=True):
        assert known == pytest.approx(cost, rel=0.02)
        assert (forecast is None) == (known_forecast is None)
        assert forecast is None or known_forecast == pytest.approx(forecast, rel=0.02)


def test_hosted_models_race_side_by_side_within_a_budget(truth, tmp_path):
    options = {"price_in": 1000.0, "price_out": 1000.0}  # some ten cents a question
    with service(truth, "a", 0.9) as first, service(truth, "b", 0.88) as second:
        decision = snellen.choose(
            models=[hosted(first), hosted(second)],
            data=DATA,
            protocols=[PROTOCOL],
            model_options=options,
            max_cost=9.0,
            workspace=tmp_path,
        )
        asked = len(first.asked) + len(second.asked)
        assert decision.choice is None
        assert "The race ended early. The budget is used up" in decision.sentence
        assert decision.cost <= 9.0
        assert decision.full_cost > 30
        # The same command with more money goes on where it was, and asks nothing twice.
        again = snellen.choose(
            models=[hosted(first), hosted(second)],
            data=DATA,
            protocols=[PROTOCOL],
            model_options=options,
            max_cost=100.0,
            within=0.2,
            workspace=tmp_path,
        )
        assert again.choice is not None
        total = len(first.asked) + len(second.asked)
        assert total == max(asked, again.answers)


def test_a_model_that_gives_up_leaves_and_is_reported(truth, tmp_path):
    broken = Server(lambda asked: "x", faults=lambda n: fault.status(401, "bad key"))
    with service(truth, "a", 0.95) as first, service(truth, "b", 0.5) as second, broken as third:
        decision = snellen.choose(
            models=[hosted(first), hosted(second), hosted(third)],
            data=DATA,
            protocols=[PROTOCOL],
            within=0.05,
            workspace=tmp_path,
        )
    assert decision.choice == hosted(first)
    assert "none of the 2 that could be asked" in decision.sentence
    failed = next(arm for arm in decision.arms if arm.name == hosted(third))
    assert "401" in failed.failed
    assert any("could not go on" in note for note in decision.notes)


def test_errors_are_asked_again_and_then_count_as_wrong(truth, tmp_path):
    """One image of the first sixteen fails at every try."""
    data = select(DATASETS.make(DATA))
    bad = data[RaceOrder.drawn(data, 0, None).units[3][0]].images[0].sha256

    def answer(request):
        digest = request.images[0].sha256
        if digest == bad:
            return snellen.Response(outcome=snellen.Outcome.ERROR, reason="out of order")
        return truth[digest]

    models = [Scripted(answer, "faulty"), guesser(truth, "b", 0.4)]
    decision = snellen.choose(models=models, data=DATA, protocols=[PROTOCOL], workspace=tmp_path)
    assert decision.choice == "faulty"
    # Not again at each look.
    assert sum(r.images[0].sha256 == bad for r in models[0].asked) == 3
    arm = next(arm for arm in decision.arms if arm.name == "faulty")
    assert arm.errors == 1
    assert arm.score == pytest.approx((arm.images - 1) / arm.images)
    assert "faulty: 1 sample failed at every try; failures count as wrong." in decision.notes


def written(log: Path, lines: int) -> bool:
    return log.exists() and len(log.read_text().splitlines()) >= lines


def test_killed_it_ends_with_the_same_decision(truth, tmp_path):
    script = tmp_path / "race.py"
    script.write_text(
        "import hashlib, os, sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import snellen\n"
        "from helpers import Scripted\n"
        "from snellen.datasets.base import DATASETS, select\n"
        f"truth = {{s.images[0].sha256: str(s.label) for s in select(DATASETS.make({DATA!r}))}}\n"
        "log = os.open(sys.argv[1], os.O_CREAT | os.O_APPEND | os.O_WRONLY)\n"
        "def model(name, share):\n"
        "    def answer(request):\n"
        "        digest = request.images[0].sha256\n"
        "        os.write(log, f'{name} {digest}\\n'.encode())\n"
        "        time.sleep(0.01)\n"
        "        drawn = hashlib.sha256(f'{digest} {name}'.encode()).digest()\n"
        "        return truth[digest] if int.from_bytes(drawn[:4]) / 2**32 < share else 'nothing'\n"
        "    return Scripted(answer, name)\n"
        "d = snellen.choose(models=[model('a', .95), model('b', .75), model('c', .5)],\n"
        f"    data={DATA!r}, protocols=[{PROTOCOL!r}], within=0.05, workspace=sys.argv[2])\n"
        "print(d.sentence)\n"
    )
    log, workspace = tmp_path / "log", tmp_path / "ws"
    command = [sys.executable, str(script), str(log), str(workspace)]
    for asked in (20, 90):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        try:
            until(partial(written, log, asked))
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    ended = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    models = [guesser(truth, name, share) for name, share in (("a", 0.95), ("b", 0.75), ("c", 0.5))]
    whole = snellen.choose(
        models=models, data=DATA, protocols=[PROTOCOL], within=0.05, workspace=tmp_path / "other"
    )
    assert ended == whole.sentence
    # At most the batches that were under way when it was killed were asked again.
    asked_again = len(log.read_text().splitlines()) - whole.answers
    assert 0 <= asked_again <= 2 * 3 * 16


class TestRefused:
    def test_a_single_model(self, truth, tmp_path):
        with pytest.raises(UsageError, match="at least two different models"):
            snellen.choose(
                models=[guesser(truth, "a", 1)], data=DATA, protocols=[PROTOCOL], workspace=tmp_path
            )

    def test_a_score_of_the_whole_run(self, tmp_path):
        Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
        (tmp_path / "x.jsonl").write_text('{"image": "1.png", "caption": "a dark square"}\n')
        data = f"jsonl:{tmp_path / 'x.jsonl'}?reference=caption"
        models = ["pico:llava", "pico:llava-skewed"]
        with pytest.raises(Unsupported, match="scored over a whole run"):
            snellen.choose(models=models, data=data, protocols=["caption"], workspace=tmp_path)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"within": 0}, "--within 0 is not allowed"),
            ({"confidence": 1.0}, "--confidence 100 is not allowed"),
            ({"confidence": 0.2}, "--confidence 20 is not allowed"),
        ],
    )
    def test_options(self, truth, tmp_path, options, said):
        models = [guesser(truth, "a", 1), guesser(truth, "b", 1)]
        with pytest.raises(BadOption, match=said):
            snellen.choose(models=models, data=DATA, protocols=[PROTOCOL], workspace=tmp_path, **options)

    def test_an_unreadable_image(self, tmp_path):
        one_is_broken(tmp_path / "photos", 20)
        models = [Scripted(lambda r: "a", "x"), Scripted(lambda r: "b", "y")]
        how = {"models": models, "data": tmp_path / "photos", "protocols": [PROTOCOL]}
        with pytest.raises(DataError, match="3.png"):
            snellen.choose(workspace=tmp_path / "ws", **how)
        decision = snellen.choose(workspace=tmp_path / "ws", filters=Filters(skip_invalid=True), **how)
        assert "Left out: 1 sample that cannot be read." in decision.notes
        assert decision.of == 39
        assert decision.full_answers == 2 * 39

    def test_answers_that_cannot_be_read_are_named(self, tmp_path):
        models = [Scripted(lambda r: "no idea", "x"), Scripted(lambda r: "star", "y")]
        decision = snellen.choose(models=models, data=DATA, protocols=[PROTOCOL], workspace=tmp_path)
        (note,) = (note for note in decision.notes if "could not be read" in note)
        assert note.startswith(
            "x: 100% of its answers could not be read, and count as wrong (snellen show x-"
        )

    def test_an_image_is_skipped_once_however_often_a_race_looks(self, tmp_path):
        """Each look came to it again, until as many were asked and skipped as there are images."""
        one_is_broken(tmp_path / "photos", 60)
        models = [Scripted(lambda r: "a", "x"), Scripted(lambda r: "a", "y")]
        how = {"models": models, "data": tmp_path / "photos", "protocols": [PROTOCOL]}
        how["workspace"] = tmp_path / "ws"
        for _ in range(2):  # the second time, the runs are there
            decision = snellen.choose(filters=Filters(skip_invalid=True), **how)
            for arm in decision.arms:
                run = open_run(arm.run, tmp_path / "ws")
                assert (run.status, run.metrics.n, run.metrics.skipped) == ("finished", 119, 1)
                assert [row.where for row in run.manifest.data.skipped] == ["a/3.png"]
        with pytest.raises(ImageError, match=r"3.png.*--skip-invalid"):
            snellen.choose(**how)

    def test_all_models_give_up(self, tmp_path):
        refusing = [Server(lambda a: "x", faults=lambda n: fault.status(401, "bad key")) for _ in range(2)]
        with refusing[0] as first, refusing[1] as second, pytest.raises(Stopped, match="401"):
            snellen.choose(
                models=[hosted(first), hosted(second)], data=DATA, protocols=[PROTOCOL], workspace=tmp_path
            )


class TestCommand:
    def words(self, workspace: Path, *more: str) -> list[str]:
        models = ["-m", "pico:llava", "-m", "pico:llava-skewed"]
        return ["choose", *models, "-d", "chart:shapes?n=112", "-w", str(workspace), *more]

    def test_a_table_and_a_sentence(self, tmp_path):
        picture = tmp_path / "race.png"
        told = runner.invoke(app, self.words(tmp_path, "--within", "8", "-o", str(picture)))
        assert told.exit_code == 0, told.output
        assert "Use pico:llava: 95% sure that none of the 2 is more than 8 points better" in told.stdout
        assert "snellen resume llava-closed-set" in told.stdout.replace("\n", " ")
        assert "of 112 images" in told.stderr
        assert picture.stat().st_size > 10_000
        page = tmp_path / "race.html"
        shown = runner.invoke(app, self.words(tmp_path, "--within", "8", "--json", "-o", str(page)))
        text = page.read_text(encoding="utf-8")
        assert "<h1>Use pico:llava</h1>" in text
        assert text.count("<td><code>snellen show ") == 2
        assert "data:image/svg+xml;base64," in text
        assert "http" not in text.replace("http-equiv", "")  # nothing of others is loaded
        document = json.loads(shown.stdout)
        assert document["choice"] == "pico:llava"
        assert document["history"][0]["images"] == 16
        assert set(document["history"][0]["gaps"]) == {"pico:llava-skewed"}
        run = Run(Store(tmp_path), document["arms"][0]["run"])
        assert run.metrics.n == document["images"]

    def test_names_of_others_are_inert_on_the_page(self):
        evil = "<script>alert(1)</script>"
        arm = ArmResult(name=evil, run="x", score=0.5, images=8, answers=8, errors=0)
        decision = Decision(
            choice=None, tied=(), leader=evil, arms=(arm,), weighing="plain", score="accuracy",
            population=False, notes=(evil,), within=0.01, confidence=0.95, images=8, of=8, of_samples=8,
        )  # fmt: skip
        page = race_page(decision)
        assert evil not in page
        assert page.count("&lt;script&gt;") >= 3

    def test_a_file_that_cannot_be_drawn(self, tmp_path):
        told = runner.invoke(app, self.words(tmp_path, "-o", str(tmp_path / "race.docx")))
        assert isinstance(told.exception, BadOption)
        assert "allowed endings: .html, .png, .svg, .pdf" in str(told.exception)

    def test_a_dry_run_asks_nothing(self, tmp_path):
        told = runner.invoke(app, self.words(tmp_path, "--dry-run"))
        assert told.exit_code == 0
        assert "the most that a race takes" in told.stdout.replace("\n", " ")
        assert not (tmp_path / "snellen.db").exists()
