"""Compares supervised fine-tuning with preferences (DPO) and rewards (GRPO), all through TRL.

    python benchmarks/preferences.py [--images 560] [--test 840] [--steps 100] [--only sft,dpo,grpo]
        [--dpo-rate 1e-4] [--grpo-rate 5e-4]

All arms train the same low-rank adapters of ``pico:llava-skewed`` on the same drawn figures, for the same
number of steps, and are evaluated by a closed set on the same other figures:

- ``sft``: the class, on all images; ``sft, mistakes``: on the images that the model gets wrong;
- ``dpo``: the class is preferred to the model's own wrong answer, or, where it is right, to another class
  that is drawn; ``dpo, mistakes``: on the images that it gets wrong;
- ``sft, then dpo``: half of the steps each;
- ``grpo``: four sampled answers an image, rewarded if they are the class.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import snellen
from snellen.datasets.base import DATASETS, select
from snellen.metrics.format import with_interval
from snellen.models.pico import WEIGHTS
from snellen.prompts import CLOSED_SET, fill
from snellen.tuning.recipes import adapters
from snellen.types import Sample

MODEL = "llava-skewed"
PROTOCOL = "closed-set?rounds=1"
BATCH = 16


def loaded(folder: Path) -> tuple[Any, Any]:
    """Load a checkpoint in full precision, and its processor."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    network = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32")
    return network, AutoProcessor.from_pretrained(folder)


def turn(role: str, *parts: dict[str, str]) -> list[dict[str, Any]]:
    """Return a conversation of one turn."""
    return [{"role": role, "content": list(parts)}]


def rows_of(samples: Sequence[Sample], **columns: Callable[[Sample], Any]) -> Any:
    """Return samples as a data set for TRL: the image, the question with all names, and more columns."""
    from datasets import Dataset

    return Dataset.from_list(
        [
            {
                "images": [sample.images[0].pixels],
                "prompt": turn(
                    "user",
                    {"type": "image"},
                    {"type": "text", "text": fill(CLOSED_SET, names=", ".join(sample.labels))},
                ),
                **{name: column(sample) for name, column in columns.items()},
            }
            for sample in samples
        ]
    )


def says(text: str) -> list[dict[str, Any]]:
    """Return an answer as a conversation."""
    return turn("assistant", {"type": "text", "text": text})


def right(sample: Sample) -> list[dict[str, Any]]:
    """Return the right answer."""
    return says(str(sample.label))


def options(folder: Path, steps: int, **more: Any) -> dict[str, Any]:
    """Return the options that all trainers share."""
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": BATCH,
        "warmup_steps": 2,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "logging_steps": 10**6,
        "disable_tqdm": True,
        "bf16": False,
        "gradient_checkpointing": False,
        **more,
    }


def sft(start: Path, out: Path, steps: int, samples: Sequence[Sample]) -> None:
    """Teach the right answers."""
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    network, processor = loaded(start)
    trainer = SFTTrainer(
        model=network,
        args=SFTConfig(**options(out, steps, learning_rate=2e-3, completion_only_loss=True)),
        train_dataset=rows_of(samples, completion=right),
        processing_class=processor,
        peft_config=adapters(network, {}),
    )
    finish(trainer, processor, out)


def dpo(
    start: Path, out: Path, steps: int, samples: Sequence[Sample], wrong: dict[str, str], rate: float
) -> None:
    """Prefer the right answers to the model's own wrong ones, and to names drawn where it has none."""
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    network, processor = loaded(start)
    trainer = DPOTrainer(
        model=network,
        args=DPOConfig(**options(out, steps, learning_rate=rate, beta=0.1)),
        train_dataset=rows_of(
            samples, chosen=right, rejected=lambda sample: says(wrong.get(sample.id) or drawn(sample))
        ),
        processing_class=processor,
        peft_config=adapters(network, {}),
    )
    finish(trainer, processor, out)


def drawn(sample: Sample) -> str:
    """Return another class."""
    others = [name for name in sample.labels if name != sample.label]
    return random.Random(sample.id).choice(others)


def grpo(start: Path, out: Path, steps: int, samples: Sequence[Sample], rate: float) -> None:
    """Reward sampled answers that are right."""
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    def reward(completions: Sequence[Any], label: Sequence[str], **_: Any) -> list[float]:
        said = [item if isinstance(item, str) else item[-1]["content"] for item in completions]
        texts = [text if isinstance(text, str) else text[0]["text"] for text in said]
        return [float(text.strip(" .") == name) for text, name in zip(texts, label, strict=True)]

    network, processor = loaded(start)
    more = {"num_generations": 4, "max_completion_length": 8, "learning_rate": rate, "beta": 0.0}
    trainer = GRPOTrainer(
        model=network,
        reward_funcs=reward,
        args=GRPOConfig(**options(out, steps, **more)),
        train_dataset=rows_of(samples, label=lambda sample: sample.label),
        processing_class=processor,
        peft_config=adapters(network, {}),
    )
    finish(trainer, processor, out)


def finish(trainer: Any, processor: Any, out: Path) -> None:
    """Train, and save the model with its adapters merged."""
    trainer.train()
    trainer.model.merge_and_unload().save_pretrained(out)
    processor.save_pretrained(out)


def main() -> None:
    """Train all arms, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=560)
    parser.add_argument("--test", type=int, default=840)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--only", default="sft,dpo,grpo")
    parser.add_argument("--dpo-rate", type=float, default=1e-4)
    parser.add_argument("--grpo-rate", type=float, default=5e-4)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # of libraries, about each other
    top = Path(tempfile.mkdtemp())
    base = WEIGHTS / MODEL
    data = f"chart:shapes?split=train&n={asked.images}"
    before = snellen.run(model=f"pico:{MODEL}", data=data, protocol=PROTOCOL, workspace=top / "ws")
    frame = before.outcomes
    said = dict(zip(frame["id"].tolist(), frame["prediction"].tolist(), strict=True))
    samples = list(select(DATASETS.make(data)))
    wrong = {s.id: str(said[s.id]) for s in samples if said[s.id] in s.labels and said[s.id] != s.label}
    mistakes = [sample for sample in samples if sample.id in wrong]
    half = asked.steps // 2
    arms: dict[str, Callable[[Path], None]] = {
        "sft": lambda out: sft(base, out, asked.steps, samples),
        "sft, mistakes": lambda out: sft(base, out, asked.steps, mistakes),
        "dpo": lambda out: dpo(base, out, asked.steps, samples, wrong, asked.dpo_rate),
        "dpo, mistakes": lambda out: dpo(base, out, asked.steps, mistakes, wrong, asked.dpo_rate),
        "sft, then dpo": lambda out: dpo(top / "half", out, half, samples, wrong, asked.dpo_rate),
        "grpo": lambda out: grpo(base, out, asked.steps, samples, asked.grpo_rate),
    }
    print(f"{len(mistakes)} of {len(samples)} training images are mistakes of pico:{MODEL}.\n")
    print("| arm | images | steps | seconds | closed set, accuracy % | not read |\n|---|---|---|---|---|---|")
    wanted = asked.only.split(",")
    report("before", "–", 0, 0.0, f"pico:{MODEL}", asked.test, top)
    for name, train in arms.items():
        if not set(name.replace(",", "").split()) & set(wanted):
            continue
        if name == "sft, then dpo":
            sft(base, top / "half", half, samples)
        folder = top / name.replace(", ", "-").replace(" ", "-")
        begin = time.perf_counter()
        train(folder)
        took = time.perf_counter() - begin
        images = str(len(mistakes) if "mistakes" in name else len(samples))
        report(name, images, asked.steps, took, f"hf:{folder}", asked.test, top)


def report(name: str, images: str, steps: int, seconds: float, model: str, test: int, top: Path) -> None:
    """Evaluate a model, and print its row."""
    run = snellen.run(model=model, data=f"chart:shapes?n={test}", protocol=PROTOCOL, workspace=top / "ws")
    accuracy, outcomes = with_interval("accuracy", run.metrics.figure("accuracy")), run.metrics.outcomes
    unread = sum(count for outcome, count in outcomes.items() if outcome != "ok")
    print(f"| {name} | {images} | {steps} | {seconds:.0f} | {accuracy} | {unread} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
