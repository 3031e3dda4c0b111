"""Closed set: the class names are in the prompt; shuffled rounds and a majority vote.

Source: "Best Vision Language Models (VLMs) for Image Classification: Performance Benchmarks" (Clarifai,
2025), which also defines the default prompt: the same question several times with shuffled names; the
most frequent class wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from snellen.prompts import CLOSED_SET, fill
from snellen.protocols.base import (
    PROTOCOLS,
    Protocol,
    check_count,
    check_placeholders,
    failed,
    limit_candidates,
    most_frequent,
    positive,
    read_label,
    shuffled,
)
from snellen.scorers.base import Scorer
from snellen.scorers.extractor import Extractor
from snellen.types import Examination, Kind, Prediction, Sample, ask

__all__ = ["ClosedSet"]


@PROTOCOLS.register("closed-set")
@dataclass(frozen=True, kw_only=True)
class ClosedSet(Protocol):
    """Choose one from a list of all class names; shuffled rounds, majority vote.

    Options: ``candidates``: the number of names listed, the true one and random others (default: all;
    fewer raise chance accuracy); ``rounds``; ``order`` (shuffled by seed, sample and round, or fixed);
    ``prompt`` with ``{names}`` (and ``{question}``, the sample's own); ``constrained=true``: restrict
    generation to the names (local models); ``max_tokens``; ``seed``; ``extractor``: a model that reads the
    answers of samples of which no rule reads any.

    The class with most votes wins; ties go to the one named in the earliest round, and the details say
    ``tie``. A round with an unparsed answer casts no vote; if no round casts one, the sample has no
    prediction.
    """

    name: ClassVar[str] = "closed-set"
    if_too_long: ClassVar[str] = (
        "Offer fewer names (-P candidates=N), or compare the likelihoods of names, which lists none (-p rank)"
    )
    candidates: int | None = None
    rounds: int = 5
    order: Literal["shuffled", "fixed"] = "shuffled"
    prompt: str = CLOSED_SET
    constrained: bool = False
    max_tokens: int = 32
    seed: int = 0
    extractor: str | None = None

    def __post_init__(self) -> None:
        check_count("candidates", self.candidates)
        positive("rounds", self.rounds)
        positive("max_tokens", self.max_tokens)
        check_placeholders("prompt", self.prompt, "names")

    @property
    def requires(self) -> Kind:
        return Kind.CONSTRAIN if self.constrained else Kind.GENERATE

    @property
    def multi_query(self) -> bool:
        return self.rounds > 1

    def examine(self, sample: Sample) -> Examination:
        """One request batch with all rounds, then the vote."""
        sample = limit_candidates(sample, self.candidates, self.seed)
        lists = [
            shuffled(sample.labels, self.seed, sample, turn)
            if self.order == "shuffled"
            else list(sample.labels)
            for turn in range(self.rounds)
        ]
        replies = yield [
            ask(
                sample.images,
                fill(self.prompt, names=", ".join(names), question=sample.question or ""),
                max_tokens=self.max_tokens,
                continuations=tuple(names) if self.constrained else (),
            )
            for names in lists
        ]
        read = [read_label(reply, sample) for reply in replies]
        votes = [reading.value for reading in read]
        cast = [vote for vote in votes if isinstance(vote, str)]
        details: dict[str, Any] = {
            "rule": [reading.rule for reading in read],
            "votes": [vote if isinstance(vote, str) else None for vote in votes],
            "positions": [
                names.index(vote) if isinstance(vote, str) else None
                for names, vote in zip(lists, votes, strict=True)
            ],
        }
        if not cast:
            failures = [vote for vote in votes if not isinstance(vote, str)]
            return failed(sample, most_frequent(failures), self.rounds, **details, agreement=0.0)
        counts = Counter(cast)  # keeps the order of first votes, in which most_common breaks ties
        (label, most), *rest = counts.most_common()
        details["tie"] = bool(rest) and rest[0][1] == most
        details["agreement"] = most / self.rounds
        return Prediction(sample.id, label, questions=self.rounds, details=details)

    def scorers(self) -> Sequence[Scorer]:
        form = "the exact name of one of the classes in the question"
        return [Extractor(self.extractor, self, form)] if self.extractor else []

    def summary(self, details: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Mean agreement, ties, lost votes, and how often each position in the list was chosen."""
        rows = ties = lost = 0
        agreement = 0.0
        places: Counter[int] = Counter()
        for row in details:
            if "votes" not in row:  # an error has none
                continue
            rows += 1
            ties += bool(row.get("tie"))
            lost += sum(vote is None for vote in row["votes"])
            agreement += row["agreement"]
            places.update(place for place in row["positions"] if place is not None)
        if not rows:
            return {}
        return {
            "vote_agreement": agreement / rows,
            "ties": ties,
            "votes_unparsed": lost,
            "answers_by_position": [places[i] for i in range(max(places, default=-1) + 1)],
        }
