"""Write a tuned model's card: its training curves, results, and metadata for the Hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snellen._util.files import write_atomic
from snellen._util.paths import without_folders
from snellen._util.words import counted
from snellen.exchange.hub import HubMetric, model_index, write_entries
from snellen.reports.figures import COLORS, FAINT, figure
from snellen.tuning.deployment import Deployment
from snellen.tuning.recipes import Recipe
from snellen.tuning.results import Result, remarks

__all__ = ["draw_curves", "write_card"]


def curves(log: Mapping[str, Sequence[Mapping[str, Any]]], key: str) -> list[tuple[list[float], list[float]]]:
    """Return steps and values logged under a key, stage by stage, with steps counted through.

    >>> curves({"a": [{"loss": 2, "step": 1}, {"loss": 1, "step": 2}], "b": [{"loss": 0, "step": 1}]}, "loss")
    [([1, 2], [2, 1]), ([3], [0])]
    """
    series, start = [], 0
    for rows in log.values():
        points = [(start + row["step"], row[key]) for row in rows if key in row]
        if points:
            series.append(([x for x, _ in points], [y for _, y in points]))
        start += max((row["step"] for row in rows if "step" in row), default=0)
    return series


def draw_curves(log: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Plot loss (training and held-out) and held-out accuracy by step, as a PNG."""
    if not any(log.values()):
        return
    shown = [
        ("loss", (("loss", "training", FAINT), ("eval_loss", "kept apart", COLORS[0]))),
        ("accuracy %", (("held_out_accuracy", "held out, closed set", COLORS[0]),)),
    ]
    panels = [(label, lines) for label, lines in shown if any(curves(log, key) for key, _, _ in lines)]
    with figure((4.6 * len(panels), 3.2), path, "The figure of a training") as made:
        for place, (label, lines) in enumerate(panels, 1):
            axes = made.add_subplot(1, len(panels), place)
            for key, name, color in lines:
                for turn, (steps, values) in enumerate(curves(log, key)):
                    scaled = [100 * v for v in values] if label.startswith("accuracy") else values
                    axes.plot(
                        steps,
                        scaled,
                        marker=".",
                        color=color,
                        linewidth=1.4,
                        label=name if turn == 0 else None,
                    )
            axes.set_xlabel("step")
            axes.set_ylabel(label)
            axes.grid(alpha=0.25)
            if label.startswith("accuracy"):
                axes.set_ylim(0, 102)
            axes.legend(frameon=False, fontsize=8)


def write_card(
    folder: Path,
    *,
    base: str,
    on_hub: str | None,
    complete: bool,
    recipe: Recipe | None,
    results: Sequence[Result],
    weakest: Result | None,
    facts: Mapping[str, Any],
    notes: Sequence[str],
    model: str,
    deployments: Sequence[Deployment] = (),
) -> None:
    """Write ``README.md`` with its metadata, and ``.eval_results/*.yaml`` for data sets on the Hub.

    Args:
        on_hub: the base model's id on the Hub, if it is there.
        complete: whether the whole test set was used, as a benchmark result requires.

    The Hub accepts results in ``.eval_results/`` only for data sets on the Hub; the card's ``model-index``
    has all of them.

    Source: https://huggingface.co/docs/hub/eval-results and …/model-cards.
    """
    from huggingface_hub import ModelCard, ModelCardData

    figures = [
        HubMetric(result.data, result.protocol, result.score, round(100 * result.after, 2))
        for result in results
    ]
    adapter = recipe is not None and recipe.adapter
    data = ModelCardData(
        base_model=on_hub,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="image-text-to-text" if recipe is not None else "zero-shot-image-classification",
        tags=["snellen", *(["lora"] if adapter else [])],
        model_name=f"{base.rpartition('/')[2]}-tuned",
        eval_results=model_index(figures),
    )
    trained = (
        f"Fine-tuned with Snellen: {recipe.about if recipe else 'all weights of a dual encoder'}. "
        f"{facts['trained']:,} of {facts['parameters']:,} parameters were trained."
    )
    text = [f"# {_cell(base)}, tuned", "", trained, "", *_gains(results, weakest)]
    if (folder / "curves.png").exists():
        text += ["", "![Training curves](curves.png)"]
    text += ["", *_lessons(facts)]
    if notes:
        text += ["", "## Notes", "", *(f"- {_cell(note)}" for note in notes)]
    text += ["", "## Use", "", "```", f"snellen run --model {model} --data folder:./photos", "```", ""]
    for deployment in deployments:
        text += [f"## Serve ({deployment.format})", "", "```", deployment.serve, "```", ""]
    card = ModelCard(without_folders("\n".join(["---", data.to_yaml(), "---", "", *text])))
    write_atomic(folder / "README.md", str(card))
    if complete:
        write_entries(folder, figures)


def _gains(results: Sequence[Result], weakest: Result | None) -> list[str]:
    """Describe what the model gained and lost."""
    lines = [
        "## Results",
        "",
        "| task | score | samples | before % | after % | difference in points (95%) | |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {_cell(result.task)} | {result.score} | {result.paired.n} | {' | '.join(result.cells)} |"
        for result in [*results, *([weakest] if weakest else [])]
    ]
    lines += [
        "",
        "Before and after are on the same samples, none of which was in the training data unless a note "
        "below says "
        "so. Differences are paired; their intervals are clustered by image.",
    ]
    lines += ["", *(f"- {_cell(remark)}" for remark in remarks(results))]
    if weakest:
        lines += ["", f"Lowest recall before, on held-out images: {', '.join(map(_cell, weakest.classes))}."]
    return lines


def _lessons(facts: Mapping[str, Any]) -> list[str]:
    """Describe the training data and settings."""
    lines = ["## Training data", ""]
    lines += [
        f"- {_cell(source['data'])}: {counted(source['examples'], 'example')} of "
        f"{counted(source['samples'], 'sample')}"
        for source in facts["examples"]
    ]
    lines += [
        f"- {stage}: {how['steps']} steps of {how['batch']} examples = {how['epochs']:g} epochs, learning "
        f"rate {how['learning_rate']:g}"
        + (
            f"; kept: step {how['kept_step']}, the best on training images held out"
            if "kept_step" in how
            else ""
        )
        + _pace(how)
        for stage, how in facts.get("effective", {}).items()
    ]
    lines += [f"- {_cell(_options(facts['options']))}"]
    if facts.get("balanced"):
        lines += ["- Images of rare classes are repeated until classes are equally frequent."]
    return lines


def _pace(how: Mapping[str, Any]) -> str:
    if "examples_per_second" not in how:
        return ""
    memory = how["peak_memory_bytes"] / 2**30
    return f"; {how['examples_per_second']:.3g} examples/s, peak memory {memory:.2g} GiB"


def _options(options: Mapping[str, Any]) -> str:
    """Describe what was set."""
    words = [f"{key}={value}" for kind in ("settings", "lora") for key, value in options[kind].items()]
    words += [f"{kind}={','.join(options[kind])}" for kind in ("train_parts", "augment") if options[kind]]
    seeds = f"Seed {options['seed']}, of the split {options['split_seed']}."
    return f"{seeds} Options: {', '.join(words)}." if words else f"{seeds} No other options."


def _cell(text: str) -> str:
    """Escape text for Markdown."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
