"""Show what models say about labels: a table, and a page to decide on each."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from importlib.resources import files
from typing import TYPE_CHECKING

from rich.table import Table

from snellen._version import __version__
from snellen.reports.page import environment
from snellen.reports.tables import escape

if TYPE_CHECKING:
    from snellen.decisions.labels import LabelReview
    from snellen.storage.store import Store

__all__ = ["ACTIONS", "labels_page", "labels_table"]

#: The choices on the page, in order.
ACTIONS = (
    ("review", "undecided"),
    ("keep", "the label is right"),
    ("correct", "this class is right"),
    ("ambiguous", "several are right"),
    ("drop", "none, drop it"),
)


def labels_table(review: LabelReview) -> Table:
    """Return a table of suspects, most suspicious first."""
    table = Table(title="Suspicious labels", title_justify="left")
    for heading in ("id", "label", "models say", "agreeing", "quality"):
        table.add_column(heading, justify="right" if heading in ("agreeing", "quality") else "left")
    for one in review.suspects:
        cells = (escape(one.id), escape(one.label), escape(one.suggested))
        table.add_row(*cells, f"{one.agreeing} of {one.of}", f"{one.quality:.2f}")
    return table


def labels_page(review: LabelReview, store: Store) -> str:
    """Return one self-contained page with a picture of each suspect. Its only script, allowed by its hash,
    saves the decisions as a file; it asks no server.

    Raises:
        MissingExtra: jinja2 is not installed.
    """
    template = environment("Writing a page of labels").get_template("labels.html.jinja")
    script = (files("snellen.reports") / "templates" / "labels.js").read_text(encoding="utf-8")
    pictures = {}
    for one in review.suspects:
        path = store.preview_path(one.image) if one.image else None
        known = path is not None and path.is_file()
        if known and path:
            data = base64.b64encode(path.read_bytes()).decode()
            pictures[one.image] = f"data:image/jpeg;base64,{data}"
    return str(
        template.render(
            review=review,
            pictures=pictures,
            actions=ACTIONS,
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            version=__version__,
            date=datetime.now(UTC).strftime("%d %B %Y"),
        )
    )
