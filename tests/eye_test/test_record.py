"""Eye tests in the workspace: kept, listed, and shown in the browser."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from helpers import Scripted
from served import browser, served
from snellen.eye_test.eye_test import Reading, run_eye_test
from snellen.eye_test.own_images import run_own_images
from snellen.eye_test.record import eye_tests_in, keep_card, keep_own_card
from snellen.reports.charts import ChartPoint, levels
from snellen.storage.store import Store
from snellen.web.security import Policy
from snellen.web.state import AppState
from websites import Tags, inert


def guesser(name: str, share: float) -> Scripted:
    def answer(request):
        right = random.Random(f"{name} {request.sample.id}").random() < share
        return request.sample.label if right else "nothing"

    return Scripted(answer, name)


NAMES = ("a<b>$", "other")


def cards_of(store: Store) -> dict[str, list[Reading]]:
    charts = ["chart:color", "chart:counting"]
    return {name: run_eye_test(guesser(name, 0.8), charts=charts, n=16, workspace=store) for name in NAMES}


@pytest.fixture(scope="module")
def charts(tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("charts"))
    keep_card(store, cards_of(store))
    return store


@pytest.fixture(scope="module")
def own(photos, tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("own"))
    data = f"folder:{photos}"
    cards = {
        name: run_own_images(guesser(name, 0.8), data, degradations=["blur", "rotation"], workspace=store)
        for name in NAMES
    }
    keep_own_card(store, cards, data)
    return store


def test_drawn_charts(charts):
    (kept,) = eye_tests_in(charts).all()
    assert kept.content["models"] == list(NAMES)
    assert [panel["name"] for panel in kept.content["panels"]] == ["color", "counting"]
    color, counting = kept.content["panels"]
    assert color["levels"] == sorted(color["levels"], reverse=True)  # from easy to hard
    assert counting["levels"] == sorted(counting["levels"])
    for panel in kept.content["panels"]:
        assert len(panel["examples"]) == 4
        for result in panel["results"]:
            assert {point["level"] for point in result["points"]} == set(panel["levels"])


def test_own_images(own, photos):
    (kept,) = eye_tests_in(own).all()
    blur, _ = kept.content["panels"]
    assert kept.data == f"folder:{photos.name}"
    assert str(photos.parent) not in json.dumps(kept.content)
    assert blur["examples"]
    assert len({example["image"] for example in blur["examples"]}) == len(blur["examples"])
    for result in blur["results"]:
        assert all(point["low"] <= point["value"] <= point["high"] for point in result["points"])


@pytest.mark.parametrize("which", ["charts", "own"])
def test_the_pages(which, request):
    store = request.getfixturevalue(which)
    (kept,) = eye_tests_in(store).all()
    with served(AppState(store, Policy())) as address, browser(address) as client:
        assert 'href="/eye-tests"' in client.get("/").text
        listed, page = client.get("/eye-tests").text, client.get(f"/eye-tests/{kept.id}").text
        inert(listed)
        inert(page)
        assert f"/eye-tests/{kept.id}" in listed
        tags = Tags(page).tags
        pictures = [attributes["href"] for tag, attributes in tags if tag == "image"]
        assert pictures
        for picture in pictures:
            assert client.get(picture).headers["content-type"].startswith("image/")
        for panel in kept.content["panels"]:
            assert f"<h2>{panel['name']}</h2>" in page
            for result in panel["results"]:
                assert f"/runs/{result['run']}" in page
        assert client.get("/eye-tests/none").status_code == 404


def test_the_same_test_replaces_it(charts):
    (before,) = eye_tests_in(charts).all()
    kept = keep_card(charts, cards_of(charts))
    assert kept is not None
    assert [each.id for each in eye_tests_in(charts).all()] == [before.id] == [kept.id]


def test_models_whose_paths_end_alike_are_told_apart(charts, tmp_path):
    names = ("hf:/home/ann/a/final", "hf:/home/ann/b/final")
    cards = dict(zip(names, cards_of(charts).values(), strict=True))
    kept = keep_card(Store(tmp_path), cards)
    assert kept is not None
    assert kept.content["models"] == ["hf:final", "hf:final (2)"]
    assert [r["model"] for r in kept.content["panels"][0]["results"]] == kept.content["models"]
    others = dict(zip(("hf:/c/final", "hf:/d/final"), cards.values(), strict=True))
    assert keep_card(Store(tmp_path), others).id != kept.id


def test_without_one_no_page_leads_there(tmp_path):
    with served(AppState(Store(tmp_path), Policy())) as address, browser(address) as client:
        assert "/eye-tests" not in client.get("/").text
        assert "No eye test yet" in client.get("/eye-tests").text
        assert "No review of labels yet" in client.get("/labels").text


class TestLevels:
    def chart(self, order, points, **more):
        given: dict[str, Any] = {"fitted": {}, "marks": {}, "floor": None, "pictures": {}}
        return levels({"a": points, "b": points}, order=order, x="x", y="y", **{**given, **more})

    def test_levels_stand_from_easy_to_hard_at_equal_distances(self):
        points = [ChartPoint(x=x, y=50, name="a") for x in (1, 10, 100)]
        chart = self.chart([100, 10, 1], points)
        a, b, c = (tick["at"] for tick in chart["across"])
        assert a < b < c
        assert b - a == pytest.approx(c - b, abs=0.2)
        assert [tick["text"] for tick in chart["across"]] == ["100", "10", "1"]

    def test_what_lies_between_stands_by_its_logarithm(self):
        chart = self.chart([100, 10, 1], [], marks={"a": 10**0.5, "b": 1e4})
        _, b, c = (tick["at"] for tick in chart["across"])
        assert chart["lines"][0]["mark"] == pytest.approx((b + c) / 2, abs=0.2)
        assert chart["lines"][1]["mark"] is None  # beyond the chart

    def test_no_model_hides_another(self):
        points = [ChartPoint(x=x, y=50, low=40, high=60, name="a") for x in (1, 2)]
        first, second = self.chart([1, 2], points)["lines"]
        assert abs(first["places"][0][0] - second["places"][0][0]) >= 4
        assert abs(first["end"] - second["end"]) >= 12

    def test_levels_without_logarithm(self):
        chart = self.chart([0, 90], [ChartPoint(x=0, y=10, name="a")], marks={"a": 45})
        a, b = (tick["at"] for tick in chart["across"])
        assert chart["lines"][0]["mark"] == pytest.approx((a + b) / 2, abs=0.2)
