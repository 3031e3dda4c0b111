"""Many questions for the price of one look: prefix sharing against batches that share nothing.

    OMP_NUM_THREADS=1 python benchmarks/look_once.py                  # about 20 minutes of one core
    python benchmarks/look_once.py --architectures llava --repeats 3  # a part of it
    python benchmarks/look_once.py --pico                             # the engine's own overhead

Models have random weights and are built from configurations alone: speed does not depend on weights, and
neither does whether two ways agree. All arms run through the same model object, in turn, on the same
threads and the same route for matrix products, each repetition about a picture that was not seen before.

- plain: ``prefix=off``, batches of 8 prompts, as toolkits do it;
- one by one: the prefix computed once, and then name after name (Zhang et al., arXiv 2405.18415);
- shared: as ``snellen run`` does it.

The floor is the arithmetic of one look and of all tokens that follow it, each counted once, over the rate
of matrix products measured in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from snellen.images import Image, encode
from snellen.models.huggingface.checkpoint import Checkpoint, quiet
from snellen.models.huggingface.options import PrefixMode
from snellen.models.huggingface.pixels import without_torchvision
from snellen.models.huggingface.prefix_cache.prefill import Prefix
from snellen.models.huggingface.prefix_cache.rows import BatchedSuffixes
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.prompts import BINARY, CLOSED_SET, MULTIPLE_CHOICE, OPEN_WORLD, fill
from snellen.types import Kind, Request, Response, ask

PAD, BOS, EOS = 0, 1, 2
PIXELS = 336

SIZES = {
    "16m": {
        "vision": {"hidden": 256, "layers": 6, "heads": 4, "inner": 1024},
        "text": {"hidden": 384, "layers": 5, "heads": 6, "kv": 6, "inner": 1024},
        "vocabulary": 4000,
    },
    "100m": {
        "vision": {"hidden": 512, "layers": 12, "heads": 8, "inner": 2048},
        "text": {"hidden": 768, "layers": 8, "heads": 12, "kv": 12, "inner": 2048},
        "vocabulary": 32000,
    },
    "7b": {
        "vision": {"hidden": 1024, "layers": 24, "heads": 16, "inner": 4096},
        "text": {"hidden": 4096, "layers": 32, "heads": 32, "kv": 32, "inner": 11008},
        "vocabulary": 32000,
    },
}

# ── what is asked ───────────────────────────────────────────────────────────────────────────────────

rng = random.Random("snellen/look-once")
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
WORDS = sorted({"".join(rng.choices(SYLLABLES, k=rng.randint(1, 3))) for _ in range(900)})
#: A thousand names of one to four words, as ImageNet's: some begin alike, one is the beginning of another.
NAMES = sorted(
    {" ".join(rng.choices(WORDS, k=rng.choices((1, 2, 3, 4), (30, 45, 20, 5))[0])) for _ in range(1200)}
)[:1000]


def closed_set(image: Image, new: int) -> list[Request]:
    """Five rounds of 21 names."""
    names = NAMES[:21]
    lists = [random.Random(turn).sample(names, len(names)) for turn in range(5)]
    return [ask((image,), fill(CLOSED_SET, names=", ".join(row)), max_tokens=new) for row in lists]


def yes_no(image: Image, new: int) -> list[Request]:
    """Twenty questions."""
    return [ask((image,), fill(BINARY, name=name), max_tokens=new) for name in NAMES[:20]]


def rotations(image: Image, new: int) -> list[Request]:
    """Four rotations of four options."""
    options = NAMES[30:34]
    turned = [options[i:] + options[:i] for i in range(4)]
    texts = ["\n".join(f"{c}. {o}" for c, o in zip("ABCD", row, strict=True)) for row in turned]
    question = "Which of these is shown in the picture?"
    filled = [fill(MULTIPLE_CHOICE, question=question, options=text) for text in texts]
    return [ask((image,), text, max_tokens=new) for text in filled]


def likelihood(image: Image, count: int) -> list[Request]:
    """One question with so many names."""
    return [ask((image,), OPEN_WORLD[0], kind=Kind.SCORE, continuations=tuple(NAMES[:count]))]


WORKLOADS: dict[str, Callable[[Image], list[Request]]] = {
    "closed set, 21 names x 5 rounds, 8 tokens": lambda image: closed_set(image, 8),
    "20 yes/no questions, 1 token": lambda image: yes_no(image, 1),
    "20 yes/no questions, 4 tokens": lambda image: yes_no(image, 4),
    "4 rotations of a choice, 4 tokens": lambda image: rotations(image, 4),
    "likelihood of 20 names": lambda image: likelihood(image, 20),
    "likelihood of 100 names": lambda image: likelihood(image, 100),
    "likelihood of 1,000 names": lambda image: likelihood(image, 1000),
}
#: Of which the plain way is measured with 100 names and multiplied.
EXTRAPOLATED = "likelihood of 1,000 names"

# ── the models ──────────────────────────────────────────────────────────────────────────────────────


def tokenizer(*special: str, **named: str) -> Any:
    """Byte-level BPE in which the words that are asked about are about a token each."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        special_tokens=["<pad>", "<s>", "</s>", "<unk>", *special, *named.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    prompts = [CLOSED_SET, BINARY, MULTIPLE_CHOICE, *OPEN_WORLD, "Which of these is shown in the picture?"]
    inner.train_from_iterator([*NAMES, *(f" {name}" for name in NAMES), *prompts * 5] * 5, trainer)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=named,
    )


def template(image: str) -> str:
    """A plain chat template."""
    return (
        "{% for m in messages %}{{ m['role'].upper() + ': ' }}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}" + image + "{% else %}{{ c['text'] }}{% endif %}{% endfor %}\n"
        "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )


def llava(size: dict[str, Any]) -> tuple[Any, Any]:
    """A CLIP tower of 336 pixels (576 image tokens), a projector, and a Llama."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tok = tokenizer(image_token="<image>")
    vision, text = size["vision"], size["text"]
    config = hf.LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": vision["hidden"],
            "intermediate_size": vision["inner"],
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["heads"],
            "image_size": PIXELS,
            "patch_size": 14,
        },
        text_config={"model_type": "llama", **_text(text, size["vocabulary"])},
        image_token_index=tok.image_token_id,
    )
    square = {"height": PIXELS, "width": PIXELS}
    processor = hf.LlavaProcessor(
        CLIPImageProcessorPil(size=square, crop_size=square, do_center_crop=False),
        tok,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>\n"),
    )
    return hf.LlavaForConditionalGeneration._from_config(config), processor


def qwen2_vl(size: dict[str, Any]) -> tuple[Any, Any]:
    """Patches merged two by two (144 image tokens) and positions in three axes."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    names = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    tok = tokenizer(*names)
    start, end, image, movie = tok.convert_tokens_to_ids(list(names))
    vision, text = size["vision"], size["text"]
    half = text["hidden"] // text["heads"] // 2
    rope = {
        "rope_type": "default",
        "rope_theta": 1e6,
        "mrope_section": [half // 4, half * 3 // 8, half - half // 4 - half * 3 // 8],
    }
    config = hf.Qwen2VLConfig(
        text_config={**_text(text, size["vocabulary"]), "rope_parameters": rope},
        vision_config={
            "depth": vision["layers"],
            "embed_dim": vision["hidden"],
            "hidden_size": text["hidden"],
            "num_heads": vision["heads"],
            "mlp_ratio": 4,
        },
        image_token_id=image,
        video_token_id=movie,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    limits = {"shortest_edge": 28 * 28, "longest_edge": PIXELS * PIXELS}
    if find_spec("torchvision") is not None:
        videos = hf.Qwen2VLVideoProcessor()
    else:
        without_torchvision()
        from transformers.models.auto.video_processing_auto import AutoVideoProcessor

        videos = AutoVideoProcessor.from_pretrained("")
    processor = hf.Qwen2VLProcessor(
        Qwen2VLImageProcessorPil(size=limits),
        tok,
        videos,
        chat_template=template("<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return hf.Qwen2VLForConditionalGeneration._from_config(config), processor


def _text(size: dict[str, int], vocabulary: int) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary,
        "hidden_size": size["hidden"],
        "intermediate_size": size["inner"],
        "num_hidden_layers": size["layers"],
        "num_attention_heads": size["heads"],
        "num_key_value_heads": size["kv"],
        "max_position_embeddings": 8192,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    }


BUILDERS = {"llava": llava, "qwen2_vl": qwen2_vl}


def build(architecture: str, options: argparse.Namespace) -> tuple[VisionLanguageModel, VisionLanguageModel]:
    """The same weights behind both ways: shared, and plain."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, options.dtype))
    try:
        with torch.device(options.device):
            model, processor = BUILDERS[architecture](SIZES[options.size])
    finally:
        torch.set_default_dtype(before)
    with tempfile.TemporaryDirectory() as folder:  # the processor and the configuration; not the weights
        processor.save_pretrained(folder)
        model.config.save_pretrained(folder)
        found = []
        ways: list[tuple[PrefixMode, int]] = [("auto", options.images or 16), ("off", 8)]
        for prefix, batch in ways:
            checkpoint = Checkpoint.find(
                f"{architecture} {prefix}", folder, dtype=options.dtype, device=options.device
            )
            vlm = VisionLanguageModel(checkpoint, prefix, options.budget)
            vlm.batch_size = batch
            load(vlm, model.eval())
            found.append(vlm)
    return found[0], found[1]


def load(vlm: VisionLanguageModel, model: Any) -> None:
    """Load a model with these weights instead of a checkpoint's, which would have to be written first."""
    real = Checkpoint.load
    try:
        Checkpoint.load = lambda self, auto_class: model  # type: ignore[method-assign]
        model.generation_config = hf.GenerationConfig(pad_token_id=PAD, eos_token_id=EOS)
        vlm.load()
    finally:
        Checkpoint.load = real  # type: ignore[method-assign]


def picture(seed: int) -> Image:
    """Clouds that nobody has seen."""
    import numpy as np
    from PIL import Image as pillow

    clouds = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    data = encode(pillow.fromarray(clouds).resize((PIXELS, PIXELS), pillow.Resampling.BICUBIC))
    image = Image(lambda: data, f"clouds {seed}")
    _ = image.pixels, image.sha256  # decoding is nobody's
    return image


# ── the arms ────────────────────────────────────────────────────────────────────────────────────────


def answered(model: VisionLanguageModel, requests: Sequence[Request]) -> list[Response]:
    """As the engine asks it."""
    return asyncio.run(model.respond(requests))


def one_by_one(model: VisionLanguageModel, request: Request) -> list[float]:
    """The prefix once, and then a forward pass for each name."""
    with torch.inference_mode():
        question = model.sharing.question(request)
        prefix = Prefix(model.decoder, [question.look], [question.ids], len(question.ids))
        return [BatchedSuffixes(prefix, [(0, tail)]).likelihoods([0])[0] for tail in question.tails]


def decisions(responses: Sequence[Response]) -> list[Any]:
    """What a protocol would read off."""
    return [
        max(range(len(r.scores)), key=lambda i: r.scores[i].value) if r.scores else r.text for r in responses
    ]


def seconds(run: Callable[[], Any], device: str) -> tuple[float, Any]:
    """How long it takes, and what it gives."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    found = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, found


# ── the floor ───────────────────────────────────────────────────────────────────────────────────────


def rate(size: dict[str, Any], options: argparse.Namespace) -> float:
    """Operations a second of the decoder's widest product, over a look's rows; the best of some."""
    text = size["text"]
    dtype = getattr(torch, options.dtype)
    a = torch.randn(576, text["hidden"], dtype=dtype, device=options.device)
    b = torch.randn(text["inner"], text["hidden"], dtype=dtype, device=options.device)
    best = min(seconds(lambda: torch.nn.functional.linear(a, b), options.device)[0] for _ in range(30))
    return 2 * a.shape[0] * a.shape[1] * b.shape[0] / best


def operations(model: VisionLanguageModel, requests: Sequence[Request], generated: int) -> float:
    """Of one look, all tokens of a forest that follow it, and those that were generated."""
    sharing = model.sharing
    with torch.inference_mode():
        questions = [sharing.question(request) for request in requests]
    stems = [q.ids + tail[:-1] for q in questions for tail in (q.tails or ([],))]
    nodes = len({tuple(stem[: i + 1]) for stem in stems for i in range(len(stem))})
    predicted = sum(len(tail) for q in questions for tail in q.tails) or generated
    decoder = model.decoder
    dense = {
        name: module.weight.numel()
        for name, module in decoder.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    head = decoder.get_output_embeddings().weight.numel()
    tower = sum(size for name, size in dense.items() if "vision" in name or "visual" in name)
    joint = sum(size for name, size in dense.items() if "projector" in name or "merger" in name)
    language = sum(dense.values()) - tower - joint - head
    images = decoder.config.image_token_id
    pooled = sum(token == images for token in questions[0].ids)
    patches = (PIXELS // 14) ** 2
    # Attention: the scores and the weighted sum, of each token over what stands before it.
    text = decoder.config.get_text_config()
    length = len(questions[0].ids)
    seen = length * (length + 1) / 2 + (nodes + generated - length) * length
    attention = 4 * text.hidden_size * text.num_hidden_layers * seen
    vision = decoder.config.vision_config
    width = getattr(vision, "embed_dim", None) or vision.hidden_size
    depth = getattr(vision, "depth", None) or vision.num_hidden_layers
    attention += 4 * width * depth * patches**2
    tokens = nodes + generated
    return 2 * (tower * patches + joint * pooled + language * tokens + head * predicted) + attention


# ── the tables ──────────────────────────────────────────────────────────────────────────────────────


def median(values: Sequence[float]) -> str:
    """With the spread."""
    return f"{statistics.median(values):.3g} ({min(values):.3g}-{max(values):.3g})"


def compare(architecture: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All workloads, arms in turn."""
    shared, plain = build(architecture, options)
    parameters = sum(p.numel() for p in shared.decoder.parameters())
    print(
        f"\n{architecture}: {parameters / 1e6:.0f} M parameters, {options.dtype} on {options.device}, "
        f"{torch.get_num_threads()} thread(s), {shared.sharing.findings}, "
        f"products by the {shared.metadata().get('matmul', 'usual')} route"
    )
    rows = []
    hundred: list[float] = []
    for number, (title, make) in enumerate(WORKLOADS.items()):
        if options.only and options.only not in title:
            continue
        row: dict[str, Any] = {"workload": title}
        for arm in ("plain", "one by one", "shared", "together", "floor"):
            row[arm] = []
        for repeat in range(options.repeats):
            image = picture(1000 * number + repeat)
            requests = make(image)
            took, ours = seconds(partial(answered, shared, requests), options.device)
            row["shared"].append(took)
            if title == EXTRAPOLATED and hundred:
                row["plain"].append(10 * hundred[repeat])
            else:
                took, theirs = seconds(partial(answered, plain, requests), options.device)
                row["plain"].append(took)
                check(title, ours, theirs, options.dtype)
            if requests[0].kind is Kind.SCORE:
                took, again = seconds(partial(one_by_one, shared, requests[0]), options.device)
                row["one by one"].append(took)
                assert decisions(ours) == [max(range(len(again)), key=again.__getitem__)]
            count = shared.sharing.images
            many = [r for i in range(count) for r in make(picture(1000 * number + 100 * repeat + 100 + i))]
            took, _ = seconds(partial(answered, shared, many), options.device)
            row["together"].append(took / count)
            generated = sum(r.completion_tokens for r in ours)
            work = operations(shared, requests, generated - len(ours) if generated else 0)
            row["floor"].append(work / rate(SIZES[options.size], options))
        if title == "likelihood of 100 names":
            hundred = row["plain"]
        rows.append(row)
        report(row, shared.sharing.images)
    return rows


def report(row: dict[str, Any], images: int) -> None:
    """One workload's medians and spreads."""

    def over(one: str, other: str) -> str:
        return median([a / b for a, b in zip(row[one], row[other], strict=True)])

    mark = ", extrapolated from 100 names" if row["workload"] == EXTRAPOLATED else ""
    print(f"  {row['workload']}, seconds an image:")
    print(f"    plain {median(row['plain'])}{mark}")
    print(f"    shared {median(row['shared'])}: {over('plain', 'shared')} times")
    if row["one by one"]:
        ratio = over("one by one", "shared")
        print(f"    one by one {median(row['one by one'])}: shared is {ratio} times as fast")
    print(f"    {images} images together {median(row['together'])}: {over('plain', 'together')} times")
    print(
        f"    floor {median(row['floor'])}: shared takes {over('shared', 'floor')} of it, "
        f"together {over('together', 'floor')}",
        flush=True,
    )


def check(title: str, ours: Sequence[Response], theirs: Sequence[Response], dtype: str) -> None:
    """Both ways must decide alike; in half precision, log-likelihoods alone are compared, roughly."""
    if dtype == "float32":
        assert decisions(ours) == decisions(theirs), f"{title}: the two ways decide differently"
    for a, b in zip(ours, theirs, strict=True):
        apart = max((abs(x.value - y.value) for x, y in zip(a.scores, b.scores, strict=True)), default=0.0)
        assert apart < (1e-3 if dtype == "float32" else 1.0), f"{title}: log-likelihoods differ by {apart}"


def overhead(options: argparse.Namespace) -> None:
    """The built-in model end to end, both ways: items a second, the model's share, and the processor time
    of the thread in which the engine runs (driver, keys, store, reading answers). Pictures are drawn and
    prepared in a third thread.
    """
    from snellen.runs.filters import Filters
    from snellen.runs.plan import Plan

    spent = [0.0]
    real = VisionLanguageModel.answer

    def timed(self: VisionLanguageModel, requests: Sequence[Request]) -> list[Response]:
        took, found = seconds(lambda: real(self, requests), "cpu")
        spent[0] += took
        return found

    VisionLanguageModel.answer = timed  # type: ignore[method-assign]
    n = 560
    print(f"\npico:llava, end to end, {n} samples")
    for protocol in ("closed-set", "binary", "rank"):
        found: dict[str, list[tuple[float, float, float]]] = {"auto": [], "off": []}
        for _ in range(options.repeats):
            for prefix, rows in found.items():
                at: list[tuple[float, int]] = []
                spent[0] = 0.0

                def watch(_: Any, state: Any, at: list[tuple[float, int]] = at) -> None:
                    at.append((time.thread_time(), state.done))

                with tempfile.TemporaryDirectory() as folder:
                    model = f"pico:llava?prefix={prefix}"
                    plan = Plan(
                        models=[model],
                        data=["chart:shapes"],
                        protocols=[protocol],
                        filters=Filters(limit=n),
                        workspace=folder,
                    )
                    (run,) = plan.run(watch)
                engine = 1000 * (at[-1][0] - at[0][0]) / (at[-1][1] - at[0][1])
                rows.append((run.metrics.items_per_second or 0.0, 1000 * spent[0] / n, engine))
        for prefix, rows in found.items():
            speed, inside, engine_ = map(median, zip(*rows, strict=True))
            print(f"  {protocol}, prefix={prefix}: {speed} items/s")
            print(f"    ms a sample: {inside} in the model, {engine_} of the engine's thread")


def memory(options: argparse.Namespace) -> None:
    """Peak memory of a 1,000-name rank under several budgets, each in a process of its own."""
    import subprocess
    import sys

    for budget in ("64MB", "256MB", "1GB"):
        command = [sys.executable, __file__, "--peak", budget, "--architectures", options.architectures[0]]
        print("  " + subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def peak(budget: str, options: argparse.Namespace) -> None:
    """What a rank adds to the memory that the process holds after a small one (Linux)."""
    from snellen.models.huggingface.prefix_cache.budget import parse_bytes

    options.budget = parse_bytes("budget", budget)
    shared, _ = build(options.architectures[0], options)
    answered(shared, likelihood(picture(1), 2))
    found = []
    for count in (2, 1000):
        request = likelihood(picture(count), count)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _status("VmRSS")
        took, _ = seconds(partial(answered, shared, request), options.device)
        found.append((_status("VmHWM") - before) / 1024)
    print(
        f"budget {budget}: 2 names took {found[0]:.0f} MiB at most, 1,000 names {found[1]:.0f}; {took:.2f} s"
    )


def _status(name: str) -> int:
    """A line of this process's status, in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--architectures", nargs="+", default=list(BUILDERS), choices=list(BUILDERS))
    parser.add_argument("--size", default="100m", choices=list(SIZES))
    parser.set_defaults(device="cpu", dtype="float32", images=None)  # a GPU is measured by gpu.py
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", help="workloads whose title holds this")
    parser.add_argument("--pico", action="store_true", help="the engine's own overhead, alone")
    parser.add_argument("--memory", action="store_true", help="peak memory under several budgets, alone")
    parser.add_argument("--peak", metavar="BUDGET", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="write all times here")
    options = parser.parse_args()
    options.budget = None
    quiet()
    if options.peak:
        peak(options.peak, options)
    elif options.pico:
        overhead(options)
    elif options.memory:
        memory(options)
    else:
        found = {architecture: compare(architecture, options) for architecture in options.architectures}
        if options.json:
            options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
