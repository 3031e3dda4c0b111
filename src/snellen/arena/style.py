"""Measure how an answer is written, and rank models as if all wrote alike.

Source of style control: T. Li, A. Angelopoulos, W.-L. Chiang, "Does style matter? Disentangling style and
substance in Chatbot Arena" (LMSYS, 2024); the hedging feature is our addition.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from snellen.arena.davidson import PRIOR
from snellen.arena.rating import Ranking, ranking
from snellen.arena.vote_counts import FEW_VOTERS, UNSEEN, VoteCounts
from snellen.errors import require
from snellen.metrics.stats import LEVEL
from snellen.storage.vote_rows import Verdict

if TYPE_CHECKING:
    from snellen.arena.vote_counts import Floats

__all__ = ["FEATURES", "difference", "features", "styled"]

#: The style features.
FEATURES = ("length", "lists", "bold", "hedging")
_LIST = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s+\S", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
_HEDGE = re.compile(
    r"\b(?:perhaps|maybe|might|may be|could be|possibly|probably|likely|seems?|appears?|suggests?|unclear|"
    r"it is (?:hard|difficult) to (?:say|tell)|not (?:entirely )?(?:sure|certain|clear)|"
    r"i (?:think|believe|guess))\b",
    re.IGNORECASE,
)


def features(text: str) -> tuple[float, float, float, float]:
    r"""Count words, list items, bold passages and hedging expressions of an answer.

    >>> features("It **might** be:\n- a cat\n- a dog")
    (9.0, 2.0, 1.0, 1.0)
    """
    return (
        float(len(text.split())),
        float(len(_LIST.findall(text))),
        float(len(_BOLD.findall(text))),
        float(len(_HEDGE.findall(text))),
    )


def difference(left: str, right: str) -> tuple[float, ...]:
    """Return (left − right) / (left + right) of each feature, from −1 to 1; 0 if neither side has any."""
    pairs = zip(features(left), features(right), strict=True)
    return tuple((a - b) / (a + b) if a + b else 0.0 for a, b in pairs)


def styled(
    rows: Sequence[tuple[str, str, str, str, Sequence[float]]],
    names: Sequence[str] = FEATURES,
    *,
    replicates: int = 100,
    seed: int = 0,
) -> Ranking | None:
    """Rank models by votes as if they all wrote in one style.

    A Bradley–Terry model fitted as logistic regression (scikit-learn) with the style differences as
    additional variables; a tie is half a win and half a loss. As in :func:`snellen.arena.rating.rank`,
    each model has won and lost ``PRIOR`` against an imaginary opponent, and each resample has random
    pseudo-counts. A feature that never differs is dropped.

    Args:
        rows: one per vote: voter, left, right, outcome, and the style differences, left minus right.
        names: of the style features.
        replicates: of the bootstrap over voters (or votes, if voters are few).

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    # Long: one algorithm, whose steps share nearly all of its state.
    import numpy as np

    linear: Any = require("sklearn.linear_model", "web", "Controlling for style")
    if not rows:
        return None
    tally = VoteCounts.of(Verdict(*row[:4]) for row in rows)
    m, n = len(tally.models), len(rows)
    place = {name: i for i, name in enumerate(tally.models)}
    styles = np.array([row[4] for row in rows], dtype=np.float64)
    kept = [k for k in range(len(names)) if np.ptp(styles[:, k]) > 0]
    pairs = [(int(p) // m, int(p) % m) for p in np.unique(tally.pair)]
    # Votes, then each model against the imaginary opponent (the last), then each pair that met once more.
    games = [(place[left], place[right]) for _, left, right, _, _ in rows]
    games += [(i, m) for i in range(m)] + pairs
    design = np.zeros((len(games), m + 1 + len(kept)))
    design[range(len(games)), [i for i, _ in games]] += 1
    design[range(len(games)), [j for _, j in games]] -= 1
    design[:n, m + 1 :] = styles[:, kept]
    share = np.array([{"left": 1.0, "right": 0.0, "tie": 0.5}[row[3]] for row in rows])
    voters: dict[str, int] = {}
    who = np.array([voters.setdefault(row[0], len(voters)) for row in rows])
    unseen = UNSEEN / max(1.0, 2 * len(pairs) / m)

    def fitted(weight: Floats, pseudo: Floats) -> Floats:
        """Fit log-strengths and style effects; ``pseudo`` holds wins, losses and ties of each pair."""
        extra = [pseudo[:, 0] + pseudo[:, 2] / 2, pseudo[:, 1] + pseudo[:, 2] / 2]
        wins = np.concatenate([weight * share, np.full(m, PRIOR), extra[0]])
        losses = np.concatenate([weight * (1 - share), np.full(m, PRIOR), extra[1]])
        model = linear.LogisticRegression(C=1e4, fit_intercept=False, max_iter=1000)
        both, labels = np.concatenate([design, design]), np.repeat([1, 0], len(games))
        weights: Floats = model.fit(both, labels, np.concatenate([wins, losses])).coef_[0]
        return np.concatenate([weights[:m] - weights[:m].mean(), weights[m + 1 :]])

    rng = np.random.default_rng(seed)
    again = []
    for _ in range(replicates):
        if len(voters) < FEW_VOTERS:
            weight = rng.gamma(1.0, size=n)
        else:
            drawn = rng.integers(len(voters), size=len(voters))
            weight = np.bincount(drawn, minlength=len(voters))[who].astype(np.float64)
        again.append(fitted(weight, rng.gamma(unseen, size=(len(pairs), 3))))
    coefficients, all_drawn = fitted(np.ones(n), np.zeros((len(pairs), 3))), np.stack(again)
    low, high = np.quantile(all_drawn[:, m:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    effects = tuple(
        (names[k], float(coefficients[m + c]), float(low[c]), float(high[c])) for c, k in enumerate(kept)
    )
    return ranking(tally, coefficients[:m], 0.0, all_drawn[:, :m], effects, styled=True)
