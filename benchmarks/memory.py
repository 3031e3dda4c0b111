"""Peak memory of a run against the length of its data set.

Examines drawn pictures with a model that answers at once, in a process of its own for each length, and
prints the peak resident memory of each:

    python benchmarks/memory.py 1000 10000 100000
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

CODE = """
import resource, sys
from snellen import Kind, LocalModel, Response, run

class First(LocalModel):
    name, kinds, batch_size = "first", frozenset({Kind.GENERATE}), 64
    def identity(self): return {"first": 1}
    def answer(self, requests):
        return [Response(r.messages[0].text.partition("{")[2].partition(",")[0]) for r in requests]

n, workspace = int(sys.argv[1]), sys.argv[2]
data = f"chart:shapes?n={n}&size=16"
found = run(model=First(), data=data, protocol="closed-set?rounds=1", workspace=workspace)
print(found.metrics.n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def main() -> None:
    """Print a line for each length."""
    for n in map(int, sys.argv[1:] or ("1000", "10000")):
        with tempfile.TemporaryDirectory() as workspace:
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-c", CODE, str(n), workspace], capture_output=True, text=True, check=True
            )
        examined, megabytes = done.stdout.split()
        print(f"{int(examined):>8,} samples: {megabytes} MB, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
