"""The command line as a user meets it, with the built-in models."""

from __future__ import annotations

import csv
import io
import json
import shlex
import subprocess
import sys

import pandas as pd
import pytest
from sklearn import metrics as sk

from snellen import cli


@pytest.fixture
def snellen(workspace, monkeypatch, capsys):
    """Run a command in this process: exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["snellen", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_a_folder_of_images_to_figures_that_a_recount_confirms(snellen, photos, tmp_path):
    code, out, err = snellen(
        "run", "--model", "pico:llava", "--model", "pico:clip", "--data", f"folder:{photos}",
        "--protocol", "closed-set", "--protocol", "binary", "--protocol", "rank",
        "--output", tmp_path / "out", "--json",
    )  # fmt: skip
    assert code == 0, err
    document = json.loads(out)
    assert [(r["model"], r["protocol"]) for r in document["runs"]] == [
        ("pico:llava", "closed-set"),
        ("pico:llava", "binary"),
        ("pico:llava", "rank"),
        ("pico:clip", "rank"),
    ]
    assert len(document["incompatible"]) == 2
    for entry in document["runs"]:
        figures = entry["metrics"]
        code, _, _ = snellen("export", entry["id"], "-o", tmp_path / f"{entry['id']}.jsonl")
        assert code == 0
        rows = [json.loads(line) for line in (tmp_path / f"{entry['id']}.jsonl").read_text().splitlines()]
        truth, predicted = [r["label"] for r in rows], [r["prediction"] for r in rows]
        assert figures["n"] == len(rows) == 20
        assert {r["id"] for r in rows} == {p.relative_to(photos).as_posix() for p in photos.rglob("*.*")}
        assert all(r["label"] == r["id"].split("/")[0] for r in rows)
        labels = sorted({*truth, *predicted} - {""})
        assert figures["accuracy"]["value"] == pytest.approx(
            sum(t == p for t, p in zip(truth, predicted, strict=True)) / 20
        )
        for average in ("macro", "weighted"):
            assert figures[f"{average}_f1"]["value"] == pytest.approx(
                sk.f1_score(truth, predicted, labels=labels, average=average, zero_division=0)
            )
        counts = pd.Series([r["outcome"] for r in rows]).value_counts()
        assert figures["outcomes"] == {
            o: int(counts.get(o, 0)) for o in ("ok", "unparsed", "refused", "truncated", "error")
        }
        assert figures["items_per_second"] > 0
        if entry["protocol"] == "rank":
            # Of at most five classes, one of the top five is certain.
            assert all(len(r["ranking"]) <= 5 for r in rows)
            assert figures["top5"] is None
        else:
            assert figures["top5"] is None
            assert all(r["answers"] for r in rows)
        # What harnesses write says the same.
        results = json.loads((tmp_path / "out" / f"results_{entry['id']}.json").read_text())
        assert results["metrics"] == figures
        assert results["manifest"]["data"]["n"] == 20
        lines = (tmp_path / "out" / f"samples_{entry['id']}.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == rows
    # They see: five classes at chance would be 4 of 20.
    assert all(entry["metrics"]["accuracy"]["value"] > 0.5 for entry in document["runs"])


def test_the_table_and_the_progress_lines(snellen):
    code, out, err = snellen(
        "run", "--model", "pico:classifier", "--data", "chart:shapes", "--protocol", "rank", "--limit", 28
    )
    assert code == 0
    assert "pico:classifier" in out
    assert "28 ok" in out
    assert "28/28" in err
    assert "items/s" in err
    quiet = snellen(
        "run",
        "--model",
        "pico:classifier",
        "--data",
        "chart:shapes",
        "--protocol",
        "rank",
        "--limit",
        29,
        "--quiet",
    )
    assert quiet[0] == 0
    assert quiet[2] == ""


def test_show_list_and_export(snellen, tmp_path):
    code, out, _ = snellen(
        "run", "--model", "pico:llava", "--data", "chart:shapes", "--protocol", "closed-set",
        "-P", "prompt=Say something about {names}.", "--limit", 12, "--json", "--quiet",
    )  # fmt: skip
    run = json.loads(out)["runs"][0]
    assert code == 0
    assert run["metrics"]["n"] == 12
    for name in (run["id"], run["id"][:-2], "@last"):
        code, out, _ = snellen("show", name)
        assert code == 0
        assert run["id"] in out
        assert "Most confused" in out
        assert "Say something about {names}." in out
    code, out, _ = snellen("show", "@last", "--prompts", "1")
    assert out.count("USER: <image>\nSay something about ") == 5
    assert "ASSISTANT: →" in out
    code, out, _ = snellen("show", "@last", "--json")
    assert json.loads(out)["classes"]
    code, out, _ = snellen("ls", "runs", "--json")
    assert [r["id"] for r in json.loads(out)] == [run["id"]]
    assert run["id"] in snellen("ls", "runs")[1]

    frames = {}
    for format in ("jsonl", "csv", "parquet"):
        path = tmp_path / f"x.{format}"
        assert snellen("export", "@last", "-o", path)[0] == 0
        read = {
            "jsonl": lambda p: pd.read_json(p, lines=True),
            "csv": pd.read_csv,
            "parquet": pd.read_parquet,
        }
        frames[format] = read[format](path)
    for frame in frames.values():
        assert list(frame["id"]) == list(frames["jsonl"]["id"])
        assert list(frame["prediction"].fillna("")) == list(frames["jsonl"]["prediction"].fillna(""))
        assert {"label", "outcome", "answers", "questions"} <= set(frame.columns)
    code, out, _ = snellen("export", "@last", "--format", "csv")
    assert len(list(csv.DictReader(io.StringIO(out)))) == 12


@pytest.mark.parametrize("what", ["models", "datasets", "protocols"])
def test_ls(snellen, what):
    code, out, _ = snellen("ls", what)
    assert code == 0
    code, out, _ = snellen("ls", what, "--json")
    rows = json.loads(out)
    assert all(row["name"] and row["what"] for row in rows)
    names = " ".join(row["name"] for row in rows)
    expected = {
        "models": ("pico:llava", "hf:", "clip:", "classifier:"),
        "datasets": ("chart:shapes", "folder:"),
        "protocols": ("binary", "closed-set", "open-world", "rank"),
    }
    assert all(name in names for name in expected[what])


def test_version(snellen):
    from snellen._version import __version__

    assert snellen("--version")[1].strip() == f"snellen {__version__}"


R = ("run", "--data", "chart:shapes?n=4", "--model", "pico:classifier", "--protocol", "rank")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*R, "--model", "pico:lava"), ["'pico:lava'", "Did you mean 'llava'", "pico:llava-skewed"]),
        ((*R, "--model", "gpt"), ["Unknown model 'gpt'", "hf:ORG/NAME", "snellen ls models"]),
        ((*R, "--data", "photos"), ["Unknown data set 'photos'", "folder:PATH", "snellen ls datasets"]),
        ((*R, "--data", "folder:./nowhere"), ["./nowhere", "no such folder", "--data folder:./photos"]),
        ((*R, "--protocol", "closedset"), ["Unknown protocol 'closedset'", "closed-set", "rank"]),
        ((*R, "-P", "normalise=sum"), ["no option 'normalise'", "Did you mean 'normalize'"]),
        ((*R, "-P", "normalize=all"), ["normalize='all'", "sum, tokens, bytes"]),
        ((*R, "-P", "pmi"), ["-P KEY=VALUE"]),
        ((*R, "-M", "gpu=1"), ["no option 'gpu'", "device"]),
        ((*R, "-D", "size=many"), ["size='many'", "a whole number"]),
        ((*R, "--limit", "0"), ["--limit 0", "1 or more"]),
        ((*R, "--limit", "x"), ["Invalid value for '--limit'"]),
        ((*R, "--batch-size", "0"), ["--batch-size 0"]),
        ((*R, "--max-failures", "2"), ["--max-failures 2.0", "0 to 1"]),
        ((*R, "--classes", "star,hart"), ["no class 'hart'", "Did you mean 'heart'"]),
        ((*R, "--classes", "star"), ["1 class (star)", "at least two"]),
        ((*R, "--split", "dev"), ["split='dev'", "test, train"]),
        ((*R, "--protocol", "closed-set", "--protocol", "open-world?map=x"), ["map='x'", "words, embedding"]),
        (("run", "--model", "pico:clip", "--data", "chart:shapes", "--protocol", "closed-set"),
         ["pico:clip can score", "supports: rank"]),
        (("run", "--model", "pico:clip", "--data", "chart:shapes", "--protocol", "rank?pmi=true"),
         ["needs an image in every request"]),
        (("run", "--data", "chart:shapes"), ["At least one --model is required"]),
        (("show", "nothing"), ["not a workspace"]),
        (("export", "@last"), ["not a workspace"]),
        (("ls", "everything"), ["'models', 'providers', 'datasets', 'protocols', 'runs'"]),
        (("ls", "runs", "--hub"), ["--hub lists models, not runs"]),
        (("ls", "runs", "--limit", "1"), ["--limit needs --hub"]),
        (("show", "@last", "--prompts", "-1"), ["greater than or equal to 1"]),
        (("ls", "protocols", "--hub"), ["--hub lists models"]),
        (("ls", "models", "--search", "x"), ["--search needs --hub"]),
        ((*R, "--protocol", "open-world?prompt="), ["the prompt is empty"]),
        ((*R, "--protocol", "open-world?min_similarity=nan"), ["-1 to 1"]),
        (("see",), ["No such command 'see'"]),
    ],
    ids=lambda value: " ".join(map(str, value))[-60:] if isinstance(value, tuple) else "",
)  # fmt: skip
def test_a_users_mistake_gets_one_sentence(snellen, arguments, said):
    code, out, err = snellen(*arguments)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    flat = " ".join(err.replace("│", " ").split())
    for words in said:
        assert words in flat, flat


def test_no_images_one_class_and_a_broken_image(snellen, tmp_path, photos):
    empty = tmp_path / "empty"
    (empty / "a").mkdir(parents=True)
    code, _, err = snellen("run", "--model", "pico:clip", "--protocol", "rank", "--data", f"folder:{empty}")
    assert (code, "no images in class folders" in err) == (2, True)
    one = tmp_path / "one"
    (one / "star").mkdir(parents=True)
    (one / "star" / "0.png").write_bytes((photos / "star" / "0.png").read_bytes())
    code, _, err = snellen("run", "--model", "pico:clip", "--protocol", "rank", "--data", f"folder:{one}")
    assert (code, "at least two" in err) == (2, True)
    (one / "ring").mkdir()
    (one / "ring" / "0.png").write_bytes(b"")
    code, _, err = snellen("run", "--model", "pico:clip", "--protocol", "rank", "--data", f"folder:{one}")
    assert (code, "ring/0.png: the file is empty" in err) == (2, True)


def test_results_that_cannot_be_written_are_refused_before_the_work(snellen, tmp_path, workspace):
    (tmp_path / "file").write_text("")
    code, _, err = snellen(*R, "--output", tmp_path / "file")
    assert (code, "not a writable folder" in err) == (2, True)
    assert not (workspace / "snellen.db").exists()


def test_bad_images_can_be_left_out(snellen, photos, tmp_path):
    import shutil

    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "star" / "9.png").write_bytes(b"broken")
    arguments = ("run", "--model", "pico:clip", "--protocol", "rank", "--data", f"folder:{folder}")
    code, _, err = snellen(*arguments)
    assert (code, "star/9.png" in err, "--skip-invalid" in err) == (2, True, True)
    code, out, _ = snellen(*arguments, "--skip-invalid")
    assert (code, "1 skipped" in out) == (0, True)


def test_what_is_skipped_is_told_everywhere(snellen, photos, tmp_path):
    import shutil

    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "star" / "9.png").write_bytes(b"broken")
    how = ("--model", "pico:clip", "--protocol", "rank", "--data", f"folder:{folder}", "--skip-invalid")
    assert snellen("run", *how, "--dry-run")[0] == 0
    assert snellen("run", *how, "--quiet")[0] == 0
    for words in (("show", "@last"), ("ls", "runs"), ("report", "@last", "--format", "markdown")):
        assert "1 skipped" in snellen(*words)[1]


def test_commands_that_are_told_can_be_pasted(snellen, tmp_path, monkeypatch):
    from snellen.models.classifier import Classifier

    def fail(self, requests):
        raise RuntimeError("the card fell off the bus")

    monkeypatch.setattr(Classifier, "classify", fail)
    where = tmp_path / "my ws"
    _, out, err = snellen(*R, "--quiet", "--workspace", where)
    look = out.rpartition("Details: snellen ")[2].strip()
    assert snellen(*shlex.split(look))[0] == 0
    monkeypatch.undo()
    monkeypatch.setenv("SNELLEN_WORKSPACE", str(tmp_path / "ws"))
    again = err.rpartition("Retry with: snellen ")[2].strip()
    assert snellen(*shlex.split(again), "--quiet")[0] == 0


def test_what_models_write_does_not_drive_the_terminal(snellen, monkeypatch):
    from snellen.models.classifier import Classifier

    def fail(self, requests):
        raise RuntimeError("\x1b[2J\x1b]0;gone\x07 [bold]x")

    monkeypatch.setattr(Classifier, "classify", fail)
    snellen(*R, "--quiet")
    _, out, _ = snellen("show", "@last")
    assert "\x1b" not in out
    assert "[bold]x" in out


def test_an_extra_that_is_not_installed(snellen, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = snellen(*R)
    assert code == 2
    assert "pip install 'snellen[local]'" in err


def test_samples_that_fail_make_the_exit_code_1(snellen, monkeypatch):
    from snellen.models.classifier import Classifier

    def fail(self, requests):
        raise RuntimeError("the card fell off the bus")

    monkeypatch.setattr(Classifier, "classify", fail)
    code, out, _ = snellen(*R, "--quiet")
    assert code == 1
    assert "4 error" in out
    code, out, _ = snellen("show", "@last")
    assert "the card fell off the bus" in out
    code, _, _ = snellen(*R, "--quiet", "--max-failures", "1")
    assert code == 0


def test_the_hub_out_of_reach(snellen):
    code, out, err = snellen("ls", "models", "--hub", "--search", "llava")
    assert code == 1
    assert "cannot be reached" in err
    code, _, err = snellen(
        "run", "--model", "hf:nobody/nothing", "--data", "chart:shapes", "--protocol", "rank"
    )
    assert code == 2
    assert "hf download nobody/nothing" in err


@pytest.mark.slow
def test_json_is_all_there_is_on_standard_output(workspace):
    """In a process of its own: nothing that a library prints gets in between."""
    command = [sys.executable, "-m", "snellen.cli", *R, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert set(json.loads(done.stdout)) == {"runs", "incompatible"}


def test_help_and_listings_load_nothing_heavy():
    heavy = "{'torch', 'transformers', 'pandas', 'numpy', 'scipy', 'sqlalchemy', 'PIL', 'datasets'}"
    code = f"""
import sys
from snellen import cli
sys.argv = ["snellen", "--help"]
try:
    cli.main()
except SystemExit:
    pass
print("HEAVY", sorted({heavy} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "HEAVY []" in done.stdout


def test_ctrl_c_says_how_to_go_on(snellen, monkeypatch):
    from snellen.models.classifier import Classifier

    def stop(self, requests):
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "answer", stop)
    code, _, err = snellen(*R)
    assert code == 130
    assert "Rerun the same command" in err


def test_model_text_is_data_in_the_terminal(snellen, tmp_path):
    """Class names that look like markup are shown as they are."""
    from PIL import Image

    for name in ("[red]cat[/red]", "[/]dog"):
        path = tmp_path / "odd" / name / "1.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(path)
    code, _, err = snellen(
        "run", "--model", "pico:clip", "--protocol", "rank", "-D", "level=leaf", "-D", "raw_names=true",
        "--data", f"folder:{tmp_path / 'odd'}",
    )  # fmt: skip
    assert code == 0, err
    assert "[red]cat[/red]" in snellen("show", "@last")[1]


@pytest.mark.slow
def test_demo(snellen, monkeypatch):
    monkeypatch.setattr(cli.evaluate, "DEMO_SAMPLES", 28)
    code, out, _ = snellen("demo", "--quiet")
    assert code == 0
    for model in ("pico:llava ", "pico:llava-skewed", "pico:clip", "pico:classifier"):
        assert model in out
    for protocol in ("closed-set", "binary", "rank"):
        assert protocol in out
    assert "folder:./photos" in out
