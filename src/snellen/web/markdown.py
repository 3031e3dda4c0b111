"""Turn text written by people and models into safe HTML."""

from __future__ import annotations

from functools import cache
from typing import Any

from snellen.errors import require

__all__ = ["markdown"]

_TAGS = set(
    "p br hr em strong del code pre blockquote ul ol li h1 h2 h3 h4 h5 h6 table thead tbody tr th td".split()
)


@cache
def _parser() -> Any:
    module: Any = require("markdown_it", "web", "Showing answers")
    # Raw HTML stays text, and images and links written by models are not rendered.
    return (
        module.MarkdownIt("commonmark", {"html": False, "breaks": True})
        .enable("table")
        .disable(["image", "link", "autolink", "reference"])
    )


@cache
def _cleaner() -> Any:
    return require("nh3", "web", "Showing answers")


def markdown(text: str) -> str:
    r"""Convert Markdown to HTML with a few harmless tags and no attributes; images, links and raw HTML stay
    text.

    >>> markdown("**a** <b>c</b>")
    '<p><strong>a</strong> &lt;b&gt;c&lt;/b&gt;</p>\n'
    """
    made = _parser().render(text)
    return str(_cleaner().clean(made, tags=_TAGS, attributes={}, link_rel=None))
