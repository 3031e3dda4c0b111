"""What the tests of runs by servers share."""

from __future__ import annotations

import hashlib
import sys

import snellen

DATA = "chart:shapes?n=56&size=32"


PROTOCOL = "closed-set?rounds=3"


def by_question(asked):
    """An answer that depends on all of the question and on nothing else."""
    digest = hashlib.sha256(asked.text.encode() + b"".join(asked.images)).hexdigest()
    names = asked.text.partition("{")[2].partition("}")[0].split(", ")
    return names[int(digest[:6], 16) % len(names)]


def of(server, **options):
    return "openai:any?" + "&".join(f"{k}={v}" for k, v in {"base_url": server.url, **options}.items())


def examine(server, workspace=None, protocol=PROTOCOL, data=DATA, **more):
    return snellen.run(model=of(server), data=data, protocol=protocol, workspace=workspace, **more)


def command(server, workspace, *more, options=""):
    name = of(server) + options
    words = ["--model", name, "--data", DATA, "--protocol", PROTOCOL, "--workspace", str(workspace), *more]
    return [sys.executable, "-m", "snellen.cli", "run", *words]
