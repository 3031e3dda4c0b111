"""The training data of the built-in models, captions and questions, generated from a seed without torch.

A *lesson* is one figure with one question and its answer. The stream of lessons is a pure function of
(model, stage, seed), so that anyone who studies how often a class was seen in training can write it out
again (``python -m snellen.pico_recipe.train --captions FILE``) and count.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from snellen.datasets.eye_chart import ASKED, EyeChart, Optotype
from snellen.datasets.shapes import KINDS, DrawnFigure, article, caption, figure
from snellen.prompts import BINARY, CAPTION, CLOSED_SET, MULTIPLE_CHOICE, OPEN_WORLD, fill

__all__ = [
    "CHARTS",
    "TASKS",
    "Lesson",
    "ask",
    "captions",
    "chart",
    "counts",
    "last_lessons",
    "lessons",
    "training_figures",
]

#: The number of training figures, that of the skewed model, and the ratio of its most common to its
#: rarest class.
FIGURES = 24_000
FIGURES_SKEWED = 12_000
SKEW = 100.0

#: Tasks with their weights; the first phase of the text-only stage uses only the two hardest.
TASKS: dict[str, int] = {
    "multiple-choice": 2,
    "yes-no": 2,
    "closed-set": 2,
    "open": 1,
    "caption": 1,
    "color": 1,
}
#: Numbers of candidate class names in closed-set lessons.
OFFERS = (2, 2, 3, 3, 4, 4, 5, 6, 8, 10, 14, 20, 28)
COLOR_QUESTION = "What color is the object?"

#: The eye test's charts that the last stage teaches, with what they show; pictures drawn of each, and the
#: side of a picture in pixels (tests have others).
CHARTS: tuple[tuple[str, Optotype], ...] = (
    ("acuity", "letters"),
    ("acuity", "shapes"),
    ("contrast", "letters"),
    ("contrast", "shapes"),
    ("color", "shapes"),
    ("counting", "shapes"),
    ("crowding", "letters"),
    ("crowding", "shapes"),
    ("orientation", "letters"),
    ("relations", "shapes"),
    ("print", "letters"),
)
PICTURES, CHART_SIDE = 3200, 112
#: In the last stage: the share of lessons about figures, that of these that have a turn before them, and that
#: of charts' questions that list the answers.
FIGURES_SHARE, FOLLOW_UPS, LISTED = 0.65, 0.3, 0.85


@dataclass(frozen=True, slots=True)
class Lesson:
    """One training example: the figure (an index into the training figures), a question, its answer.

    Attributes:
        before: an earlier question about the figure, with its answer; empty if this is the first.
        chart: the name of a chart, of whose pictures ``figure`` is the index.
    """

    figure: int
    task: str
    question: str
    answer: str
    before: tuple[str, ...] = ()
    chart: str = ""


def counts(skewed: bool) -> dict[str, int]:
    """Return the number of training figures of each kind.

    Balanced, or log-linear from the most common to the rarest at ``SKEW`` : 1, in a fixed shuffled order of
    kinds.
    """
    if not skewed:
        return dict.fromkeys(KINDS, FIGURES // len(KINDS))
    order = list(KINDS)
    random.Random("snellen/pico/skew").shuffle(order)
    weights = [math.exp(-math.log(SKEW) * i / (len(order) - 1)) for i in range(len(order))]
    return {
        kind: max(1, round(FIGURES_SKEWED * weight / sum(weights)))
        for kind, weight in zip(order, weights, strict=True)
    }


def training_figures(skewed: bool, seed: int) -> list[DrawnFigure]:
    """Return the shuffled training figures. Their keys start with ``train``; those of charts never do."""
    kinds = [kind for kind, count in counts(skewed).items() for _ in range(count)]
    random.Random(f"train/order/{seed}/{skewed}").shuffle(kinds)
    return [figure(f"train/{seed}/{skewed}/{i}", kind) for i, kind in enumerate(kinds)]


def ask(
    rng: random.Random,
    fig: DrawnFigure,
    task: str,
    offers: int = 4,
    weights: Mapping[str, int] | None = None,
) -> tuple[str, str]:
    """Draw a question about a figure, with its answer.

    ``offers`` is the number of candidates in a closed-set question. ``weights`` makes wrong options as
    common as their classes are in training; without it, all are equally common.
    """
    if task == "yes-no":
        asked = fig.kind if rng.random() < 0.5 else _others(rng, fig.kind, 1, weights)[0]
        return fill(BINARY, name=asked), "yes" if asked == fig.kind else "no"
    if task == "closed-set":
        names = [fig.kind, *_others(rng, fig.kind, offers - 1, weights)]
        rng.shuffle(names)
        return fill(CLOSED_SET, names=", ".join(names)), fig.kind
    if task == "multiple-choice":
        names = [fig.kind, *_others(rng, fig.kind, 3, weights)]
        rng.shuffle(names)
        options = "\n".join(f"{letter}. {name}" for letter, name in zip("ABCD", names, strict=True))
        question = fill(MULTIPLE_CHOICE, question=OPEN_WORLD[0], options=options)
        return question, "ABCD"[names.index(fig.kind)]
    if task == "open":
        return rng.choice(OPEN_WORLD), fig.kind
    if task == "color":
        return COLOR_QUESTION, fig.color
    if task == "caption":
        return CAPTION, caption(fig)
    raise ValueError(f"unknown task {task!r}; known: {', '.join(TASKS)}")


def _others(rng: random.Random, kind: str, count: int, weights: Mapping[str, int] | None) -> list[str]:
    """Draw other kinds without repetition; if weighted, by Efraimidis and Spirakis's keys u^(1/w)."""
    rest = [k for k in KINDS if k != kind]
    if weights is None:
        return rng.sample(rest, count)
    keys = {k: rng.random() ** (1 / weights[k]) for k in rest}
    return sorted(rest, key=keys.__getitem__, reverse=True)[:count]


def lessons(
    figs: Sequence[DrawnFigure],
    stage: str,
    seed: int,
    steps: int,
    batch: int,
    *,
    tasks: Sequence[str] = (),
    first: Sequence[str] = (),
    first_steps: int = 0,
    weights: Mapping[str, int] | None = None,
) -> Iterator[list[Lesson]]:
    """Yield ``steps`` batches of lessons over shuffled passes through the figures.

    During the first ``first_steps`` steps, only the ``first`` tasks are used.
    """
    rng = random.Random(f"train/lessons/{stage}/{seed}")
    mixture = list(tasks) or [task for task, weight in TASKS.items() for _ in range(weight)]
    for step, drawn in enumerate(_hands(rng, len(figs), steps, batch)):
        now = first if step < first_steps else mixture
        offers = rng.choice(OFFERS)  # one size per batch: rows of similar length need little padding
        page = []
        for index in drawn:
            task = rng.choice(now)
            page.append(Lesson(index, task, *ask(rng, figs[index], task, offers, weights)))
        yield page


def chart(number: int) -> EyeChart:
    """Return the training pictures of a chart of ``CHARTS``; none of them is among those of an eye test."""
    name, optotype = CHARTS[number]
    return EyeChart(chart=name, n=PICTURES, seed=0, size=CHART_SIDE, split="train", optotype=optotype)


def last_lessons(figs: Sequence[DrawnFigure], seed: int, steps: int, batch: int) -> Iterator[list[Lesson]]:
    """Yield batches of the last stage: questions about figures, some of which follow an earlier one, and
    about charts, easy levels more often than hard ones.
    """
    rng = random.Random(f"train/lessons/charts/{seed}")
    charts = [chart(number) for number in range(len(CHARTS))]
    about_figures = round(FIGURES_SHARE * batch)
    for page in lessons(figs, "charts", seed, steps, about_figures):
        talk = [replace(row, before=_asked_before(rng, figs[row.figure])) for row in page]
        yield [*talk, *(_chart_lesson(rng, charts) for _ in range(batch - about_figures))]


def _asked_before(rng: random.Random, fig: DrawnFigure) -> tuple[str, ...]:
    if rng.random() >= FOLLOW_UPS:
        return ()
    return ask(rng, fig, rng.choice(list(TASKS)), rng.choice((2, 3, 4, 6)))


def _chart_lesson(rng: random.Random, charts: Sequence[EyeChart]) -> Lesson:
    number = rng.randrange(len(charts))
    drawn = charts[number]
    levels = range(len(drawn.chart.levels))
    weights = [1 / (1 + level / 4) for level in levels] if drawn.chart.rising else None
    (level,) = rng.choices(levels, weights)
    index = len(levels) * rng.randrange(len(drawn) // len(levels)) + level
    sample = drawn.sample(index, drawn.labels, None)
    names = rng.sample(drawn.labels, len(drawn.labels))
    question = str(sample.question)
    if rng.random() < LISTED:
        question = fill(ASKED, question=question, names=", ".join(names))
    return Lesson(index, "chart", question, str(sample.label), chart="/".join(CHARTS[number]))


def _hands(rng: random.Random, cards: int, hands: int, size: int) -> Iterator[list[int]]:
    """Deal hands from a shuffled deck, which is reshuffled when it runs out."""
    deck: list[int] = []
    for _ in range(hands):
        if len(deck) < size:
            deck = list(range(cards))
            rng.shuffle(deck)
        drawn, deck = deck[:size], deck[size:]
        yield drawn


def captions(
    figs: Sequence[DrawnFigure], stage: str, seed: int, steps: int, batch: int
) -> Iterator[list[tuple[int, str, tuple[str, ...]]]]:
    """Yield batches of (figure index, caption, the properties that it names) for contrastive training."""
    rng = random.Random(f"train/captions/{stage}/{seed}")
    for drawn in _hands(rng, len(figs), steps, batch):
        yield [(index, *_caption(rng, figs[index])) for index in drawn]


def _caption(rng: random.Random, fig: DrawnFigure) -> tuple[str, tuple[str, ...]]:
    draw = rng.random()
    if draw < 0.34:
        return f"a photo of {article(fig.kind)}", (fig.kind,)
    if draw < 0.67:
        return f"{article(fig.color)} {fig.kind}", (fig.kind, fig.color)
    return caption(fig), (fig.kind, fig.color, fig.size, fig.place)
