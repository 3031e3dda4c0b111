"""Multiple choice: lettered options, parsed or by likelihood; CircularEval; also open questions.

Sources: the prompt is that of LLaVA-1.5 (Liu et al., arXiv 2310.03744). ``circular``: Liu et al.,
"MMBench: Is Your Multi-modal Model an All-around Player?" (arXiv 2307.06281), where a question counts as
solved only if it is solved under all rotations of its options. As there, options such as "all of the
above" are rotated like any other. Position bias as the standard deviation of recalls: Zheng et al.,
"Large Language Models Are Not Robust Multiple Choice Selectors" (arXiv 2309.03882).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from snellen.errors import BadOption, DataError
from snellen.metrics.answers import mmmu_open, open_match
from snellen.parsing import ParsedAnswer, ParseFailure
from snellen.parsing.choices import LETTERS, read_choices
from snellen.parsing.text import strip_thinking
from snellen.prompts import COT, MULTIPLE_CHOICE, SEVERAL_CHOICES, SHORT_ANSWER, fill
from snellen.protocols.base import (
    PROTOCOLS,
    ROOM,
    Normalise,
    Protocol,
    check_placeholders,
    failed,
    most_frequent,
    per_length,
    positive,
    read_short,
    refusal,
    unanswered,
)
from snellen.scorers.base import Scorer
from snellen.scorers.extractor import Extractor, nearest_option
from snellen.types import Examination, Kind, Outcome, Prediction, Request, Response, Sample, ask

__all__ = ["MultipleChoice"]

#: Options by their position in the data set.
Choice = tuple[int, ...]
COT_OF_LETTER = fill(COT, what="the option's letter")


@PROTOCOLS.register("multiple-choice")
@dataclass(frozen=True, kw_only=True)
class MultipleChoice(Protocol):
    """Choose among lettered options; CircularEval, likelihood, several letters, mixed-in open questions.

    Options: ``circular=true``: ask all rotations of the options; right only if every one is (stops at the
    first wrong one; ``request_batch`` are sent at once); ``score``: take the most likely of the
    ``letters``, or of the options' ``texts`` after the question, instead of generating (``normalize`` as
    for rank); ``cot=true`` asks for a chain of thought; ``all_that_apply=true``: several options may be
    right, and all must be named; ``hint=false`` omits hints; ``prompt`` with ``{question}``,
    ``{options}`` and ``{hint}`` (the line is omitted without a hint); ``open_prompt`` for questions
    without options; ``max_tokens``; ``extractor``: a model that reads the answers that no rule reads;
    ``nearest=true``: if what it reads is no option, the nearest by edit distance (MathVista's rule; never for
    what rules read); ``lenient=true``: open answers are also scored by the rule of MMMU's authors.

    Options are lettered in the order shown; the prediction is an option's text.
    """

    name: ClassVar[str] = "multiple-choice"
    classifies: ClassVar[bool] = False
    circular: bool = False
    request_batch: int | None = None
    score: Literal["letters", "texts"] | None = None
    normalize: Normalise = "sum"
    cot: bool = False
    all_that_apply: bool = False
    hint: bool = True
    prompt: str | None = None
    open_prompt: str = SHORT_ANSWER
    max_tokens: int | None = None
    extractor: str | None = None
    nearest: bool = False
    lenient: bool = False

    def __post_init__(self) -> None:
        for option, value in (("request_batch", self.request_batch), ("max_tokens", self.max_tokens)):
            if value is not None:
                positive(option, value)
        check_placeholders("open_prompt", self.open_prompt, "question")
        if self.prompt is not None:
            check_placeholders("prompt", self.prompt, "question", *(["options"] if self.circular else []))
        if self.score == "texts" and self.circular:
            raise BadOption(
                "score='texts' with circular=true is not allowed: with likelihoods of texts, options have "
                "no order."
            )
        if self.score and (self.cot or self.all_that_apply):
            raise BadOption(
                f"score={self.score!r} with cot or all_that_apply is not allowed: nothing is generated, and "
                "only the most likely option counts."
            )

    @property
    def requires(self) -> Kind:
        return {None: Kind.GENERATE, "letters": Kind.CHOOSE, "texts": Kind.SCORE}[self.score]

    @property
    def multi_query(self) -> bool:
        return self.circular

    @property
    def permutes_choices(self) -> bool:
        return self.circular

    @property
    def primary(self) -> str:
        return "circular_accuracy" if self.circular else "accuracy"

    def batched(self, request_batch: int) -> MultipleChoice:
        return replace(self, request_batch=request_batch) if self.request_batch is None else self

    def missing_fields(self, sample: Sample) -> str | None:
        if sample.question is None:
            return "a question"
        return None if sample.choices or sample.references else "options to choose from"

    def right_answer(self, sample: Sample) -> str | None:
        if not sample.choices:
            return super().right_answer(sample)
        if self.score == "texts":
            return self.truth(sample)
        return ", ".join(LETTERS[i] for i in sample.answers) or None

    def truth(self, sample: Sample) -> str | None:
        if sample.choices:
            return ", ".join(sample.choices[i] for i in sample.answers) or None
        return " / ".join(sample.references) or None

    def examine(self, sample: Sample) -> Examination:
        """Ask with the options as given, or all rotations, or the open question."""
        if not sample.choices:
            return (yield from self._open(sample))
        count = len(sample.choices)
        if count > len(LETTERS):
            raise DataError(
                f"The sample {sample.id!r} has {count} options, but there are only {len(LETTERS)} letters."
            )
        shifts = range(count if self.circular else 1)
        choices: list[Choice | ParseFailure] = []
        rules: list[str | None] = []
        shown: list[list[int]] = []
        while len(choices) < len(shifts):
            now = shifts[len(choices) : len(choices) + (self.request_batch or 1)]
            orders = [[(place + shift) % count for place in range(count)] for shift in now]
            replies = yield [self._request(sample, order) for order in orders]
            for order, reply in zip(orders, replies, strict=True):
                reading = self._read(reply, [sample.choices[i] for i in order])
                answer = reading.value
                rules.append(reading.rule)
                choices.append(
                    answer if isinstance(answer, ParseFailure) else tuple(sorted(order[i] for i in answer))
                )
                shown.append(order)
            if sample.answers and any(choice != sample.answers for choice in choices):
                break
        return self._prediction(sample, choices, shown, rules)

    def _prediction(
        self,
        sample: Sample,
        choices: Sequence[Choice | ParseFailure],
        shown: Sequence[list[int]],
        rules: Sequence[str | None],
    ) -> Prediction:
        # What the stop rule needed, so that no metric depends on how many were sent at once.
        wrong = [i for i, choice in enumerate(choices) if sample.answers and choice != sample.answers]
        questions = wrong[0] + 1 if wrong else len(choices)
        choices, shown, first = choices[:questions], shown[:questions], choices[0]
        details: dict[str, Any] = {
            "rule": list(rules[:questions]),
            "options": len(sample.choices),
            "choice": None if isinstance(first, ParseFailure) else list(first),
            "rotations": [None if isinstance(c, ParseFailure) else list(c) for c in choices],
            "places": [
                None if isinstance(c, ParseFailure) else [order.index(i) for i in c]
                for c, order in zip(choices, shown, strict=True)
            ],
            "true_places": [[order.index(i) for i in sample.answers] for order in shown],
        }
        if isinstance(first, ParseFailure):
            return failed(sample, first, questions, **details)
        label = ", ".join(sample.choices[i] for i in first)
        details["letters"] = "".join(LETTERS[i] for i in first)
        failures = [choice for choice in choices if isinstance(choice, ParseFailure)]
        if failures:  # the unparsed answer decides against it
            failure = most_frequent(failures)
            unread = ParseFailure(f"in a rotation: {failure.reason}", failure.outcome)
            return failed(sample, unread, questions, **details)
        return Prediction(sample.id, label, questions=questions, details=details)

    def _open(self, sample: Sample) -> Examination:
        if self.score:
            return failed(sample, ParseFailure("likelihoods need options, and this question has none"), 0)
        text = fill(self.open_prompt, question=sample.question or "")
        if self.cot:
            text += " " + fill(COT, what="the answer")
        (reply,) = yield [ask(sample.images, text, max_tokens=self._tokens())]
        reading = read_short(reply)
        answer = reading.value
        details: dict[str, Any] = {"open": True, "rule": [reading.rule]}
        if self.lenient:
            details["reply"] = strip_thinking(reply.text)
        if isinstance(answer, ParseFailure):
            return failed(sample, answer, 1, **details)
        return Prediction(sample.id, answer, questions=1, details=details)

    def _tokens(self) -> int:
        return self.max_tokens or (1024 if self.cot else ROOM)

    def _request(self, sample: Sample, order: Sequence[int]) -> Request:
        options = [sample.choices[i] for i in order]
        if self.score == "texts":
            return ask(sample.images, sample.question or "", kind=Kind.SCORE, continuations=tuple(options))
        usual = SEVERAL_CHOICES if self.all_that_apply else MULTIPLE_CHOICE
        if self.cot:
            usual = "{question}\n{options}\n" + COT_OF_LETTER
        prompt = self.prompt or usual
        hint = str(sample.meta.get("hint") or "") if self.hint else ""
        if not hint:
            prompt = "\n".join(line for line in prompt.split("\n") if "{hint}" not in line)
        elif "{hint}" not in prompt:
            prompt = "Hint: {hint}\n" + prompt
        lines = (f"{LETTERS[place]}. {option}" for place, option in enumerate(options))
        text = fill(prompt, question=sample.question or "", options="\n".join(lines), hint=hint)
        if self.cot and self.prompt is not None:
            text += " " + COT_OF_LETTER
        if self.score:
            letters = tuple(LETTERS[: len(options)])
            return ask(sample.images, text, kind=Kind.SCORE, continuations=letters)
        return ask(sample.images, text, max_tokens=self._tokens())

    def _read(self, reply: Response, options: Sequence[str]) -> ParsedAnswer[Choice]:
        """Return the options that a reply chooses, by their position among those shown."""
        if self.score:
            texts = options if self.score == "texts" else LETTERS[: len(options)]
            values = [per_length(s, x, self.normalize) for s, x in zip(reply.scores, texts, strict=True)]
            best = max(values)
            if math.isnan(sum(v for v in values if v != -math.inf)) or best == -math.inf:
                return ParsedAnswer(ParseFailure("no option has a likelihood"))
            if values.count(best) > 1:
                return ParsedAnswer(ParseFailure("several options are equally likely"))
            return ParsedAnswer((values.index(best),), "likelihood")
        if (refused := refusal(reply)) is not None:
            return ParsedAnswer(refused)
        if self.cot and (nothing := unanswered(reply)) is not None:
            return ParsedAnswer(nothing)
        cut = reply.outcome is Outcome.TRUNCATED
        return read_choices(reply.text, options, several=self.all_that_apply, truncated=cut)

    def score_sample(self, sample: Sample, prediction: Prediction) -> dict[str, float]:
        """Score accuracy and, with ``circular``, circular accuracy; nothing if the answer is unknown.

        Raises:
            DataError: rotations are missing, and none of the others is wrong.
        """
        if not sample.choices:
            if not sample.references:
                return {}
            mark = open_match(prediction.label, sample.references) if prediction.label else 0.0
            scores = {self.primary: mark, "accuracy": mark}
            if self.lenient:
                scores["open_lenient"] = mmmu_open(prediction.details.get("reply", ""), sample.references)
            return scores
        if not sample.answers:
            return {}
        right = [choice == list(sample.answers) for choice in prediction.details.get("rotations", [])]
        accuracy = float(bool(right) and right[0])
        if not self.circular:
            return {"accuracy": accuracy}
        if right and all(right) and len(right) < len(sample.choices):
            raise DataError(
                f"The sample {sample.id!r} has {len(right)} of {len(sample.choices)} rotations, none of "
                "which is "
                "wrong: an incomplete group has no circular accuracy."
            )
        return {"circular_accuracy": float(bool(right) and all(right)), "accuracy": accuracy}

    def scorers(self) -> Sequence[Scorer]:
        form = "the option's letter (the short answer if there are no options)"
        if self.extractor:
            nearest = self._named if self.nearest else None
            return [Extractor(self.extractor, self, form, nearest=nearest)]
        return []

    @staticmethod
    def _named(sample: Sample, text: str, rotation: int) -> str:
        """Return the letter of the option that is nearest to a text, as it is shown in a rotation."""
        return LETTERS[(nearest_option(text, sample.choices) - rotation) % len(sample.choices)]

    def summary(self, details: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """How often each position was chosen and was right, and the standard deviation of the positions'
        recalls.
        """
        chosen: Counter[int] = Counter()
        true: Counter[int] = Counter()
        hits: Counter[int] = Counter()
        unread = opened = 0
        for row in details:
            opened += bool(row.get("open"))
            unread += sum(places is None for places in row.get("places", []))
            # In the original order: later rotations are asked only after right answers.
            for places, right in zip(row.get("places", [])[:1], row.get("true_places", [])[:1], strict=True):
                chosen.update(places or [])
                true.update(right)
                hits.update(set(places or []) & set(right))
        if not true:
            return {"open_questions": opened} if opened else {}
        last = max([*chosen, *true])
        recalls = [hits[place] / true[place] for place in range(last + 1) if true[place]]
        center = sum(recalls) / len(recalls)
        figures: dict[str, Any] = {
            "answers_by_position": [chosen[place] for place in range(last + 1)],
            "truths_by_position": [true[place] for place in range(last + 1)],
            "position_bias": math.sqrt(sum((recall - center) ** 2 for recall in recalls) / len(recalls)),
            "answers_unparsed": unread,
        }
        return figures | ({"open_questions": opened} if opened else {})
