"""Any image-text-to-text model of transformers: generation and log-likelihoods, in true batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import chain
from typing import Any

from snellen.errors import ImageError, ModelError, Stopped
from snellen.images import Image
from snellen.models.huggingface.architectures import (
    ALONE,
    BOXES,
    EQUAL_SIZES,
    NEED_IMAGE,
    NO_LIKELIHOOD,
    PIXELS_OF_INPUT,
    PREFIX_LM,
    REFUSED,
    UNPADDED,
    UNSHARED,
)
from snellen.models.huggingface.chat import ChatRenderer, ChatTemplate, inserts_images
from snellen.models.huggingface.checkpoint import Checkpoint
from snellen.models.huggingface.generation import GeneratingModel
from snellen.models.huggingface.likelihood import ScoringModel
from snellen.models.huggingface.matmul import take_fastest_route
from snellen.models.huggingface.options import PrefixMode
from snellen.models.huggingface.prefix_cache.self_check import BRANCHES, Strategy
from snellen.models.huggingface.prefix_cache.strategy import PrefixSharing
from snellen.models.huggingface.prompted import PromptRow
from snellen.models.out_of_memory import OutOfMemory
from snellen.types import Kind, Request, Response

__all__ = ["VisionLanguageModel"]

log = logging.getLogger("snellen")


#: The number of questions about an image that cost little more than one.
REQUEST_BATCH = 32


class VisionLanguageModel(GeneratingModel, ScoringModel):
    """A checkpoint behind ``AutoModelForImageTextToText`` and ``AutoProcessor``.

    Several questions about an image share its encoding and their common prompt prefix, if a self-check
    finds that answers do not change (:mod:`~snellen.models.huggingface.prefix_cache.strategy`).
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        prefix: PrefixMode = "auto",
        cache_budget: int | None = None,
        template: ChatTemplate | None = None,
        *,
        graphs: bool = True,
    ) -> None:
        super().__init__(checkpoint)
        self._template = template or ChatTemplate()
        self._prefix = prefix
        self.sharing = PrefixSharing(self, prefix, cache_budget, graphs=graphs)
        self._apart = False
        config = checkpoint.config()
        self._config_type = type(config)
        if why := REFUSED.get(config.model_type):
            raise ModelError(f"{checkpoint.name}: models of the type {config.model_type} are refused: {why}.")
        text = config.get_text_config(decoder=True)
        # If the prompt attends to what follows it (PaliGemma), or is read by a separate encoder, the
        # plain sum over the continuation's tokens is not a likelihood.
        blind = not (
            config.model_type in PREFIX_LM | NO_LIKELIHOOD
            or config.is_encoder_decoder
            or text.is_encoder_decoder
        )
        self.kinds = frozenset(Kind) if blind else frozenset({Kind.GENERATE})
        self.text_only = config.model_type not in NEED_IMAGE
        self.boxes = BOXES.get(config.model_type)

    def identity(self) -> Mapping[str, Any]:
        # Sharing does not change answers, so it is not part of the identity, unless it is turned off to
        # verify that.
        plain = {"prefix": "off"} if self._prefix == "off" else {}
        return {"kind": "vlm", **self.checkpoint.identity(), **self._template.identity(), **plain}

    _matmul = ""

    def load_parts(self) -> tuple[Any, Any]:
        from transformers import AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor

        # The processor first: what it lacks is said before gigabytes are read.
        processor = self.checkpoint.load_processor(AutoProcessor)
        known = self._config_type in AutoModelForImageTextToText._model_mapping
        auto = AutoModelForImageTextToText if known else AutoModelForMultimodalLM
        model = self.checkpoint.load(auto)
        self._take(model, processor)
        if not self._chat.has_template and not inserts_images(processor):
            log.warning(
                "%s has no chat template that transformers reads; questions are asked as plain text. "
                "Give one with: -M chat_template=FILE",
                self.name,
            )
        if model.device.type == "cpu" and str(model.dtype) == "torch.float32":
            self._matmul = take_fastest_route()
        return processor, model

    def _take(self, model: Any, processor: Any) -> None:
        from transformers import GenerationConfig

        # generate() fills unset options from the model's own defaults (penalties, beams,
        # forbidden words), so these are disabled to keep greedy decoding greedy.
        self.own_config, model.generation_config = model.generation_config, GenerationConfig()
        self._tokenizer = getattr(processor, "tokenizer", processor)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._chat = ChatRenderer(processor, self._template)

    @contextmanager
    def borrowing(self, model: Any, processor: Any) -> Iterator[None]:
        """Temporarily answer with a model that a trainer owns; it is left unchanged."""
        self.close()  # what was cached belongs to other weights
        own, training = model.generation_config, model.training
        self._processor, self._model = processor, model.eval()
        self._take(model, processor)
        try:
            yield
        finally:
            self.sharing.clear()
            self._model, model.generation_config = None, own
            model.train(training)

    def close(self) -> None:
        self.sharing.clear()
        super().close()

    def metadata(self) -> Mapping[str, Any]:
        """As for any checkpoint, and the result of the prefix-sharing self-check, if there was one."""
        known = dict(super().metadata())
        if known and (findings := self.sharing.found) is not None:
            remembered = {"remembered": True} if self.sharing.remembered else {}
            known["prefix"] = {**asdict(findings), **remembered}
        if known and self._matmul:
            known["matmul"] = self._matmul
        return known

    def fitting(self, rows: Sequence[Any], run: Callable[[Sequence[Any]], list[Any]]) -> list[Any]:
        if self.architecture in ALONE:
            return [answer for row in rows for answer in super(VisionLanguageModel, self).fitting([row], run)]
        return super().fitting(rows, run)

    def group(self, request: Request) -> Hashable:
        return (super().group(request), self._sizes(request))

    def _sizes(self, request: Request) -> tuple[tuple[int, int] | None, ...]:
        """Return the sizes of images that must be equal within a batch."""
        return tuple(map(_size, request.images)) if self._apart else ()

    def _must_be_apart(self, requests: Sequence[Request]) -> bool:
        """Return whether images of different sizes must not be in one batch, once there are some."""
        if self.batch_size == 1 or len({_size(image) for r in requests for image in r.images}) < 2:
            return False
        kind = self.architecture
        return kind in EQUAL_SIZES or (kind not in ALONE | UNSHARED and not self.sharing.mixes)

    def cost(self, request: Request) -> int:
        return max(1, len(request.continuations))

    @property
    def block(self) -> int:
        # A CPU takes no more images than a batch, and looking at the sharing would begin its self-check.
        if self.device.type != "cuda" or self.sharing.way not in BRANCHES:
            return self.batch_size
        return max(self.batch_size, self.sharing.images)

    @property
    def request_batch(self) -> int:
        return REQUEST_BATCH if self.sharing.way in BRANCHES else 1

    prefetches = True

    def prefetch(self, requests: Sequence[Request]) -> None:
        self.sharing.prefetch(requests)

    def together(self, requests: Sequence[Request]) -> list[list[int]]:
        """Keep an image's questions together if they share, with as many images per batch as pays off."""
        self.load()
        clusters = self.sharing.clusters(requests)
        self._apart = self._must_be_apart(requests)
        if not clusters or self.sharing.way is Strategy.PLAIN:
            return super().together(requests)
        alike: dict[Any, list[list[int]]] = {}
        for places in clusters:
            first = requests[places[0]]
            key = (first.kind, first.decoding, len(first.continuations), self._sizes(first))
            alike.setdefault(key, []).append(places)
        shared = []
        for (_, _, continuations, _), clusters_alike in alike.items():
            size = self.sharing.at_once(continuations) if self.sharing.way in BRANCHES else 1
            shared += [
                list(chain(*clusters_alike[start : start + size]))
                for start in range(0, len(clusters_alike), size)
            ]
        within = {place for batch in shared for place in batch}
        rest = [place for place in range(len(requests)) if place not in within]
        alone = super().together([requests[place] for place in rest])
        return shared + [[rest[i] for i in batch] for batch in alone]

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        import torch

        self.load()
        if requests[0].kind is not Kind.GENERATE and self._chat.opens_thinking:
            raise Stopped(
                f"{self.name}: its chat template begins answers with <think>, so that the likelihood of an "
                "answer is not that of its words. Turn thinking off: -M thinking=false"
            )
        with torch.inference_mode():
            if self.sharing.clusters(requests) and self.sharing.way in BRANCHES:
                responses = self._shared(requests)
            else:
                responses = self.plainly(requests)
        if self.architecture not in PIXELS_OF_INPUT:
            return responses
        return [self._framed(request, reply) for request, reply in zip(requests, responses, strict=True)]

    def _shared(self, requests: Sequence[Request]) -> list[Response]:
        """Answer from shared prefixes or, if memory is too small for them, in plain batches."""
        try:
            return self.sharing.answer(requests)
        except OutOfMemory as error:
            log.warning("%s: %s Answering in plain batches.", self.name, error)
            self.sharing.failed()
        self.free_memory()
        return self.plainly(requests)

    @property
    def shares_vision(self) -> bool:
        return self.sharing.way is Strategy.VISION

    def free_memory(self) -> None:
        self.sharing.clear()
        super().free_memory()

    def _framed(self, request: Request, reply: Response) -> Response:
        """Add the size of the picture whose pixels the response refers to."""
        if request.kind is not Kind.GENERATE or len(request.images) != 1:
            return reply
        images = self._processor.image_processor
        grid = images(images=[self.checkpoint.image_size.pixels(request.images[0])], return_tensors="pt")[
            "image_grid_thw"
        ][0].tolist()
        frame = [grid[2] * images.patch_size, grid[1] * images.patch_size]
        return replace(reply, meta={**reply.meta, "frame": frame})

    def plainly(self, requests: Sequence[Request]) -> list[Response]:
        """Answer in batches that share nothing, or only images' features."""
        if not requests:
            return []
        if requests[0].kind is Kind.SCORE:
            return self._score(requests)
        rows = [PromptRow(r, self.prompt(r.messages)) for r in requests]
        if requests[0].decoding.temperature > 0:
            # Sampled one by one, each from its own seed, so that no draw depends on its batch.
            return [reply for row in rows for reply in self.generate([row])]
        if self.architecture in UNPADDED:
            return self._by_length(rows)
        return self.fitting(rows, self.generate)


def _size(image: Image) -> tuple[int, int] | None:
    """Return an image's size; None if it cannot be read, which its answer will say."""
    try:
        return image.size
    except ImageError:
        return None
