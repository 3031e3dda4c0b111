"""An extractor: a second model reads the answers that the rules leave unread.

VLMEvalKit does so with a language model before it scores, and the figures of the Open VLM Leaderboard
include it (Duan et al., "VLMEvalKit", arXiv 2407.11691). Here it never overrules a rule and never changes a
prediction: the strict figure and the one with the extractor stand side by side. The wording is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, repeat
from typing import Any, ClassVar, Protocol

from snellen._util.redaction import redact
from snellen.errors import require
from snellen.models.base import Model
from snellen.parsing import is_refusal, strip_thinking
from snellen.parsing.text import capped
from snellen.prompts import fill
from snellen.scorers.base import AskModel, SamplePrediction, TextModelScorer
from snellen.types import (
    Decoding,
    Examination,
    Message,
    Outcome,
    Prediction,
    Request,
    Response,
    Sample,
)

__all__ = ["EXTRACT", "Extractor", "nearest_option"]

EXTRACT = """\
A model was asked a question about an image, which you do not see, and replied in its own words. Say \
which answer it gives; whether that is right does not matter. If it gives none, or several, say none.
[question]
{question}
[reply]
{reply}
[end of the reply]
Reply with {form} alone, or with the word none."""


class Examined(Protocol):
    """What an extractor needs from a protocol."""

    @property
    def primary(self) -> str:
        """The score that runs are ranked by."""

    @property
    def classifies(self) -> bool:
        """Whether it predicts one of the data set's classes."""

    def examine(self, sample: Sample) -> Examination:
        """Evaluate one sample."""

    def score_sample(self, sample: Sample, prediction: Prediction) -> dict[str, float]:
        """Score a prediction, by name."""


@dataclass
class Extractor(TextModelScorer):
    """Reads unread answers, and scores with them: ``with_extractor``, next to the protocol's own score.

    A sample without a prediction is examined again with the extractor's reading in the place of each unread
    reply. Refusals and errors are not read. A circular evaluation that stopped at an unread answer stays
    unread, since its further rotations were never asked.

    Args:
        name: the extractor, as for ``--model``.
        protocol: the protocol of the run.
        form: what it is asked for, in words.
        most: the number of samples per batch.
        nearest: takes a sample, a reading that is none of its options, and the number of the request, and
            returns a reply that names the nearest option, as in MathVista's scorer (Lu et al., arXiv
            2310.02255).

    Raises:
        BadOption: the model does not generate text, or needs an image.
        MissingExtra: rapidfuzz is not installed, which ``nearest`` needs.
    """

    option: ClassVar[str] = "extractor"
    name: str
    protocol: Examined
    form: str
    most: int = 256
    nearest: Callable[[Sample, str, int], str] | None = None
    _extracted: dict[str, str] = field(default_factory=dict, repr=False)

    def check(self) -> None:
        super().check()
        if self.nearest is not None:
            _levenshtein()

    def prefetch(self, sample: Sample, answer: str) -> tuple[Model, Sequence[Request]]:
        exchanges, _ = self._examined(sample, repeat(Response(answer)))
        return self.model, [self._request(prompt, answer) for prompt, _ in exchanges]

    async def score(self, predictions: Sequence[SamplePrediction], ask: AskModel) -> list[dict[str, float]]:
        scores = [self._scored(item) for item in predictions]
        unread = [i for i, item in enumerate(predictions) if item.outcome in _UNREAD]
        for start in range(0, len(unread), self.most):
            places = unread[start : start + self.most]
            found = [self._unread(predictions[i]) for i in places]
            asked = [request for _, requests in found for request in requests.values()]
            replies = iter(await ask(self.model, asked))
            for i, (kept, requests) in zip(places, found, strict=True):
                read = {place: next(replies) for place in requests}
                failed = any(reply.outcome is Outcome.ERROR for reply in read.values())
                scores[i] |= {"_asked": float(bool(read)), "_failed": float(failed)}
                prediction = self._replayed(predictions[i], kept, read)
                if prediction is None or prediction.outcome is not Outcome.OK:
                    continue
                self._extracted[prediction.sample_id] = prediction.label
                scores[i] |= {"_read": 1.0, **self._score(predictions[i].sample, prediction)}
        return scores

    def details(self) -> Mapping[str, Mapping[str, Any]]:
        return {id_: {"extracted": label} for id_, label in self._extracted.items()}

    def overall(
        self, predictions: Sequence[SamplePrediction], scores: Sequence[Mapping[str, float]]
    ) -> dict[str, Any]:
        """Report the extractor, how many samples it was asked about, and how many it read."""
        counts = {name: int(sum(score.get(f"_{name}", 0) for score in scores)) for name in ("asked", "read")}
        return {
            "extractor": redact(self.name),
            "extractor_asked": counts["asked"],
            "extracted": counts["read"],
            "extractor_errors": int(sum(score.get("_failed", 0) for score in scores)),
        }

    def _request(self, question: str, reply: str) -> Request:
        text = fill(EXTRACT, question=question, reply=capped(reply), form=self.form)
        return Request((Message("user", (text,)),), decoding=Decoding(max_tokens=32))

    def _examined(
        self, sample: Sample, replies: Iterator[Response]
    ) -> tuple[list[tuple[str, Response]], Prediction | None]:
        """Examine a sample with these replies; return each prompt as text with its reply, and the prediction,
        which is None if there are too few replies.
        """
        exchanges: list[tuple[str, Response]] = []
        exam = self.protocol.examine(replace(sample, images=()))
        try:
            batch = next(exam)
            while True:
                answered = list(islice(replies, len(batch)))
                exchanges += zip(map(_prompt, batch), answered, strict=False)
                if len(answered) < len(batch):
                    return exchanges, None
                batch = exam.send(answered)
        except StopIteration as end:
            return exchanges, end.value

    def _unread(self, item: SamplePrediction) -> tuple[list[Response], dict[int, Request]]:
        """Return the replies about a sample, and what to ask about those that no rule read."""
        replies = list(item.replies())
        rules = item.details.get("rule") or []
        requests = {}
        exchanges, _ = self._examined(item.sample, iter(replies))
        for place, (prompt, reply) in enumerate(exchanges):
            said = strip_thinking(reply.text).strip()
            read = place < len(rules) and rules[place] is not None
            answered = said and reply.outcome in (Outcome.OK, Outcome.TRUNCATED) and not is_refusal(said)
            if answered and not read:
                requests[place] = self._request(prompt, said)
        return replies, requests

    def _replayed(
        self, item: SamplePrediction, replies: Sequence[Response], read: Mapping[int, Response]
    ) -> Prediction | None:
        """Examine a sample again with what the extractor read."""
        patched = list(replies)
        for place, reading in read.items():
            said = strip_thinking(reading.text).strip().strip(" .*\"'`")
            if reading.outcome is not Outcome.OK or not said or said.casefold() == "none":
                continue
            patched[place] = replace(replies[place], text=said, outcome=Outcome.OK)
        if patched == list(replies):
            return None
        prediction = self._examined(item.sample, iter(patched))[1]
        if self.nearest is None or not item.sample.choices:
            return prediction
        # A rotation is looked at once those before it are right, so that each may be the first unread one.
        for place in sorted(read):
            rules = (prediction.details.get("rule") or []) if prediction is not None else []
            if patched[place] is not replies[place] and place < len(rules) and rules[place] is None:
                said = self.nearest(item.sample, patched[place].text, place)
                patched[place] = replace(patched[place], text=said)
                prediction = self._examined(item.sample, iter(patched))[1]
        return prediction

    def _scored(self, item: SamplePrediction) -> dict[str, float]:
        prediction = Prediction(item.sample.id, item.answer, outcome=item.outcome, details=item.details)
        return self._score(item.sample, prediction)

    def _score(self, sample: Sample, prediction: Prediction) -> dict[str, float]:
        if self.protocol.classifies:
            return (
                {}
                if sample.label is None
                else {"with_extractor": float(prediction.label in (sample.label, *sample.also))}
            )
        value = self.protocol.score_sample(sample, prediction).get(self.protocol.primary)
        return {} if value is None else {"with_extractor": value}


def nearest_option(text: str, options: Sequence[str]) -> int:
    """Return the place of the option of the least edit distance (Levenshtein), the first of several.

    >>> nearest_option("145 degrees", ["135°", "145°", "155°"])
    1
    """
    distance = _levenshtein().distance
    return min(range(len(options)), key=lambda place: distance(text, options[place]))


def _levenshtein() -> Any:
    return require("rapidfuzz.distance", "metrics", "Choosing the nearest option").Levenshtein


_UNREAD = (Outcome.UNPARSED, Outcome.TRUNCATED)


def _prompt(request: Request) -> str:
    """Return the text of a request."""
    parts = (part for message in request.messages for part in message.content)
    return "\n".join(part for part in parts if isinstance(part, str))
