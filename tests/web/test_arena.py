"""The arena in the browser, and what is started from the command line."""

from __future__ import annotations

import html
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
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from helpers import Scripted
from served import browser, served
from snellen.api import run
from snellen.arena.live import Live
from snellen.arena.recorded import Recorded
from snellen.errors import BadOption
from snellen.storage.store import Store
from snellen.storage.vote_rows import Battle, Turn
from snellen.storage.votes import VoteStore
from snellen.web.images import Uploads
from snellen.web.security import Policy, Rates
from snellen.web.state import AppState
from websites import Tags, cast, inert, png


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
            assert "1 vote by 1 voter" in ranking
            with browser(address) as stranger:
                assert stranger.get(path).status_code == 404
                assert stranger.get(f"{path}/images/1").status_code == 404
                assert stranger.post(f"{path}/votes", data={"choice": "left"}).status_code == 404

    def test_new_answers_are_another_battle(self, live):
        with served(live) as address, browser(address) as client:
            files = {"file": ("x.png", png(), "image/png")}
            path = client.post("/arena", data={"question": "What?"}, files=files).url.path
            assert "New answers" in waited(client, path).text
            again = client.post(f"{path}/regenerate").url.path
            assert again != path
            waited(client, again)
            assert client.post(f"{again}/votes", data={"choice": "left"}).status_code == 200
            assert client.post(f"{again}/regenerate").status_code == 409
            with browser(address) as stranger:
                assert stranger.post(f"{path}/regenerate").status_code == 404

    def test_streams_are_the_voters_own(self, live):
        live.arena.stream = True
        with served(live) as address, browser(address) as client:
            files = {"file": ("x.png", png(), "image/png")}
            path = client.post("/arena", data={"question": "What?"}, files=files).url.path
            for side in ("left", "right"):
                said = client.get(f"{path}/answers/0/{side}")
                assert said.headers["content-type"].startswith("text/plain")
                assert "**1** (32, 24)" in said.text
            assert client.get(f"{path}/answers/0/middle").status_code == 404
            assert client.get(f"{path}/answers/7/left").status_code == 404
            with browser(address) as stranger:
                assert stranger.get(f"{path}/answers/0/left").status_code == 404

    def test_questions_of_a_kind(self, live):
        cast(live.vote_store, "left")
        with served(live) as address, browser(address) as client:
            assert "Ranking by votes: other" in client.get("/ranking?category=other").text
            assert client.get("/ranking.json?category=other").json()["ranking"]["votes"] == 1
            refused = client.get("/ranking?category=nonsense", headers={"accept": "text/plain"})
            assert refused.status_code == 400
            assert "Allowed: description" in refused.text

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
        assert "5 more votes left out" in " ".join(snellen("votes", "ranking")[1].split())
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
