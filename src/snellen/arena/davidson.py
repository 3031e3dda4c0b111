"""Davidson's model of pairs with ties: with strengths a and b, the first wins with probability a / D and they
tie with 2 v √(ab) / D, where D = a + b + 2 v √(ab).

Sources: R. A. Bradley and M. E. Terry, Biometrika 39 (1952); R. R. Davidson, "On extending the Bradley–Terry
model to accommodate ties", JASA 65 (1970); fitted by M. E. J. Newman's iteration ("Efficient computation of
rankings from pairwise comparisons", JMLR 24, 2023) through evalica.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from snellen.errors import require

if TYPE_CHECKING:
    from snellen.arena.vote_counts import Counts, Floats

__all__ = ["PRIOR", "chances", "fit"]

#: Wins and losses that every model is given against an imaginary opponent before any vote, so that a model
#: that never lost has a finite strength and all models are connected.
PRIOR = 0.5


def fit(models: int, cells: Counts, counts: Floats) -> tuple[Floats, float]:
    """Fit log-strengths, with mean 0, and v."""
    import numpy as np

    evalica: Any = require("evalica", "web", "Ranking by votes")
    kept = counts > 1e-9
    pair, outcome = cells[kept] // 3, cells[kept] % 3
    # The last one is the imaginary opponent.
    everyone = list(range(models))
    xs = [*(pair // models).tolist(), *everyone, *everyone]
    ys = [*(pair % models).tolist(), *[models] * (2 * models)]
    sorts = (evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw)
    winners = [sorts[o] for o in outcome.tolist()] + [sorts[0]] * models + [sorts[1]] * models
    weights = [*counts[kept].tolist(), *[PRIOR] * (2 * models)]
    # Start from the v of equally strong models: it is close to the solution, and 0 without ties.
    tied = float(counts[kept][outcome == 2].sum())
    start = tied / (float(counts[kept].sum()) - tied + 2 * PRIOR * models)
    fit = evalica.newman(xs, ys, winners, weights=weights, v_init=start, tolerance=1e-8, limit=2000)
    scores = np.log(fit.scores.reindex([*everyone]).to_numpy(dtype=np.float64))
    return scores - scores.mean(), float(fit.v)


def chances(gap: float, ties: float) -> tuple[float, float, float]:
    """Return the probabilities of winning, losing and tying for a gap in log-strength."""
    a, b = math.exp(gap / 2), math.exp(-gap / 2)
    total = a + b + 2 * ties
    return a / total, b / total, 2 * ties / total
