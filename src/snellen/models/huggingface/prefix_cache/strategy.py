"""Prefix sharing for one model: its strategy, and answering with it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

from snellen._util.environment import available_memory
from snellen.errors import ModelError, reason_of
from snellen.models.huggingface.architectures import UNSHARED
from snellen.models.huggingface.options import PrefixMode
from snellen.models.huggingface.prefix_cache.budget import free_bytes, memory_of
from snellen.models.huggingface.prefix_cache.inputs import KEPT_BYTES, Reader
from snellen.models.huggingface.prefix_cache.memory import LARGE, Memory, Remembered
from snellen.models.huggingface.prefix_cache.prefill import windows_of
from snellen.models.huggingface.prefix_cache.scheduler import Question, Scheduler, group
from snellen.models.huggingface.prefix_cache.self_check import (
    BRANCHES,
    Findings,
    Strategy,
    pictures,
    questions,
    try_sizes,
    try_ways,
)
from snellen.models.huggingface.prefix_cache.shared_model import SharedModel
from snellen.types import Decoding, Kind, Message, Request, Response, Score

__all__ = ["PrefixSharing", "encoded_once"]

#: The most images to prefill together on a GPU, and the bytes of memory from which on so many are tried: 64
#: took 0.71 to 0.96 of the time an image of 16 on cards of 80 and 141 GB (benchmarks/RESULTS.md).
MOST_IMAGES, AMPLE = 64, 40 * 10**9
#: Operations of a prefill above which batching more images gains nothing on a CPU: measured, see
#: benchmarks/RESULTS.md.
WORTHWHILE = 8e11
#: The widest window or chunk beyond which the self-check looks, and how far, in tokens.
PROBED, MARGIN = 2048, 32
#: At least one token.
FILLER = "and "
#: Failed batches in a row before sharing is given up: each attempt costs a garbage collection.
MAX_FAILURES = 2

log = logging.getLogger("snellen")


class PrefixSharing:
    """Shares the common parts of questions about an image.

    Args:
        model: the model; loaded on first use.
        mode: ``auto`` uses the best exact strategy, ``on`` refuses a model without one, ``off`` shares
            nothing.
        budget: bytes for caches; None to determine it.
        graphs: whether a GPU may record decoding steps.
    """

    def __init__(
        self, model: SharedModel, mode: PrefixMode, budget: int | None, *, graphs: bool = True
    ) -> None:
        self._model, self._mode, self._bytes, self._graphs = model, mode, budget, graphs
        #: Tokens of a typical prompt with its image, by the self-check.
        self.prompt_tokens = 1
        self._failures = 0
        #: The findings, once the check has been made.
        self.found: Findings | None = None
        #: Whether they are of an earlier check.
        self.remembered = False
        self._reader: Reader | None = None
        self._scheduler: Scheduler | None = None

    @property
    def reader(self) -> Reader:
        """Reads prompts with images."""
        if self._reader is not None:
            return self._reader
        config = self._model.decoder.config
        token = getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)
        nbytes = KEPT_BYTES
        if self._model.device.type == "cuda":  # with larger blocks; the computer's memory is for them
            nbytes = max(nbytes, available_memory() // 16)
        self._reader = Reader(self._model.process, self._model.tokens, token, nbytes=nbytes)
        return self._reader

    def budget(self) -> int:
        """Return the bytes that caches may take now."""
        if self._bytes:
            return self._bytes
        # Each layer's part lies with the layer: the fullest card limits all.
        return len(self._devices) * min(map(free_bytes, self._devices))

    @cached_property
    def _devices(self) -> frozenset[Any]:
        """Where the weights lie. Cached: there are hundreds, and every batch asks for its budget."""
        parameters = self._model.decoder.parameters()
        devices = {p.device for p in parameters if p.device.type != "meta"}
        return frozenset(devices or {self._model.device})

    @cached_property
    def images(self) -> int:
        """The number of images to prefill together: as many as keep the processor busy.

        On a CPU, each generated token reads all weights, whether for one image or for four. On a GPU, unless
        a batch size was set, as many as were measured to be faster, where there is memory for them.
        """
        if self._model.device.type == "cuda":
            size = self._model.batch_size
            if "batch_size" in vars(self._model) or memory_of(self._model.device) < AMPLE:
                return size
            return max(size, MOST_IMAGES)
        work = 2 * sum(p.numel() for p in self._model.decoder.parameters()) * self.prompt_tokens
        return max(1, min(self._model.batch_size, int(WORTHWHILE / work)))

    def at_once(self, continuations: int) -> int:
        """Return the same if each image's prompt is followed by this many continuations of about one token,
        which keep a processor busy too.
        """
        if self._model.device.type == "cuda":
            return self.images
        return max(1, self.images * self.prompt_tokens // (self.prompt_tokens + continuations))

    @cached_property
    def findings(self) -> Findings | None:
        """The result of the self-check; None if there is nothing to try.

        Raises:
            ModelError: there is no exact strategy, but ``on`` requires one.
        """
        if self._mode == "off":
            return None
        name = self._model.name
        if self._model.architecture in UNSHARED:
            if self._mode == "on":
                raise ModelError(
                    f"{name}: prefix=on is not possible: {self._model.architecture} supports no sharing "
                    "between an image's questions. Leave prefix at auto."
                )
            return None
        findings = self._recalled()
        if self._mode == "on" and findings.way not in BRANCHES:
            raise ModelError(f"{name}: prefix=on is not possible: {findings}. Leave prefix at auto.")
        log.log(logging.INFO if findings.way in BRANCHES else logging.WARNING, "%s: %s", name, findings)
        self.found = findings
        return findings

    def _recalled(self) -> Findings:
        """Return what the self-check finds, or found before."""
        model = self._model
        parameters = sum(p.numel() for p in model.decoder.parameters())
        memory = Memory(model.identity(), model.device, model.batch_size) if parameters >= LARGE else None
        if memory is not None and (known := memory.recall()) is not None:
            self.prompt_tokens, self.reader.splices, self.remembered = known.tokens, known.splices, True
            return known.findings
        try:
            findings = self.check()
        except Exception as error:
            why = f"the self-check failed: {reason_of(error)}"
            return Findings(Strategy.PLAIN, 0.0, {Strategy.PACKED: why}, mixes=False, mixed="not tried")
        if memory is not None:
            memory.keep(Remembered(findings, self.prompt_tokens, self.reader.splices))
        return findings

    @property
    def unrecorded(self) -> str:
        """Why no decoding steps are to be recorded; empty if they are. A CPU computes a step for longer than
        Python takes to ask for it.
        """
        if not self._graphs:
            return "graphs=off"
        if self._model.device.type != "cuda":
            return "only a GPU repeats recorded steps"
        quantized = getattr(self._model.decoder, "hf_quantizer", None) is not None
        return "not tried with quantized weights" if quantized else ""

    @property
    def way(self) -> Strategy:
        """The strategy in use."""
        return Strategy.PLAIN if self.findings is None else self.findings.way

    @property
    def scheduler(self) -> Scheduler:
        """Answers questions with the strategy."""
        if self._scheduler is None:
            self._scheduler = Scheduler(
                self._model.decoder,
                BRANCHES[self.way],
                self.images,
                self.budget,
                kept=self._model.batch_size,
                graphs=self.findings is not None and isinstance(self.findings.graphs, float),
            )
        return self._scheduler

    @cached_property
    def mixes(self) -> bool:
        """Whether pictures of different sizes may be in one batch; tried alone if nothing else was."""
        if self.found is not None:
            return self.found.mixes
        try:
            return try_sizes(self._model)
        except Exception as error:
            log.info("%s: what pictures of different sizes change was not found: %s", self._model.name, error)
            return False

    def check(self) -> Findings:
        """Try with short prompts and, if layers see only a window, with longer ones, within reason: a mask
        that is wrong there shows only there.
        """
        model = self._model
        found = self._try("")
        windows = windows_of(model.decoder.config.get_text_config(decoder=True)).values()
        reach = max((width for width in windows if width and width <= PROBED), default=0)
        missing = reach + MARGIN - self.prompt_tokens
        if not reach or missing <= 0:
            return found
        length = self.prompt_tokens
        longer = self._try(FILLER * missing)
        self.prompt_tokens = length
        # The later in this order, the less is shared.
        less = max(found, longer, key=lambda findings: list(Strategy).index(findings.way))
        return replace(less, mixes=found.mixes and longer.mixes)

    def _try(self, filler: str) -> Findings:
        """Try all strategies with prompts that have this before their questions."""
        import torch

        model = self._model
        clouds = pictures()
        texts = [filler + text for text in questions()]
        prompts = [model.prompt([Message("user", (clouds[0], text))]) for text in texts]
        shown = [(prompt, (picture,)) for picture in clouds for prompt in prompts]
        with torch.inference_mode():
            own = [model.on_device(model.process(prompt, images)) for prompt, images in shown]
            asked = [Question(prompt, *self.reader.read(prompt, images)) for prompt, images in shown]
            if [q.ids for q in asked] != [tensors["input_ids"][0].tolist() for tensors in own]:
                self.reader.splices = False
                asked = [Question(prompt, *self.reader.read(prompt, images)) for prompt, images in shown]
            self.prompt_tokens = len(asked[0].ids)
            padded, mixed = shown[: len(prompts)], shown[:: len(prompts)]

            def vision(tensors: Mapping[str, Any], rows: int) -> Mapping[str, Any]:
                return encoded_once(model.decoder, tensors, rows)

            return try_ways(
                model.decoder,
                asked,
                own,
                model.on_device(model.process_all(padded, "left")),
                lambda: model.on_device(model.process_all(mixed, "left")),
                vision,
                self.images,
                self.budget,
                unrecorded=self.unrecorded,
            )

    def clusters(self, requests: Sequence[Request]) -> list[list[int]]:
        """Group requests worth sharing, by index: several about the same images, or with continuations.
        Empty once memory was too small for several batches in a row.
        """
        if self._failures >= MAX_FAILURES:
            return []
        groups: dict[Any, list[int]] = {}
        for place, request in enumerate(requests):
            # Each draw has its own seed, and the allowed answers differ between requests.
            alone = request.decoding.temperature > 0 or bool(request.continuations)
            if request.kind is Kind.SCORE or not alone:
                images = tuple(image.sha256 for image in request.images)
                groups.setdefault((request.kind, request.decoding, images), []).append(place)
        return [
            places for places in groups.values() if len(places) > 1 or requests[places[0]].kind is Kind.SCORE
        ]

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        """Answer requests of one kind and decoding; those that share nothing are answered in plain
        batches.
        """
        questions = [self.question(request) for request in requests]
        alone = {
            i
            for places in group(questions)
            for i in places
            if questions[i].shareable < max(1, questions[i].look.seen)
            or (len(places) == 1 and not questions[i].tails)
        }
        plain = self._model.plainly([requests[i] for i in sorted(alone)])
        responses = dict(zip(sorted(alone), plain, strict=True))
        shared = [i for i in range(len(requests)) if i not in alone]
        if shared:
            chosen = [questions[i] for i in shared]
            if requests[0].kind is Kind.SCORE:
                answers = self._score(chosen)
            else:
                answers = self._generate(chosen, requests[0].decoding)
            responses |= zip(shared, answers, strict=True)
        self._failures = 0
        return [responses[i] for i in range(len(requests))]

    def prefetch(self, requests: Sequence[Request]) -> None:
        """Prepare the images of requests that will come soon."""
        if self.found is not None and self.way in BRANCHES:
            for places in self.clusters(requests):
                request = requests[places[0]]
                with suppress(Exception):  # errors of a request are reported when it is answered
                    self.reader.read(self._model.prompt(request.messages), request.images)

    def failed(self) -> None:
        """Record that a batch did not fit into memory, even one image at a time."""
        self._failures += 1

    def clear(self) -> None:
        """Release what is cached for later questions."""
        if self._scheduler is not None:
            self._scheduler.clear()
        self._reader = self._scheduler = None
        vars(self).pop("_devices", None)

    def question(self, request: Request) -> Question:
        """Read a request's prompt and images."""
        prompt = self._model.prompt(request.messages)
        look, ids = self.reader.read(prompt, request.images)
        if request.kind is not Kind.SCORE:
            self._model.refuse_what_is_too_long(len(ids))
            return Question(prompt, look, ids)
        tails, joined = self._model.tails(request, prompt)
        self._model.refuse_what_is_too_long(len(ids) + max(map(len, tails)) - joined)
        return Question(prompt, look, ids[: len(ids) - joined], tuple(tails))

    def _generate(self, questions: Sequence[Question], decoding: Decoding) -> list[Response]:
        config = self._model.generation_config(decoding)
        answers = self.scheduler.generate(questions, config.max_new_tokens, self._model.ends(config))
        return [
            self._model.response(answer, len(question.ids), config, question.prompt)
            for answer, question in zip(answers, questions, strict=True)
        ]

    def _score(self, questions: Sequence[Question]) -> list[Response]:
        responses = []
        for question, values in zip(questions, self.scheduler.score(questions), strict=True):
            pairs = zip(values, question.tails, strict=True)
            responses.append(
                Response(
                    prompt=question.prompt,
                    scores=tuple(Score(value, len(tail)) for value, tail in pairs),
                    prompt_tokens=sum(len(question.ids) + len(tail) for tail in question.tails),
                )
            )
        return responses


def encoded_once(model: Any, tensors: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Return a batch about the same images with their features computed once.

    Raises:
        TypeError: the model does not accept features instead of pixels.
    """
    encoder = model.base_model.get_image_features
    names = [name for name in inspect.signature(encoder).parameters if name in tensors]
    first = {name: tensors[name][: len(tensors[name]) // rows] for name in names}
    features = encoder(**first, return_dict=True)
    pooled = features.pooler_output
    features.pooler_output = (
        list(pooled) * rows if isinstance(pooled, (list, tuple)) else pooled.repeat(rows, 1, 1)
    )
    rest = {name: tensor for name, tensor in tensors.items() if name != "pixel_values"}
    return {**rest, "mm_encoder_outputs": {"image": features}}
