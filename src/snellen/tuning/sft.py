"""Train the stages of a recipe on a vision-language model, through TRL."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.datasets.base import Selection
from snellen.errors import Unsupported, reason_of, require
from snellen.models.huggingface.architectures import NEED_IMAGE, UNPADDED
from snellen.protocols.closed_set import ClosedSet
from snellen.reports.training import TrainingWatch
from snellen.tuning.augmentation import Augmentation
from snellen.tuning.collator import Collator, rows_of
from snellen.tuning.layout import for_servers
from snellen.tuning.recipes import Recipe, Stage, adapters, freeze
from snellen.tuning.sources import TrainingSet
from snellen.tuning.trainer import Pace, room, run_stage
from snellen.tuning.trainer_settings import settings
from snellen.types import Prediction

if TYPE_CHECKING:
    import torch

    from snellen.models.huggingface.checkpoint import Checkpoint
    from snellen.models.huggingface.vlm import VisionLanguageModel

__all__ = ["TrainResult", "check_teachable", "teach"]

#: PaliGemma's prompts attend bidirectionally, which TRL's batches do not; the others have a
#: Q-Former, a text encoder or their own positions, which TRL's loss does not support.
UNTEACHABLE = NEED_IMAGE | UNPADDED
#: What a unit of loss counts in the choice of the best checkpoint: less than any sample.
TIE = 1e-6


@dataclass(frozen=True)
class TrainResult:
    """The result of a training.

    Attributes:
        log: log entries of each stage, by name.
        trained: the number of trainable parameters, out of ``parameters``.
        effective: for each stage, its steps, epochs, batch, learning rate, precision.
    """

    log: Mapping[str, list[dict[str, Any]]]
    trained: int
    parameters: int
    effective: Mapping[str, Any] = field(default_factory=dict)


def check_teachable(model: VisionLanguageModel) -> None:
    """Refuse an architecture that cannot be trained this way.

    Raises:
        Unsupported: as stated.
    """
    config = model.checkpoint.config()
    if config.model_type in UNTEACHABLE or config.is_encoder_decoder:
        raise Unsupported(
            f"{model.name}: {config.model_type} cannot be fine-tuned here. Supported: decoders that read "
            "images among "
            "their tokens, such as LLaVA, Qwen-VL, Idefics, SmolVLM, InternVL, Gemma 3, Mllama …"
        )


def teach(
    model: VisionLanguageModel,
    recipe: Recipe,
    lessons: TrainingSet,
    watched: TrainingSet | None,
    seen: Selection | None,
    *,
    out: Path,
    given: Mapping[str, Any],
    lora: Mapping[str, Any],
    base: str,
    seed: int,
    augmentation: Augmentation | None = None,
    watch: TrainingWatch | None = None,
) -> TrainResult:
    """Carry out a recipe and write the result to a folder.

    Args:
        watched: examples for the validation loss; ``seen``: the images for the accuracy of generated
            answers (closed set, one round).
        given: options of SFTConfig; ``lora``: of LoraConfig.
        base: the base model to record in the adapter.
        augmentation: of the training images.

    Raises:
        Stopped: as for :func:`~snellen.tuning.trainer.run_stage`.
        BadOption, Unsupported, ModelError: as for the functions it calls.
    """
    # Long for its options alone.
    require("trl", "tune", "Fine-tuning")
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor, set_seed
    from trl.trainer.sft_trainer import SFTTrainer

    from snellen.models.huggingface.vlm import VisionLanguageModel

    set_seed(seed)
    checkpoint = _for_training(model.checkpoint, recipe)
    network = checkpoint.load(AutoModelForImageTextToText)
    processor = checkpoint.load_processor(AutoProcessor)
    checkpoint.image_size.apply(processor, network)
    device, dtype = network.device, network.dtype
    subject = VisionLanguageModel(checkpoint, "off")
    parameters = sum(p.numel() for p in network.parameters())
    peft_config = adapters(network, lora, recipe.stages[0].trains) if recipe.adapter else None
    collator = Collator(
        processor,
        image_size=checkpoint.image_size,
        max_length=given.get("max_length"),
        multiple=given.get("pad_to_multiple_of"),
        answers_only=given.get("completion_only_loss") is not False,
        positions=getattr(network.config.get_text_config(), "max_position_embeddings", None),
    )
    collator.check_longest(lessons)
    log: dict[str, list[dict[str, Any]]] = {}
    effective: dict[str, Any] = {}
    trained = 0
    trainer: Any = None
    for stage in recipe.stages:
        folder = out / "checkpoints" / stage.name
        set_seed(seed)  # start a stage identically whether the previous one was trained now or earlier
        config = settings(
            given,
            folder=folder,
            examples=len(lessons),
            parameters=parameters,
            learning_rate=stage.learning_rate,
            share=stage.share,
            seed=seed,
            device=device,
            watched=watched is not None,
        )
        pace = Pace()
        trained = _prepare(network, stage, adapter=peft_config is not None, mixes=config.bf16 or config.fp16)
        try:
            trainer = run_stage(
                SFTTrainer,
                folder,
                stage.name,
                watch,
                [
                    *([] if seen is None else [_asking(subject, processor, seen, stage.name, watch)]),
                    *([] if augmentation is None else [augmentation.follow()]),
                    pace.callback(),
                ],
                stage.rates,
                model=network,
                args=config,
                train_dataset=rows_of(lessons, collator, augmentation),
                eval_dataset=None if watched is None else rows_of(watched, collator),
                data_collator=collator,
                processing_class=processor,
                peft_config=peft_config,
            )
        # Errors of processors, models and TRL when they are incompatible, or when an image is unusual.
        except (ValueError, KeyError, IndexError, NotImplementedError, RuntimeError) as error:
            raise Unsupported(
                f"{model.name}: training failed on this model or data ({reason_of(error)})."
            ) from error
        effective[stage.name] = pace.effective(trainer, len(lessons))
        network, log[stage.name] = trainer.model, trainer.state.log_history
        if peft_config is not None:
            trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    _save(trainer, processor, out, base=base, checkpoint=checkpoint, adapter=recipe.adapter, dtype=dtype)
    del network, trainer
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return TrainResult(log, trained, parameters, effective)


def _save(
    trainer: Any,
    processor: Any,
    out: Path,
    *,
    base: str,
    checkpoint: Checkpoint,
    adapter: bool,
    dtype: torch.dtype,
) -> None:
    """Write the trained model, or its adapter, and the processor."""
    network = trainer.model
    saved: dict[str, Any] = {}
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    if sharded:  # each process has a part of every weight, so all of them have to collect
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        saved["state_dict"] = weights if adapter else _whole(network, weights, dtype)
    if adapter:
        for config in network.peft_config.values():
            config.base_model_name_or_path, config.revision = base, checkpoint.pinned
        # Otherwise peft looks up the base model's vocabulary by its name, to see whether it grew.
        saved["save_embedding_layers"] = False
    if trainer.is_world_process_zero():
        with room(out):
            (network if adapter or sharded else network.to(dtype)).save_pretrained(out, **saved)
            if not adapter:
                for_servers(out)
            processor.save_pretrained(out)
    trainer.accelerator.wait_for_everyone()


def _whole(network: Any, weights: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """Return weights as they are saved: those that are tied once, as their storage no longer shows it."""
    tied = set(network.all_tied_weights_keys)
    return {name: weight.to(dtype) for name, weight in weights.items() if name not in tied}


def _prepare(network: Any, stage: Stage, *, adapter: bool, mixes: bool) -> int:
    """Freeze what a stage does not train, and convert what it trains to full precision; return the number of
    trainable parameters.
    """
    if adapter:
        return 0
    trained = freeze(network, stage.trains)
    # Trainable weights use full precision; so must the rest, unless precision is mixed.
    for parameter in network.parameters():
        if parameter.requires_grad or not mixes:
            parameter.data = parameter.data.float()
    return trained


def _for_training(checkpoint: Checkpoint, recipe: Recipe) -> Checkpoint:
    """Prepare the checkpoint for loading: in 4 bits, if the recipe says so; on this process's GPU."""
    device = checkpoint.device
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    if recipe.quantized:
        require("bitsandbytes", "quantization", f"The recipe {recipe.name}")
        if not device.startswith("cuda"):
            raise Unsupported("The recipe qlora needs a GPU. On a CPU: --recipe lora")
        return replace(checkpoint, device=device, quantization="4bit")
    return replace(checkpoint, device=device)


def accuracy(model: VisionLanguageModel, seen: Selection) -> tuple[float, float]:
    """Return the share of samples whose class the model names when asked as in an evaluation (closed set,
    one round), and the mean of this share over the classes.
    """
    protocol = ClosedSet(rounds=1)
    right, sizes = Counter[str](), Counter[str]()
    for start in range(0, len(seen), model.batch_size):
        samples = [seen[place] for place in range(start, min(start + model.batch_size, len(seen)))]
        begun = [protocol.examine(sample) for sample in samples]
        # In this thread, since autocast is per thread. A failed request does not count as a wrong answer.
        replies = model.answer([request for generator in begun for request in next(generator)])
        for generator, sample, reply in zip(begun, samples, replies, strict=True):
            try:
                generator.send([reply])
            except StopIteration as stop:
                said: Prediction = stop.value
                sizes[sample.label or ""] += 1
                right[sample.label or ""] += said.label == sample.label
    return right.total() / len(seen), sum(right[name] / sizes[name] for name in sizes) / len(sizes)


def _asking(
    subject: VisionLanguageModel, processor: Any, seen: Selection, stage: str, watch: TrainingWatch | None
) -> Any:
    """Return a callback that measures accuracy at every evaluation during training."""
    import torch
    from transformers import TrainerCallback

    class OnlineEvaluation(TrainerCallback):  # type: ignore[misc] # loaded when needed, so of no known type
        def on_evaluate(
            self, args: Any, state: Any, _: Any, *, model: Any, metrics: dict[str, float], **__: Any
        ) -> None:
            network = model.get_base_model() if hasattr(model, "get_base_model") else model
            mixed = torch.bfloat16 if args.bf16 else torch.float16
            mixes = torch.autocast(network.device.type, mixed, enabled=args.bf16 or args.fp16)
            with subject.borrowing(network, processor), mixes:
                share, balanced = accuracy(subject, seen)
            found = {"held_out_accuracy": share, "held_out_balanced_accuracy": balanced}
            state.log_history.append({**found, "step": state.global_step})
            # By these, the trainer chooses the best checkpoint; of equal ones, the one with the lower loss.
            metrics |= {f"eval_{name}": value - TIE * metrics["eval_loss"] for name, value in found.items()}
            if watch is not None and state.is_world_process_zero:
                watch(stage, state.global_step, state.max_steps, found)

    return OnlineEvaluation()
