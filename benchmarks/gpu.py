"""What one GPU shows of Snellen, stage by stage, within ten minutes.

    python benchmarks/gpu.py --out results                      # on an H100 or H200
    python benchmarks/gpu.py --out results --device cpu --size 100m --quick

Each stage is a separate process with a time limit, so that a failure affects no other. Weights are
random: speed, memory and agreement of two ways do not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

STAGES = {
    "memory": 90,
    "checkpoint": 60,
    "tune": 270,
    "pico": 120,
    "exact": 80,
    "look": 170,
    "profile": 60,
    "whole": 150,
}


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", default="7b")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--stage", choices=STAGES)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--architectures", default="llava")
    return parser.parse_args()


TINY = {
    "vision": {"hidden": 64, "layers": 2, "heads": 4, "inner": 128},
    "text": {"hidden": 128, "layers": 2, "heads": 4, "kv": 4, "inner": 256},
    "vocabulary": 8000,
}


def bench(o: argparse.Namespace, **more: object) -> argparse.Namespace:
    """The options that ``look_once`` takes, with these changes."""
    import look_once

    look_once.SIZES["tiny"] = TINY
    return argparse.Namespace(
        **{
            "size": o.size,
            "device": o.device,
            "dtype": o.dtype,
            "images": 16,
            "budget": None,
            "only": None,
            "repeats": 1,
            **more,
        }
    )


def sync(device: str) -> None:
    """Wait for the device."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def clock(run, device: str):
    """Seconds that a call takes, and what it returns."""
    sync(device)
    began = time.perf_counter()
    found = run()
    sync(device)
    return time.perf_counter() - began, found


def peak(device: str, reset: bool = False) -> float:
    """Peak memory allocated on the device since the last reset, in GB."""
    import torch

    if device != "cuda":
        return float("nan")
    if reset:
        torch.cuda.reset_peak_memory_stats()
        return 0.0
    return round(torch.cuda.max_memory_allocated() / 1e9, 2)


# ── stages ──────────────────────────────────────────────────────────────────────────────────────────


def exact(o: argparse.Namespace) -> dict:
    """In float32 both ways decide alike; in bfloat16 how far they are apart, and batches from single rows."""
    import look_once as b
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    found: dict = {}
    for architecture in ("llava", "qwen2_vl"):
        for dtype in ("float32", "bfloat16"):
            shared, plain = b.build(architecture, bench(o, size="tiny" if o.quick else "100m", dtype=dtype))
            rows: dict = {"self-check": str(shared.sharing.findings)}
            for title, make in list(b.WORKLOADS.items())[: 3 if o.quick else 6]:
                same = total = 0
                apart = 0.0
                for seed in range(1 if o.quick else 4):
                    requests = make(b.picture(seed))
                    ours, theirs = b.answered(shared, requests), b.answered(plain, requests)
                    a, c = b.decisions(ours), b.decisions(theirs)
                    same += sum(x == y for x, y in zip(a, c, strict=True))
                    total += len(a)
                    for x, y in zip(ours, theirs, strict=True):
                        for s, t in zip(x.scores, y.scores, strict=True):
                            apart = max(apart, abs(s.value - t.value))
                rows[title] = {"same": same, "of": total, "scores apart": apart}
            found[f"{architecture} {dtype}"] = rows
            del shared, plain
    return found


def look(o: argparse.Namespace) -> dict:
    """Seconds an image and peak memory: plain batches of 8 and 32, shared, several images together."""
    import look_once as b
    import torch

    found: dict = {}
    for architecture in o.architectures.split(","):
        took, (shared, plain) = clock(lambda a=architecture: b.build(a, bench(o)), o.device)
        table: dict = {"build s": took, "parameters": sum(p.numel() for p in shared.decoder.parameters())}
        table["self-check"] = str(shared.sharing.findings)
        table["products TFLOP/s"] = b.rate(b.SIZES[o.size], bench(o)) / 1e12
        side = 8192 if o.device == "cuda" else 512
        big = torch.randn(side, side, device=o.device, dtype=getattr(torch, o.dtype))
        times = [clock(lambda m=big: m @ m, o.device)[0] for _ in range(12)]
        table["square products TFLOP/s"] = 2 * side**3 / min(times) / 1e12
        for number, (title, make) in enumerate(b.WORKLOADS.items()):
            if o.quick and number not in (0, 4):
                continue
            row: dict = {}
            asked = make(b.picture(9_999))
            new = sum(r.decoding.max_tokens for r in asked if r.decoding and not r.continuations)
            row["TFLOP an image"] = round(b.operations(shared, asked, max(0, new - len(asked))) / 1e12, 3)
            thousand = title == b.EXTRAPOLATED
            counts = (1, 4, 16) if thousand else (1, 4, 16, 64)
            arms = [(f"shared {n}", shared, n) for n in counts]
            if not thousand:
                arms += [("plain 8", plain, 1), ("plain 32", plain, 1)]
            for arm, model, count in arms:
                if arm.startswith("plain"):
                    model.batch_size = int(arm.split()[1])
                else:
                    # As many images at once as are asked for.
                    model.batch_size = count
                    model.sharing.images = count
                    model.sharing.clear()
                times = []
                try:
                    for repeat in range(
                        2 if (number == 5 and model is plain) or count == 64 or thousand else 3
                    ):
                        many = [b.picture(10_000 * number + 100 * repeat + i) for i in range(count)]
                        requests = [r for image in many for r in make(image)]
                        peak(o.device, reset=True)
                        took, replies = clock(lambda m=model, r=requests: b.answered(m, r), o.device)
                        times.append(took / count)
                    bad = Counter(str(r.reason)[:80] for r in replies if r.outcome.name == "ERROR")
                    row[arm] = {"s": times, "peak GB": peak(o.device), "errors": dict(bad)}
                except Exception as error:
                    row[arm] = {"error": repr(error)[:300]}
                if o.device == "cuda":
                    torch.cuda.empty_cache()
            for values in row.values():
                if isinstance(values, dict) and "s" in values:
                    values["s"] = [round(v, 4) for v in values["s"]]
            if "plain 8" in row and "s" in row["plain 8"]:
                row["times"] = {
                    arm: round(min(row["plain 8"]["s"]) / min(v["s"]), 2)
                    for arm, v in row.items()
                    if isinstance(v, dict) and "s" in v
                }
            table[title] = row
            print(json.dumps({title: row}), flush=True)
        found[architecture] = table
        del shared, plain
    return found


def profile(o: argparse.Namespace) -> dict:
    """Where a closed set's time goes: kernels, waiting, launches; and preparing pictures on the CPU."""
    import look_once as b
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    shared, _plain = b.build("llava", bench(o))
    found: dict = {}
    for title in list(b.WORKLOADS)[:1] + list(b.WORKLOADS)[5:6]:
        make = b.WORKLOADS[title]
        for count in (1, 16):
            shared.batch_size = count
            shared.sharing.__dict__["images"] = count
            shared.sharing.__dict__.pop("_once", None)
            b.answered(shared, [r for i in range(count) for r in make(b.picture(i))])
            requests = [r for i in range(count) for r in make(b.picture(500 + i))]
            kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if o.device == "cuda" else [])
            with record(activities=kinds) as log:
                took, _ = clock(lambda r=requests: b.answered(shared, r), o.device)
            events = log.key_averages()
            kernels = sum(e.self_device_time_total for e in events) / 1e6
            calls = {e.key: e.count for e in events if e.key.startswith("cuda") or "local_scalar" in e.key}
            top = sorted(events, key=lambda e: -e.self_device_time_total)[:14]
            found[f"{title}, {count} images"] = {
                "wall s": round(took, 4),
                "GPU busy s": round(kernels, 4),
                "calls": calls,
                "top": [(e.key[:70], round(e.self_device_time_total / 1e3, 2), e.count) for e in top],
            }
    image = b.picture(77)
    prompt = shared.prompt(b.closed_set(image, 8)[0].messages)
    tries = [clock(lambda: shared.process(prompt, (image,)), "cpu")[0] for _ in range(6)]
    found["prepare an image, ms"] = round(1000 * statistics.median(tries), 2)
    return found


def pico(o: argparse.Namespace) -> dict:
    """The built-in models by the command line, on the CPU and here: do the answers agree?"""
    found: dict = {}
    frames = {}
    limit = 30 if o.quick else 140
    for device in ("cpu", o.device):
        with tempfile.TemporaryDirectory() as folder:
            same = [
                "-M",
                f"device={device}",
                "--data",
                "chart:shapes",
                "--limit",
                str(limit),
                "--workspace",
                folder,
            ]
            lines = [
                command(
                    [
                        "run",
                        "--model",
                        "pico:llava",
                        "--protocol",
                        "closed-set",
                        "--protocol",
                        "binary",
                        "--protocol",
                        "rank",
                        *same,
                    ],
                    120,
                ),
                command(
                    [
                        "run",
                        "--model",
                        "pico:clip",
                        "--model",
                        "pico:classifier",
                        "--protocol",
                        "rank",
                        *same,
                    ],
                    120,
                ),
            ]
            found[f"{device} commands"] = lines
            frames[device] = answers(folder)
    a, c = frames["cpu"], frames[o.device]
    keys = sorted(set(a) & set(c))
    apart = [k for k in keys if a[k] != c[k]]
    found["samples"], found["differ"] = len(keys), len(apart)
    found["examples"] = [(k, a[k], c[k]) for k in apart[:5]]
    return found


def answers(folder: str) -> dict:
    """(model, protocol, sample) → prediction, from all runs of a workspace."""
    import snellen

    found = {}
    for run in snellen.list_runs(folder):
        about = run.as_dict()
        model = str(about.get("model")).split("?")[0]
        for row in run.predictions.to_dict("records"):
            name = row.get("sample", row.get("sample_id", row.get("id")))
            found[f"{model} {about.get('protocol')} {name}"] = row.get("prediction")
    return found


def command(arguments: list[str], limit: int) -> dict:
    """Run ``snellen`` with these arguments and a time limit in seconds."""
    began = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "snellen", *arguments], capture_output=True, text=True, timeout=limit
        )
        code, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as error:
        code, out, err = "timeout", str(error.stdout or "")[-3000:], str(error.stderr or "")[-3000:]
    return {
        "command": " ".join(arguments)[:200],
        "rc": code,
        "s": round(time.perf_counter() - began, 1),
        "out": out[-3500:],
        "err": err[-2500:],
    }


def folder_of_checkpoint() -> Path:
    """The folder that the stages ``tune`` and ``whole`` read."""
    return Path(os.environ.get("TRIAL_CHECKPOINT", str(Path(tempfile.gettempdir(), "trial-checkpoint"))))


def checkpoint(o: argparse.Namespace) -> dict:
    """A checkpoint of this size, saved for the next two stages."""
    import look_once as b
    import torch

    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, o.dtype))
    with torch.device(o.device):
        model, processor = b.llava({**b.SIZES, "tiny": TINY}[o.size])
    torch.set_default_dtype(before)
    began = time.perf_counter()
    model.save_pretrained(folder_of_checkpoint())
    processor.save_pretrained(folder_of_checkpoint())
    return {"save s": round(time.perf_counter() - began, 1)}


def whole(o: argparse.Namespace) -> dict:
    """That checkpoint examined as a user would: dtype, quantization, device_map."""
    found: dict = {}
    folder = folder_of_checkpoint()
    smi = None
    if o.device == "cuda":
        log = (o.out / "utilization.csv").open("w")
        smi = subprocess.Popen(
            [
                "nvidia-smi",
                "--query-gpu=timestamp,utilization.gpu,memory.used",
                "--format=csv,noheader",
                "-lms",
                "250",
            ],
            stdout=log,
        )
    with tempfile.TemporaryDirectory() as work:
        base = ["run", "--data", "chart:shapes", "--workspace", work]
        n = "8" if o.quick else "128"
        hf = ["--model", f"hf:{folder}", "-M", f"dtype={o.dtype}", "-M", f"device={o.device}"]
        tries = {
            "closed-set": [*hf, "--protocol", "closed-set", "--limit", n],
            "rank": [*hf, "--protocol", "rank", "--limit", n],
            "binary": [*hf, "--protocol", "binary", "--limit", n],
            "closed-set off": [*hf, "-M", "prefix=off", "--protocol", "closed-set", "--limit", "32"],
        }
        if o.device == "cuda":
            bare = ["--model", f"hf:{folder}"]
            tries |= {
                "4bit": [*bare, "-M", "quantization=4bit", "--protocol", "closed-set", "--limit", "16"],
                "8bit": [*bare, "-M", "quantization=8bit", "--protocol", "closed-set", "--limit", "16"],
                "device_map": [
                    *bare,
                    "-M",
                    "device_map=auto",
                    "-M",
                    f"dtype={o.dtype}",
                    "--protocol",
                    "closed-set",
                    "--limit",
                    "16",
                ],
                "flash": [*bare, "-M", "attn=flash_attention_2", "--protocol", "closed-set", "--limit", "4"],
                "cuda:9": [*bare, "-M", "device=cuda:9", "--protocol", "closed-set", "--limit", "4"],
            }
        for name, arguments in tries.items():
            found[name] = command([*base, *arguments], 80)
            print(name, json.dumps(found[name])[:1500], flush=True)
    if smi is not None:
        smi.terminate()
    return found


def memory(o: argparse.Namespace) -> dict:
    """With little memory left: does everything get an answer, and how long does it take?"""
    import look_once as b
    import torch

    shared, plain = b.build("llava", bench(o))
    found: dict = {}
    if o.device != "cuda":
        return {"memory": "a GPU's alone"}
    weights = torch.cuda.memory_allocated()
    total = torch.cuda.get_device_properties(0).total_memory
    for spare in (2e9, 6e9, 1e9):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, (weights + spare) / total))
        for arm, model in (("shared", shared), ("plain", plain)):
            model.batch_size = 64
            model.memory.limit = None
            model.sharing.images = 64
            model.sharing.clear()
            for title in list(b.WORKLOADS)[:1] + list(b.WORKLOADS)[5:6]:
                if arm == "plain" and "100" in title:
                    continue
                requests = [r for i in range(16) for r in b.WORKLOADS[title](b.picture(i))]
                try:
                    took, replies = clock(lambda m=model, r=requests: b.answered(m, r), o.device)
                    bad = Counter(str(r.reason)[:160] for r in replies if r.outcome.name == "ERROR")
                    found[f"{spare / 1e9:g} GB spare, {arm}, {title}"] = {
                        "s": round(took, 2),
                        "of": len(replies),
                        "errors": dict(bad),
                    }
                except Exception as error:
                    found[f"{spare / 1e9:g} GB spare, {arm}, {title}"] = repr(error)[:300]
                print(list(found.items())[-1], flush=True)
    return found


def tune(o: argparse.Namespace) -> dict:
    """A built-in model tuned on this device, and a large one for a few steps by qlora."""
    found: dict = {}
    with tempfile.TemporaryDirectory() as work:
        found["pico"] = command(
            [
                "tune",
                "pico:llava-skewed",
                "-M",
                f"device={o.device}",
                "--data",
                "chart:shapes",
                "-o",
                f"{work}/t",
                "--workspace",
                f"{work}/w",
                "-T",
                "max_steps=30",
            ],
            150,
        )
        print(json.dumps(found)[:2500], flush=True)
        folder = folder_of_checkpoint()
        if o.device == "cuda" and Path(folder, "config.json").is_file():
            for recipe in ("lora", "qlora"):
                found[recipe] = command(
                    [
                        "tune",
                        f"hf:{folder}",
                        "-M",
                        "dtype=bfloat16",
                        "--recipe",
                        recipe,
                        "--data",
                        "chart:shapes",
                        "--limit",
                        "32",
                        "--train-limit",
                        "64",
                        "-o",
                        f"{work}/{recipe}",
                        "--workspace",
                        f"{work}/w",
                        "-T",
                        "max_steps=8",
                    ],
                    120,
                )
                print(recipe, json.dumps(found[recipe]), flush=True)
    return found


# ── all of them ─────────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    """Run each stage in a process."""
    o = options()
    o.out.mkdir(parents=True, exist_ok=True)
    if o.stage:
        began = time.perf_counter()
        found = globals()[o.stage](o)
        found = {"stage": o.stage, "seconds": round(time.perf_counter() - began, 1), **found}
        (o.out / f"{o.stage}.json").write_text(json.dumps(found, indent=1, default=str))
        return
    for stage in o.stages.split(","):
        began = time.perf_counter()
        log = o.out / f"{stage}.log"
        with log.open("w") as stream:
            try:
                done = subprocess.run(
                    [sys.executable, __file__, *sys.argv[1:], "--stage", stage],
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    timeout=STAGES[stage],
                )
                state = f"rc {done.returncode}"
            except subprocess.TimeoutExpired:
                state = "cut off"
        print(f"{stage}: {state}, {time.perf_counter() - began:.0f} s", flush=True)
        if state != "rc 0":
            print(log.read_text()[-1500:], flush=True)
        elif (result := o.out / f"{stage}.json").is_file():
            print(result.read_text()[:2500], flush=True)


if __name__ == "__main__":
    main()
