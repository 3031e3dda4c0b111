"""What Python users give to fine-tuning, and what they are told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import snellen
from helpers import picture
from snellen.datasets.base import DATASETS
from snellen.errors import BadOption, DataError, Stopped, UsageError
from snellen.tuning.sources import split_data
from snellen.tuning.trainer_settings import checked, examples_in, in_effect
from tuned import short

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"max_steps": -5}, "settings: max_steps=-5 is not allowed; allowed: 1 or more"),
        ({"num_train_epochs": 0}, "num_train_epochs=0 is not allowed"),
        ({"num_train_epochs": float("inf")}, "num_train_epochs=inf is not allowed"),
        ({"shuffle_dataset": True}, "shuffle_dataset has no effect here"),
        ({"seed": 7}, "seed is not allowed; use --seed"),
        ({"output_dir": "x"}, "output_dir is not allowed; use -o"),
        ({"max_steps": "three"}, "max_steps='three' is not allowed; allowed: a whole number"),
    ],
)
def test_settings_are_checked_as_those_of_the_command_are(tmp_path, ws, settings, told):
    with pytest.raises(BadOption, match=told):
        short(tmp_path / "out", ws, settings=settings)


def test_settings_are_read_as_those_of_the_command_are():
    assert checked({"max_steps": -1, "num_train_epochs": 3}) == {"num_train_epochs": 3}
    assert checked({"max_steps": "3", "learning_rate": "1e-4"}) == {"max_steps": 3, "learning_rate": 1e-4}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"leaks": "refused"}, "leaks='refused' is not allowed. Did you mean 'refuse'"),
        ({"train_format": "name"}, "train_format='name' is not allowed. Did you mean 'names'"),
        ({"out": Path("a?b=c")}, r"a folder's name may not contain \?NAME=VALUE"),
    ],
)
def test_choices_are_checked(tmp_path, ws, options, told):
    with pytest.raises(BadOption, match=told):
        snellen.tune(**{"model": "pico:llava-skewed", "data": "chart:shapes", "out": tmp_path, **options})


@pytest.mark.parametrize("examples", [52, 64, 7])
def test_epochs_are_passes_over_all_examples(examples):
    """The last step of an epoch reads what is left."""
    config = SimpleNamespace(
        per_device_train_batch_size=16,
        gradient_accumulation_steps=2,
        dataloader_drop_last=False,
        learning_rate=1e-3,
        bf16=False,
        max_steps=20,
    )
    order = [min(32, examples - start) for start in range(0, examples, 32)]  # of an epoch
    steps = (order * 20)[:20]
    assert in_effect(config, examples)["epochs"] == round(20 / len(order), 2)
    for begin, end in ((0, 20), (3, 4), (5, 17)):
        assert examples_in(config, examples, begin, end) == sum(steps[begin:end])


def photos(folder: Path, **counts: int) -> str:
    """A folder of plain pictures, so many of each class; no two alike."""
    for place, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = picture(("red", "green", "blue")[place], size=(20 + i, 30))
            (folder / name / f"{i}.png").write_bytes(image.data)
    return f"folder:{folder}"


def test_a_class_that_is_left_out_needs_no_two_images(tmp_path):
    name = photos(tmp_path / "p", square=6, circle=6, triangle=1)
    given: dict[str, Any] = {"train": None, "split": None, "share": 0.3, "seed": 0}
    with pytest.raises(DataError, match="leave the class out with --classes or --min-per-class"):
        split_data(name, {}, **given)
    training, tested = split_data(name, {}, **given, classes=("circle,square",))
    assert {tested.row(i).label for i in range(len(tested))} == {"circle", "square"}
    training, _ = split_data(name, {}, **given, least=2)
    assert {training.row(i).label for i in range(len(training))} == {"circle", "square"}


def test_a_task_to_retain_that_comes_later_is_compared_too(tmp_path, ws):
    """Trained on two thirds of the photos, then asked about all of them."""
    name = photos(tmp_path / "p", square=9, circle=9)
    given: dict[str, Any] = {
        "model": "pico:llava-skewed",
        "data": name,
        "out": tmp_path / "out",
        "hold_out": 0.34,
        "settings": {"max_steps": 1},
        "workspace": ws,
        "probe": False,
    }
    found = snellen.tune(**given)
    assert any("Forgetting is not measured" in note for note in found.notes)
    with pytest.raises(DataError, match=r"This training is finished; to train without them, use another -o"):
        snellen.tune(**given, retention_data=[name])
    other = snellen.tune(**given, retention_data=["chart:counting?n=8"])
    assert not any("Forgetting" in note for note in other.notes)
    held = yaml.safe_load((tmp_path / "out" / "tuning.yaml").read_text())
    assert held["retained"] == ["chart:counting?n=8"]


@pytest.mark.parametrize("out", ["/dev/null/x", "/proc/nowhere"])
def test_a_folder_that_cannot_be_made(ws, out):
    with pytest.raises(UsageError, match=f"-o {out}: cannot be made .*Use another"):
        short(Path(out), ws).run()


def test_a_disk_that_is_full_at_the_start(tmp_path, ws, monkeypatch):
    from snellen.tuning import manifest

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "write_atomic", full)
    with pytest.raises(Stopped, match="cannot be written .*Free some space"):
        short(tmp_path / "out", ws).run()


@pytest.mark.parametrize(
    ("settings", "told"),
    [({"deepspeed": "nope.json"}, "-T: trl rejects this .*"), ({"optim": "galore_adamw"}, "-T: .*galore")],
)
def test_what_the_trainer_lacks(tmp_path, ws, settings, told):
    with pytest.raises(BadOption, match=told):
        short(tmp_path / "out", ws, settings={"max_steps": 1, **settings}).run()


def test_turns_of_different_lengths_are_named(tmp_path):
    (tmp_path / "c.jsonl").write_text('{"messages": {"role": ["user"], "content": ["a", "b"]}}\n')
    with pytest.raises(DataError, match="row 0: the messages are no list"):
        DATASETS.make(f"conversations:{tmp_path}/c.jsonl").digest(0)
