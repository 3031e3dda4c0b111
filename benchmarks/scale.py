"""Many copies of a model by Ray: what they bring, what handing out work costs, and what one writer takes in.

``python benchmarks/scale.py`` runs all of it on this machine; a word runs a part:

- ``throughput``: items per second of ``pico:llava`` in one process, with one replica and with two.
- ``overhead``: milliseconds a sample of a model that answers at once, in one process and with one replica.
- ``writer [postgresql://…]``: models that only wait stand for 100 replicas (a few processes, each with many
  blocks of 16 samples under way), faster and faster, until answers are stored more slowly than they come:
  into SQLite, PostgreSQL (if its address is given) and Parquet.
- ``lost``: a cluster of two nodes, a replica each, one of which is ended in the middle; not run unless named.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time
from pathlib import Path

MODEL = '''
import asyncio

from snellen.models.base import LocalModel
from snellen.models.base import MODELS
from snellen.types import Response


@MODELS.register("waiting", example="waiting:SECONDS")
def waiting(seconds, *, workers: int = 1):
    """Waits, then says "star" to a whole block. Options: ``workers`` (blocks at once)."""
    return Waiting(float(seconds), workers)


class Waiting(LocalModel):
    def __init__(self, seconds, workers):
        self.seconds, self.workers = seconds, workers

    def identity(self):
        return {"waiting": self.seconds}

    async def respond(self, requests):
        await asyncio.sleep(self.seconds)
        told = Response("star", latency=self.seconds, prompt_tokens=600, completion_tokens=1)
        return [told] * len(requests)

    def answer(self, requests):
        raise NotImplementedError  # respond, above, is all that is asked
'''
#: Blocks under way at once, as many as replicas would have, and the processes that they are spread over.
REPLICAS, PROCESSES = 100, 4
BLOCK = 16


def plugin(top):
    """A package that brings the waiting model, for this process and for those of Ray."""
    (top / "waiting.py").write_text(MODEL)
    about = top / "waiting-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: waiting\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[snellen.models]\nwaiting = waiting:waiting\n")
    os.environ["PYTHONPATH"] = str(top)
    sys.path.insert(0, str(top))
    importlib.import_module("waiting")


def begin():
    """Ray with room for the processes, whatever the cores; they mostly wait."""
    import ray

    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.init(num_cpus=PROCESSES, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


def numbers(count):
    """So many samples without images."""
    from benchmarks import store

    return store.numbers(count)


def examine(top, name, **more):
    """A run and how long it took from its first answer to its last."""
    from snellen.api import run

    where = more.pop("workspace", None) or top / name
    return run(workspace=where, **more)


def throughput(top):
    """Copies of a real model."""
    from snellen.engine.ray.cluster import Engine

    how = {"model": "pico:llava", "data": "chart:shapes?n=1120", "protocol": "closed-set"}
    for turn in range(3):
        for told, engine in [("one process", None), *((f"{n} replicas", Engine(replicas=n)) for n in (1, 2))]:
            found = examine(top, f"{told} {turn}", engine=engine, **how)
            print(f"{told}: {found.metrics.items_per_second:.1f} items/s", flush=True)


def overhead(top):
    """A model that answers at once."""
    from snellen.engine.ray.cluster import Engine

    count = 8_000
    how = {
        "protocol": "closed-set?rounds=1&prompt=Which of {names}?",
        "data": numbers(count),
        "batch_size": BLOCK,
    }
    for turn in range(3):
        for told, engine in [("one process", None), ("1 replica", Engine(replicas=1))]:
            found = examine(top, f"{told} {turn}", engine=engine, model="waiting:0", **how)
            print(f"{told}: {1000 / found.metrics.items_per_second:.2f} ms a sample", flush=True)


def writer(top, address=None):
    """Waiting models, faster and faster."""
    from snellen.engine.ray.cluster import Engine
    from snellen.storage import parquet_run

    # Shards in which as many blocks are under way at once as there are replicas to stand for.
    parquet_run.SHARDS, parquet_run.BATCHES = 4, 8 * REPLICAS

    how = {"protocol": "closed-set?rounds=1&prompt=Which of {names}?", "batch_size": BLOCK}
    engine = Engine(replicas=PROCESSES)
    workers = REPLICAS // PROCESSES
    for told, more in (
        ("SQLite", {}),
        ("PostgreSQL", {"workspace": address}),
        ("Parquet", {"sink": f"parquet:{top}/shards"}),
    ):
        if told == "PostgreSQL" and address is None:
            continue
        for seconds in (1.0, 0.5, 0.25):
            offered = REPLICAS * BLOCK / seconds
            count = round(max(offered * 12, 4 * REPLICAS * BLOCK))
            model = f"waiting:{seconds}?workers={workers}"
            found = examine(
                top, f"{told} {seconds}", model=model, data=numbers(count), engine=engine, **how, **more
            )
            got = found.metrics.items_per_second
            print(f"{told}: {offered:.0f} samples/s given, {got:.0f} taken in", flush=True)


def lost(top):
    """A node that goes away."""
    import threading

    import ray
    from ray.cluster_utils import Cluster

    from snellen.engine.ray.cluster import Engine

    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    node = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    ended: list[float] = []

    def watch(_, progress):
        if progress.tally.n >= 100 and not ended:
            ended.append(time.perf_counter())
            threading.Thread(
                target=cluster.remove_node, args=(node,), kwargs={"allow_graceful": False}
            ).start()

    how = {"model": "pico:llava", "data": "chart:shapes?n=800", "protocol": "closed-set"}
    found = examine(top, "lost", engine=Engine(replicas=2), watch=watch, **how)
    took = time.perf_counter() - ended[0]
    print(f"{found.metrics.outcomes}, {took:.0f} s after a node of two was lost", flush=True)
    whole = examine(top, "whole", **how)
    print("the same predictions:", list(found.outcomes["prediction"]) == list(whole.outcomes["prediction"]))
    ray.shutdown()
    cluster.shutdown()


def main(parts, *rest):
    """The parts that are named."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        top = Path(name)
        plugin(top)
        begin()
        for part in parts:
            began = time.perf_counter()
            {"throughput": throughput, "overhead": overhead, "writer": writer, "lost": lost}[part](top, *rest)
            print(f"({part}: {time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main(sys.argv[1:2] or ["throughput", "overhead", "writer"], *sys.argv[2:])
