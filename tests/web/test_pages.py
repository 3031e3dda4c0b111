"""The pages of runs: what they show, and what they say to what cannot be."""

from __future__ import annotations

import html
import io
import json
import re
from typing import Any

import pytest
from PIL import Image as pillow

from helpers import Scripted
from served import browser, served
from snellen.api import run
from snellen.reports.report import report
from snellen.runs.run import open_run
from snellen.web.security import HEADERS, Policy
from snellen.web.state import AppState
from websites import Tags, inert


def cards(page: str) -> list[str]:
    """The positions of the samples that a page lists."""
    return re.findall(r'<div class="card" id="s(\d+)">', page)


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

    def test_columns_are_chosen_in_the_address(self, store, runs):
        def headings(page: str) -> list[str]:
            return re.findall(r'<th scope="col"[^>]*><a href="[^"]*sort=(\w+)', page)

        with served(AppState(store, Policy())) as address, browser(address) as client:
            assert {"speed", "memory", "date"} <= set(headings(client.get("/").text))
            chosen = client.get("/?column=date&column=speed&sort=model").text
            assert set(headings(chosen)) == {"model", "speed", "date"}  # and the score, sorted by default
            assert 'value="date" checked' in chosen
            assert "column=date&amp;column=speed" in chosen  # sorting and pages keep them
            table = client.get("/leaderboard.md?column=date").text
            assert "date |" in table
            assert "items/s" not in table
            refused = client.get("/?column=colour")
            assert refused.status_code == 400
            assert "allowed: speed, memory" in html.unescape(refused.text)

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
