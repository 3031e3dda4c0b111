"""Figures by matplotlib: one palette, one way to make and to write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from snellen.errors import require

if TYPE_CHECKING:
    from PIL.Image import Image as Pixels

__all__ = ["COLORS", "DARK", "FAINT", "MARK", "Panel", "draw_panels", "figure"]

#: The color of each model or arm, in turn.
COLORS = ("#0b62a4", "#c8553d", "#2a7f62", "#8a5fbf", "#b8860b", "#5b6770")
#: The colors of other lines, of lines in the background, and of a mark where there is one model.
DARK, FAINT, MARK = "#333333", "#8a8f98", "#b3372f"
#: What draws a plot on matplotlib's axes, and the pictures under it with their captions.
Panel = tuple[Callable[[Any], None], Sequence[tuple[str, "Pixels"]]]


@contextmanager
def figure(
    size: tuple[float, float],
    to: Path | IO[bytes],
    purpose: str,
    *,
    format: str | None = None,
    dpi: int = 150,
) -> Iterator[Any]:
    """Make a figure to draw into, and write it at the end.

    Args:
        size: in inches.
        purpose: what it is for, in words.
        format: png, svg or pdf; None: by the path's ending.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    require("matplotlib", "report", purpose)
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"text.parse_math": False}):  # names may have dollar signs
        made = Figure(figsize=size, layout="constrained", dpi=dpi)
        FigureCanvasAgg(made)
        yield made
        if isinstance(to, Path):
            to.parent.mkdir(parents=True, exist_ok=True)
        made.savefig(to, format=format)


def draw_panels(
    title: str,
    panels: Sequence[Panel],
    path: Path,
    size: tuple[float, float],
    interpolation: str | None = None,
) -> None:
    """Draw panels, at most three in a row: a plot each, and pictures with their captions under its axis.

    Args:
        path: a picture (.png, .svg or .pdf).
        size: of a panel, in inches.
        interpolation: of the pictures, as for matplotlib's ``imshow``.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    whole = (size[0] * columns, size[1] * rows + 0.6)
    with figure(whole, path, "Drawing the card", dpi=110) as made:
        made.suptitle(title, fontsize=14, fontweight="bold")
        parts = made.subfigures(rows, columns, squeeze=False).ravel()
        for part, (draw, pictures) in zip(parts, panels, strict=False):
            upper, lower = part.subfigures(2, 1, height_ratios=(3, 1))
            draw(upper.subplots())
            if not pictures:
                continue
            shown = lower.subplots(1, len(pictures), squeeze=False)[0]
            for axes, (caption, picture) in zip(shown, pictures, strict=True):
                axes.imshow(picture, interpolation=interpolation)
                axes.set_title(caption, fontsize=7)
                axes.axis("off")
