"""The docs are true to the code."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import snellen
from snellen import cli
from snellen.errors import BadOption
from snellen.models.base import MODELS
from snellen.models.remote.providers import PROVIDERS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[str]:
    lines = []
    for page in PAGES:
        joined = page.read_text(encoding="utf-8").replace("\\\n", " ")
        lines += [line for line in joined.splitlines() if line.startswith("snellen ")]
    return lines


def test_every_command_line_parses():
    command = typer.main.get_command(cli.app)
    assert len(commands()) > 15
    for line in commands():
        words = shlex.split(line, comments=True)[1:]
        sub = command.commands[words[0]]  # type: ignore[attr-defined]
        sub.make_context(words[0], words[1:])


#: What takes the Hub, a key, or a server.
AFAR = ("hf:", "clip:", *(f"{scheme}:" for scheme in PROVIDERS), "vllm-local:", "endpoint:")


def runs_offline(line: str) -> bool:
    afar = any(scheme in line.replace("pico:clip", "") for scheme in AFAR)
    return line.startswith("snellen run") and not afar and "--engine" not in line  # see test_ray


def a_benchmark() -> str:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    return re.findall(r"```yaml\n(title: My.*?)```", text, flags=re.S)[0]


@pytest.mark.parametrize("line", [line for line in commands() if runs_offline(line)])
def test_what_needs_no_network_runs(line, workspace, monkeypatch, tmp_path, photos, capsys):
    """On small data of the names that the docs use."""
    for name in ("photos", "caltech256"):
        (tmp_path / name).symlink_to(photos)
    rows = [
        {"image": f"photos/{p.parent.name}/{p.name}", "label": p.parent.name, "person": p.parent.name}
        for p in photos.rglob("0.*")
    ]
    (tmp_path / "photos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = line.replace("jsonl:./photos.jsonl", "jsonl:./photos.jsonl -D allow_outside=true")
    (tmp_path / "names.json").write_text('{"star": ["asterisk"]}')
    (tmp_path / "names.csv").write_text("".join(f"{p.name},{p.name}\n" for p in photos.iterdir()))
    line = line.replace("background=clutter", "background=cup")
    (tmp_path / "run.yaml").write_text("data: [chart:shapes]\nprotocols: [rank]\n")
    (tmp_path / "labels.json").write_text('{"corrections": []}')
    (tmp_path / "mine.yaml").write_text(a_benchmark())
    (tmp_path / "mine").mkdir()
    row = {"picture": "star.png", "ask": "What?", "options": ["a star", "a key"], "right": "A"}
    (tmp_path / "mine" / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "mine" / "star.png").write_bytes((photos / "star" / "0.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    few = [] if "--limit" in line else ["--limit", "8"]
    line = re.sub(r"--limit \d+", "--limit 8", line)
    monkeypatch.setattr("sys.argv", [*shlex.split(line, comments=True), *few, "--quiet"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    assert "outcomes" in capsys.readouterr().out


OTHERS = [line for line in commands() if not line.startswith("snellen run")]
#: What asks the Hub, or stands for a run of the reader's own.
ELSEWHERE = ("--hub", "RUN", "snellen report", "mine.yaml", "snellen suite run charts")
#: What serves until it is interrupted (see tests/web).
#: What takes a file of the reader's own.
TAKES = ("snellen import", "snellen push", "--image")
SERVES = ("snellen view", "snellen arena", "snellen play")


def test_all_other_commands_run_too(workspace, monkeypatch, tmp_path, photos, capsys):
    """Over runs of the names that the docs use, the last one being of ``rank``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    for model, protocol in (("llava", "closed-set"), ("llava-skewed", "closed-set"), ("clip", "rank")):
        snellen.run(model=f"pico:{model}", data="chart:shapes", protocol=protocol, limit=28)
    lines = [
        line for line in OTHERS if not any(word in line for word in (*ELSEWHERE, *AFAR, *SERVES, *TAKES))
    ]
    # Fewer pictures than a reader would take, and none of their runs among those that lines name.
    few = f"--limit 8 --workspace {tmp_path / 'eyes'}"
    lines = [f"{line} {few}" if line.startswith("snellen eye-test") else line for line in lines]
    lines = [line.replace("n=112", "n=28").replace("size,blur,contrast", "size,blur") for line in lines]
    some = f"--limit 14 --only cot,confusions --workspace {tmp_path / 'diagnosis'}"
    lines = [f"{line} {some}" if line.startswith("snellen diagnose") else line for line in lines]
    quick = f"--limit 7 --train-limit 28 -T max_steps=2 --workspace {tmp_path / 'tuning'}"
    lines = [f"{line} {quick}" if line.startswith("snellen tune") else line for line in lines]
    lines = [line.replace("n=2000", "n=28") for line in lines]
    assert len(lines) > 8
    # A rescored run's name starts like its source's, which other lines name.
    lines.sort(key=lambda line: line.startswith("snellen rescore"))
    snellen.run(
        model="pico:clip", data="chart:shapes", protocol="rank", limit=28, workspace=tmp_path / "elsewhere"
    )
    for line in lines:
        monkeypatch.setattr("sys.argv", shlex.split(line, comments=True))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code, (line, capsys.readouterr().err)
        if not line.startswith("snellen rescore"):
            snellen.run(model="pico:clip", data="chart:shapes", protocol="rank", limit=28)


#: Pages that name the runs that they made, or that another page made.
IN_A_ROW = ["quickstart.md", "tutorial.md", "reports.md", "models.md", "metrics.md"]


@pytest.mark.parametrize(
    "pages",
    [IN_A_ROW, pytest.param([*reversed(IN_A_ROW[:-1]), "metrics.md"], marks=pytest.mark.exhaustive)],
    ids=["on", "back"],
)
def test_pages_can_be_tried_in_one_workspace_in_any_order(
    pages, workspace, monkeypatch, tmp_path, photos, capsys
):
    (tmp_path / "photos").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    ran = 0
    for page in pages:
        for line in (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines():
            offline = line.startswith("snellen ") and not any(word in line for word in (*AFAR, "RUN", *TAKES))
            if not offline or "replay:" in line or "# or" in line:
                continue
            line = re.sub(
                r"--limit \d+|n=1\d\d", lambda found: "n=14" if "n=" in found[0] else "--limit 14", line
            )
            monkeypatch.setattr("sys.argv", shlex.split(line, comments=True))
            with pytest.raises(SystemExit) as stop:
                cli.main()
            assert not stop.value.code, (page, line, capsys.readouterr().err)
            ran += 1
    assert ran > 20


def test_the_report_page_s_commands_run_in_a_row(workspace, monkeypatch, tmp_path, capsys):
    text = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("snellen ")]
    assert len(lines) == 3
    monkeypatch.chdir(tmp_path)
    for line in lines:
        monkeypatch.setattr("sys.argv", shlex.split(line.replace("140", "28")))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert not stop.value.code
    assert (tmp_path / "report.html").stat().st_size > 20_000


def blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.S)


def test_the_plug_ins_of_the_architecture_page_work(workspace):
    for number, code in enumerate(blocks("architecture.md")):
        exec(compile(code, f"block {number}", "exec"), {})
    found = snellen.run(
        model="parrot:yes?loud=true", data="chart:shapes", protocol="is-it-there", per_class=1
    )
    assert found.metrics["accuracy"].value == 1
    assert set(found.predictions["answers"].str[0]) == {"YES"}
    with pytest.raises(BadOption, match="The model 'parrot': write parrot:WORD"):
        MODELS.make("parrot")


def test_the_python_of_the_readme_runs(workspace, photos, tmp_path, monkeypatch):
    (tmp_path / "photos").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    names: dict[str, Any] = {}
    exec(compile(code, "readme", "exec"), names)
    assert sum(names["run"].metrics.outcomes.values()) == 20
    assert names["comparison"].real in (True, False)


def test_every_page_is_in_the_navigation_of_the_site():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/-]+\.md", text[text.index("nav:") :]))
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert pages <= named
    assert yaml.safe_load(text)["strict"] is True


def test_every_promise_of_reliability_and_security_has_its_test():
    there = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for page in ("reliability.md", "security.md"):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        named = set(re.findall(r"`(test_\w+)`", text))
        assert len(named) >= 10
        for name in named:
            assert f"def {name}(" in there, f"{page}: {name}"


def test_the_suite_of_the_docs_runs(workspace, monkeypatch, tmp_path, photos, capsys):
    (text,) = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs" / "suites.md").read_text(encoding="utf-8"), flags=re.S
    )
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "photos").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["snellen", "suite", "run", "./mine.yaml", "--limit", "4", "--quiet"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    out = capsys.readouterr().out
    assert "90.0 | " in out
    assert "the dual encoder sees more" in out


def test_the_server_that_errs_on_demand(workspace, capsys):
    (code,) = blocks("reliability.md")
    exec(compile(code, "reliability", "exec"), {})
    assert (
        capsys.readouterr().out.split()
        == "{'ok': 5, 'unparsed': 0, 'refused': 0, 'truncated': 0, 'error': 0} 28".split()
    )


def test_links_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_public_name_is_there_and_explained():
    for name in snellen.__all__:
        value = getattr(snellen, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name


def test_the_page_on_scale_is_right_in_itself():
    """Its manifest, its script and the commands in them can be read; its sums are those of its tokens."""
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    manifest = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text, flags=re.S)[0])
    assert manifest["kind"] == "RayJob"
    (script,) = re.findall(r"```bash\n(.*?)```", text, flags=re.S)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    within = re.findall("snellen run.*", script.replace("\\\n", " "))[0]
    for line in (manifest["spec"]["entrypoint"], within):
        typer.main.get_command(cli.app).commands["run"].make_context("run", shlex.split(line)[2:])  # type: ignore[attr-defined]
    rows = re.findall(r"\| ([\d,.]+) \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \| (\d+) \| (\d+) \|", text)
    assert len(rows) == 6
    for _, once, apart, hours, dollars, worse in rows:
        taken, more = (float(n.replace(",", "")) * 14e9 * 50_000 / 400e12 / 3600 for n in (once, apart))
        assert float(hours) == round(taken, 1)
        assert int(dollars) == pytest.approx(taken * 2.5, abs=0.51)
        assert int(worse) == pytest.approx(more * 2.5, abs=0.51)
