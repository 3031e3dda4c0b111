"""What a checkpoint does: whether answers depend on their batch, sums by brute force, sharing, rendering.

    python tests/measures.py NAME...    a row of docs/architectures.md for each

Without names: all. Each is measured in its own process, since some end theirs.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import snellen
import tiny
from helpers import made, picture
from snellen.errors import SnellenError
from snellen.models.base import Model
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.types import Kind, Outcome, Request, Response, ask

NAMES = ("cat", "car", "car tyre", "a much longer name, with a comma", "猫")
#: The sizes of batches that are compared with the first.
BATCHES = (1, 3, 16)
PROTOCOLS = ("closed-set", "binary", "open-world", "rank")
#: Seconds for one architecture.
PATIENCE = 400


@dataclass
class Measures:
    """Of one architecture; None where it was not measured.

    Attributes:
        refused: why the model is refused.
        way: of sharing.
        errors: reasons of answers that are errors.
        batch_texts: texts of 16 that differ between batches of 1 and of 3 or 16, whichever differ more.
        batch_scores, brute, share_scores: largest differences of log-likelihoods.
        share_texts: texts that differ with sharing.
        rendered: whether tokens equal those of transformers' own rendering.
        protocols: outcomes that are neither "ok" nor "unparsed", or an error, by protocol.
    """

    refused: str = ""
    way: str = ""
    errors: list[str] = field(default_factory=list)
    batch_texts: int | None = None
    batch_scores: float | None = None
    brute: float | None = None
    share_texts: int | None = None
    share_scores: float | None = None
    rendered: bool | None = None
    protocols: dict[str, str] = field(default_factory=dict)


def questions(kind: Kind = Kind.GENERATE) -> list[Request]:
    """Ragged prompts over pictures of several colors and shapes."""
    shapes = [(48, 48), (90, 40), (33, 70)]
    texts = ["What?", "What type of object is in this photo?", "Is it a cat? " * 9]
    asked = []
    for i in range(16):
        image = picture(["red", "green", "blue", "white"][i % 4], shapes[i % 3])
        request = ask((image,), texts[i % 3] + " " * (i % 2) + "cat" * (i % 5), kind=kind, max_tokens=6)
        asked.append(replace(request, continuations=NAMES if kind is Kind.SCORE else ()))
    return asked


def shared(kind: Kind = Kind.GENERATE) -> list[Request]:
    """Several questions about each of three pictures."""
    asked = []
    for color, size in (("red", (90, 40)), ("blue", (48, 48)), ("white", (33, 70))):
        image = picture(color, size)
        for words in ("What is it?", "What is it", "What is it? " * 30, "Is it a cat?", "Is it a dog?"):
            request = ask((image,), words, kind=kind, max_tokens=7)
            asked.append(replace(request, continuations=NAMES if kind is Kind.SCORE else ()))
    return asked


def answers(model: Model, requests: Sequence[Request], batch: int) -> list[Response]:
    model.batch_size = batch
    return asyncio.run(model.respond(requests))


def measure(folder: Path, workspace: Path) -> Measures:
    """Measure a checkpoint."""
    found = Measures()
    try:
        plain = made(VisionLanguageModel, f"hf:{folder}?prefix=off")
        plain.load()
        sharing = made(VisionLanguageModel, f"hf:{folder}")
        sharing.load()
    except SnellenError as error:
        return Measures(refused=str(error))
    found.way = str(sharing.sharing.way)
    one, *batched = (answers(plain, questions(), batch) for batch in BATCHES)
    found.errors = errors([reply for replies in (one, *batched) for reply in replies])
    found.batch_texts = max(different(one, replies) for replies in batched)
    alone, together = (answers(model, shared(), 4) for model in (plain, sharing))
    found.errors += errors(alone + together)
    found.share_texts = different(alone, together)
    if Kind.SCORE in plain.kinds:
        one, *batched = (answers(plain, questions(Kind.SCORE), batch) for batch in BATCHES)
        both = [answers(model, shared(Kind.SCORE), 4) for model in (plain, sharing)]
        found.errors += errors([reply for replies in (one, *batched, *both) for reply in replies])
        if not found.errors:
            found.batch_scores = max(apart(one, replies) for replies in batched)
            found.share_scores = apart(*both)
            found.brute = brute(plain, one)
    found.rendered = rendered_alike(plain)
    for protocol in PROTOCOLS if Kind.SCORE in plain.kinds else PROTOCOLS[:-1]:
        found.protocols[protocol] = outcome(folder, protocol, workspace)
    return found


def errors(replies: Sequence[Response]) -> list[str]:
    return sorted({reply.reason[:160] for reply in replies if reply.outcome is Outcome.ERROR})


def different(one: Sequence[Response], other: Sequence[Response]) -> int:
    return sum(a.text != b.text for a, b in zip(one, other, strict=True))


def values(replies: Sequence[Response]) -> torch.Tensor:
    return torch.tensor([[score.value for score in r.scores] for r in replies], dtype=torch.float64)


def apart(one: Sequence[Response], other: Sequence[Response]) -> float:
    return float((values(one) - values(other)).abs().max())


def brute(model: VisionLanguageModel, scored: Sequence[Response]) -> float:
    """The largest difference to sums from the full logits: one row, no padding, no cache."""
    chat, processor, worst = model.chat, model.processor, 0.0
    for request, reply in zip(questions(Kind.SCORE)[:3], scored[:3], strict=True):
        prompt = chat.prompt(request.messages)
        special = chat.adds_special_tokens(prompt)
        for name, score in zip(NAMES, reply.scores, strict=True):
            text = prompt + chat.continuation(request.messages, name)
            images = [[image.pixels for image in request.images]]
            inputs = processor(text=[text], images=images, return_tensors="pt", add_special_tokens=special)
            inputs.pop("labels", None)
            inputs = model.on_device(inputs)
            with torch.inference_mode():
                logits = model.decoder(**inputs).logits[0].double()
            ids = inputs["input_ids"][0]
            steps = torch.log_softmax(logits, -1)[:-1].gather(-1, ids[1:, None])[:, 0]
            worst = max(worst, abs(float(steps[-score.tokens :].sum()) - score.value))
    return worst


def rendered_alike(model: VisionLanguageModel) -> bool | None:
    processor = model.processor
    if not getattr(processor, "chat_template", None):
        return None
    request = questions()[1]
    ours = model.process(model.prompt(request.messages), request.images)["input_ids"][0].tolist()
    parts = [{"type": "image", "image": request.images[0].pixels}]
    parts += [{"type": "text", "text": request.messages[-1].text}]
    theirs = processor.apply_chat_template(
        [{"role": "user", "content": parts}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )["input_ids"][0].tolist()
    return bool(ours == theirs)


def outcome(folder: Path, protocol: str, workspace: Path) -> str:
    try:
        run = snellen.run(
            model=f"hf:{folder}", data="chart:shapes", protocol=protocol, limit=3, workspace=workspace
        )
    except SnellenError as error:
        return str(error)[:200]
    wrong = {k: n for k, n in run.metrics.outcomes.items() if n and k not in ("ok", "unparsed", "truncated")}
    return ", ".join(f"{n} {k}" for k, n in wrong.items())


def names() -> list[str]:
    """All architectures that this environment has."""
    more = []
    if find_spec("torchvision") is not None:
        import zoo

        more = list(zoo.ZOO)
    return [*tiny.ARCHITECTURES, *more]


def saved(name: str, folder: Path) -> Path:
    """Build a checkpoint of an architecture."""
    if name in tiny.ARCHITECTURES:
        return tiny.save(name, folder)
    import zoo

    return Path(zoo.save(name, folder))


def row(name: str, found: dict[str, Any]) -> str:
    """A row of the table."""

    def shown(value: Any) -> str:
        if value is None:
            return "–"
        return f"{value:.0e}" if isinstance(value, float) else str(value)

    wrong = "; ".join(f"{protocol}: {why}" for protocol, why in found["protocols"].items() if why)
    note = found["refused"] or "; ".join(found["errors"]) or wrong
    figures = ("batch_texts", "batch_scores", "brute", "share_texts", "share_scores")
    cells = [f"`{name}`", found["way"] or "–", *(shown(found[figure]) for figure in figures), note or "–"]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def main() -> int:
    """Measure the named architectures, each in its own process, and print their rows."""
    if sys.argv[1:2] == ["--one"]:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = saved(sys.argv[2], Path(folder) / "checkpoint")
            print("MEASURES " + json.dumps(asdict(measure(checkpoint, Path(folder) / "workspace"))))
        return 0
    for name in sys.argv[1:] or names():
        command = [sys.executable, __file__, "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        line = next((text for text in done.stdout.splitlines() if text.startswith("MEASURES ")), None)
        if line is None:
            last = (done.stderr.strip() or "?").splitlines()[-1][:200]
            found = asdict(Measures(refused=f"could not be measured: {last}"))
        else:
            found = json.loads(line.removeprefix("MEASURES "))
        print(row(name, found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
