"""Snellen against the strongest ways to ask the same questions of one checkpoint on one machine.

    OMP_NUM_THREADS=1 python benchmarks/peers.py --vllm .venv-vllm/bin/vllm [--serve ARGUMENTS]
    python benchmarks/peers.py --vllm vllm --checkpoint ORG/NAME --images 16   # on a GPU

The arms take turns, each repetition with pictures that nobody has seen:

- transformers: plain batches of 8 prompts (``hf:`` with ``prefix=off``), as toolkits ask;
- hf: as ``snellen run --model hf:…`` does;
- vLLM alone: all questions at once through the client of OpenAI, which vLLM's prefix cache answers best; for
  likelihoods one request a name with ``prompt_logprobs``;
- vllm-local: as ``snellen run --model vllm-local:…`` does.

Without ``--checkpoint``, a LLaVA of 100 million random weights is written: speed does not depend on weights.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
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
#: Requests to vLLM alone under way.
AT_ONCE = 64
Arm = Callable[[Sequence[Request]], Awaitable[Any]]


def written(folder: Path) -> Path:
    """Write a LLaVA with random weights in the layout that servers read."""
    torch.manual_seed(0)
    # As many tokens as there are words for: others would be empty answers, at which vllm: stops.
    words = len(look_once.tokenizer(image_token="<image>"))
    model, processor = look_once.BUILDERS["llava"]({**look_once.SIZES["100m"], "vocabulary": words})
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


async def measure(arms: dict[str, Arm], options: argparse.Namespace) -> list[tuple[str, dict[str, float]]]:
    """Return the median seconds an image of each arm, for each workload."""
    rows, seed = [], 0
    chosen = {name: make for name, make in look_once.WORKLOADS.items() if name.startswith(ASKED)}
    for title, make in chosen.items():
        times: dict[str, list[float]] = {name: [] for name in arms}
        for repetition in range(-1, options.repeats):  # the first one warms up
            for name, ask in arms.items():
                seed += options.images
                pictures = [look_once.picture(seed + k) for k in range(options.images)]
                requests = [request for image in pictures for request in make(image)]
                began = time.perf_counter()
                replies = await ask(requests)
                took = time.perf_counter() - began
                for reply in replies:
                    if isinstance(reply, Response) and reply.outcome is Outcome.ERROR:
                        raise SystemExit(f"{name}: {reply.reason}")
                if repetition >= 0:
                    times[name].append(took / options.images)
        rows.append((title, {name: statistics.median(values) for name, values in times.items()}))
        told = ", ".join(f"{name} {value:.3f}" for name, value in rows[-1][1].items())
        print(f"{title}: {told}", file=sys.stderr, flush=True)
    return rows


def table(rows: Sequence[tuple[str, dict[str, float]]]) -> str:
    """A table in Markdown: seconds an image, and how many times as fast the best of Snellen's ways is."""
    names = list(rows[0][1])
    lines = [f"| seconds an image | {' | '.join(names)} | best of Snellen / best of the others |"]
    lines.append("|---" * (len(names) + 2) + "|")
    for title, seconds in rows:
        ours = min(seconds["hf"], seconds["vllm-local"])
        others = min(seconds["transformers"], seconds["vLLM alone"])
        cells = " | ".join(f"{seconds[name]:.3f}" for name in names)
        lines.append(f"| {title} | {cells} | {others / ours:.1f} times |")
    return "\n".join(lines)


async def run(folder: str, options: argparse.Namespace) -> str:
    """Load both models, measure, and return the table."""
    more = {"max_model_len": 4096, "serve": options.serve, "program": str(options.vllm)}
    dtype = {"dtype": "float32"} if not torch.cuda.is_available() else {}
    plain = cast("VisionLanguageModel", MODELS.make(f"hf:{folder}", {"prefix": "off", **dtype}))
    plain.batch_size = 8
    shared = cast("VisionLanguageModel", MODELS.make(f"hf:{folder}", dtype))
    served = cast("VllmLocal", MODELS.make(f"vllm-local:{folder}", {**more, **dtype}))
    try:
        async with served.connected():
            arms: dict[str, Arm] = {
                "transformers": plain.respond,
                "hf": shared.respond,
                "vLLM alone": alone(served),
                "vllm-local": served.respond,
            }
            for model in (plain, shared):
                model.load()
            return table(await measure(arms, options))
    finally:
        for each in (plain, shared, served):
            each.close()


def vllm_version(command: Path) -> str:
    """The version of vLLM, read off its packages."""
    found = sorted((command.resolve().parent.parent / "lib").glob("python3*/site-packages/vllm*.dist-info"))
    return found[0].name.removesuffix(".dist-info").partition("-")[2] if found else "unknown"


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vllm", type=Path, required=True, help="vLLM's command")
    parser.add_argument("--serve", default="", help="further arguments of vllm serve")
    parser.add_argument("--checkpoint", help="a folder or ORG/NAME instead of random weights")
    parser.add_argument("--images", type=int, default=4, help="pictures that are asked about together")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    quiet()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
    with tempfile.TemporaryDirectory() as name:
        folder = options.checkpoint or str(written(Path(name)))
        text = asyncio.run(run(folder, options))
    packages = ", ".join(f"{name} {version(name)}" for name in ("snellen", "transformers", "torch"))
    print(f"{packages}, vLLM {vllm_version(options.vllm)}; {options.images} images at once\n\n{text}")


if __name__ == "__main__":
    main()
