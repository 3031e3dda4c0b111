"""Write a report on runs, for Python users and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from snellen._util.files import write_text
from snellen.errors import one_of
from snellen.reports import page
from snellen.runs.run import Run

__all__ = ["report"]


def report(
    runs: Run | Sequence[Run],
    path: Path | str | None = None,
    *,
    format: Literal["html", "markdown"] | None = None,
) -> str:
    """Build a report: summary, leaderboard, classes, confusions, right and wrong samples, manifests.

    Args:
        runs: one run or several.
        path: also write it to this file.
        format: by default ``markdown`` for a path that ends in ``.md``, otherwise ``html``: one page that
            loads nothing.

    Returns:
        the text.

    Raises:
        UsageError: a run has no results.
        MissingExtra: jinja2 is not installed.
        StoreError: the file cannot be written.
    """
    one_of("format", format, ("html", "markdown", None))
    several = [runs] if isinstance(runs, Run) else list(runs)
    plain = format == "markdown" or (format is None and path is not None and Path(path).suffix == ".md")
    text = page.markdown(several) if plain else page.html(several)
    if path is not None:
        write_text(Path(path), text)
    return text
