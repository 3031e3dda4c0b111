"""Wrong labels: planted ones are found, decisions are applied, and the page saves them."""

from __future__ import annotations

import html
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import snellen
from helpers import Scripted
from served import browser, served
from snellen.cli import app
from snellen.datasets.base import DATASETS
from snellen.decisions.labels import review_labels, write_corrections
from snellen.decisions.record import keep_review, reviews_in
from snellen.errors import BadOption, DataError, UsageError
from snellen.reports.labels import labels_page
from snellen.runs.run import Run
from snellen.storage.store import Store
from snellen.web.security import Policy
from snellen.web.state import AppState
from websites import Tags, inert

pytestmark = pytest.mark.slow

runner = CliRunner()
DATA = "chart:shapes?n=280"
MODELS = (("pico:llava", "closed-set?rounds=1"), ("pico:clip", "rank"), ("pico:classifier", "rank"))


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> tuple[Path, set[str], list[Run]]:
    """Twenty of 280 labels are wrong; three built-in models have judged them."""
    folder = tmp_path_factory.mktemp("planted")
    data, rng = DATASETS.make(DATA), random.Random(1)
    rows = []
    for place in rng.sample(range(len(data)), 20):
        id_, label = data.row(place)
        wrong = rng.choice([name for name in data.labels if name != label])
        rows.append({"id": id_, "label": label, "action": "correct", "correct": wrong})
    file = folder / "planted.json"
    file.write_text(json.dumps({"corrections": rows}))
    runs = [
        snellen.run(
            model=model,
            data=DATA,
            data_options={"corrections": str(file)},
            protocol=protocol,
            workspace=folder / "ws",
            progress=False,
        )
        for model, protocol in MODELS
    ]
    return folder, {str(row["id"]) for row in rows}, runs


def test_planted_errors_are_found(planted):
    """At least nine of ten planted errors are among twice as many suspects."""
    _, wrong, runs = planted
    review = review_labels(runs, 40)
    found = [suspect.id in wrong for suspect in review.suspects]
    assert sum(found) >= 18
    assert sum(found[:20]) >= 15  # and the first ones are mostly errors
    assert review.wrong.low <= 20 / 280 <= review.wrong.high
    data = DATASETS.make(DATA)
    truth = {data.row(i).id: data.row(i).label for i in range(len(data))}
    right = [s.suggested == truth[s.id] for s in review.suspects if s.id in wrong]
    assert sum(right) >= 18
    json.dumps(review.as_dict())


def test_clean_labels_are_hardly_suspected(planted, tmp_path):
    runs = [
        snellen.run(model=model, data=DATA, protocol=protocol, workspace=planted[0] / "ws", progress=False)
        for model, protocol in MODELS
    ]
    review = review_labels(runs)
    assert review.contradicted < 20
    assert review.wrong.value < 0.05


def test_decisions_are_applied_and_cost_no_answer(planted, tmp_path):
    folder, wrong, runs = planted
    review = review_labels(runs, 40)
    file = tmp_path / "labels.json"
    write_corrections(review, file)
    how = {"model": MODELS[0][0], "protocol": MODELS[0][1], "workspace": folder / "ws", "progress": False}
    content = json.loads(file.read_text())
    for row in content["corrections"]:
        assert row["action"] == "review"
        row["action"] = "correct" if row["id"] in wrong else "drop"
    file.write_text(json.dumps(content))
    plant = {"corrections": str(folder / "planted.json")}
    planted_data = DATASETS.make(DATA, plant)
    # The file was written for the data with planted errors, and refuses the clean ones.
    with pytest.raises(DataError, match="Was the file written for other data"):
        DATASETS.make(DATA, {"corrections": str(file)})
    corrected = {**content, "corrections": [r for r in content["corrections"] if r["action"] == "correct"]}
    clean = DATASETS.make(DATA)
    labels = {clean.row(i).id: clean.row(i).label for i in range(len(clean))}
    back = [
        {**json.loads((folder / "planted.json").read_text())["corrections"][0], "action": "drop"},
        *({"id": id_, "label": labels[id_], "action": "keep"} for id_ in list(labels)[:3]),
    ]
    (tmp_path / "drop.json").write_text(json.dumps({"corrections": back}))
    dropped = DATASETS.make(DATA, {"corrections": str(tmp_path / "drop.json")})
    assert len(dropped) == len(planted_data) - 1
    assert "0 labels corrected, 1 sample dropped" in dropped.notes[-1]
    run = snellen.run(data=DATA, data_options={"corrections": str(tmp_path / "drop.json")}, **how)
    assert run.metrics.n == 279
    assert run.metrics.items_per_second is None  # every answer was there
    assert corrected["corrections"]


@pytest.mark.parametrize(
    ("row", "said", "error"),
    [
        ({"id": "nobody", "label": "a", "action": "drop"}, "has no sample 'nobody'", DataError),
        ({"id": "a/0.png", "label": "b", "action": "drop"}, "was 'b' when it was reviewed", DataError),
        ({"id": "a/0.png", "label": "a", "action": "correct", "correct": "bb"}, "no class of", BadOption),
        ({"id": "a/0.png", "label": "a", "action": "correct"}, "no 'correct' label", DataError),
        ({"id": "a/0.png", "label": "a", "action": "corect"}, "Did you mean 'correct'", DataError),
        ({"label": "a"}, "cannot be read", DataError),
    ],
)
def test_files_that_are_refused(tmp_path, row, said, error):
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name / "0.png")
    (tmp_path / "x.json").write_text(json.dumps({"corrections": [row]}))
    with pytest.raises(error, match=said):
        DATASETS.make(f"folder:{tmp_path / 'photos'}", {"corrections": str(tmp_path / "x.json")})


def test_a_file_of_other_images_is_refused(tmp_path):
    for folder, color in (("one", 10), ("two", 99)):
        for name in "ab":
            (tmp_path / folder / name).mkdir(parents=True)
            Image.new("RGB", (8, 8), (color, 0, 0)).save(tmp_path / folder / name / "0.png")
    first = DATASETS.make(f"folder:{tmp_path / 'one'}")
    image = first.sample(0, first.labels, None).images[0].sha256
    row = {"id": "a/0.png", "label": "a", "action": "correct", "correct": "b", "image": image}
    file = tmp_path / "labels.json"
    file.write_text(json.dumps({"corrections": [row]}))
    corrected = DATASETS.make(f"folder:{tmp_path / 'one'}", {"corrections": str(file)})
    assert [corrected.row(i).label for i in range(2)] == ["b", "b"]
    with pytest.raises(DataError, match="shows another image than when it was reviewed"):
        DATASETS.make(f"folder:{tmp_path / 'two'}", {"corrections": str(file)})


def test_unfinished_runs_are_named(planted, tmp_path):
    models = ["pico:llava", "pico:llava-skewed"]
    decision = snellen.choose(models=models, data="chart:shapes?n=112", within=0.1, workspace=tmp_path)
    review = review_labels([Run(Store(tmp_path), arm.run) for arm in decision.arms])
    assert f"{review.n} of 112 samples were answered by all runs" in review.notes[-1]
    assert "snellen resume" in review.notes[-1]


def test_copies_with_different_labels(tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    for i in range(8):
        picture = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((96, 96), 0)
        for name in "ab" if i == 0 else "ab"[i % 2]:
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / "photos" / name / f"{i}{name}.png")
    models = [Scripted(lambda r: "a", "always a"), Scripted(lambda r: "b", "always b")]
    runs = [
        snellen.run(
            model=m,
            data=f"folder:{tmp_path / 'photos'}",
            protocol="closed-set?rounds=1",
            workspace=tmp_path / "ws",
            progress=False,
        )
        for m in models
    ]
    review = review_labels(runs)
    assert review.duplicates == (("a/0a.png", "a", "b/0b.png", "b"),)
    assert review.contradicted == 0  # one model against one is no agreement


def test_what_is_refused(planted):
    folder, _, runs = planted
    with pytest.raises(UsageError, match="at least two runs"):
        review_labels(runs[:1])
    with pytest.raises(UsageError, match="runs of one model, whose mistakes would count twice"):
        review_labels([runs[0], runs[0]])
    other = snellen.run(
        model="pico:clip", data="chart:shapes?n=56", protocol="rank", workspace=folder / "ws", progress=False
    )
    with pytest.raises(UsageError, match="different data"):
        review_labels([runs[0], other])


def test_the_command_and_the_page(planted, tmp_path):
    folder, wrong, runs = planted
    words = ["labels", *(run.id for run in runs), "-w", str(folder / "ws"), "--suspects", "30"]
    page = tmp_path / "labels.html"
    told = runner.invoke(app, [*words, "-o", str(page)])
    assert told.exit_code == 0, told.output
    assert "labels are contradicted by models in agreement" in told.stdout.replace("\n", " ")
    text = page.read_text()
    assert text.count('class="suspect"') >= 20
    assert "data:image/jpeg;base64," in text
    assert "default-src 'none'" in text
    document = json.loads(runner.invoke(app, [*words, "--json"]).stdout)
    assert {row["id"] for row in document["suspects"]} & wrong
    refused = runner.invoke(app, [*words, "-o", "x.txt"])
    assert "allowed endings" in str(refused.exception)


def test_names_are_escaped_on_the_page(planted):
    _, _, runs = planted
    review = review_labels(runs, 1)
    bad = replace(review.suspects[0], id='"><script>alert(1)</script>', suggested="<b>x</b>")
    odd = replace(review, suspects=(bad,), classes=("<i>",))
    text = labels_page(odd, runs[0].store)
    assert "<script>alert" not in text
    assert "<b>x" not in text
    assert "<i>" not in text
    assert text.count("<script>") == 1


def test_the_review_in_the_browser(planted):
    folder, _, runs = planted
    store = Store(folder / "ws")
    told = runner.invoke(
        app, ["labels", *(run.id for run in runs), "-w", str(folder / "ws"), "--suspects", "7"]
    )
    assert "in the browser: snellen view" in told.stdout.replace("\n", " ")
    (kept,) = reviews_in(store).all()
    with served(AppState(store, Policy())) as address, browser(address) as client:
        assert 'href="/labels"' in client.get("/").text
        listed, page = client.get("/labels").text, client.get(f"/labels/{kept.id}").text
        for text in (listed, page):
            inert(text)
            assert kept.content["sentence"] in html.unescape(text)
        assert f"/labels/{kept.id}" in listed
        assert page.count('class="suspect"') == 7
        pictures = {tag["src"] for name, tag in Tags(page).tags if name == "img" and "previews" in tag["src"]}
        assert len(pictures) == 7
        for picture in pictures:
            assert client.get(picture).headers["content-type"].startswith("image/")
        for run in runs:
            assert f"/runs/{run.id}" in page
        assert client.get("/labels/none").status_code == 404
        assert client.get("/static/labels.js").status_code == 200


def test_odd_names_are_inert_in_the_browser(planted, tmp_path):
    _, _, runs = planted
    review = review_labels(runs, 1)
    bad = replace(review.suspects[0], id='"><script>alert(1)</script>', suggested="<b>x</b>", image="../../x")
    store = Store(tmp_path)
    kept = keep_review(store, replace(review, suspects=(bad,), classes=("<i>",)))
    with served(AppState(store, Policy())) as address, browser(address) as client:
        page = client.get(f"/labels/{kept.id}")
        assert page.status_code == 200
        inert(page.text)
        assert "no preview" in page.text
