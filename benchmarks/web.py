"""How long the leaderboard's server takes over a workspace of many runs.

``python benchmarks/web.py [RUNS]`` writes RUNS finished runs (by default 10,000: 500 models on 20 data sets,
whose manifests are as long as real ones) into a workspace, serves it, and measures requests over loopback:
the first, which reads everything, and the medians of those after it.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

PAGES = (
    "/",
    "/?by=data",
    "/?data=set-7",
    "/?q=model-33&published=1",
    "/?sort=speed&page=9",
    "/averages?data=set-1&data=set-2&data=set-3",
    "/leaderboard.csv?data=set-7",
)


def fill(folder: Path, count: int) -> None:
    """Runs as an examination leaves them, without samples."""
    import sqlalchemy as sa

    from snellen.metrics.classification import headline
    from snellen.storage.schema import runs
    from snellen.storage.store import Store

    rng = random.Random(0)
    store = Store(folder)
    labels = [f"class {i}" for i in range(100)]
    rows = []
    for i in range(count):
        model, data = i // 20 % 500, i % 20
        right = rng.random() * 0.5 + 0.4
        truth = [labels[k % 100] for k in range(200)]
        said = [name if rng.random() < right else "class 0" for name in truth]
        if i % 50 == 0:  # the rest have figures of the same form
            figures = headline(truth, said, None, list(range(200)))
        value = min(1.0, max(0.0, right))
        accuracy = {"value": value, "low": max(0.0, value - 0.05), "high": min(1.0, value + 0.05)}
        metrics = {
            **figures, "accuracy": accuracy, "n": 200, "primary": "accuracy",
            "scores": ["accuracy", "macro_f1"],
            "outcomes": {"ok": 198, "unparsed": 2, "refused": 0, "truncated": 0, "error": 0}, "skipped": 0,
            "items_per_second": rng.random() * 30, "cost": None, "peak_rss_bytes": 4e9,
            "peak_gpu_bytes": None, "parameters": int(rng.random() * 60e9),
        }  # fmt: skip
        manifest = {
            "model": {"name": f"hf:org/model-{model}", "identity": {"revision": "a" * 40}},
            "data": {"name": f"set-{data}", "fingerprint": f"{data:064}", "n": 200, "labels": labels},
            "protocol": {"name": "closed-set", "title": "closed-set", "options": {"rounds": 5}},
            "hardware": {"processor": "x" * 60}, "finished": "2026-11-21T12:00:00",
            "versions": {"torch": "2.13"},
        }  # fmt: skip
        rows.append(
            {"id": f"run-{i}", "digest": str(i), "created": f"{i:09}", "updated": f"{i:09}",
             "status": "finished", "fresh": 0, "seconds": 0.0, "manifest": manifest,
             "metrics": json.loads(json.dumps(metrics))}
        )  # fmt: skip
    store.do(lambda connection: connection.execute(sa.insert(runs), rows))
    store.close()


def main() -> None:
    """Fill, serve, measure."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from served import served
    from snellen.storage.store import Store
    from snellen.web.security import Policy
    from snellen.web.state import AppState

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), count)
        with served(AppState(Store(folder), Policy())) as address:

            def ask(path: str) -> tuple[float, int]:
                began = time.perf_counter()
                with urllib.request.urlopen(address + path) as reply:
                    size = len(reply.read())
                return time.perf_counter() - began, size

            took, _ = ask("/")
            print(f"{count} runs; the first request: {took:.2f} s")
            print("| page | median ms | p95 ms | KB |\n|---|---|---|---|")
            for path in PAGES:
                times, sizes = zip(*(ask(path) for _ in range(20)), strict=True)
                p95 = sorted(times)[18]
                figures = (1e3 * statistics.median(times), 1e3 * p95, sizes[0] / 1e3)
                print(f"| `{path}` | {' | '.join(f'{figure:.0f}' for figure in figures)} |")


if __name__ == "__main__":
    main()
