"""Export runs in any format, for Python users and the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from snellen.errors import BadOption
from snellen.exchange.export import ENDINGS, rows_as_text, write_rows, write_text
from snellen.runs.run import Run

__all__ = ["ExportFormat", "export"]

ExportFormat = Literal["jsonl", "csv", "parquet", "lm-eval", "inspect", "hub", "latex", "markdown"]


def export(
    runs: Run | Sequence[Run], path: Path | str | None = None, *, format: ExportFormat | None = None
) -> str | list[Path]:
    """Export runs: samples, tables with intervals, or the layouts of other tools.

    Args:
        runs: one run, or several for ``latex``, ``markdown`` and ``hub``.
        path: a file; a folder for ``lm-eval``, ``inspect`` and ``hub``. None: return text.
        format: one row per sample: ``jsonl``, ``csv``, ``parquet``; other tools' layouts: ``lm-eval``,
            ``inspect``, ``hub``; tables of runs: ``latex``, ``markdown``. By default, by the extension.

    Returns:
        the text without ``path``, otherwise the written files.

    Raises:
        BadOption: an unknown extension, several runs for a format of one, or a format that needs a path.
        StoreError: a file cannot be written.
        MissingExtra: the format needs a library.
    """
    several = [runs] if isinstance(runs, Run) else list(runs)
    output = None if path is None else Path(path)
    format = format or _by_extension(output)
    if format in ("latex", "markdown"):
        from snellen.exchange import tables

        text = tables.latex(several) if format == "latex" else tables.markdown(several)
        return _written(text, output)
    if len(several) > 1 and format != "hub":
        raise BadOption(f"--format {format} takes one run. For several, use latex, markdown or hub.")
    if format == "jsonl" or format == "csv" or format == "parquet":
        if output is None:
            return rows_as_text(several[0].predictions, format)
        write_rows(several[0].predictions, format, output)
        return [output]
    if output is None:
        raise BadOption(f"--format {format} needs -o PATH.")
    if format == "inspect":
        from snellen.exchange import inspect_log

        return inspect_log.write(several[0], output)
    if format == "lm-eval":
        from snellen.exchange import harness

        return harness.write(several[0], output)
    from snellen.exchange import hub

    return hub.write(several, output)


def _written(text: str, output: Path | None) -> str | list[Path]:
    if output is None:
        return text
    write_text(output, text)
    return [output]


def _by_extension(output: Path | None) -> ExportFormat:
    ending = output.suffix.lower() if output else ".jsonl"
    if ending not in ENDINGS:
        raise BadOption(
            f"-o {output}: the extension does not determine the format. Add --format "
            f"{', '.join(ENDINGS.values())}, lm-eval, inspect or hub."
        )
    return ENDINGS[ending]
