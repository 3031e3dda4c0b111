"""Any image-text-to-text model of transformers: generation and log-likelihoods, in true batches."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from snellen.models.base import failure
from snellen.models.huggingface.architectures import (
    BOXES,
    NEED_IMAGE,
    ONE_IMAGE,
    PIXELS_OF_INPUT,
    PLACES_ARE_SPECIAL,
    PREFIX_LM,
    UNPADDED,
)
from snellen.models.huggingface.base import CheckpointModel
from snellen.models.huggingface.chat import ChatRenderer
from snellen.models.huggingface.checkpoint import Checkpoint
from snellen.models.huggingface.matmul import take_fastest_route
from snellen.models.huggingface.options import PrefixMode
from snellen.models.huggingface.prefix_cache.prefill import keep
from snellen.models.huggingface.prefix_cache.self_check import BRANCHES, Strategy
from snellen.models.huggingface.prefix_cache.strategy import PrefixSharing, encoded_once
from snellen.models.huggingface.prefix_cache.trie import common
from snellen.models.out_of_memory import OutOfMemory
from snellen.types import Decoding, Kind, Message, Outcome, Request, Response, Score

if TYPE_CHECKING:
    import torch

    from snellen.images import Image

__all__ = ["VisionLanguageModel"]

log = logging.getLogger("snellen")


#: Marks a whole name in a trie of tokens.
END = -1
#: How many questions about an image are asked at once where that costs little more than one.
REQUEST_BATCH = 32


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One line of a batch: a request's prompt, with one of its continuations where it is scored."""

    request: Request
    prompt: str
    continuation: str = ""


class VisionLanguageModel(CheckpointModel):
    """A checkpoint behind ``AutoModelForImageTextToText`` and ``AutoProcessor``.

    Generation pads on the left and is greedy at temperature 0, whatever the checkpoint's own sampling
    defaults say. A continuation's score is the sum of log P(token | all before it) over its tokens;
    those rows are padded on the right, where causal attention cannot see the padding, so that no answer
    depends on its batch.

    Several questions about an image share its encoding and what their prompts begin with, where a
    self-check finds that this changes no answer (:mod:`~snellen.models.huggingface.prefix_cache.strategy`).
    """

    def __init__(
        self, checkpoint: Checkpoint, prefix: PrefixMode = "auto", cache_budget: int | None = None
    ) -> None:
        super().__init__(checkpoint)
        self._prefix = prefix
        # Fast tokenizers are not safe between threads, and images to come are read in another.
        self._words = threading.RLock()
        self._sharing = PrefixSharing(self, prefix, cache_budget)
        config = checkpoint.config()
        text = config.get_text_config(decoder=True)
        # Where the prompt sees what follows it (PaliGemma), or is read by another half of the model, the
        # plain sum over the continuation's tokens is no likelihood.
        blind = not (config.model_type in PREFIX_LM or config.is_encoder_decoder or text.is_encoder_decoder)
        self.kinds = frozenset(Kind) if blind else frozenset({Kind.GENERATE})
        self.text_only = config.model_type not in NEED_IMAGE
        self.boxes = BOXES.get(config.model_type)

    def identity(self) -> Mapping[str, Any]:
        # Sharing changes no answer, so it is no part; who turns it off wants to see that for himself.
        plain = {"prefix": "off"} if self._prefix == "off" else {}
        return {"kind": "vlm", **self.checkpoint.identity(), **plain}

    _matmul = ""

    def load_parts(self) -> tuple[Any, Any]:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        model = self.checkpoint.load(AutoModelForImageTextToText)
        processor = self.checkpoint.load_processor(AutoProcessor)
        self._take(model, processor)
        if model.device.type == "cpu" and str(model.dtype) == "torch.float32":
            self._matmul = take_fastest_route()
        return processor, model

    def _take(self, model: Any, processor: Any) -> None:
        from transformers import GenerationConfig

        # generate() fills what a call leaves open from the model's own defaults (penalties, beams,
        # forbidden words): they are put aside, so that greedy is greedy.
        self._special, model.generation_config = model.generation_config, GenerationConfig()
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._chat = ChatRenderer(processor)

    @contextmanager
    def borrowing(self, model: Any, processor: Any) -> Iterator[None]:
        """Answer by a model that somebody else holds and is training, for a while; it is left as it was."""
        own, training = model.generation_config, model.training
        self._processor, self._model = processor, model.eval()
        self._take(model, processor)
        try:
            yield
        finally:
            self._sharing.clear()
            self._model, model.generation_config = None, own
            model.train(training)

    def close(self) -> None:
        self._sharing.clear()
        super().close()

    def metadata(self) -> Mapping[str, Any]:
        """As of any checkpoint, and what the check of prefix sharing found, if there was one."""
        known = dict(super().metadata())
        if known and (findings := self._sharing.found) is not None:
            known["prefix"] = {"way": findings.way, "noise": findings.noise, "tried": dict(findings.tried)}
        if known and self._matmul:
            known["matmul"] = self._matmul
        return known

    def cost(self, request: Request) -> int:
        return max(1, len(request.continuations))

    @property
    def request_batch(self) -> int:
        return REQUEST_BATCH if self._sharing.way in BRANCHES else 1

    prefetches = True

    def prefetch(self, requests: Sequence[Request]) -> None:
        self._sharing.prefetch(requests)

    def together(self, requests: Sequence[Request]) -> list[list[int]]:
        """An image's questions stay together, where they share; as many images as pays."""
        clusters = self._sharing.clusters(requests)
        if not clusters or self._sharing.way is Strategy.PLAIN:
            return super().together(requests)
        alike: dict[Any, list[list[int]]] = {}
        for places in clusters:
            first = requests[places[0]]
            alike.setdefault((first.kind, first.decoding, len(first.continuations)), []).append(places)
        shared = []
        for (_, _, continuations), clusters_alike in alike.items():
            size = self._sharing.at_once(continuations) if self._sharing.way in BRANCHES else 1
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
        with torch.inference_mode():
            if self._sharing.clusters(requests) and self._sharing.way in BRANCHES:
                responses = self._shared(requests)
            else:
                responses = self.plainly(requests)
        if self.architecture not in PIXELS_OF_INPUT:
            return responses
        return [self._framed(request, reply) for request, reply in zip(requests, responses, strict=True)]

    def _shared(self, requests: Sequence[Request]) -> list[Response]:
        """Answer from shared prefixes, or, where memory is too small for them, in plain batches."""
        try:
            return self._sharing.answer(requests)
        except OutOfMemory as error:
            log.warning("%s: %s Answering in plain batches.", self.name, error)
        self.free_memory()
        return self.plainly(requests)

    def free_memory(self) -> None:
        self._sharing.clear()
        super().free_memory()

    def _framed(self, request: Request, reply: Response) -> Response:
        """The response with the size of the picture in whose pixels it speaks."""
        if request.kind is not Kind.GENERATE or len(request.images) != 1:
            return reply
        images = self._processor.image_processor
        grid = images(images=[request.images[0].pixels], return_tensors="pt")["image_grid_thw"][0].tolist()
        frame = [grid[2] * images.patch_size, grid[1] * images.patch_size]
        return replace(reply, meta={**reply.meta, "frame": frame})

    def plainly(self, requests: Sequence[Request]) -> list[Response]:
        """Answer in batches that share nothing, or images' features alone."""
        if not requests:
            return []
        if requests[0].kind is Kind.SCORE:
            return self._score(requests)
        rows = [PromptRow(r, self.prompt(r.messages)) for r in requests]
        if requests[0].decoding.temperature > 0:
            # Drawn one by one, each from its own seed: no draw depends on its batch.
            return [reply for row in rows for reply in self._generate([row])]
        if self.architecture in UNPADDED:
            return self._by_length(rows)
        return self.fitting(rows, self._generate)

    # ── what sharing needs to know ──────────────────────────────────────────────────────────────────

    @property
    def decoder(self) -> Any:
        """The model of transformers."""
        self.load()
        return self._model

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self.decoder.device
        return device

    @property
    def architecture(self) -> str:
        """Its ``model_type``."""
        return str(self.decoder.config.model_type)

    def prompt(self, messages: Sequence[Message]) -> str:
        """Messages as the chat template renders them."""
        return self._chat.prompt(messages)

    def tokens(self, prompt: str) -> list[int]:
        """A prompt's tokens, images as their marks."""
        special = self._chat.adds_special_tokens(prompt)
        with self._words:
            ids: list[int] = self._tokenizer(prompt, add_special_tokens=special).input_ids
        return ids

    def process(self, prompt: str, images: Sequence[Image]) -> Any:
        """The processor's tensors for one prompt."""
        return self.process_all([(prompt, images)], "right")

    def _by_length(self, rows: Sequence[PromptRow]) -> list[Response]:
        """Generate in batches of prompts of one length, which need no padding."""
        readers = [self._tokenizer, getattr(self._processor, "qformer_tokenizer", self._tokenizer)]
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, row in enumerate(rows):
            length = tuple(len(reader(row.prompt).input_ids) for reader in readers)
            groups.setdefault(length, []).append(index)
        responses: dict[int, Response] = {}
        for members in groups.values():
            replies = self.fitting([rows[i] for i in members], self._generate)
            responses |= zip(members, replies, strict=True)
        return [responses[i] for i in range(len(rows))]

    # ── generation ──────────────────────────────────────────────────────────────────────────────────

    def _generate(self, rows: Sequence[PromptRow]) -> list[Response]:
        decoding = rows[0].request.decoding
        inputs = self._inputs(rows, padding_side="left")
        config = self.generation_config(decoding)
        if decoding.temperature > 0:
            import torch

            torch.manual_seed(decoding.draw)
        start = 1 if self._model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        allowed = self._allowed(rows, config, start)
        output = self._model.generate(**inputs, generation_config=config, prefix_allowed_tokens_fn=allowed)
        # Encoder-decoders give the answer after one token of their own, decoders after the prompt.
        new = output[:, start:]
        prompts = inputs["attention_mask"].sum(1).tolist()
        return [
            self.response(ids, length, config, row.prompt)
            for row, ids, length in zip(rows, new.tolist(), prompts, strict=True)
        ]

    def stream(self, request: Request) -> Generator[str, None, Response]:
        import torch
        from transformers import StoppingCriteria, TextIteratorStreamer

        self.load()
        stopped = threading.Event()

        class Stopping(StoppingCriteria):  # type: ignore[misc]
            def __call__(self, ids: Any, scores: Any, **_: Any) -> Any:
                return torch.full((ids.shape[0],), stopped.is_set(), device=ids.device)

        row = PromptRow(request, self.prompt(request.messages))
        config = self.generation_config(request.decoding)
        pieces = TextIteratorStreamer(self._tokenizer, skip_prompt=True, skip_special_tokens=True)
        made: list[Any] = []

        def generate() -> None:
            try:
                with torch.inference_mode():
                    inputs = self._inputs([row], padding_side="left")
                    if request.decoding.temperature > 0:
                        torch.manual_seed(request.decoding.draw)
                    made.append(int(inputs["attention_mask"].sum()))
                    start = 1 if self._model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
                    output = self._model.generate(
                        **inputs, generation_config=config, streamer=pieces, stopping_criteria=[Stopping()]
                    )
                    made.append(output[0, start:].tolist())
            except Exception as error:
                made.append(error)
            finally:
                pieces.end()

        with self._lock:
            thread = threading.Thread(target=generate, daemon=True)
            thread.start()
            try:
                begun = False
                for piece in pieces:
                    text = piece if begun else piece.lstrip()
                    begun = begun or bool(text)
                    if text:
                        yield text
            finally:
                stopped.set()
                thread.join()
        if isinstance(made[-1], Exception):
            return failure(made[-1])
        return self.response(made[1], made[0], config, row.prompt)

    def _allowed(
        self, rows: Sequence[PromptRow], config: Any, start: int
    ) -> Callable[[int, Any], list[int]] | None:
        """Which tokens may come next in each row: along a trie of what may be said, and then an end. None
        where anything may.
        """
        if not any(row.request.continuations for row in rows):
            return None
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        tries = [self._trie(row) for row in rows]
        free = list(range(self._model.config.get_text_config(decoder=True).vocab_size))

        def allowed(row: int, ids: Any) -> list[int]:
            if not rows[row].request.continuations:
                return free
            branch: dict[int, Any] | None = tries[row]
            for token in ids[start:].tolist():
                branch = branch.get(token) if branch else None
            # Beyond a whole name there is nothing but the end.
            return [*(t for t in branch if t != END), *(ends if END in branch else [])] if branch else ends

        return allowed

    def _trie(self, row: PromptRow) -> dict[int, Any]:
        """The tokens of what may be said in a row's answer, as they follow its prompt."""
        prompt = self.tokens(row.prompt)
        root: dict[int, Any] = {}
        for name in row.request.continuations:
            text = self._chat.continuation(row.request.messages, name)
            continued = self.tokens(row.prompt + text)
            path = continued[len(prompt) :]
            if continued[: len(prompt)] != prompt:  # the two would be read otherwise together
                with self._words:
                    path = self._tokenizer(text, add_special_tokens=False).input_ids
            branch = root
            for token in path:
                branch = branch.setdefault(token, {})
            branch[END] = {}
        return root

    def generation_config(self, decoding: Decoding) -> Any:
        """A fresh one: of the checkpoint's own, only the special tokens are taken."""
        from transformers import GenerationConfig

        own = self._special
        ends = own.eos_token_id if own.eos_token_id is not None else self._tokenizer.eos_token_id
        pad = own.pad_token_id if own.pad_token_id is not None else self._tokenizer.pad_token_id
        if pad is None:
            pad = ends[0] if isinstance(ends, list) else ends
        sampling: dict[str, Any] = {"do_sample": False}
        if decoding.temperature > 0:
            sampling = {
                "do_sample": True,
                "temperature": decoding.temperature,
                "top_p": decoding.top_p,
                "top_k": 0,
            }
        return GenerationConfig(
            max_new_tokens=decoding.max_tokens,
            eos_token_id=ends,
            pad_token_id=pad,
            bos_token_id=own.bos_token_id,
            decoder_start_token_id=own.decoder_start_token_id,
            forced_bos_token_id=own.forced_bos_token_id,
            **sampling,
        )

    def ends(self, config: Any) -> frozenset[int]:
        """The tokens that end an answer."""
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        return frozenset(ends)

    def response(self, ids: list[int], prompt_tokens: int, config: Any, prompt: str) -> Response:
        """A response from the tokens that were generated."""
        ends = self.ends(config)
        stop = next((i for i, token in enumerate(ids) if token in ends), None)
        places = self.architecture in PLACES_ARE_SPECIAL
        with self._words:
            text = self._tokenizer.decode(ids[:stop], skip_special_tokens=not places).strip()
            for word in self._tokenizer.all_special_tokens if places else ():
                if not re.search(r"loc|patch_index|phrase|object|seg|sep|poly", word):
                    text = text.replace(word, "").strip()
        return Response(
            text=text,
            outcome=Outcome.TRUNCATED if stop is None else Outcome.OK,
            reason=f"cut off after {len(ids)} tokens" if stop is None else "",
            prompt_tokens=prompt_tokens,
            completion_tokens=len(ids) if stop is None else stop + 1,
            prompt=prompt,
        )

    # ── log-likelihoods ─────────────────────────────────────────────────────────────────────────────

    def _score(self, requests: Sequence[Request]) -> list[Response]:
        rows: list[PromptRow] = []
        tails: list[list[int]] = []
        for request in requests:
            prompt = self.prompt(request.messages)
            rows += [
                PromptRow(request, prompt, self._chat.continuation(request.messages, text))
                for text in request.continuations
            ]
            tails += self.tails(request, prompt)[0]
        scored = self.fitting(list(zip(rows, tails, strict=True)), self._score_rows)
        responses = []
        start = 0
        for request in requests:
            mine_scored = scored[start : start + len(request.continuations)]
            responses.append(
                Response(
                    prompt=rows[start].prompt,
                    scores=tuple(score for score, _ in mine_scored),
                    prompt_tokens=sum(tokens for _, tokens in mine_scored),
                )
            )
            start += len(request.continuations)
        return responses

    def tails(self, request: Request, prompt: str) -> tuple[list[list[int]], int]:
        """The tokens that make up each continuation, and how many of the prompt's they stand for.

        A tokenizer may join the end of the prompt with the beginning of a continuation; the tails then
        begin where the tokens of the prompt and of all continued prompts part, so that all of them
        are conditioned on the same tokens.
        """
        special = self._chat.adds_special_tokens(prompt)

        def ids(texts: list[str]) -> list[list[int]]:
            rows: list[list[int]] = self._tokenizer(texts, add_special_tokens=special).input_ids
            return [row[:-1] if special and row and row[-1] == closing else row for row in rows]

        begun = [self._chat.continuation(request.messages, text) for text in request.continuations]
        with self._words:
            probe = self._tokenizer("", add_special_tokens=special).input_ids
            closing = probe[-1] if len(probe) > 1 else None
            start, *continued = ids([prompt, *(prompt + text for text in begun)])
        shared = min(common([start, row]) for row in continued)
        return [row[shared:] for row in continued], len(start) - shared

    def _score_rows(self, pairs: Sequence[tuple[PromptRow, list[int]]]) -> list[tuple[Score, int]]:
        import torch

        rows = [row for row, _ in pairs]
        tails = [tail for _, tail in pairs]
        inputs = self._inputs(rows, padding_side="right")
        lengths = inputs["attention_mask"].sum(1)
        ids = inputs["input_ids"]
        begins = [int(n) - len(tail) for n, tail in zip(lengths, tails, strict=True)]
        for row_ids, begin, tail in zip(ids, begins, tails, strict=True):
            if row_ids[begin : begin + len(tail)].tolist() != tail:
                raise ValueError("the processor moved the continuation's tokens")
        # Logits from the first token that predicts a tail, no earlier: a vocabulary is wide.
        first = min(begins) - 1
        logits = self._logits(inputs, ids.shape[1] - first)
        scores = []
        for i, (begin, tail) in enumerate(zip(begins, tails, strict=True)):
            rows_of = logits[i, begin - 1 - first : begin - 1 - first + len(tail)].float()
            picked = torch.log_softmax(rows_of, -1).gather(
                -1, torch.tensor(tail, device=rows_of.device)[:, None]
            )
            scores.append((Score(float(picked.double().sum()), len(tail)), int(lengths[i])))
        return scores

    def _logits(self, inputs: Any, count: int) -> torch.Tensor:
        """The logits at the last ``count`` places."""
        logits: torch.Tensor = self._model(**inputs, **keep(self._model, count), use_cache=False).logits
        return logits[:, -count:]

    # ── both ────────────────────────────────────────────────────────────────────────────────────────

    def _inputs(self, rows: Sequence[PromptRow], padding_side: str) -> Any:
        """The processor's tensors for these rows, on the model's device and in its precision."""
        shown = [(row.prompt + row.continuation, row.request.images) for row in rows]
        inputs = self.on_device(self.process_all(shown, padding_side))
        self.refuse_what_is_too_long(int(inputs["attention_mask"].sum(1).max()))
        seen = {tuple(image.sha256 for image in images) for _, images in shown}
        if len(rows) > 1 and len(seen) == 1 and seen != {()} and self._sharing.way is Strategy.VISION:
            return encoded_once(self._model, inputs, len(rows))
        return inputs

    def process_all(self, shown: Sequence[tuple[str, Sequence[Image]]], padding_side: str) -> Any:
        """The processor's tensors for prompts with their images, as one batch."""
        texts, images = [text for text, _ in shown], [of_prompt for _, of_prompt in shown]
        most = max(map(len, images))
        if most > 1 and self.architecture in ONE_IMAGE:
            raise ValueError(f"{most} images, and {self.architecture} takes one")
        pixels = [[image.pixels for image in of_prompt] for of_prompt in images]
        with self._words:
            tensors = self._processor(
                text=texts,
                images=pixels if any(pixels) else None,
                padding=True,
                padding_side=padding_side,
                add_special_tokens=self._chat.adds_special_tokens(texts[0]),
                return_tensors="pt",
            )
        tensors.pop("labels", None)  # PaliGemma's, of training
        return tensors

    def on_device(self, inputs: Any) -> Any:
        """Tensors on the model's device and, where they are numbers of a picture, in its precision."""
        return inputs.to(self.device, self._model.dtype)

    def refuse_what_is_too_long(self, length: int) -> None:
        """Beyond its context a model answers all the same, and answers nonsense.

        Raises:
            ValueError: a prompt of so many tokens is too long.
        """
        text = self._model.config.get_text_config(decoder=True)
        context = getattr(text, "max_position_embeddings", None)
        if context and length > context:
            raise ValueError(f"a prompt of {length} tokens, and the model's context is {context}")
