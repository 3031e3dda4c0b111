"""Every benchmark of the catalog loads its tiny copy of exactly its documented columns, and runs."""

from __future__ import annotations

import json
import re
import runpy
import shutil

import pytest
import yaml

import snellen
from copies import ROWS, write_copy
from helpers import ROOT, Scripted, command_line
from snellen import cli
from snellen.datasets.base import DATASETS
from snellen.datasets.benchmarks import FOLDER, Benchmark, entry, names
from snellen.datasets.columns import ColumnMapping, values_at
from snellen.datasets.options import options_in
from snellen.errors import BadOption, DataError
from snellen.models.base import MODELS
from snellen.protocols.base import PROTOCOLS
from snellen.runs.filters import Filters
from snellen.runs.plan import Plan
from snellen.runs.rescore import rescore
from snellen.runs.run import Run
from snellen.types import Outcome

#: What the project promises to list.
PROMISED = (
    "imagenet caltech101 caltech256 flowers102 stanford-cars food101 cifar10 cifar100 eurosat dtd "
    "oxford-pets mmmu mmbench-en mmbench-cn mmstar scienceqa ai2d mathvista ocrbench mme pope seed-bench "
    "hallusionbench realworldqa arxivqa visit-bench flickr30k flickr30k-gpt4o coco-captions nocaps vqav2 "
    "textvqa docvqa chartqa gqa okvqa refcoco refcoco-plus refcocog imagewikiqa mmmu-pro blink infovqa "
    "countbenchqa vstar hr-bench-4k hr-bench-8k mmvp imagenet-v2 imagenet-a imagenet-r imagenet-sketch "
    "imagenet-real objectnet sun397 fgvc-aircraft cub-200 resisc45 gtsrb patch-camelyon"
).split()


def test_all_that_is_promised_is_there():
    assert set(PROMISED) <= set(names())


@pytest.fixture
def copies(tmp_path, monkeypatch, wordnet):
    monkeypatch.setenv("SNELLEN_DATA", str(tmp_path / "copies"))
    return tmp_path / "copies"


@pytest.mark.parametrize("name", names())
def test_an_entry_says_what_it_must(name):
    one = entry(name)
    assert one.title
    assert one.samples > 0
    assert one.documented.startswith("https://")
    assert one.citation
    assert one.license
    assert one.revision is None or re.fullmatch("[0-9a-f]{40}", one.revision)
    assert (one.hub is None) == (name in ("imagewikiqa", "imagenet-real"))
    assert set(one.roles().named()) <= set(one.features)
    protocol = PROTOCOLS.make(one.protocol, one.options)
    assert protocol.classifies == (one.task == "classification")
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert "# checked:" in text or "# not confirmed:" in text


@pytest.fixture(scope="module")
def llava():
    model = MODELS.make("pico:llava")
    model.load()
    return model


@pytest.mark.parametrize("name", names())
def test_an_entry_loads_its_copy_and_runs_as_its_authors_ask(name, copies, workspace, minilm, llava):
    write_copy(name, copies)
    one = entry(name)
    compares = one.task in ("caption", "instruct", "rationale")
    more = {"embedding": minilm} if compares else {}
    plan = Plan(models=[llava], data=[name], protocol_options=more)
    (run,) = plan.run()
    rows = yaml.safe_load((ROWS / f"{name}.yaml").read_text(encoding="utf-8"))["rows"]
    assert run.status == "finished"
    assert run.metrics.outcomes["error"] == 0
    assert run.headline is not None
    if not name.startswith(("mmbench", "refcoco")):  # rolled rows go, expressions part
        assert run.metrics.n == len(rows)
    assert run.predictions["label"].notna().all()


@pytest.mark.parametrize("name", [n for n in names() if entry(n).task != "classification"])
def test_who_answers_the_truth_is_right(name, copies, workspace, minilm):
    """Whatever the notation of the data set: its own answers, given as a model would, have the full score."""
    write_copy(name, copies)
    one = entry(name)

    def answer(request):
        about = request.sample
        if one.task == "grounding":
            w, h = about.images[0].size
            x0, y0, x1, y1 = about.regions[0].box
            return json.dumps([x0 / w, y0 / h, x1 / w, y1 / h])
        if about.choices:
            lines = request.messages[-1].text.splitlines()
            right = about.choices[about.answers[0]]
            if one.task == "rationale":
                return f"{'ABCDEFG'[about.answers[0]]}\n{about.meta['rationale']}"
            letters = [
                m[1] for line in lines if (m := re.match(r"\(?([A-Z])[.)] (.*)", line)) and m[2] == right
            ]
            # Options that stand in the picture alone have their order.
            return letters[0] if letters else f"Answer: {chr(65 + about.answers[0])}"
        return max(about.references, key=about.references.count)

    compares = one.task in ("caption", "instruct", "rationale")
    more = {"embedding": minilm} if compares else {"format": "unit"} if one.task == "grounding" else {}
    (run,) = Plan(models=[Scripted(answer)], data=[name], protocol_options=more).run()
    assert run.metrics.outcomes["ok"] == run.metrics.n
    assert run.headline.value >= (0.9 if one.protocol == "vqa" and one.options["metric"] == "vqa" else 0.999)
    assert (run.headline.n or run.metrics.n) == run.metrics.n
    for figure in run.metrics.official:
        assert figure.value > 0.89
        assert figure.points or figure.value <= 1


def test_a_missing_column_is_named_with_the_revision(copies, workspace):
    write_copy("mmstar", copies, without="answer")
    with pytest.raises(DataError, match=r"mmstar: no column 'answer' \(answer\) in .*mmstar.*its columns: "):
        DATASETS.make("mmstar")


def test_what_is_not_on_disk_says_how_to_get_it(workspace, monkeypatch):
    monkeypatch.delenv("SNELLEN_DATA", raising=False)
    with pytest.raises(
        DataError, match=r"(?s)hf download --repo-type dataset Lin-Chen/MMStar\n.*SNELLEN_DATA/mmstar"
    ):
        DATASETS.make("mmstar")
    with pytest.raises(DataError, match=r"not on the Hub.*github.com/yuhui-zh15.*path=FOLDER"):
        DATASETS.make("imagewikiqa")
    with pytest.raises(DataError, match="path='./nowhere' is not a folder"):
        DATASETS.make("mmstar?path=./nowhere")


def test_rolled_rows_are_left_out_and_rolled_anew(copies, workspace):
    write_copy("mmbench-en", copies)
    data = DATASETS.make("mmbench-en")
    assert len(data) == 2
    assert data.protocol_options["circular"] is True


def test_options_that_a_user_names_win_over_the_entry_s(copies, workspace):
    write_copy("docvqa", copies)
    (run,) = Plan(models=["pico:llava"], data=["docvqa"]).run()
    assert run.primary == "anls"
    (run,) = Plan(models=["pico:llava"], data=["docvqa"], protocol_options={"metric": "exact"}).run()
    assert run.primary == "exact_match"
    (run,) = Plan(models=["pico:llava"], data=["docvqa"], protocols=["vqa?metric=contains"]).run()
    assert run.primary == "accuracy"


def test_a_benchmark_in_ten_lines(tmp_path, workspace, photos):
    """What docs/benchmarks.md shows."""
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(title: My.*?)```", text, flags=re.S)
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    (tmp_path / "mine.yaml").write_text(block)
    folder = tmp_path / "mine"
    folder.mkdir()
    rows = [
        {"picture": "star.png", "ask": "What is it?", "options": ["a star", "a key"], "right": "A"},
        {"picture": "star.png", "ask": "Is it a key?", "options": ["yes", "no"], "right": "B"},
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shutil.copy(photos / "star" / "0.png", folder / "star.png")
    run = snellen.run(model=Scripted(lambda r: "A"), data=f"benchmark:{tmp_path}/mine.yaml?path={folder}")
    assert run.metrics["accuracy"].value == 0.5
    assert run.predictions["label"].tolist() == ["a star", "no"]
    # A second file: the split's is read, and told.
    shutil.copy(folder / "rows.jsonl", folder / "other.jsonl")
    name = f"benchmark:{tmp_path}/mine.yaml?path={folder}"
    assert f"{folder}/rows.jsonl" in " ".join(DATASETS.make(f"{name}&split=rows").notes)
    with pytest.raises(DataError, match="which of other.jsonl, rows.jsonl"):
        DATASETS.make(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", "mapping"),
        ("title: x\nprotcol: vqa", "unknown key 'protcol'. Did you mean 'protocol'"),
        ("title: x", "lacks columns, protocol, task"),
        (
            "title: x\ntask: vqa\nprotocol: vqa\ncolumns: {imag: x}",
            "unknown role 'imag'. Did you mean 'image'",
        ),
        ("title: [", "cannot be read as a benchmark"),
    ],
)
def test_a_file_that_is_no_benchmark(text, message, tmp_path):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        Benchmark.read(tmp_path / "x.yaml")


def test_a_file_that_is_not_there():
    with pytest.raises(DataError, match="cannot be read as a benchmark"):
        DATASETS.make("benchmark:nowhere.yaml")
    with pytest.raises(BadOption, match="needs a file"):
        DATASETS.make("benchmark:")


def test_the_list(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["snellen", "ls", "datasets", "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["docvqa"]["hub"] == "lmms-lab/DocVQA"
    assert rows["docvqa"]["protocol"] == "vqa"
    assert "chart:shapes, chart:letters, chart:acuity …" in rows
    monkeypatch.setattr("sys.argv", ["snellen", "ls", "datasets"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "ptional[" not in (out := capsys.readouterr().out)
    assert "docvqa" in out


class TestRoles:
    @pytest.mark.parametrize(
        ("text", "head", "options"),
        [
            ("How?\nOptions: A: x, y, B: z.", "How?", {"A": "x, y", "B": "z."}),
            ("How?\nA. x\nB. y\nChoose A or B.", "How?", {"A": "x", "B": "y"}),
            ("How?\nChoices:\n(A) x\n(B) y\n(C) z", "How?", {"A": "x", "B": "y", "C": "z"}),
            ("How?", "How?", {}),
            ("Which of A. and B. is it?", "Which of A. and B. is it?", {}),
            ("", "", {}),
        ],
    )
    def test_options_in_a_question(self, text, head, options):
        assert options_in(text) == (head, options)

    @pytest.mark.parametrize(
        ("value", "how", "found"),
        [
            ("B", "letter", (1,)),
            ("[B]", "letter", (1,)),
            ("B.", "letter", (1,)),
            ("B) two", "letter", (1,)),
            ("two", "letter", (1,)),
            (None, "letter", ()),
            ("", "letter", ()),
            ("?", "letter", ()),
            (-1, "index", ()),
            (float("nan"), "index", ()),
            (1, "index", (1,)),
            ("1", "index", (1,)),
            ("two", "text", (1,)),
            ("A, C", "letters", (0, 2)),
            (["A", "C"], "letters", (0, 2)),
        ],
    )
    def test_how_an_answer_is_named(self, value, how, found):
        columns = ColumnMapping(image=("image",), choices=("options",), answer="right", answer_as=how)
        parts = columns.parts({"options": ["one", "two", "three"], "right": value})
        assert parts.answers == found

    @pytest.mark.parametrize(
        ("value", "how", "advice"),
        [
            ("Z", "letter", "Allowed: letter, letters, index, number, text"),
            ("Best", "letter", "Allowed"),
            (7, "index", "Allowed"),
            ("x", "index", "Allowed"),
            ("two", "index", "Set another with -D answer_as=letter"),
            ("A, C", "letter", "Set another with -D answer_as=letters"),
            (2, "letter", "Set another with -D answer_as=index"),
        ],
    )
    def test_an_answer_that_is_no_option_is_refused(self, value, how, advice):
        columns = ColumnMapping(image=("image",), choices=("options",), answer="right", answer_as=how)
        with pytest.raises(DataError, match=f"right='{value}' is none of the options .*{advice}"):
            columns.parts({"options": ["one", "two", "three"], "right": value})

    @pytest.mark.parametrize(
        "cell",
        [
            "red; blue;green",
            "red|blue|green",
            "red\nblue\n green",
            "A. red\nB. blue\nC. green",
            '{"A": "red", "B": "blue", "C": "green"}',
            {"A": "red", "B": "blue", "C": "green"},
            {"(a)": "red", "(b)": "blue", "(c)": "green"},
            ["red", "blue", "green"],
        ],
    )
    def test_options_in_one_cell(self, cell):
        columns = ColumnMapping(image=("image",), choices=("options",), answer="right")
        parts = columns.parts({"options": cell, "right": "C"})
        assert (parts.choices, parts.answers) == (("red", "blue", "green"), (2,))

    @pytest.mark.parametrize("cell", ["red", "red, blue, green", ["red"], '{"A": "red"}'])
    def test_a_single_option_is_refused(self, cell):
        """It would be right whatever the model says."""
        columns = ColumnMapping(image=("image",), choices=("options",), answer="right")
        with pytest.raises(DataError, match="a single option"):
            columns.parts({"options": cell, "right": "A"})

    def test_letters_before_options_go_where_all_have_theirs(self):
        columns = ColumnMapping(image=("image",), choices=("options",))
        assert columns.parts({"options": ["A) x", "B) y"]}).choices == ("x", "y")
        assert columns.parts({"options": ["B. cereus", "E. coli"]}).choices == ("B. cereus", "E. coli")
        assert columns.parts({"options": "['x', \"it's\"]"}).choices == ("x", "it's")

    def test_cells_within_cells(self):
        assert values_at({"a": [{"b": "x"}, {"b": None}]}, "a.b") == ["x"]
        assert values_at({"a": "[2011, 2012]"}, "a") == ["[2011, 2012]"]
        assert values_at({"a": None}, "a") == []
        assert values_at({"a": {"b": {"c": 1}}}, "a.b.c") == ["1"]

    def test_unit_boxes_and_lists_of_boxes(self, tmp_path, workspace):
        from snellen.datasets.shapes import draw, figure

        draw(figure("x", "star"), 100).save(tmp_path / "x.png")
        row = {
            "image": "x.png",
            "objects": {"bbox": [[0.1, 0.2, 0.5, 0.6], [0.5, 0.5, 1, 1]], "name": ["cat", "dog"]},
        }
        (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
        data = DATASETS.make(
            f"jsonl:{tmp_path}/x.jsonl?box=objects.bbox&box_as=unit-xyxy&box_label=objects.name"
        )
        regions = data.sample(0, (), None).regions
        assert [r.name for r in regions] == ["cat", "dog"]
        assert regions[0].box == pytest.approx((10, 20, 50, 60))


def test_tables_take_the_roles_as_options(tmp_path, workspace, photos):
    rows = [
        {
            "path": str(photos / "star" / "0.png"),
            "q": "What?",
            "x": "a star",
            "y": "a key",
            "hint": "pointed",
            "a": 0,
        }
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    roles = "question=q&choices=x,y&answer=a&answer_as=index&hint=hint"
    name = f"jsonl:{tmp_path}/q.jsonl?{roles}&allow_outside=true"
    run = snellen.run(model=Scripted(lambda r: "A"), data=name, protocol="multiple-choice")
    assert run.metrics["accuracy"].value == 1
    assert run.metrics.outcomes[Outcome.OK] == 1
    with pytest.raises(BadOption, match="choices='z'.*no such column"):
        DATASETS.make(f"jsonl:{tmp_path}/q.jsonl?choices=z")


def test_names_that_list_synonyms():
    """As in ImageNet: a short name is shown, and any of them is understood."""
    from snellen.datasets.benchmarks import listed
    from snellen.parsing import parse_label

    raw = ["tench, Tinca tinca", "goldfish, Carassius auratus", "crane", "crane2", "tabby, tabby cat", "cat"]
    names, synonyms = listed(raw)
    assert names == ["tench", "goldfish", "crane", "crane2", "tabby", "cat"]
    for text, label in (
        ("The object in this photo is a tench, a freshwater fish.", "tench"),
        ("tinca tinca", "tench"),
        ("A tabby cat.", "tabby"),
        ("crane", "crane"),
    ):
        assert parse_label(text, names, synonyms) == label


def test_the_figures_of_authors_are_shown_and_stay_when_rescored(copies, workspace, capsys):
    """Two questions about one figure, one right and one wrong: half of the answers, none of the figures."""
    write_copy("hallusionbench", copies)
    said = iter(["yes", "yes", "no", "no"] * 2)
    (run,) = Plan(models=[Scripted(lambda request: next(said))], data=["hallusionbench"]).run()
    first = {figure.name: figure for figure in run.metrics.official if not figure.group}
    assert set(first) == {"aAcc", "fAcc", "qAcc", "average"}
    parts = [first[name].value for name in ("aAcc", "fAcc", "qAcc")]
    assert first["average"].value == pytest.approx(sum(parts) / 3)
    again = Run(run.store, rescore(run.store, run.id))
    assert again.metrics.official == run.metrics.official
    assert command_line("show", run.id) == 0
    text = capsys.readouterr().out
    assert "As the benchmark's authors print it" in text
    assert f"{100 * first['fAcc'].value:.2f}%" in text
    assert "Of 6 of 951 samples: not to be compared" in " ".join(text.split())


def test_a_column_called_like_a_role_is_still_a_column(copies, workspace):
    """The role category holds the subcategory here; figures of VD and VS are grouped apart all the same."""
    write_copy("hallusionbench", copies)
    rows = yaml.safe_load((ROWS / "hallusionbench.yaml").read_text(encoding="utf-8"))["rows"]
    (run,) = Plan(models=[Scripted(lambda request: "yes")], data=["hallusionbench"]).run()
    groups = {"fAcc": "figure_id", "qAcc": "question_id"}
    for name, last in groups.items():
        (figure,) = [figure for figure in run.metrics.official if figure.name == name]
        keys = ("category", "subcategory", "set_id", last)
        assert figure.n == len({tuple(row[key] for key in keys) for row in rows})


def test_a_part_of_a_benchmark_is_not_to_be_compared(copies, workspace, capsys):
    write_copy("hallusionbench", copies)
    (run,) = Plan(models=["pico:llava"], data=["hallusionbench"], filters=Filters(limit=2)).run()
    assert command_line("show", run.id) == 0
    assert "Of 2 of 951 samples: not to be compared" in " ".join(capsys.readouterr().out.split())


def test_a_whole_benchmark_can_be_compared(copies, workspace, capsys, monkeypatch):
    write_copy("hallusionbench", copies)
    monkeypatch.setitem(vars(entry("hallusionbench")), "samples", 6)
    (run,) = Plan(models=[Scripted(lambda request: "yes")], data=["hallusionbench"]).run()
    assert command_line("show", run.id) == 0
    assert "docs/benchmarks.md says what can be compared" in " ".join(capsys.readouterr().out.split())


def test_a_figure_of_unknown_figures_is_refused(tmp_path):
    text = (FOLDER / "hallusionbench.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(text.replace("[aAcc, fAcc, qAcc]", "[aAcc, gAcc]"), encoding="utf-8")
    with pytest.raises(DataError, match="average: unknown figure 'gAcc'"):
        Benchmark.read(tmp_path / "mine.yaml")
    late = text.replace("  aAcc: {}\n", "  mean: {average: [aAcc]}\n  aAcc: {}\n")
    (tmp_path / "mine.yaml").write_text(late, encoding="utf-8")
    with pytest.raises(DataError, match="mean: unknown figure 'aAcc' .name those before it"):
        Benchmark.read(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").write_text(text.replace("aAcc: {}", 'aAcc: {pattern: "("}'), encoding="utf-8")
    with pytest.raises(DataError, match="aAcc: the pattern is invalid"):
        Benchmark.read(tmp_path / "mine.yaml")


def test_the_page_lists_what_can_be_compared():
    scope = runpy.run_path(str(ROOT / "docs" / "make_comparable.py"))
    assert scope["page"]() == (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def test_a_question_in_the_picture_is_not_written_out(copies, workspace):
    write_copy("mmmu-pro-vision", copies)
    asked = []

    def answer(request):
        asked.append(request.messages[-1].text)
        return "Answer: F"

    (run,) = Plan(models=[Scripted(answer)], data=["mmmu-pro-vision"]).run()
    assert {text.partition(".")[0] for text in asked} == {
        "Answer with the option letter from the given choices directly"
    }
    assert "a bell" not in "".join(asked)
    assert run.predictions["prediction"].tolist()[2] == "6.5 N"
    assert run.metrics["accuracy"].value == pytest.approx(1 / 3)
