"""Keys and addresses: never stored, never printed, never followed."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

import snellen
from served_runs import by_question, command, examine, of
from snellen import cli
from snellen._util.redaction import guard, redact
from snellen.errors import BadOption, Stopped, UsageError
from snellen.runs.resume import plan_of
from snellen.runs.run import open_run
from snellen.storage.store import Store
from snellen.testing import Server, completion, fault

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("impatient")]


class TestSecrets:
    KEY = "planted-0123456789abcdef"

    def everything_under(self, folder):
        return b"".join(path.read_bytes() for path in Path(folder).rglob("*") if path.is_file())

    def test_a_planted_key_is_nowhere(self, workspace, tmp_path, monkeypatch, capfd, caplog):
        """Not in the store, in reports, exports, logs or messages, though the server sends it back: in
        answers, refusals, thinking, errors, headers and addresses."""
        monkeypatch.setenv("MY_KEY", self.KEY)
        caplog.set_level(logging.DEBUG)

        def echo(asked):
            key = asked.headers["Authorization"].split()[-1]
            if asked.number % 4 == 0:
                text = f"{key} {by_question(asked)}"
                return completion(text, reasoning_content=f"the key is {key}", finish=key, model=f"m {key}")
            if asked.number % 4 == 1:
                return completion(None, refusal=f"not with {key}")
            return by_question(asked)

        def errs(number):
            return fault.status(400, f"Incorrect API key provided: {self.KEY}") if number % 4 == 3 else None

        with Server(echo, faults=errs) as server:
            words = command(server, workspace, options="&api_key_env=MY_KEY")[3:]
            monkeypatch.setattr("sys.argv", ["snellen", *words])
            with pytest.raises(SystemExit):
                cli.main()
            for more in (
                ["report", "@last", "-o", str(tmp_path / "r.html")],
                ["export", "@last", "-o", str(tmp_path / "r.jsonl")],
                ["show", "@last", "--prompts", "3"],
                ["show", "@last", "--json"],
            ):
                monkeypatch.setattr("sys.argv", ["snellen", *more])
                with pytest.raises(SystemExit):
                    cli.main()
        assert all(asked.headers["Authorization"] == f"Bearer {self.KEY}" for asked in server.asked)
        assert self.KEY.encode() not in self.everything_under(tmp_path)
        assert b"[redacted]" in self.everything_under(workspace)
        assert self.KEY not in "".join(capfd.readouterr())
        assert self.KEY not in caplog.text
        found = open_run()
        assert found.metrics.outcomes["error"] > 0
        assert "[redacted]" in found.first_error()

    def test_a_key_in_an_exception(self, workspace, monkeypatch, capsys):
        monkeypatch.setenv("MY_KEY", self.KEY)
        guard(self.KEY)

        def fail(*_, **__):
            raise BadOption(f"no such thing as {self.KEY} at https://me:{self.KEY}@example.com/v1")

        monkeypatch.setattr("snellen.runs.plan.Plan.__post_init__", fail)
        monkeypatch.setattr("sys.argv", ["snellen", "run", "--model", "x", "--data", "y", "--protocol", "z"])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 2
        assert self.KEY not in "".join(capsys.readouterr())

    @pytest.mark.parametrize("key", ["none", "EMPTY", "ollama", "not-needed", "lm-studio"])
    def test_what_servers_of_ones_own_take_for_a_key_changes_no_answer(self, workspace, monkeypatch, key):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with Server(lambda asked: f"It is {key} of these; a star.") as server:
            found = examine(server, protocol="closed-set?rounds=1", limit=2)
        assert set(found.predictions["answers"].str[0]) == {f"It is {key} of these; a star."}
        assert plan_of(Store(), found.id)

    @pytest.mark.parametrize(
        "address", ["postgresql+psycopg://me:hunter22@127.0.0.1:1/x", "mysql://me:hunter22@127.0.0.1/x"]
    )
    def test_a_database_s_password_is_never_shown(self, tmp_path, monkeypatch, capsys, address):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["snellen", "ls", "runs", "--workspace", address])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code in (1, 2)
        assert "hunter22" not in "".join(capsys.readouterr())
        assert not any("hunter22" in str(path) for path in tmp_path.rglob("*"))

    @pytest.mark.parametrize(
        "text",
        [
            "https://user:hunter2hunter2@example.com/v1",
            "Authorization: Bearer hunter2hunter2",
            "sk-hunter2hunter2hunter2",
            "hf_hunter2hunter2hunter2",
            "https://example.com/?api_key=hunter2hunter2&x=1",
            "password=hunter2hunter2",
        ],
    )
    def test_what_looks_like_a_secret(self, text):
        assert "hunter2" not in redact(text)

    @pytest.mark.parametrize(
        "text", ["hf-internal-testing/tiny-random-LlavaForConditionalGeneration", "a@b.c", "sk-8", "tokens=5"]
    )
    def test_what_does_not(self, text):
        assert redact(text) == text

    def test_no_address_in_data_or_answers_is_fetched(self, workspace, tmp_path):
        """A row whose image is an address is refused, and an answer that is one is text."""
        with Server(lambda asked: f"see http://127.0.0.1:{server.port}/secret.png") as server:
            (tmp_path / "rows.jsonl").write_text(
                json.dumps({"image": f"{server.url}/x.png", "label": "star"}) + "\n"
            )
            with pytest.raises(UsageError):
                snellen.run(model=of(server), data=f"jsonl:{tmp_path / 'rows.jsonl'}", protocol="closed-set")
            assert server.asked == []
            examine(server, protocol="closed-set?rounds=1", limit=3)
            assert {asked.path for asked in server.asked} == {"/v1/chat/completions"}

    def test_redirections_are_not_followed(self, workspace):
        with Server() as elsewhere, Server(faults=lambda _: redirect(elsewhere.url)) as server:
            with pytest.raises(Stopped, match="redirects to http://127.0.0.1"):
                examine(server)
            assert elsewhere.asked == []


def redirect(where):
    async def go(_):
        from aiohttp import web

        return web.Response(status=307, headers={"Location": f"{where}/chat/completions"})

    return go
