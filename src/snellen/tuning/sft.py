"""The stages of a recipe on a vision-language model, through TRL."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.datasets.base import Selection
from snellen.errors import Unsupported, reason_of, require
from snellen.models.huggingface.architectures import NEED_IMAGE, UNPADDED
from snellen.models.huggingface.chat import ChatRenderer
from snellen.models.huggingface.prefix_cache.trie import common
from snellen.protocols.closed_set import ClosedSet
from snellen.reports.training import TrainingWatch
from snellen.tuning.examples import Example
from snellen.tuning.recipes import Recipe, Stage, adapters, freeze
from snellen.tuning.sources import TrainingSet
from snellen.tuning.trainer import by_place, room, run_stage
from snellen.tuning.trainer_settings import in_effect, settings
from snellen.types import Prediction

if TYPE_CHECKING:
    import torch

    from snellen.models.huggingface.checkpoint import Checkpoint
    from snellen.models.huggingface.vlm import VisionLanguageModel

__all__ = ["TrainResult", "check_teachable", "teach"]

#: PaliGemma's prompts see ahead, which a batch of prompts with their answers does not; the others have a
#: Q-Former, an encoder of texts or positions of their own, which TRL's loss passes by.
UNTEACHABLE = NEED_IMAGE | UNPADDED


@dataclass(frozen=True)
class TrainResult:
    """What a training left.

    Attributes:
        log: of each stage by name, what was logged.
        trained: how many numbers could change; of ``parameters``.
        effective: of each stage, what the training was: steps, epochs, batch, learning rate, precision.
    """

    log: Mapping[str, list[dict[str, Any]]]
    trained: int
    parameters: int
    effective: Mapping[str, Any] = field(default_factory=dict)


def check_teachable(model: VisionLanguageModel) -> None:
    """Refuse an architecture that cannot be trained this way.

    Raises:
        Unsupported: as said.
    """
    config = model.checkpoint.config()
    if config.model_type in UNTEACHABLE or config.is_encoder_decoder:
        raise Unsupported(
            f"{model.name}: {config.model_type} cannot be fine-tuned here. Decoders that read images among "
            "their tokens can: LLaVA, Qwen-VL, Idefics, SmolVLM, InternVL, Gemma 3, Mllama …"
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
    watch: TrainingWatch | None = None,
) -> TrainResult:
    """Carry out a recipe and write what came of it to a folder.

    Args:
        watched: examples that the loss is watched by; ``seen``: the images that the accuracy of generated
            answers (closed set, one round) is.
        given: options of SFTConfig; ``lora``: of LoraConfig.
        base: what the adapter is to say that it belongs to.

    Raises:
        Stopped: as :func:`~snellen.tuning.trainer.run_stage`.
        BadOption, Unsupported, ModelError: as said there.
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
    device, dtype = network.device, network.dtype
    subject = VisionLanguageModel(checkpoint, "off")
    parameters = sum(p.numel() for p in network.parameters())
    peft_config = adapters(network, lora) if recipe.adapter else None
    collator = Collator(processor)
    log: dict[str, list[dict[str, Any]]] = {}
    effective: dict[str, Any] = {}
    trained = 0
    trainer: Any = None
    for stage in recipe.stages:
        folder = out / "checkpoints" / stage.name
        set_seed(seed)  # a stage begins alike, whether the one before it was trained now or earlier
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

        effective[stage.name] = in_effect(config, len(lessons))
        trained = _prepare(network, stage, adapter=peft_config is not None, mixes=config.bf16 or config.fp16)
        try:
            trainer = run_stage(
                SFTTrainer,
                folder,
                stage.name,
                watch,
                [] if seen is None else [_asking(subject, processor, seen, stage.name, watch)],
                model=network,
                args=config,
                train_dataset=rows_of(lessons, collator),
                eval_dataset=None if watched is None else rows_of(watched, collator),
                data_collator=collator,
                processing_class=processor,
                peft_config=peft_config,
            )
        # What processors, models and TRL raise where they do not go together, or an image is odd.
        except (ValueError, KeyError, IndexError, NotImplementedError, RuntimeError) as error:
            raise Unsupported(
                f"{model.name}: the training refused this model or these data ({reason_of(error)})."
            ) from error
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
    if adapter:
        for config in network.peft_config.values():
            config.base_model_name_or_path, config.revision = base, checkpoint.pinned
        # Else peft looks for the base model's vocabulary, under its name, to see whether it grew.
        saved["save_embedding_layers"] = False
    if trainer.is_world_process_zero():
        with room(out):
            (network if adapter else network.to(dtype)).save_pretrained(out, **saved)
            processor.save_pretrained(out)
    trainer.accelerator.wait_for_everyone()


def _prepare(network: Any, stage: Stage, *, adapter: bool, mixes: bool) -> int:
    """Freeze what a stage does not train, and give what learns full precision; how many numbers learn."""
    if adapter:
        return 0
    trained = freeze(network, stage.trains)
    # What learns does so in full precision; the rest goes along where it is mixed, else it has to be alike.
    for parameter in network.parameters():
        if parameter.requires_grad or not mixes:
            parameter.data = parameter.data.float()
    return trained


def _for_training(checkpoint: Checkpoint, recipe: Recipe) -> Checkpoint:
    """The checkpoint as it is to be loaded: in 4 bits, where the recipe says so; on the GPU of this
    process.
    """
    device = checkpoint.device
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    if recipe.quantized:
        require("bitsandbytes", "quantization", f"The recipe {recipe.name}")
        if not device.startswith("cuda"):
            raise Unsupported("The recipe qlora needs a GPU. On a CPU: --recipe lora")
        return replace(checkpoint, device=device, quantization="4bit-nf4")
    return replace(checkpoint, device=device)


class Collator:
    """Rows to a batch in which the answers alone are learnt.

    Prompt and answer are read as one text, as log-likelihoods are: a tokenizer may join them, or begin a text
    of its own with a mark, so that an answer that is read apart would be taught in other tokens than those in
    which a model says it. (TRL's own collator reads them apart.)
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._chat = ChatRenderer(processor)

    def render(self, example: Example) -> dict[str, Any]:
        """An example as a row."""
        prompt, completion = self._chat.lesson(example.messages, example.answer)
        return {
            "images": [image.pixels for image in example.images],
            "prompt": prompt,
            "completion": completion,
        }

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """The processor's tensors with ``labels``: -100 but for the answers' tokens."""
        import torch

        special = self._chat.adds_special_tokens(rows[0]["prompt"])
        images = [row["images"] for row in rows]
        batch = self._processor(
            text=[row["prompt"] + row["completion"] for row in rows],
            images=images if any(images) else None,
            padding=True,
            padding_side="right",
            add_special_tokens=special,
            return_tensors="pt",
        )
        ids, lengths = batch["input_ids"], batch["attention_mask"].sum(1).tolist()
        labels = torch.full_like(ids, -100)
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            texts = [row["prompt"], row["prompt"] + row["completion"]]
            begun, complete = self._tokenizer(texts, add_special_tokens=special).input_ids
            taught = len(complete) - common([begun, complete])
            labels[place, length - taught : length] = ids[place, length - taught : length]
        batch["labels"] = labels
        return batch


def rows_of(lessons: Sequence[Example], collator: Collator) -> Any:
    """Lessons as a data set of the datasets library, whose images are read when they are asked for."""

    def batch(places: Sequence[int]) -> dict[str, list[Any]]:
        made = [collator.render(lessons[place]) for place in places]
        return {key: [row[key] for row in made] for key in ("images", "prompt", "completion")}

    return by_place(len(lessons), batch)


def accuracy(model: VisionLanguageModel, seen: Selection) -> float:
    """The share of samples whose class a model names when it is asked as examinations do (closed set, one
    round).
    """
    protocol = ClosedSet(rounds=1)
    right = 0
    for start in range(0, len(seen), model.batch_size):
        samples = [seen[place] for place in range(start, min(start + model.batch_size, len(seen)))]
        begun = [protocol.examine(sample) for sample in samples]
        # In this thread: whether precisions are mixed is a matter of threads. What fails is no wrong answer.
        replies = model.answer([request for generator in begun for request in next(generator)])
        for generator, sample, reply in zip(begun, samples, replies, strict=True):
            try:
                generator.send([reply])
            except StopIteration as stop:
                said: Prediction = stop.value
                right += said.label == sample.label
    return right / len(seen)


def _asking(
    subject: VisionLanguageModel, processor: Any, seen: Selection, stage: str, watch: TrainingWatch | None
) -> Any:
    """A callback that asks the model in training, whenever it is evaluated."""
    import torch
    from transformers import TrainerCallback

    class OnlineEvaluation(TrainerCallback):  # type: ignore[misc] # loaded when needed, so of no known type
        def on_evaluate(self, args: Any, state: Any, _: Any, model: Any = None, **__: Any) -> None:
            network = model.get_base_model() if hasattr(model, "get_base_model") else model
            mixed = torch.bfloat16 if args.bf16 else torch.float16
            mixes = torch.autocast(network.device.type, mixed, enabled=args.bf16 or args.fp16)
            with subject.borrowing(network, processor), mixes:
                share = accuracy(subject, seen)
            state.log_history.append({"held_out_accuracy": share, "step": state.global_step})
            if watch is not None and state.is_world_process_zero:
                watch(stage, state.global_step, state.max_steps, {"held_out_accuracy": share})

    return OnlineEvaluation()
