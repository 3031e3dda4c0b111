"""What one GPU shows of Snellen, in ten minutes and without a network.

    python benchmarks/gpu.py                                      # a 7B shape in bfloat16, on an H100 or H200
    python benchmarks/gpu.py --minutes 4 --stages look,exact
    python benchmarks/gpu.py --size tiny --device cpu --minutes 1 # whether all of it runs

Weights are random: speed, memory and the agreement of two ways do not depend on them. The most valuable
stages come first, each in a process with a time limit; what a stage has measured is kept even if it is cut
off. Writes results/gpu-CARD-DATE.json, and prints the tables.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
TINY = {
    "vision": {"hidden": 64, "layers": 2, "heads": 4, "inner": 128},
    "text": {"hidden": 128, "layers": 2, "heads": 4, "kv": 4, "inner": 256},
    "vocabulary": 4096,
}
#: Workloads of ``look_once`` by their place there, and what is measured of each, the most telling first.
CLOSED_SET, RANK = 0, 5
ARMS = ("shared 16", "plain 8", "shared 1", "issued 1", "issued 16", "shared 64", "shared 4", "plain 32")

#: What is enough to see that all of it runs.
BRIEFLY = ("shared 4", "plain 8", "shared 1")

Found = Iterator[tuple[str, dict[str, Any]]]


class Stage(NamedTuple):
    """What is measured, and for how many seconds at most."""

    run: Callable[[argparse.Namespace], Found]
    seconds: int
    needs: str = ""  # a package


# ── one model in this process ───────────────────────────────────────────────────────────────────────


def built(o: argparse.Namespace, architecture: str = "llava", **changed: Any) -> tuple[Any, Any]:
    """The same weights behind both ways: shared, and plain."""
    import look_once

    look_once.SIZES["tiny"] = TINY
    given = {"size": o.size, "device": o.device, "dtype": o.dtype, "images": 16, "budget": None}
    return look_once.build(architecture, argparse.Namespace(**{**given, **changed}))


def brief(o: argparse.Namespace) -> bool:
    """Whether to see only that all of it runs."""
    return bool(o.size == "tiny")


def together(model: Any, images: int, *, recorded: bool = True) -> None:
    """Let so many images share a batch, with recorded steps or with steps issued one by one."""
    sharing = model.sharing
    sharing.clear()
    model.batch_size = sharing.images = images
    if not hasattr(sharing, "checked"):
        sharing.checked = sharing.findings
    found = sharing.checked if recorded else replace(sharing.checked, graphs="left out here")
    sharing.findings = sharing.found = found


def peak(o: argparse.Namespace, *, reset: bool = False) -> float | None:
    """The most memory of the card since the last reset, in GB."""
    import torch

    if o.device != "cuda":
        return None
    if reset:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return round(torch.cuda.max_memory_allocated() / 1e9, 1)


def failures(replies: Sequence[Any]) -> dict[str, int]:
    """What was not answered, and why."""
    return dict(Counter(str(reply.reason)[:160] for reply in replies if reply.outcome.name == "ERROR"))


# ── stages ──────────────────────────────────────────────────────────────────────────────────────────


def look(o: argparse.Namespace) -> Found:
    """Seconds an image, the best of some, for one image and for many at once, and peak memory."""
    import look_once as b
    import torch

    shared, plain = built(o)
    side = 8192 if o.device == "cuda" else 256
    square = torch.randn(side, side, device=o.device, dtype=getattr(torch, o.dtype))
    rate = 2 * side**3 / min(b.seconds(lambda: square @ square, o.device)[0] for _ in range(12))
    yield (
        "model",
        {
            "parameters": sum(p.numel() for p in shared.decoder.parameters()),
            "TFLOP/s": rate / 1e12,
            "self-check": str(shared.sharing.findings),
            "graphs": shared.sharing.findings.graphs,
        },
    )
    for number, (title, make) in enumerate(b.WORKLOADS.items()):
        if brief(o) and number not in (CLOSED_SET, RANK - 1):
            continue
        asked = make(b.picture(9_999))
        new = sum(r.decoding.max_tokens for r in asked if r.decoding and not r.continuations)
        row: dict[str, Any] = {"floor": b.operations(shared, asked, max(0, new - len(asked))) / rate}
        for arm in BRIEFLY if brief(o) else ARMS:
            way, count = arm.split()[0], int(arm.split()[1])
            if title == b.EXTRAPOLATED and (way == "plain" or count == 64):
                continue
            if way == "plain":
                plain.batch_size, count = count, 1
            else:
                together(shared, count, recorded=way == "shared")
            model = plain if way == "plain" else shared
            peak(o, reset=True)
            times = []
            slow = count == 64 or (way == "plain" and number == RANK)
            for turn in range(1 if brief(o) else 2 if slow else 3):
                many = [b.picture(10_000 * number + 1_000 * turn + i) for i in range(count)]
                requests = [r for image in many for r in make(image)]
                took, replies = b.seconds(lambda m=model, r=requests: b.answered(m, r), o.device)
                times.append(took / count)
            row[arm] = {"seconds": min(times), "GB": peak(o), "failed": failures(replies)}
        yield title, row


def exact(o: argparse.Namespace) -> Found:
    """Whether both ways decide alike, and how far their scores are apart."""
    import look_once as b
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    size = "tiny" if brief(o) else "100m"
    for architecture in b.BUILDERS:
        for dtype in ("float32", "bfloat16"):
            shared, plain = built(o, architecture, size=size, dtype=dtype)
            same = decisions = 0
            apart = 0.0
            for make in list(b.WORKLOADS.values())[: 1 if brief(o) else RANK + 1]:
                requests = [r for seed in range(1 if brief(o) else 3) for r in make(b.picture(seed))]
                ours, theirs = b.answered(shared, requests), b.answered(plain, requests)
                pairs = list(zip(b.decisions(ours), b.decisions(theirs), strict=True))
                same, decisions = same + sum(x == y for x, y in pairs), decisions + len(pairs)
                for x, y in zip(ours, theirs, strict=True):
                    gaps = [abs(s.value - t.value) for s, t in zip(x.scores, y.scores, strict=True)]
                    apart = max(apart, *gaps, 0.0)
            yield (
                f"{architecture}, {dtype}",
                {
                    "same": same,
                    "of": decisions,
                    "scores apart": apart,
                    "graphs": shared.sharing.findings.graphs,
                },
            )


def memory(o: argparse.Namespace) -> Found:
    """With little memory left: does everything get an answer, and how long does it take?"""
    import look_once as b
    import torch

    if o.device != "cuda":
        yield "nothing", {"why": "only a GPU's memory can be limited"}
        return
    shared, plain = built(o)
    _ = shared.sharing.findings
    weights = torch.cuda.memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    for spare in (6e9, 2e9, 1e9):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, (weights + spare) / total))
        for way, model, number in (
            ("shared", shared, CLOSED_SET),
            ("shared", shared, RANK),
            ("plain", plain, 0),
        ):
            together(model, 64)
            model.memory.limit = None
            title, make = list(b.WORKLOADS.items())[number]
            requests = [r for i in range(16) for r in make(b.picture(i))]
            took, replies = b.seconds(lambda m=model, r=requests: b.answered(m, r), o.device)
            failed = failures(replies)
            answered = len(replies) - sum(failed.values())
            row = {"seconds": took, "answered": answered, "of": len(replies), "failed": failed}
            yield f"{spare / 1e9:g} GB left, {way}, {title}", row


def profile(o: argparse.Namespace) -> Found:
    """How long the card works, and on what."""
    import look_once as b
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    shared, _ = built(o)
    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if o.device == "cuda" else [])
    for number in (CLOSED_SET, RANK):
        title, make = list(b.WORKLOADS.items())[number]
        for count in (1, 16):
            together(shared, count)
            b.answered(shared, [r for i in range(count) for r in make(b.picture(i))])
            requests = [r for i in range(count) for r in make(b.picture(500 + i))]
            with record(activities=kinds) as log:
                took, _ = b.seconds(lambda r=requests: b.answered(shared, r), o.device)
            events = log.key_averages()
            busy = sum(event.self_device_time_total for event in events) / 1e6
            top = sorted(events, key=lambda event: -event.self_device_time_total)[:12]
            row = {
                "seconds": took,
                "busy": busy / took,
                "launches": sum(e.count for e in events if e.key in ("cudaLaunchKernel", "cudaGraphLaunch")),
                "synchronizations": sum(e.count for e in events if e.key == "cudaStreamSynchronize"),
                "kernels": {e.key[:80]: round(e.self_device_time_total / 1e3, 1) for e in top},
            }
            yield f"{title}, {count} images", row


# ── the command line ────────────────────────────────────────────────────────────────────────────────


def ended(command: Sequence[str], limit: float, out: Any, err: Any, *, alone: bool = True) -> str:
    """Run a command for so many seconds at most; return its status.

    Args:
        alone: whether it leads a group of processes, which ends with it.
    """
    with subprocess.Popen(command, stdout=out, stderr=err, start_new_session=alone) as process:
        try:
            return str(process.wait(limit))
        except subprocess.TimeoutExpired:
            process.kill()
            return f"cut off after {limit:.0f} s"
        finally:
            with suppress(ProcessLookupError):
                if alone:
                    os.killpg(process.pid, signal.SIGKILL)


def command(arguments: Sequence[str], limit: float) -> dict[str, Any]:
    """Run ``snellen`` with these arguments, for so many seconds at most."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log:
        state = ended([sys.executable, "-m", "snellen", *arguments], limit, log, log, alone=False)
        log.seek(0)
        end = log.read()[-2000:]
    took = time.perf_counter() - began
    return {"command": " ".join(arguments), "status": state, "seconds": took, "end": end}


def saved(o: argparse.Namespace) -> Path:
    """A checkpoint of this size, written once for all stages."""
    import look_once as b
    import torch

    folder: Path = o.work / f"llava-{o.size}"
    if not folder.exists():
        b.SIZES["tiny"] = TINY
        torch.manual_seed(0)
        torch.set_default_dtype(getattr(torch, o.dtype))
        with torch.device(o.device):
            model, processor = b.llava(b.SIZES[o.size])
        torch.set_default_dtype(torch.float32)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


def tune(o: argparse.Namespace) -> Found:
    """A few steps of ``lora`` and, on a GPU, ``qlora``, and the evaluation after them."""
    began = time.perf_counter()
    model = ["tune", f"hf:{saved(o)}", "-M", f"dtype={o.dtype}"]
    yield "checkpoint", {"seconds to write": time.perf_counter() - began}
    few = "--data chart:shapes --limit 8 --train-limit 64 -T max_steps=4 --no-probe".split()
    for recipe in ("lora", "qlora") if o.device == "cuda" else ("lora",):
        with tempfile.TemporaryDirectory() as work:
            where = ["-o", f"{work}/{recipe}", "--workspace", f"{work}/w"]
            yield recipe, command([*model, *few, "--recipe", recipe, *where], 140)


def run(o: argparse.Namespace) -> Found:
    """``snellen run`` on a checkpoint: precision, quantization and layers spread by accelerate."""
    base = ["run", "--model", f"hf:{saved(o)}", "--data", "chart:shapes"]
    here = ["-M", f"dtype={o.dtype}", "-M", f"device={o.device}"]
    limit = "128" if o.device == "cuda" else "4"
    tries = {
        "closed set": [*here, "--protocol", "closed-set", "--limit", limit],
        "rank": [*here, "--protocol", "rank", "--limit", limit],
        "prefix=off": [*here, "-M", "prefix=off", "--protocol", "closed-set", "--limit", "4"],
    }
    if o.device == "cuda":
        last = ["--protocol", "closed-set", "--limit", "16"]
        tries |= {
            "4 bits": ["-M", "quantization=4bit", *last],
            "device_map": ["-M", "device_map=auto", "-M", f"dtype={o.dtype}", *last],
            "a card that is not there": ["-M", "device=cuda:9", *last],
        }
    with tempfile.TemporaryDirectory() as work:
        for name, arguments in tries.items():
            yield name, command([*base, *arguments, "--workspace", work], 80)


def pico(o: argparse.Namespace) -> Found:
    """The built-in models on the card and on its CPU: do they answer alike?"""
    import snellen

    frames = []
    limit = "140" if o.device == "cuda" else "8"
    for device in ("cpu", o.device):
        with tempfile.TemporaryDirectory() as work:
            arguments = ["run", "--data", "chart:shapes", "--limit", limit, "--workspace", work]
            models = [part for name in ("llava", "clip") for part in ("--model", f"pico:{name}")]
            done = command([*arguments, *models, "--protocol", "rank", "-M", f"device={device}"], 120)
            yield f"command on {device}", done
            frames.append(
                {
                    (run.as_dict()["model"].split("?")[0], row["id"]): row["prediction"]
                    for run in snellen.list_runs(work)
                    for row in run.predictions.to_dict("records")
                }
            )
    ours, theirs = frames
    same = sum(ours[key] == theirs[key] for key in ours.keys() & theirs.keys())
    yield "predictions", {"same": same, "of": len(ours.keys() & theirs.keys())}


#: The most valuable first.
STAGES = {
    "look": Stage(look, 240),
    "exact": Stage(exact, 60),
    "memory": Stage(memory, 70),
    "tune": Stage(tune, 330, "trl"),
    "profile": Stage(profile, 40),
    "run": Stage(run, 120),
    "pico": Stage(pico, 100),
}

# ── all of them ─────────────────────────────────────────────────────────────────────────────────────


def measured(o: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Run each stage in a process, within the time that is left. Checkpoints are written to ``work``."""
    ends = time.monotonic() + 60 * o.minutes
    found: dict[str, Any] = {}
    for name in o.stages.split(","):
        stage, left = STAGES[name], ends - time.monotonic()
        if left < 10:
            found[name] = {"state": "not begun: the time was over"}
            continue
        if stage.needs and importlib.util.find_spec(stage.needs) is None:
            found[name] = {"state": f"not begun: {stage.needs} is not installed"}
            continue
        began = time.monotonic()
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            child = [sys.executable, __file__, *sys.argv[1:], "--stage", name, "--work", str(work)]
            state = ended(child, min(left, stage.seconds), out, err)
            out.seek(0)
            rows = dict(json.loads(line) for line in out if line.startswith('["'))
            err.seek(0)
            why = {"error": err.read()[-1500:]} if state != "0" else {}
            state = "done" if state == "0" else state if "cut" in state else f"failed with status {state}"
        found[name] = {"state": state, "seconds": time.monotonic() - began, **why, "rows": rows}
        print(f"{name}: {state}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def tables(found: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        f"{found['card']}, {found['date']}, {found['size']} in {found['dtype']}, {found['versions']}",
        "",
    ]
    looked = found["stages"].get("look", {}).get("rows", {})
    if rows := {title: row for title, row in looked.items() if title != "model"}:
        lines += ["| workload | " + " | ".join(ARMS) + " | floor |", "|---" * (len(ARMS) + 2) + "|"]
        for title, row in rows.items():
            base = row.get("plain 8", {}).get("seconds")
            cells = []
            for arm in ARMS:
                took = row.get(arm, {}).get("seconds")
                times = f" ({base / took:.1f}×)" if took and base and not arm.startswith("plain") else ""
                cells.append(f"{took:.4f}{times}" if took else "–")
            lines.append(f"| {title} | " + " | ".join(cells) + f" | {row['floor']:.4f} |")
    for name, stage in found["stages"].items():
        lines += ["", f"{name}: {stage['state']}"]
        for title, row in stage.get("rows", {}).items() if name != "look" else ():
            short = {key: value for key, value in row.items() if key not in ("kernels", "end", "command")}
            lines.append(f"- {title}: " + ", ".join(f"{key} {_short(value)}" for key, value in short.items()))
    return "\n".join(lines)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Measure, print the tables, and write everything down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", default="7b", choices=("tiny", "100m", "7b"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--stages", default=",".join(STAGES), help="of %(default)s")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    o = parser.parse_args()
    if unknown := set(o.stages.split(",")) - set(STAGES):
        parser.error(f"no such stages: {', '.join(sorted(unknown))}; there are {', '.join(STAGES)}")
    if o.stage:
        for title, row in STAGES[o.stage].run(o):
            print(json.dumps([title, row], default=str), flush=True)
        return
    import torch

    card = torch.cuda.get_device_name() if o.device == "cuda" else "CPU"
    with tempfile.TemporaryDirectory() as work:
        stages = measured(o, Path(work))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    date = datetime.now(UTC).date().isoformat()
    found = {
        "card": card,
        "date": date,
        "size": o.size,
        "dtype": o.dtype,
        "versions": versions,
        "stages": stages,
    }
    o.out.mkdir(parents=True, exist_ok=True)
    file = o.out / f"gpu-{card.replace(' ', '-')}-{date}.json"
    file.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
    print(tables(found))
    print(f"\n{file}")


if __name__ == "__main__":
    main()
