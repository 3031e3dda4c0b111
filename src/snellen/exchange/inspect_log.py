"""The layout of Inspect's logs (JSON, version 2), which ``inspect view`` shows."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from snellen._util.paths import without_paths
from snellen._version import __version__
from snellen.exchange.export import write_text
from snellen.exchange.rows import Answered, answered, scores_of, task_of
from snellen.runs.run import Run
from snellen.types import Outcome

__all__ = ["log", "write"]


def write(run: Run, path: Path) -> list[Path]:
    """Write a log.

    Source: https://inspect.aisi.org.uk/eval-logs.html.

    Args:
        path: a folder, in which the log gets a name that ``inspect view`` finds; or the log's own path,
            ending in ``.json``.

    Raises:
        StoreError: it cannot be written.
    """
    if path.suffix != ".json":
        # It lists files that begin with a time.
        began = str(run.manifest.started or datetime.datetime.now(datetime.UTC).isoformat())
        path = path / f"{began[:19].replace(':', '-')}_{task_of(run)}_{run.id[-6:]}.json"
    write_text(path, json.dumps(log(run), indent=2, ensure_ascii=False) + "\n")
    return [path]


def log(run: Run) -> dict[str, Any]:
    """Build the log as JSON. The scorer has the protocol's name; a sample's score is its primary metric."""
    manifest, task = run.manifest, task_of(run)
    rows = list(answered(run))
    created = str(manifest.started or datetime.datetime.now(datetime.UTC).isoformat())
    metrics: dict[str, Any] = {}
    for name, (value, error) in scores_of(run).items():
        metrics[name] = {"name": name, "value": value}
        if name == run.primary:
            metrics["stderr"] = {"name": "stderr", "value": error}
    scorer = manifest.protocol.name
    return {
        "version": 2,
        "status": "success" if run.status == "finished" else "cancelled",
        "eval": {
            "eval_id": run.id,
            "run_id": run.id,
            "created": created,
            "task": task,
            "task_id": task,
            "task_version": 0,
            "task_args": without_paths(manifest.protocol.options),
            "dataset": {"name": run.data, "samples": len(rows), "sample_ids": [row.id for row in rows]},
            "model": run.model,
            "model_args": {},
            "config": {},
            "packages": {"snellen": __version__},
            "metadata": {"fingerprint": manifest.data.fingerprint},
        },
        "plan": {"name": "plan", "steps": [], "config": {}},
        "results": {
            "total_samples": len(rows),
            "completed_samples": sum(row.outcome is not Outcome.ERROR for row in rows),
            "scores": [{"name": scorer, "scorer": scorer, "params": {}, "metrics": metrics}],
        },
        "stats": {"started_at": created, "completed_at": created, "model_usage": {}},
        "samples": [_sample(run, row, scorer) for row in rows],
    }


def _sample(run: Run, row: Answered, scorer: str) -> dict[str, Any]:
    last = row.replies[-1] if row.replies else None
    value = row.metrics.get(run.primary)
    score: Any = value
    if run.classifies and value is not None:
        score = "C" if value == 1 else "I"
    stops = {Outcome.TRUNCATED: "max_tokens", Outcome.REFUSED: "content_filter"}
    choice = {
        "message": {"role": "assistant", "content": last.text if last else ""},
        "stop_reason": stops.get(last.outcome, "stop") if last else "unknown",
    }
    return {
        "id": row.id,
        "epoch": 1,
        "input": next((reply.prompt for reply in row.replies if reply.prompt), "")
        or str(row.content.get("question")),
        "choices": list(row.content.get("choices") or ()) or None,
        "target": list(row.target) if len(row.target) != 1 else row.target[0],
        "messages": [],
        "output": {"model": run.model, "choices": [choice]},
        "scores": {}
        if value is None
        else {scorer: {"value": score, "answer": row.prediction, "explanation": row.reason or None}},
        "metadata": {"outcome": str(row.outcome), "metrics": dict(row.metrics)},
        "store": {},
        "events": [],
        "model_usage": {},
        "attachments": {},
    }
