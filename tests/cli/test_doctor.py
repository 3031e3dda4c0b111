"""``snellen doctor``: enough for a bug report, and no secret."""

from __future__ import annotations

import json
from importlib import metadata

import pytest
from typer.testing import CliRunner

from snellen.cli import app
from snellen.reports import doctor as report

runner = CliRunner()


def test_it_says_what_is_there_and_hides_keys(workspace, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-0123456789")
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    told = runner.invoke(app, ["doctor"])
    assert told.exit_code == 0, told.output
    assert f"torch {metadata.version('torch')}" in told.output
    assert "cpu" in told.output
    assert "API keys set: openai" in told.output
    assert "sk-very" not in told.output
    assert "not a workspace" in told.output
    facts = json.loads(runner.invoke(app, ["doctor", "--json"]).output)
    assert facts["providers"]["openai"] is True
    assert facts["providers"]["gemini"] is False
    assert facts["extras"]["local"] == []


def test_missing_packages_are_named_with_the_command(monkeypatch):
    real = metadata.version

    def without(name):
        if name in ("peft", "torch"):
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", without)
    assert report.missing_packages("local") == ["torch"]
    assert set(report.missing_packages("tune")) == {
        "peft",
        "torch",
    }  # those of the extras that it includes, too
    lines = list(report.doctor_lines(report.doctor()))
    (tune,) = [line for line in lines if line.startswith("  tune: ")]
    assert "missing" in tune
    assert tune.endswith("(pip install 'snellen[tune]')")


@pytest.mark.parametrize("where", ["postgresql://me:hunter2@127.0.0.1:1/none"])
def test_a_workspace_that_cannot_be_opened_is_described(where):
    told = runner.invoke(app, ["doctor", "--workspace", where])
    assert told.exit_code == 0, told.output
    assert "refused" in told.output
    assert "hunter2" not in told.output
