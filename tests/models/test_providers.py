"""Names of hosted models, their providers, addresses and prices."""

from __future__ import annotations

import io
import json
import shlex
import sys

import pytest
from PIL import Image as pillow

import snellen
from asking import answers, model_at, question
from snellen.errors import BadOption, MissingExtra, ModelError, Stopped, Unsupported
from snellen.images import Image, encode
from snellen.models.base import MODELS, Limits
from snellen.models.remote.prices import Prices
from snellen.models.remote.providers import PROVIDERS
from snellen.runs.plan import Plan
from snellen.testing import Server, fault
from snellen.types import Kind, Outcome, ask

pytestmark = pytest.mark.usefixtures("impatient")


class TestNames:
    def test_shorthands_are_addresses_and_keys(self, monkeypatch):
        for scheme, provider in PROVIDERS.items():
            monkeypatch.setenv(provider.key, "planted-key-0000")
            own = {} if provider.address else {"base_url": "https://x.openai.azure.com/openai/v1"}
            model = MODELS.make(f"{scheme}:some/model", own)
            assert model.identity()["address"] == provider.address or own["base_url"]
            assert model.name == f"{scheme}:some/model"
            model.check()

    def test_the_key_goes_to_the_server_and_nowhere_else(self, monkeypatch):
        monkeypatch.setenv("MY_KEY", "planted-key-1234")
        with Server() as server:
            answers(model_at(server, api_key_env="MY_KEY"), question())
        assert server.asked[0].headers["Authorization"] == "Bearer planted-key-1234"

    def test_who_pays_is_told_to_openai_alone(self, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "planted-key-1234")
        monkeypatch.setenv("OPENAI_ORG_ID", "planted-team")
        with Server() as server:
            answers(model_at(server), question())
            monkeypatch.setitem(PROVIDERS, "openai", PROVIDERS["openai"]._replace(address=server.url))
            answers(MODELS.make("openai:x"), question())
        sent = [asked.headers.get("OpenAI-Organization") for asked in server.asked]
        assert sent == [None, "planted-team"]

    def test_headers_come_from_the_environment(self, monkeypatch):
        monkeypatch.setenv("MY_TOKEN", "planted-token-99")
        with Server() as server:
            model = model_at(server, **{"header.X-Team": "MY_TOKEN", "header.api-key": "MY_TOKEN"})
            answers(model, question())
            assert "planted" not in json.dumps(dict(model.identity()))
        assert server.asked[0].headers["X-Team"] == "planted-token-99"
        assert server.asked[0].headers["api-key"] == "planted-token-99"
        with pytest.raises(ModelError, match="export NO_SUCH_TOKEN"):
            MODELS.make("openai:x?header.X-Team=NO_SUCH_TOKEN&base_url=http://localhost:1/v1").check()
        with pytest.raises(BadOption, match=r"the NAME of an environment variable"):
            MODELS.make("openai:x", {"header.X-Team": "sk-planted-key"})
        with pytest.raises(BadOption, match=r"header.NAME=VALUE"):
            MODELS.make("openai:x", {"header": "X-Team"})
        with pytest.raises(BadOption, match="has no option 'system.x'"):
            MODELS.make("openai:x", {"system.x": "y"})

    def test_azure_s_deployments(self, monkeypatch):
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", "planted-key-0000")
        with pytest.raises(BadOption, match="azure: needs an address: base_url="):
            MODELS.make("azure:x")
        with Server() as server:
            azure = model_at(server, "azure", api_version="2026-10-01")
            assert {Kind.CHOOSE, Kind.CONSTRAIN} <= azure.kinds
            answers(azure, question())
        assert server.asked[0].query == {"api-version": "2026-10-01"}

    @pytest.mark.parametrize(
        ("address", "message"),
        [
            ("http://h/v1/chat/completions", r"set -M base_url=http://h/v1$"),
            (
                "https://h/openai/deployments/d/chat/completions?api-version=2026-10-01",
                r"set -M base_url=https://h/openai/deployments/d -M api_version=2026-10-01",
            ),
            (
                "https://h/openai?api-version=2026-10-01",
                r"-M base_url=https://h/openai -M api_version=2026-10-01",
            ),
        ],
    )
    def test_an_address_that_is_too_long(self, address, message):
        with pytest.raises(BadOption, match=message):
            MODELS.make("openai:x", {"base_url": address})

    def test_an_address_without_v1(self):
        with Server() as server:
            model = MODELS.make("openai:x", {"base_url": server.url.removesuffix("/v1")})
            with pytest.raises(Stopped, match=r"serves the model 'x'.* /v1"):
                answers(model, question())

    def test_a_command_prints_the_key(self, monkeypatch, tmp_path):
        """Keys that expire: asked for again when the server refuses one."""
        count = tmp_path / "count"
        script = (
            f"import pathlib; p = pathlib.Path({str(count)!r}); n = len(p.read_text()) if p.exists() else 0; "
        )
        script += "p.write_text('x' * (n + 1)); print(f'planted-token-{n}')"
        monkeypatch.setenv("OPENAI_API_KEY_COMMAND", shlex.join([sys.executable, "-c", script]))

        def expired(number):
            old = server.asked[number].headers["Authorization"] == "Bearer planted-token-0"
            return fault.status(401, "expired") if old and number > 2 else None

        with Server(faults=expired) as server:
            model = model_at(server)
            model.limits = Limits(max_concurrency=1)
            replies = answers(model, *[question(f"{i}?") for i in range(6)])
        assert {reply.outcome for reply in replies} == {Outcome.OK}
        assert server.asked[-1].headers["Authorization"] == "Bearer planted-token-1"
        assert "planted" not in json.dumps(dict(model.identity()))
        monkeypatch.setenv("OPENAI_API_KEY_COMMAND", "no-such-command")
        with pytest.raises(ModelError, match="OPENAI_API_KEY_COMMAND failed"):
            MODELS.make("openai:x").check()

    def test_images_as_providers_take_them(self, monkeypatch):
        webp = Image(lambda: encode(pillow.new("RGB", (600, 300), "red"), "WEBP"), "x")
        with Server() as server:
            answers(model_at(server), ask((webp,), "?"))
            answers(model_at(server, "vllm"), ask((webp,), "?"))
            answers(model_at(server, image_format="png", max_side=100), ask((webp,), "?"))
            groq = model_at(server, "groq")
            (reply,) = answers(groq, ask((webp,) * 6, "?"))
        formats = [pillow.open(io.BytesIO(asked.images[0])) for asked in server.asked]
        assert [(f.format, f.size) for f in formats] == [
            ("JPEG", (600, 300)),
            ("WEBP", (600, 300)),
            ("PNG", (100, 50)),
        ]
        assert "6 images, but the server takes at most 5" in reply.reason

    def test_a_key_that_no_request_can_carry(self, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "planted-key-1234\n")
        MODELS.make("openai:x").check()  # a line break at its end is none of it
        monkeypatch.setenv("OPENAI_API_KEY", "plantéd\nkey-1234")
        with pytest.raises(ModelError, match="OPENAI_API_KEY contains characters that no key has"):
            MODELS.make("openai:x").check()

    def test_a_package_that_is_not_there(self, monkeypatch, workspace):
        monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
        with Server() as server, pytest.raises(MissingExtra, match=r"pip install 'snellen\[api\]'"):
            snellen.run(model=f"openai:x?base_url={server.url}", data="chart:shapes?n=3")
        assert not (workspace / "snellen.db").exists()

    def test_no_key(self, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY", "x")
        with pytest.raises(ModelError, match="export NO_SUCH_KEY"):
            MODELS.make("openai:x?api_key_env=NO_SUCH_KEY").check()
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(ModelError, match="export OPENAI_API_KEY"):
            MODELS.make("openai:x").check()
        MODELS.make("openai:x?base_url=http://localhost:1/v1").check()  # a server of one's own may want none
        MODELS.make("ollama:x").check()

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("openai:", "needs a model"),
            (
                "openai:x?base_url=localhost:8000/v1",
                "base_url=localhost:8000/v1 is not allowed.*http://HOST/PATH",
            ),
            ("openai:x?base_url=ftp://localhost/v1", "http://HOST/PATH"),
            ("openai:x?base_url=http://me:hunter2@localhost/v1", "api_key_env"),
            ("openai:x?base_url=http://[::1/v1", "not a URL"),
            ("openai:x?extra=[1]", "a JSON object"),
            ("openai:x?max_side=0", "max_side=0 is not allowed; allowed: 1 or more"),
            ("openai:x?max_bytes=0", "max_bytes=0 is not allowed; allowed: 1 or more"),
            ('openai:x?extra={"key": "sk-planted-0000000000000000"}', "looks like a key"),
            ("endpoint:http://x/y?query=api_key=planted1", "looks like a key"),
            ("openai:x?timeout=nan", "timeout=nan is not allowed"),
            ("openai:x?price_in=nan&price_out=1", "0 or more"),
            ("endpoint:http://x/y?price=-1", "0 or more"),
            ("openai:x?extra={", "a JSON object"),
            ("openai:x?max_tokens=0", "1 or more"),
            ("openai:x?timeout=0", "timeout=0 is not allowed"),
            ("openai:x?price_in=1", "set together"),
            ("openai:x?price_in=-1&price_out=1", "0 or more"),
            ("openai:x?api_key_env=sk-planted-0000000000000000", "NAME of an environment variable"),
            ("endpoint:nowhere", "http://HOST/PATH"),
            ("endpoint:http://x/y?labels=[", "JMESPath"),
            ("endpoint:http://x/y?body={}", "it must contain"),
            ("endpoint:http://x/y?body={", "allowed: JSON"),
        ],
    )
    def test_mistakes(self, name, message):
        with pytest.raises(BadOption, match=message) as found:
            MODELS.make(name)
        assert "hunter2" not in str(found.value)
        assert "planted" not in str(found.value)

    def test_what_it_cannot_do_is_refused_with_a_way_out(self, workspace):
        with Server() as server, pytest.raises(Unsupported, match="supports: binary.*vllm:NAME"):
            Plan(models=[f"openai:x?base_url={server.url}"], data=["chart:shapes?n=3"], protocols=["rank"])


class TestPrices:
    def test_from_a_file(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert Prices.find("openai:gpt-4o", None, None) is None
        (tmp_path / "prices.toml").write_text('["openai:gpt-4o"]\nin = 2.5\nout = 10\n')
        assert Prices.find("openai:gpt-4o", None, None) == Prices(2.5, 10)
        assert Prices.find("openai:other", None, None) is None
        assert Prices.find("openai:gpt-4o", 1.0, 2.0) == Prices(1, 2)
        with (tmp_path / "prices.toml").open("a") as file:
            file.write("cached = 1.25\n")
        assert Prices.find("openai:gpt-4o", None, None) == Prices(2.5, 10, 1.25)
        with pytest.raises(BadOption, match="price_cached=-1 is not allowed"):
            Prices.find("openai:gpt-4o", 1.0, 2.0, -1.0)
        (tmp_path / "prices.toml").write_text('["openai:gpt-4o"]\nin = 2.5\n')
        with pytest.raises(BadOption, match="in = and out ="):
            Prices.find("openai:gpt-4o", None, None)
        monkeypatch.setenv("SNELLEN_PRICES", str(tmp_path / "none.toml"))
        with pytest.raises(BadOption, match="no such file"):
            Prices.find("openai:gpt-4o", None, None)
