"""How often 95 % intervals of a rate cover the truth, by simulation: the table in docs/metrics.md.

python benchmarks/coverage.py
"""

from __future__ import annotations

import numpy as np

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
        found = rate((rng.random((clusters, size)) < own[:, None]).ravel().tolist(), names)
        hits += found.low <= p <= found.high
    return hits / TRIES


def main() -> None:
    """Print the table."""
    print("| clusters x samples | alike |", " | ".join(f"rate {p}" for p in RATES), "|")
    print("|---|---|" + "---|" * len(RATES))
    for clusters, size, alike in CASES:
        cells = [f"{100 * coverage(p, clusters, size, alike):.1f}" for p in RATES]
        print(f"| {clusters} x {size} | {'yes' if alike else 'no'} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
