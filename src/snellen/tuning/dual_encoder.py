"""Fine-tune dual encoders (CLIP, SigLIP) on classes: a baseline for vision-language models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.datasets.base import Selection
from snellen.errors import require
from snellen.reports.training import TrainingWatch
from snellen.tuning.augmentation import Augmentation
from snellen.tuning.sft import TrainResult
from snellen.tuning.trainer import Pace, by_place, room, run_stage
from snellen.tuning.trainer_settings import settings

if TYPE_CHECKING:
    from snellen.models.dual_encoder import DualEncoder
    from snellen.models.huggingface.image_size import ImageSize

__all__ = ["tune_dual_encoder"]

#: As for full fine-tuning of a VLM.
LEARNING_RATE = 1e-5


def tune_dual_encoder(
    model: DualEncoder,
    train: Selection,
    held: Selection | None,
    *,
    out: Path,
    given: Mapping[str, Any],
    seed: int,
    augmentation: Augmentation | None = None,
    watch: TrainingWatch | None = None,
) -> TrainResult:
    """Train all weights by cross-entropy over the scaled cosines of an image with the captions of all
    classes.

    Source: the baseline loss of Goyal et al., "Finetune like you pretrain" (arXiv 2212.00638).

    Raises:
        Stopped, BadOption: as for :func:`~snellen.tuning.trainer.run_stage`.
    """
    # Long for its options alone.
    require("trl", "tune", "Fine-tuning")
    from transformers import AutoModel, AutoProcessor, Trainer, set_seed

    set_seed(seed)
    network = model.checkpoint.load(AutoModel)
    dtype, network = network.dtype, network.float()
    processor = model.checkpoint.load_processor(AutoProcessor)
    padding = "max_length" if network.config.model_type.startswith("siglip") else True
    texts = processor.tokenizer(
        [model.templates[0].replace("{}", name) for name in train.labels],
        padding=padding,
        truncation=True,
        max_length=network.config.get_text_config().max_position_embeddings,
        return_tensors="pt",
    ).to(network.device)
    numbers = {name: i for i, name in enumerate(train.labels)}

    parameters = sum(p.numel() for p in network.parameters())
    folder = out / "checkpoints" / "full"
    config = settings(
        given,
        folder=folder,
        examples=len(train),
        parameters=parameters,
        learning_rate=LEARNING_RATE,
        share=1.0,
        seed=seed,
        device=network.device,
        watched=held is not None,
    )
    config.gradient_checkpointing = False  # the wrapper has no such setting
    # The wrapper computes the loss itself; the trainer's own smoothing would not reach it.
    smoothing, config.label_smoothing_factor = config.label_smoothing_factor, 0.0
    wrapped = _classifier(network, texts, smoothing)
    rows = partial(_rows, processor, numbers, model.checkpoint.image_size)

    def accuracies(prediction: Any) -> dict[str, float]:
        said = prediction.predictions.argmax(-1)
        right = said == prediction.label_ids
        by_class = [
            right[prediction.label_ids == number].mean() for number in set(prediction.label_ids.tolist())
        ]
        return {
            "held_out_accuracy": float(right.mean()),
            "held_out_balanced_accuracy": float(sum(by_class) / len(by_class)),
        }

    pace = Pace()
    trainer = run_stage(
        Trainer,
        folder,
        "full",
        watch,
        [*([] if augmentation is None else [augmentation.follow()]), pace.callback()],
        model=wrapped,
        args=config,
        train_dataset=rows(train, augmentation),
        eval_dataset=None if held is None else rows(held),
        compute_metrics=accuracies,
    )
    if int(os.environ.get("RANK", "0")) == 0:
        with room(out):
            network.to(dtype).save_pretrained(out)
            processor.save_pretrained(out)
    log = [
        {key.replace("eval_held_out", "held_out"): value for key, value in row.items()}
        for row in trainer.state.log_history
    ]
    return TrainResult({"full": log}, parameters, parameters, {"full": pace.effective(trainer, len(train))})


def _classifier(network: Any, texts: Any, smoothing: float) -> Any:
    """Wrap a dual encoder as a classifier over captions of the classes."""
    import torch

    from snellen.models.dual_encoder import unit

    class Classifying(torch.nn.Module):
        """A dual encoder as a classifier over captions of the classes."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, pixel_values: Any, labels: Any) -> dict[str, Any]:
            image = unit(self.inner.get_image_features(pixel_values=pixel_values))
            text = unit(self.inner.get_text_features(**texts))
            logits = self.inner.logit_scale.exp() * image @ text.T
            # Without smoothing in evaluations, as the trainer does it, so that losses are comparable.
            smoothed = smoothing if self.training else 0.0
            loss = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothed)
            return {"loss": loss, "logits": logits}

    return Classifying()


def _rows(
    processor: Any,
    numbers: Mapping[str, int],
    size: ImageSize,
    selection: Selection,
    augmentation: Augmentation | None = None,
) -> Any:
    """Images and class numbers of samples, built on access."""

    def batch(places: Sequence[int]) -> dict[str, Any]:
        samples = [selection[place] for place in places]
        images = [[size.pixels(sample.images[0])] for sample in samples]
        if augmentation is not None:
            images = [augmentation.of(own, place) for own, place in zip(images, places, strict=True)]
        pixels = processor.image_processor([own[0] for own in images], return_tensors="pt")
        return {
            "pixel_values": pixels["pixel_values"],
            "labels": [numbers[s.label or ""] for s in samples],
        }

    return by_place(len(selection), batch)
