"""Suites: the studies redone, on tiny copies and on what is built in."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import cast

import pytest
import yaml

import snellen
from copies import write_copy
from helpers import Scripted
from snellen import cli
from snellen.errors import DataError, UnknownName
from snellen.models.base import MODELS
from snellen.reports.suites import outcome_tables, suite_page
from snellen.runs.run import Run
from snellen.storage.manifest import RunMetrics
from snellen.suites.completed import value_of
from snellen.suites.runner import forecast, run_suite
from snellen.suites.suite import FOLDER, Suite, find, names

pytestmark = pytest.mark.slow


def command(*arguments, monkeypatch):
    monkeypatch.setattr("sys.argv", ["snellen", "suite", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code or 0


@pytest.fixture
def copies(tmp_path, monkeypatch):
    monkeypatch.setenv("SNELLEN_DATA", str(tmp_path / "copies"))
    return tmp_path / "copies"


@pytest.fixture
def here(monkeypatch, minilm):
    """The embedding model that is at hand instead of the one on the Hub."""
    from snellen.scorers.similarity import embedder

    embedder.cache_clear()
    monkeypatch.setattr("snellen.scorers.similarity.Embedder.__init__", _local(minilm))
    yield
    embedder.cache_clear()


def _local(folder):
    from snellen.scorers.similarity import Embedder

    made = Embedder.__init__

    def begin(self, name):
        made(self, folder)

    return begin


HEAD = "title: x\nsource: y\nmodels: []\n"


class TestFiles:
    def test_all_six_are_there(self):
        studies = {"clarifai-caltech256", "pixtral", "vlmclassifier"}
        assert set(names()) == studies | {"charts", "leaderboard-8", "refcoco"}

    @pytest.mark.parametrize("name", names())
    def test_everything_that_a_suite_names_exists(self, name):
        from snellen.datasets.base import DATASETS
        from snellen.protocols.base import PROTOCOLS
        from snellen.registry import parse_name

        suite = find(name)
        assert suite.source
        for part in suite.parts:
            for data in part.data:
                assert parse_name(data)[0] in DATASETS.entries
            for protocol in part.protocols:
                PROTOCOLS.make(protocol, part.protocol_options)
            for model in (*part.models, *suite.models):
                assert parse_name(model)[0] in MODELS.entries
            if part.published:
                assert all(len(row) == len(part.published.columns) for row in part.published.rows)

    def test_the_published_figures_are_the_studies(self):
        """A few of them, by hand, against the tables that were published."""
        parts = {part.name: part for part in find("clarifai-caltech256").parts}
        rows = {row[0]: row[1:] for row in parts["closed-set"].published.rows}
        assert rows["openai:gpt-4o"] == (0.93, 0.93, 0.94, None, 2)
        assert rows["hf:Qwen/Qwen2-VL-7B-Instruct"] == (0.92, 0.92, 0.93, 29, 3.5)
        assert len(rows) == 8
        rows = {row[0]: row[1:] for row in parts["binary"].published.rows}
        assert rows["hf:microsoft/Phi-3-vision-128k-instruct"] == (0.27, 0.22, 0.21)
        sweep = {row[:2]: row[2] for row in parts["sweep-of-names"].published.rows}
        assert sweep["hf:meta-llama/Llama-3.2-11B-Vision-Instruct", 200] == 0.222
        assert parts["sweep-of-images"].published == parts["sweep-of-names"].published
        parts = {part.name: part for part in find("pixtral").parts}
        assert parts["arxivqa"].published.rows[0][1:] == (20.2, 90.8, 84.3, 77.2, 23.1, 94.2, 94.1, 92.66)
        assert parts["flickr30k-gpt4"].published.rows[0][1:] == (5.1, 98.7, 97.8, 96.6, 500)
        assert find("vlmclassifier").findings["imagenet_clip_accuracy"] == 0.792
        assert "last sample alone" in find("pixtral").note

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("- x", "mapping"),
            ("title: x", "line 1: it lacks models, parts, source"),
            ("titel: x\nparts: [{name: a, data: [b]}]", "line 1: unknown key 'titel'.*Did you mean 'title'"),
            (
                "title: x\nsource: y\nmodels: []\nparts: [{name: a, dta: [b]}]",
                r"line 4: unknown key 'parts\[1\].dta'. Did you mean 'data'",
            ),
            (
                "title: x\nsource: y\nmodels: []\nparts: [{name: a, data: [b], vary: {seeds: [1]}}]",
                "line 4.*vary accepts",
            ),
            ("title: x\nsource: y\nmodels: []\nparts: []", "needs parts"),
            (
                "title: x\nsource: y\nmodels: []\nparts: [{name: a, data: [b]}]\n"
                "claims: [{text: t, lower: {parts: [z]}, higher: {parts: [a]}}]",
                "no part 'z'",
            ),
            (
                "title: x\nsource: y\nmodels: []\nparts: [{name: a, data: [b]}]\nclaims: [{text: t}]",
                "line 5: claims.*lower and higher",
            ),
            ("title: [", "cannot be read as a suite"),
            (
                "title: x\nsource: y\nmodels: pico:clip\nparts: [{name: a, data: [b]}]",
                "line 3: models: .*tuple.*found 'pico:clip'",
            ),
            (
                "title: x\nsource: y\nmodels: []\nparts: [{name: a, data: [b], published: 3}]",
                r"line 4: parts\[1\].published: .*found 3",
            ),
            (
                "title: x\nsource: y\nmodels: []\nparts: [{name: a, data: [b], filters: {limitt: 5}}]",
                "'limit'",
            ),
            (
                "title: x\nsource: y\nmodels: []\n"
                "parts: [{name: a, data: [b], vary: {protocol.candidates: 5}}]",
                r"line 4: parts\[1\].vary.protocol.candidates: .*list.*found 5",
            ),
            (
                "title: x\nsource: y\nmodels: []\nparts: [{name: a, data: [b]}]\naverage: [[z, acc, 1]]",
                "first cell must be a part",
            ),
            (
                "title: x\nsource: y\nmodels: []\nparts: [{name: a, data: [b]}]\nreference: [[a, b]]",
                r"line 5: reference\[1\]",
            ),
            (
                "title: x\nsource: y\nmodels: []\nparts: [{name: a, data: [b], "
                "published: {source: s, columns: [model, accuracy], rows: [[m]]}}]",
                "1 cells, but there are 2 columns",
            ),
        ],
    )
    def test_a_file_that_is_no_suite(self, text, message, tmp_path):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(DataError, match=message):
            Suite.read(tmp_path / "x.yaml")

    def test_an_unknown_suite(self):
        with pytest.raises(UnknownName, match="Did you mean 'charts'.*Known: charts"):
            find("chart")

    def test_ls_and_show(self, monkeypatch, capsys):
        assert command("ls", monkeypatch=monkeypatch) == 0
        out = capsys.readouterr().out
        assert "clarifai-caltech256" in out
        for name in names():
            assert command("show", name, monkeypatch=monkeypatch) == 0
        assert "Qwen2-VL" in capsys.readouterr().out
        assert command("show", "pixtral", "--json", monkeypatch=monkeypatch) == 0
        assert json.loads(capsys.readouterr().out)["parts"][0]["published"]["scale"] == 0.01


@pytest.mark.exhaustive  # minutes of all built-in models, whose accuracy test_pico looks at, too
def test_the_charts_have_the_scores_that_were_committed(workspace, monkeypatch, capsys):
    """The project's own regression test of meaning: a change of a figure is a change of what it means."""
    assert command("run", "charts", "--quiet", "--json", monkeypatch=monkeypatch) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["reference"]) >= 25
    for row in document["reference"]:
        assert row["measured"] == pytest.approx(row["committed"], abs=0.03), row
    assert document["left_out"] == []
    sweep = document["sweeps"]["offered-names"]
    by_offer = {row["setting"]: row["accuracy"]["measured"] for row in sweep if row["model"] == "pico:llava"}
    assert set(by_offer) == {2, 5, 20}
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert "committed scores" in page
    # Again: nothing is asked, the same comes out.
    assert command("run", "charts", "--quiet", monkeypatch=monkeypatch) == 0
    assert "the same" in capsys.readouterr().out


def test_an_option_that_no_protocol_has(workspace, monkeypatch, capsys):
    for more in ((), ("--dry-run",)):
        assert command("run", "charts", "-P", "rouns=3", *more, monkeypatch=monkeypatch) == 2
        assert "Did you mean 'rounds'" in capsys.readouterr().err


def test_what_failed_is_told(workspace, monkeypatch, capsys):
    """It counts as no answer, and the exit code says so."""
    from snellen.models.classifier import Classifier

    def fail(self, requests):
        raise RuntimeError("the card fell off the bus")

    monkeypatch.setattr(Classifier, "classify", fail)
    words = ("run", "charts", "--model", "pico:classifier", "--limit", "4", "--quiet")
    assert command(*words, monkeypatch=monkeypatch) == 1
    told = capsys.readouterr().err
    assert "4 of 4 samples of" in told
    assert "the card fell off the bus" in told
    assert "rerun the same command" in told


def test_the_classification_study_on_a_tiny_copy(workspace, copies, monkeypatch, capsys):
    write_copy("caltech256", copies)
    assert command(
        "run", "clarifai-caltech256", "--model", "pico:llava", "--model", "pico:clip", "--quiet", "--json",
        monkeypatch=monkeypatch,
    ) == 0  # fmt: skip
    document = json.loads(capsys.readouterr().out)
    rows = {row["model"]: row for row in document["published"]["closed-set"]}
    assert rows["openai:gpt-4o"]["accuracy"] == {"published": 0.94, "measured": None}
    assert rows["pico:llava"]["accuracy"]["published"] is None
    assert rows["pico:llava"]["accuracy"]["measured"] is not None
    assert rows["pico:llava"]["items_per_second"]["measured"] > 0
    assert 0 <= rows["pico:llava"]["accuracy"]["low"] < rows["pico:llava"]["accuracy"]["high"]
    assert rows["pico:llava"]["n"] == sum(rows["pico:llava"]["outcomes"].values()) > 0
    sweep = [(row["model"], row["setting"]) for row in document["published"]["sweep-of-names"]]
    assert ("hf:Qwen/Qwen2-VL-7B-Instruct", 200) in sweep
    assert ("pico:llava", 10) in sweep
    assert "General" not in document["left_out"]
    command("run", "clarifai-caltech256", "--model", "pico:llava", "--quiet", monkeypatch=monkeypatch)
    out = capsys.readouterr().out
    assert "94.0 | –" in out
    assert re.search(r"– \| \d+\.\d!? \(\d+\.\d–\d+\.\d\)", out)  # with its interval
    assert "samples" in out
    assert "outcomes" in out
    assert "published: the study's table" in out


def test_the_study_of_findings_on_tiny_copies(workspace, copies):
    for name in ("imagenet", "flowers102", "stanford-cars", "caltech101", "imagewikiqa"):
        write_copy(name, copies)
    outcome = run_suite(find("vlmclassifier"), ["pico:llava", "pico:clip"])
    assert outcome.left_out == []
    verdicts = {text: (told, verdict) for text, told, verdict in outcome.verdicts()}
    assert len(verdicts) == 11
    told, verdict = verdicts["VLMs that use CLIP as their encoder stay well below CLIP at classification"]
    assert "caltech101" in told
    assert "points against pico:clip" in told
    assert verdict != "open"
    told, verdict = verdicts["prompt wording matters little"]
    assert "the gap is" in told
    probes = "a probe on the VLM's hidden states recovers classification that generation does not"
    assert verdicts[probes] == ("not measured: a suite does not inspect hidden states", "open")
    page = suite_page(outcome)
    assert "imagenet clip accuracy 79.2" in page
    assert any("claims" in str(table.title) for table in outcome_tables(outcome))


def test_a_claim_that_holds_and_one_that_does_not(workspace, tmp_path, monkeypatch):
    """Known truths: one model knows every class, the other none."""

    def seeing(rest):
        return Scripted(lambda r: r.sample.label, "seeing:x")

    def blind(rest):
        return Scripted(lambda r: "nothing", "blind:x")

    MODELS.register("seeing")(seeing)
    MODELS.register("blind")(blind)
    suite = {
        "title": "known",
        "source": "by hand",
        "models": ["seeing:x", "blind:x"],
        "parts": [
            {"name": "see", "data": ["chart:shapes"], "models": ["seeing:x"], "filters": {"limit": 56}},
            {"name": "not", "data": ["chart:shapes"], "models": ["blind:x"], "filters": {"limit": 56}},
        ],
        "claims": [
            {"text": "true", "lower": {"parts": ["not"]}, "higher": {"parts": ["see"]}},
            {"text": "false", "lower": {"parts": ["see"]}, "higher": {"parts": ["not"]}},
        ],
    }
    (tmp_path / "known.yaml").write_text(yaml.safe_dump(suite))
    outcome = run_suite(find(str(tmp_path / "known.yaml")))
    assert [verdict for *_, verdict in outcome.verdicts()] == ["holds", "does not hold"]
    assert "-100.0 points" in outcome.verdicts()[0][1]


def test_the_study_of_texts_on_tiny_copies(workspace, copies, here):
    for name in ("arxivqa", "visit-bench", "flickr30k-gpt4o"):
        write_copy(name, copies)
    outcome = run_suite(find("pixtral"), ["pico:llava", "replay:alt_text"])
    tables = outcome.tables()
    rows = {row.model: row.figures for row in tables["flickr30k-gpt4"]}
    published, measured = rows["hf:mistral-community/pixtral-12b"]["study_win_rate"]
    assert (published, measured) == (pytest.approx(0.051), None)
    assert rows["replay:alt_text"]["study_win_rate"] == (None, 1.0)  # its own reference
    assert rows["pico:llava"]["per_hour"][1] > 0  # of the first part that asks: later ones are remembered
    rows = {row.model: row.figures for row in tables["flickr30k-data"]}
    assert rows["replay:alt_text"]["study_win_rate"][1] < 1
    rows = {row.model: row.figures for row in tables["arxivqa"]}
    assert rows["pico:llava"]["label_similarity_study_win_rate"][1] is not None
    assert rows["hf:mistral-community/pixtral-12b"]["rationale_similarity_study_top_10"][0] == pytest.approx(
        0.9266
    )
    # Who has no answers there is not asked.
    assert {d.part.name for d in outcome.done if d.run.model == "replay:alt_text"} == {
        "flickr30k-gpt4",
        "flickr30k-data",
    }


def test_the_leaderboard_on_tiny_copies(workspace, copies, here):
    parts = find("leaderboard-8").parts
    for part in parts:
        write_copy(part.data[0], copies)
    outcome = run_suite(find("leaderboard-8"), ["pico:llava", "pico:llava-skewed"])
    averages = outcome.averages()
    assert {row["model"] for row in averages} == {"pico:llava", "pico:llava-skewed"}
    for row in averages:
        assert row["average"] is None  # MM-Vet has no judge
        assert row["mm-vet"] is None
        assert 1 <= row["rank"] <= 2
        assert row["mmstar"] is not None
    # HallusionBench counts by its authors' figure.
    runs = {done.run.model: done.run for done in outcome.done if done.part.name == "hallusionbench"}
    for row in averages:
        figures = {figure.name: figure.value for figure in runs[row["model"]].metrics.official}
        assert row["hallusionbench"] == pytest.approx(100 * figures["average"])


def test_eight_splits_in_one_table(workspace, copies, here):
    for name in ("refcoco", "refcoco-plus", "refcocog"):
        write_copy(name, copies)
    outcome = run_suite(find("refcoco"), ["pico:llava"])
    assert outcome.left_out == []
    (row,) = outcome.averages()
    splits = [name for name, _, _ in outcome.suite.average]
    assert len(splits) == 8
    assert all(row[split] is not None for split in splits)
    assert row["average"] == pytest.approx(sum(row[split] for split in splits) / 8)


def test_the_leaderboard_with_a_judge_has_its_average(workspace, copies, here, monkeypatch):
    for part in find("leaderboard-8").parts:
        write_copy(part.data[0], copies)
    MODELS.register("fair")(lambda rest: Scripted(lambda r: "0.5", "fair:x"))
    outcome = run_suite(find("leaderboard-8"), ["pico:llava"], options={"judge": "fair:x"})
    (row,) = outcome.averages()
    assert row["mm-vet"] == 50
    parts = [row[name] for name, _, _ in outcome.suite.average]
    assert row["average"] == pytest.approx(sum(parts) / 8)


def test_a_budget_holds_for_every_part(workspace):
    """A model without a price is refused in each of them, not in the first alone."""
    suite = Suite(
        name="x",
        title="x",
        source="x",
        models=("openai:any?base_url=http://127.0.0.1:9/v1",),
        parts=tuple(snellen_part(name, ["closed-set"], {"limit": 2}, {}) for name in "ab"),
    )
    with pytest.raises(DataError, match="a, .*price of openai.*is unknown.*b, .*price of openai.*is unknown"):
        run_suite(suite, max_cost=1.0)


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [
        ((-40, -40), "holds"),
        ((40, 0), "does not hold"),
        ((-40, 40), "holds in part"),
        ((0, 0), "undecided"),
    ],
)
def test_verdicts_over_several_data_sets(gaps, verdict, workspace, monkeypatch):
    """One model is so many points better or worse than the other on each of two data sets."""
    from snellen.suites.suite import Claim, Part, Select

    def share(points, seed):
        def script(request):
            place = int(request.sample.id.rsplit("-", 1)[1])
            return request.sample.label if place % 10 < 5 + points / 10 else "nothing"

        return lambda rest: Scripted(script, f"m{points}-{seed}:x")

    parts = []
    for seed, gap in enumerate(gaps):
        for side, points in (("lower", gap), ("higher", 0)):
            MODELS.register(f"{side}{seed}")(share(points, f"{side}{seed}"))
            parts.append(
                Part(
                    name=f"{side}{seed}",
                    data=("chart:shapes",),
                    protocols=("closed-set?rounds=1",),
                    models=(f"{side}{seed}:x",),
                    data_options={"seed": seed, "n": 100},
                )
            )
    claim = Claim(
        text="t",
        lower=Select(parts=("lower0", "lower1")),
        higher=Select(parts=("higher0", "higher1")),
    )
    suite = Suite(name="x", title="x", source="x", models=(), parts=tuple(parts), claims=(claim,))
    ((_, _, found),) = run_suite(suite).verdicts()
    assert found == verdict


def test_a_claim_that_cannot_be_compared_is_open_and_the_report_stands(workspace, tmp_path):
    from helpers import picture

    picture().pixels.save(tmp_path / "x.png")
    rows = [{"id": i, "image": "x.png", "question": f"{i}?", "r": "a" if i else ""} for i in range(3)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = (f"jsonl:{tmp_path}/t.jsonl?reference=r&question=question",)
    from snellen.suites.suite import Claim, Part, Select

    parts = tuple(
        Part(name=name, data=data, protocols=(f"vqa?max_tokens={i + 4}",)) for i, name in enumerate("ab")
    )
    claim = Claim(text="t", lower=Select(parts=("a",)), higher=Select(parts=("b",)))
    suite = Suite(name="x", title="x", source="x", models=("pico:llava",), parts=parts, claims=(claim,))
    outcome = run_suite(suite)
    ((_, told, verdict),) = outcome.verdicts()
    assert verdict == "open"
    assert "without the score" in told
    assert "without the score" in suite_page(outcome)


def test_averages_by_hand(workspace, monkeypatch):
    from types import SimpleNamespace

    from snellen.suites.completed import CompletedRun
    from snellen.suites.result import SuiteResult
    from snellen.suites.suite import Part

    suite = Suite(
        name="x",
        title="x",
        source="x",
        models=(),
        parts=(Part(name="a", data=()), Part(name="b", data=())),
        average=(("a", "accuracy", 100), ("b", "anls", 100)),
    )
    scores = {"one": (0.5, 0.9), "two": (0.7, 0.1), "three": (0.5, 0.9)}
    done = [
        CompletedRun(
            Part(name=part, data=()),
            {},
            cast(
                "Run",
                SimpleNamespace(
                    model=model, metrics=RunMetrics.model_validate({metric: {"value": values[i]}})
                ),
            ),
        )
        for model, values in scores.items()
        for i, (part, metric) in enumerate((("a", "accuracy"), ("b", "anls")))
    ]
    rows = {row["model"]: row for row in SuiteResult(suite, done).averages()}
    assert rows["one"]["average"] == pytest.approx(70)
    assert rows["one"]["rank"] == rows["three"]["rank"] == 1.5
    assert rows["two"]["rank"] == 2.0


def test_a_dry_run_asks_nothing(workspace, monkeypatch, capsys):
    assert command("run", "charts", "--dry-run", "--limit", "4", "--json", monkeypatch=monkeypatch) == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["part"] for row in document["forecasts"]} >= {"shapes", "caption"}
    assert all(row["samples"] <= 4 for row in document["forecasts"])
    assert not (workspace / "snellen.db").exists()


def test_parts_without_their_data_are_told_and_the_others_go_on(workspace, copies, monkeypatch, capsys):
    write_copy("mmstar", copies)
    code = command(
        "run", "leaderboard-8", "--model", "pico:llava", "--quiet", "--json", monkeypatch=monkeypatch
    )
    assert code == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert [row["part"] for row in document["runs"]] == ["mmstar"]
    assert len(document["left_out"]) == 7
    assert "skipped: mmbench, pico:llava: hub:lmms-lab/MMBench cannot be loaded" in captured.err


def test_a_data_set_that_is_missing_takes_no_other_along(workspace, copies):
    write_copy("caltech101", copies)
    outcome = run_suite(find("vlmclassifier"), ["pico:clip"])
    assert {d.run.data for d in outcome.done} == {"caltech101"}
    assert any("flowers102" in line or "Oxford-Flower" in line for line in outcome.left_out)


def test_nothing_at_all(workspace, monkeypatch):
    with pytest.raises(DataError, match="could be evaluated"):
        run_suite(find("leaderboard-8"), ["pico:llava"])
    with pytest.raises(DataError, match="none of the models supports"):
        run_suite(
            Suite(
                name="x",
                title="x",
                source="x",
                models=("pico:classifier",),
                parts=(snellen_part("a", ["closed-set"], {"limit": 2}, {}),),
            )
        )


def test_a_suite_that_was_interrupted_goes_on(workspace, monkeypatch):
    """What was answered before is not asked again, in any part."""
    asked = []

    def script(request):
        asked.append(request.sample.id)
        if len(asked) == 20:
            raise KeyboardInterrupt
        return request.sample.label or "x"

    MODELS.register("one")(lambda rest: Scripted(script, "one:x"))
    suite = Suite(
        name="x",
        title="x",
        source="x",
        models=("one:x",),
        parts=tuple(
            snellen_part(name, ["closed-set?rounds=1"], {"limit": 14}, {"seed": seed})
            for seed, name in enumerate("ab")
        ),
    )
    with pytest.raises(KeyboardInterrupt):
        run_suite(suite)
    outcome = run_suite(suite)
    assert len(outcome.done) == 2
    assert all(d.run.metrics["accuracy"].value == 1 for d in outcome.done)
    assert len(asked) < 28 + 14


def snellen_part(name, protocols, filters, options):
    from snellen.suites.suite import Part

    return Part(
        name=name, data=("chart:shapes",), protocols=tuple(protocols), filters=filters, data_options=options
    )


def test_one_budget_for_all_parts(workspace):
    found, left_out = forecast(find("charts"), ["pico:llava"], limit=2)
    assert not left_out
    assert found
    from snellen.runs.plan import Plan, SharedResources

    resources = SharedResources()
    for _ in range(2):
        Plan(
            models=["pico:llava"],
            data=["chart:shapes"],
            protocols=["rank"],
            max_cost=5.0,
            resources=resources,
            workspace=workspace,
        )
    assert resources.budget is not None
    assert resources.budget.most == 5
    assert len(resources.models) == 1
    assert len(resources.selections) == 1


def test_figures_by_name():
    from types import SimpleNamespace

    metrics = {
        "peak_gpu_bytes": 2e9,
        "items_per_second": 0.5,
        "accuracy": {"value": 0.5},
        "protocol": {"f1": 0.25},
    }
    run = cast("Run", SimpleNamespace(metrics=RunMetrics.model_validate(metrics)))
    assert value_of(run, "gpu_gb") == 2
    assert value_of(run, "per_hour") == 1800
    assert value_of(run, "accuracy") == 0.5
    assert value_of(run, "f1") == 0.25
    assert value_of(run, "nothing") is None


def test_the_files_are_in_the_package():
    assert all((FOLDER / f"{name}.yaml").is_file() for name in names())
    assert snellen.__version__
