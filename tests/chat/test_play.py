"""Talking with models: in the terminal, in the browser's pages; and pushing what was tuned to a Hub."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fakehub import environment, fake_hub
from helpers import PAYLOADS, Scripted, picture
from served import browser, served
from snellen.chat.conversation import MAX_TURNS, MOST, Playground, StreamingAnswer, continued
from snellen.cli import app
from snellen.datasets.shapes import draw, figure
from snellen.errors import BadOption, Conflict, ImageError, UnknownName, Unsupported, UsageError
from snellen.exchange.publish import check_address
from snellen.models.base import MODELS
from snellen.storage.store import Store
from snellen.types import Outcome, Response
from snellen.web.images import Uploads
from snellen.web.security import Policy, Rates
from snellen.web.state import AppState

runner = CliRunner()


@pytest.fixture
def star(tmp_path: Path) -> Path:
    path = tmp_path / "star.png"
    draw(figure("play", "star"), 96).save(path)
    return path


class Slow(Scripted):
    """Answers in two pieces, the second when it is let."""

    def __init__(self, name: str = "slow") -> None:
        super().__init__(lambda request: "", name)
        self.go = threading.Event()
        self.requests: list = []

    def stream(self, request):
        self.requests.append(request)
        yield "one "
        self.go.wait(20)
        yield "two"
        return Response("one two", completion_tokens=2)


class TestTerminal:
    def test_a_talk_with_two(self, star):
        words = f"chat pico:llava --with pico:llava-skewed --image {star}".split()
        done = runner.invoke(app, [*words, "--ask", "What type of object is in this photo?"])
        assert done.exit_code == 0, done.output
        assert "pico:llava:\nstar\n" in done.stdout
        assert "pico:llava-skewed:\n" in done.stdout

    def test_what_is_typed(self, star, tmp_path):
        typed = (
            f"What type of object is in this photo?\n/image {tmp_path}/no.png\n/what\n/forget\n\n/quit\nX\n"
        )
        done = runner.invoke(app, ["chat", "pico:llava", "--image", str(star)], input=typed)
        assert done.exit_code == 0
        assert done.stdout == "star\n"
        assert "no.png: cannot be read" in done.stderr
        assert "/forget" in done.stderr

    @pytest.mark.parametrize(
        ("words", "error"),
        [
            (["pico:clip"], Unsupported),
            (["pico:llava", "--image", "nowhere.png"], ImageError),
            (["pico:llava", "--max-tokens", "0"], BadOption),
        ],
    )
    def test_refusals(self, words, error):
        assert isinstance(runner.invoke(app, ["chat", *words]).exception, error)

    def test_a_terminal_is_not_obeyed_to_a_model(self, monkeypatch):
        from snellen.reports.tables import harmless

        assert harmless("a\x1b[31mb\r\n\tc\x07", "\n\t") == "a\ufffd[31mb\ufffd\n\tc\ufffd"

    def test_what_was_said_is_told_again(self):
        eye = picture()
        (message,) = continued([eye], [], "Is <image> odd?", 9).messages
        assert message.content == ("Is ", eye, " odd?")
        request = continued([], [("a?", "A."), ("b?", "")], "c?", 9)
        told = [(message.role, message.text) for message in request.messages]
        assert told == [("user", "a?"), ("assistant", "A."), ("user", "b?"), ("user", "c?")]


class TestGrowing:
    def test_watchers_see_all_of_it(self):
        growing, model = StreamingAnswer(), Slow()
        thread = threading.Thread(target=growing.take, args=(model.stream(None), lambda: False))
        thread.start()
        watcher = growing.watch(patience=0.05)
        assert next(watcher) == "one "
        assert next(watcher) == ""  # nothing came for a while
        late = growing.watch()
        assert next(late) == "one "
        model.go.set()
        assert "".join(watcher) == "two"
        assert "".join(late) == "two"
        thread.join()
        assert growing.response.completion_tokens == 2

    def test_a_failure_ends_it(self):
        def broken():
            yield "a"
            raise RuntimeError("out of luck")

        growing = StreamingAnswer()
        growing.take(broken(), lambda: False)
        assert growing.response.outcome is Outcome.ERROR
        assert "out of luck" in growing.response.reason
        assert "".join(growing.watch()) == "a"

    def test_it_is_stopped(self):
        growing = StreamingAnswer()
        growing.take((x for x in ["a", "b"]), lambda: bool(growing.text))  # type: ignore[arg-type]
        assert (growing.text, growing.response.outcome) == ("a", Outcome.TRUNCATED)


class TestPlayground:
    def test_a_talk(self, tmp_path):
        one, other = Slow("one"), Slow("other")
        play = Playground([one, other], image_path=Uploads(tmp_path).path)
        with play.open():
            talk = play.begin([], "First?")
            with pytest.raises(Conflict):
                play.ask(talk, "Second?")
            one.go.set()
            other.go.set()
            for growing in talk.turns[0].answers:
                assert "".join(growing.watch()) == "one two"
            play.ask(talk, "Second?")
            for growing in talk.turns[1].answers:
                list(growing.watch())
        assert [m.text for m in other.requests[1].messages] == ["First?", "one two", "Second?"]
        with pytest.raises(BadOption, match="empty"):
            play.ask(talk, "  ")
        with pytest.raises(BadOption, match="characters"):
            play.ask(talk, "x" * 5000)
        with pytest.raises(UnknownName):
            play.talk("nothing")

    def test_bounds(self, tmp_path):
        model = Scripted(lambda request: "yes", "m")
        play = Playground([model], image_path=Uploads(tmp_path).path)
        with play.open():
            talks = [play.begin([], f"{i}?") for i in range(MOST + 3)]
            with pytest.raises(UnknownName):
                play.talk(talks[0].id)
            last = play.talk(talks[-1].id)
            for _ in range(MAX_TURNS - 1):
                list(last.turns[-1].answers[0].watch())
                play.ask(last, "more?")
            list(last.turns[-1].answers[0].watch())
            with pytest.raises(BadOption, match="at most"):
                play.ask(last, "more?")
        with pytest.raises(Unsupported):
            Playground([MODELS.make("pico:clip")], image_path=Uploads(tmp_path).path)


@contextmanager
def playing(tmp_path: Path, models: list) -> Iterator[str]:
    store = Store(tmp_path / "ws")
    play = Playground(models, image_path=Uploads(store.folder).path, max_tokens=16)
    with served(
        AppState(store, Policy(), None, Rates(dict.fromkeys(Rates().limits, (999, 999))), play)
    ) as address:
        yield address


class TestPages:
    def test_ask_and_see(self, tmp_path, star):
        models = [MODELS.make("pico:llava"), MODELS.make("pico:llava-skewed")]
        with playing(tmp_path, models) as address, browser(address) as client:
            assert "Play" in client.get("/").text  # in the navigation
            first = client.get("/play")
            assert "llava-skewed" in first.text
            begun = client.post(
                "/play",
                data={"question": "What type of object is in this photo?"},
                files={"file": ("x.png", star.read_bytes(), "image/png")},
            )
            here = begun.url.path
            streamed = client.get(f"{here}/answers/0/0").text.replace("\u200b", "")
            assert streamed == "star"
            client.get(f"{here}/answers/0/1")
            page = client.get(here).text
            assert page.count('class="said"') == 2
            assert "data-stream" not in page
            assert client.get(f"{here}/image").headers["content-type"] == "image/png"
            for wrong in (f"{here}/answers/0/2", f"{here}/answers/9/0", "/play/nothing"):
                assert client.get(wrong).status_code == 404

    def test_it_comes_as_it_is_written(self, tmp_path):
        model = Slow()
        with playing(tmp_path, [model]) as address, browser(address) as client:
            here = client.post("/play", data={"question": "Well?"}).url.path
            with client.stream("GET", f"{here}/answers/0/0") as reply:
                pieces = reply.iter_text()
                assert next(pieces) == "one "  # while the second is not written yet
                assert "data-stream" in client.get(here).text
                again = client.post(here, data={"question": "More?"})  # sent too early
                assert again.url.path == here
                assert again.text.count('class="asked"') == 1
                model.go.set()
                assert "".join(pieces) == "two"

    def test_refusals(self, tmp_path):
        with playing(tmp_path, [Scripted(lambda request: "x", "m")]) as address, browser(address) as client:
            assert client.post("/play", data={"question": " "}).status_code == 400
            bad = client.post("/play", data={"question": "q"}, files={"file": ("x.png", b"no", "image/png")})
            assert bad.status_code == 400
            assert "not a readable image" in bad.text
            assert ">q</textarea>" in bad.text  # what was typed is kept
            here = client.post("/play", data={"question": "q"}).url.path
            assert client.get(f"{here}/image").status_code == 404
        with served(AppState(Store(tmp_path / "other"), Policy())) as address, browser(address) as client:
            assert "snellen play MODEL" in client.get("/play").text

    def test_what_models_say_is_inert(self, tmp_path):

        for payload in PAYLOADS[:4]:
            model = Scripted(lambda request, payload=payload: payload, f"m{payload}")  # type: ignore[misc]
            with playing(tmp_path, [model]) as address, browser(address) as client:
                here = client.post("/play", data={"question": payload}).url.path
                client.get(f"{here}/answers/0/0")
                page = client.get(here).text
                assert not re.search(
                    r"<script>alert|<img src=x|onerror=alert\(1\)>|javascript:alert", page
                ), payload

    @pytest.mark.slow
    @pytest.mark.exhaustive
    def test_the_command(self, tmp_path):
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "snellen", "play", "pico:llava", "--port", "0"),
                *("--workspace", str(tmp_path / "ws")),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            address = ""
            for _ in range(20):
                line = process.stderr.readline()
                if "/play" in line:
                    address = line.split()[0]
                    break
            with browser(address.removesuffix("/play")) as client:
                assert client.get("/play").status_code == 200
        finally:
            process.terminate()
            process.communicate(timeout=20)


@pytest.fixture
def hub() -> Iterator[tuple[str, dict]]:
    with fake_hub() as found:
        yield found


class TestPush:
    def push(self, address: str, tmp_path: Path, key: str | None) -> subprocess.CompletedProcess[str]:
        env = environment(address, tmp_path, key)
        script = "from pathlib import Path; import sys; from snellen.exchange.publish import publish\n"
        script += "from snellen.errors import SnellenError\n"
        script += "try: print(publish(Path(sys.argv[1]), 'org/name'))\n"
        script += "except SnellenError as error: print(type(error).__name__, error)\n"
        return subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "out")],
            capture_output=True,
            text=True,
            timeout=120,
            env=env,
        )

    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        out = tmp_path / "out"
        (out / "checkpoints" / "lora" / "checkpoint-1").mkdir(parents=True)
        (out / "checkpoints" / "lora" / "checkpoint-1" / "optimizer.pt").write_bytes(b"x")
        (out / "adapter_model.safetensors").write_bytes(b"weights")
        (out / "README.md").write_text("---\nlibrary_name: peft\n---\n# it\n")
        (out / "tuning.yaml").write_text("model: pico:llava\n")
        return out

    def test_what_arrives(self, hub, folder, tmp_path):
        address, state = hub
        done = self.push(address, tmp_path, "hf_right")
        assert f"{address}/org/name" in done.stdout, done.stderr
        assert state["created"]["visibility"] == "private"
        assert list(state["lfs"].values()) == [b"weights"]
        paths = {row["value"]["path"] for row in state["commit"] if row["key"] in ("file", "lfsFile")}
        assert paths == {"README.md", "tuning.yaml", "adapter_model.safetensors"}
        assert "hf_right" not in done.stdout + done.stderr

    def test_a_wrong_key_or_none(self, hub, folder, tmp_path):
        for key in ("hf_wrong", None):
            done = self.push(hub[0], tmp_path, key)
            assert done.stdout.startswith("UsageError"), done.stdout + done.stderr
            assert "hf auth login" in done.stdout
            assert f"hf upload org/name {folder}" in done.stdout

    def test_nobody_there(self, folder, tmp_path):
        done = self.push("http://127.0.0.1:9", tmp_path, "hf_right")
        assert done.stdout.startswith("Stopped"), done.stdout + done.stderr
        assert "cannot be reached" in done.stdout

    def test_what_everybody_sees_is_left_alone(self, hub, folder, tmp_path):
        address, state = hub
        state["private"] = False
        done = self.push(address, tmp_path, "hf_right")
        assert done.stdout.startswith("UsageError"), done.stdout + done.stderr
        assert "already exists and is public" in done.stdout
        assert "commit" not in state

    def test_names(self, monkeypatch):
        import huggingface_hub

        monkeypatch.setattr(huggingface_hub.HfApi, "whoami", lambda self: {"name": "me"})
        check_address("org/name")
        for wrong in ("name", "a/b/c", "org/na me", "/x"):
            with pytest.raises(UsageError, match="ORG/NAME"):
                check_address(wrong)


def test_nothing_waits_for_ever(tmp_path):
    """A server that ends while an answer is written does not hang."""
    model = Slow()
    began = time.monotonic()
    with playing(tmp_path, [model]) as address, browser(address) as client:
        client.post("/play", data={"question": "Well?"})
        model.go.set()
    assert time.monotonic() - began < 20
