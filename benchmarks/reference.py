"""Write the scores of a suite's built-in models into its file, to be compared with from then on.

    python benchmarks/reference.py charts

Runs the suite in a workspace of its own. To be run, and its change looked at, when a figure is meant to
change.
"""

from __future__ import annotations

import re
import sys
import tempfile

from snellen.suites.completed import value_of
from snellen.suites.runner import run_suite
from snellen.suites.suite import FOLDER, find


def main(name: str) -> None:
    """Carry the suite out and replace the file's last part, ``reference``."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = run_suite(find(name), workspace=folder)
        rows = []
        for done in outcome.done:
            if done.setting:
                continue
            run = done.run
            usual = "rouge_l" if run.primary == "cider" else run.primary  # on a scale of 0 to 1
            for metric in dict.fromkeys([usual, "accuracy"]):
                if (value := value_of(run, metric)) is not None:
                    cells = [done.part.name, run.model, run.protocol, metric]
                    quoted = ", ".join(f'"{cell}"' for cell in cells)
                    rows.append(f"  - [{quoted}, {value:.4f}]")
    path = FOLDER / f"{name}.yaml"
    text = re.sub(r"\nreference:\n.*", "", path.read_text(encoding="utf-8").rstrip(), flags=re.S)
    path.write_text(text + "\nreference:\n" + "\n".join(rows) + "\n", encoding="utf-8")
    print(f"{path}: {len(rows)} scores")


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["charts"])
