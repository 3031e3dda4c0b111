"""Runs under way, many readers, and uploads that wait."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from PIL import Image as pillow
from PIL import PngImagePlugin

from helpers import Scripted
from served import browser, half_way, served
from snellen.api import run
from snellen.arena.results import ArenaResults
from snellen.errors import ImageError
from snellen.images import is_hash
from snellen.images.uploads import cleaned
from snellen.runs.run import open_run
from snellen.storage.rows import RunRows
from snellen.storage.votes import VoteStore
from snellen.web.digest import Digest, Kept
from snellen.web.images import MAX_UPLOAD, Uploads
from snellen.web.security import Policy, Rates
from snellen.web.state import AppState
from websites import cast, png


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
