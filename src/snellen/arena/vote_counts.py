"""Count votes by voter, pair and outcome, and resample them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from snellen.storage.vote_rows import Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]

__all__ = ["FEW_VOTERS", "UNSEEN", "VoteCounts"]

#: With fewer voters, votes are resampled instead, and intervals hold for these voters only.
FEW_VOTERS = 10
#: The pseudo-count of each outcome when votes are resampled.
UNSEEN = 0.5


@dataclass(frozen=True, kw_only=True)
class VoteCounts:
    """Votes counted by voter, pair and outcome.

    Attributes:
        models: sorted.
        voters: the number of voters.
        voter, pair, outcome, count: one entry for each combination: the voter's number; the pair as i · m
            + j with i < j < m; 0 if i won, 1 if j won, 2 for a tie; the number of such votes.
    """

    models: tuple[str, ...]
    voters: int
    voter: Counts
    pair: Counts
    outcome: Counts
    count: Counts

    @classmethod
    def of(cls, verdicts: Iterable[Verdict]) -> VoteCounts:
        """Count votes."""
        import numpy as np

        rows = list(verdicts)
        models = tuple(sorted({name for row in rows for name in (row.left, row.right)}))
        place = {name: i for i, name in enumerate(models)}
        voters: dict[str, int] = {}
        table = np.empty((4, len(rows)), dtype=np.int64)
        swapped = {"left": 1, "right": 0, "tie": 2}
        straight = {"left": 0, "right": 1, "tie": 2}
        for column, row in enumerate(rows):
            i, j = place[row.left], place[row.right]
            outcome = straight[row.outcome] if i < j else swapped[row.outcome]
            pair = min(i, j) * len(models) + max(i, j)
            table[:, column] = (voters.setdefault(row.voter, len(voters)), pair, outcome, row.times)
        return cls(
            models=models, voters=len(voters), voter=table[0], pair=table[1], outcome=table[2], count=table[3]
        )

    @property
    def votes(self) -> int:
        """The number of votes."""
        return int(self.count.sum())

    @cached_property
    def cells(self) -> Counts:
        """All pairs and outcomes of pairs that met, as pair · 3 + outcome, sorted."""
        import numpy as np

        return (np.unique(self.pair)[:, None] * 3 + np.arange(3)).ravel()

    @cached_property
    def column(self) -> NDArray[np.int64]:
        """The index in :attr:`cells` of each entry."""
        import numpy as np

        return np.searchsorted(self.cells, self.pair * 3 + self.outcome).astype(np.int64)

    @cached_property
    def totals(self) -> Floats:
        """The number of votes in each cell."""
        import numpy as np

        counts = np.bincount(self.column, weights=self.count, minlength=len(self.cells))
        return counts.astype(np.float64)

    def resampled(self, replicates: int, seed: int) -> Floats:
        """Resample voters (or votes, if voters are few) and count by cell, [replicates, cells].

        An outcome that was never seen is still possible: each count gets a random pseudo-count, half a
        vote per outcome spread over all meetings of a model (Jeffreys' prior), so that three wins out of
        three are no certainty. When votes are resampled, this is the Bayesian bootstrap. Sources: C. A.
        Field and A. Welsh,
        "Bootstrapping clustered data", J. R. Statist. Soc. B 69 (2007); D. B. Rubin, "The Bayesian
        bootstrap", Ann. Statist. 9 (1981).
        """
        import numpy as np
        from scipy.sparse import csr_array

        rng = np.random.default_rng(seed)
        cells = len(self.cells)
        unseen = UNSEEN / max(
            1.0, 2 * cells / 3 / len(self.models)
        )  # by the number of opponents that a model has met
        if self.voters < FEW_VOTERS:
            return rng.gamma(self.totals + unseen, size=(replicates, cells))
        by_voter = csr_array((self.count, (self.column, self.voter)), shape=(cells, self.voters))
        weights = rng.gamma(unseen, size=(replicates, cells))
        chunk = max(1, min(replicates, 5_000_000 // self.voters))
        for start in range(0, replicates, chunk):
            size = min(chunk, replicates - start)
            drawn = np.empty((self.voters, size))
            for k in range(size):
                picked = rng.integers(self.voters, size=self.voters)
                drawn[:, k] = np.bincount(picked, minlength=self.voters)
            weights[start : start + size] += np.asarray(by_voter @ drawn).T
        return weights
