"""Leaderboards and single runs as Rich tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from rich.markup import escape as escape_markup
from rich.table import Table
from rich.text import Text

from snellen._util.words import counted
from snellen.metrics.classification import Confusion, per_class
from snellen.metrics.format import (
    Interval,
    detectable,
    dollars,
    figure_text,
    heading_of,
    mark,
    number,
    percent,
    score_cells,
    scored,
)
from snellen.types import Outcome

if TYPE_CHECKING:
    import pandas as pd

    from snellen.runs.compare import Comparison
    from snellen.runs.run import Run
    from snellen.storage.manifest import RunMetrics

__all__ = [
    "category_table",
    "class_table",
    "comparison_table",
    "confusion_table",
    "disagreement_tables",
    "failures_table",
    "figures_table",
    "format_metric",
    "harmless",
    "outcomes",
    "pairs",
    "plainly",
    "prompt_lines",
    "runs_table",
    "skipped_table",
]


def escape(text: str) -> str:
    """Make foreign text safe to print: no markup, and no control characters."""
    return escape_markup(harmless(text))


def harmless(text: str, kept: str = "\n") -> str:
    r"""Replace control characters, which a terminal would obey, except those to keep.

    >>> harmless("a\x1b[31m\n")
    'a\ufffd[31m\n'
    """
    return "".join(c if c.isprintable() or c in kept else "\N{REPLACEMENT CHARACTER}" for c in text)


def rich_score(name: str, figure: Interval | None, counts: Mapping[str, int]) -> str:
    """Format a score, marked if its outcomes say so, with a dimmed interval."""
    text, interval = score_cells(name, figure, digits=0)
    if sign := mark(counts):
        text += f"[red]{sign}[/]"
    return f"{text} [dim]{interval}[/dim]" if interval else text


def format_metric(name: str, figures: RunMetrics) -> str:
    """Format a score with its interval, and its number of samples, if not all."""
    figure = figures.figure(name)
    known = figures.n if figure is None or figure.n is None else figure.n
    text = rich_score(name, figure, figures.outcomes)
    return text if known == figures.n else f"{text} [dim]of {known}[/dim]"


def plainly(name: str, figures: RunMetrics) -> str:
    """Return the text without markup."""
    return Text.from_markup(format_metric(name, figures)).plain


def outcomes(counts: Mapping[str, int]) -> str:
    """Format outcomes: ``280 ok``, and any others."""
    style = {"ok": "green", "error": "red"}
    return " ".join(
        f"[{style.get(outcome, 'yellow')}]{count} {outcome}[/]"
        for outcome, count in counts.items()
        if count or outcome == Outcome.OK
    )


def outcomes_of(run: Run) -> str:
    """Format the outcomes of a run with metrics, skipped samples, and where it stopped."""
    skipped, total = run.metrics.skipped, run.manifest.data.n
    text = outcomes(run.metrics.outcomes) + (f" [yellow]{skipped} skipped[/]" if skipped else "")
    return text if run.status == "finished" else f"{text} [red]{run.status} at {run.metrics.n} of {total}[/]"


def runs_table(runs: Iterable[Run]) -> Table:
    """List all runs of a workspace, newest last."""
    table = Table(header_style="bold")
    for name in ("run", "status", "n", "score %", "outcomes", "started"):
        side: Literal["left", "right"] = "right" if name in ("n", "score %") else "left"
        table.add_column(name, justify=side, no_wrap=name == "run", overflow="fold")
    for run in runs:
        figures = run.metrics
        table.add_row(
            run.id,
            run.status,
            str(run.manifest.data.n),
            f"{run.primary} {format_metric(run.primary, figures)}" if run.headline else "–",
            outcomes_of(run) if figures else "",
            str(run.manifest.started).replace("T", " ")[:16],
        )
    return table


def figures_table(run: Run) -> Table:
    """List every figure of one run."""
    table = Table(title=run.id, title_justify="left", show_header=False)
    table.add_column()
    table.add_column()
    figures = run.metrics
    facts = run.manifest.model.metadata
    rows: list[tuple[str, str]] = [
        ("model", escape(run.model)),
        ("data", f"{escape(run.source)}, {counted(run.manifest.data.n, 'sample')}"),
        ("protocol", escape(run.protocol)),
        ("status", run.status),
    ]
    if not figures.n:
        rows.append(("figures", f"none yet; resume with: {run.resuming}"))
    rows += [
        (heading_of(name), format_metric(name, figures)) for name in figures.scores if figures.figure(name)
    ]
    if (bounds := figures.accuracy_bounds) is not None:
        low, high = bounds.low, bounds.high
        rows.append(
            ("accuracy % if all samples not ok were wrong / right", f"{100 * low:.1f} / {100 * high:.1f}")
        )
    if figures.n:
        rows += [
            ("outcomes", outcomes_of(run)),
            ("questions", number(figures.questions)),
            ("items/s", number(figures.items_per_second)),
            ("latency, median / p95 (s)", _pair(figures.latency_median, figures.latency_p95)),
            ("tokens, in / out", _pair(figures.prompt_tokens, figures.completion_tokens)),
            *([("tokens in, cached", number(figures.cached_tokens))] if figures.cached_tokens else []),
            *([("cost ($)", dollars(figures.cost))] if figures.cost is not None else []),
            ("peak memory (GB)", _giga(figures.peak_rss_bytes)),
            ("peak GPU memory (GB)", _giga(figures.peak_gpu_bytes)),
            ("parameters", number(figures.parameters)),
        ]
        if figures.scoring_cost:
            rows.append(("cost of scoring ($)", dollars(figures.scoring_cost)))
        rows += [
            (name.replace("_", " "), escape(figure_text(value))) for name, value in figures.protocol.items()
        ]
    if run.manifest.stopped:
        rows.append(("stopped", escape(run.manifest.stopped)))
    rows += _model_facts(facts)
    options = run.manifest.protocol.options
    rows += [(f"-P {option}", escape(str(value))) for option, value in options.items()]
    for row in rows:
        table.add_row(*row)
    return table


def _model_facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return rows about what a model reported while it ran."""
    rows: list[tuple[str, str]] = []
    if facts.get("served"):
        rows.append(("served by", escape(f"{facts['address']}: {', '.join(facts['served'])}")))
    if facts.get("calls"):
        calls = ", ".join(f"{count} {what}" for what, count in facts["calls"].items())
        rows.append(("calls", escape(calls)))
    if facts.get("prefix"):
        remembered = " (self-check remembered)" if facts["prefix"].get("remembered") else ""
        rows.append(("shared between an image's questions", escape(facts["prefix"]["way"]) + remembered))
        if facts["prefix"].get("mixes") is False:
            rows.append(("pictures in a batch (self-check)", "of one size, as others change it"))
        if isinstance(facts["prefix"].get("graphs"), float):
            rows.append(("decoding steps", "recorded as CUDA graphs"))
        if flips := facts["prefix"].get("flips"):
            changed = f"{flips} of {facts['prefix']['decisions']} next tokens"
            rows.append(("changed by the batch (self-check)", changed))
    if facts.get("names_cut"):
        rows.append(("names longer than the model reads", escape("; ".join(facts["names_cut"]))))
    if facts.get("names_alike"):
        alike = "; ".join(" = ".join(group) for group in facts["names_alike"])
        rows.append(("names that it cannot tell apart", escape(alike)))
    if facts.get("unmapped_classes"):
        rows.append(("classes unknown to the model", escape(", ".join(facts["unmapped_classes"]))))
    return rows


def _pair(first: float | None, second: float | None) -> str:
    return f"{number(first)} / {number(second)}"


def _giga(count: float | None) -> str:
    return "–" if count is None else f"{count / 1e9:.2f}"


def comparison_table(comparisons: Sequence[Comparison]) -> Table:
    """Compare accuracy, or the protocol's score, pair by pair."""
    names = ", ".join(dict.fromkeys(comparison.score for comparison in comparisons))
    table = Table(header_style="bold", title=names.replace("_", " "), title_justify="left")
    for heading in ("first", "second", "difference (points)", "only first / second better", "p", "verdict"):
        words = heading in ("first", "second", "verdict")
        # Runs are distinguished by the ends of their ids.
        folds: Literal["fold", "ellipsis"] = "fold" if heading in ("first", "second") else "ellipsis"
        table.add_column(heading, justify="left" if words else "right", overflow=folds)
    for comparison in comparisons:
        result = comparison.result
        gap = result.difference
        shown = f"{100 * gap.value:+.1f} [dim]{100 * gap.low:+.1f} to {100 * gap.high:+.1f}[/dim]"
        verdict = f"[green]{'first' if gap.value > 0 else 'second'} is better[/]"
        if not comparison.real:
            verdict = f"not significant ({detectable(result, 1)})"
            if not result.only_first and not result.only_second:
                verdict = f"the same on all {counted(result.n, 'sample')}"
        if comparison.raced:
            shown, verdict = f"{100 * gap.value:+.1f}", "none: a race ended it"
        p = "< 0.0001" if comparison.p_adjusted < 1e-4 else f"{comparison.p_adjusted:.4f}"
        apart = f"{result.only_first} / {result.only_second}"
        cells = (
            escape(comparison.first),
            escape(comparison.second),
            shown,
            apart,
            "–" if comparison.raced else f"{p} [dim]{result.test}[/]",
            verdict,
        )
        table.add_row(*cells)
    if len(comparisons) == 1 and comparisons[0].score != "accuracy":
        table.caption = (
            f"Win rate of the first: {100 * comparisons[0].result.win_rate:.1f}%, ties count half. "
        )
    table.caption = (table.caption or "") + (
        "Paired on shared samples; 95% intervals clustered by image; p adjusted by Holm over all pairs."
    )
    left_out = max((comparison.left_out for comparison in comparisons), default=0)
    if left_out:
        table.caption += f" Up to {left_out} samples that only one run has are excluded."
    said = dict.fromkeys(line for each in comparisons for line in (*each.unfinished, *each.software))
    if said:
        table.caption += f" {'; '.join(map(escape, said))}."
    table.caption_justify = "left"
    return table


def disagreement_tables(comparison: Comparison, most: int = 10) -> list[Table]:
    """List the classes that contribute most to a difference, and samples on which two runs disagree."""
    classes = Table(
        title="Classes that contribute most to the difference", title_justify="left", header_style="bold"
    )
    for heading in ("class", "difference (points)", "samples"):
        classes.add_column(heading, justify="left" if heading == "class" else "right")
    for name, difference, count in comparison.classes[:most]:
        if difference:
            classes.add_row(escape(name), f"{100 * difference:+.1f}", str(count))
    title = f"Disagreements ({len(comparison.disagreements)})"
    samples = Table(title=title, title_justify="left", header_style="bold")
    for heading in ("sample", "label", "first", "second"):
        samples.add_column(heading)
    for row in comparison.disagreements[:most]:
        said = (row[key] for key in ("id", "label", "first", "second"))
        samples.add_row(*(escape(text) or "[dim]nothing[/]" for text in said))
    return [classes, samples] if classes.rows else [samples]


def prompt_lines(run: Run, most: int) -> Iterator[str]:
    """Show the prompts of the first samples as sent, with their answers."""
    for sample in run.first(most):
        truth = f", label {sample['label']!r}" if sample["label"] else ""
        yield f"[bold]{escape(sample['id'])}[/]{escape(truth)}"
        for reply in run.replies(sample["id"]):
            said = reply.text if not reply.scores else f"{len(reply.scores)} scores"
            yield f"[dim]{escape(reply.prompt or '(this model takes no prompt)')}[/] → {escape(said)}"


def class_table(frame: pd.DataFrame, most: int = 20) -> Table:
    """List precision, recall, F1 and support of the classes with the lowest F1."""
    table = Table(title="Classes, lowest F1 first", title_justify="left", header_style="bold")
    table.add_column("class")
    for heading in ("precision %", "recall %", "F1 %", "samples"):
        table.add_column(heading, justify="right")
    rows = sorted(per_class(*pairs(frame)), key=lambda row: (row["f1"], row["class"]))
    if len(rows) > most:
        table.caption = f"{most} of {len(rows)} classes. For all: --json, or snellen view"
        table.caption_justify = "left"
    for row in rows[:most]:
        rates = [percent(row[name]) for name in ("precision", "recall", "f1")]
        table.add_row(escape(row["class"]), *rates, str(row["support"]))
    return table


def confusion_table(frame: pd.DataFrame, most: int = 10) -> Table:
    """List the most frequent confusions."""
    table = Table(title="Most confused", title_justify="left", header_style="bold")
    for heading in ("truth", "taken for"):
        table.add_column(heading)
    table.add_column("times", justify="right")
    for truth, predicted, count in Confusion.of(*pairs(frame)).confused(most):
        table.add_row(escape(truth), escape(predicted) or "[dim]nothing[/dim]", str(count))
    return table


def failures_table(frame: pd.DataFrame, each: int = 3) -> Table | None:
    """List a few samples of each outcome other than ok; None if there are none."""
    table = Table(title="Failures", title_justify="left", header_style="bold")
    for heading in ("outcome", "sample", "truth", "reason", "answers"):
        table.add_column(heading)
    for outcome in Outcome:
        some = frame[frame["outcome"] == outcome] if outcome is not Outcome.OK else frame[:0]
        for _, row in some.head(each).iterrows():
            answers = " | ".join(text.replace("\n", " ")[:60] for text in row["answers"][:3])
            cells = (row["id"], row["label"] or "", row["reason"], answers)
            table.add_row(outcome.value, *(escape(str(cell)) for cell in cells))
    return table if table.rows else None


def skipped_table(run: Run) -> Table | None:
    """List the samples that were skipped, and why; None if there are none."""
    rows = run.manifest.data.skipped
    if not rows:
        return None
    table = Table(title=f"Skipped ({len(rows)})", title_justify="left", header_style="bold")
    for heading in ("sample", "reason"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(escape(row.where), escape(row.reason))
    return table


def category_table(run: Run) -> Table | None:
    """Show the primary score by category, lowest first; None without categories."""
    categories = run.metrics.by_category
    if not categories:
        return None
    table = Table(title="Categories, lowest score first", title_justify="left", header_style="bold")
    table.add_column("category")
    table.add_column(heading_of(run.primary), justify="right")
    table.add_column("samples", justify="right")
    for name, figure in sorted(categories.items(), key=lambda pair: (pair[1].value, pair[0])):
        table.add_row(escape(name), scored(run.primary, figure.value), str(figure.n))
    return table


def pairs(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Yield references and predictions of the samples that have a reference."""
    known = frame[frame["label"].notna()]
    return known["label"].tolist(), known["prediction"].tolist()
