"""Decisions in the workspace: kept, listed, and shown in the browser."""

from __future__ import annotations

import html
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import snellen
from helpers import Scripted
from served import browser, served
from snellen.decisions.record import decisions_in, keep_decision
from snellen.errors import UnknownName
from snellen.reports.charts import ChartPoint, bands
from snellen.reports.decisions import race_page, write_race
from snellen.runs.filters import Filters
from snellen.storage.store import Store
from snellen.web.security import Policy
from snellen.web.state import AppState
from websites import inert


def model(name: str, share: float) -> Scripted:
    def answer(request):
        right = random.Random(f"{name} {request.sample.id}").random() < share
        return request.sample.label if right else "a thing"

    return Scripted(answer, name)


def race(workspace: Path, **how) -> snellen.Decision:
    models = [model("<b>good</b>", 0.95), model("bad", 0.3), model("fair", 0.85)]
    given = {
        "models": models,
        "data": "chart:shapes?n=112",
        "protocols": ["closed-set?rounds=1"],
        "within": 0.1,
    }
    return snellen.choose(**{**given, **how}, workspace=workspace)


def test_it_is_kept_and_the_same_race_replaces_it(tmp_path):
    decision = race(tmp_path)
    store = Store(tmp_path)
    (kept,) = decisions_in(store).all()
    assert kept.content == json.loads(json.dumps(decision.as_dict()))
    assert kept.data == "chart:shapes?n=112"
    race(tmp_path)
    assert [one.id for one in decisions_in(store).all()] == [kept.id]
    race(tmp_path, within=0.2)
    assert len(decisions_in(store).all()) == 2
    assert decisions_in(store).get(kept.id).content["within"] == 0.1


@pytest.mark.parametrize("id", ["none", "../snellen", "A", "", "x" * 200])
def test_names_are_names(tmp_path, id):
    with pytest.raises(UnknownName, match="no such decision"):
        decisions_in(Store(tmp_path)).get(id)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2, "id": "x"}', '{"schema": 1, "id": "y"}'])
def test_what_is_no_decision_is_left_out(tmp_path, text):
    (tmp_path / "decisions").mkdir()
    (tmp_path / "decisions" / "x.json").write_text(text)
    assert decisions_in(Store(tmp_path)).all() == []


def changed(document: dict, path: str, value: object) -> None:
    *folders, last = path.split(".")
    for name in folders:
        document = document[int(name)] if isinstance(document, list) else document[name]
    document[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("created", 5),
        ("status", "odd"),
        ("process", None),
        ("process", "x"),
        ("content", {}),
        ("content.sentence", None),
        ("content.arms", []),
        ("content.arms", 7),
        ("content.choice", 7),
        ("content.tied", None),
        ("content.arms.0.gap", 5),
        ("content.arms.0.cost", float("nan")),
        ("content.arms.0.score", 10**400),
        ("content.history.0.gaps", None),
        ("content.history.0.images", -1),
        ("content.notes", "text"),
        ("content.within", float("inf")),
        ("content.leader", "\ud800"),
    ],
)
def test_an_odd_file_is_no_page(tmp_path, a_race, path, value):
    folder = tmp_path / "decisions"
    folder.mkdir()
    document = json.loads(a_race)
    document["id"] = "odd"
    changed(document, path, value)
    (folder / "odd.json").write_text(json.dumps(document))
    document = json.loads(a_race)
    (folder / f"{document['id']}.json").write_text(a_race)
    with served(AppState(Store(tmp_path), Policy())) as address, browser(address) as client:
        assert client.get("/decisions/odd").status_code == 404
        listed = client.get("/decisions")
        assert listed.status_code == 200
        assert "/decisions/odd" not in listed.text
        assert client.get(f"/decisions/{document['id']}").status_code == 200


@pytest.fixture(scope="module")
def a_race(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("race")
    race(folder)
    (file,) = (folder / "decisions").iterdir()
    return file.read_text()


def test_folders_of_this_machine_stay_here(tmp_path):
    decision = race(tmp_path, models=[model("vllm-local:/home/ann/m?program=/opt/x", 0.9), model("bad", 0.2)])
    (kept,) = decisions_in(Store(tmp_path)).all()
    page = race_page(decision)
    for text in (json.dumps(kept.content), page):
        assert "vllm-local:m?program=x" in text
        assert "/home/ann" not in text
        assert "/opt" not in text
    assert set(kept.content["history"][0]["gaps"]) == {"bad"}


def test_dollars_in_names_are_dollars(tmp_path):
    decision = race(tmp_path, models=[model("a$x_{2$", 0.9), model("b$", 0.2)])
    write_race(decision, tmp_path / "race.svg")
    assert (tmp_path / "race.svg").stat().st_size > 1000


def test_where_it_cannot_be_kept_it_is_not_lost(tmp_path, caplog):
    decision = race(tmp_path / "ws")
    store = Store(tmp_path / "other")
    (store.folder / "decisions").write_text("a file")
    assert keep_decision(store, decision, "x") is None
    assert "not kept for the browser" in caplog.text


def test_the_pages(tmp_path):
    decision = race(tmp_path)
    store = Store(tmp_path)
    (kept,) = decisions_in(store).all()
    with served(AppState(store, Policy())) as address, browser(address) as client:
        assert 'href="/decisions"' in client.get("/").text
        listed = client.get("/decisions").text
        assert f"/decisions/{kept.id}" in listed
        page = client.get(f"/decisions/{kept.id}").text
        for text in (listed, page):
            inert(text)
            assert decision.sentence in html.unescape(text)
        assert "<polygon" in page
        for arm in decision.arms:
            assert f"/runs/{arm.run}" in page
        assert client.get("/decisions/nothing").status_code == 404


def test_without_decisions_no_page_leads_there(tmp_path):
    with served(AppState(Store(tmp_path), Policy())) as address, browser(address) as client:
        assert "/decisions" not in client.get("/").text
        assert "No decisions yet" in client.get("/decisions").text


class TestARaceUnderWay:
    def test_its_page_shows_how_it_stands(self, tmp_path):
        store, seen = Store(tmp_path), []
        with served(AppState(store, Policy())) as address, browser(address) as client:

            def watch(_):
                if kept := decisions_in(store).all():
                    state = client.get(f"/decisions/{kept[0].id}/progress").json()
                    seen.append((client.get(f"/decisions/{kept[0].id}").text, state))

            decision = race(tmp_path, watch=watch)
            (kept,) = decisions_in(store).all()
            last = client.get(f"/decisions/{kept.id}").text
        page, state = seen[0]
        inert(page)
        assert "A race under way" in page
        assert f'data-live="{state["done"]}"' in page
        assert "leads. 16 of 112 images" in page
        assert "images to go" in page
        assert "e-value" in page
        assert state == {"status": "running", "done": 16, "total": 112, "text": "16 of 112 images"}
        assert kept.status == "finished"
        assert "A race under way" not in last
        assert decision.sentence in html.unescape(last)

    def test_what_is_shown_on_the_way_is_what_it_ends_with(self, tmp_path):
        """Differences that were computed at earlier looks are those of the end."""
        store = Store(tmp_path)
        states: list[Any] = []
        decision = race(tmp_path, watch=lambda _: states.extend(d.content for d in decisions_in(store).all()))
        end = {look["images"]: look["gaps"] for look in decision.as_dict()["history"]}
        reference = decision.choice or decision.leader
        known = [s for s in states if (s["choice"] or s["leader"]) == reference]
        assert known
        for state in known:
            for look in state["history"]:
                assert look["gaps"] == end[look["images"]]

    def test_interrupted_it_says_so(self, tmp_path):
        def stop(look):
            if look.images > 16:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            race(tmp_path, watch=stop)
        (kept,) = decisions_in(Store(tmp_path)).all()
        assert kept.status == "interrupted"
        with served(AppState(Store(tmp_path), Policy())) as address, browser(address) as client:
            page = client.get(f"/decisions/{kept.id}").text
            assert "the same command resumes it" in page
            assert "interrupted" in client.get("/decisions").text
        race(tmp_path)
        (kept,) = decisions_in(Store(tmp_path)).all()
        assert kept.status == "finished"

    def test_of_a_process_that_is_gone_it_is_interrupted(self, tmp_path, a_race):
        document = json.loads(a_race)
        document |= {"status": "running", "process": {**document["process"], "pid": 2**22 - 1}}
        (tmp_path / "decisions").mkdir()
        (tmp_path / "decisions" / f"{document['id']}.json").write_text(json.dumps(document))
        assert decisions_in(Store(tmp_path)).get(document["id"]).status == "interrupted"

    @pytest.mark.parametrize("process", [{"pid": "x", "started": 1}, {"pid": -1, "started": 1}, {}])
    def test_an_odd_process_is_not_gone(self, tmp_path, a_race, process):
        document = json.loads(a_race)
        document |= {"status": "running", "process": {"host": document["process"]["host"], **process}}
        (tmp_path / "decisions").mkdir()
        (tmp_path / "decisions" / f"{document['id']}.json").write_text(json.dumps(document))
        assert decisions_in(Store(tmp_path)).get(document["id"]).status == "running"

    def test_a_decision_is_not_undone_by_the_same_race_stopped(self, tmp_path):
        decision = race(tmp_path)

        def stop(look):
            if look.images > 16:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            race(tmp_path, watch=stop)
        (kept,) = decisions_in(Store(tmp_path)).all()
        assert kept.status == "finished"
        assert kept.content["sentence"] == decision.sentence

    def test_resumed_it_is_under_way_at_once_and_not_set_back(self, tmp_path):
        store = Store(tmp_path)
        states: list[Any] = []

        def stop(look):
            if look.images > 48:
                raise KeyboardInterrupt

        def answer(request):
            if not states:
                states.append(decisions_in(store).all()[0])
            return "a thing"

        models = [Scripted(lambda r: r.sample.label, "a"), Scripted(lambda r: r.sample.label, "b")]
        given = {"models": models, "within": 0.01}
        with pytest.raises(KeyboardInterrupt):
            race(tmp_path, **given, watch=stop)
        (before,) = decisions_in(store).all()
        models[0].script = answer
        seen: list[int] = []
        race(tmp_path, **given, watch=lambda _: seen.append(decisions_in(store).all()[0].content["images"]))
        assert states[0].status == "running"
        assert states[0].content["images"] == before.content["images"]
        assert min(seen) >= before.content["images"]


def test_files_that_cannot_be_read_leave_one_race(tmp_path, photos):
    """How many images there are is known only once all were tried."""
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    for kind in ("star", "ring", "key"):
        (folder / kind / "0.png").write_bytes(b"no picture")
    models = [Scripted(lambda r: r.sample.label, "a"), Scripted(lambda r: r.sample.label, "b")]
    filters = Filters(skip_invalid=True)
    snellen.choose(models=models, data=folder, filters=filters, workspace=tmp_path / "ws", within=0.01)
    (kept,) = decisions_in(Store(tmp_path / "ws")).all()
    assert kept.status == "finished"


def test_models_whose_paths_end_alike_are_told_apart(tmp_path):
    names = ("hf:/home/ann/a/final", "hf:/home/ann/b/final", "hf:/home/ann/b/final-2")
    models = [model(name, share) for name, share in zip(names, (0.95, 0.3, 0.85), strict=True)]
    race(tmp_path, models=models)
    (kept,) = decisions_in(Store(tmp_path)).all()
    known = {arm["name"] for arm in kept.content["arms"]}
    assert known == {"hf:final", "hf:final (2)", "hf:final-2"}
    assert set(kept.content["history"][0]["gaps"]) == known - {kept.content["choice"]}
    assert [a["name"] for a in kept.content["arms"] if a["name"] == kept.content["choice"]] == ["hf:final"]


def test_why_it_ended_names_no_folder(tmp_path):
    decision = race(tmp_path, models=[model("hf:/home/ann/secret/a", 0.9), model("hf:/home/ann/b", 0.2)])
    ended = replace(decision, ended="Only hf:/home/ann/secret/a could be asked.", choice=None)
    kept = keep_decision(Store(tmp_path), ended, "x")
    assert kept is not None
    assert "Only hf:a could be asked." in kept.content["sentence"]
    assert "/home/ann" not in json.dumps(kept.content)


def test_what_no_page_could_show_is_not_kept(tmp_path, caplog):
    store = Store(tmp_path)
    decision = replace(race(tmp_path / "ws"), within=float("nan"))
    assert keep_decision(store, decision, "x") is None
    assert decisions_in(store).keep({"odd": object()}, data="x", key=1) is None
    assert decisions_in(store).keep({"images": 3}, data="x", key=1) is None
    assert caplog.text.count("not kept for the browser") == 3
    assert decisions_in(store).all() == []


def test_a_name_that_is_no_text_is_kept(tmp_path):
    decision = race(tmp_path / "ws")
    kept = keep_decision(Store(tmp_path), decision, "folder:ph\udcffotos")
    assert kept is not None
    assert decisions_in(Store(tmp_path)).get(kept.id).data == "folder:ph?otos"


class TestBands:
    def test_lines_lie_within_their_bands_and_the_chart(self):
        points = [ChartPoint(x=n, y=-2.0 + n / 50, low=-90 / n, high=95 / n, name="a") for n in (10, 40, 90)]
        chart = bands({"a": points, "b": points}, x="images", y="points", margin=1.0)
        assert chart is not None
        for line in chart["lines"]:
            xs = [float(pair.split(",")[0]) for pair in line["line"].split()]
            ys = [float(pair.split(",")[1]) for pair in line["line"].split()]
            band = [tuple(map(float, pair.split(","))) for pair in line["band"].split()]
            lows, highs = band[: len(xs)], band[len(xs) :][::-1]
            for x, y, low, high in zip(xs, ys, lows, highs, strict=True):
                assert low[0] == high[0] == x
                assert high[1] <= y <= low[1]  # down is larger
            assert all(20 <= y <= 250 for _, y in band)
        assert chart["margin"] < chart["zero"]
        first, second = (line["end"] for line in chart["lines"])
        assert abs(first[1] - second[1]) >= 11

    def test_of_many_models_the_numbers_stay_within(self):
        series = {str(k): [ChartPoint(x=16, y=-50.0, low=-60, high=-40, name=str(k))] for k in range(30)}
        chart = bands(series, x="images", y="points", margin=1.0)
        assert chart is not None
        assert all(line["end"][1] <= 250 for line in chart["lines"] if line["numbered"])
        assert sum(line["banded"] for line in chart["lines"]) == 6

    def test_nothing_is_no_chart(self):
        assert bands({"a": []}, x="images", y="points", margin=1.0) is None
