"""Collate training examples to batches in which only answers are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from snellen.errors import DataError
from snellen.models.huggingface.chat import ChatRenderer
from snellen.models.huggingface.image_size import ImageSize
from snellen.models.huggingface.prefix_cache.trie import common
from snellen.tuning.augmentation import Augmentation
from snellen.tuning.examples import Example
from snellen.tuning.trainer import by_place

__all__ = ["Collator", "rows_of"]

#: The examples with the longest texts, and with the most images, that are looked at before training.
LONGEST = 2
#: What Mllama's image processors alone return.
TILED = "aspect_ratio_ids"


class Collator:
    """Collates rows to a batch in which only the answers are trained on.

    Prompt and answer are tokenized as one text, as for log-likelihoods: a tokenizer may merge them, or
    start a separate text with a special token, so that separate tokenization would train on other tokens
    than the model generates. (TRL's own collator tokenizes them separately.)

    Args:
        max_length: cut longer examples at the end, but never within the prompt or an image; ``multiple``: pad
            to a multiple of this.
        image_size: how large the model sees images.
        answers_only: else the loss covers the prompts' texts too, without images.
        positions: the most tokens that the model can read.

    """

    def __init__(
        self,
        processor: Any,
        *,
        max_length: int | None = None,
        multiple: int | None = None,
        image_size: ImageSize | None = None,
        answers_only: bool = True,
        positions: int | None = None,
    ) -> None:
        self._processor, self._image_size = processor, image_size or ImageSize()
        self._max_length, self._multiple = max_length, multiple
        self._answers_only, self._positions = answers_only, positions
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._chat = ChatRenderer(processor)

    def render(self, example: Example) -> dict[str, Any]:
        """Convert an example to a row.

        Its ``spans`` are where the answers lie in the text of prompt and completion, in characters.
        """
        prompt, completion = self._chat.lesson(example.messages, example.answer)
        spans = [(len(prompt), len(prompt) + len(completion))]
        if example.every:
            for place, turn in enumerate(example.messages):
                if turn.role == "assistant":
                    begun, answer = self._chat.lesson(example.messages[:place], turn.text)
                    spans.append((len(begun), len(begun) + len(answer)))
        return {
            "images": [self._image_size.pixels(image) for image in example.images],
            "prompt": prompt,
            "completion": completion,
            "spans": sorted(spans),
        }

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Return the processor's tensors with ``labels``: -100 except for the answers' tokens."""
        import torch

        special = self._chat.adds_special_tokens(rows[0]["prompt"])
        images = [row["images"] for row in rows]
        texts = [row["prompt"] + row["completion"] for row in rows]
        between = any(images) and not all(images) and TILED in self._processor.model_input_names
        if between:
            # Mllama's image processor of torchvision loses first and last rows without images, so that rows
            # with one are put around them.
            seen = next(place for place, row in enumerate(images) if row)
            texts, images = ([one[seen], *one, one[seen]] for one in (texts, images))
        batch = self._processor(
            text=texts,
            images=images if any(images) else None,
            padding=True,
            padding_side="right",
            pad_to_multiple_of=self._multiple,
            add_special_tokens=special,
            return_tensors="pt",
        )
        if between:
            for key, value in batch.items():
                batch[key] = value[1:-1]
        ids, lengths = batch["input_ids"], batch["attention_mask"].sum(1).tolist()
        labels = torch.full_like(ids, -100)
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            answers = self._answers(row, special)
            for first, last in answers:
                labels[place, length - first : length - last] = ids[place, length - first : length - last]
            self._check_length(length, length - answers[0][0], sum(first - last for first, last in answers))
        if not self._answers_only:
            images_at = getattr(self._processor, "image_token_id", None)
            read = batch["attention_mask"].bool() & (ids != (-1 if images_at is None else images_at))
            labels = ids.masked_fill(~read, -100)
        batch["labels"] = labels
        if self._max_length is not None:
            for key, value in batch.items():
                if value.shape[:2] == ids.shape:
                    batch[key] = value[:, : self._max_length]
        return batch

    def _answers(self, row: Mapping[str, Any], special: bool) -> list[tuple[int, int]]:
        """Return where a row's answers begin and end, in tokens from its end: images, which are more tokens
        than their text says, come before all of them.
        """
        text = row["prompt"] + row["completion"]
        cuts = [text[:cut] for span in row["spans"] for cut in span]
        *begun, complete = self._tokenizer([*cuts, text], add_special_tokens=special).input_ids
        left = [len(complete) - common([cut, complete]) for cut in begun]
        return list(zip(left[::2], left[1::2], strict=True))

    def _check_length(self, length: int, before: int, taught: int) -> None:
        """Refuse an example that does not fit, or whose answer would be cut entirely.

        Raises:
            DataError: as stated.
        """
        if self._max_length is not None and before >= self._max_length:
            raise DataError(
                f"-T max_length={self._max_length}: an example has {before:,} tokens before its answer, "
                f"images included, and {taught:,} in it, so nothing of it would be learned. Allow more than "
                f"{before:,}, or omit it."
            )
        kept = min(length, self._max_length or length)
        if self._positions is not None and kept > self._positions:
            raise DataError(
                f"An example has {length:,} tokens, and the model reads at most {self._positions:,}. Shorten "
                f"it, remove it, or cut long answers with -T max_length={self._positions}"
            )

    def check_longest(self, lessons: Sequence[Example]) -> None:
        """Refuse examples that do not fit before any training, by the longest texts.

        Raises:
            DataError: as stated.
        """
        sizes = [
            (sum(len(m.text) for m in lesson.messages) + len(lesson.answer), len(lesson.images), place)
            for place, lesson in enumerate(lessons)
        ]
        places = {size[2] for size in sorted(sizes)[-LONGEST:]}
        places |= {size[2] for size in sorted(sizes, key=lambda size: size[1])[-LONGEST:]}
        for place in sorted(places):
            self([self.render(lessons[place])])


def rows_of(lessons: Sequence[Example], collator: Collator, augmentation: Augmentation | None = None) -> Any:
    """Return examples as a data set of the datasets library, whose images are read, and changed at random, on
    access.
    """

    def batch(places: Sequence[int]) -> dict[str, list[Any]]:
        made = [collator.render(lessons[place]) for place in places]
        if augmentation is not None:
            for place, row in zip(places, made, strict=True):
                row["images"] = augmentation.of(row["images"], place)
        return {key: [row[key] for row in made] for key in ("images", "prompt", "completion", "spans")}

    return by_place(len(lessons), batch)
