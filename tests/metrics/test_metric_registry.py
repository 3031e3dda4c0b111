"""The registry of metrics, and the example of the documentation, done as it says."""

from __future__ import annotations

import re
import sys
from importlib.metadata import EntryPoint

import pytest
from PIL import Image as pillow

from helpers import ROOT, Scripted
from snellen.api import run
from snellen.errors import UnknownName
from snellen.metrics.format import heading_of, scored, with_interval
from snellen.metrics.registry import METRICS, Metric, Metrics
from snellen.storage.manifest import Figure

DOCS = ROOT / "docs/metrics.md"


def test_directions_ranges_and_headings():
    assert METRICS["words"].higher_is_better is False
    assert (METRICS["cider"].high, METRICS["cider"].title) == (10.0, "cider")
    assert METRICS["similarity"].low == -1.0
    assert heading_of("macro_f1") == "macro F1 %"
    assert heading_of("top5") == "top-5 %"
    assert scored("words", 12.34) == "12.3"
    assert with_interval("accuracy", Figure(value=0.5)) == "50.0"
    assert with_interval("accuracy", None) == "–"


def test_a_name_that_nobody_registered_is_a_share():
    assert METRICS["my_score"] == Metric(name="my_score", heading="my score")
    assert METRICS["my_score"].is_share


def test_an_option_that_is_not_there_names_those_that_are():
    with pytest.raises(UnknownName, match=r"metric='relax' is not allowed. Did you mean 'relaxed'\?.*anls"):
        METRICS.by_option("vqa", "relax")


def test_what_the_docs_show(tmp_path, workspace, monkeypatch):
    text = DOCS.read_text(encoding="utf-8")
    code = re.search(r"```python\n# within.py\n(.*?)```", text, re.DOTALL)
    (tmp_path / "within.py").write_text(code[1])
    monkeypatch.syspath_prepend(tmp_path)
    entry = re.search(r"^(\w+) = \"(\w+)\"$", text, re.MULTILINE)
    points = [EntryPoint(entry[1], entry[2], "snellen.metrics")]
    monkeypatch.setattr(
        "snellen.registry.entry_points", lambda group: points if group == "snellen.metrics" else []
    )
    fresh = Metrics()
    for name in METRICS:
        fresh.add(METRICS[name])
    monkeypatch.setattr("snellen.metrics.registry.METRICS", fresh)
    monkeypatch.setattr("snellen.protocols.vqa.METRICS", fresh)
    try:
        assert "within_ten" in fresh.options("vqa")
        pillow.new("RGB", (8, 8)).save(tmp_path / "a.png")
        row = '{"image": "a.png", "question": "How many?", "answer": "20"}\n'
        (tmp_path / "rows.jsonl").write_text(row)
        found = run(
            model=Scripted(lambda request: "21", "m"),
            data=f"jsonl:{tmp_path / 'rows.jsonl'}",
            data_options={"question": "question", "reference": "answer"},
            protocol="vqa?metric=within_ten",
        )
        assert found.primary == "within_ten"
        assert found.metrics["within_ten"].value == 1.0
        assert fresh["within_ten"].title == "within ten %"
    finally:
        sys.modules.pop("within", None)
