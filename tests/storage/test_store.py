"""The workspace: ids, prefixes, frames, refusals."""

from __future__ import annotations

import gc
import math
import shlex
import sqlite3
import stat
import threading
from typing import Any

import pytest

from helpers import sample
from snellen.errors import BadOption, SnellenError, StoreError, UnknownName
from snellen.storage.rows import CacheEntry, SampleResult
from snellen.storage.store import Store, default_workspace
from snellen.types import Outcome, Prediction, Response, Score


def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("SNELLEN_WORKSPACE", raising=False)
    assert str(default_workspace()) == "snellen-workspace"
    monkeypatch.setenv("SNELLEN_WORKSPACE", str(tmp_path))
    assert default_workspace() == str(tmp_path)


def test_responses_come_back_as_they_were(anywhere):
    store = Store()
    whole = Response(
        "café 🦊\n end",
        scores=(Score(-1.5, 3), Score(-math.inf), Score(0.1)),
        outcome=Outcome.TRUNCATED,
        reason="why",
        latency=0.25,
        prompt_tokens=12,
        completion_tokens=3,
        prompt="USER: what?",
        thinking="a fox?",
        meta={"model": "served", "usage": {"reasoning": 3}},
    )
    store.put([CacheEntry("k", "m", {"a": 1}, whole)])
    assert store.get(["k", "none"]) == {"k": whole}
    store.put([CacheEntry("k", "m", {"a": 1}, Response("other"))])
    assert store.get(["k"])["k"] == whole


def test_many_keys(anywhere):
    store = Store()
    rows = [CacheEntry(f"k{i}", "m", {}, Response(str(i))) for i in range(1300)]
    store.put(rows)
    assert len(store.get([row.key for row in rows])) == 1300


def test_ids(anywhere):
    store = Store()
    one = store.begin("llava-rank-x", "a" * 64, {"n": 1})
    assert one == "llava-rank-x-aaaaaa"
    assert store.begin("llava-rank-x", "a" * 64, {"n": 1}) == one
    twin = store.begin("llava-rank-x", "a" * 6 + "b" * 58, {"n": 1})
    assert twin == "llava-rank-x-aaaaaabbbbbb"
    other = store.begin("clip-rank-x", "c" * 64, {"n": 1})
    assert store.find("clip") == other
    assert store.find("@last") == other
    assert store.find(one) == one  # although another id begins with it
    store.record(one, [])
    assert store.find("@last") == one
    assert store.find("llava@last") == one
    with pytest.raises(UnknownName, match="matches 2 runs"):
        store.find("llava")
    with pytest.raises(UnknownName, match="Did you mean 'clip-rank-x-cccccc'"):
        store.find("clap-rank-x-cccccc")
    with pytest.raises(UnknownName):
        store.find("")


def test_a_finding_replaces_an_error(anywhere):
    store = Store()
    run = store.begin("r", "d" * 64, {})
    one = sample(("a", "b"), "a")
    store.record(run, [SampleResult(0, one, Prediction("s1", outcome=Outcome.ERROR, reason="x"), [])])
    assert store.examined(run, ["s1"]) == set()
    store.record(run, [SampleResult(0, one, Prediction("s1", "a", details={"x": [1]}), ["k"])])
    assert store.examined(run, ["s1", "s2"]) == {"s1"}
    (row,) = store.frame(run).to_dict("records")
    assert (row["prediction"], row["outcome"], row["x"]) == ("a", "ok", [1])


def test_no_workspace(workspace):
    with pytest.raises(UnknownName, match="not a workspace"):
        Store(create=False)


def test_an_empty_workspace(anywhere):
    with pytest.raises(UnknownName, match="There are no runs yet"):
        Store().find("@last")


def test_only_its_owner_may_look_into_a_workspace(workspace):
    Store()
    assert stat.S_IMODE(workspace.stat().st_mode) == 0o700


def test_what_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="a workspace cannot be created"):
        Store(tmp_path / "file" / "ws")
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "snellen.db").write_text("this is no database, " * 99)
    with pytest.raises(StoreError, match="not a database"):
        Store(tmp_path / "ws")
    newer = Store(tmp_path / "newer")
    newer.close()
    with sqlite3.connect(tmp_path / "newer" / "snellen.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="layout 99"):
        Store(tmp_path / "newer")


def test_several_writers(anywhere):
    stores = [Store() for _ in range(4)]

    def write(store, start):
        for i in range(40):
            store.put([CacheEntry(f"{(start + i) % 60}", "m", {}, Response("x"))])

    threads = [threading.Thread(target=write, args=(s, 15 * i)) for i, s in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores[0].get([str(i) for i in range(60)])) == 60


def test_processes_that_begin_a_workspace_at_once(anywhere):
    import subprocess
    import sys

    code = "from snellen.storage.store import Store\nprint(Store().begin('r', 'a' * 64, {}))"
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(4)]
    results = [process.communicate(timeout=60) for process in running]
    assert [out.decode().strip() for out, _ in results] == ["r-aaaaaa"] * 4, results


def test_a_foreign_database_is_left_as_it_is(tmp_path):
    with sqlite3.connect(tmp_path / "snellen.db") as connection:
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(StoreError, match="layout 7"):
        Store(tmp_path)
    with sqlite3.connect(tmp_path / "snellen.db") as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_a_detail_never_takes_the_place_of_a_column(anywhere):
    store = Store()
    run = store.begin("r", "e" * 64, {})
    odd = Prediction("s1", "b", details={"label": "b", "id": "x", "votes": [1]})
    store.record(run, [SampleResult(0, sample(("a", "b"), "a"), odd, [])])
    (row,) = store.frame(run).to_dict("records")
    assert (row["id"], row["label"], row["prediction"]) == ("s1", "a", "b")
    assert (row["details_label"], row["votes"]) == ("b", [1])


def test_what_a_sample_holds_is_kept_with_the_run(anywhere):
    store = Store()
    run = store.begin("r", "f" * 64, {})
    rich = sample(("a", "b"), "a", question="Which?", choices=("a", "b"), meta={"when": object, "n": 3})
    store.record(run, [SampleResult(0, rich, Prediction("s1", "a"), [])])
    (row,) = store.sample_rows(run)
    content = row["content"]
    assert (content["question"], content["choices"], content["meta"]["n"]) == ("Which?", ["a", "b"], 3)


def test_a_workspace_that_may_only_be_read(workspace, monkeypatch):
    first = Store()
    first.begin("r", "a" * 64, {})
    first.close()
    monkeypatch.setattr("os.access", lambda *_: False)
    store = Store(create=False)
    assert store.find("@last") == "r-aaaaaa"
    with pytest.raises(StoreError, match="readonly"):
        store.begin("s", "b" * 64, {})


def test_what_another_process_remembered_first_is_what_counts(anywhere):
    mine, theirs = Store(), Store()
    assert theirs.put([CacheEntry("k", "m", {}, Response("theirs"))]) == {}
    rows = [CacheEntry("k", "m", {}, Response("mine")), CacheEntry("l", "m", {}, Response("new"))]
    assert mine.put(rows) == {"k": Response("theirs")}
    assert mine.get(["k", "l"]) == {"k": Response("theirs"), "l": Response("new")}


def test_runs_that_came_to_something_stay(anywhere):
    store = Store()
    one, other = store.begin("one", "1" * 64, {"cache_salt": "x"}), store.begin("other", "2" * 64, {})
    store.record(
        one, [SampleResult(0, sample(("a", "b"), "a"), Prediction("s1", "a"), [])], n_new=1, seconds=2.0
    )
    store.finish(one, {"n": 1, "accuracy": math.nan}, {"new": True})
    store.forget(one)
    store.forget(other)
    (row,) = store.list_runs()
    assert (row["id"], row["status"], row["n_new"], row["seconds"]) == (one, "finished", 1, 2.0)
    assert (row["metrics"], row["manifest"]) == ({"n": 1, "accuracy": None}, {"new": True})
    assert [finding["prediction"] for finding in store.findings(one)] == ["a"]


def test_a_foreign_database_of_a_server_is_refused(postgres, tmp_path, monkeypatch):
    monkeypatch.setenv("SNELLEN_FILES", str(tmp_path))
    address = postgres.database()
    store = Store(address)
    with store.database.engine.begin() as connection:
        store.database.set_version(connection, 99)
    with pytest.raises(StoreError, match="layout 99"):
        Store(address)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("postgresql://me:hunter2@127.0.0.1:1/none", "reported an error.*(refused|failed)"),
        ("postgresql://me:hunter2@host:port/none", "not a URL"),
    ],
)
def test_a_server_that_is_not_there(address, message, tmp_path, monkeypatch):
    monkeypatch.setenv("SNELLEN_FILES", str(tmp_path))
    monkeypatch.setattr("snellen.storage.backends.PATIENCE", 1)
    with pytest.raises(SnellenError, match=message) as found:
        Store(address)
    assert "hunter2" not in str(found.value)


def test_a_preview_that_cannot_be_written(workspace, monkeypatch):
    store = Store()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\)"):
        store.keep_preview("ab" * 32, b"x")


def test_files_are_their_owners_alone(workspace):
    store = Store()
    store.begin("r", "a" * 64, {})
    store.keep_preview("ab" * 32, b"x")
    for path in workspace.rglob("*"):
        if path.is_dir():
            continue
        private = stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
        assert private or stat.S_IMODE(workspace.stat().st_mode) == 0o700
    assert stat.S_IMODE((workspace / "snellen.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["q?b", "w%25", "a#b", "mit Leer zeichen", "ü"])
def test_a_workspace_may_be_called_anything(tmp_path, name):
    """And what is written lies in it."""
    store = Store(tmp_path / name)
    store.begin("run", "digest", {"model": "m"})
    store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    assert (tmp_path / name / "snellen.db").stat().st_size > 0
    again = Store(tmp_path / name, create=False)
    assert [row["digest"] for row in again.list_runs()] == ["digest"]
    assert shlex.split(again.option) == ["--workspace", str(tmp_path / name)]
    again.close()


def test_home_and_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store("~/ws").folder == tmp_path / "ws"
    with pytest.raises(BadOption, match="--workspace ''"):
        Store("")
    monkeypatch.setenv("SNELLEN_WORKSPACE", str(tmp_path / "ws"))
    assert Store().option == ""


def test_a_workspace_that_nobody_holds_is_closed(tmp_path):
    """Python 3.13 warns about a database connection that is collected while open."""
    store = Store(tmp_path / "ws")
    pool: Any = store.database.engine.pool
    assert pool.checkedin() == 1
    del store
    gc.collect()
    assert pool.checkedin() == 0
