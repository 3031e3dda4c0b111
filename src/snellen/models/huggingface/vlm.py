"""Any image-text-to-text model of transformers: generation and log-likelihoods, in true batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from snellen.models.huggingface.chat import ChatRenderer
from snellen.models.huggingface.checkpoint import Checkpoint
from snellen.models.huggingface.local import CheckpointModel
from snellen.types import Decoding, Kind, Outcome, Request, Response, Score

if TYPE_CHECKING:
    import torch

__all__ = ["VisionLanguageModel"]


#: Architectures whose prompt attends to what follows it.
PREFIX_LM = frozenset({"paligemma"})
#: Architectures that answer nothing without an image.
NEED_IMAGE = frozenset({"paligemma", "blip-2", "instructblip", "kosmos-2"})
#: Architectures whose positions, or whose Q-Former's, padding on the left would shift.
UNPADDED = frozenset({"instructblip", "kosmos-2", "florence2"})
#: Architectures that take one image; some of them would silently ignore the others.
ONE_IMAGE = frozenset({"blip-2", "instructblip", "kosmos-2", "florence2"})


@dataclass(frozen=True, slots=True)
class Row:
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
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        config = checkpoint.config()
        text = config.get_text_config(decoder=True)
        # Where the prompt sees what follows it (PaliGemma), or is read by another half of the model, the
        # plain sum over the continuation's tokens is no likelihood.
        blind = not (config.model_type in PREFIX_LM or config.is_encoder_decoder or text.is_encoder_decoder)
        self.kinds = frozenset(Kind) if blind else frozenset({Kind.GENERATE})
        self.text_only = config.model_type not in NEED_IMAGE

    def identity(self) -> Mapping[str, Any]:
        return {"kind": "vlm", **self.checkpoint.identity()}

    def load_parts(self) -> tuple[Any, Any]:
        from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

        model = self.checkpoint.load(AutoModelForImageTextToText)
        # generate() fills what a call leaves open from the model's own defaults (penalties, beams,
        # forbidden words): they are put aside, so that greedy is greedy.
        self._special, model.generation_config = model.generation_config, GenerationConfig()
        processor = self.checkpoint.load_processor(AutoProcessor)
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._chat = ChatRenderer(processor)
        return processor, model

    def cost(self, request: Request) -> int:
        return max(1, len(request.continuations))

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        import torch

        self.load()
        with torch.inference_mode():
            if requests[0].kind is Kind.SCORE:
                return self._score(requests)
            rows = [Row(r, self._chat.prompt(r.messages)) for r in requests]
            if requests[0].decoding.temperature > 0:
                # Drawn one by one, each from its own seed: no draw depends on its batch.
                return [reply for row in rows for reply in self._generate([row])]
            if self._model.config.model_type in UNPADDED:
                return self._by_length(rows)
            return self.fitting(rows, self._generate)

    def _by_length(self, rows: Sequence[Row]) -> list[Response]:
        """Generate in batches of prompts of one length, which need no padding."""
        readers = [self._tokenizer, getattr(self._processor, "qformer_tokenizer", self._tokenizer)]
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, row in enumerate(rows):
            length = tuple(len(reader(row.prompt).input_ids) for reader in readers)
            groups.setdefault(length, []).append(index)
        found: dict[int, Response] = {}
        for members in groups.values():
            replies = self.fitting([rows[i] for i in members], self._generate)
            found |= zip(members, replies, strict=True)
        return [found[i] for i in range(len(rows))]

    # ── generation ──────────────────────────────────────────────────────────────────────────────────

    def _generate(self, rows: Sequence[Row]) -> list[Response]:
        decoding = rows[0].request.decoding
        inputs = self._inputs(rows, padding_side="left")
        config = self._generation_config(decoding)
        if decoding.temperature > 0:
            import torch

            torch.manual_seed(decoding.draw)
        output = self._model.generate(**inputs, generation_config=config)
        # Encoder-decoders give the answer after one token of their own, decoders after the prompt.
        encoder_decoder = self._model.config.is_encoder_decoder
        new = output[:, 1 if encoder_decoder else inputs["input_ids"].shape[1] :]
        prompts = inputs["attention_mask"].sum(1).tolist()
        return [
            replace(self._response(ids, length, config), prompt=row.prompt)
            for row, ids, length in zip(rows, new.tolist(), prompts, strict=True)
        ]

    def _generation_config(self, decoding: Decoding) -> Any:
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

    def _response(self, ids: list[int], prompt_tokens: int, config: Any) -> Response:
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        stop = next((i for i, token in enumerate(ids) if token in ends), None)
        text = self._tokenizer.decode(ids[:stop], skip_special_tokens=True).strip()
        return Response(
            text=text,
            outcome=Outcome.TRUNCATED if stop is None else Outcome.OK,
            reason=f"cut off after {len(ids)} tokens" if stop is None else "",
            prompt_tokens=prompt_tokens,
            completion_tokens=len(ids) if stop is None else stop + 1,
        )

    # ── log-likelihoods ─────────────────────────────────────────────────────────────────────────────

    def _score(self, requests: Sequence[Request]) -> list[Response]:
        rows: list[Row] = []
        tails: list[list[int]] = []
        for request in requests:
            prompt = self._chat.prompt(request.messages)
            mine = [
                Row(request, prompt, self._chat.continuation(request.messages, text))
                for text in request.continuations
            ]
            rows += mine
            tails += self._tails(mine)
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

    def _tails(self, rows: Sequence[Row]) -> list[list[int]]:
        """The tokens that make up each continuation of one request.

        A tokenizer may join the end of the prompt with the beginning of a continuation; the tails then
        begin where the tokens of the prompt and of all continued prompts part, so that all of them
        are conditioned on the same tokens.
        """
        special = self._chat.adds_special_tokens(rows[0].prompt)

        def ids(text: str) -> list[int]:
            found: list[int] = self._tokenizer(text, add_special_tokens=special).input_ids
            return found[:-1] if special and found and found[-1] == closing else found

        probe = self._tokenizer("", add_special_tokens=special).input_ids
        closing = probe[-1] if len(probe) > 1 else None
        start = ids(rows[0].prompt)
        whole = [ids(row.prompt + row.continuation) for row in rows]
        shared = min(_common(start, one) for one in whole)
        return [one[shared:] for one in whole]

    def _score_rows(self, pairs: Sequence[tuple[Row, list[int]]]) -> list[tuple[Score, int]]:
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

    def _logits(self, inputs: Any, keep: int) -> torch.Tensor:
        """The logits at the last ``keep`` places."""
        import inspect

        accepted = inspect.signature(self._model.forward).parameters
        more = {"logits_to_keep": keep} if "logits_to_keep" in accepted else {}
        logits: torch.Tensor = self._model(**inputs, **more, use_cache=False).logits
        return logits[:, -keep:]

    # ── both ────────────────────────────────────────────────────────────────────────────────────────

    def _inputs(self, rows: Sequence[Row], padding_side: str) -> Any:
        """The processor's tensors for these rows, on the model's device and in its precision."""
        most = max(len(row.request.images) for row in rows)
        if most > 1 and self._model.config.model_type in ONE_IMAGE:
            raise ValueError(f"{most} images, and {self._model.config.model_type} takes one")
        texts = [row.prompt + row.continuation for row in rows]
        images = [[image.pixels for image in row.request.images] for row in rows]
        inputs = self._processor(
            text=texts,
            images=images if any(images) else None,
            padding=True,
            padding_side=padding_side,
            add_special_tokens=self._chat.adds_special_tokens(texts[0]),
            return_tensors="pt",
        )
        self._refuse_what_is_too_long(inputs)
        return inputs.to(self._model.device, self._model.dtype)

    def _refuse_what_is_too_long(self, inputs: Any) -> None:
        """Beyond its context a model answers all the same, and answers nonsense."""
        text = self._model.config.get_text_config(decoder=True)
        context = getattr(text, "max_position_embeddings", None)
        longest = int(inputs["attention_mask"].sum(1).max())
        if context and longest > context:
            raise ValueError(f"a prompt of {longest} tokens, and the model's context is {context}")


def _common(one: list[int], other: list[int]) -> int:
    """The length of the longest common prefix."""
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))
