"""Write the table of docs/benchmarks.md that says which figures can be compared: from the catalog."""

from __future__ import annotations

from pathlib import Path

from snellen.datasets.benchmarks import entry, names

PAGE = Path(__file__).parent / "benchmarks.md"
MARK = "<!-- comparable -->"


def table() -> str:
    """Return the table, one row for each benchmark."""
    rows = (
        f"| `{name}` | {', '.join(entry(name).figures) or '–'} | {entry(name).comparable} |"
        for name in names()
    )
    return "\n".join(("| benchmark | its authors' figures | can they be compared? |", "|---|---|---|", *rows))


def page() -> str:
    """Return the page with the table between its two marks."""
    before, _, after = PAGE.read_text(encoding="utf-8").partition(MARK)
    rest = after.rpartition(MARK)[2]
    return f"{before}{MARK}\n\n{table()}\n\n{MARK}{rest}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
