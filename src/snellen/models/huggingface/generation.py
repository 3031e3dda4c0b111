"""Greedy and sampled generation, optionally constrained to a trie of allowed answers, and streaming."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any

from snellen.models.base import failure
from snellen.models.huggingface.architectures import PLACES_ARE_SPECIAL
from snellen.models.huggingface.prompted import PromptedModel, PromptRow
from snellen.types import Decoding, Outcome, Request, Response

__all__ = ["GeneratingModel", "sampling"]

#: Marks the end of a name in a trie of tokens.
END = -1


def sampling(decoding: Decoding) -> dict[str, Any]:
    """Return the options by which transformers' ``generate`` decodes so."""
    if decoding.temperature <= 0:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}


class GeneratingModel(PromptedModel):
    """Generates answers. Batches are padded on the left, and temperature 0 is greedy, whatever the
    checkpoint's own sampling defaults are.
    """

    #: The checkpoint's own generation configuration, whose special tokens are used.
    own_config: Any

    def _by_length(self, rows: Sequence[PromptRow]) -> list[Response]:
        """Generate in batches of prompts with equal length, which need no padding."""
        readers = [self._tokenizer, getattr(self._processor, "qformer_tokenizer", self._tokenizer)]
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, row in enumerate(rows):
            length = tuple(len(reader(row.prompt).input_ids) for reader in readers)
            groups.setdefault(length, []).append(index)
        responses: dict[int, Response] = {}
        for members in groups.values():
            replies = self.fitting([rows[i] for i in members], self.generate)
            responses |= zip(members, replies, strict=True)
        return [responses[i] for i in range(len(rows))]

    def generate(self, rows: Sequence[PromptRow]) -> list[Response]:
        decoding = rows[0].request.decoding
        inputs = self.inputs_of(rows, padding_side="left")
        config = self.generation_config(decoding)
        if decoding.temperature > 0:
            import torch

            torch.manual_seed(decoding.draw)
        start = 1 if self._model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        allowed = self._allowed(rows, config, start)
        output = self._model.generate(**inputs, generation_config=config, prefix_allowed_tokens_fn=allowed)
        # Encoder-decoders return the answer after one start token, decoders after the prompt.
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
                    inputs = self.inputs_of([row], padding_side="left")
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
        """Return a function for the next allowed tokens of each row, along a trie of the allowed answers;
        None if anything is allowed.
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
            # Only the end may follow a complete name.
            return [*(t for t in branch if t != END), *(ends if END in branch else [])] if branch else ends

        return allowed

    def _trie(self, row: PromptRow) -> dict[int, Any]:
        """Build the trie of a row's allowed answers, tokenized as continuations of its prompt."""
        prompt = self.tokens(row.prompt)
        root: dict[int, Any] = {}
        for name in row.request.continuations:
            text = self._chat.continuation(row.request.messages, name)
            continued = self.tokens(row.prompt + text)
            path = continued[len(prompt) :]
            if continued[: len(prompt)] != prompt:  # together they would be tokenized differently
                with self._words:
                    path = self._tokenizer(text, add_special_tokens=False).input_ids
            branch = root
            for token in path:
                branch = branch.setdefault(token, {})
            branch[END] = {}
        return root

    def generation_config(self, decoding: Decoding) -> Any:
        """Build a generation configuration from scratch, keeping only the checkpoint's special tokens."""
        from transformers import GenerationConfig

        own = self.own_config
        ends = own.eos_token_id if own.eos_token_id is not None else self._tokenizer.eos_token_id
        pad = own.pad_token_id if own.pad_token_id is not None else self._tokenizer.pad_token_id
        if pad is None:
            pad = ends[0] if isinstance(ends, list) else ends
        return GenerationConfig(
            max_new_tokens=decoding.max_tokens,
            eos_token_id=ends,
            pad_token_id=pad,
            bos_token_id=own.bos_token_id,
            decoder_start_token_id=own.decoder_start_token_id,
            forced_bos_token_id=own.forced_bos_token_id,
            **sampling(decoding),
        )

    def ends(self, config: Any) -> frozenset[int]:
        """Return the tokens that end an answer."""
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        return frozenset(ends)

    def response(self, ids: list[int], prompt_tokens: int, config: Any, prompt: str) -> Response:
        """Build a response from generated tokens."""
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
