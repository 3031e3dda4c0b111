"""Yes/no questions, as in POPE and MME.

Sources: Li et al., "Evaluating Object Hallucination in Large Vision-Language Models" (POPE, arXiv
2305.10355): accuracy, precision, recall, F1 of yes, share of yes. Fu et al., "MME" (arXiv 2306.13394):
accuracy and accuracy+ (both questions about an image right), and their sum in points, by category.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from snellen.parsing import ParseFailure, parse_yes_no
from snellen.prompts import YES_NO, fill
from snellen.protocols.base import (
    PROTOCOLS,
    ROOM,
    Protocol,
    check_placeholders,
    failed,
    positive,
    read_yes_no,
)
from snellen.scorers.base import Scorer
from snellen.scorers.extractor import Extractor
from snellen.types import Examination, Prediction, Sample, ask

__all__ = ["YesNo"]

#: With more categories, figures are not listed by category.
CATEGORIES = 10


@PROTOCOLS.register("yes-no")
@dataclass(frozen=True, kw_only=True)
class YesNo(Protocol):
    """Ask yes/no questions: accuracy, F1 of yes, and accuracy+ of pairs.

    Options: ``prompt`` with ``{question}``; ``max_tokens``; ``singles=true``: a single question counts as
    a pair too (HallusionBench's accuracy by figure); ``extractor``: a model that reads the answers that no
    rule reads.

    If the data set groups questions (``pair``), accuracy+ is the share of pairs with only right answers,
    and ``mme_score`` the sum of accuracy and accuracy+ in points over categories. With several categories,
    F1, precision, recall and the share of yes are given for each. An answer that is neither yes nor no is
    wrong, and does not count as no.
    """

    name: ClassVar[str] = "yes-no"
    classifies: ClassVar[bool] = False
    prompt: str = YES_NO
    max_tokens: int = ROOM
    singles: bool = False
    extractor: str | None = None

    def __post_init__(self) -> None:
        check_placeholders("prompt", self.prompt, "question")
        positive("max_tokens", self.max_tokens)

    @property
    def multi_query(self) -> bool:
        return False

    def missing_fields(self, sample: Sample) -> str | None:
        if sample.question is None:
            return "a question"
        if sample.references and self.truth(sample) is None:
            return f"an answer that is yes or no (it has {sample.references[0]!r})"
        return None

    def right_answer(self, sample: Sample) -> str | None:
        return self.truth(sample)

    def truth(self, sample: Sample) -> str | None:
        said = parse_yes_no(sample.references[0]) if sample.references else None
        return {True: "yes", False: "no"}.get(said) if isinstance(said, bool) else None

    def sample_details(self, sample: Sample) -> dict[str, Any]:
        pair = {"pair": sample.meta["pair"]} if "pair" in sample.meta else {}
        return {"true": self.truth(sample), **pair}

    def examine(self, sample: Sample) -> Examination:
        """One question."""
        text = fill(self.prompt, question=sample.question or "")
        (reply,) = yield [ask(sample.images, text, max_tokens=self.max_tokens)]
        reading = read_yes_no(reply, sample.question or "")
        said = reading.value
        about = {"rule": [reading.rule], **self.sample_details(sample)}
        if isinstance(said, ParseFailure):
            return failed(sample, said, 1, **about)
        label = "yes" if said else "no"
        return Prediction(sample.id, label, questions=1, details={"said": label, **about})

    def score_sample(self, sample: Sample, prediction: Prediction) -> dict[str, float]:
        """Score right or wrong; nothing if the answer is unknown."""
        true = self.truth(sample)
        return {} if true is None else {"accuracy": float(prediction.label == true)}

    def scorers(self) -> Sequence[Scorer]:
        return [Extractor(self.extractor, self, "yes or no")] if self.extractor else []

    def summary(self, details: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """F1, precision and recall of yes, the share of yes; accuracy+ and MME's score if there are pairs."""
        known = [row for row in details if row.get("true")]
        if not known:
            return {}
        figures: dict[str, Any] = _of_yes(known)
        groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in known:
            groups[str(row.get("category", ""))].append(row)
        if 1 < len(groups) <= CATEGORIES:
            parts = {name: _of_yes(rows) for name, rows in sorted(groups.items())}
            for key in figures.copy():
                figures[f"{key}_by_category"] = {name: part[key] for name, part in parts.items()}
        paired = [row for row in known if row.get("pair") is not None]
        return figures | _of_pairs(paired, least=1 if self.singles else 2)


def _of_yes(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """F1, precision and recall of yes, and the share of yes, as POPE counts them."""
    yes = sum(row.get("said") == "yes" for row in rows)
    true = sum(row["true"] == "yes" for row in rows)
    hits = sum(row.get("said") == "yes" == row["true"] for row in rows)
    return {
        "f1": 2 * hits / (yes + true) if yes + true else 0.0,
        "precision": hits / yes if yes else 0.0,
        "recall": hits / true if true else 0.0,
        "yes_ratio": yes / len(rows),
    }


def _of_pairs(rows: list[Mapping[str, Any]], least: int) -> dict[str, Any]:
    """Accuracy+ over all pairs, and MME's score; a pair belongs to one category. A group with fewer than
    ``least`` questions (for example after ``--limit``) is not a pair, and is counted separately.
    """
    groups: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for row in rows:
        groups[str(row.get("category", "")), str(row["pair"])].append(row.get("said") == row["true"])
    complete = {key: answers for key, answers in groups.items() if len(answers) >= least}
    if not complete:
        return {"incomplete_pairs": len(groups)} if groups else {}
    categories: dict[str, dict[str, list[bool]]] = defaultdict(dict)
    for (category, pair), answers in complete.items():
        categories[category][pair] = answers
    pairs = [all(pair) for some in categories.values() for pair in some.values()]
    score = 0.0
    for some in categories.values():
        answers = [right for pair in some.values() for right in pair]
        score += 100 * (sum(answers) / len(answers) + sum(map(all, some.values())) / len(some))
    return {
        "accuracy_plus": sum(pairs) / len(pairs),
        "mme_score": score,
        "pairs": len(pairs),
        "incomplete_pairs": len(groups) - len(complete),
    }
