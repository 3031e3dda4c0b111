"""What is mixed in: drawn before it is read, and a conversation counts once, with all of its answers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

import tiny
from helpers import made
from snellen.datasets.base import DATASETS, select
from snellen.datasets.conversations import Conversations
from snellen.datasets.shapes import draw, figure
from snellen.models.huggingface.chat import ChatRenderer
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.tuning.collator import Collator, rows_of
from snellen.tuning.sources import Source, TrainingSet, mixed
from snellen.tuning.tuning import Tuning

pytestmark = pytest.mark.slow

FAMILIES = ("llava", "qwen2_vl", "qwen3_vl", "idefics3", "smolvlm", "internvl", "gemma3", "mllama")


def conversations(folder: Path, turns: list[int], *, late: bool = False) -> Path:
    """Write one conversation for each number of answers; ``late``: the last question has another image."""
    rows = []
    for number, count in enumerate(turns):
        draw(figure(f"{number}", "ring"), 48).save(folder / f"{number}.png")
        messages = []
        for turn in range(count):
            mark = "<image>" if turn == 0 or (late and turn == count - 1) else ""
            messages.append({"role": "user", "content": f"{mark}What is it, time {turn}?"})
            messages.append({"role": "assistant", "content": f"A ring {turn} of {number}."})
        rows.append({"messages": messages, "images": [f"{number}.png"] * (1 + late)})
    file = folder / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


@pytest.mark.parametrize("family", FAMILIES)
def test_a_conversation_teaches_what_its_turns_teach(family, tmp_path):
    """In one example, the very tokens are learned, in the very contexts, that one example a turn has."""
    checkpoint = tiny.save(family, tmp_path / "m", scale=1.0)
    model = made(VisionLanguageModel, f"hf:{checkpoint}?prefix=off")
    model.load()
    processor = model.processor
    # The miniature's template does not end answers in the middle, so that turns have to be learned apart.
    assert not ChatRenderer(processor).keeps_turns
    end = "{% if m['role'] == 'assistant' %}" + processor.tokenizer.eos_token + "{% endif %}"
    tail = "\n{% endfor %}{% if add"
    processor.chat_template = processor.chat_template.replace(tail, end + tail)
    assert ChatRenderer(processor).keeps_turns
    collator = Collator(processor)
    selection = select(DATASETS.make(f"conversations:{conversations(tmp_path, [3])}"))
    apart = TrainingSet([Source(selection=selection)])
    (row,) = rows_of(whole := TrainingSet([Source(selection=selection, whole=True)]), collator)
    assert (len(apart), len(whole)) == (3, 1)
    batch = collator([row])
    ids, labels = batch["input_ids"][0], batch["labels"][0]
    learned = {place: int(ids[place]) for place in (labels != -100).nonzero().flatten().tolist()}
    expected: dict[int, int] = {}
    for row in rows_of(apart, collator):
        batch = collator([row])
        turn, own = batch["input_ids"][0], batch["labels"][0]
        for place in (own != -100).nonzero().flatten().tolist():
            expected[place] = int(turn[place])
        assert ids[: len(turn)].tolist()[: place + 1] == turn.tolist()[: place + 1]
    assert learned == expected
    model.close()


def test_images_in_later_questions_keep_turns_apart(tmp_path):
    selection = select(DATASETS.make(f"conversations:{conversations(tmp_path, [3], late=True)}"))
    examples = list(TrainingSet([Source(selection=selection, whole=True)]))
    assert [example.answer for example in examples] == [f"A ring {turn} of 0." for turn in range(3)]
    assert not any(example.every for example in examples)


def test_long_conversations_are_not_drawn_more_often(tmp_path):
    """A conversation of nine turns, one example each, is drawn as often as one of a single turn."""
    first = Source(selection=select(DATASETS.make("chart:shapes?n=100")), train_format="open")
    rest = mixed(f"conversations:{conversations(tmp_path, [1, 9])}@1", "open", 0)
    lessons = TrainingSet([first, rest])
    answers = Counter(example.answer.rpartition(" ")[2] for example in list(lessons)[100:])
    assert answers == {"0.": 50, "1.": 50}
    assert lessons.summary()[1] == {"data": rest.selection.name, "samples": 2, "examples": 100}


def test_only_what_was_drawn_is_read(tmp_path, monkeypatch):
    """Of 300 conversations, the weight asks for a few: no others are opened, hashed or compared."""
    read: set[int] = set()
    real = Conversations.digest
    monkeypatch.setattr(Conversations, "digest", lambda self, i: read.add(i) or real(self, i))
    file = conversations(tmp_path, [2] * 300)
    compared: list[tuple[int, int]] = []

    def watch(stage: str, step: int, steps: int, _: object) -> None:
        if stage == "images compared":
            compared.append((step, steps))

    tuning = Tuning(
        model="pico:llava-skewed",
        data="chart:shapes?n=14",
        out=tmp_path / "out",
        mix=(f"conversations:{file}@0.25",),
        train_limit=28,
        train_format="open",
        oversample=("none",),
        retention_data=("chart:shapes?ask=color&n=8",),
        settings={"max_steps": 1},
        probe=False,
        workspace=tmp_path / "ws",
        watch=watch,
    )
    tuned = tuning.run()
    assert tuned is not None
    assert len(read) == len(tuning.plan.sources[1].selection) == 7
    assert [source["examples"] for source in tuned.facts["examples"]] == [28, 7]
    # The test images, the retention task's, the training images, and those drawn.
    assert compared[-1] == (14 + 8 + 28 + 7, 14 + 8 + 28 + 7)
    other = Tuning(
        model=tuning.model,
        data=tuning.data,
        out=tmp_path / "other",
        mix=tuning.mix,
        seed=1,
        train_limit=28,
        workspace=tmp_path / "ws",
    )
    assert {*other.plan.sources[1].selection.indices} != {*tuning.plan.sources[1].selection.indices}
