"""Run by test_engine in a process of its own, to be killed: an examination by a slow scripted model
that writes down the key of every request it is asked."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from helpers import Scripted
from snellen.api import run
from snellen.engine.cache import describe, key_of
from snellen.types import Request


def main(workspace: str, log: str, delay: float) -> None:
    file = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def script(request: Request) -> str:
        time.sleep(delay)
        key = key_of({"scripted": "slow"}, describe(request))
        os.write(file, f"{key}\n".encode())
        names = request.messages[0].text.partition("{")[2].partition("}")[0].split(", ")
        return names[int(key[:4], 16) % len(names)]

    model = Scripted(script, "slow", batch_size=3)
    found = run(
        model=model,
        data="chart:shapes?n=40&size=32",
        protocol="closed-set?rounds=3",
        workspace=workspace,
    )
    print(found.id, found.metrics.n)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
