"""Reports: figures recounted, text of models inert, nothing loaded from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from PIL import Image as pillow

from helpers import Scripted, text_of
from snellen.api import run
from snellen.errors import UsageError
from snellen.reports import page
from snellen.runs.run import open_run

PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "</pre></details><iframe src=//evil.example>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "| a | b |\n[x](javascript:alert(1))",
]


class Tags(HTMLParser):
    """Collects tags and their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


@pytest.fixture
def runs(workspace, tmp_path):
    """Two runs over classes and answers that are full of markup."""
    folder = tmp_path / "odd"
    for i, name in enumerate(["<b>bold</b>", "a & b", "plain|pipe"]):
        for j in range(4):
            path = folder / name.replace("/", "∕") / f"{j}<i>.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pillow.new("RGB", (20, 20), (i * 80, j * 60, 9)).save(path)

    def script(request):
        number = int(request.images[0].sha256[:4], 16)
        names = text_of(request).partition("{")[2].partition("}")[0].split(", ")
        return names[number % 3] if number % 5 else PAYLOADS[number % len(PAYLOADS)]

    kwargs: dict[str, Any] = {
        "data": f"folder:{folder}",
        "data_options": {"raw_names": True},
        "protocol": "closed-set?rounds=1",
    }
    return [run(model=Scripted(script, name), **kwargs) for name in ("<u>one</u>", "two")]


def test_markup_of_others_stays_text(runs):
    text = page.html(runs)
    tags = Tags(text).tags
    assert not {tag for tag, _ in tags} & {"script", "iframe", "b", "u", "i", "link", "object", "form"}
    for tag, attributes in tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/jpeg;base64,", "#")), (tag, value)
    assert "&lt;script&gt;" in text or "&lt;img" in text or "&lt;svg" in text
    assert "{{ 7" in text or "49" not in re.findall(r"<pre>→ ([^<]*)</pre>", text)


def test_nothing_is_loaded_from_elsewhere(runs):
    text = page.html(runs)
    assert "default-src 'none'" in text
    without_text = re.sub(r"<pre>.*?</pre>", "", text, flags=re.S)
    assert "http" not in without_text.replace("http-equiv", "")
    assert "@import" not in text
    assert "url(" not in text


def test_figures_are_those_of_the_runs(runs):
    text = page.html(runs)
    for one in runs:
        accuracy = one.metrics["accuracy"]
        assert f"{100 * accuracy.value:.1f}" in text
        assert one.id in text
        frame = one.predictions
        wrong = int(((frame["prediction"] != frame["label"]) & (frame["outcome"] == "ok")).sum())
        if wrong:
            assert f"wrong ({wrong})" in text
        right = int((frame["prediction"] == frame["label"]).sum())
        assert f"right ({right})" in text
    assert len(re.findall(r"data:image/jpeg;base64,", text)) >= 6


def test_markdown(runs):
    text = page.markdown(runs)
    for one in runs:
        assert one.id in text
        assert f"{100 * one.metrics['macro_f1'].value:.1f}" in text
    assert "\\<b\\>bold" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for line in rows:
        assert len(re.findall(r"(?<!\\)\|", line)) in (9, 6, 4)


def test_what_is_not_finished_is_refused(workspace):
    def stop(request):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model=Scripted(stop), data="chart:shapes?n=4", protocol="closed-set")
    with pytest.raises(UsageError, match="no results yet .interrupted"):
        page.html([open_run()])


def test_the_command(workspace, monkeypatch, capsys, tmp_path):
    from snellen import cli

    def snellen(*arguments):
        monkeypatch.setattr("sys.argv", ["snellen", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    for model in ("pico:clip", "pico:classifier"):
        snellen("run", "--model", model, "--data", "chart:shapes", "--protocol", "rank", "--limit", 28)
    assert snellen("report", "clip", "classifier", "-o", tmp_path / "r.html")[0] == 0
    text = (tmp_path / "r.html").read_text()
    assert "items per second" in text
    assert "(no prompt)" in text
    assert snellen("report", "clip", "-o", tmp_path / "r.md")[0] == 0
    assert (tmp_path / "r.md").read_text().startswith("# Report: chart:shapes")
    code, out, _ = snellen("report", "clip", "--format", "markdown")
    assert (code, "## pico:clip, rank" in out) == (0, True)
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    code, _, err = snellen("report", "clip", "-o", tmp_path / "x.html")
    assert (code, "snellen[report]" in err) == (2, True)


class TestUnread:
    """A figure of which more than a third of the answers could not be read is marked everywhere."""

    @pytest.fixture
    def unread(self, workspace, photos):
        return run(
            model=Scripted(lambda request: "no idea" if int(request.images[0].sha256, 16) % 4 else "red"),
            data=f"folder:{photos}",
            protocol="closed-set?rounds=1",
            workspace=workspace,
        )

    def test_the_mark_and_what_it_means(self, unread):
        from snellen.exchange import tables as exported
        from snellen.reports.leaderboard import leaderboards
        from snellen.reports.tables import plainly

        outcomes = unread.metrics.outcomes
        assert outcomes["unparsed"] > unread.metrics.n / 3
        assert plainly("accuracy", unread.metrics).partition(" ")[0].endswith("!")
        (table,) = leaderboards([unread])
        assert "more than a third of the answers could not be read" in str(table.caption)
        for text in (page.html([unread]), page.markdown([unread])):
            assert "more than a third of the answers could not be read" in text
            assert re.search(r"\d!", text)
        assert re.search(r"\d! \|", exported.markdown([unread]))

    def test_too_few_images_per_class_are_named(self, workspace, photos):
        few = run(
            model=Scripted(lambda _: "red"),
            data=f"folder:{photos}",
            protocol="closed-set?rounds=1",
            per_class=2,
            workspace=workspace,
        )
        from snellen.reports.tables import plainly

        assert plainly("macro_f1", few.metrics).endswith(" too few per class")
        assert "too few" not in plainly("accuracy", few.metrics)


def test_reports_of_many_classes_stay_short(workspace):
    found = run(model="pico:clip", data="chart:shapes?n=112", workspace=workspace)
    text = page.html([found])
    first, rest = text.split("<details><summary>The other 8 of 28 classes", 1)
    assert first.partition("<h3>Classes</h3>")[2].count("<tr>") == 1 + 20
    assert rest.partition("</details>")[0].count("<tr>") == 1 + 8
    plain = page.markdown([found])
    assert "The 20 lowest of 28 classes." in plain
    from snellen.reports.tables import class_table

    table = class_table(found.predictions)
    assert table.row_count == 20
    assert "20 of 28 classes" in str(table.caption)
