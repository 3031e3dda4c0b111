"""Runs that are gone on with, and what they take from memory."""

from __future__ import annotations

import shutil

import pytest

import snellen
from helpers import Scripted
from served_runs import DATA, by_question, examine, of
from snellen.errors import Stopped, UsageError
from snellen.runs.resume import plan_of
from snellen.runs.run import open_run
from snellen.storage.store import Store
from snellen.testing import Server, fault

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]


class TestResume:
    def test_a_run_of_all_options(self, workspace, photos):
        with Server(by_question) as server:
            found = snellen.run(
                model=f"openai:any?base_url={server.url}",
                model_options={"seed": "3"},
                data=photos,
                protocol="closed-set",
                protocol_options={"rounds": 2},
                classes=("star", "ring", "cup"),
                per_class=2,
                seed=4,
                shuffle=True,
            )
            asked = len(server.asked)
            plan = plan_of(Store(), found.id)
            assert plan.run()[0].id == found.id
            assert len(server.asked) == asked

    def test_a_fresh_run(self, workspace):
        stop = [True]

        def sometimes(number):
            return fault.status(401, "key") if stop[0] and number >= 56 + 10 else None

        with Server(by_question, faults=sometimes) as server:
            first = examine(server, protocol="closed-set?rounds=1")
            with pytest.raises(Stopped):
                examine(
                    server,
                    protocol="closed-set?rounds=1",
                    fresh=True,
                    model_options={"max_consecutive_failures": 3},
                )
            stopped = open_run()
            assert stopped.id != first.id
            stop[0] = False
            already = len(server.asked)
            again = plan_of(Store(), stopped.id).run()[0]
            assert again.id == stopped.id
            assert len(server.asked) - already == 56 - 10

    def test_what_changed_since_is_named(self, workspace, photos, tmp_path):
        folder = tmp_path / "photos"
        shutil.copytree(photos, folder)
        with Server(by_question) as server:
            found = snellen.run(model=of(server), data=folder, protocol="closed-set?rounds=1")
            (folder / "star" / "0.png").unlink()
            with pytest.raises(UsageError, match="Cannot resume .*: the data changed since"):
                plan_of(Store(), found.id).run()

    def test_what_was_begun_with_objects(self, workspace):
        found = snellen.run(model=Scripted(lambda r: "star"), data=DATA, protocol="closed-set?rounds=1")
        with pytest.raises(UsageError, match="was started from Python with objects"):
            plan_of(Store(), found.id)
