"""How often 95 % intervals cover the truth, by simulation: the tables in docs/metrics.md.

python benchmarks/coverage.py
"""

from __future__ import annotations

import numpy as np

from snellen.metrics.classification import Confusion
from snellen.metrics.stats import rate

TRIES = 4000
#: Clusters, samples in each, and how alike the samples of one cluster are (0: independent; else the sum of
#: the two parameters of the beta distribution that a cluster's own rate is drawn from: small is alike).
CASES = [
    (30, 1, 0),
    (50, 1, 0),
    (100, 1, 0),
    (10, 10, 3),
    (20, 5, 3),
    (40, 3, 3),
    (80, 4, 3),
    (200, 4, 3),
]
RATES = (0.1, 0.3, 0.5, 0.7, 0.9)


def coverage(p: float, clusters: int, size: int, alike: float) -> float:
    """The share of simulated data sets whose interval holds ``p``."""
    rng = np.random.default_rng(11)
    names = np.repeat(np.arange(clusters), size)
    hits = 0
    for _ in range(TRIES):
        own = np.full(clusters, p) if not alike else rng.beta(p * alike, (1 - p) * alike, clusters)
        found = rate((rng.random((clusters, size)) < own[:, None]).ravel().tolist(), names.tolist())
        hits += found.low <= p <= found.high
    return hits / TRIES


#: Classes, images of each, and whether wrong answers are spread evenly or name one class.
CLASS_CASES = [
    (classes, each, sink) for classes in (5, 20) for each in (3, 4, 5, 10, 30) for sink in (False, True)
]
RECALLS = (0.1, 0.4, 0.7, 0.95)
FIGURES = {"balanced accuracy": ("recall", "true"), "macro F1": ("f1", "macro")}


def class_coverage(recall: float, classes: int, each: int, sink: bool) -> dict[str, float]:
    """The share of simulated data sets whose intervals hold the figures of an endless data set."""
    rng = np.random.default_rng(11)
    names = [str(i) for i in range(classes)]

    def table(each: int) -> Confusion:
        truth = np.repeat(np.arange(classes), each)
        wrong = (truth + rng.integers(1, classes, len(truth))) % classes
        if sink:
            wrong = np.where(truth == 0, 1, 0)
        said = np.where(rng.random(len(truth)) < recall, truth, wrong)
        return Confusion.of([names[t] for t in truth], [names[s] for s in said])

    large = table(20_000)
    hits = dict.fromkeys(FIGURES, 0)
    for _ in range(TRIES // 4):
        small = table(each)
        for name, how in FIGURES.items():
            found = small.estimate(*how)
            hits[name] += found.low <= large.average(*how) <= found.high
    return {name: 4 * count / TRIES for name, count in hits.items()}


def by_class() -> None:
    """Print the table of averages over classes."""
    print("| figure | classes x images | mistakes |", " | ".join(f"recall {p}" for p in RECALLS), "|")
    print("|---|---|---|" + "---|" * len(RECALLS))
    for classes, each, sink in CLASS_CASES:
        results = [class_coverage(recall, classes, each, sink) for recall in RECALLS]
        for name in FIGURES:
            if sink and name == "balanced accuracy":
                continue  # which class a wrong answer names does not matter
            cells = [f"{100 * result[name]:.1f}" for result in results]
            how = "name one class" if sink else "spread"
            print(f"| {name} | {classes} x {each} | {how} |", " | ".join(cells), "|", flush=True)


def main() -> None:
    """Print the tables."""
    print("| clusters x samples | alike |", " | ".join(f"rate {p}" for p in RATES), "|")
    print("|---|---|" + "---|" * len(RATES))
    for clusters, size, alike in CASES:
        cells = [f"{100 * coverage(p, clusters, size, alike):.1f}" for p in RATES]
        print(f"| {clusters} x {size} | {'yes' if alike else 'no'} |", " | ".join(cells), "|", flush=True)
    print()
    by_class()


if __name__ == "__main__":
    main()
