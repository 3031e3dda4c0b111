"""Which parts are trained, on what images, at which rates, and what the card says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pillow
from safetensors.torch import load_file

import tiny
from helpers import made
from snellen.datasets.base import DATASETS, select
from snellen.errors import BadOption
from snellen.models.base import MODELS
from snellen.models.dual_encoder import DualEncoder
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.runs.filters import Filters
from snellen.tuning.augmentation import CHANGES, Augmentation
from snellen.tuning.manifest import MANIFEST
from snellen.tuning.recipes import adapters, named_recipe, part_of
from snellen.tuning.sft import teach
from snellen.tuning.sources import Source, TrainingSet
from snellen.tuning.tuning import Tuning

pytestmark = pytest.mark.slow

FAMILIES = ("llava", "qwen2_vl", "qwen3_vl", "idefics3", "smolvlm", "internvl", "gemma3", "mllama")
MODEL = "pico:llava-skewed"


def taught(out: Path, recipe: str, parts: tuple[str, ...] = (), **more: Any) -> dict[str, torch.Tensor]:
    """Train for four steps on eight shapes, and return the weights, or the adapters."""
    selection = select(DATASETS.make("chart:shapes?n=8&split=train"))
    settings = {
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "save_steps": 1,
        **more.pop("settings", {}),
    }
    teach(
        made(VisionLanguageModel, MODEL),
        named_recipe(recipe).on(parts),
        TrainingSet([Source(selection=selection, train_format="open")]),
        None,
        None,
        out=out,
        given=settings,
        lora={},
        base=MODEL,
        seed=3,
        **more,
    )
    (file,) = out.glob("*.safetensors")
    return load_file(file)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("parts", [("vision",), ("projector",), ("vision", "decoder")])
def test_adapters_lie_in_the_chosen_parts(family, parts):
    from peft import get_peft_model

    model, _ = tiny.ARCHITECTURES[family]()
    (stage,) = named_recipe("lora").on(parts).stages
    linear = {part_of(n) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    wanted = set(stage.trains)
    if not wanted <= linear:
        pytest.skip(f"{family} has no linear layer there")
    tuned = get_peft_model(model, adapters(model, {"r": 2}, stage.trains))
    names = [name for name, p in tuned.named_parameters() if p.requires_grad]
    assert {part_of(name) for name in names} == wanted
    assert not any("lm_head" in name for name in names)


def test_each_part_has_its_rate(tmp_path):
    """A part whose rate is nearly nothing keeps its weights, while another moves."""
    weights = taught(tmp_path / "a", "full", ("vision@1e-12", "projector", "decoder@1e-2"))
    before = load_file(next((Path(made(VisionLanguageModel, MODEL).checkpoint.path)).glob("*.safetensors")))
    moved: dict[str, float] = {}
    for name, value in weights.items():
        old = before[name.replace("vision_tower.vision_model", "vision_tower")]
        step = float((value.float() - old.float()).abs().max())
        moved[part_of(name)] = max(moved.get(part_of(name), 0.0), step)
    assert moved["vision tower"] < 1e-9
    # Adam moves a weight by about its rate in every step.
    assert 2e-3 < moved["projector"] < 6e-3
    assert 2e-2 < moved["decoder"] < 6e-2


def test_what_parts_are_refused():
    for wrong, words in (
        ("tower", "Allowed: vision, projector, decoder"),
        ("vison", "Did you mean 'vision'"),
        ("vision@x", "between 0 and 1"),
        ("vision@1.5", "between 0 and 1"),
    ):
        with pytest.raises(BadOption, match=words):
            named_recipe("lora").on([wrong])
    with pytest.raises(BadOption, match="'vision' twice"):
        named_recipe("full").on(["vision@1e-5", "vision"])
    with pytest.raises(BadOption, match=r"needs the recipe lora, qlora, full; decoder trains projector and"):
        named_recipe("decoder").on(["vision"])
    assert named_recipe("full").on(["vision", "decoder"]).about == "all weights of decoder and vision tower"


def test_label_smoothing_is_obeyed(tmp_path):
    plain, smoothed = (
        taught(tmp_path / f"{share}", "lora", settings={"label_smoothing_factor": share})
        for share in (0.0, 0.2)
    )
    assert any(not torch.equal(value, smoothed[name]) for name, value in plain.items())


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_label_smoothing_of_a_dual_encoder(tmp_path, smoothing):
    """The first loss is that of torch's own function on the cosines that the model answers with."""
    from transformers import AutoModel, AutoProcessor

    losses: list[float] = []

    def watch(_: str, step: int, __: int, known: Any) -> None:
        if "loss" in known and step == 1:
            losses.append(known["loss"])

    settings = {"max_steps": 1, "per_device_train_batch_size": 28, "label_smoothing_factor": smoothing}
    settings |= {"logging_steps": 1}
    Tuning(
        model="pico:clip",
        data="chart:shapes?n=28",
        train="chart:shapes?n=28&split=train",
        out=tmp_path / "out",
        settings=settings,
        workspace=tmp_path / "ws",
        watch=watch,
    ).run()
    selection = select(DATASETS.make("chart:shapes?n=28&split=train"))
    model = made(DualEncoder, "pico:clip")
    network = AutoModel.from_pretrained(model.checkpoint.path, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(model.checkpoint.path)
    captions = [model.templates[0].replace("{}", name) for name in selection.labels]
    images = [sample.images[0].pixels for sample in selection]
    tensors = processor(text=captions, images=images, padding=True, return_tensors="pt")
    labels = torch.tensor([selection.labels.index(sample.label) for sample in selection])
    with torch.no_grad():
        logits = network(**tensors).logits_per_image
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert losses[0] == pytest.approx(float(expected), rel=1e-3)


class TestAugmentation:
    @given(st.sets(st.sampled_from(sorted(CHANGES)), min_size=1), st.integers(0, 9), st.integers(0, 3))
    def test_it_repeats_by_seed_epoch_and_place(self, names, place, epoch):
        image = pillow.linear_gradient("L").convert("RGB").resize((40, 24))
        one, other = (Augmentation(sorted(names), 10, 7) for _ in range(2))
        one.epoch = other.epoch = epoch
        (a,), (b,) = one.of([image], place), other.of([image], place)
        assert a.tobytes() == b.tobytes()
        assert (a.size, a.mode) == (image.size, image.mode)
        assert one.of([image], 10) == [image]  # behind the examples of classes

    @pytest.mark.parametrize("name", sorted(CHANGES))
    def test_every_change_changes_and_every_epoch_differs(self, name):
        image = pillow.linear_gradient("L").convert("RGB").rotate(90).resize((64, 64))
        augmentation = Augmentation([name], 100, 0)
        seen = []
        for augmentation.epoch in range(2):
            seen.append([augmentation.of([image], place)[0].tobytes() for place in range(20)])
        assert seen[0] != seen[1]
        assert any(pixels != image.tobytes() for pixels in seen[0])

    def test_an_unknown_name(self):
        with pytest.raises(BadOption, match=r"Did you mean 'rotate'\? Allowed: flip, rotate, crop, light"):
            Augmentation(["rotat"], 1, 0)

    def test_a_resumed_training_sees_the_same_images(self, tmp_path):
        names = ("rotate", "crop", "light")

        def stop(_: str, step: int, __: int, known: Any) -> None:
            if step == 3 and not known:
                raise KeyboardInterrupt

        whole = taught(tmp_path / "whole", "lora", augmentation=Augmentation(names, 8, 1))
        with pytest.raises(KeyboardInterrupt):
            taught(tmp_path / "out", "lora", augmentation=Augmentation(names, 8, 1), watch=stop)
        resumed = taught(tmp_path / "out", "lora", augmentation=Augmentation(names, 8, 1))
        assert all(torch.equal(value, whole[name]) for name, value in resumed.items())
        plain = taught(tmp_path / "plain", "lora")
        assert any(not torch.equal(value, whole[name]) for name, value in plain.items())

    def test_not_for_what_has_no_classes(self, tmp_path):
        with pytest.raises(BadOption, match="--augment is for classes"):
            Tuning(
                model=MODEL,
                data="chart:shapes?ask=color&n=8",
                out=tmp_path / "out",
                augment=("flip",),
                workspace=tmp_path / "ws",
            )


@pytest.mark.parametrize(
    ("family", "limit", "recipe"),
    [("qwen2_vl", {"max_pixels": 2304}, "lora"), ("llava", {"max_side": 16}, "full")],
)
def test_the_size_of_images_stays_with_the_model(family, limit, recipe, tmp_path):
    """It is trained and evaluated alike, without saying it again; a card and the merged weights know it."""
    checkpoint = tiny.save(family, tmp_path / "base", scale=1.0)
    result = Tuning(
        model=f"hf:{checkpoint}",
        data="chart:shapes?n=8",
        out=tmp_path / "out",
        recipe=recipe,
        model_options=limit,
        settings={"max_steps": 1, "per_device_train_batch_size": 2},
        retention_data=("chart:shapes?ask=color&n=8",),
        train_limit=28,
        merge=recipe == "lora",
        probe=False,
        workspace=tmp_path / "ws",
    ).run()
    assert result is not None
    folders = [tmp_path / "out", *([tmp_path / "out" / "merged"] if recipe == "lora" else [])]
    for folder in folders:
        tuned = made(VisionLanguageModel, f"hf:{folder}")
        assert tuned.checkpoint.image_size.identity() == limit
        assert yaml.safe_load((folder / MANIFEST).read_text())["image_size"] == limit
        other = {name: 2 * value for name, value in limit.items()}
        again = MODELS.make(f"hf:{folder}", other)
        assert {name: again.identity()[name] for name in limit} == other


def test_the_card_says_what_was_learned(tmp_path):
    Tuning(
        model=MODEL,
        data="chart:shapes?n=28",
        out=tmp_path / "out",
        train_parts=("vision@1e-5", "decoder"),
        augment=("light",),
        mix=("chart:shapes?ask=color&n=40&split=train@0.25",),
        settings={"max_steps": 2},
        lora={"r": 4},
        train_limit=28,
        train_format="open",
        retention_data=("chart:shapes?ask=color&n=8",),
        oversample=("none",),
        probe=False,
        split_seed=5,
        workspace=tmp_path / "ws",
    ).run()
    held = yaml.safe_load((tmp_path / "out" / MANIFEST).read_text())
    color = "chart:shapes?ask=color&n=40&split=train"
    assert held["examples"] == [
        {"data": "chart:shapes", "samples": 28, "examples": 28},
        {"data": color, "samples": 7, "examples": 7},
    ]
    stage = held["effective"]["lora"]
    assert stage["examples_per_second"] > 0
    assert stage["peak_memory_bytes"] > 2**20
    card = (tmp_path / "out" / "README.md").read_text()
    for words in (
        "low-rank adapters on decoder and vision tower",
        "- chart:shapes: 28 examples of 28 samples",
        f"- {color}: 7 examples of 7 samples",
        "examples/s, peak memory",
        "- Seed 0, of the split 5. Options: max_steps=2, r=4, train_parts=vision@1e-5,decoder, augment=light",
    ):
        assert words in card


def test_classes_with_few_images_are_left_out(tmp_path):
    sizes = {"ring": 6, "star": 5, "cross": 2}
    for split in ("train", "test"):
        for name, count in sizes.items():
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                color = (40 * number, 200 if split == "test" else 0, 60 * len(name))
                path = tmp_path / "photos" / split / name / f"{number}.png"
                pillow.effect_noise((32, 32), 60 + number).convert("RGB").point(lambda v, c=color: v).save(
                    path
                )

    def plan(**more: Any) -> Tuning:
        data = f"folder:{tmp_path / 'photos'}"
        return Tuning(
            model=MODEL,
            data=data,
            out=tmp_path / "out",
            data_options={"split": "test"},
            train_split="train",
            workspace=tmp_path / "ws",
            **more,
        )

    tuning = plan(min_per_class=5)
    assert set(tuning.plan.test.labels) == set(tuning.plan.train_set.labels) == {"ring", "star"}
    assert len(tuning.plan.test) == len(tuning.plan.train_set) == 11
    assert "Left out for fewer than 5 training images: cross." in tuning.plan.notes
    assert set(plan(min_per_class=2).plan.test.labels) == set(sizes)
    with pytest.raises(BadOption, match=r"fewer than two classes of .*The largest have 6 and 5 images"):
        plan(min_per_class=6)
    with pytest.raises(BadOption, match=r"The largest have 5 and 2 images"):
        plan(min_per_class=4, filters=Filters(classes=("star,cross",)))
    with pytest.raises(BadOption, match="--min-per-class 0"):
        plan(min_per_class=0)
