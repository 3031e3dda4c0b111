"""The stages of a recipe on a vision-language model, through TRL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.datasets.base import Selection
from snellen.engine.completing import complete
from snellen.errors import Unsupported, reason_of, require
from snellen.models.huggingface.architectures import NEED_IMAGE, UNPADDED
from snellen.models.huggingface.chat import ChatRenderer
from snellen.protocols.closed_set import ClosedSet
from snellen.tune.examples import Example
from snellen.tune.recipes import Recipe, adapters, freeze
from snellen.tune.sources import Lessons
from snellen.tune.stages import Watch, carry_out, settings
from snellen.types import Prediction

if TYPE_CHECKING:
    from snellen.models.huggingface.checkpoint import Checkpoint
    from snellen.models.huggingface.vlm import VisionLanguageModel

__all__ = ["Taught", "check_teachable", "teach"]

#: TRL joins a prompt and its answer after the processor has made tensors of each; these processors need an
#: image
#: with every text, or make what depends on the joint length.
UNTEACHABLE = NEED_IMAGE | UNPADDED | {"mllama"}


@dataclass(frozen=True)
class Taught:
    """What a training left.

    Attributes:
        log: of each stage by name, what was logged.
        trained: how many numbers could change; of ``parameters``.
    """

    log: Mapping[str, list[dict[str, Any]]]
    trained: int
    parameters: int


def check_teachable(model: VisionLanguageModel) -> None:
    """Refuse an architecture that cannot be trained this way.

    Raises:
        Unsupported: as said.
    """
    config = model.checkpoint.config()
    if config.model_type in UNTEACHABLE or config.is_encoder_decoder:
        raise Unsupported(
            f"{model.name}: {config.model_type} cannot be fine-tuned here, since TRL cannot join its "
            "prompts and "
            "answers. Decoders with a chat template can: LLaVA, Qwen-VL, Idefics, SmolVLM, InternVL, "
            "Gemma 3 …"
        )


def teach(
    model: VisionLanguageModel,
    recipe: Recipe,
    lessons: Lessons,
    watched: Lessons | None,
    seen: Selection | None,
    *,
    out: Path,
    given: Mapping[str, Any],
    lora: Mapping[str, Any],
    base: str,
    seed: int,
    watch: Watch | None = None,
) -> Taught:
    """Carry out a recipe and write what came of it to a folder.

    Args:
        watched: examples that the loss is watched by; ``seen``: the images that the accuracy of generated
            answers (closed set, one round) is.
        given: options of SFTConfig; ``lora``: of LoraConfig.
        base: what the adapter is to say that it belongs to.

    Raises:
        Stopped: as :func:`~snellen.tune.stages.carry_out`.
        BadOption, Unsupported, ModelError: as said there.
    """
    require("trl", "tune", "Fine-tuning")
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor, set_seed
    from trl.trainer.sft_trainer import SFTTrainer

    from snellen.models.huggingface.vlm import VisionLanguageModel

    set_seed(seed)
    checkpoint = _for_training(model.checkpoint, recipe)
    network = checkpoint.load(AutoModelForImageTextToText)
    processor = checkpoint.load_processor(AutoProcessor)
    device = network.device
    subject = VisionLanguageModel(checkpoint, "off")
    parameters = sum(p.numel() for p in network.parameters())
    peft_config = adapters(network, lora) if recipe.adapter else None
    render = _renderer(processor)
    log: dict[str, list[dict[str, Any]]] = {}
    trained = 0
    trainer: Any = None
    for stage in recipe.stages:
        folder = out / "checkpoints" / stage.name
        if peft_config is None:
            trained = freeze(network, stage.trains)
            for parameter in network.parameters():
                if parameter.requires_grad:  # what learns does so in full precision
                    parameter.data = parameter.data.float()
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

        class Kept(SFTTrainer):  # type: ignore[misc, unused-ignore]
            """Lets the stage have the model that the trainer made of its own."""

            def __init__(self, **how: Any) -> None:
                nonlocal trainer
                super().__init__(**how)
                trainer = self

        try:
            log[stage.name] = carry_out(
                Kept,
                folder,
                stage.name,
                watch,
                [] if seen is None else [_asking(subject, processor, seen, stage.name, watch)],
                model=network,
                args=config,
                train_dataset=_rows(lessons, render),
                eval_dataset=None if watched is None else _rows(watched, render),
                processing_class=processor,
                peft_config=peft_config,
            )
        except (ValueError, KeyError, IndexError, NotImplementedError) as error:
            raise Unsupported(
                f"{model.name}: the training refused this model or these data ({reason_of(error)})."
            ) from error
        network = trainer.model
        if peft_config is not None:
            trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    saved: dict[str, Any] = {}
    if peft_config is not None:
        for one in network.peft_config.values():
            one.base_model_name_or_path, one.revision = base, checkpoint.pinned
        # Else peft looks for the base model's vocabulary, under its name, to see whether it grew.
        saved["save_embedding_layers"] = False
    if trainer.is_world_process_zero():
        network.save_pretrained(out, **saved)
        processor.save_pretrained(out)
    trainer.accelerator.wait_for_everyone()
    del network, trainer
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return Taught(log, trained, parameters)


def _for_training(checkpoint: Checkpoint, recipe: Recipe) -> Checkpoint:
    """The checkpoint as it is to be loaded: in 4 bits, where the recipe says so."""
    from dataclasses import replace

    if recipe.quantized:
        require("bitsandbytes", "quantization", f"The recipe {recipe.name}")
        if not checkpoint.device.startswith("cuda"):
            raise Unsupported("The recipe qlora needs a GPU. On a CPU: --recipe lora")
        return replace(checkpoint, quantization="4bit")
    return checkpoint


def _renderer(processor: Any) -> Callable[[Example], dict[str, Any]]:
    """An example as a row that TRL's collator takes: the loss is on the completion alone."""
    chat = ChatRenderer(processor)

    def render(example: Example) -> dict[str, Any]:
        prompt, completion = chat.lesson(example.messages, example.answer)
        return {
            "images": [image.pixels for image in example.images],
            "prompt": prompt,
            "completion": completion,
        }

    return render


def _rows(lessons: Sequence[Example], render: Callable[[Example], dict[str, Any]]) -> Any:
    """Lessons as a data set of the datasets library, whose images are read when they are asked for."""
    from datasets import Dataset

    def batch(rows: dict[str, list[int]]) -> dict[str, list[Any]]:
        made = [render(lessons[place]) for place in rows["place"]]
        return {key: [row[key] for row in made] for key in ("images", "prompt", "completion")}

    return Dataset.from_dict({"place": list(range(len(lessons)))}).with_transform(batch)


def accuracy(model: VisionLanguageModel, seen: Selection) -> float:
    """The share of samples whose class a model names when it is asked as examinations do (closed set, one
    round).
    """
    protocol = ClosedSet(rounds=1)
    right = 0
    for start in range(0, len(seen), model.batch_size):
        samples = [seen[place] for place in range(start, min(start + model.batch_size, len(seen)))]
        begun = [protocol.examine(sample) for sample in samples]
        replies = complete(model.respond([request for one in begun for request in next(one)]))
        for one, sample, reply in zip(begun, samples, replies, strict=True):
            try:
                one.send([reply])
            except StopIteration as stop:
                said: Prediction = stop.value
                right += said.label == sample.label
    return right / len(seen)


def _asking(
    subject: VisionLanguageModel, processor: Any, seen: Selection, stage: str, watch: Watch | None
) -> Any:
    """A callback that asks the model in training, whenever it is evaluated."""
    from transformers import TrainerCallback

    class Asking(TrainerCallback):  # type: ignore[misc]
        def on_evaluate(self, _: Any, state: Any, __: Any, model: Any = None, **___: Any) -> None:
            network = model.get_base_model() if hasattr(model, "get_base_model") else model
            with subject.borrowing(network, processor):
                share = accuracy(subject, seen)
            state.log_history.append({"held_out_accuracy": share, "step": state.global_step})
            if watch is not None and state.is_world_process_zero:
                watch(stage, state.global_step, state.max_steps, {"held_out_accuracy": share})

    return Asking()
