"""The web app over a real socket: pages, safety, uploads, votes of many, a server that is killed."""

from __future__ import annotations

import html
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

import httpx
import pytest
from PIL import Image as pillow
from PIL import PngImagePlugin

from helpers import PAYLOADS, Scripted, text_of
from served import browser, half_way, served
from snellen.api import run
from snellen.arena.live import Live
from snellen.arena.recorded import Recorded
from snellen.arena.results import ArenaResults
from snellen.errors import BadOption, ImageError
from snellen.images import is_hash
from snellen.images.uploads import cleaned
from snellen.reports.report import report
from snellen.runs.run import open_run
from snellen.storage.rows import RunRows
from snellen.storage.store import Store
from snellen.storage.vote_rows import Answer, Battle, Turn
from snellen.storage.votes import VoteStore
from snellen.web.access import Role
from snellen.web.digest import Digest, Kept
from snellen.web.images import MAX_UPLOAD, Uploads
from snellen.web.markdown import markdown
from snellen.web.security import HEADERS, Policy, Rates, is_loopback
from snellen.web.serve import bound
from snellen.web.state import AppState


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def inert(text: str) -> None:
    """Nothing on a page runs, loads or sends anything but the site's own."""
    allowed = {"/static/snellen.js"}
    for tag, attributes in Tags(text).tags:
        assert tag not in ("iframe", "object", "embed", "base", "style", "b", "u"), (tag, attributes)
        if tag == "script":
            assert attributes.get("src") in allowed
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, attributes)
            assert name != "style", (tag, attributes)
            if name in ("src", "href", "action", "formaction"):
                assert value.startswith(("/", "#", "?")), (tag, attributes)
                assert not value.startswith("//"), (tag, attributes)


@pytest.fixture
def runs(workspace, store):
    """Two models that differ on some samples, and a third that fails in every way."""

    def teller(k):
        def script(request):
            number = int(request.images[0].sha256[:6], 16)
            return request.sample.label if number % 4 != k else "star" if number % 8 < 4 else "no idea"

        return script

    kwargs: dict[str, Any] = {"data": "chart:shapes?n=40", "protocol": "closed-set?rounds=1"}
    return [run(model=Scripted(teller(k), f"model-{k}"), **kwargs) for k in range(3)]


def cards(page: str) -> list[str]:
    """The positions of the samples that a page lists."""
    return re.findall(r'<div class="card" id="s(\d+)">', page)


def cast(vote_store: VoteStore, choice: str, voter: str = "v") -> None:
    """One vote between A and B that counts."""
    answers = (Answer("one"), Answer("two"))
    battle = vote_store.keep(
        Battle(
            id="", voter=voter, source="live", item=choice, left="A", right="B", propensity=1.0,
            turns=(Turn(0, "?", *answers),),
        )
    )  # fmt: skip
    vote_store.vote(battle.id, voter, choice)
    vote_store.reveal(battle.id, voter)


def png(color="red", size=(32, 24), **more) -> bytes:
    buffer = io.BytesIO()
    pillow.new("RGB", size, color).save(buffer, "PNG", **more)
    return buffer.getvalue()


class TestPages:
    def test_every_page_answers(self, store, runs):
        first, second = runs[0].id, runs[1].id
        with served(AppState(store, Policy())) as address, browser(address) as client:
            for path in (
                "/", "/?by=data&x=memory", "/?published=1", "/averages", "/ranking", "/ranking.json",
                f"/runs/{first}", f"/runs/{first[:-3]}?outcome=unparsed", f"/runs/{first}?q=star&right=no",
                f"/runs/{first}?truth=ring&predicted=star", f"/runs/{first}/samples/0",
                f"/compare?run={first}&run={second}", f"/heatmap?run={first}&run={second}",
                "/leaderboard.csv", "/leaderboard.json", "/leaderboard.md", "/health", "/static/web.css",
            ):  # fmt: skip
                reply = client.get(path)
                assert reply.status_code == 200, path
                for name, value in HEADERS.items():
                    assert reply.headers[name] == value, (path, name)
                if reply.headers["content-type"].startswith("text/html"):
                    inert(reply.text)

    @pytest.mark.parametrize(
        ("path", "status", "told"),
        [
            ("/nothing", 404, "no such page"),
            ("/runs/nobody", 404, "No run"),
            ("/?size=huge", 400, "allowed: <4B"),
            ("/runs/{run}?outcome=lucky", 400, "allowed: ok"),
            ("/runs/{run}?mood=good", 400, "Unknown filter"),
            ("/runs/{run}/samples/9999", 404, "no sample at position"),
            ("/runs/{run}/samples/x", 400, "position"),
            ("/runs/{run}/samples/0/images/..%2F..%2Fetc", 404, "no such page"),
            ("/previews/../../../etc/passwd", 404, "no such page"),
            ("/previews/zz", 404, "no such page"),
            ("/compare?run={run}", 400, "Select two"),
            ("/heatmap", 400, "Select 1 to"),
            ("/leaderboard.xlsx", 400, "allowed: csv"),
            ("/arena", 404, "snellen arena --model"),
            ("/ranking?style=2", 400, "allowed: 1"),
            ("/static/../app.py", 404, ""),
        ],
    )
    def test_what_is_refused_is_explained(self, store, runs, path, status, told):
        with served(AppState(store, Policy())) as address, browser(address) as client:
            reply = client.get(path.format(run=runs[0].id))
            assert reply.status_code == status
            assert told in html.unescape(reply.text)
            assert "Traceback" not in reply.text
            inert(reply.text)

    def test_filters_and_files_say_the_same(self, store, runs):
        with served(AppState(store, Policy())) as address, browser(address) as client:
            page = client.get("/?q=model-1").text
            assert "model-1" in page
            assert "/runs/" + runs[0].id not in page
            rows = client.get("/leaderboard.json?q=model-1").json()
            assert [row["id"] for row in rows] == [runs[1].id]
            assert rows[0]["value"] == runs[1].metrics["accuracy"].value
            text = client.get("/leaderboard.csv?q=model-1").text
            assert text.count("\n") == 2
            assert runs[1].id in text
            assert "model-1" in client.get("/leaderboard.md?q=model-1").text

    def test_ranks_are_of_all_that_can_be_compared(self, store, workspace):
        """Whatever is filtered; and in files as on the page."""
        for name, wrong in (("model-a", 0), ("model-b", 3), ("model-c", 9)):

            def told(request, wrong=wrong):
                hit = request.images[0].sha256[0] > f"{wrong:x}"
                return request.sample.label if hit else "star"

            run(model=Scripted(told, name), data="chart:shapes?n=120", protocol="closed-set?rounds=1")
        with served(AppState(store, Policy())) as address, browser(address) as client:
            ranks = {row["model"]: row["rank"] for row in client.get("/leaderboard.json").json()}
            assert ranks["model-a"] == 1
            assert ranks["model-c"] == 3
            (row,) = client.get("/leaderboard.json?q=model-c").json()
            assert row["rank"] == 3

    def test_averages_are_ranked_and_a_file(self, store, runs):
        with served(AppState(store, Policy())) as address, browser(address) as client:
            (table,) = [client.get("/averages.csv").text.splitlines()]
            assert table[0].startswith("model,average,average_rank,missing,")
            assert len(table) == 4
            places = re.findall(r'<tr><td class="n">(\d|–)</td>', client.get("/averages").text)
            assert places[0] == "1"
            assert len(places) == 3

    def test_filters_offer_what_there_is(self, store, runs):
        with served(AppState(store, Policy())) as address, browser(address) as client:
            assert "caltech256" not in client.get("/").text
            assert "caltech256" in client.get("/?published=1").text

    def test_scores_that_are_no_shares_have_their_own_scale(self, store, workspace):
        for name, text in (("good", "a red star"), ("bad", "a thing")):

            def told(request, text=text):
                return request.sample.references[0] if text[2] == "r" else text

            run(
                model=Scripted(told, name),
                data="chart:shapes?n=8&ask=caption",
                protocol="caption?metrics=overlap",
            )
        with served(AppState(store, Policy())) as address, browser(address) as client:
            page = client.get("/").text
            places = [float(a["cx"]) for tag, a in Tags(page).tags if tag == "circle"]
            assert places
            assert all(0 <= place <= 560 for place in places)
            (whisker,) = re.findall(r'aria-label="(1000\.0[^"]*)"', page)
            assert "per cent" not in whisker
            ids = [one["id"] for one in client.get("/leaderboard.json").json()]
            line = client.get(f"/compare?run={ids[0]}&run={ids[1]}").text
            ends = [float(a["cx"]) for tag, a in Tags(line).tags if tag == "circle"]
            assert all(20 <= end <= 540 for end in ends)

    def test_classes_that_were_only_said_have_no_recall(self, store, workspace):
        found = run(
            model=Scripted(lambda r: "cloud", "m"), data="chart:shapes?n=28", protocol="closed-set", limit=3
        )
        said = run(
            model=Scripted(lambda r: "cloud", "m"), data="chart:shapes?n=28", protocol="closed-set", limit=4
        )
        with served(AppState(store, Policy())) as address, browser(address) as client:
            page = client.get(f"/heatmap?run={found.id}").text
            rows = set(re.findall(r'class="side" scope="row">([^<]*)<', page))
            assert rows == set(found.outcomes["label"])
            assert "different samples" not in page
            assert "different samples" in client.get(f"/heatmap?run={found.id}&run={said.id}").text

    def test_a_chart_keeps_what_no_other_beats(self):
        from snellen.reports.charts import ChartPoint
        from snellen.web.leaderboard import MARKS, _best

        points = [ChartPoint(x=1.0 + i, y=float(i % 50), name=f"m{i}") for i in range(60)]
        kept = _best(
            [ChartPoint(x=500.0, y=1.0, name="fast"), *points, ChartPoint(x=0.5, y=99.0, name="best")],
            small=False,
        )
        assert len(kept) == MARKS
        assert {"fast", "best"} <= {one.name for one in kept}

    def test_a_cell_of_a_file_is_no_formula(self, store, workspace):
        run(
            model=Scripted(lambda r: "star", "=cmd|' /C calc'!A0"),
            data="chart:shapes?n=4",
            protocol="closed-set?rounds=1",
        )
        with served(AppState(store, Policy())) as address, browser(address) as client:
            assert ",'=cmd" in client.get("/leaderboard.csv").text

    def test_a_cell_leads_to_its_samples(self, store, runs):
        frame = runs[0].predictions
        wrong = frame[frame["prediction"] != frame["label"]].iloc[0]
        with served(AppState(store, Policy())) as address, browser(address) as client:
            page = client.get(f"/runs/{runs[0].id}").text
            links = [
                html.unescape(a["href"])
                for tag, a in Tags(page).tags
                if tag == "a" and "truth=" in (a.get("href") or "")
            ]
            assert links
            reply = client.get(
                f"/runs/{runs[0].id}", params={"truth": wrong["label"], "predicted": wrong["prediction"]}
            )
            shown = set(re.findall(r">(test-\d+-\d+)</a>", reply.text))
            same = frame[(frame["label"] == wrong["label"]) & (frame["prediction"] == wrong["prediction"])]
            assert shown == set(same["id"])

    def test_samples_show_what_was_asked_and_said(self, store, runs):
        reply = runs[0].replies(runs[0].first(1)[0]["id"])[0]
        with served(AppState(store, Policy())) as address, browser(address) as client:
            page = html.unescape(client.get(f"/runs/{runs[0].id}/samples/0").text)
            assert reply.text in page
            assert "read by rule:" in page
            found = client.get(f"/runs/{runs[0].id}?q=no idea").text
            count = sum("no idea" in answers for answers in runs[0].predictions["answers"])
            assert len(cards(found)) == min(count, 24)
            assert f"{count} of 40 samples match" in found

    def test_next_and_back_stay_within_the_filter(self, store, runs):
        run = runs[0]
        wrong = [row["position"] for row in run.findings() if row["prediction"] != row["label"]]
        assert len(wrong) > 2
        with served(AppState(store, Policy())) as address, browser(address) as client:
            listed = client.get(f"/runs/{run.id}?right=no").text
            assert [int(number) for number in cards(listed)] == wrong[:24]
            page = client.get(f"/runs/{run.id}/samples/{wrong[1]}?right=no").text
            assert f"2 of {len(wrong)} selected" in page
            links = dict(re.findall(r'href="([^"]+)" data-key="([jkb])"', page))
            turned = {key: link for link, key in links.items()}
            assert turned["j"] == f"/runs/{run.id}/samples/{wrong[2]}?right=no"
            assert turned["k"] == f"/runs/{run.id}/samples/{wrong[0]}?right=no"
            assert turned["b"] == f"/runs/{run.id}?right=no#s{wrong[1]}"
            assert f'id="s{wrong[1]}"' in client.get(turned["b"]).text

    def test_a_place_on_a_later_page_is_led_back_to(self, store, runs):
        with served(AppState(store, Policy())) as address, browser(address) as client:
            back = html.unescape(client.get(f"/runs/{runs[0].id}/samples/30").text)
            assert f'href="/runs/{runs[0].id}?page=2#s30"' in back

    def test_samples_can_be_sorted_by_confidence(self, store, workspace):
        done = run(model="pico:llava-skewed", data="chart:shapes?n=12", protocol="closed-set?rounds=4")
        sure = {row["position"]: row["details"]["votes"].count(row["prediction"]) for row in done.findings()}
        with served(AppState(store, Policy())) as address, browser(address) as client:
            least = sorted(sure, key=lambda place: sure[place])
            most = sorted(sure, key=lambda place: -sure[place])
            for sort, wanted in (("confidence", least), ("-confidence", most)):
                listed = [int(n) for n in cards(client.get(f"/runs/{done.id}?sort={sort}").text)]
                assert listed == wanted
            assert "lowest score first" not in client.get(f"/runs/{done.id}").text

    def test_the_selected_samples_are_a_file(self, store, runs):
        with served(AppState(store, Policy())) as address, browser(address) as client:
            reply = client.get(f"/runs/{runs[0].id}/samples.jsonl?right=no")
            rows = [json.loads(line) for line in reply.text.splitlines()]
            frame = runs[0].predictions
            assert [row["id"] for row in rows] == frame[~frame["correct"].astype(bool)]["id"].tolist()
            assert "attachment" in reply.headers["content-disposition"]
            table = client.get(f"/runs/{runs[0].id}/samples.csv").text
            assert len(table.splitlines()) > 40

    def test_three_runs_side_by_side(self, store, runs):
        with served(AppState(store, Policy())) as address, browser(address) as client:
            page = client.get("/compare?" + "&".join(f"run={run.id}" for run in runs)).text
            inert(page)
            assert page.count("corrected over 3 pairs (Holm)") == 3
            assert "The first and the third" in page
            frames = [run.predictions.set_index("id")["correct"] for run in runs]
            apart = sum(len({frame[id] for frame in frames}) > 1 for id in frames[0].index)
            assert f"those with most disagreement first ({apart})" in html.unescape(page)

    def test_captions_are_neither_right_nor_wrong(self, store, workspace, tmp_path):
        pillow.new("RGB", (30, 30), "red").save(tmp_path / "a.png")
        pillow.new("RGB", (30, 30), "blue").save(tmp_path / "b.png")
        lines = [
            {"image": "a.png", "caption": "a plain red square without anything on it"},
            {"image": "b.png", "caption": "one blue picture of the quiet sea at dawn"},
        ]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        told = {"a": "a plain red square on a hill", "one": "nothing of the kind"}
        done = run(
            model=Scripted(lambda r: told[r.sample.references[0].split()[0]], "teller"),
            data=f"jsonl:{tmp_path / 'rows.jsonl'}",
            data_options={"reference": "caption"},
            protocol="caption?metrics=overlap",
        )
        assert done.primary == "cider"
        assert max(row["metrics"]["cider"] for row in done.findings()) > 1
        with served(AppState(store, Policy())) as address, browser(address) as client:
            for path in (f"/runs/{done.id}", f"/runs/{done.id}/samples/0"):
                page = client.get(path).text
                assert 'class="right"' not in page
                assert 'class="wrong"' not in page
                assert 'name="right"' not in page
            listed = [int(n) for n in cards(client.get(f"/runs/{done.id}?sort=score").text)]
            assert listed == [1, 0]
            refused = client.get(f"/runs/{done.id}?right=yes")
            assert refused.status_code == 400
            assert "cider is a matter of degree" in refused.text
        text = report(done)
        assert 'class="right"' not in text
        assert 'class="wrong"' not in text
        assert "the lowest" in text

    def test_originals_are_shown_where_they_still_lie_there(self, store, workspace, photos):
        import shutil

        copy = workspace.parent / "photos"
        shutil.copytree(photos, copy)
        one = run(
            model=Scripted(lambda r: "star", "m"), data=f"folder:{copy}", protocol="closed-set?rounds=1"
        )
        row = next(row for row in one.findings() if row["id"].endswith(".bmp"))
        path = f"/runs/{one.id}/samples/{row['position']}/images/{row['images'][0]}"
        with served(AppState(store, Policy())) as address, browser(address) as client:
            load_all = client.get(path)
            assert pillow.open(io.BytesIO(load_all.content)).size[0] == 120
            assert load_all.headers["content-type"] in ("image/png", "image/jpeg", "image/webp")
        # Another file under the name is not the sample's.
        for file in copy.rglob("*.bmp"):
            pillow.new("RGB", (500, 500)).save(file)
        with served(AppState(store, Policy())) as address, browser(address) as client:
            small = client.get(path)
            assert small.headers["content-type"] == "image/jpeg"
            assert pillow.open(io.BytesIO(small.content)).size != (500, 500)
            assert client.get(path[:-64] + "0" * 64).status_code == 404

    def test_runs_of_every_protocol_and_state(self, store, workspace):
        rows = [
            {"image": f"{k}.png", "question": "Is it red?", "answer": "yes", "caption": "a red square",
             "choices": ["red", "blue"], "right": "A"}
            for k in range(4)
        ]  # fmt: skip
        folder = workspace.parent / "table"
        folder.mkdir()
        for k, row in enumerate(rows):
            pillow.new("RGB", (30, 30), (200 + k, 0, 0)).save(folder / row["image"])
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = []
        for protocol, columns in {
            "caption?metrics=overlap": {"reference": "caption"},
            "vqa": {"question": "question", "reference": "answer"},
            "yes-no": {"question": "question", "answer": "answer"},
            "multiple-choice?circular=true": {
                "question": "question",
                "choices": "choices",
                "answer": "right",
            },
        }.items():
            data = f"jsonl:{folder / 'rows.jsonl'}"
            model = Scripted(lambda r: "a red square, yes, A", protocol)
            found.append(run(model=model, data=data, data_options=columns, protocol=protocol))

        answered: list[Any] = []

        def stops(request):
            if len(answered) > 3:
                raise KeyboardInterrupt
            answered.append(request)
            return request.sample.label

        with pytest.raises(KeyboardInterrupt):
            run(
                model=Scripted(stops, "stopped", batch_size=1),
                data="chart:shapes?n=9",
                protocol="closed-set?rounds=1",
            )
        found.append(open_run())
        assert found[-1].status != "finished"
        stored = len(list(found[-1].findings()))
        assert stored in (3, 4)  # the last one answered may have been on its way
        with served(AppState(store, Policy())) as address, browser(address) as client:
            for one in found:
                judged = "" if one.primary == "cider" else "right=no&"
                for path in (
                    f"/runs/{one.id}",
                    f"/runs/{one.id}?{judged}q=red",
                    f"/runs/{one.id}/samples/0",
                ):
                    reply = client.get(path)
                    assert reply.status_code == 200, (path, reply.text[-500:])
                    inert(reply.text)
            stopped = found[-1].id
            assert len(cards(client.get(f"/runs/{stopped}?right=yes").text)) == stored
            assert cards(client.get(f"/runs/{stopped}?right=no").text) == []
            for path in (
                "/",
                "/?by=data",
                "/averages",
                "/leaderboard.md",
                f"/compare?run={found[0].id}&run={stopped}",
            ):
                assert client.get(path).status_code in (200, 400)

    def test_an_empty_workspace(self, store):
        with served(AppState(store, Policy())) as address, browser(address) as client:
            assert "snellen demo" in client.get("/").text
            assert "No votes yet" in client.get("/ranking").text


class TestUnderWay:
    def test_a_run_tells_how_far_it_is_while_it_goes_on(self, store, workspace):
        with served(AppState(store, Policy())) as address, browser(address) as client:
            with half_way(store, 12) as finish:
                (row,) = store.list_runs()
                board = client.get("/").text
                assert "Under way" in board
                assert f'data-progress="/runs/{row["id"]}/progress"' in board
                assert "data-progress" in client.get(f"/runs/{row['id']}").text
                state = client.get(f"/runs/{row['id']}/progress").json()
                assert (state["status"], state["total"]) == ("running", 12)
                assert 0 <= state["done"] < 12
                assert state["outcomes"] in ({}, {"ok": state["done"]})
                assert f"{state['done']} of 12 samples" in state["text"]
                finish()
            state = client.get(f"/runs/{row['id']}/progress").json()
            assert (state["status"], state["done"], state["outcomes"]) == ("finished", 12, {"ok": 12})
            assert state["speed"] > 0
            assert state["left"] == 0
            assert "data-progress" not in client.get(f"/runs/{row['id']}").text


class TestManyReaders:
    def test_one_computes_what_many_ask_for(self):
        kept: Kept[str, int] = Kept(2)
        begun, go_on, computed = Event(), Event(), []

        def compute():
            computed.append(1)
            begun.set()
            assert go_on.wait(30)
            return 7

        with ThreadPoolExecutor(8) as readers:
            waiting = [readers.submit(kept.get, "a", compute) for _ in range(8)]
            assert begun.wait(30)
            go_on.set()
            assert [one.result(30) for one in waiting] == [7] * 8
        assert computed == [1]
        assert kept.get("b", lambda: 1) + kept.get("c", lambda: 2) == 3
        assert kept.get("a", lambda: 8) == 8  # only two are kept

    def test_a_failure_is_not_kept(self):
        kept: Kept[str, int] = Kept(2)
        with pytest.raises(ZeroDivisionError):
            kept.get("a", lambda: 1 // 0)
        assert kept.get("a", lambda: 1) == 1

    def test_readers_get_the_last_ranking_while_one_computes_the_next(self, store, monkeypatch):
        vote_store = VoteStore(store)
        cast(vote_store, "left")
        site = AppState(store, Policy())
        first = site.results(style=False, leaked=False)
        assert first.results.ranking.votes == 1
        begun, go_on, computed = Event(), Event(), []
        counted = ArenaResults.of

        def slowly(*arguments, **more):
            computed.append(1)
            begun.set()
            assert go_on.wait(30)
            return counted(*arguments, **more)

        monkeypatch.setattr(ArenaResults, "of", slowly)
        cast(vote_store, "right")
        with ThreadPoolExecutor(1) as computing:
            newer = computing.submit(site.results, style=False, leaked=False)
            assert begun.wait(30)
            for _ in range(12):
                stale = site.results(style=False, leaked=False)
                assert (stale.stale, stale.results.ranking.votes) == (True, 1)
            go_on.set()
            assert newer.result(30).results.ranking.votes == 2
        assert computed == [1]
        assert not site.results(style=False, leaked=False).stale

    def test_a_run_is_read_once_until_it_changes(self, store, runs, monkeypatch):
        site = AppState(store, Policy())
        read = []
        of = Digest.of
        monkeypatch.setattr(Digest, "of", lambda run: read.append(run.id) or of(run))
        for _ in range(3):
            site.digest(open_run(runs[0].id))
        assert read == [runs[0].id]
        store.write(runs[0].id, RunRows([], []))  # as if it went on
        site.digest(open_run(runs[0].id))
        assert len(read) == 2


@pytest.mark.parametrize("sought", ["IDEA", "Größe", "GRÖSSE nicht", "nowhere"])
def test_the_database_searches_whatever_the_case(anywhere, sought):
    texts = ["no idea", "keine GRÖẞE", "die größe", "ring"]

    told = iter(texts * 4)
    done = run(
        model=Scripted(lambda _: next(told), "teller"), data="chart:shapes?n=16", protocol="open-world"
    )
    wanted = {
        row["id"]
        for row, replies in done.answered()
        if any(sought.lower() in reply.text.lower() for reply in replies)
    }
    assert done.store.records(done.id).search(sought) == wanted
    assert bool(wanted) is (sought in ("IDEA", "Größe"))


class TestSafety:
    @pytest.mark.slow
    def test_text_of_others_is_inert(self, store, workspace):
        folder = workspace.parent / "odd"
        for i in range(3):
            for j, payload in enumerate(PAYLOADS[:4]):
                name = re.sub(r"[/\x00]", "", payload)
                path = folder / f"class {i} {name}" / f"{j}{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pillow.new("RGB", (20, 20), (i * 80, j * 60, 9)).save(path)

        def script(request):
            number = int(request.images[0].sha256[:4], 16)
            names = text_of(request).partition("{")[2].partition("}")[0].split(", ")
            return (
                names[0] + PAYLOADS[number % len(PAYLOADS)]
                if number % 3
                else PAYLOADS[number % len(PAYLOADS)]
            )

        kwargs: dict[str, Any] = {"data": f"folder:{folder}", "data_options": {"raw_names": True}}
        kwargs["protocol"] = "closed-set?rounds=1&prompt=<script>alert(2)</script> {names}"
        found = [run(model=Scripted(script, PAYLOADS[k]), **kwargs) for k in range(2)]
        (workspace / "models.toml").write_text(f'["{PAYLOADS[0]}"]\nlicense = "<script>alert(3)</script>"\n')
        arena = Recorded(VoteStore(store), found, repeat=0, rng=Random(0))
        with served(AppState(store, Policy(), arena)) as address, browser(address) as client:
            pages = ["/", "/?by=data", "/averages", f"/compare?run={found[0].id}&run={found[1].id}"]
            pages += [f"/heatmap?run={one.id}" for one in found]
            for one in found:
                pages += [f"/runs/{one.id}"]
                pages += [f"/runs/{one.id}/samples/{k}" for k in range(12)]
            for payload in PAYLOADS:
                pages.append(f"/?{httpx.QueryParams({'q': payload})}")
                pages.append(f"/runs/{found[0].id}?{httpx.QueryParams({'q': payload, 'truth': payload})}")
                pages.append(f"/?{httpx.QueryParams({'sort': payload})}")
            for page in pages:
                reply = client.get(page)
                assert reply.status_code in (200, 400), page
                inert(reply.text)
            for _ in range(8):
                battle = client.post("/arena")
                inert(battle.text)
                assert client.post(f"{battle.url.path}/votes", data={"choice": "left"}).status_code == 200
                inert(client.post(f"{battle.url.path}/reveal").text)
            inert(client.get("/ranking").text)

    @pytest.mark.parametrize("payload", PAYLOADS)
    def test_markdown_of_models(self, payload):
        made = markdown(f"# {payload}\n- {payload}\n`{payload}`\n\n{payload}")
        inert(made)
        assert not {tag for tag, _ in Tags(made).tags} & {"script", "img", "svg", "a", "textarea"}
        assert not any(attributes for _, attributes in Tags(made).tags)

    def test_markdown_reads_well(self):
        made = markdown("**bold** and `code`\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n1. one")
        for tag in ("<strong>bold</strong>", "<code>code</code>", "<td>1</td>", "<li>one</li>"):
            assert tag in made

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"host": "evil.example"}, 421),
            ({"host": "127.0.0.1.evil.example"}, 421),
            ({"host": "localhost"}, 200),
            ({"host": "LOCALHOST:99"}, 200),
            ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
            ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
            ({"sec-fetch-site": "same-origin"}, 200),
        ],
    )
    def test_who_may_look(self, store, headers, status):
        with served(AppState(store, Policy())) as address:
            assert httpx.get(f"{address}/health", headers=headers).status_code == status

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"origin": "http://evil.example"}, 403),
            ({"origin": "null"}, 403),
            ({"sec-fetch-site": "cross-site"}, 403),
            ({"sec-fetch-site": "same-site"}, 403),
            ({"origin": "{address}", "sec-fetch-site": "cross-site"}, 403),
            ({"origin": "{address}"}, 303),
            ({}, 303),
        ],
    )
    def test_who_may_change_anything(self, store, runs, headers, status):
        arena = Recorded(VoteStore(store), runs)
        with served(AppState(store, Policy(), arena)) as address:
            told = {name: value.format(address=address) for name, value in headers.items()}
            assert httpx.post(f"{address}/arena", headers=told).status_code == status

    def test_a_token_is_asked_for(self, store, runs):
        token = "a secret of sixteen or more"
        with served(AppState(store, Policy(token=token))) as address, browser(address) as client:
            assert httpx.get(f"{address}/leaderboard.json").status_code == 401
            assert httpx.get(f"{address}/", headers={"authorization": "Bearer wrong"}).status_code == 401
            assert httpx.get(f"{address}/", headers={"authorization": f"Bearer {token}"}).status_code == 200
            page = client.get("/averages?q=x")
            assert page.url.path == "/login"
            assert client.post("/login", data={"token": "wrong"}).status_code == 401
            inside = client.post("/login", data={"token": token, "next": "/averages?q=x"})
            assert (inside.url.path, inside.status_code) == ("/averages", 200)
            cookie = inside.history[0].headers["set-cookie"]
            for part in ("HttpOnly", "SameSite=lax"):
                assert part in cookie
            assert token not in cookie
            assert client.get("/leaderboard.json").status_code == 200

    @pytest.mark.parametrize(
        "next", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "\\\\x"]
    )
    def test_logging_in_leads_nowhere_else(self, store, next):
        token = "a secret of sixteen or more"
        with served(AppState(store, Policy(token=token))) as address:
            reply = httpx.post(f"{address}/login", data={"token": token, "next": next})
            assert reply.headers["location"] == "/"

    def test_an_address_that_others_reach_takes_a_token(self):
        for host in ("0.0.0.0", "192.168.0.5", "::", "example.com"):
            with pytest.raises(BadOption, match="SNELLEN_TOKEN"):
                Policy(host)
            Policy(host, "x" * 16)
        with pytest.raises(BadOption, match="16 characters"):
            Policy("0.0.0.0", "short")
        assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "10.0.0.1")] == [
            True,
            True,
            True,
            False,
        ]

    def test_an_address_may_be_asked_for_as_such_where_all_are_bound(self, store):
        token = {"authorization": f"Bearer {'x' * 16}"}
        with served(AppState(store, Policy("0.0.0.0", "x" * 16))) as address:
            for host, status in (("192.0.2.7:8421", 200), (socket.gethostname(), 200), ("evil.example", 421)):
                assert httpx.get(f"{address}/health", headers={"host": host, **token}).status_code == status
            refused = httpx.get(f"{address}/", headers={"host": "arena.example.com"})
            assert "--allow-host arena.example.com" in refused.text

    def test_other_apps_cookies_do_not_matter(self, store):
        token = "a secret of sixteen or more"
        policy = Policy(token=token)
        with served(AppState(store, policy)) as address:
            for other in ('theme={"dark":true}', "a b", "x[0]=1", "=", ";;"):
                login = f"snellen_session_{httpx.URL(address).port}={policy.sessions.begin(Role.HOST)}"
                headers = {"cookie": f"{other}; {login}"}
                assert httpx.get(f"{address}/leaderboard.json", headers=headers).status_code == 200

    def test_tokens_are_not_tried_at_leisure(self, store):
        with served(AppState(store, Policy(token="a secret of sixteen or more"))) as address:
            seen = [
                httpx.post(
                    f"{address}/login", data={"token": "x"}, headers={"cookie": f"snellen_voter={k}"}
                ).status_code
                for k in range(14)
            ]
            assert seen[-1] == 429

    @pytest.mark.parametrize("place", ["address", "header", "invitation"])
    def test_nor_are_they_in_addresses_and_headers(self, store, place):
        """After ten wrong ones even the right one is refused for a while, but nobody is logged out."""
        token = "a secret of sixteen or more"
        clock = [0.0]
        site = AppState(store, Policy(token=token))
        site.rates.clock = lambda: clock[0]

        def attempt(address: str, given: str) -> int:
            headers = {"authorization": f"Bearer {given}"} if place == "header" else {}
            names = {"address": "token", "invitation": "invite"}
            query = {names[place]: given} if place in names else {}
            return httpx.get(f"{address}/leaderboard.json", params=query, headers=headers).status_code

        with served(site) as address, browser(address) as inside:
            inside.post("/login", data={"token": token})
            seen = [attempt(address, "x") for _ in range(12)]
            assert (seen[8], seen[-1]) == (401, 429)
            assert attempt(address, token) == 429
            assert httpx.get(f"{address}/health").status_code == 200
            assert inside.get("/leaderboard.json").status_code == 200
            assert inside.get("/leaderboard.json?token=x").status_code != 429
            clock[0] += 60
            assert attempt(address, token) not in (401, 429)

    @pytest.mark.parametrize(
        ("path", "headers"),
        [
            ("/login?next=//[", {}),
            ("/login?next=http://[", {}),
            ("/?page=" + "9" * 5000, {}),
            ("/runs/x/samples/" + "9" * 30, {}),
            ("/compare?run=a&run=b&page=" + "9" * 5000, {}),
            ("/", {"origin": "http://["}),
            ("/", {"cookie": "\x7f=;;"}),
        ],
    )
    def test_odd_requests_break_nothing(self, store, path, headers):
        with served(AppState(store, Policy())) as address:
            assert httpx.get(address + path, headers=headers).status_code in (200, 400, 404)
            assert httpx.post(address + "/arena", headers=headers | {"origin": "http://["}).status_code == 403

    def test_what_breaks_says_no_more_than_that(self, store, monkeypatch):
        site = AppState(store, Policy())
        monkeypatch.setattr(site.board, "entries", lambda: 1 / 0)
        with served(site) as address, browser(address) as client:
            reply = client.get("/")
            assert reply.status_code == 500
            assert "server's log" in html.unescape(reply.text)
            assert "ZeroDivision" not in reply.text
            for name, value in HEADERS.items():
                assert reply.headers[name] == value

    def test_a_proxys_name_is_added(self, store):
        policy = Policy(hosts=("arena.example.com",))
        with served(AppState(store, policy)) as address:
            headers = {"host": "arena.example.com"}
            assert httpx.get(f"{address}/health", headers=headers).status_code == 200

    def test_bodies_have_an_end(self, store, runs):
        policy = Policy(max_body=100_000)
        with served(AppState(store, policy, Recorded(VoteStore(store), runs))) as address:
            load_all = httpx.post(f"{address}/arena", content=b"x" * 200_000)
            assert load_all.status_code == 413

            def drops():
                for _ in range(50):
                    yield b"x" * 10_000

            headers = {"content-type": "application/x-www-form-urlencoded"}
            assert httpx.post(f"{address}/arena", content=drops(), headers=headers).status_code == 413

    def test_rates(self):
        now = [0.0]
        rates = Rates({"ask": (2, 60)}, clock=lambda: now[0])
        assert [rates.wait("ask", "me") for _ in range(2)] == [0, 0]
        assert rates.wait("ask", "me") == pytest.approx(1.0)
        assert rates.wait("ask", "you") == 0
        now[0] = 1.0
        assert rates.wait("ask", "me") == 0
        assert rates.wait("ask", "me") > 0

    def test_too_often(self, store, runs):
        site = AppState(store, Policy(), Recorded(VoteStore(store), runs), Rates({"vote": (2, 1)}))
        with served(site) as address, browser(address) as client:
            seen = [client.post("/arena") for _ in range(5)]
            assert [reply.status_code for reply in seen][-1] == 429
            assert int(seen[-1].headers["retry-after"]) >= 1
            assert "Retry in" in seen[-1].text

    def test_a_port_that_is_taken(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            with pytest.raises(BadOption, match="--port 0"):
                bound("127.0.0.1", other.getsockname()[1])
        with pytest.raises(BadOption, match="65535"):
            bound("127.0.0.1", 70000)
        # Also while the one that has it is not serving yet.
        with bound("127.0.0.1", 0) as mine, pytest.raises(BadOption, match="cannot be bound"):
            bound("127.0.0.1", mine.getsockname()[1])


class TestUploads:
    def test_waiting_uploads_hold_no_thread(self, live, monkeypatch):
        """24 large uploads took 3.6 GB, and held pages up for 10 s."""
        inside, most, go_on = [], [], Event()

        def slowly(data, name):
            inside.append(1)
            most.append(len(inside))
            assert go_on.wait(60)
            inside.pop()
            return cleaned(data, name)

        monkeypatch.setattr("snellen.web.images.cleaned", slowly)
        live.rates, live.newcomers = Rates({}), 60

        def upload(number):
            with browser(address) as client:
                file = ("x.png", png((number, 0, 0)), "image/png")
                return client.post("/arena", data={"question": "?"}, files={"file": file}).status_code

        with served(live) as address, ThreadPoolExecutor(60) as people:
            sent = [people.submit(upload, number) for number in range(60)]
            while len(inside) < 2:
                time.sleep(0.01)
            with browser(address) as reader:  # more uploads wait than the server has threads
                assert reader.get("/arena").status_code == 200
            go_on.set()
            assert {one.result() for one in sent} == {200}
        assert max(most) == 2

    def test_what_cameras_write_is_dropped(self):
        exif = pillow.Exif()
        exif[0x010E] = "my home address"
        exif[0x0112] = 6
        buffer = io.BytesIO()
        pillow.new("RGB", (40, 20), "red").save(
            buffer, "JPEG", exif=exif, comment=b"a comment", icc_profile=b"profile" * 30
        )
        assert b"my home address" in buffer.getvalue()
        bare = cleaned(buffer.getvalue(), "x")
        for word in (b"home", b"comment", b"profile", b"Exif"):
            assert word not in bare
        assert pillow.open(io.BytesIO(bare)).size == (20, 40)  # upright
        text = PngImagePlugin.PngInfo()
        text.add_text("Author", "my name")
        bare = cleaned(png(pnginfo=text), "x")
        assert b"my name" not in bare
        assert pillow.open(io.BytesIO(bare)).getpixel((0, 0)) == (255, 0, 0)

    def test_bytes_behind_the_picture_do_not_stay(self):
        assert b"<script>" not in cleaned(png() + b"<script>alert(1)</script>", "x")

    @pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM"])
    def test_formats_that_are_not_taken(self, kind):
        buffer = io.BytesIO()
        pillow.new("RGB", (5, 5)).save(buffer, kind)
        with pytest.raises(ImageError, match="PNG, JPEG, WebP"):
            cleaned(buffer.getvalue(), "x")

    @pytest.mark.parametrize(
        "data", [b"", b"GIF89a", b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\n" + b"x" * 99]
    )
    def test_no_images(self, data):
        with pytest.raises(ImageError):
            cleaned(data, "x")

    def test_bombs_are_refused_before_they_are_decoded(self, tmp_path):
        import struct
        import zlib

        def chunk(kind, body):
            return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

        header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
        bomb = (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(b"\0" * 100))
            + chunk(b"IEND", b"")
        )
        with pytest.raises(ImageError, match="the limit is"):
            cleaned(bomb, "x")
        with pytest.raises(ImageError, match="the limit is"):
            Uploads(tmp_path).keep(b"\0" * (MAX_UPLOAD + 1))

    def test_kept_under_the_hash(self, tmp_path):
        uploads = Uploads(tmp_path)
        one = uploads.keep(png())
        assert is_hash(one)
        assert uploads.keep(png()) == one
        assert uploads.keep(png("blue")) != one
        assert not is_hash("../" + one[3:])
        assert not is_hash(one + "\n")


@pytest.fixture
def live(store):
    def script(request):
        return f"**{len(request.messages)}** {request.images[0].size}"

    models = [Scripted(script, "secret-one"), Scripted(script, "secret-two")]
    arena = Live(VoteStore(store), models, image_path=Uploads(store.folder).path, rng=Random(0))
    return AppState(store, Policy(), arena)


def waited(client: httpx.Client, address: str) -> httpx.Response:
    for _ in range(100):
        if client.get(f"{address}/state").json()["answered"]:
            return client.get(address)
        time.sleep(0.05)
    raise AssertionError("no answer came")


class TestArena:
    def test_what_was_sent_is_not_sent_twice(self, live):
        """A question that is missing costs no upload."""
        with served(live) as address, browser(address) as client:
            files = {"file": ("x.png", png(), "image/png")}
            reply = client.post("/arena", data={"question": " "}, files=files)
            assert reply.status_code == 400
            (known,) = [a["value"] for tag, a in Tags(reply.text).tags if a.get("name") == "image"]
            again = client.post("/arena", data={"question": "What?", "image": known})
            assert again.url.path.startswith("/arena/battles/")

    def test_a_battle_that_repeats_another_is_only_judged(self, live):
        old = live.vote_store.keep(
            Battle(
                id="",
                voter="me",
                source="live",
                item="i",
                left="secret-one",
                right="secret-two",
                propensity=1.0,
                turns=(Turn(0, "?"),),
            )
        )
        with pytest.raises(BadOption, match="takes no new questions"):
            live.arena.ask(replace(old, repeats="b"), "And now?")

    def test_upload_ask_vote_undo_reveal(self, live):
        with served(live) as address, browser(address) as client:
            reply = client.post(
                "/arena",
                data={"question": "What <b>is</b> it?"},
                files={"file": ("x.png", png(), "image/png")},
            )
            path = reply.url.path
            assert path.startswith("/arena/battles/")
            page = waited(client, path).text
            assert "<strong>1</strong> (32, 24)" in page
            assert "secret" not in page
            inert(page)
            assert client.get(f"{path}/images/1").headers["content-type"] == "image/png"
            assert client.post(f"{path}/reveal").status_code == 409
            more = client.post(f"{path}/turns", data={"question": "And now?"})
            assert more.status_code == 200
            assert "<strong>3</strong>" in waited(client, path).text
            voted = client.post(f"{path}/votes", data={"choice": "left", "reason": ["right:missed"]})
            assert "No votes that count yet" in client.get("/ranking").text  # which would give the names away
            assert "Your vote: <strong>A is better</strong> (B missed)" in voted.text
            assert "secret" not in voted.text
            assert client.post(f"{path}/votes", data={"choice": "right"}).status_code == 409
            assert "Which answer is better?" in client.post(f"{path}/undo").text
            assert client.post(f"{path}/undo").status_code == 409
            assert client.post(f"{path}/votes", data={"choice": "tie"}).status_code == 200
            revealed = client.post(f"{path}/reveal").text
            assert "secret-one" in revealed
            assert "secret-two" in revealed
            assert client.post(f"{path}/undo").status_code == 409
            ranking = client.get("/ranking").text
            assert "1 votes by 1 voter" in ranking
            with browser(address) as stranger:
                assert stranger.get(path).status_code == 404
                assert stranger.get(f"{path}/images/1").status_code == 404
                assert stranger.post(f"{path}/votes", data={"choice": "left"}).status_code == 404

    def test_the_voters_cookie(self, live):
        with served(live) as address, browser(address) as client:
            assert "set-cookie" not in client.get("/arena").headers
            reply = client.post(
                "/arena", data={"question": "?"}, files={"file": ("x.png", png(), "image/png")}
            )
            cookie = reply.history[0].headers["set-cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=lax" in cookie
            secret = client.cookies["snellen_voter"]
            (battle,) = live.vote_store.store.do(
                lambda c: c.exec_driver_sql("SELECT voter FROM battles").all()
            )
            assert battle[0] == live.vote_store.voters.voter(secret)
            assert secret not in battle[0]

    @pytest.mark.parametrize(
        ("form", "file", "told"),
        [
            ({"question": ""}, ("x.png", png(), "image/png"), "question is empty"),
            ({"question": "x" * 5000}, ("x.png", png(), "image/png"), "at most 4,000"),
            ({"question": "?"}, None, "There is no image"),
            ({"question": "?", "image": "0" * 64}, None, "There is no image"),
            ({"question": "?", "image": "../../etc/passwd"}, None, "There is no image"),
            ({"question": "?", "image": "http://example.com/x.png"}, None, "There is no image"),
            ({"question": "?"}, ("x.svg", b"<svg/>", "image/svg+xml"), "not a readable image"),
            ({"question": "?"}, ("x.png", b"", "image/png"), "empty"),
        ],
    )
    def test_what_is_refused(self, live, form, file, told):
        with served(live) as address, browser(address) as client:
            reply = client.post("/arena", data=form, files={"file": file} if file else None)
            assert reply.status_code == 400
            assert told in html.unescape(reply.text)
            assert f">{form['question']}</textarea>" in reply.text  # what was typed stays

    def test_a_random_image(self, store):
        from snellen.runs.matching import load_all

        models = [Scripted(lambda r: "a", n) for n in ("one", "two")]
        uploads = Uploads(store.folder)
        arena = Live(
            VoteStore(store),
            models,
            image_path=uploads.path,
            data=load_all("chart:shapes?n=5", {}),
            rng=Random(0),
        )
        with served(AppState(store, Policy(), arena)) as address, browser(address) as client:
            page = client.post("/arena/random")
            image = page.url.params["image"]
            assert "What type of object is in this photo?" in page.text
            picture = client.get(f"/arena/images/{image}")
            assert picture.headers["content-type"] == "image/png"
            assert picture.headers["x-content-type-options"] == "nosniff"
            begun = client.post(
                "/arena", data={"question": "?", "image": image, "sample": page.url.params["sample"]}
            )
            assert begun.url.path.startswith("/arena/battles/")

    def test_nothing_is_left(self, store, workspace):
        kwargs: dict[str, Any] = {"data": "chart:shapes?n=3", "protocol": "closed-set?rounds=1"}
        found = [run(model=Scripted(lambda r: "star", f"m{k}"), **kwargs) for k in range(2)]
        arena = Recorded(VoteStore(store), found, repeat=0)
        with served(AppState(store, Policy(), arena)) as address, browser(address) as client:
            for _ in range(3):
                battle = client.post("/arena")
                assert "Which answer is better?" in battle.text
                client.post(f"{battle.url.path}/votes", data={"choice": "tie"})
            assert "Nothing left to vote on" in client.post("/arena").text
            with browser(address) as another:
                assert "Which answer is better?" in another.post("/arena").text

    @pytest.mark.slow
    def test_fifty_voters_at_once_lose_and_double_nothing(self, postgres, monkeypatch, tmp_path):
        monkeypatch.setenv("SNELLEN_FILES", str(tmp_path / "files"))
        store = Store(postgres.database())
        models = [Scripted(lambda r, k=k: r.sample.label if k else "star", f"m{k}") for k in range(3)]  # type: ignore[misc]
        found = [
            run(model=m, data="chart:shapes?n=30", protocol="closed-set?rounds=1", workspace=store)
            for m in models
        ]
        site = AppState(
            store,
            Policy(),
            Recorded(VoteStore(store), found, repeat=0),
            Rates({"ask": (999, 999), "vote": (999, 999)}),
            newcomers=50,
        )

        def vote(address):
            ended = []
            with browser(address) as client:
                for choice in ("left", "both_bad"):
                    path = client.post("/arena").url.path
                    with ThreadPoolExecutor(2) as twice:  # an impatient finger
                        sent = [
                            twice.submit(client.post, f"{path}/votes", data={"choice": choice})
                            for _ in range(2)
                        ]
                        ended.append(sorted(one.result().status_code for one in sent))
                    client.post(f"{path}/reveal")
            return ended

        with served(site) as address, ThreadPoolExecutor(50) as pool:
            done = [one for voter in pool.map(vote, [address] * 50) for one in voter]
        assert done == [[200, 409]] * 100
        verdicts = site.vote_store.verdicts()
        assert sum(v.times for v in verdicts) == 100
        assert len({v.voter for v in verdicts}) == 50
        assert site.vote_store.counts() == {
            "votes": 100, "repeats": 0, "leaks": 0, "both_bad": 50, "open": 0, "excluded": 0, "addresses": 1,
        }  # fmt: skip

    @pytest.mark.slow
    def test_a_server_that_is_killed_in_mid_battle(self, store, runs, workspace):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "snellen.cli",
            "arena",
            "--port",
            str(port),
            "--no-token",
            "--runs",
            runs[0].id,
            runs[1].id,
        ]
        address = f"http://127.0.0.1:{port}"

        def start():
            process = subprocess.Popen(command, env={**os.environ, "SNELLEN_WORKSPACE": str(workspace)})
            for _ in range(200):
                try:
                    httpx.get(f"{address}/health")
                    return process
                except httpx.TransportError:
                    assert process.poll() is None
                    time.sleep(0.1)
            raise AssertionError("it no longer responds")

        process = start()
        try:
            with browser(address) as client:
                voted = client.post("/arena").url.path
                client.post(f"{voted}/votes", data={"choice": "left"})
                begun = client.post("/arena").url.path
                process.send_signal(signal.SIGKILL)
                process.wait()
                process = start()
                assert "Which answer is better?" in client.get(begun).text
                assert client.post(f"{begun}/votes", data={"choice": "right"}).status_code == 200
                assert client.post(f"{voted}/votes", data={"choice": "right"}).status_code == 409
                assert "Your vote" in client.get(voted).text
        finally:
            process.kill()
            process.wait()


class TestCommands:
    @pytest.fixture
    def snellen(self, workspace, monkeypatch, capsys):
        from snellen import cli

        def call(*arguments):
            monkeypatch.setattr("sys.argv", ["snellen", *map(str, arguments)])
            with pytest.raises(SystemExit) as stop:
                cli.main()
            return int(stop.value.code or 0), *capsys.readouterr()

        return call

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["view"], "not a workspace"),
            (["arena"], "--model A --model B"),
            (["arena", "--model", "pico:llava"], "at least two models"),
            (["arena", "--model", "pico:llava", "--model", "pico:clip"], "--runs"),
            (["arena", "--model", "pico:llava", "--runs", "x"], "needs either models"),
            (["arena", "--runs", "x"], "not a workspace"),
            (
                ["arena", "--model", "pico:llava", "--model", "pico:llava-skewed", "--disagreements-first"],
                "--runs",
            ),
            (["votes", "ranking"], "not a workspace"),
            (["votes", "import", "nothing.jsonl"], "cannot be read"),
        ],
    )
    def test_what_is_refused(self, snellen, arguments, told):
        code, _, err = snellen(*arguments)
        assert code == 2
        assert told in err
        assert "Traceback" not in err

    def test_an_address_that_others_reach(self, snellen, store):
        code, _, err = snellen("view", "--host", "0.0.0.0", "--port", 0)
        assert (code, "SNELLEN_TOKEN" in err) == (2, True)

    def test_votes_out_and_in(self, snellen, store, runs, tmp_path):
        vote_store = VoteStore(store)
        arena = Recorded(vote_store, runs, repeat=0, rng=Random(0))
        for k in range(30):
            one = arena.deal(f"v{k % 12}")
            vote_store.vote(one.id, one.voter, ["left", "right", "tie"][k % 3])
            vote_store.reveal(one.id, one.voter)
        code, out, _ = snellen("votes", "ranking")
        assert code == 0
        assert "30 votes by 12 voters" in out
        document = json.loads(snellen("votes", "ranking", "--json")[1])
        assert document["ranking"]["votes"] == 30
        assert "Kendall" in out
        file = tmp_path / "votes.jsonl"
        assert snellen("votes", "export", "-o", file)[0] == 0
        assert len(file.read_text().splitlines()) == 30
        code, out, err = snellen("votes", "export", "--format", "dpo", "--images", tmp_path / "images")
        assert (out.count("\n"), "10 others skipped" in err) == (20, True)
        assert all(Path(json.loads(line)["images"][0]).is_file() for line in out.splitlines())
        assert "0 new votes" in snellen("votes", "import", file)[2]  # one's own
        code, _, err = snellen("votes", "import", file, "--workspace", tmp_path / "other")
        assert (code, "30 new votes" in err) == (0, True)
        assert snellen("votes", "ranking", "--style", "--workspace", tmp_path / "other")[0] == 0

    def test_a_voter_is_left_out_and_the_change_is_shown(self, snellen, store):
        vote_store = VoteStore(store)
        for number in range(9):
            cast(vote_store, "left", f"fan-{number % 2}")
        cast(vote_store, "right", "other")
        code, out, _ = snellen("votes", "voters")
        assert (code, "fan-0" in out, "snellen votes exclude" in out) == (0, True, True)
        document = json.loads(snellen("votes", "voters", "--json")[1])
        assert [one["votes"] for one in document["voters"]] == [5, 4, 1]
        code, out, _ = snellen("votes", "exclude", "fan-0", "--reason", "a bot")
        assert (code, "5 votes count now, 10 before." in out) == (0, True)
        assert re.search(r"1\. A \d+ \(-\d+\)", out)
        assert "5 more votes are left out" in " ".join(snellen("votes", "ranking")[1].split())
        assert "already excluded" in snellen("votes", "exclude", "fan-0")[2]
        snellen("votes", "exclude", "fan-1")
        assert "was 2." in snellen("votes", "include", "fan-1")[1]
        assert "10 votes count now" in snellen("votes", "include", "fan-0")[1]
        assert "List them with" in snellen("votes", "include", "nobody")[2]

    def test_no_votes(self, snellen, store):
        assert "No votes yet" in snellen("votes", "ranking")[1]


def test_the_database_may_be_named_apart(postgres, monkeypatch, tmp_path):
    from snellen.storage.store import default_workspace

    monkeypatch.setenv("SNELLEN_WORKSPACE", str(tmp_path))
    assert default_workspace() == str(tmp_path)
    address = postgres.database()
    monkeypatch.setenv("SNELLEN_DB", address)
    monkeypatch.setenv("SNELLEN_FILES", str(tmp_path / "files"))
    assert default_workspace() == address
    assert VoteStore(Store()).verdicts() == []
