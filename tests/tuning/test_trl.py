"""What TRL's users expect: plain TRL's adapter, options obeyed or refused, the best checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from snellen.datasets.base import DATASETS, select
from snellen.errors import BadOption, DataError
from snellen.models.base import MODELS
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.tuning import sft
from snellen.tuning.collator import Collator
from snellen.tuning.recipes import RECIPES, adapters
from snellen.tuning.sft import teach
from snellen.tuning.sources import Source, TrainingSet
from snellen.tuning.trainer_settings import WITHOUT_EFFECT, read_settings

pytestmark = pytest.mark.slow


def subject() -> VisionLanguageModel:
    """The built-in model."""
    model = MODELS.make("pico:llava-skewed", {})
    assert isinstance(model, VisionLanguageModel)
    return model


def lessons(count: int = 24) -> TrainingSet:
    """Some shapes, asked openly."""
    selection = select(DATASETS.make(f"chart:shapes?n={count}&split=train"))
    return TrainingSet([Source(selection=selection, train_format="open")])


def taught(out: Path, steps: int, *, watched: int = 0, **settings: Any) -> dict[str, torch.Tensor]:
    """Train adapters for some steps, and return them."""
    common = {
        "max_steps": steps,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
    }
    seen = select(DATASETS.make(f"chart:shapes?n={watched}")) if watched else None
    monitored = None if seen is None else TrainingSet([Source(selection=seen, train_format="open")])
    teach(
        subject(),
        RECIPES["lora"],
        lessons(),
        monitored,
        seen,
        out=out,
        given={**common, **settings},
        lora={},
        base="pico:llava-skewed",
        seed=3,
    )
    return load_file(out / "adapter_model.safetensors")


def test_the_adapter_is_that_of_plain_trl(tmp_path):
    """The same rows, seed and settings through TRL's own data set and collator: the same weights."""
    from peft import get_peft_model_state_dict
    from transformers import AutoModelForImageTextToText, AutoProcessor, set_seed
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from datasets import Dataset

    own = taught(tmp_path / "own", 5)
    model = subject()
    set_seed(3)
    network = model.checkpoint.load(AutoModelForImageTextToText)
    processor = model.checkpoint.load_processor(AutoProcessor)
    collator = Collator(processor)
    rows = [collator.render(example) for example in lessons()]
    config = adapters(network, {})
    set_seed(3)
    trainer = SFTTrainer(
        model=network,
        args=SFTConfig(
            output_dir=str(tmp_path / "plain"),
            max_steps=5,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            warmup_steps=0,
            seed=3,
            bf16=False,
            activation_checkpointing=False,
            max_length=None,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
        peft_config=config,
    )
    trainer.train()
    plain = get_peft_model_state_dict(trainer.model)
    assert {name: tensor.shape for name, tensor in own.items()} == {n: t.shape for n, t in plain.items()}
    assert any(float(tensor.abs().max()) > 0 for name, tensor in own.items() if "lora_B" in name)
    for name, tensor in own.items():
        assert torch.equal(tensor, plain[name].cpu()), name


def test_the_best_checkpoint_is_kept(tmp_path, monkeypatch):
    """Held-out balanced accuracy is best at step 4 of 8, so the weights are those of step 4."""
    found = {0: 0.1, 2: 0.3, 4: 0.9, 6: 0.5, 8: 0.9}
    turns = iter(found.values())
    monkeypatch.setattr(sft, "accuracy", lambda model, seen: (0.5, next(turns)))
    best = taught(tmp_path / "best", 8, watched=14, eval_steps=2, save_steps=2)
    turns = iter([0.1] * 9)
    last = taught(tmp_path / "last", 8, watched=14, eval_steps=2, save_steps=2, load_best_model_at_end=False)
    four = taught(tmp_path / "four", 4)
    eight = taught(tmp_path / "eight", 8)
    same_as_four = all(torch.equal(best[name], four[name]) for name in four)
    same_as_eight = all(torch.equal(best[name], eight[name]) for name in eight)
    # Steps 4 and 8 are equally good: the one with the lower loss is kept, which training lowers.
    assert same_as_eight
    assert not same_as_four
    assert all(torch.equal(last[name], eight[name]) for name in eight)
    turns = iter([0.1, 0.3, 0.9, 0.5, 0.8])
    kept = taught(tmp_path / "kept", 8, watched=14, eval_steps=2, save_steps=2)
    assert all(torch.equal(kept[name], four[name]) for name in four)
    # Begun again when it is finished, it ends with the same weights.
    shutil.rmtree(tmp_path / "again", ignore_errors=True)
    shutil.copytree(tmp_path / "kept", tmp_path / "again")
    (tmp_path / "again" / "adapter_model.safetensors").unlink()
    again = taught(tmp_path / "again", 8, watched=14, eval_steps=2, save_steps=2)
    assert all(torch.equal(again[name], four[name]) for name in four)


@pytest.mark.parametrize("option", sorted(WITHOUT_EFFECT))
def test_an_option_without_effect_is_refused(option):
    with pytest.raises(BadOption, match=f"-T {option} has no effect here: "):
        read_settings({option: "true"})


def test_lengths(tmp_path):
    model = subject()
    model.load()
    examples = lessons(4)
    rows = [Collator(model.processor).render(example) for example in examples]
    full = Collator(model.processor)(rows)
    longest = int(full["attention_mask"].sum(1).max())
    cut = Collator(model.processor, max_length=longest - 1)(rows)
    assert cut["input_ids"].shape == cut["labels"].shape == (4, longest - 1)
    padded = Collator(model.processor, multiple=64)(rows)
    assert padded["input_ids"].shape[1] % 64 == 0
    everything = Collator(model.processor, answers_only=False)(rows)
    image = model.processor.image_token_id
    assert (
        (everything["labels"] == -100) == ((full["input_ids"] == image) | (full["attention_mask"] == 0))
    ).all()
    model.close()
    with pytest.raises(DataError, match="max_length=8: an example has .* tokens before its answer"):
        taught(tmp_path / "short", 1, max_length=8)
    with pytest.raises(DataError, match="reads at most 20"):
        Collator(model.processor, positions=20).check_longest(examples)
