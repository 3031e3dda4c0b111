"""How many answers a choice takes, and how often it is wrong, in simulated races.

Run: python benchmarks/choose.py [races]
"""

from __future__ import annotations

import sys

import numpy as np
from scipy.stats import norm

from snellen.decisions.race import Race, next_look

#: The true accuracies of models, and the margin.
CASES = (
    ("eight models of 90 to 50%", (0.90, 0.86, 0.84, 0.80, 0.78, 0.72, 0.65, 0.50), 0.01),
    ("the same, within 3 points", (0.90, 0.86, 0.84, 0.80, 0.78, 0.72, 0.65, 0.50), 0.03),
    ("two models of 85 and 80%", (0.85, 0.80), 0.01),
    ("ten models, four within 3 points", (0.93, 0.92, 0.90, 0.90, 0.83, 0.80, 0.76, 0.70, 0.65, 0.21), 0.01),
    ("the same, within 3 points", (0.93, 0.92, 0.90, 0.90, 0.83, 0.80, 0.76, 0.70, 0.65, 0.21), 0.03),
    ("six equal models, within 3 points", (0.80,) * 6, 0.03),
)
IMAGES = 4000
#: How answers correlate through each image's difficulty (a Gaussian copula).
CORRELATION = 0.5


def race(
    rng: np.random.Generator, accuracies: tuple[float, ...], within: float, *, population: bool
) -> tuple[Race, int, np.ndarray]:
    """Race once; return its state, the answers asked, and what is true of each model."""
    shared, own = rng.standard_normal((IMAGES, 1)), rng.standard_normal((IMAGES, len(accuracies)))
    latent = np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * own
    right = (latent < norm.ppf(accuracies)).astype(float)
    names = [str(i) for i in range(len(accuracies))]
    state = Race(names, np.ones(IMAGES), within, population=population)
    asked = seen = 0
    while seen < IMAGES and not state.decided:
        alive = state.alive
        last, seen = seen, next_look(seen, IMAGES)
        asked += (seen - last) * len(alive)
        state.look({arm: right[:seen, int(arm)] for arm in alive})
    return state, asked, right.mean(0) if population else np.array(accuracies)


def main(races: int) -> None:
    """Print a table in Markdown."""
    print("| models | question | answers, of all | times fewer | images | decided | wrong |")
    print("|---|---|---|---|---|---|---|")
    for population in (False, True):
        for title, accuracies, within in CASES:
            rng = np.random.default_rng(0)
            asked, images, decided, wrong = [], [], 0, 0
            for _ in range(races):
                state, count, truth = race(rng, accuracies, within, population=population)
                asked.append(count)
                images.append(state.n)
                decided += state.decided
                best = truth >= truth.max() - 1e-9
                lost = all(str(i) in state.dropped for i in np.flatnonzero(best))
                worse = state.decided and truth[int(state.certified[0])] < truth.max() - within - 1e-9
                wrong += lost or worse
            full = len(accuracies) * IMAGES
            print(
                f"| {title} | {'these images' if population else 'images like these'} "
                f"| {np.mean(asked):,.0f} of {full:,} | {full / np.mean(asked):.1f} | {np.mean(images):,.0f} "
                f"| {decided} of {races} | {wrong} |"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
