"""Log-likelihoods of continuations, in batches whose rows are independent of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from snellen.models.huggingface.prefix_cache.prefill import keep
from snellen.models.huggingface.prefix_cache.trie import common
from snellen.models.huggingface.prompted import PromptedModel, PromptRow
from snellen.types import Request, Response, Score

if TYPE_CHECKING:
    import torch

__all__ = ["ScoringModel"]


class ScoringModel(PromptedModel):
    """Scores continuations: the sum of log P(token | all before it) over a continuation's tokens. Rows are
    padded on the right, where causal attention ignores the padding, so that no answer depends on its batch.
    """

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
        """Return the tokens of each continuation, and how many of the prompt's tokens they replace.

        A tokenizer may merge the end of the prompt with the start of a continuation. The tails then start
        where the tokens of the prompt and of all continued prompts diverge, so that all of them are
        conditioned on the same tokens.
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
        inputs = self.inputs_of(rows, padding_side="right")
        lengths = inputs["attention_mask"].sum(1)
        ids = inputs["input_ids"]
        begins = [int(n) - len(tail) for n, tail in zip(lengths, tails, strict=True)]
        for row_ids, begin, tail in zip(ids, begins, tails, strict=True):
            if row_ids[begin : begin + len(tail)].tolist() != tail:
                raise ValueError("the processor moved the continuation's tokens")
        # Logits only from the first token that predicts a tail, since vocabularies are large.
        first = min(begins) - 1
        logits = self.logits_of(inputs, ids.shape[1] - first)
        scores = []
        for i, (begin, tail) in enumerate(zip(begins, tails, strict=True)):
            rows_of = logits[i, begin - 1 - first : begin - 1 - first + len(tail)].float()
            picked = torch.log_softmax(rows_of, -1).gather(
                -1, torch.tensor(tail, device=rows_of.device)[:, None]
            )
            scores.append((Score(float(picked.cpu().double().sum()), len(tail)), int(lengths[i])))
        return scores

    def logits_of(self, inputs: Any, count: int) -> torch.Tensor:
        """Return the logits at the last ``count`` positions."""
        logits: torch.Tensor = self._model(**inputs, **keep(self._model, count), use_cache=False).logits
        return logits[:, -count:]
