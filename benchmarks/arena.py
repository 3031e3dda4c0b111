"""How long it takes to rank many models by many votes, and whether the intervals cover the truth.

``python benchmarks/arena.py [VOTES] [MODELS] [VOTERS]`` (by default 1,000,000, 50 and 20,000) draws votes
from known strengths with ties, counts and ranks them with 95 % intervals over voters; then it writes as many
as 100,000 of them into a workspace and ranks them from there, as the ranking's page does.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections import Counter


def draw(votes: int, models: int, voters: int, seed: int = 0):
    """Votes as rows of voter, left, right and outcome, and the strengths behind them."""
    import numpy as np

    rng = np.random.default_rng(seed)
    strengths = np.linspace(1.5, -1.5, models)
    i = rng.integers(models, size=votes)
    j = (i + 1 + rng.integers(models - 1, size=votes)) % models
    gap = strengths[i] - strengths[j]
    a, b = np.exp(gap / 2), np.exp(-gap / 2)
    place = rng.random(votes) * (a + b + 0.6)
    outcome = np.where(place < a, 0, np.where(place < a + b, 1, 2))
    return zip(rng.integers(voters, size=votes), i, j, outcome, strict=True), strengths


def main() -> None:
    """Draw, count, rank, and check."""
    from snellen.arena.rating import rank
    from snellen.arena.results import ArenaResults
    from snellen.arena.vote_counts import VoteCounts
    from snellen.storage.store import Store
    from snellen.storage.vote_rows import Answer, Battle, Choice, Turn, Verdict, Vote
    from snellen.storage.votes import VoteStore

    given = [int(word) for word in sys.argv[1:4]]
    votes, models, voters = given + [1_000_000, 50, 20_000][len(given) :]
    rows, strengths = draw(votes, models, voters)
    rows = list(rows)
    names, outcomes = [f"m{k:02}" for k in range(models)], ("left", "right", "tie")
    began = time.perf_counter()
    counted = Counter(rows)
    verdicts = [
        Verdict(str(v), names[i], names[j], outcomes[o], times) for (v, i, j, o), times in counted.items()
    ]
    print(
        f"{votes:,} votes of {voters:,} voters on {models} models: {len(verdicts):,} kinds of votes by voter"
    )
    print(f"counted in {time.perf_counter() - began:.1f} s")
    began = time.perf_counter()
    found = rank(VoteCounts.of(verdicts))
    print(f"ranked with intervals in {time.perf_counter() - began:.1f} s")
    assert found is not None
    truth = {name: 1000 + 400 / math.log(10) * s for name, s in zip(names, strengths, strict=True)}
    covered = sum(one.low <= truth[one.model] <= one.high for one in found.standings)
    print(
        f"intervals that hold the true rating: {covered} of {models}; flips of the first place: {found.flips}"
    )
    with tempfile.TemporaryDirectory() as folder:
        vote_store = VoteStore(Store(folder))
        some = rows[:100_000]
        began = time.perf_counter()
        for start in range(0, len(some), 2000):
            page = []
            for k, (v, i, j, o) in enumerate(some[start : start + 2000], start):
                turn = Turn(0, "What is it?", Answer("a cat"), Answer("a dog"))
                battle = Battle(
                    id=str(k),
                    voter=str(v),
                    source="bench",
                    item=str(k),
                    left=names[i],
                    right=names[j],
                    propensity=1.0,
                    turns=(turn,),
                )
                page.append((battle, Vote((Choice.LEFT, Choice.RIGHT, Choice.TIE)[o])))
            vote_store.import_votes(page)
        print(f"{len(some):,} written to SQLite in {time.perf_counter() - began:.1f} s")
        began = time.perf_counter()
        ArenaResults.of(vote_store)
        print(f"everything that its page shows: {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
