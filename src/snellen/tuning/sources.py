"""Training and test data: splits, subsets, mixtures, oversampling."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from snellen._util.words import counted
from snellen.datasets.base import DATASETS, Dataset, Row, Selection, choose_classes, select
from snellen.datasets.splits import named_split, training_split
from snellen.errors import BadOption, DataError, UsageError
from snellen.metrics.classification import are_unequal
from snellen.tuning.examples import Example, TrainFormat, examples
from snellen.tuning.grouping import together
from snellen.types import Sample

__all__ = ["Source", "Subset", "TrainingSet", "mixed", "random_split", "split_data", "validation_split"]

#: Training pictures per class drawn from a chart, which can produce any number.
DRAWN = 60
#: The share and the number of training samples held out for monitoring, and the minimum.
WATCHED, LEAST = 200, 10
#: The most repetitions of a sample of a rare class.
MOST = 100
#: How often a sample comes that the model gets wrong, with ``--oversample hard``.
REPEATED = 3


class Subset(Dataset):
    """Some items of a data set, as a data set."""

    def __init__(self, data: Dataset, places: Sequence[int], what: str) -> None:
        self._data, self._places = data, list(places)
        self.name = f"{data.name} ({what})"
        self.labels, self.background, self.synonyms = data.labels, data.background, data.synonyms
        self.protocol, self.protocol_options = data.protocol, data.protocol_options
        self.notes, self.invalid = data.notes, data.invalid

    def __len__(self) -> int:
        return len(self._places)

    def row(self, index: int) -> Row:
        return self._data.row(self._places[index])

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        return self._data.sample(self._places[index], labels, background)

    def digest(self, index: int) -> str:
        return self._data.digest(self._places[index])


def random_split(
    data: Dataset,
    share: float,
    seed: int,
    *,
    group: str | None = None,
    drawn: bool = False,
    tell: Callable[[str], None] | None = None,
    classes: Sequence[str] = (),
    least: int | None = None,
) -> tuple[Subset, Subset]:
    """Split a data set in two at random, class by class, for training and test.

    Items that share an image, in whatever format, or a group stay together (see
    :func:`~snellen.tuning.grouping.together`).

    Args:
        classes: only these are used, so that others need not be on both sides.
        least: classes with fewer training images are left out afterwards.

    Raises:
        BadOption: a share that is not between 0 and 1.
        DataError: too few items of a class for both sides; an image that cannot be read.
    """
    if not 0 < share < 1:
        raise BadOption(f"--hold-out {share} is not allowed; allowed: between 0 and 1, such as 0.2.")
    groups: dict[str | None, list[list[int]]] = {}
    for members in together(data, group, drawn=drawn, tell=tell):
        groups.setdefault(data.row(members[0]).label, []).append(members)
    rng = random.Random(f"snellen/hold-out/{seed}")
    tested: set[int] = set()
    for label, contents in groups.items():
        if classes and label not in classes:
            continue
        if len(contents) < 2 and least is not None:
            tested.update(contents[0])  # without a training image, it is left out
            continue
        if len(contents) < 2:
            one = "image" if group is None else f"group ({group})"
            what = f"{label!r} has a single {one}" if label else f"there is a single {one}"
            raise DataError(
                f"{data.name}: {what}, copies included, which cannot be in both training and test data. "
                "Add images, or leave the class out with --classes or --min-per-class 1."
            )
        rng.shuffle(contents)
        for members in contents[: min(len(contents) - 1, max(1, round(share * len(contents))))]:
            tested.update(members)
    rest = [i for i in range(len(data)) if i not in tested]
    return Subset(data, rest, "training part"), Subset(data, sorted(tested), "held out")


def split_data(
    name: str,
    options: Mapping[str, Any],
    *,
    train: str | None,
    split: str | None,
    share: float | None,
    seed: int,
    group: str | None = None,
    tell: Callable[[str], None] | None = None,
    classes: Sequence[str] = (),
    least: int | None = None,
) -> tuple[Dataset, Dataset]:
    """Choose the training and the test data: separate splits, or two parts.

    Args:
        group: what must stay on one side; ``tell``: called with notes for the user.
        classes: those that are used; all by default. ``least``: leave out those with fewer training images.

    Raises:
        DataError: no such split.
        BadOption: conflicting options.
    """
    if sum(given is not None for given in (train, split, share)) > 1:
        raise BadOption("Use only one of --train, --train-split and --hold-out.")
    if group is not None and share is None:
        raise BadOption("--group needs --hold-out: it keeps a group on one side of a random split.")
    data = DATASETS.make(name, options)
    if train is not None:
        return DATASETS.make(train), data
    drawn = name.startswith("chart:")
    if share is not None:
        if not drawn and (learned := training_split(name, options)) is not None:
            raise BadOption(
                f"--hold-out {share}: {name} already has a training split "
                f"({counted(len(learned), 'sample')}). Omit "
                "--hold-out to use it. To divide one split anyway, set it with: -D "
                "split=NAME"
            )
        used = choose_classes(data, classes) if classes else ()
        return random_split(data, share, seed, group=group, drawn=drawn, tell=tell, classes=used, least=least)
    wanted = split or "train"
    # The number of training pictures of a chart is independent of the number of test pictures.
    more = {"n": DRAWN * len(data.labels)} if drawn else {}
    try:
        return named_split(name, {**options, **more}, wanted), data
    except UsageError as error:
        raise DataError(
            f"{name} has no training split {wanted!r} ({error}) Set one with --train-split, use another data "
            "set with --train, or hold out a part of this one for the test: --hold-out 0.2"
        ) from error


@dataclass(kw_only=True)
class Source:
    """Training samples, and how to use them.

    Attributes:
        weight: the number of its examples per example of the first source.
        whole: whether a conversation is one example.
        confused: for a class, the names that the model confuses it with.
        wrong: positions of samples that it gets wrong.
    """

    selection: Selection
    weight: float = 1.0
    train_format: TrainFormat = "both"
    whole: bool = False
    seed: int = 0
    confused: Mapping[str, Sequence[str]] = field(default_factory=dict)
    wrong: frozenset[int] = frozenset()

    def examples(self, place: int) -> list[Example]:
        """Return the examples of one sample."""
        sample, data = self.selection[place], self.selection.data
        return examples(
            sample,
            data.protocol,
            data.protocol_options,
            train_format=self.train_format,
            confused=self.confused.get(sample.label or "", ()),
            whole=self.whole,
            seed=self.seed,
        )

    @property
    def converses(self) -> bool:
        """Whether its samples are conversations."""
        return bool(self.selection.first().turns)

    def draw(self, count: int, seed: int) -> None:
        """Keep a number of samples, drawn at random, so that only these are read."""
        indices = self.selection.indices
        if count < len(indices):
            kept = random.Random(f"snellen/mix/{seed}").sample(indices, count)
            self.selection = self.selection.part(kept)

    def label(self, place: int) -> str | None:
        """Return the class of a sample."""
        return self.selection.data.row(self.selection.indices[place]).label


def mixed(name: str, train_format: TrainFormat, seed: int, *, skip_invalid: bool = False) -> Source:
    """Parse a source of a mixture: ``DATA`` or ``DATA@WEIGHT``. If the data set has a training split, it is
    used, unless another is named.

    Raises:
        BadOption: the weight is not a number above 0.
        UsageError: as for building the data set.
    """
    head, at, tail = name.rpartition("@")
    try:
        weight = float(tail) if at else 1.0
    except ValueError:
        head, weight = name, 1.0
    if not at or head == "":
        head = name
    if not 0 < weight <= 100:
        raise BadOption(f"--mix {name}: a weight of {weight:g} is not allowed; allowed: above 0, up to 100.")
    selection = select(training_split(head, {}) or DATASETS.make(head), skip_invalid=skip_invalid)
    selection.name = head
    return Source(selection=selection, weight=weight, train_format=train_format, seed=seed)


class TrainingSet(Sequence[Example]):
    """All training examples, built on access.

    Args:
        sources: the first is the data set that the model is tuned for.
        rare: whether to repeat rare classes of the first until they are as frequent as common ones (at most
            a hundred times); None: if classes are unequal.
        without: positions of the first that are held out.

    Raises:
        DataError: a source has nothing to train on.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        rare: bool | None = False,
        without: frozenset[int] = frozenset(),
        seed: int = 0,
    ) -> None:
        self.sources = list(sources)
        rng = random.Random(f"snellen/lessons/{seed}")
        if len(without) >= len(self.sources[0].selection):
            raise DataError(
                f"{self.sources[0].selection.name}: no training sample is left: all of them are test samples "
                "or unreadable. Use another training set with --train, or hold out a part for the "
                "test: --hold-out 0.2"
            )
        first = [(0, place, k) for place, k in _offered(self.sources[0], without)]
        sizes = Counter(self.sources[0].label(place) for place in {place for _, place, _ in first})
        #: Whether rare classes are repeated.
        self.balanced = are_unequal(sizes.values()) if rare is None else rare
        if self.balanced:
            first += list(self._more(first, rng))
        wrong = self.sources[0].wrong
        first += (REPEATED - 1) * [item for item in first if item[1] in wrong]
        self._items = first
        self.counts = [len(first)]
        for number, source in enumerate(self.sources[1:], 1):
            # A sample counts once, however many examples it gives.
            own: dict[int, list[tuple[int, int, int]]] = {}
            for place, k in _offered(source):
                own.setdefault(place, []).append((number, place, k))
            count = max(1, round(source.weight * len(first)))
            dealt: list[tuple[int, int, int]] = []
            while len(dealt) < count:
                dealt += [
                    rng.choice(own[place])
                    for place in rng.sample(list(own), min(len(own), count - len(dealt)))
                ]
            self._items += dealt
            self.counts.append(count)

    def _more(
        self, items: Sequence[tuple[int, int, int]], rng: random.Random
    ) -> Iterator[tuple[int, int, int]]:
        """Return repeated items of rare classes."""
        source = self.sources[0]
        by_class: dict[str | None, list[tuple[int, int, int]]] = {}
        for item in items:
            by_class.setdefault(source.label(item[1]), []).append(item)
        most = max(map(len, by_class.values()))
        for own in by_class.values():
            wanted = min(most, MOST * len(own)) - len(own)
            while wanted > 0:
                turn = rng.sample(own, min(len(own), wanted))
                yield from turn
                wanted -= len(turn)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        source, place, k = self._items[index]
        return self.sources[source].examples(place)[k]

    @property
    def places(self) -> list[int]:
        """Positions of the first source's samples, as often as they occur."""
        return [place for source, place, _ in self._items if source == 0]

    def summary(self) -> list[dict[str, Any]]:
        """Return for each source the numbers of its different samples and of the examples made of them."""
        samples = Counter(source for source, _ in {item[:2] for item in self._items})
        return [
            {"data": source.selection.name, "samples": samples[number], "examples": self.counts[number]}
            for number, source in enumerate(self.sources)
        ]

    def classes(self) -> Counter[str]:
        """Count the examples of each class."""
        labels = (self.sources[s].label(place) for s, place, _ in self._items if s == 0)
        return Counter(label for label in labels if label is not None)


def _offered(source: Source, without: frozenset[int] = frozenset()) -> list[tuple[int, int]]:
    """Return positions with their example numbers."""
    options = []
    for place in range(len(source.selection)):
        if place not in without:
            options += [(place, k) for k in range(len(source.examples(place)))]
    if not options:
        raise DataError(
            f"{source.selection.name}: nothing to train on: no classes, no questions with answers, "
            "no captions, no conversations."
        )
    return options


def validation_split(source: Source, seed: int) -> frozenset[int]:
    """Choose positions to hold out for monitoring: a tenth, at most 200, equally from every class; none if
    that would be fewer than ten.
    """
    count = min(WATCHED, len(source.selection) // 10)
    if count < LEAST or not source.selection.labels:
        return frozenset()
    by_class: dict[str | None, list[int]] = {}
    for place in range(len(source.selection)):
        by_class.setdefault(source.label(place), []).append(place)
    rng = random.Random(f"snellen/apart/{seed}")
    decks = [rng.sample(own, len(own)) for own in by_class.values()]
    rng.shuffle(decks)
    places: list[int] = []
    turn = 0
    while len(places) < count:
        before = len(places)
        # A class keeps at least half of its samples for training.
        places += [deck[turn] for deck in decks if turn < len(deck) // 2][: count - len(places)]
        turn += 1
        if len(places) == before:
            break
    return frozenset(places)
