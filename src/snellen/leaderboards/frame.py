"""The leaderboard as a data frame, for Python users."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from snellen.leaderboards.entries import entry_of
from snellen.leaderboards.model_info import ModelInfoIndex
from snellen.leaderboards.ranking import rank_runs
from snellen.runs.run import Run, list_runs

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["leaderboard"]


def leaderboard(runs: Sequence[Run] | None = None, *, workspace: Path | str | None = None) -> pd.DataFrame:
    """Return one row per run: rank, model, data, protocol, primary score (``value``) with its interval
    (``low``, ``high``), ``n``, outcomes, speed, memory, cost, and facts about the model.

    ``rank`` is 1 + the number of runs that are significantly better on the same samples; others are tied.

    Args:
        runs: by default, all runs of the workspace.
        workspace: by default ``$SNELLEN_WORKSPACE``, or ``./snellen-workspace``.
    """
    import pandas as pd

    several = list(list_runs(workspace)) if runs is None else list(runs)
    ranks, facts = rank_runs(several), ModelInfoIndex()
    rows = [{"rank": ranks.get(run.id), **entry_of(run, facts).as_dict()} for run in several]
    if not rows:
        return pd.DataFrame()
    frame = pd.DataFrame(rows).drop(columns=["suites", "published"])
    return frame.sort_values(["data", "primary", "value"], ascending=[True, True, False], ignore_index=True)
