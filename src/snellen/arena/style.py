"""How an answer is written, whatever it says; and a ranking as if all wrote alike.

Source of controlling for style: T. Li, A. Angelopoulos, W.-L. Chiang, "Does style matter? Disentangling style
and substance in Chatbot Arena" (LMSYS, 2024); hedging is an addition of ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from snellen.arena.rating import FEW_VOTERS, Ranking, Tally, Verdict, ranking
from snellen.errors import require
from snellen.stats import LEVEL

if TYPE_CHECKING:
    from snellen.arena.rating import Floats

__all__ = ["FEATURES", "difference", "features", "styled"]

#: What is counted.
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
    r"""Words, list items, bold passages and hedging expressions of an answer.

    >>> features("It **might** be:\\n- a cat\\n- a dog")
    (9.0, 2.0, 1.0, 1.0)
    """
    return (
        float(len(text.split())),
        float(len(_LIST.findall(text))),
        float(len(_BOLD.findall(text))),
        float(len(_HEDGE.findall(text))),
    )


def difference(left: str, right: str) -> tuple[float, ...]:
    """(left − right) / (left + right) of each feature, from −1 to 1; 0 where neither has any."""
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

    Bradley–Terry as a logistic regression (scikit-learn) with the differences in style as further variables;
    a tie is half a win and half a loss.

    Args:
        rows: one a vote: voter, left, right, outcome, and the differences in style, left less right.
        names: of the features of style.
        replicates: of the bootstrap over voters (or votes, where voters are few).

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    import numpy as np

    linear: Any = require("sklearn.linear_model", "web", "Controlling for style")
    tally = Tally.of(Verdict(*row[:4]) for row in rows)
    if not rows:
        return None
    place = {name: i for i, name in enumerate(tally.models)}
    m, n = len(place), len(rows)
    design = np.zeros((n, m + len(names)))
    for k, (_, left, right, _, style) in enumerate(rows):
        design[k, place[left]] += 1
        design[k, place[right]] -= 1
        design[k, m:] = style
    share = np.array([{"left": 1.0, "right": 0.0, "tie": 0.5}[row[3]] for row in rows])
    voters: dict[str, int] = {}
    who = np.array([voters.setdefault(row[0], len(voters)) for row in rows])

    def fitted(weight: Floats) -> Floats:
        model = linear.LogisticRegression(C=100.0, fit_intercept=False, max_iter=1000)
        # One of each outcome at weight 0 keeps both in play, whatever was drawn.
        both = np.concatenate([design, design])
        labels = np.repeat([1, 0], n)
        found: Floats = model.fit(both, labels, np.concatenate([weight * share, weight * (1 - share)])).coef_[
            0
        ]
        found[:m] -= found[:m].mean()
        return found

    rng = np.random.default_rng(seed)
    again = []
    for _ in range(replicates):
        if len(voters) < FEW_VOTERS:
            weight = np.bincount(rng.integers(n, size=n), minlength=n)
        else:
            weight = np.bincount(rng.integers(len(voters), size=len(voters)), minlength=len(voters))[who]
        again.append(fitted(weight.astype(float)))
    found, drawn = fitted(np.ones(n)), np.stack(again)
    low, high = np.quantile(drawn[:, m:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    effects = tuple(
        (name, float(found[m + k]), float(low[k]), float(high[k])) for k, name in enumerate(names)
    )
    return ranking(tally, found[:m], 0.0, drawn[:, :m], effects)
