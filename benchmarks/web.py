"""How long the browser's server takes over many runs, and over large ones.

``python benchmarks/web.py [--runs 10000] [--samples 50000]`` evaluates a scripted model on a few charts,
multiplies that run into as many runs (500 models on 20 data sets) and into three runs of as many samples,
serves the workspace, and measures requests over loopback: the first to each page, which reads what it needs,
the medians of those after it, and 50 readers at once.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

BOARD = (
    "/",
    "/?data=set-7",
    "/?q=model-33&published=1",
    "/?sort=speed&page=9",
    "/averages?data=set-1&data=set-2&data=set-3",
    "/leaderboard.csv?data=set-7",
)
#: Samples of the run that is multiplied.
SEED = 60
#: Samples written at a time.
PART = 5000


def seed_run(folder: Path) -> str:
    """Evaluate a scripted model; return the run's id."""
    import snellen
    from helpers import Scripted

    def script(request: Any) -> str:
        number = int(request.images[0].sha256[:6], 16)
        return str(request.sample.label) if number % 4 else "no idea"

    return snellen.run(
        model=Scripted(script, "scripted"),
        data=f"chart:shapes?n={SEED}",
        protocol="closed-set?rounds=1",
        workspace=folder,
    ).id


def multiply(folder: Path, run: str, count: int, size: int) -> list[str]:
    """Write ``count`` runs without samples like a run, and three with ``size`` samples; return these."""
    import sqlalchemy as sa

    from snellen.storage.schema import predictions, responses, runs, samples
    from snellen.storage.store import Store

    store, rng = Store(folder), random.Random(0)

    def read(table: sa.Table, key: sa.Column[Any], value: Any = run) -> list[dict[str, Any]]:
        query = sa.select(table).where(key == value)
        return store.do(lambda c: [dict(row) for row in c.execute(query).mappings()])

    (row,) = read(runs, runs.c.id)

    def like(id: str, model: str, data: str, n: int) -> dict[str, Any]:
        manifest, metrics = (json.loads(json.dumps(row[name])) for name in ("manifest", "metrics"))
        manifest["model"]["name"] = model
        manifest["data"] |= {"name": data, "n": n, "fingerprint": f"{abs(hash(data)):064x}"}
        value = rng.random() * 0.5 + 0.4
        metrics["accuracy"] |= {"value": value, "low": value - 0.05, "high": value + 0.05}
        metrics["n"] = n
        new = {"id": id, "digest": id, "created": f"2026-11-01T{id}", "updated": f"2026-11-01T{id}"}
        return {**row, **new, "manifest": manifest, "metrics": metrics}

    rows = [like(f"run-{i:05}", f"model-{i // 20 % 500}", f"set-{i % 20}", 200) for i in range(count)]
    large = [f"large-{k}" for k in range(3)]
    rows += [like(id, f"model-{id}", "large", size) for id in large]
    store.do(lambda connection: connection.execute(sa.insert(runs), rows))
    asked, said = read(samples, samples.c.run), read(predictions, predictions.c.run)
    answers = {a["key"]: a for a in store.do(lambda c: list(c.execute(sa.select(responses)).mappings()))}
    by_sample = {one["sample"]: one for one in said}

    def copies(id: str, start: int) -> Iterator[tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]]:
        for k in range(start, min(size, start + PART)):
            sample = asked[k % len(asked)]
            of = by_sample[sample["id"]]
            name, key = f"{sample['id']}-{k}", f"{id}-{k}"
            label = rng.choice([str(sample["label"]), of["label"]])
            keys = [f"{key}-{n}" for n in range(len(of["responses"]))]
            replies = [
                {**answers[old], "key": new, "text": f"{answers[old]['text']} {k}"}
                for old, new in zip(of["responses"], keys, strict=True)
            ]
            yield (
                {**sample, "run": id, "id": name, "position": k},
                {**of, "run": id, "sample": name, "label": label, "responses": keys},
                replies,
            )

    for id in large:
        for start in range(0, size, PART):
            part = list(copies(id, start))
            tables = (
                (samples, [sample for sample, _, _ in part]),
                (predictions, [prediction for _, prediction, _ in part]),
                (responses, [reply for _, _, replies in part for reply in replies]),
            )
            for table, values in tables:
                store.do(partial(sa.Connection.execute, statement=sa.insert(table), parameters=values))
    store.close()
    return large


def main() -> None:
    """Fill, serve, measure."""
    from served import served
    from snellen.storage.store import Store
    from snellen.web.security import Policy
    from snellen.web.state import AppState

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=50_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large = multiply(Path(folder), seed_run(Path(folder)), chosen.runs, chosen.samples)
        one = f"/runs/{large[0]}"
        pages = (
            *BOARD,
            one,
            f"{one}?right=no&page=9",
            f"{one}?q=no+idea",
            f"{one}?q=nowhere+to+be+found",
            f"{one}/samples/{min(777, chosen.samples - 1)}?right=no",
            f"/compare?run={large[0]}&run={large[1]}",
            "/compare?" + "&".join(f"run={id}" for id in large),
            f"/heatmap?run={large[0]}&run={large[1]}",
        )
        with served(AppState(Store(folder), Policy())) as address:

            def ask(path: str) -> tuple[float, int]:
                began = time.perf_counter()
                with urllib.request.urlopen(address + path, timeout=120) as reply:
                    size = len(reply.read())
                return time.perf_counter() - began, size

            print(f"{chosen.runs} runs, and three of {chosen.samples} samples")
            print("| page | first s | median ms | p95 ms | KB |\n|---|---|---|---|---|")
            for path in pages:
                first, size = ask(path)
                times = sorted(ask(path)[0] for _ in range(20))
                middle, late = 1e3 * statistics.median(times), 1e3 * times[18]
                print(f"| `{path}` | {first:.2f} | {middle:.0f} | {late:.0f} | {size / 1e3:.0f} |")
            with ThreadPoolExecutor(50) as readers:
                began = time.perf_counter()
                waited = sorted(took for took, _ in readers.map(ask, [one] * 50))
                total = time.perf_counter() - began
            print(
                f"50 readers of {one} at once: all served in {total:.1f} s, the last after {waited[-1]:.1f} s"
            )


if __name__ == "__main__":
    main()
