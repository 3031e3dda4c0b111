"""A workspace of a million responses: how fast it is gone on with and listed, and what that takes of memory.

``python benchmarks/store.py [RESPONSES] [postgresql://…]`` fills a workspace (by default 1,000,000 responses
of 200,000 samples; 100 runs, the last tenth of the largest run's samples missing), then measures, each in a
process of its own: a resumed run's time until its first question and to its end, ``snellen ls runs``, and
peak memory.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time

PER_SAMPLE = 5
LABELS = tuple(f"class {i}" for i in range(100))
PAGE = 2000


def numbers(count):
    """Samples without images: what is measured is the store."""
    from snellen.datasets.base import Dataset, Row
    from snellen.types import Sample

    class Numbers(Dataset):
        name = "numbers"
        labels = LABELS

        def __len__(self):
            return count

        def row(self, index):
            return Row(f"sample {index}", LABELS[index % 100])

        def sample(self, index, labels, background):
            return Sample(
                f"sample {index}",
                (),
                label=LABELS[index % 100],
                labels=labels,
                background=background,
                question=f"{index}",
            )

        def digest(self, index):
            return str(index)

    return Numbers()


def scripted(ended):
    """A model that says the same to all, and tells ``ended`` of what it is asked."""
    from snellen.models.base import Model
    from snellen.types import Response

    class Scripted(Model):
        name = "scripted"
        batch_size = 16

        def identity(self):
            return {"kind": "scripted"}

        async def respond(self, requests):
            if ended is not None:
                ended(requests)
            return [Response("class 1") for _ in requests]

    return Scripted()


def protocol():
    """A closed set of five rounds."""
    from snellen.protocols.closed_set import ClosedSet

    return ClosedSet(rounds=PER_SAMPLE, prompt="Which of {names}?")


def fill(where, count):
    """The responses and predictions that a run would have written, written in pages."""
    from snellen.datasets.base import select
    from snellen.engine.cache import describe, key_of
    from snellen.engine.evaluation import Evaluation
    from snellen.storage.rows import CacheEntry, SampleResult
    from snellen.storage.store import Store
    from snellen.types import Prediction, Response

    store = Store(where)
    samples = count // PER_SAMPLE
    exam = Evaluation(scripted(None), select(numbers(samples)), protocol(), store)
    identity = exam.model.identity()
    for start in range(0, samples, PAGE // PER_SAMPLE):
        rows, findings = [], []
        for index in range(start, min(start + PAGE // PER_SAMPLE, samples)):
            sample = exam.data[index]
            keys = []
            for request in next(exam.protocol.examine(sample)):
                described = describe(request)
                described["messages"][0]["content"].append(sample.id)  # no two samples ask the same
                keys.append(key_of(identity, described))
                rows.append(CacheEntry(keys[-1], "scripted", described, Response("class 1", latency=0.1)))
            if index < 0.9 * samples:
                findings.append(SampleResult(index, sample, Prediction(sample.id, "class 1"), keys))
        store.put(rows)
        store.record(exam.run, findings)
    manifest = exam.manifest().as_dict()
    for other in range(99):
        run = store.begin(f"other-{other}", f"{other:064}", {**manifest, "other": other})
        store.finish(run, {"n": 1, "outcomes": {"ok": 1}, "skipped": 0}, manifest)


def resume(where):
    """Seconds until the first question of a resumed run, and until its end."""
    import snellen
    from snellen.storage.store import Store

    (size,) = [row["manifest"]["data"]["n"] for row in Store(where).list_runs()[:1]]
    began = time.perf_counter()

    told: list[str] = []

    def first(_):
        if not told:
            told.append(f"{time.perf_counter() - began:.2f} s until the first question, {_peak()}")

    snellen.run(model=scripted(first), data=numbers(size), protocol=protocol(), workspace=where)
    print(f"{told[0]}; {time.perf_counter() - began:.0f} s to the end, figures and all, {_peak()}")


def _peak():
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB peak"


def apart(*words):
    """What this script prints, told these words, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.strip()


def main(count, where):
    """All of it."""
    began = time.perf_counter()
    fill(where, count)
    print(f"{count:,} responses written in {time.perf_counter() - began:.0f} s")
    print("resumed:", apart("resume", where))
    began = time.perf_counter()
    command = [sys.executable, "-m", "snellen.cli", "ls", "runs", "--workspace", where]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    print(f"snellen ls runs: {time.perf_counter() - began:.2f} s")
    print("of which the store's part:", apart("list", where))


if __name__ == "__main__":
    if sys.argv[1:2] == ["resume"]:
        resume(sys.argv[2])
    elif sys.argv[1:2] == ["list"]:
        from snellen.runs.run import list_runs

        start = time.perf_counter()
        found = list(list_runs(sys.argv[2]))
        print(f"{len(found)} runs in {time.perf_counter() - start:.3f} s,", _peak())
    else:
        with tempfile.TemporaryDirectory() as top:
            main(
                int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000,
                sys.argv[2] if len(sys.argv) > 2 else top,
            )
