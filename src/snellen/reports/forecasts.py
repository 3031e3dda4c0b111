"""The table of what an evaluation would ask, send and cost."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from snellen.metrics.format import dollars
from snellen.reports.tables import escape
from snellen.runs.estimate import Forecast

__all__ = ["forecasts_table"]


def forecasts_table(forecasts: Sequence[Forecast]) -> Table:
    """List the requests and costs of evaluations to come."""
    table = Table(header_style="bold")
    for heading in ("model", "protocol", "data", "samples", "requests", "tokens in", "tokens out", "cost $"):
        words = heading in ("model", "protocol", "data")
        table.add_column(heading, justify="left" if words else "right")
    for estimate in forecasts:
        counts = (_span(estimate.requests), _span(estimate.tokens_in), _span(estimate.tokens_out))
        cost = "–" if estimate.cost is None else " to ".join(dict.fromkeys(map(dollars, estimate.cost)))
        names = (escape(estimate.model), escape(estimate.protocol), escape(estimate.data))
        table.add_row(*names, f"{estimate.samples:,}", *counts, cost)
    sent = [
        f"{estimate.host} would receive {_span(estimate.images)} images ({_mega(estimate.image_bytes)} MB), "
        "without their metadata."
        for estimate in forecasts
        if estimate.host and estimate.images[1]
    ]
    table.caption = " ".join(
        [
            "Nothing was sent.",
            *sent,
            "Ranges are from the minimum to the maximum: a protocol may stop early, and answers may be "
            "shorter than max_tokens. Input tokens are estimated: texts by length, images as for GPT-4o. "
            "Cached answers are not subtracted.",
        ]
    )
    table.caption_justify = "left"
    return table


def _mega(pair: tuple[int, int]) -> str:
    return " to ".join(dict.fromkeys(f"{value / 1e6:,.1f}" for value in pair))


def _span(pair: tuple[int, int]) -> str:
    return " to ".join(dict.fromkeys(f"{value:,}" for value in pair))
