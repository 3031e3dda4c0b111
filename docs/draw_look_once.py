"""Draw docs/images/look-once.svg: what is computed for five questions about an image, and who sees whom."""

from __future__ import annotations

from pathlib import Path

TARGET = Path(__file__).parent / "images" / "look-once.svg"
IMAGE, TEXT, LINE = "#3b6ea5", "#8fb8de", "#5b6573"
SUFFIXES = ["#d98c3f", "#c2584a", "#6a9a58", "#8a6bb0", "#4f9c9c"]
STYLE = (
    "text{font:13px ui-sans-serif,system-ui,'DejaVu Sans',sans-serif;fill:#1f2933}"
    ".s{font-size:11.5px;fill:#52606d}.b{font-weight:600}.w{fill:#fff}"
)

parts: list[str] = []


def box(x: float, y: float, width: float, height: float, fill: str, text: str = "", style: str = "w") -> None:
    """A filled box with a text in its middle."""
    parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="2" fill="{fill}"/>')
    if text:
        label(x + width / 2, y + height / 2 + 4, text, style, "middle")


def label(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> None:
    """A line of text."""
    parts.append(f'<text x="{x}" y="{y}" class="{style}" text-anchor="{anchor}">{text}</text>')


def line(x: float, y: float, to_x: float, to_y: float) -> None:
    """A straight line."""
    parts.append(f'<path d="M{x} {y}L{to_x} {to_y}" stroke="{LINE}" fill="none"/>')


def plain() -> None:
    """Each question whole."""
    label(20, 28, "Without sharing", "b")
    for i, color in enumerate(SUFFIXES):
        y = 42 + 26 * i
        box(20, y, 230, 20, IMAGE, "image")
        box(251, y, 70, 20, TEXT, "prompt", "")
        box(322, y, 44, 20, color, f"{i + 1}")
    label(20, 190, "the image is encoded and read again for every question", "s")


def shared() -> None:
    """The prefix once, all suffixes behind it."""
    label(420, 28, "Look once", "b")
    box(420, 42, 230, 20, IMAGE, "image")
    box(651, 42, 70, 20, TEXT, "prompt", "")
    for i, color in enumerate(SUFFIXES):
        box(722 + 45 * i, 42, 44, 20, color, f"{i + 1}")
    label(420, 82, "once", "s")
    parts.append(f'<path d="M420 68h301" stroke="{LINE}" stroke-width="1.5"/>')
    parts.append(f'<path d="M722 68h224" stroke="{LINE}" stroke-width="1.5"/>')
    label(722, 82, "all questions in the same row", "s")
    label(420, 118, "A token sees the prefix and its own question:", "s")
    x, y, cell = 420, 130, 11
    widths = [8, 3, *[2] * 5]
    colors = [IMAGE, TEXT, *SUFFIXES]
    starts = [sum(widths[:i]) for i in range(len(widths))]
    owner = [i for i, width in enumerate(widths) for _ in range(width)]
    for row in range(starts[2], sum(widths)):
        for column in range(sum(widths)):
            mine = owner[column] < 2 or (owner[column] == owner[row] and column <= row)
            fill = colors[owner[column]] if mine else "#eef1f4"
            box(x + column * cell, y + (row - starts[2]) * cell, cell - 1, cell - 1, fill)


def trie() -> None:
    """Names share their beginnings."""
    label(720, 118, "Names that begin alike share their tokens:", "s")
    nodes = {
        "root": (728, 185, ""),
        "fire": (800, 155, "fire"),
        "tree": (800, 215, "tree"),
        "engine": (885, 137, "engine"),
        "fly": (885, 170, "fly"),
        "frog": (885, 215, "frog"),
    }
    for one, other in (
        ("root", "fire"),
        ("root", "tree"),
        ("fire", "engine"),
        ("fire", "fly"),
        ("tree", "frog"),
    ):
        line(nodes[one][0], nodes[one][1], nodes[other][0], nodes[other][1])
    for x, y, text in nodes.values():
        leaf = text in ("engine", "fly", "frog")
        if text:
            fill = "#ffffff" if leaf else SUFFIXES[0]
            box(x - 31, y - 12, 62, 24, LINE)
            box(x - 30, y - 11, 60, 22, fill)
            label(x, y + 4, text, "" if leaf else "w", "middle")
        else:
            parts.append(f'<circle cx="{x}" cy="{y}" r="5" fill="{TEXT}" stroke="{LINE}"/>')
    label(720, 252, "leaves (white) need no computation", "s")


def main() -> None:
    """Write the picture."""
    plain()
    shared()
    trie()
    body = "\n".join(parts)
    TARGET.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 970 268" role="img">\n'
        f'<style>{STYLE}</style>\n<rect width="970" height="268" rx="8" fill="#fbfcfd"/>\n{body}\n</svg>\n',
        encoding="utf-8",
    )
    print(f"written: {TARGET}")


if __name__ == "__main__":
    main()
