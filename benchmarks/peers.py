"""Snellen against the strongest ways to ask the same questions of one checkpoint on one machine.

    OMP_NUM_THREADS=1 python benchmarks/peers.py --vllm .venv-vllm/bin/vllm [--serve ARGUMENTS]
    OMP_NUM_THREADS=1 python benchmarks/peers.py --lmms-eval .venv-lmms/bin/python --size 16m --images 8
    OMP_NUM_THREADS=1 python benchmarks/peers.py --lmms-eval PYTHON --size 16m --images 8 --whole
    python benchmarks/peers.py --vllm vllm --checkpoint ORG/NAME --images 16   # on a GPU

The arms take turns, each repetition with pictures that nobody has seen:

- transformers: plain batches of 8 prompts (``hf:`` with ``prefix=off``), as toolkits ask;
- hf: as ``snellen run --model hf:…`` does;
- LMMs-Eval (``--lmms-eval``, a Python that has it): its own model of LLaVA, prompt by prompt;
- vLLM alone (``--vllm``): all questions at once through the client of OpenAI, which vLLM's prefix cache
  answers best; for likelihoods one request a name with ``prompt_logprobs``;
- vllm-local (``--vllm``): as ``snellen run --model vllm-local:…`` does.

``--whole`` measures processes from their start to their end instead: ``snellen run`` over a folder,
everything stored, and LMMs-Eval's model asked the same closed set, in turn.

Without ``--checkpoint``, a LLaVA of random weights is written: speed does not depend on weights. The script
says for how many prompts an arm wrote another text than hf.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import look_once
import torch

from snellen.images import Image
from snellen.models.base import MODELS
from snellen.models.huggingface.checkpoint import quiet
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.models.remote.local_server import VllmLocal
from snellen.tuning.layout import for_servers
from snellen.types import Kind, Outcome, Request, Response

#: What is asked of each picture: those of look_once.py whose titles begin so.
ASKED = ("closed set", "20 yes/no questions, 4", "4 rotations", "likelihood of 20")
#: The arms that are Snellen.
OURS = ("hf", "vllm-local")
#: Requests to vLLM alone under way.
AT_ONCE = 64
Arm = Callable[[Sequence[Request]], Awaitable[Any]]


def written(folder: Path, size: str) -> Path:
    """Write a LLaVA with random weights in the layout that servers read."""
    torch.manual_seed(0)
    # As many tokens as there are words for: others would be empty answers, at which vllm: stops.
    words = len(look_once.tokenizer(image_token="<image>"))
    model, processor = look_once.BUILDERS["llava"]({**look_once.SIZES[size], "vocabulary": words})
    model.generation_config.eos_token_id = look_once.EOS
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    for_servers(folder)
    return folder


def content(request: Request) -> list[dict[str, Any]]:
    """A request's messages, as OpenAI's clients send them."""

    def part(item: Any) -> dict[str, Any]:
        if isinstance(item, Image):
            url = f"data:image/png;base64,{base64.b64encode(item.data).decode()}"
            return {"type": "image_url", "image_url": {"url": url}}
        return {"type": "text", "text": item}

    return [{"role": m.role, "content": [part(item) for item in m.content]} for m in request.messages]


def alone(server: VllmLocal) -> Arm:
    """The server of vLLM, asked through OpenAI's client."""
    import openai

    async def ask(requests: Sequence[Request]) -> list[Any]:
        turn = asyncio.Semaphore(AT_ONCE)
        async with openai.AsyncOpenAI(
            api_key=server.transport.key.value, base_url=server.server.address, timeout=600
        ) as client:

            async def one(messages: Any, **options: Any) -> Any:
                async with turn:
                    return await client.chat.completions.create(
                        model=server.model, messages=messages, temperature=0, **options
                    )

            calls = []
            for request in requests:
                messages = content(request)
                if request.kind is not Kind.SCORE:
                    calls.append(one(messages, max_tokens=request.decoding.max_tokens))
                    continue
                more = {"continue_final_message": True, "add_generation_prompt": False, "prompt_logprobs": 0}
                for name in request.continuations:
                    said = [*messages, {"role": "assistant", "content": name}]
                    calls.append(one(said, max_tokens=1, extra_body=more))
            return await asyncio.gather(*calls)

    return ask


class Unable(Exception):
    """An arm cannot answer such requests."""


class LmmsEval:
    """LMMs-Eval in a separate process (see ``lmms_worker.py``).

    Args:
        python: an environment's, that has LMMs-Eval.
        folder: the checkpoint.
    """

    #: As look_once's, for messages of text alone.
    TEMPLATE = (
        "{% for m in messages %}{{ m['role'].upper() + ': ' + m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )

    def __init__(self, python: Path, folder: str) -> None:
        worker = Path(__file__).with_name("lmms_worker.py")
        gpu = torch.cuda.is_available()
        words = [folder, *(("cuda", "auto") if gpu else ("cpu", "float32")), self.TEMPLATE]
        self._process = subprocess.Popen(
            [str(python), str(worker), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.version = self._line()

    def _line(self) -> Any:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"LMMs-Eval ended with {self._process.wait()}")
        return json.loads(line)

    async def __call__(self, requests: Sequence[Request]) -> list[Any]:
        """Its texts, and the losses of names."""
        images = list(dict.fromkeys(image for request in requests for image in request.images))
        asked = [
            [images.index(r.images[0]), r.messages[-1].text, r.decoding.max_tokens, list(r.continuations)]
            for r in requests
        ]
        told = {"images": [base64.b64encode(image.data).decode() for image in images], "asked": asked}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        found: Any = await asyncio.to_thread(self._line)
        if isinstance(found, dict):
            raise Unable(found["error"])
        return list(found)

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()


def text_of(reply: Any) -> str | None:
    """What an arm wrote; None for likelihoods."""
    if isinstance(reply, Response):
        return None if reply.scores else reply.text.strip()
    if isinstance(reply, str | float):
        return reply.strip() if isinstance(reply, str) else None
    return str(reply.choices[0].message.content).strip() if reply.prompt_logprobs is None else None


def differing(found: dict[str, list[str | None]]) -> str:
    """Which arms wrote other texts than hf, and how many."""
    told = []
    for name, texts in found.items():
        others = sum(a != b for a, b in zip(texts, found["hf"], strict=False) if b is not None)
        told += [f"{name} {others} of {len(texts)}"] * bool(others)
    return ", ".join(told)


async def measure(arms: dict[str, Arm], options: argparse.Namespace) -> list[tuple[str, dict[str, float]]]:
    """Return the median seconds an image of each arm, for each workload."""
    rows, seed = [], 0
    chosen = {name: make for name, make in look_once.WORKLOADS.items() if name.startswith(ASKED)}
    for title, make in chosen.items():
        able = dict(arms)
        times: dict[str, list[float]] = {name: [] for name in arms}
        for repetition in range(-1, options.repeats):  # the first one warms up, and all see the same
            found = {}
            for name, ask in list(able.items()):
                seed += options.images * (repetition >= 0)
                pictures = [look_once.picture(seed + k) for k in range(options.images)]
                requests = [request for image in pictures for request in make(image)]
                began = time.perf_counter()
                try:
                    replies = await ask(requests)
                except Unable as error:
                    print(f"{title}: {name}: {error}", file=sys.stderr, flush=True)
                    del able[name]
                    continue
                took = time.perf_counter() - began
                for reply in replies:
                    if isinstance(reply, Response) and reply.outcome is Outcome.ERROR:
                        raise SystemExit(f"{name}: {reply.reason}")
                found[name] = [text_of(reply) for reply in replies]
                if repetition >= 0:
                    times[name].append(took / options.images)
            if repetition < 0 and (told := differing(found)):
                print(f"{title}: other texts than hf: {told}", file=sys.stderr, flush=True)
        rows.append((title, {n: statistics.median(each) if each else math.inf for n, each in times.items()}))
        told = ", ".join(f"{name} {value:.3f}" for name, value in rows[-1][1].items())
        print(f"{title}: {told}", file=sys.stderr, flush=True)
    return rows


def table(rows: Sequence[tuple[str, dict[str, float]]]) -> str:
    """A table in Markdown: seconds an image, and how many times as fast the best of Snellen's ways is."""
    names = list(rows[0][1])
    lines = [f"| seconds an image | {' | '.join(names)} | best of Snellen / best of the others |"]
    lines.append("|---" * (len(names) + 2) + "|")
    for title, seconds in rows:
        ours = min(seconds[name] for name in names if name in OURS)
        others = min(seconds[name] for name in names if name not in OURS)
        cells = " | ".join(f"{value:.3f}" if value < math.inf else "–" for value in seconds.values())
        lines.append(f"| {title} | {cells} | {others / ours:.1f} times |")
    return "\n".join(lines)


async def run(folder: str, options: argparse.Namespace) -> str:
    """Load the models, measure, and return the table."""
    dtype = {"dtype": "float32"} if not torch.cuda.is_available() else {}
    plain = cast("VisionLanguageModel", MODELS.make(f"hf:{folder}", {"prefix": "off", **dtype}))
    plain.batch_size = 8
    shared = cast("VisionLanguageModel", MODELS.make(f"hf:{folder}", dtype))
    arms: dict[str, Arm] = {"transformers": plain.respond, "hf": shared.respond}
    async with AsyncExitStack() as stack:
        for model in (plain, shared):
            stack.callback(model.close)
            model.load()
        if options.lmms_eval:
            peer = LmmsEval(options.lmms_eval, folder)
            stack.callback(peer.close)
            arms[f"LMMs-Eval {peer.version}"] = peer
        if options.vllm:
            more = {"max_model_len": 4096, "serve": options.serve, "program": str(options.vllm)}
            served = cast("VllmLocal", MODELS.make(f"vllm-local:{folder}", {**more, **dtype}))
            stack.callback(served.close)
            await stack.enter_async_context(served.connected())
            arms |= {"vLLM alone": alone(served), "vllm-local": served.respond}
        return table(await measure(arms, options))


def whole(folder: str, top: Path, options: argparse.Namespace) -> str:
    """Seconds that whole processes take for a closed set of 21 names in five rounds."""
    names = look_once.NAMES[:21]
    times: dict[str, list[float]] = {"snellen run": [], "LMMs-Eval": []}
    for repetition in range(options.repeats):
        photos = top / f"photos-{repetition}"
        pictures = [look_once.picture(1000 * repetition + k) for k in range(max(len(names), options.images))]
        for k, image in enumerate(pictures):
            place = photos / names[k % len(names)] / f"{k}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(image.data)
        command = [sys.executable, "-m", "snellen", "run", "--model", f"hf:{folder}", "-M", "dtype=float32"]
        command += ["--data", f"folder:{photos}", "--protocol", "closed-set?rounds=5&max_tokens=8"]
        command += ["--limit", str(options.images), "--workspace", str(top / f"workspace-{repetition}")]
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times["snellen run"].append(time.perf_counter() - began)
        began = time.perf_counter()
        peer = LmmsEval(options.lmms_eval, folder)
        asyncio.run(peer([r for image in pictures[: options.images] for r in look_once.closed_set(image, 8)]))
        peer.close()
        times["LMMs-Eval"].append(time.perf_counter() - began)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    told = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    return f"{told}: {seconds['LMMs-Eval'] / seconds['snellen run']:.1f} times"


def vllm_version(command: Path) -> str:
    """The version of vLLM, read off its packages."""
    found = sorted((command.resolve().parent.parent / "lib").glob("python3*/site-packages/vllm*.dist-info"))
    return found[0].name.removesuffix(".dist-info").partition("-")[2] if found else "unknown"


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vllm", type=Path, help="vLLM's command")
    parser.add_argument("--lmms-eval", type=Path, help="a Python that has LMMs-Eval")
    parser.add_argument("--serve", default="", help="further arguments of vllm serve")
    parser.add_argument("--checkpoint", help="a folder or ORG/NAME instead of random weights")
    parser.add_argument("--whole", action="store_true", help="whole processes (needs --lmms-eval)")
    parser.add_argument("--size", default="100m", choices=list(look_once.SIZES), help="of those weights")
    parser.add_argument("--images", type=int, default=4, help="pictures that are asked about together")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    quiet()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    with tempfile.TemporaryDirectory() as name:
        folder = options.checkpoint or str(written(Path(name), options.size))
        text = whole(folder, Path(name), options) if options.whole else asyncio.run(run(folder, options))
    packages = ", ".join(f"{name} {version(name)}" for name in ("snellen", "transformers", "torch"))
    server = f", vLLM {vllm_version(options.vllm)}" if options.vllm else ""
    print(f"{packages}{server}; {options.images} images at once\n\n{text}")


if __name__ == "__main__":
    main()
