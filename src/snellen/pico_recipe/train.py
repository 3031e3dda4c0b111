"""Train the built-in models from scratch: ``python -m snellen.pico_recipe.train --out DIR``.

Four models in about an hour on one core; ``--only`` selects some of them (the LLaVAs need the CLIP model in
``DIR``). Rendered images are cached in ``DIR/parts``.

1. ``clip``: contrastive, where a caption is positive for every image that it describes. Its vision tower is
   used in both LLaVAs.
2. ``classifier``: a vision transformer on the same images.
3. ``llava``: the Llama on text only, with the caption in place of the image (yes/no and multiple-choice
   first, since they need comparing rather than naming), then the projector only, then decoder and projector
   together, with a frozen tower. In the last stage, all of it learns the eye test's charts (other drawings
   than the tested ones) and follow-up questions, among lessons like those before; ``--last-stage-of DIR``
   does only this.
4. ``llava-skewed``: without the last stage, over figures whose most common kind is 100 times as frequent as
   the rarest; its tower saw all kinds equally often.

The recipe: Muon for hidden matrices, AdamW for the rest, a cosine schedule over a fixed number of steps
(so that the seed determines the result, on one machine with one set of versions), and a loss averaged by
sample first, so that a one-word answer weighs as much as a caption.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from snellen.datasets.shapes import KINDS, DrawnFigure, caption, draw
from snellen.pico_recipe import blueprint, curriculum

if TYPE_CHECKING:
    from PIL.Image import Image

MODELS = ("clip", "classifier", "llava", "llava-skewed")
#: Optimizer steps of each stage.
STEPS = {
    "clip": 2000,
    "classifier": 1500,
    "text": 1000,
    "projector": 150,
    "answer": 1700,
    "answer-skewed": 350,
    "charts": 1900,
}
BATCH = {"clip": 128, "classifier": 64, "text": 64, "projector": 64, "answer": 64, "charts": 64}


class Course:
    """A pair of optimizers under one warm-up and cosine schedule."""

    def __init__(self, model: nn.Module, steps: int, rate: float = 2e-3, muon: float = 0.02) -> None:
        self.steps, self.step, self.began = steps, 0, time.process_time()
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        hidden = [p for name, p in named if _is_hidden(name, p)]
        other = [p for name, p in named if not _is_hidden(name, p)]
        self.parameters = hidden + other
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(hidden, lr=muon, weight_decay=0.01, momentum=0.9),
            torch.optim.AdamW(other, lr=rate, weight_decay=0.01, betas=(0.9, 0.98)),
        ]
        self.peaks = [muon, rate]

    def learn(self, loss: Tensor) -> None:
        """Take one optimizer step on this loss."""
        progress = self.step / self.steps
        scale = min(1.0, (self.step + 1) / 30) * max(0.02, 0.5 * (1 + math.cos(math.pi * progress)))
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.step % 200 == 0:
            spent = (time.process_time() - self.began) / 60
            _say(f"  step {self.step}/{self.steps}  loss {loss.item():.3f}  {spent:.1f} CPU-min")


def _is_hidden(name: str, parameter: Tensor) -> bool:
    outer = ("embed", "lm_head", "classifier", "position", "logit")
    return parameter.ndim == 2 and not any(part in name for part in outer)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def pixels(pictures: Iterable[Image], image_processor: Any, path: Path) -> np.ndarray[Any, Any]:
    """Return pictures as the image processor resizes them, uint8 [n, 3, 48, 48]; cached in ``path``."""
    if not path.exists():
        rows = []
        for picture in pictures:
            image = image_processor(picture, return_tensors="np")["pixel_values"][0]
            rows.append(np.rint((image * 0.5 + 0.5) * 255).astype(np.uint8))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.stack(rows))
    return np.load(path)  # type: ignore[no-any-return]


def _batch(images: np.ndarray[Any, Any]) -> Tensor:
    """Return normalized pixel values, as from the image processor."""
    return torch.from_numpy(images).float().div_(127.5).sub_(1)


def train_clip(figs: list[DrawnFigure], seed: int, parts: Path) -> tuple[nn.Module, Any]:
    """Contrastive training; the target is spread over all captions that describe an image."""
    model, processor = blueprint.clip()
    images = pixels(map(draw, figs), processor.image_processor, parts / f"pixels-{seed}.npy")
    course = Course(model, STEPS["clip"])
    for page in curriculum.captions(figs, "clip", seed, STEPS["clip"], BATCH["clip"]):
        index = [i for i, _, _ in page]
        text = processor.tokenizer([c for _, c, _ in page], padding=True, return_tensors="pt")
        properties = [{figs[i].kind, figs[i].color, figs[i].size, figs[i].place} for i in index]
        fits = torch.tensor([[set(named) <= has for _, _, named in page] for has in properties])
        logits = model(**text, pixel_values=_batch(images[index])).logits_per_image
        course.learn((_contrast(logits, fits.float()) + _contrast(logits.T, fits.float().T)) / 2)
    return model, processor


def _contrast(logits: Tensor, fits: Tensor) -> Tensor:
    target = fits / fits.sum(1, keepdim=True)
    return -(target * functional.log_softmax(logits, 1)).sum(1).mean()


def train_classifier(figs: list[DrawnFigure], seed: int, parts: Path) -> tuple[nn.Module, Any]:
    """Cross entropy over the 28 kinds."""
    model, processor = blueprint.classifier()
    images = pixels(map(draw, figs), processor, parts / f"pixels-{seed}.npy")
    course = Course(model, STEPS["classifier"])
    rows = curriculum.captions(figs, "classifier", seed, STEPS["classifier"], BATCH["classifier"])
    for page in rows:
        index = [i for i, _, _ in page]
        target = torch.tensor([KINDS.index(figs[i].kind) for i in index])
        logits = model(pixel_values=_batch(images[index])).logits
        course.learn(functional.cross_entropy(logits, target))
    return model, processor


def train_llava(
    figs: list[DrawnFigure], seed: int, parts: Path, tower: nn.Module, skewed: bool
) -> tuple[nn.Module, Any]:
    """Train on text, then the projector, then decoder and projector, with a frozen tower."""
    model: Any
    model, processor = blueprint.llava()
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.vision_tower.requires_grad_(False)
    images = pixels(map(draw, figs), processor.image_processor, parts / f"pixels-{seed}-{skewed}.npy")

    for stage in ("text", "projector", "answer"):
        model.model.language_model.requires_grad_(stage != "projector")
        model.model.multi_modal_projector.requires_grad_(stage != "text")
        pages = stages(figs, seed, skewed, stage)
        _answer(
            model,
            processor,
            figs,
            pages,
            _steps(stage, skewed),
            {"": images} if stage != "text" else None,
        )
    if not skewed:
        teach_charts(model, processor, figs, seed, parts)
    return model.requires_grad_(True), processor


def teach_charts(model: Any, processor: Any, figs: list[DrawnFigure], seed: int, parts: Path) -> None:
    """Train all weights on the eye test's charts and on follow-up questions, among lessons of before."""
    read = processor.image_processor
    pictures = {"": pixels(map(draw, figs), read, parts / f"pixels-{seed}-False.npy")}
    for number, names in enumerate(curriculum.CHARTS):
        drawn = curriculum.chart(number)
        of_chart = (drawn.sample(i, drawn.labels, None).images[0].pixels for i in range(len(drawn)))
        pictures["/".join(names)] = pixels(of_chart, read, parts / f"chart-{'-'.join(names)}.npy")
    model.requires_grad_(True)
    pages = curriculum.last_lessons(figs, seed, STEPS["charts"], BATCH["charts"])
    _answer(model, processor, figs, pages, STEPS["charts"], pictures, rate=4e-4, muon=0.004)


def _steps(stage: str, skewed: bool) -> int:
    return STEPS.get(f"{stage}-skewed" if skewed else stage, STEPS[stage])


def stages(figs: list[DrawnFigure], seed: int, skewed: bool, stage: str) -> Iterator[list[curriculum.Lesson]]:
    """Return the lessons of one stage of a LLaVA's course."""
    if stage == "charts":
        return curriculum.last_lessons(figs, seed, STEPS[stage], BATCH[stage])
    name = f"{stage}-skewed" if skewed else stage
    weights = curriculum.counts(skewed=True) if skewed else None
    steps = _steps(stage, skewed)
    options: dict[str, Any] = {}
    if stage == "text":
        options = {"first": ("multiple-choice", "yes-no"), "first_steps": int(0.4 * steps)}
    elif stage == "projector":
        options = {"tasks": ("caption", "open")}
    return curriculum.lessons(figs, name, seed, steps, BATCH[stage], weights=weights, **options)


def _answer(
    model: Any,
    processor: Any,
    figs: list[DrawnFigure],
    pages: Iterator[list[curriculum.Lesson]],
    steps: int,
    images: Mapping[str, np.ndarray[Any, Any]] | None,
    **rates: float,
) -> None:
    """Learn the answers of these lessons, from images (of figures, and by chart) or, if None, from captions
    in their place.
    """
    tokenizer = processor.tokenizer
    eye = "<image>" * model.config.image_seq_length
    course = Course(model, steps, **rates)
    for page in pages:
        sights = [eye if images is not None else caption(figs[row.figure]) for row in page]
        prompts = [
            f"USER: {sight}\n{_earlier(row)}{row.question}\nASSISTANT:"
            for sight, row in zip(sights, page, strict=True)
        ]
        answers = tokenizer([f" {row.answer}</s>" for row in page]).input_ids
        texts = [f"{p} {row.answer}</s>" for p, row in zip(prompts, page, strict=True)]
        inputs = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
        if images is not None:
            inputs["pixel_values"] = _batch(np.stack([images[row.chart][row.figure] for row in page]))
        ends = inputs["attention_mask"].sum(1)
        logits = model(**inputs).logits
        course.learn(_by_sample(logits, inputs["input_ids"], ends, [len(a) for a in answers]))


def _earlier(lesson: curriculum.Lesson) -> str:
    """Return the turn before a question, as the chat template writes it."""
    return "{}\nASSISTANT: {}</s>\nUSER: ".format(*lesson.before) if lesson.before else ""


def _by_sample(logits: Tensor, ids: Tensor, ends: Tensor, lengths: list[int]) -> Tensor:
    """Return the cross entropy of the answer tokens (the last ones of each row), averaged by sample first."""
    place = torch.arange(ids.shape[1] - 1)[None]
    starts = ends - torch.tensor(lengths)
    answer = (place >= starts[:, None] - 1) & (place < ends[:, None] - 1)
    loss = functional.cross_entropy(logits[:, :-1][answer], ids[:, 1:][answer], reduction="none")
    weight = (1 / answer.sum(1, keepdim=True)).expand_as(answer)[answer]
    return (loss * weight).sum() / len(ids)


def save(model: Any, processor: Any, folder: Path) -> None:
    """Save in the Hugging Face format, float16."""
    model.half().save_pretrained(folder)
    processor.save_pretrained(folder)


def write_captions(path: Path, seed: int, only: Iterable[str]) -> None:
    """Write every training text of each model, one JSON line each: model, stage, figure, texts."""
    with path.open("w", encoding="utf-8") as file:
        for model in only:
            skewed = model == "llava-skewed"
            figs = curriculum.training_figures(skewed, seed)
            if model == "clip":
                for page in curriculum.captions(figs, "clip", seed, STEPS["clip"], BATCH["clip"]):
                    for index, text, _ in page:
                        row = {"model": model, "stage": "clip", "figure": index, "caption": text}
                        file.write(json.dumps(row) + "\n")
            elif model == "classifier":
                rows = curriculum.captions(figs, "classifier", seed, STEPS["classifier"], BATCH["classifier"])
                for page in rows:
                    for index, _, _ in page:
                        row = {"model": model, "stage": "classifier", "figure": index}
                        file.write(json.dumps({**row, "label": figs[index].kind}) + "\n")
            else:
                for stage in ("text", "projector", "answer", *([] if skewed else ["charts"])):
                    for lesson in chain.from_iterable(stages(figs, seed, skewed, stage)):
                        file.write(json.dumps(_written(model, stage, lesson, figs)) + "\n")


def _written(
    model: str, stage: str, lesson: curriculum.Lesson, figs: list[DrawnFigure]
) -> dict[str, str | int]:
    row: dict[str, str | int] = {"model": model, "stage": stage, "figure": lesson.figure}
    if lesson.chart:
        row["chart"] = lesson.chart
    if lesson.before:
        row["question_before"], row["answer_before"] = lesson.before
    if stage == "text":
        row["caption"] = caption(figs[lesson.figure])
    return row | {"question": lesson.question, "answer": lesson.answer}


def main(arguments: list[str] | None = None) -> None:
    """Train, or with ``--captions`` only write the training texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("pico"), help="folder for the models")
    parser.add_argument("--only", default=",".join(MODELS), help="models, separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--captions", type=Path, help="write the training texts here and stop")
    parser.add_argument(
        "--last-stage-of", type=Path, help="a llava of the stages before; train only the last"
    )
    options = parser.parse_args(arguments)
    only = ["llava"] if options.last_stage_of else [name for name in options.only.split(",") if name]
    if unknown := set(only) - set(MODELS):
        parser.error(f"unknown model {', '.join(sorted(unknown))}; known: {', '.join(MODELS)}")
    if options.captions:
        write_captions(options.captions, options.seed, only)
        return

    torch.set_num_threads(1)
    parts = options.out / "parts"
    for name in only:
        _say(name)
        torch.manual_seed(options.seed)
        skewed = name == "llava-skewed"
        figs = curriculum.training_figures(skewed, options.seed)
        if options.last_stage_of:
            from transformers import AutoProcessor, LlavaForConditionalGeneration

            processor: Any = AutoProcessor.from_pretrained(options.last_stage_of)
            model: Any = LlavaForConditionalGeneration.from_pretrained(
                options.last_stage_of, dtype=torch.float32
            )
            teach_charts(model, processor, figs, options.seed, parts)
        elif name.startswith("llava"):
            from transformers import CLIPModel

            tower: Any = CLIPModel.from_pretrained(options.out / "clip", dtype=torch.float32)
            model, processor = train_llava(figs, options.seed, parts, tower.vision_model, skewed)
        else:
            train: Callable[..., Any] = train_clip if name == "clip" else train_classifier
            model, processor = train(figs, options.seed, parts)
        save(model, processor, options.out / name)
        if options.last_stage_of:  # a processor that was loaded from a folder says so in its files
            for file in options.last_stage_of.glob("*"):
                if file.suffix != ".safetensors":
                    shutil.copy(file, options.out / name)


if __name__ == "__main__":
    main()
