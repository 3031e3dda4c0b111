"""Processed images, and the tokens of prompts about them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snellen.images import Image

__all__ = ["ALONG", "KEPT_BYTES", "ImageContext", "Reader"]

#: The processor's tensors along the prompt; all others belong to its images.
ALONG = frozenset(
    {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "cross_attention_mask"}
)


#: The most cached contexts: a block that is answered, and the next one, each of 64 images at most.
KEPT = 128
#: The bytes that they may take: pictures with many megapixels are large.
KEPT_BYTES = 2**29


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageContext:
    """Images with the prompt that they were processed with.

    Attributes:
        images: their hashes.
        ids: that prompt's tokens, including those of images.
        text: its tokens from the tokenizer alone, with image placeholders.
        head: the number of tokens in ``ids`` before the text after the last image.
        mark: the same for ``text``.
        seen: the number of tokens in ``ids`` that cover all images.
        tensors: the processor's, of one row.
    """

    images: tuple[str, ...]
    ids: list[int]
    text: list[int]
    head: int
    mark: int
    seen: int
    tensors: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        images: tuple[str, ...],
        ids: list[int],
        text: list[int],
        tensors: Mapping[str, Any],
        image_token: int | None = None,
    ) -> ImageContext:
        """Find where the text after the images starts: from there on the two agree."""
        after = 0
        while (
            after < min(len(ids), len(text))
            and ids[-1 - after] == text[-1 - after]
            and ids[-1 - after] != image_token
        ):
            after += 1
        head = len(ids) - after
        places = [place for place, token in enumerate(ids) if token == image_token]
        return cls(
            images=images,
            ids=ids,
            text=text,
            head=head,
            mark=len(text) - after,
            seen=places[-1] + 1 if places else head,
            tensors=tensors,
        )

    @cached_property
    def nbytes(self) -> int:
        """The size of the tensors."""
        return sum(int(tensor.nbytes) for tensor in self.tensors.values())

    @property
    def shape(self) -> tuple[Any, ...]:
        """What must be equal for contexts to share a batch."""
        shapes = (
            (name, tuple(tensor.shape[2:] if name in ALONG else tensor.shape))
            for name, tensor in self.tensors.items()
        )
        return (self.seen, *sorted(shapes))

    def beginning(self, length: int) -> dict[str, Any]:
        """Return the tensors for a prompt of ``length`` tokens about these images, without its tokens.

        The value for the last token, which is text, is extended to all further text.
        """
        import torch

        tensors = dict(self.tensors)
        for name in ALONG & tensors.keys():
            tensor = tensors[name][:, :length]
            if (missing := length - tensor.shape[1]) > 0:
                rest = tensor[:, -1:].expand(-1, missing, *tensor.shape[2:])
                tensor = torch.cat([tensor, rest], 1)
            tensors[name] = tensor
        return tensors

    def continued(self, text: list[int]) -> list[int] | None:
        """Return the tokens of a prompt about the same images, from its text's tokens; None if undetermined.

        It must agree with this one for at least one token after the last image: some processors write
        text around images, which the tokenizer may merge with what follows.
        """
        agreed = self.mark + (1 if self.head != self.mark else 0)
        if text[:agreed] != self.text[:agreed]:
            return None
        return [*self.ids[: self.head], *text[self.mark :]]


class Reader:
    """Builds image contexts and caches some. Thread-safe.

    Args:
        process: runs the processor on one prompt and its images.
        tokenize: returns a text's tokens, with image placeholders.
        image_token: the token for images, or parts of one.
        kept: the number of cached contexts.
        nbytes: the bytes that they may take.
    """

    def __init__(
        self,
        process: Callable[[str, Sequence[Image]], Mapping[str, Any]],
        tokenize: Callable[[str], list[int]],
        image_token: int | None = None,
        kept: int = KEPT,
        nbytes: int = KEPT_BYTES,
    ) -> None:
        self._process, self._tokenize, self._kept = process, tokenize, kept
        self._bytes = nbytes
        self._image_token = image_token
        #: Whether a prompt's tokens can be composed from those of its images and its text.
        self.splices = True
        self.looks: OrderedDict[tuple[str, ...], ImageContext] = OrderedDict()
        self._lock = threading.RLock()

    def read(self, prompt: str, images: Sequence[Image]) -> tuple[ImageContext, list[int]]:
        """Return a prompt's image context, cached or new, and its tokens.

        Raises:
            Exception: whatever the processor raises.
        """
        key = tuple(image.sha256 for image in images)
        with self._lock:
            text = self._tokenize(prompt)
            look = self.looks.get(key)
            ids = look.continued(text) if look is not None and self.splices else None
            if look is None or ids is None:
                tensors = self._process(prompt, images)
                ids = tensors["input_ids"][0].tolist()
                look = self.looks[key] = ImageContext.of(key, ids, text, tensors, self._image_token)
            self.looks.move_to_end(key)
            while len(self.looks) > 1 and (
                len(self.looks) > self._kept or sum(kept.nbytes for kept in self.looks.values()) > self._bytes
            ):
                self.looks.popitem(last=False)
            return look, ids
