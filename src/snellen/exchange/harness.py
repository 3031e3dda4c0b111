"""The layout of lm-evaluation-harness and LMMs-Eval: a results JSON, and one JSON line per sample."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from snellen._util.paths import without_paths
from snellen._version import __version__
from snellen.exchange.export import write_text
from snellen.exchange.rows import Answered, answered, higher_is_better, scores_of, task_of
from snellen.runs.run import Run

__all__ = ["results", "sample", "write"]

#: Their names for our metrics.
NAMES = {"accuracy": "acc", "macro_f1": "f1_macro", "weighted_f1": "f1_weighted"}


def write(run: Run, folder: Path) -> list[Path]:
    """Write ``results_DATE.json`` and ``samples_TASK_DATE.jsonl``.

    Source: https://github.com/EleutherAI/lm-evaluation-harness, ``--log_samples --output_path``.

    Raises:
        StoreError: they cannot be written.
    """
    stamp = str(run.manifest.started).replace(":", "-")[:19] or "undated"
    results_file, other = folder / f"results_{stamp}.json", folder / f"samples_{task_of(run)}_{stamp}.jsonl"
    write_text(results_file, json.dumps(results(run), indent=2, ensure_ascii=False) + "\n")
    lines = (json.dumps(sample(row), ensure_ascii=False) for row in answered(run))
    write_text(other, "".join(f"{line}\n" for line in lines))
    return [results_file, other]


def results(run: Run) -> dict[str, Any]:
    """Build the results document. A standard error is half the width of our interval over 1.96."""
    task, manifest = task_of(run), run.manifest
    scores: dict[str, Any] = {"alias": task}
    for name, (value, error) in scores_of(run).items():
        scores[f"{NAMES.get(name, name)},none"] = value
        scores[f"{NAMES.get(name, name)}_stderr,none"] = error
    n = run.metrics.n
    shots = manifest.protocol.options.get("shots", 0)
    better = {NAMES.get(name, name): higher_is_better(name) for name in scores_of(run)}
    return {
        "results": {task: scores},
        "group_subtasks": {task: []},
        "configs": {
            task: {
                "task": task,
                "dataset_path": run.data,
                "output_type": "generate_until",
                "num_fewshot": shots,
                "metadata": {
                    "protocol": without_paths(manifest.protocol.as_dict()),
                    "outcomes": run.metrics.outcomes,
                },
            }
        },
        "versions": {task: manifest.snellen},
        "n-shot": {task: shots},
        "higher_is_better": {task: better},
        "n-samples": {task: {"original": n, "effective": n}},
        "config": {
            "model": run.model,
            "model_args": without_paths(manifest.model.identity),
            "batch_size": manifest.batch_size,
            "random_seed": manifest.seed,
        },
        "model_name": run.model,
        "snellen_version": __version__,
    }


def sample(row: Answered) -> dict[str, Any]:
    """Build one line of the samples."""
    prompts = [reply.prompt for reply in row.replies]
    target = row.target[0] if len(row.target) == 1 else list(row.target)
    doc = {"id": row.id, **{k: v for k, v in row.content.items() if v and k != "sizes"}}
    names = {NAMES.get(name, name): value for name, value in row.metrics.items()}
    return {
        "doc_id": row.position,
        "doc": doc,
        "target": target,
        "arguments": {f"gen_args_{i}": {"arg_0": prompt} for i, prompt in enumerate(prompts)},
        "resps": [[_said(reply)] for reply in row.replies],
        "filtered_resps": [row.prediction],
        "filter": "none",
        "metrics": list(names),
        "doc_hash": _hash(doc),
        "prompt_hash": _hash(prompts),
        "target_hash": _hash(target),
        "outcome": str(row.outcome),
        "reason": row.reason,
        **names,
    }


def _said(reply: Any) -> Any:
    return [score.value for score in reply.scores] if reply.scores else reply.text


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
