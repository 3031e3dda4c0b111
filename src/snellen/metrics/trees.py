"""How alike two trees are: tables in HTML or Markdown, and documents by their headings.

Distances through apted, which inserts and deletes nodes at a cost of 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from snellen.errors import require

__all__ = ["document_similarity", "markdown_table", "page_of_rows", "table_similarity"]

EXTRA = "ocr"


@dataclass(slots=True, eq=False)
class Node:
    """A node; ``content`` is compared where ``kind`` is the same."""

    kind: tuple[str | int, ...]
    content: Sequence[str] = ()
    children: list[Node] = field(default_factory=list)

    def all(self) -> Iterator[Node]:
        """Yield the node and all below it, each before its children."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children))


@cache
def _costs(rename: Callable[[Node, Node], float]) -> Any:
    """Return apted's configuration of costs."""
    config: Any = require("apted", EXTRA, "The distance between trees")

    class Costs(config.Config):  # type: ignore[misc] # without types
        def rename(self, first: Node, second: Node) -> float:
            return rename(first, second)

    return Costs()


def _similarity(first: Node, second: Node, nodes: int, rename: Callable[[Node, Node], float]) -> float:
    """Return 1 minus the distance over a number of nodes."""
    apted: Any = require("apted", EXTRA, "The distance between trees")
    distance: float = apted.APTED(first, second, _costs(rename)).compute_edit_distance()
    return 1.0 - distance / nodes


# ── tables ──────────────────────────────────────────────────────────────────────────────────────────


def table_similarity(said: str, true: str) -> float:
    """Return TEDS, the similarity of two tables in HTML by the distance between their trees: cells of equal
    span differ by the edit distance of their characters and tags over the greater length. 0 if one of them
    has no table in its body.

    Source: Zhong et al., "Image-based table recognition" (arXiv 1911.10683).

    >>> table = "<html><body><table><tr><td>{}</td><td>b</td></tr></table></body></html>"
    >>> table_similarity(table.format("abcd"), table.format("abcx"))
    0.9166666666666666
    """
    first, second = map(_table, (said, true))
    if first is None or second is None:
        return 0.0
    nodes = max(sum(1 for _ in table.iterdescendants("*")) for table in (first, second))
    try:
        trees = _of_element(first), _of_element(second)
    except ValueError:  # a span that is no number
        return 0.0
    return _similarity(*trees, nodes, _rename_cell) if nodes else 0.0


def _table(text: str) -> Any:
    """Return the first table right below the body; None if there is none."""
    html: Any = require("lxml.html", EXTRA, "The similarity of tables")
    if not text:
        return None
    try:
        top = html.fromstring(text, parser=html.HTMLParser(remove_comments=True, encoding="utf-8"))
    except (ValueError, html.etree.LxmlError):
        return None
    tables = top.xpath("body/table")
    return tables[0] if tables else None


def _of_element(element: Any) -> Node:
    if element.tag != "td":
        return Node((str(element.tag),), (), [_of_element(child) for child in element])
    spans = (int(element.attrib.get(name, "1")) for name in ("colspan", "rowspan"))
    return Node(("td", *spans), list(_tokens(element))[1:-1])


def _tokens(element: Any) -> Iterator[str]:
    """Yield a cell's tags and characters."""
    yield f"<{element.tag}>"
    yield from element.text or ""
    for child in element:
        yield from _tokens(child)
    if element.tag != "unk":
        yield f"</{element.tag}>"
    if element.tag != "td":
        yield from element.tail or ""


def _rename_cell(first: Node, second: Node) -> float:
    if first.kind != second.kind:
        return 1.0
    if not first.content and not second.content:
        return 0.0
    levenshtein: Any = require("rapidfuzz.distance", EXTRA, "The similarity of tables").Levenshtein
    distance: int = levenshtein.distance(first.content, second.content)
    return distance / max(len(first.content), len(second.content))


def markdown_table(text: str) -> str:
    r"""Return a table in Markdown as HTML; the second line is taken for the rule below the heads.

    >>> markdown_table("| a | b |\n|---|---|\n| 1 |  |")
    '<html><body><table><tr><td>a</td><td>b</td></tr><tr><td>1</td><td> </td></tr></table></body></html>'
    """
    # As in the authors' code, which strips the letters of "markdown" at both ends.
    lines = text.strip("```markdown").strip("```").strip().split("\n")  # noqa: B005
    rows = ([_cell(cell) for cell in line.strip().split("|")[1:-1]] for line in (lines[0], *lines[2:]))
    return page_of_rows(rows)


def _cell(text: str) -> str:
    return text.strip() if set(text) != {" "} else " "


def page_of_rows(rows: Iterable[Sequence[str]]) -> str:
    """Return a page with a table of these cells, in HTML that is not escaped."""
    lines = ("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return "<html><body><table>" + "".join(lines) + "</table></body></html>"


# ── documents ───────────────────────────────────────────────────────────────────────────────────────

_MARKUP = (
    (r"<bos>|<eos>|<pad>|<unk>", ""),
    (r"\s##(\S)", r"\1"),
    (r"\\\s", r"\\"),
    (r"\s\*\s\*\s", "**"),
    (r"{\s", "{"),
    (r"\s}", "}"),
    (r"\s}", "}"),
    (r"\\begin\s", r"\\begin"),
    (r"\\end\s", r"\\end"),
    (r"\\end{table}", r"\\end{table} \n\n"),
)


def document_similarity(said: str, true: str) -> float:
    r"""Return the similarity of two documents in Markdown by the distance between their trees: headings, and
    the lines below each. As in the source's code, two lines that have words are alike whatever they say.

    Source: the evaluation of OCRBench v2 (arXiv 2501.00321), where it is called STEDS.

    >>> document_similarity("# One\ntext", "# Two\nother"), document_similarity("# One", "# One\ntext")
    (1.0, 0.75)
    """
    first, second = map(_document, (said, true))
    nodes = max(sum(1 for _ in tree.all()) for tree in (first, second))
    return _similarity(first, second, nodes, _rename_line)


def _rename_line(first: Node, second: Node) -> float:
    return float(not str(first.kind[0]).split() or not str(second.kind[0]).split())


def _document(text: str) -> Node:
    root = Node(("ROOT",), (), [Node(("TITLE",))])
    under = untitled = root.children[0]
    for line in map(_without_markup, text.split("\n")):
        if not line.startswith("#"):
            under.children.append(Node((line,)))
            continue
        title = line.replace("#", "")
        root.children.append(Node((title,)))
        # Lines below a heading go to the first node that is called like it.
        under = next(node for node in root.all() if node.kind == (title,)) if title else untitled
    return root


def _without_markup(line: str) -> str:
    for pattern, instead in _MARKUP:
        line = re.sub(pattern, instead, line)
    return line.replace("\n", " ").replace("*", " ").replace("_", " ")
