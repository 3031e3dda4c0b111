"""The machine around hosted models: proxies, certificates, and keys that change in the middle of a run."""

from __future__ import annotations

import shlex
import ssl
import sys
from base64 import b64decode
from dataclasses import replace

import pytest
import trustme
from aiohttp import web

from asking import answers, model_at, question
from snellen.errors import BadOption, Stopped
from snellen.models.base import MODELS, Limits
from snellen.models.remote.network import proxy_of
from snellen.models.remote.urls import ApiKey
from snellen.testing import Server, fault
from snellen.types import Kind, Outcome

pytestmark = pytest.mark.usefixtures("impatient")
PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class TestProxies:
    def test_one_is_used(self, monkeypatch):
        """It gets requests for a host that does not exist."""
        with Server() as server:
            monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1"))
            (reply,) = answers(MODELS.make("openai:x?base_url=http://no-such-host.invalid/v1"), question())
            assert reply.text == "star"
            model = "endpoint:http://no-such-host.invalid/v1"
            answers(MODELS.make(model), replace(question(), kind=Kind.SCORE, continuations=("star",)))
        assert [asked.headers["Host"] for asked in server.asked[:2]] == ["no-such-host.invalid"] * 2

    def test_its_password_is_sent_to_it_alone(self, monkeypatch):
        with Server() as server:
            proxy = server.url.removesuffix("/v1").replace("//", "//reader:planted-99@")
            monkeypatch.setenv("HTTP_PROXY", proxy)
            answers(MODELS.make("openai:x?base_url=http://no-such-host.invalid/v1"), question())
            answers(model_at(server), question())
        through, direct = (asked.headers for asked in server.asked)
        assert b64decode(through["Proxy-Authorization"].split()[1]) == b"reader:planted-99"
        assert "Proxy-Authorization" not in direct  # this machine needs no proxy

    @pytest.mark.parametrize(
        ("named", "address", "direct"),
        [
            ("", "https://llm.example/v1", False),
            ("other.example, llm.example", "https://llm.example/v1", True),
            ("example", "https://llm.example/v1", True),
            (".example", "https://llm.example/v1", True),
            ("*.example", "https://llm.example/v1", True),
            ("m.example", "https://llm.example/v1", False),
            ("llm.example:8443", "https://llm.example:8443/v1", True),
            ("llm.example:8443", "https://llm.example/v1", False),
            ("x, *", "https://llm.example/v1", True),
            ("192.0.2.0/24", "https://192.0.2.9/v1", True),
            ("192.0.2.9", "https://192.0.2.9:8000/v1", True),
            ("2001:db8::/32", "https://[2001:db8::1]/v1", True),
            ("[2001:db8::1]:8000", "https://[2001:db8::1]:8000/v1", True),
            ("", "http://localhost:8000/v1", True),
            ("", "http://127.0.0.9:8000/v1", True),
            ("", "http://[::1]:8000/v1", True),
            ("", "http://[::ffff:127.0.0.1]:8000/v1", True),
            ("", "http://0.0.0.0:8000/v1", True),
        ],
    )
    def test_servers_that_are_asked_directly(self, monkeypatch, named, address, direct):
        """A key and the images go to a proxy only where the user lets them."""
        monkeypatch.setenv("ALL_PROXY", PROXY)
        monkeypatch.setenv("NO_PROXY", named)
        assert proxy_of(address) == (None if direct else PROXY)

    @pytest.mark.parametrize(
        "proxy", ["socks5://proxy.example:1080", "http://reader:a/b@proxy.example:1", "http://:80"]
    )
    def test_one_that_cannot_be_used(self, monkeypatch, proxy):
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        with pytest.raises(BadOption, match="The proxy .* cannot be used.*NO_PROXY=llm.example") as caught:
            answers(MODELS.make("openai:x?base_url=https://llm.example/v1"), question())
        assert "reader" not in str(caught.value)

    def test_one_that_wants_a_password(self, monkeypatch):
        with Server(faults=lambda _: fault.status(407, "who are you?")) as server:
            monkeypatch.setenv("HTTP_PROXY", server.url.removesuffix("/v1"))
            with pytest.raises(Stopped, match=r"the proxy 127\.0\.0\.1:\d+ refuses \(407\); put a name"):
                answers(MODELS.make("openai:x?base_url=http://llm.example/v1"), question())
        assert len(server.asked) == 1

    def test_one_that_is_not_there(self, monkeypatch):
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        with pytest.raises(Stopped, match=r"the proxy 127\.0\.0\.1:9 cannot be reached"):
            answers(MODELS.make("openai:x?base_url=http://llm.example/v1"), question())

    def test_passwords_of_other_programs_stay_where_they_are(self, monkeypatch, tmp_path):
        (tmp_path / "netrc").write_text("default login reader password planted-99\n", encoding="utf-8")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        monkeypatch.setenv("MY_KEY", "planted-key-1234")
        score = replace(question(), kind=Kind.SCORE, continuations=("star",))
        with Server() as server:
            answers(model_at(server, api_key_env="MY_KEY"), question())
            answers(model_at(server), question())
            answers(MODELS.make(f"endpoint:{server.url}"), score)
        sent = [asked.headers.get("Authorization") for asked in server.asked]
        assert sent == ["Bearer planted-key-1234", None, None]


class TestCertificates:
    @pytest.fixture
    def authority(self, tmp_path):
        made = trustme.CA()
        made.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        return made

    def served(self, authority, name="127.0.0.1"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        return Server(tls=context)

    def test_an_authority_of_the_user_s_own(self, authority, tmp_path, monkeypatch):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        with self.served(authority) as server:
            (reply,) = answers(model_at(server), question())
        assert reply.text == "star"

    def test_one_that_nobody_vouches_for(self, authority):
        said = "certificate is not trusted here.*authorities of your own set SSL_CERT_FILE"
        with self.served(authority) as server, pytest.raises(Stopped, match=said):
            answers(model_at(server), question())
        assert not server.asked

    def test_one_of_another_host(self, authority, tmp_path, monkeypatch):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        with self.served(authority, "llm.example") as server, pytest.raises(Stopped) as caught:
            answers(model_at(server), question())
        assert "is not valid for '127.0.0.1'" in str(caught.value)
        assert "SSL_CERT_FILE" not in str(caught.value)

    def test_a_file_that_is_not_there(self, authority, monkeypatch):
        monkeypatch.setenv("SSL_CERT_FILE", "/no/such.pem")
        with self.served(authority) as server, pytest.raises(BadOption, match="SSL_CERT_FILE=/no/such.pem"):
            answers(model_at(server), question())


class TestAnswers:
    def test_what_is_no_http_is_paid_for_and_not_asked_forever(self):
        """A header of 70 KB: the server is there, and has answered."""
        with Server(headers={"X-Long": "x" * 70_000}) as server:
            model = model_at(server, tries=3, price_in=1.0, price_out=1.0)
            model.limits = Limits(max_concurrency=1)
            (reply,) = answers(model, question())
        assert reply.outcome is Outcome.ERROR
        assert "not proper HTTP" in reply.reason
        assert len(server.asked) == 3

    def test_a_refusal_counts_however_long_it_is(self):
        async def busy(request):
            return web.Response(status=503, body=b"busy " * 2_000_000)

        with Server(faults=[busy]) as server:
            (reply,) = answers(model_at(server), question())
        assert reply.text == "star"


class TestKeys:
    """Those that a command prints: ``planted-0``, ``planted-1`` and so on."""

    @pytest.fixture
    def command(self, tmp_path):
        script = (
            "import pathlib, sys; p = pathlib.Path(sys.argv[1]); "
            "n = len(p.read_text()) if p.exists() else 0; "
            "p.write_text('x' * (n + 1)); sys.exit(1) if str(n) in sys.argv[2:] else print(f'planted-{n}')"
        )
        return lambda *failing: shlex.join(
            [sys.executable, "-c", script, str(tmp_path / "count"), *map(str, failing)]
        )

    @pytest.mark.parametrize("header", ["Authorization", "Api-Key"])
    def test_one_that_is_refused_while_many_are_asked(self, monkeypatch, command, header):
        variable = "OPENAI_API_KEY" if header == "Authorization" else "MY_KEY"
        monkeypatch.setenv(f"{variable}_COMMAND", command())
        if header == "Api-Key":
            monkeypatch.setenv(variable, "x")

        def refused(number):
            return (
                fault.status(401, "expired") if server.asked[number].headers[header].endswith("-0") else None
            )

        more = {} if header == "Authorization" else {"header.Api-Key": variable}
        with Server(faults=refused) as server:
            found = answers(model_at(server, **more), *[question(f"{i}?") for i in range(12)])
        assert {reply.outcome for reply in found} == {Outcome.OK}

    def test_one_that_is_printed_again_although_it_was_refused(self, monkeypatch):
        monkeypatch.setenv("OPENAI_API_KEY_COMMAND", "echo planted-99")
        with (
            Server(faults=lambda _: fault.status(401, "no")) as server,
            pytest.raises(Stopped, match="401"),
        ):
            answers(model_at(server), question())
        assert len(server.asked) == 2

    def test_a_command_that_fails_in_the_middle(self, monkeypatch, command):
        """The last key is good until the server refuses it."""
        monkeypatch.setenv("MY_KEY_COMMAND", command(1, 2))
        clock = iter(range(0, 100_000, 1000))
        monkeypatch.setattr("snellen.models.remote.urls.time.monotonic", lambda: next(clock))
        key = ApiKey("MY_KEY", needed=True)
        assert [key.value for _ in range(4)] == ["planted-0", "planted-0", "planted-0", "planted-3"]

    def test_a_command_that_prints_no_key(self, monkeypatch):
        monkeypatch.setenv("MY_KEY_COMMAND", f"{sys.executable} -c \"print('a\\nb')\"")
        with pytest.raises(Exception, match="characters that no key has"):
            _ = ApiKey("MY_KEY", needed=True).value
