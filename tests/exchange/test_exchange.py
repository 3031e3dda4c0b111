"""Results that travel: other tools read what we write, and we read what they wrote."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from fakehub import environment, fake_hub
from helpers import REFUSED, Scripted
from snellen.api import run
from snellen.cli import app
from snellen.datasets.shapes import KINDS
from snellen.errors import BadOption, DataError
from snellen.exchange import harness, hub, inspect_log, predictions, tables
from snellen.exchange.export import rows_as_text
from snellen.exchange.imported import import_results, read_results
from snellen.exchange.rows import answered, scores_of
from snellen.runs.run import Run
from snellen.storage.manifest import Figure, RunMetrics
from snellen.types import Outcome

runner = CliRunner()


def test_a_cell_of_an_export_is_no_formula(workspace):
    told = ["=1+1", "@SUM(A1)", "+1", "-1", "=HYPERLINK(1)", "plain"]
    answers = iter(told)
    done = run(
        model=Scripted(lambda _: next(answers), "=cmd"),
        data="chart:shapes?n=6&ask=caption",
        protocol="caption?metrics=overlap",
    )
    frame = done.predictions.assign(**{"=1": -1.5})
    table = list(csv.DictReader(io.StringIO(rows_as_text(frame, "csv"))))
    assert [row["prediction"] for row in table] == [f"'{text}" for text in told[:-1]] + ["plain"]
    assert {row["'=1"] for row in table} == {"-1.5"}  # numbers stay numbers
    lines = [json.loads(line) for line in rows_as_text(frame, "jsonl").splitlines()]
    assert [line["prediction"] for line in lines] == told


@pytest.fixture(scope="module")
def runs(tmp_path_factory, minilm) -> dict[str, Run]:
    """A run of each sort: classes by text and by rank, short answers, captions; with every outcome."""
    top = tmp_path_factory.mktemp("exchange") / "ws"
    found = {
        "closed": run(
            model="pico:llava-skewed", data="chart:shapes?n=56", protocol="closed-set", workspace=top
        ),
        "rank": run(model="pico:clip", data="chart:shapes?n=28", protocol="rank", workspace=top),
        "color": run(model="pico:llava", data="chart:shapes?ask=color&n=28", workspace=top),
        "caption": run(
            model="pico:llava",
            data="chart:shapes?ask=caption&n=28",
            protocol_options={"embedding": minilm},
            workspace=top,
        ),
    }
    said = iter([REFUSED, "no idea at all", "star", "ring"] * 7)
    found["odd"] = run(
        model=Scripted(lambda request: next(said), "odd_model & co"),
        data="chart:shapes?n=28",
        protocol="open-world",
        workspace=top,
    )
    return found


@pytest.mark.parametrize("name", ["closed", "rank", "color", "caption", "odd"])
@pytest.mark.slow
class TestWritten:
    def test_for_the_harness(self, runs, name, tmp_path):
        """lm-evaluation-harness prints our figures; a recount of the samples gives them."""
        one = runs[name]
        results, samples = harness.write(one, tmp_path)
        document = json.loads(results.read_text())
        rows = [json.loads(line) for line in samples.read_text().splitlines()]
        (task,) = document["results"]
        assert len(rows) == document["n-samples"][task]["effective"] == one.metrics.n
        metric = harness.NAMES.get(one.primary, one.primary)
        value = document["results"][task][f"{metric},none"]
        assert value == one.metrics[one.primary].value
        marks = [row[metric] for row in rows if metric in row]
        if one.primary != "cider":  # a score of all captions together
            assert value == pytest.approx(sum(marks) / len(rows))
        assert all(row["filtered_resps"] and row["target"] for row in rows)
        table = pytest.importorskip("lm_eval.utils").make_table(document)
        told = next(line for line in table.splitlines() if f"|{metric}" in line.replace(" ", ""))
        assert float(told.split("|")[7]) == pytest.approx(value, abs=1e-4)

    def test_for_inspect(self, runs, name, tmp_path):
        one = runs[name]
        (path,) = inspect_log.write(one, tmp_path / "log.json")
        (listed,) = inspect_log.write(one, tmp_path / "logs")
        inspect = pytest.importorskip("inspect_ai.log")
        assert [Path(info.name).name for info in inspect.list_eval_logs(str(listed.parent))] == [listed.name]
        assert listed.read_text() == path.read_text()
        log = inspect.read_eval_log(str(path))
        assert log.status == "success"
        assert len(log.samples) == one.metrics.n
        (score,) = log.results.scores
        assert score.metrics[one.primary].value == one.metrics[one.primary].value
        assert log.eval.model == one.model
        if one.classifies:
            scored = [sample.scores[score.name].value for sample in log.samples]
            assert scored.count("C") / len(scored) == pytest.approx(one.metrics["accuracy"].value)
        outcomes = [sample.metadata["outcome"] for sample in log.samples]
        assert {o: outcomes.count(o) for o in set(outcomes)} == {
            o: n for o, n in one.metrics.outcomes.items() if n
        }


def test_the_samples_tell_all(runs):
    rows = list(answered(runs["odd"]))
    assert [row.outcome for row in rows[:3]] == [Outcome.REFUSED, Outcome.UNPARSED, Outcome.OK]
    assert rows[1].replies[0].text == "no idea at all"
    assert rows[0].metrics == {"accuracy": 0.0}
    assert all(len(row.target) == 1 for row in rows)
    closed = list(answered(runs["closed"]))
    assert len(closed[0].replies) == 5
    figure = runs["closed"].metrics["accuracy"]
    assert scores_of(runs["closed"])["accuracy"][1] == pytest.approx(
        (figure.high - figure.low) / 3.92, rel=1e-3
    )


class TestTables:
    def test_markdown(self, runs):
        text = tables.markdown([runs["closed"], runs["color"], runs["odd"]])
        frame = [[c.strip() for c in line.strip("|\n").split(" | ")] for line in text.splitlines()]
        assert len({len(line) for line in frame}) == 1
        value = runs["closed"].metrics["accuracy"].value
        assert frame[2][4] == f"{100 * value:.1f}"
        assert frame[4][7] == "14"  # refused or unread

    def test_latex(self, runs, tmp_path):
        text = tables.latex(list(runs.values()))
        assert r"odd\_model \& co" in text
        assert text.count(r"\\") == 1 + len(runs)
        for line in text.splitlines()[2:-2]:
            if line.endswith(r"\\"):
                assert len(re.findall(r"(?<!\\)&", line)) == 7
        if shutil.which("pdflatex"):
            page = (
                "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + text + "\\end{document}"
            )
            (tmp_path / "x.tex").write_text(page)
            done = subprocess.run(["pdflatex", "-interaction=batchmode", "x.tex"], cwd=tmp_path, timeout=60)
            assert done.returncode == 0


class TestHub:
    def test_model_index(self, runs, tmp_path):
        from huggingface_hub.repocard_data import ModelCardData, model_index_to_eval_results

        (path,) = hub.write([runs["closed"]], tmp_path)
        document = yaml.safe_load(path.read_text())
        name, results = model_index_to_eval_results(document["model-index"])
        assert name == "llava-skewed"
        assert results[0].metric_value == round(100 * runs["closed"].metrics["accuracy"].value, 2)
        ModelCardData(model_name=name, eval_results=results)

    def test_data_sets_stay_apart(self):
        """huggingface_hub takes for one what it cannot tell apart."""
        from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

        names = (
            "chart:shapes",
            "chart:letters",
            "hub:org/x@a?y=1",
            "hub:org/x@b?y=1",
            "hub:org/x@a?y=2",
            "hub:org/x",
        )
        figures = [hub.HubMetric(name, "rank", "accuracy", float(i)) for i, name in enumerate(names)]
        index = eval_results_to_model_index("m", hub.model_index(figures))
        _, found = model_index_to_eval_results(index)
        assert {(one.dataset_name, one.metric_value) for one in found} == {(f.data, f.value) for f in figures}

    def test_of_one_model_and_whole_runs_alone(self, runs, tmp_path):
        with pytest.raises(BadOption, match="of one model.*llava"):
            hub.write([runs["closed"], runs["odd"]], tmp_path)

        class Known:
            """A run of data of the Hub."""

            def __init__(self, name, value, status="finished", filters=(), skipped=0):
                self.model, self.data, self.protocol, self.primary = (
                    "m",
                    f"hub:org/{name}",
                    "rank",
                    "accuracy",
                )
                self.headline = None if value is None else Figure(value=value)
                self.status, self.metrics = status, RunMetrics.model_validate({"skipped": skipped})
                self.manifest = SimpleNamespace(data=SimpleNamespace(filters=dict(filters)))

        known: list[Any] = [
            Known("unknown", None),
            Known("part", 0.5, filters={"limit": 5}),
            Known("whole", 0.7),
            Known("stopped", 0.6, "stopped"),
            Known("holes", 0.6, skipped=1),
        ]
        found = hub.write(known, tmp_path)
        assert [path.name for path in found] == ["model-index.yaml", "org_whole.yaml"]

    def test_entries_for_data_of_the_hub(self, tmp_path):
        from huggingface_hub import parse_eval_result_entries

        figures = [
            hub.HubMetric("hub:org/data@test?x=1", "closed-set", "accuracy", 91.25),
            hub.HubMetric("hub:org/data", "open-world", "accuracy", 80.5),
            hub.HubMetric("chart:shapes", "rank", "accuracy", 70.0),
        ]
        (path,) = hub.write_entries(tmp_path, figures)
        found = parse_eval_result_entries(yaml.safe_load(path.read_text()))
        assert [(one.dataset_id, one.value) for one in found] == [("org/data", 91.25), ("org/data", 80.5)]


class TestCommand:
    def test_what_goes_where(self, runs, tmp_path):
        workspace = str(runs["closed"].folder)
        ids = [runs[name].id for name in ("closed", "color")]
        done = runner.invoke(app, ["export", *ids, "--format", "markdown", "--workspace", workspace])
        assert done.exit_code == 0, done.output
        assert done.stdout.count("\n") == 4
        for words in (
            ["--format", "lm-eval", "-o", str(tmp_path / "lm")],
            ["--format", "inspect", "-o", str(tmp_path / "i.json")],
            ["--format", "hub", "-o", str(tmp_path / "hub")],
            ["-o", str(tmp_path / "x.tex")],
            ["-o", str(tmp_path / "x.md")],
        ):
            done = runner.invoke(app, ["export", ids[0], *words, "--workspace", workspace])
            assert done.exit_code == 0, done.output
        assert {p.name for p in tmp_path.iterdir()} == {"lm", "i.json", "hub", "x.tex", "x.md"}

    def test_refusals(self, runs, tmp_path):
        workspace = ["--workspace", str(runs["closed"].folder)]
        ids = [runs[name].id for name in ("closed", "color")]
        for words, said in (
            ([*ids, "--format", "inspect", "-o", "x"], "takes one run"),
            ([ids[0], "--format", "lm-eval"], "needs -o PATH"),
            ([ids[0], "-o", "x.doc"], "lm-eval, inspect or hub"),
        ):
            error = runner.invoke(app, ["export", *words, *workspace]).exception
            assert isinstance(error, BadOption)
            assert said in str(error)


LMMS = [
    # doc_id, target, response, their score, what it is
    (0, "B", "B", 1.0),
    (1, "B", "The answer is (A).", 0.0),
    (2, "blue", "blue", 0.0),  # they looked for a letter
    (3, "C", "I cannot tell.", 1.0),  # they drew one at random, and were lucky
    (4, "A", "A, since it is red", 1.0),
]


@pytest.fixture
def lmms(tmp_path: Path) -> Path:
    path = tmp_path / "20260101_samples_colors.jsonl"
    rows = [
        {
            "doc_id": number,
            "doc": {"question": "Which color?", "A": "red", "B": "blue", "C": "green"},
            "target": target,
            "arguments": {"gen_args_0": {"arg_0": "Which color?"}},
            "resps": [[said]],
            "filtered_resps": [said],
            "exact_match": score,
        }
        for number, target, said, score in LMMS
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


class TestImported:
    def test_lmms_eval(self, lmms, tmp_path):
        """By hand: B right, A wrong, "blue" right, nothing said, A right."""
        found = import_results(lmms, model="their/model", workspace=tmp_path / "ws")
        assert found.run.model == "their/model"
        assert found.run.metrics["accuracy"].value == pytest.approx(3 / 5)
        assert found.theirs == pytest.approx(3 / 5)
        assert [(id, theirs, ours) for id, theirs, ours in found.changed] == [
            ("2", 0.0, 1.0),
            ("3", 1.0, 0.0),
        ]
        assert found.run.metrics.outcomes["ok"] == 4
        assert found.run.finding(0)["prediction"] == "blue"

    def test_vlmevalkit(self, tmp_path):
        table = pd.DataFrame(
            {
                "index": ["7", "8", "9"],
                "question": ["Which?"] * 3,
                "A": ["N/A", "cat", "None"],
                "B": ["2", "dog", "4"],
                "answer": ["B", "A", "A"],
                "prediction": ["B. 2", "dog", "The answer is A"],
                "hit": ["1", "0", "1"],
            }
        )
        table.to_excel(tmp_path / "model_MMBench.xlsx", index=False)
        table.to_csv(tmp_path / "model_MMBench.tsv", index=False, sep="\t")
        for name in ("model_MMBench.xlsx", "model_MMBench.tsv"):
            found = import_results(tmp_path / name, model="m", workspace=tmp_path / name.replace(".", "-"))
            frame = found.run.outcomes.set_index("id")
            assert frame["prediction"].to_dict() == {"7": "2", "8": "dog", "9": "None"}
            assert found.run.metrics["accuracy"].value == pytest.approx(2 / 3)
            assert (found.theirs, found.changed) == (pytest.approx(2 / 3), ())

    def test_yes_and_no_and_short_answers(self, tmp_path):
        def write(name, rows):
            path = tmp_path / name
            path.write_text("\n".join(json.dumps({"doc_id": i, **row}) for i, row in enumerate(rows)))
            return path

        yes = [{"target": "Yes", "resps": [["yes, it is"]]}, {"target": "no", "resps": [["Yes"]]}]
        found = import_results(write("yes.jsonl", yes), model="m", workspace=tmp_path / "ws")
        assert found.run.manifest.protocol.name == "yes-no"
        assert found.run.headline.value == 0.5
        assert found.theirs is None
        short = [
            {"target": ["two", "2"], "filtered_resps": ["2"], "doc": {"question": "How many?"}},
            {"target": "red", "filtered_resps": ["It is blue"], "relaxed_accuracy": False},
        ]
        found = import_results(write("short.jsonl", short), model="m", workspace=tmp_path / "ws")
        assert found.run.manifest.protocol.name == "vqa"
        assert found.run.headline.value == 0.5
        assert found.theirs == 0.0
        assert found.run.sample("0")["content"]["question"] == "How many?"

    def test_it_enters_tables_and_comparisons(self, lmms, tmp_path):
        from snellen.reports.leaderboard import leaderboards
        from snellen.runs.compare import compare

        one = import_results(lmms, model="one", workspace=tmp_path / "ws").run
        rows = [json.loads(line) for line in lmms.read_text().splitlines()]
        better = [{**row, "filtered_resps": [row["target"]]} for row in rows]
        lmms.write_text("\n".join(map(json.dumps, better)))
        other = import_results(lmms, model="other", workspace=tmp_path / "ws").run
        (found,) = compare([other, one])
        assert found.result.difference.value == pytest.approx(2 / 5)
        assert len(leaderboards([one, other], 120)) == 1

    @pytest.mark.parametrize(
        ("rows", "protocol", "scored", "value", "theirs"),
        [
            # One open row among lettered ones, as in MMMU.
            (
                [
                    {"target": "A", "filtered_resps": ["A"], "doc": {"options": "['red', 'blue']"}},
                    {"target": "B", "filtered_resps": ["(B)"], "doc": {"options": "['red', 'blue']"}},
                    {"target": "12", "filtered_resps": ["12"], "doc": {"question": "How many?"}},
                ],
                "multiple-choice", 3, 1.0, None,
            ),
            # Where nobody knows what is true, nothing is wrong.
            (
                [{"target": t, "filtered_resps": ["red"]} for t in (None, "red", [], " ", ["blue", None])],
                "vqa", 2, 0.5, None,
            ),
            # A number is a place, also where an option reads like it.
            (
                [
                    {"target": i, "filtered_resps": ["ABCD"[i]], "doc": {"choices": list("2013")}, "acc": 1}
                    for i in range(4)
                ],
                "multiple-choice", 4, 1.0, 1.0,
            ),
            # Several right ones.
            (
                [
                    {"target": "A, C", "filtered_resps": ["A, C"], "doc": {"A": "r", "B": "b", "C": "c"}},
                    {"target": "B", "filtered_resps": ["B"], "doc": {"A": "r", "B": "b", "C": "c"}},
                ],
                "multiple-choice", 2, 1.0, None,
            ),
            # Log-likelihoods of the options.
            (
                [
                    {"target": k, "filtered_resps": [[-3, False], [-1, True]], "doc": {"choices": list("xy")}}
                    for k in (1, 0)
                ],
                "multiple-choice", 2, 0.5, None,
            ),
            # What they score over all captions together is no score of one.
            (
                [
                    {"target": ["cat"], "filtered_resps": ["cat"], "c": {"answer": ["cat"], "pred": "cat"}}
                ],
                "vqa", 1, 1.0, None,
            ),
            # Another scale.
            ([{"target": "x", "filtered_resps": ["x"], "judge": {"score": 8}}], "vqa", 1, 1.0, None),
            # Other signs that some take for ends of lines.
            (
                [{"target": "red", "filtered_resps": ["red"], "doc": {"question": "a\u2028b\x85c\ud83d"}}],
                "vqa", 1, 1.0, None,
            ),
        ],
    )  # fmt: skip
    def test_what_files_hold_in_fact(self, tmp_path, rows, protocol, scored, value, theirs):
        lines = [json.dumps({"doc_id": i, **row}, ensure_ascii=False) for i, row in enumerate(rows)]
        text = "\ufeff" + "\n".join(lines)
        (tmp_path / "x.jsonl").write_bytes(
            text.encode("utf-8", "surrogatepass").replace(b"\xed\xa0\xbd", b"\\ud83d")
        )
        found = import_results(tmp_path / "x.jsonl", model="m", workspace=tmp_path / "ws")
        assert found.run.manifest.protocol.name == protocol
        assert (found.run.headline.n, found.run.headline.value) == (scored, value)
        assert found.theirs == theirs
        assert found.changed == ()
        assert found.other_scale == ("judge" in rows[0])

    def test_a_row_without_an_answer_key_in_a_table(self, tmp_path):
        lines = ["index\tquestion\tA\tB\tanswer\tprediction\thit", "0\tq\tr\tb\tA\tA\tTrue"]
        lines += ["1\tq\tr\tb\t\tB\t0", "2\tq\t\t\tseven\tseven\t1"]
        (tmp_path / "x.tsv").write_text("\n".join(lines))
        found = import_results(tmp_path / "x.tsv", model="m", workspace=tmp_path / "ws")
        assert found.run.manifest.protocol.name == "multiple-choice"
        assert (found.run.headline.n, found.run.headline.value) == (2, 1.0)
        assert found.theirs == pytest.approx(2 / 3)

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("x.jsonl", '{"text": 1}', "not a sample of LMMs-Eval"),
            ("x.jsonl", "[1]", "a list instead of an object"),
            ("x.jsonl", b"\xe9", "UTF-8"),
            ("x.xlsx", b"PK\x03\x04 torn", "cannot be read as a table"),
            ("x.jsonl", "no json", "line 1"),
            ("x.jsonl", "", "no rows"),
            ("x.tsv", "a\tb\n1\t2\n", "no column index, prediction, answer"),
            ("x.txt", "x", "unknown layout"),
            ("x.xlsx", "no workbook", "cannot be read"),
        ],
    )
    def test_other_layouts(self, tmp_path, name, text, said):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(DataError, match=said):
            read_results(tmp_path / name)

    def test_an_id_twice(self, lmms):
        lmms.write_text(lmms.read_text() * 2)
        with pytest.raises(DataError, match="duplicate id"):
            read_results(lmms)

    def test_the_command(self, lmms, tmp_path):
        words = ["import", str(lmms), "--model", "their/model", "--workspace", str(tmp_path / "ws")]
        done = runner.invoke(app, words)
        assert done.exit_code == 0, done.output
        assert "2 of 5 answers are scored differently: 2 (0 → 1), 3 (1 → 0)" in done.stdout
        document = json.loads(runner.invoke(app, [*words, "--json"]).stdout)
        assert len(document["changed"]) == 2

    def test_our_own_export_comes_back(self, runs, tmp_path):
        """What we write for the harness we read again, with the same figures."""
        _, samples = harness.write(runs["color"], tmp_path)
        found = import_results(samples, model="again", workspace=tmp_path / "ws", protocol="vqa")
        assert found.run.headline.value == runs["color"].headline.value
        assert found.changed == ()


class TestPush:
    def push(
        self, address: str, home: Path, runs: dict[str, Run], *words: str
    ) -> subprocess.CompletedProcess[str]:
        ids = [runs[name].id for name in ("closed", "rank")]
        workspace = str(runs["closed"].folder)
        return subprocess.run(
            [sys.executable, "-m", "snellen", "push", *ids, "--workspace", workspace, *words],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment(address, home, "hf_right"),
        )

    def test_what_arrives(self, runs, tmp_path):
        with fake_hub() as (address, state):
            done = self.push(address, tmp_path, runs, "--to", "hub:org/name")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().endswith("org/name")
        assert state["created"]["type"] == "dataset"
        assert state["created"]["visibility"] == "private"
        frames = [pd.read_parquet(io.BytesIO(data)) for data in state["lfs"].values()]
        assert sorted(map(len, frames)) == [28, 56]
        paths = {row["value"]["path"] for row in state["commit"] if row["key"] in ("file", "lfsFile")}
        assert {f"data/{runs['closed'].id}.parquet", f"results/{runs['rank'].id}.json", "README.md"} <= paths

    def test_the_data_set_can_be_loaded(self, runs, tmp_path):
        from datasets import load_dataset

        predictions.write([runs["closed"], runs["rank"]], tmp_path)
        found = load_dataset(str(tmp_path), runs["rank"].id, split="train")
        assert found.num_rows == 28
        assert set(found["prediction"]) <= set(KINDS)
        assert f"{100 * runs['rank'].metrics['accuracy'].value:.1f}" in (tmp_path / "README.md").read_text()

    def test_another_target(self, runs, tmp_path):
        done = self.push("http://127.0.0.1:9", tmp_path, runs, "--to", "s3:x")
        assert done.returncode == 2
        assert "hub:ORG/DATASET" in done.stderr
