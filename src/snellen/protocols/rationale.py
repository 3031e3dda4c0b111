"""An answer with its reason: the option's letter on the first line, then a rationale.

Sources: Li et al., "Multimodal ArXiv" (arXiv 2403.00231), whose questions about figures of papers have
both; github.com/aryankargwal/vlm-benchmarks compares the first line with the label and the rest with the
rationale, by the cosine of their embeddings. Here the label is also parsed, and scored as right or wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from snellen.parsing import ParseFailure
from snellen.parsing.choices import LETTERS, read_choices
from snellen.prompts import ANSWER_AND_REASON, fill
from snellen.protocols.base import PROTOCOLS, Protocol, check_placeholders, failed, free_text, positive
from snellen.scorers.base import SamplePrediction, Scorer
from snellen.scorers.similarity import MINILM, Similarity
from snellen.types import Examination, Outcome, Prediction, Sample, ask

__all__ = ["Rationale"]


@PROTOCOLS.register("rationale")
@dataclass(frozen=True, kw_only=True)
class Rationale(Protocol):
    """Choose an option on the first line and explain it below: accuracy, similarity of label and rationale.

    Options: ``prompt`` with ``{question}`` and ``{options}``; ``max_tokens``; ``embedding``: the model
    that compares texts.

    The label's letter and text are compared with the first line, the data set's ``rationale`` with the
    rest. An answer without a rationale has a similarity of 0.
    """

    name: ClassVar[str] = "rationale"
    takes_shots: ClassVar[bool] = False
    classifies: ClassVar[bool] = False
    prompt: str = ANSWER_AND_REASON
    max_tokens: int = 300
    embedding: str = MINILM

    def __post_init__(self) -> None:
        check_placeholders("prompt", self.prompt, "question", "options")
        positive("max_tokens", self.max_tokens)

    @property
    def multi_query(self) -> bool:
        return False

    def missing_fields(self, sample: Sample) -> str | None:
        if sample.question is None or not sample.choices:
            return "a question with options"
        return None if "rationale" in sample.meta else "a rationale (a column of that name)"

    def truth(self, sample: Sample) -> str | None:
        return ", ".join(map(_label(sample).__getitem__, sample.answers)) or None

    def examine(self, sample: Sample) -> Examination:
        """One question."""
        options = "\n".join(_label(sample))
        text = fill(self.prompt, question=sample.question or "", options=options)
        (reply,) = yield [ask(sample.images, text, max_tokens=self.max_tokens)]
        said, outcome, reason = free_text(reply)
        if not said:
            return failed(sample, ParseFailure(reason, outcome), 1)
        first, _, rest = said.partition("\n")
        details: dict[str, Any] = {"first_line": first.strip(), "rationale": rest.strip()}
        # If the rationale was cut off, the first line is complete.
        cut = outcome is Outcome.TRUNCATED and not rest
        reading = read_choices(first, sample.choices, several=False, truncated=cut)
        choices, details["rule"] = reading.value, [reading.rule]
        if isinstance(choices, ParseFailure):
            return failed(sample, choices, 1, **details)
        choice = choices[0]
        label = _label(sample)[choice]
        return Prediction(
            sample.id,
            label,
            outcome=outcome,
            reason=reason,
            questions=1,
            details={**details, "choice": choice},
        )

    def score_sample(self, sample: Sample, prediction: Prediction) -> dict[str, float]:
        """Score whether the label is right."""
        if not sample.answers:
            return {}
        return {"accuracy": float(prediction.details.get("choice") in sample.answers)}

    def scorers(self) -> Sequence[Scorer]:
        return [
            Similarity(self.embedding, of=_labels, score_name="label_similarity"),
            Similarity(self.embedding, of=_rationales, score_name="rationale_similarity"),
        ]


def _label(sample: Sample) -> list[str]:
    return [f"{LETTERS[i]}. {option}" for i, option in enumerate(sample.choices)]


def _labels(item: SamplePrediction) -> tuple[str, Sequence[str]]:
    labels = _label(item.sample)
    return str(item.details.get("first_line", "")), [labels[i] for i in item.sample.answers]


def _rationales(item: SamplePrediction) -> tuple[str, Sequence[str]]:
    true = str(item.sample.meta.get("rationale") or "")
    return str(item.details.get("rationale", "")), [true] if true else []
