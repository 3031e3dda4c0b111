"""Many copies of a model by Ray: the same answers, and nothing lost when copies, or who sent them, die."""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.dataset as arrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from helpers import TESTS, assert_alike, until
from snellen.api import run
from snellen.cli import app
from snellen.datasets.base import DATASETS
from snellen.engine.ray.cluster import Engine
from snellen.engine.ray.executor import RayExecutor
from snellen.engine.ray.intervals import IntervalUnion
from snellen.engine.ray.task import ModelSpec, TaskSpec
from snellen.engine.ray.worker import Worker
from snellen.engine.ray.writer import WriterActor
from snellen.errors import BadOption, DataError, ModelError, Stopped, StoreError, Unsupported, UsageError
from snellen.models.base import MODELS
from snellen.protocols.base import PROTOCOLS
from snellen.runs.filters import DataSource, Filters
from snellen.runs.plan import Plan
from snellen.runs.rescore import rescore
from snellen.runs.run import Run, open_run
from snellen.storage.parquet_run import ParquetRun, parquet_url, shard_size
from snellen.storage.store import Store
from snellen.types import Outcome

ray = pytest.importorskip("ray")
runner = CliRunner()
# Ray Data copies its own settings, old names and all.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]
HERE = TESTS
#: No sink: the way of ``test_a_killed_replica_loses_nothing`` and others, too.
IN_WORKSPACE = pytest.param([], marks=pytest.mark.exhaustive)
TWO = Engine(replicas=2)
#: Figures that hold how long something took, or how much memory.
OF_THE_MACHINE = {"latency_median", "latency_p95", "items_per_second", "peak_rss_bytes"}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    """A folder with a package that brings a model of its own, for whoever has it on its path."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copy(HERE / "deadly.py", folder)
    about = folder / "deadly-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[snellen.models]\ndeadly = deadly:deadly\n")
    return folder


@pytest.fixture(scope="module", autouse=True)
def cluster(plugin):
    """A cluster on this machine, for all tests of this page."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    patch.setenv("PYTHONPATH", str(plugin))
    patch.syspath_prepend(str(plugin))
    with MODELS.temporarily():
        if "deadly" not in MODELS.entries:
            importlib.reload(importlib.import_module("deadly"))  # it registers itself
        ray.init(
            num_cpus=4,  # replicas of several tests side by side
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=200 * 2**20,
        )
        yield
        ray.shutdown()
    patch.undo()


def rows_of(found: Run) -> list[dict[str, Any]]:
    """Everything that was predicted and answered, without how long it took."""
    return [{k: v for k, v in row.items() if k != "latencies"} for row in found.store.rows(found.id)]


def figures_of(found: Run) -> dict[str, Any]:
    return {key: value for key, value in found.metrics.as_dict().items() if key not in OF_THE_MACHINE}


def pids(workspace: Path) -> set[int]:
    """Of the replicas, which have a log each."""
    return {int(path.stem.rpartition("-")[2]) for path in workspace.glob("logs/*/*.log")}


def together(
    name: str, folder: Path, data: list[str], protocols: list[str], sink: str | None = None, **known: Any
) -> list[Run]:
    """Runs by two replicas, which are those of one process."""
    how: dict[str, Any] = {
        "known_options": {"metrics": "overlap", "rounds": 2, **known},
        "batch_size": 8,
    }  # several shards
    here = Plan(models=[name], data=data, protocols=protocols, **how, workspace=folder / "here").run()
    there = Plan(
        models=[name],
        data=data,
        protocols=protocols,
        **how,
        workspace=folder / "there",
        engine=TWO,
        sink=sink,
    ).run()
    assert [one.id for one in here] == [one.id for one in there]
    for one, other in zip(here, there, strict=True):
        assert_alike(rows_of(one), rows_of(other))
        assert_alike(figures_of(one), figures_of(other))
        assert other.manifest.model.metadata["replicas"] in (1, 2)
        assert sum(replica["samples"] for replica in other.manifest.replicas) == other.metrics.n
    return there


def test_as_in_one_process(tmp_path):
    """Sample by sample: predictions, texts, figures."""
    together("pico:llava", tmp_path, ["chart:shapes?n=12"], ["closed-set"])


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["llava", "clip"])
def test_every_model_and_protocol_as_in_one_process(name, minilm, tmp_path):
    """Sample by sample: predictions, texts, figures. It is the same run, so one knows the other's."""
    data = ["chart:shapes?n=12"]
    if name.startswith("llava"):
        data += [f"chart:shapes?n=6&ask={ask}" for ask in ("caption", "multiple-choice", "color")]
        data += [asked_about(tmp_path, ["Is it a star?", "Is it red?"], answer="yes")]
        more = {"choices": ["star", "moon"], "right": "A", "why": "it has points"}
        columns = "question=question&choices=choices&answer=right&rationale=why"
        data += [asked_about(tmp_path / "choices", ["What?", "Which?"], columns, **more)]
    asked = [*PROTOCOLS.entries, "open-world?shots=2&temperature=1&repeats=2"]
    found = together(f"pico:{name}", tmp_path, data, asked, embedding=minilm)
    evaluated = {one.manifest.protocol.name for one in found}
    assert evaluated == (set(PROTOCOLS.entries) if name.startswith("llava") else {"rank"})
    again = Plan(
        models=[f"pico:{name}"], data=data[:1], protocols=["rank"], workspace=tmp_path / "there"
    ).run()
    assert again[0].manifest.finished in {one.manifest.finished for one in found}  # as it was


@pytest.mark.exhaustive
def test_in_parquet_as_in_one_process(tmp_path):
    sink = f"parquet:{tmp_path}/shards"
    together("pico:llava", tmp_path, ["chart:shapes?n=12"], ["closed-set", "rank", "caption"], sink=sink)


@pytest.fixture
def questions(tmp_path) -> str:
    """Sixty-four questions about one picture."""
    return asked_about(tmp_path, [f"What {i}?" for i in range(64)])


def asked_about(
    folder: Path, texts: list[str], columns: str = "question=question&reference=answer", **about: Any
) -> str:
    """Questions about one picture, each with the same answer."""
    folder.mkdir(exist_ok=True)
    picture = DATASETS.make("chart:shapes?n=1")
    (folder / "one.png").write_bytes(picture.sample(0, picture.labels, None).images[0].data)
    about = {"image": "one.png", "answer": "star", **about}
    rows = [{"id": f"q{i}", "question": text, **about} for i, text in enumerate(texts)]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"jsonl:{folder}/questions.jsonl?{columns}"


def slowly(model: str, questions: str, folder: Path, watch: Any) -> Run:
    """A run of two replicas that somebody meddles with."""
    how: dict[str, Any] = {"data": questions, "protocol": "vqa", "batch_size": 4, "engine": TWO}
    return run(model=model, workspace=folder / "ws", watch=watch, **how)


def test_a_killed_replica_loses_nothing(questions, tmp_path):
    """A worker killed in the middle: others go on, and at most what it had under way is asked again."""
    victims: list[int] = []

    def kill(examination, progress):
        if not victims:
            victims.append(min(pids(tmp_path / "ws")))
            os.kill(victims[0], signal.SIGKILL)

    log = tmp_path / "asked"
    found = slowly(f"deadly:star?log={log}&pause=0.1", questions, tmp_path, kill)
    assert len(pids(tmp_path / "ws")) == 3  # another came in its place
    assert found.metrics.outcomes["ok"] == found.metrics.n == 64
    asked = Counter(log.read_text().splitlines())
    assert set(asked) == {f"What {i}?" for i in range(64)}
    assert max(asked.values()) <= 2
    assert sum(asked.values()) <= 64 + 4  # the batch that was under way


@pytest.mark.exhaustive
def test_a_killed_writer_is_started_again(questions, tmp_path):
    """What it had not stored is told it again; nothing is lost or doubled."""
    from ray._private import state

    killed: list[int] = []

    def kill(examination, progress):
        if not killed:
            alive = [one for one in state.actors().values() if one["State"] == "ALIVE"]
            killed.extend(one["Pid"] for one in alive if one["ActorClassName"] == "WriterActor")
            os.kill(killed[0], signal.SIGKILL)

    found = slowly("deadly:star?pause=0.1", questions, tmp_path, kill)
    assert len(killed) == 1
    assert found.metrics.outcomes["ok"] == found.metrics.n == 64
    assert [row["id"] for row in found.findings()] == [f"q{i}" for i in range(64)]


@pytest.mark.parametrize("sink", [IN_WORKSPACE, ["--sink", "parquet:shards"]], ids=["workspace", "parquet"])
def test_a_killed_command_goes_on(sink, questions, tmp_path):
    """Killed and started again, it asks for nothing that was stored."""
    words = f"run --model deadly:star?log={tmp_path}/asked&pause=0.12 --data {questions} --protocol vqa "
    words += "--engine ray --replicas 2 --quiet --batch-size 4 --workspace ws"
    command = [sys.executable, "-m", "snellen", *words.split(), *sink]
    address = ray.get_runtime_context().gcs_address
    where = {"cwd": tmp_path, "env": {**os.environ, "RAY_ADDRESS": address}}

    def stored() -> set[str]:
        """Ids of samples that are examined."""
        if sink:
            files = list(tmp_path.glob("shards/*/*.parquet"))
            tables = [arrow.dataset(file).to_table(columns=["id"]) for file in files]
            return {id for table in tables for id in table.column("id").to_pylist()}
        if not (tmp_path / "ws/snellen.db").exists():
            return set()
        with sqlite3.connect(tmp_path / "ws/snellen.db", timeout=30) as database:
            try:
                return {id for (id,) in database.execute("SELECT sample FROM predictions").fetchall()}
            except sqlite3.OperationalError:  # no tables yet
                return set()

    with subprocess.Popen(command, **where) as started:
        try:
            until(lambda: len(stored()) >= 16, 40)
        finally:
            started.kill()
    gone = pids(tmp_path / "ws")
    assert gone
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in gone))  # the cluster ends them
    before = stored()
    assert 16 <= len(before) < 64
    (tmp_path / "asked").write_text("")
    done = subprocess.run(command, **where, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert not {text for text in asked if f"q{text[5:-1]}" in before}
    found = open_run(workspace=tmp_path / "ws")
    assert found.metrics.outcomes["ok"] == found.metrics.n == 64
    assert [row["id"] for row in found.findings()] == [f"q{i}" for i in range(64)]


@pytest.mark.parametrize(
    "sink",
    [None, pytest.param("parquet:{}/shards", marks=pytest.mark.exhaustive)],
    ids=["workspace", "parquet"],
)
def test_a_poisoned_sample_ends_as_an_error_alone(sink, tmp_path):
    """What kills whoever is asked it is tried a bounded number of times; all others are answered."""
    questions = asked_about(tmp_path, ["bang" if i == 5 else f"What {i}?" for i in range(10)])
    log = tmp_path / "asked"
    found = run(
        model=f"deadly:star?log={log}",
        data=questions,
        protocol="vqa",
        workspace=tmp_path / "ws",
        batch_size=8,
        engine=Engine(replicas=1),
        sink=sink and sink.format(tmp_path),
    )
    assert found.metrics.outcomes == {"ok": 9, "unparsed": 0, "refused": 0, "truncated": 0, "error": 1}
    assert found.metrics["exact_match"].value == 0.9  # of all ten
    (bad,) = [row for row in found.findings() if row["outcome"] == Outcome.ERROR]
    assert bad["id"] == "q5"
    assert "2 replicas died" in bad["reason"]
    asked = log.read_text().split("\n")[:-1]
    assert asked.count("bang") == 3  # with others, and twice alone
    assert all(asked.count(f"What {i}?") <= 2 for i in range(10))
    assert found.metrics.n == 10


@pytest.mark.exhaustive
def test_a_model_that_kills_who_loads_it_is_given_up(questions, tmp_path):
    with pytest.raises(ModelError, match="3 replicas died while loading"):
        run(
            model="deadly:star?loads=false",
            data=questions,
            protocol="vqa",
            workspace=tmp_path / "ws",
            engine=Engine(replicas=1),
        )


def test_what_a_replica_raises_is_told(questions, tmp_path):
    """Data that a node does not see, and images that cannot be read, as one process tells of them."""
    folder = tmp_path
    lines = (folder / "questions.jsonl").read_text().splitlines()
    broken = [json.dumps({**json.loads(line), "image": "two.png"}) for line in lines[:2]]
    (folder / "two.png").write_bytes((folder / "one.png").read_bytes()[:60])
    (folder / "bad.jsonl").write_text("\n".join([*broken, *lines[2:5]]))
    how: dict[str, Any] = {
        "model": "deadly:star",
        "data": f"jsonl:{folder}/bad.jsonl?question=question&reference=answer",
        "protocol": "vqa",
    }
    with pytest.raises(DataError, match="line 1: a broken image .*--skip-invalid"):
        run(**how, workspace=tmp_path / "ws", engine=Engine(replicas=1))
    found = run(**how, workspace=tmp_path / "ws", engine=Engine(replicas=1), skip_invalid=True)
    assert found.metrics.n == 3
    assert found.metrics.skipped == 2
    assert [bad.where for bad in found.manifest.data.skipped] == ["q0", "q1"]


def test_a_run_in_parquet_is_read_like_any_other(questions, tmp_path, monkeypatch):
    """Shown, compared, rescored, gone on with; and read by other tools as it is."""
    how = {"model": "deadly:star", "data": questions, "protocol": "vqa"}
    one = run(**how, workspace=tmp_path / "one")
    sink = f"parquet:{tmp_path}/shards"
    found = run(**how, workspace=tmp_path / "ws", engine=TWO, sink=sink)
    rows = list(one.findings())
    assert [row["id"] for row in found.findings()] == [row["id"] for row in rows]
    assert found.sample(rows[20]["id"])["content"] == one.sample(rows[20]["id"])["content"]
    assert [reply.text for reply in found.replies(rows[20]["id"])] == [
        reply.text for reply in one.replies(rows[20]["id"])
    ]
    assert found.finding(17)["id"] == rows[17]["id"]
    assert list(found.samples())[3]["id"] == rows[3]["id"]
    with pytest.raises(UsageError, match="no sample 'x'"):
        found.sample("x")
    table = arrow.dataset(tmp_path / "shards" / found.id, format="parquet").to_table(columns=["outcome"])
    assert table.column("outcome").to_pylist() == ["ok"] * 64
    shown = runner.invoke(app, ["show", "@last", "--workspace", str(tmp_path / "ws")])
    assert shown.exit_code == 0, shown.output

    store = Store(tmp_path / "ws")
    again = Run(store, rescore(store, found.id))
    assert again.metrics["exact_match"] == found.metrics["exact_match"]
    assert rows_of(again) == rows_of(found)
    store.do(lambda connection: connection.exec_driver_sql("UPDATE runs SET status = 'running'"))
    names = ParquetRun.names
    monkeypatch.setattr(ParquetRun, "names", lambda self: names(self)[1:])  # one is on a disk elsewhere
    with pytest.raises(StoreError, match="1 of 4 shards .* all nodes share"):
        run(**how, workspace=store, engine=Engine(replicas=1), sink=sink)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="started with --sink"):
        run(**how, workspace=store)
    whole = runner.invoke(app, f"resume {found.id} --workspace {tmp_path}/ws".split())
    assert f"snellen resume {found.id} --engine ray" in str(whole.exception)
    store.finish(found.id, found.metrics.as_dict(), store.run(found.id)["manifest"])
    whole = runner.invoke(app, f"resume {found.id} --workspace {tmp_path}/ws --json".split())
    assert (
        json.loads(whole.stdout)["runs"][0]["metrics"] == found.metrics.as_dict()
    )  # nothing is left to be asked
    folder = tmp_path / "shards" / found.id
    first = min(folder.glob("*.parquet"))
    shutil.copy(first, folder / "copy.parquet")  # none of ours
    assert len(list(open_run(found.id, tmp_path / "ws").findings())) == 64
    first.unlink()
    with pytest.raises(StoreError, match="1 of 4 shards .* not here, so the run cannot be read"):
        list(open_run(found.id, tmp_path / "ws").findings())


@pytest.mark.exhaustive
def test_what_came_to_nothing_may_go_elsewhere(questions, tmp_path):
    """One run by two titles, begun where nothing can be written, then where it can."""
    (tmp_path / "afile").write_text("")
    plans = [
        Plan(
            models=["deadly:star"],
            data=[questions],
            protocols=["vqa", "vqa?metric=exact"],
            workspace=tmp_path / "ws",
            engine=Engine(replicas=1),
            sink=f"parquet:{tmp_path}/{name}",
        )
        for name in ("afile", "good")
    ]
    with pytest.raises(StoreError, match="cannot be"):
        plans[0].run()
    one, other = plans[1].run()
    assert one.id == other.id
    assert one.metrics.n == 64
    assert len(list((tmp_path / "good" / one.id).glob("*.parquet"))) == 4


def test_a_head_that_is_gone_is_told(tmp_path, monkeypatch):
    """Ray itself would end the process a minute later, without a word."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"127.0.0.1:{free.getsockname()[1]}"
    executor = RayExecutor(TWO, MODELS.make("pico:clip"), "pico:clip", {}, Store(tmp_path))
    executor.hear_head()  # it is there
    assert executor.heard
    monkeypatch.setattr(type(ray.get_runtime_context()), "gcs_address", gone)
    monkeypatch.setattr("snellen.engine.ray.executor.SILENCE", 0.0)
    with pytest.raises(Stopped, match=f"the head of the cluster, {gone}, no longer responds"):
        executor.hear_head()
    executor.close()  # asks nobody


def test_a_shard_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    shards = ParquetRun(str(tmp_path), "run")
    row = {
        "id": "a",
        "position": 0,
        "label": "x",
        "images": [],
        "content": {},
        "prediction": "x",
        "outcome": "ok",
        "reason": "",
        "questions": 1,
        "ranking": [],
        "details": {"k": [1.5, None]},
        "responses": [],
        "metrics": {"exact_match": 1.0},
        "replies": [],
    }
    shards.write(shards.name(0, 8), [row])
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(StoreError, match="cannot be written .*no space left"):
        shards.write(shards.name(0, 8), [{**row, "label": "y"}])
    assert [found["label"] for found in shards.rows()] == ["x"]
    assert list(shards.rows()) == [row]
    monkeypatch.undo()
    shards.keep_metrics({"a": {"cider": 2.0}, "b": {"cider": 1.0}}, {"a": {"extracted": "x"}})
    kept = next(shards.rows())
    assert (kept["metrics"], kept["details"]) == ({"cider": 2.0}, {"extracted": "x"})


def test_shards_in_a_store_of_objects():
    """Whatever fsspec reads; here, one in memory."""
    shards = ParquetRun("memory://bucket/runs", "run")
    assert shards.names() == []
    row = {
        "id": "a",
        "position": 3,
        "label": None,
        "images": ["f" * 64],
        "content": {"question": "?"},
        "prediction": "",
        "outcome": "error",
        "reason": "r",
        "questions": 0,
        "ranking": ["b", "a"],
        "details": {},
        "responses": [],
        "metrics": {},
        "replies": [],
    }
    shards.write(shards.name(0, 8), [row])
    assert list(shards.rows()) == [row]
    assert parquet_url("parquet:memory://bucket/runs") == "memory://bucket/runs"


@pytest.mark.parametrize(("n", "batch"), [(1, 16), (33, 16), (5_000, 7), (50_000, 16), (10_000_000, 3)])
def test_shards_are_whole_batches_and_not_too_many(n, batch):
    size = shard_size(n, batch, 3)
    assert size % batch == 0
    assert size >= batch
    assert -(-n // size) <= 10_000


def test_refusals(tmp_path):
    how = {"data": "chart:shapes?n=28", "workspace": tmp_path}
    with pytest.raises(Unsupported, match="--max-concurrency"):
        run(model="openai:gpt-4o", **how, engine=TWO)
    with pytest.raises(Unsupported, match="needs a model name"):
        run(model=MODELS.make("pico:clip"), **how, engine=TWO)
    with pytest.raises(BadOption, match="needs --engine"):
        run(model="pico:clip", **how, sink="parquet:here")
    with pytest.raises(BadOption, match="parquet:URL"):
        run(model="pico:clip", **how, engine=TWO, sink="csv:here")
    with pytest.raises(BadOption, match="cannot be used"):
        run(model="pico:clip", **how, engine=TWO, sink="parquet:nowhere://x")
    with pytest.raises(BadOption, match="ray://HOST"):
        Engine.read("spark")
    with pytest.raises(BadOption, match="--replicas 0"):
        Engine(replicas=0)
    with pytest.raises(BadOption, match="0.5"):
        Engine(gpus=-1)
    words = "run --model pico:llava --data chart:shapes --replicas 2".split()
    assert "need --engine" in str(runner.invoke(app, words).exception)
    nine = Engine(replicas=9)
    executor = RayExecutor(nine, MODELS.make("pico:clip"), "pico:clip", {}, Store(tmp_path))
    assert executor.replicas_that_fit({"num_cpus": 1, "num_gpus": 0}) == 9  # there may come more
    nine.alone = True
    with pytest.raises(BadOption, match="9 replicas requested, but 4 cores"):
        executor.replicas_that_fit({"num_cpus": 1, "num_gpus": 0})
    with pytest.raises(BadOption, match="0 GPUs have room for 0 of 0.5 GPUs"):
        executor.replicas_that_fit({"num_cpus": 1, "num_gpus": 0.5})
    with pytest.raises(BadOption, match="must not contain keys"):
        parquet_url("parquet:memory://me:hunter2secret@bucket/x")


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=12))
def test_what_several_did_at_once_took_its_time_once(stretches):
    spans = IntervalUnion()
    found = [spans.add(began, began + length) for began, length in stretches]
    seconds = {second for began, length in stretches for second in range(began, began + length)}
    assert sum(found) == len(seconds)
    assert min(found, default=0) >= 0


@pytest.fixture
def told(questions, tmp_path):
    """What a replica reports that is made here, on another node as it were."""
    store = Store(tmp_path / "ws")
    writer = ray.remote(WriterActor).remote(store.where, str(store.folder))
    source = DataSource(questions, {}, Filters(), 0)

    def report(recipe: ModelSpec, **more: Any) -> dict[str, Any]:
        task = TaskSpec(
            run="run", data=source, protocol=PROTOCOLS.make("vqa"), **{"n": 64, "ids": {3: "q3"}, **more}
        )
        found = Worker(writer, recipe, [task], str(tmp_path))
        batch = {"task": [0], "start": [0], "stop": [0]}
        return json.loads(found(batch)["report"][0])

    level = logging.getLogger("snellen").level
    where = Path.cwd()
    yield report
    os.chdir(where)
    logging.captureWarnings(False)
    for name in ("snellen", "py.warnings"):
        logging.getLogger(name).handlers = []
    logging.getLogger("snellen").setLevel(level)
    ray.kill(writer)


def test_another_model_or_other_data_are_refused(told):
    """Every node must see what the one sees where the run was started."""
    recipe = ModelSpec("deadly:star", {}, 8, {"deadly": "star"})
    assert told(recipe)["failure"] is None
    kind, message = told(recipe._replace(identity={"deadly": "moon"}))["failure"]
    assert kind == "ModelError"
    assert "deadly: star instead of moon" in message
    for more in ({"n": 65}, {"ids": {3: "q4"}}):
        kind, message = told(recipe, **more)["failure"]
        assert kind == "DataError"
        assert "Every node must see the same data" in message


def test_an_error_of_nobody_s_names_the_log(told):
    kind, message = told(ModelSpec("deadly:star", {"log": 3}, 8, {}))["failure"]
    assert kind == "BadOption"
    no_size = ModelSpec("deadly:star", {}, None, {"deadly": "star"})  # type: ignore[arg-type]
    kind, message = told(no_size)["failure"]
    assert "logs/*/" in message


def test_several_runs_one_of_which_fails(questions, tmp_path):
    """Those before it are whole, as they would be in one process; the same run twice is one."""
    broken = asked_about(tmp_path / "b", ["What?"] * 3)
    whole = (tmp_path / "b/one.png").read_bytes()
    (tmp_path / "b/one.png").write_bytes(whole[: len(whole) // 2])
    plan = Plan(
        models=["deadly:star"],
        data=[questions, broken],
        protocols=["vqa", "vqa?metric=exact"],
        workspace=tmp_path / "ws",
        engine=TWO,
        batch_size=4,
    )
    with pytest.raises(DataError, match="a broken image"):
        plan.run()
    assert [(one.status, one.metrics.n) for one in plan.runs] == [
        ("finished", 64),
        ("finished", 64),
        ("interrupted", 0),
    ]
    assert plan.runs[0].id == plan.runs[1].id


@pytest.mark.exhaustive
def test_bad_images_are_no_suspects(tmp_path):
    """What is left out stays left out where a sample beside it kills."""
    questions = asked_about(tmp_path, ["bang" if i == 5 else f"What {i}?" for i in range(10)])
    file = tmp_path / "questions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[2]["image"] = rows[7]["image"] = "two.png"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "two.png").write_bytes((tmp_path / "one.png").read_bytes()[:60])
    how: dict[str, Any] = {"data": questions, "protocol": "vqa", "skip_invalid": True, "batch_size": 8}
    found = run(model="deadly:star", **how, workspace=tmp_path / "ws", engine=Engine(replicas=1))
    assert found.metrics.outcomes == {"ok": 7, "unparsed": 0, "refused": 0, "truncated": 0, "error": 1}
    assert {bad.where for bad in found.manifest.data.skipped} == {"q2", "q7"}


@pytest.mark.parametrize("sink", [IN_WORKSPACE, ["--sink", "parquet:shards"]], ids=["workspace", "parquet"])
def test_interrupted_it_keeps_what_was_answered(sink, questions, tmp_path):
    """Ctrl-C: what is under way is ended and kept, and the way to go on is told."""
    words = f"run --model deadly:star?log={tmp_path}/asked&pause=0.5 --data {questions} --protocol vqa "
    words += "--engine ray --replicas 2 --batch-size 4 --workspace ws"
    address = ray.get_runtime_context().gcs_address
    env = {**os.environ, "RAY_ADDRESS": address}
    command = [sys.executable, "-m", "snellen", *words.split(), *sink]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as started:
        asked = tmp_path / "asked"
        # The second batch has begun: the first one is on its way into the store.
        until(lambda: asked.exists() and len(asked.read_text().splitlines()) >= 12)
        started.send_signal(signal.SIGINT)
        _, told = started.communicate(timeout=40)
    assert started.returncode == 130, told
    assert "Answers so far are saved" in told
    assert "--engine ray --replicas 2" in told
    assert "Traceback" not in told
    asked = set(asked.read_text().splitlines())
    found = open_run(workspace=tmp_path / "ws")
    assert {f"What {row['id'][1:]}?" for row in found.findings()} == asked
    assert 4 <= len(asked) < 64


@pytest.mark.exhaustive
def test_the_command(tmp_path, monkeypatch):
    """As users start it: results alone on standard output, whatever dies; and a second start asks nobody."""
    questions = asked_about(tmp_path, ["bang" if i == 5 else f"What {i}?" for i in range(10)])
    words = f"run --model deadly:star --data {questions} --protocol vqa --json --quiet --max-failures 1"
    words += f" --engine ray --replicas 2 --batch-size 4 --workspace {tmp_path}/ws"
    done = runner.invoke(app, words.split())
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.stdout)["runs"]
    assert found["metrics"]["outcomes"]["error"] == 1
    assert "ended in an error" in done.stderr
    store = Store(tmp_path / "ws")
    store.do(lambda connection: connection.exec_driver_sql("UPDATE predictions SET outcome = 'ok'"))
    figures = {**found["metrics"], "outcomes": {**found["metrics"]["outcomes"], "error": 0}}
    store.finish(found["id"], figures, store.run(found["id"])["manifest"])
    monkeypatch.setattr(RayExecutor, "begin", lambda *_: pytest.fail("nothing is left to be done"))
    again = runner.invoke(app, words.split())
    assert json.loads(again.stdout)["runs"] == [{**found, "metrics": figures}]
