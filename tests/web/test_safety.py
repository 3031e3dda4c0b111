"""The web app under attack: texts of others, foreign hosts, tokens, and paths."""

from __future__ import annotations

import html
import re
import socket
from random import Random
from typing import Any

import httpx
import pytest
from PIL import Image as pillow

from helpers import PAYLOADS, Scripted, text_of
from served import browser, served
from snellen.api import run
from snellen.arena.recorded import Recorded
from snellen.errors import BadOption
from snellen.storage.votes import VoteStore
from snellen.web.access import Role
from snellen.web.markdown import markdown
from snellen.web.security import HEADERS, Policy, Rates, is_loopback
from snellen.web.serve import bound
from snellen.web.state import AppState
from websites import Tags, inert


class TestSafety:
    @pytest.mark.slow
    def test_text_of_others_is_inert(self, store, workspace):
        folder = workspace.parent / "odd"
        for i in range(3):
            for j, payload in enumerate(PAYLOADS[:4]):
                name = re.sub(r"[/\x00]", "", payload)
                path = folder / f"class {i} {name}" / f"{j}{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pillow.new("RGB", (20, 20), (i * 80, j * 60, 9)).save(path)

        def script(request):
            number = int(request.images[0].sha256[:4], 16)
            names = text_of(request).partition("{")[2].partition("}")[0].split(", ")
            return (
                names[0] + PAYLOADS[number % len(PAYLOADS)]
                if number % 3
                else PAYLOADS[number % len(PAYLOADS)]
            )

        kwargs: dict[str, Any] = {"data": f"folder:{folder}", "data_options": {"raw_names": True}}
        kwargs["protocol"] = "closed-set?rounds=1&prompt=<script>alert(2)</script> {names}"
        found = [run(model=Scripted(script, PAYLOADS[k]), **kwargs) for k in range(2)]
        (workspace / "models.toml").write_text(f'["{PAYLOADS[0]}"]\nlicense = "<script>alert(3)</script>"\n')
        arena = Recorded(VoteStore(store), found, repeat=0, rng=Random(0))
        with served(AppState(store, Policy(), arena)) as address, browser(address) as client:
            pages = ["/", "/?by=data", "/averages", f"/compare?run={found[0].id}&run={found[1].id}"]
            pages += [f"/heatmap?run={one.id}" for one in found]
            for one in found:
                pages += [f"/runs/{one.id}"]
                pages += [f"/runs/{one.id}/samples/{k}" for k in range(12)]
            for payload in PAYLOADS:
                pages.append(f"/?{httpx.QueryParams({'q': payload})}")
                pages.append(f"/runs/{found[0].id}?{httpx.QueryParams({'q': payload, 'truth': payload})}")
                pages.append(f"/?{httpx.QueryParams({'sort': payload})}")
            for page in pages:
                reply = client.get(page)
                assert reply.status_code in (200, 400), page
                inert(reply.text)
            for _ in range(8):
                battle = client.post("/arena")
                inert(battle.text)
                assert client.post(f"{battle.url.path}/votes", data={"choice": "left"}).status_code == 200
                inert(client.post(f"{battle.url.path}/reveal").text)
            inert(client.get("/ranking").text)

    @pytest.mark.parametrize("payload", PAYLOADS)
    def test_markdown_of_models(self, payload):
        made = markdown(f"# {payload}\n- {payload}\n`{payload}`\n\n{payload}")
        inert(made)
        assert not {tag for tag, _ in Tags(made).tags} & {"script", "img", "svg", "a", "textarea"}
        assert not any(attributes for _, attributes in Tags(made).tags)

    def test_markdown_reads_well(self):
        made = markdown("**bold** and `code`\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n1. one")
        for tag in ("<strong>bold</strong>", "<code>code</code>", "<td>1</td>", "<li>one</li>"):
            assert tag in made

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"host": "evil.example"}, 421),
            ({"host": "127.0.0.1.evil.example"}, 421),
            ({"host": "localhost"}, 200),
            ({"host": "LOCALHOST:99"}, 200),
            ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
            ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
            ({"sec-fetch-site": "same-origin"}, 200),
        ],
    )
    def test_who_may_look(self, store, headers, status):
        with served(AppState(store, Policy())) as address:
            assert httpx.get(f"{address}/health", headers=headers).status_code == status

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"origin": "http://evil.example"}, 403),
            ({"origin": "null"}, 403),
            ({"sec-fetch-site": "cross-site"}, 403),
            ({"sec-fetch-site": "same-site"}, 403),
            ({"origin": "{address}", "sec-fetch-site": "cross-site"}, 403),
            ({"origin": "{address}"}, 303),
            ({}, 303),
        ],
    )
    def test_who_may_change_anything(self, store, runs, headers, status):
        arena = Recorded(VoteStore(store), runs)
        with served(AppState(store, Policy(), arena)) as address:
            told = {name: value.format(address=address) for name, value in headers.items()}
            assert httpx.post(f"{address}/arena", headers=told).status_code == status

    def test_a_token_is_asked_for(self, store, runs):
        token = "a secret of sixteen or more"
        with served(AppState(store, Policy(token=token))) as address, browser(address) as client:
            assert httpx.get(f"{address}/leaderboard.json").status_code == 401
            assert httpx.get(f"{address}/", headers={"authorization": "Bearer wrong"}).status_code == 401
            assert httpx.get(f"{address}/", headers={"authorization": f"Bearer {token}"}).status_code == 200
            page = client.get("/averages?q=x")
            assert page.url.path == "/login"
            assert client.post("/login", data={"token": "wrong"}).status_code == 401
            inside = client.post("/login", data={"token": token, "next": "/averages?q=x"})
            assert (inside.url.path, inside.status_code) == ("/averages", 200)
            cookie = inside.history[0].headers["set-cookie"]
            for part in ("HttpOnly", "SameSite=lax"):
                assert part in cookie
            assert token not in cookie
            assert client.get("/leaderboard.json").status_code == 200

    @pytest.mark.parametrize(
        "next", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "\\\\x"]
    )
    def test_logging_in_leads_nowhere_else(self, store, next):
        token = "a secret of sixteen or more"
        with served(AppState(store, Policy(token=token))) as address:
            reply = httpx.post(f"{address}/login", data={"token": token, "next": next})
            assert reply.headers["location"] == "/"

    def test_an_address_that_others_reach_takes_a_token(self):
        for host in ("0.0.0.0", "192.168.0.5", "::", "example.com"):
            with pytest.raises(BadOption, match="SNELLEN_TOKEN"):
                Policy(host)
            Policy(host, "x" * 16)
        with pytest.raises(BadOption, match="16 characters"):
            Policy("0.0.0.0", "short")
        assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "10.0.0.1")] == [
            True,
            True,
            True,
            False,
        ]

    def test_an_address_may_be_asked_for_as_such_where_all_are_bound(self, store):
        token = {"authorization": f"Bearer {'x' * 16}"}
        with served(AppState(store, Policy("0.0.0.0", "x" * 16))) as address:
            for host, status in (("192.0.2.7:8421", 200), (socket.gethostname(), 200), ("evil.example", 421)):
                assert httpx.get(f"{address}/health", headers={"host": host, **token}).status_code == status
            refused = httpx.get(f"{address}/", headers={"host": "arena.example.com"})
            assert "--allow-host arena.example.com" in refused.text

    def test_other_apps_cookies_do_not_matter(self, store):
        token = "a secret of sixteen or more"
        policy = Policy(token=token)
        with served(AppState(store, policy)) as address:
            for other in ('theme={"dark":true}', "a b", "x[0]=1", "=", ";;"):
                login = f"snellen_session_{httpx.URL(address).port}={policy.sessions.begin(Role.HOST)}"
                headers = {"cookie": f"{other}; {login}"}
                assert httpx.get(f"{address}/leaderboard.json", headers=headers).status_code == 200

    def test_tokens_are_not_tried_at_leisure(self, store):
        with served(AppState(store, Policy(token="a secret of sixteen or more"))) as address:
            seen = [
                httpx.post(
                    f"{address}/login", data={"token": "x"}, headers={"cookie": f"snellen_voter={k}"}
                ).status_code
                for k in range(14)
            ]
            assert seen[-1] == 429

    @pytest.mark.parametrize("place", ["address", "header", "invitation"])
    def test_nor_are_they_in_addresses_and_headers(self, store, place):
        """After ten wrong ones even the right one is refused for a while, but nobody is logged out."""
        token = "a secret of sixteen or more"
        clock = [0.0]
        site = AppState(store, Policy(token=token))
        site.rates.clock = lambda: clock[0]

        def attempt(address: str, given: str) -> int:
            headers = {"authorization": f"Bearer {given}"} if place == "header" else {}
            names = {"address": "token", "invitation": "invite"}
            query = {names[place]: given} if place in names else {}
            return httpx.get(f"{address}/leaderboard.json", params=query, headers=headers).status_code

        with served(site) as address, browser(address) as inside:
            inside.post("/login", data={"token": token})
            seen = [attempt(address, "x") for _ in range(12)]
            assert (seen[8], seen[-1]) == (401, 429)
            assert attempt(address, token) == 429
            assert httpx.get(f"{address}/health").status_code == 200
            assert inside.get("/leaderboard.json").status_code == 200
            assert inside.get("/leaderboard.json?token=x").status_code != 429
            clock[0] += 60
            assert attempt(address, token) not in (401, 429)

    @pytest.mark.parametrize(
        ("path", "headers"),
        [
            ("/login?next=//[", {}),
            ("/login?next=http://[", {}),
            ("/?page=" + "9" * 5000, {}),
            ("/runs/x/samples/" + "9" * 30, {}),
            ("/compare?run=a&run=b&page=" + "9" * 5000, {}),
            ("/", {"origin": "http://["}),
            ("/", {"cookie": "\x7f=;;"}),
        ],
    )
    def test_odd_requests_break_nothing(self, store, path, headers):
        with served(AppState(store, Policy())) as address:
            assert httpx.get(address + path, headers=headers).status_code in (200, 400, 404)
            assert httpx.post(address + "/arena", headers=headers | {"origin": "http://["}).status_code == 403

    def test_what_breaks_says_no_more_than_that(self, store, monkeypatch):
        site = AppState(store, Policy())
        monkeypatch.setattr(site.board, "entries", lambda: 1 / 0)
        with served(site) as address, browser(address) as client:
            reply = client.get("/")
            assert reply.status_code == 500
            assert "server's log" in html.unescape(reply.text)
            assert "ZeroDivision" not in reply.text
            for name, value in HEADERS.items():
                assert reply.headers[name] == value

    def test_a_proxys_name_is_added(self, store):
        policy = Policy(hosts=("arena.example.com",))
        with served(AppState(store, policy)) as address:
            headers = {"host": "arena.example.com"}
            assert httpx.get(f"{address}/health", headers=headers).status_code == 200

    def test_bodies_have_an_end(self, store, runs):
        policy = Policy(max_body=100_000)
        with served(AppState(store, policy, Recorded(VoteStore(store), runs))) as address:
            load_all = httpx.post(f"{address}/arena", content=b"x" * 200_000)
            assert load_all.status_code == 413

            def drops():
                for _ in range(50):
                    yield b"x" * 10_000

            headers = {"content-type": "application/x-www-form-urlencoded"}
            assert httpx.post(f"{address}/arena", content=drops(), headers=headers).status_code == 413

    def test_rates(self):
        now = [0.0]
        rates = Rates({"ask": (2, 60)}, clock=lambda: now[0])
        assert [rates.wait("ask", "me") for _ in range(2)] == [0, 0]
        assert rates.wait("ask", "me") == pytest.approx(1.0)
        assert rates.wait("ask", "you") == 0
        now[0] = 1.0
        assert rates.wait("ask", "me") == 0
        assert rates.wait("ask", "me") > 0

    def test_too_often(self, store, runs):
        site = AppState(store, Policy(), Recorded(VoteStore(store), runs), Rates({"vote": (2, 1)}))
        with served(site) as address, browser(address) as client:
            seen = [client.post("/arena") for _ in range(5)]
            assert [reply.status_code for reply in seen][-1] == 429
            assert int(seen[-1].headers["retry-after"]) >= 1
            assert "Retry in" in seen[-1].text

    def test_a_port_that_is_taken(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            with pytest.raises(BadOption, match="--port 0"):
                bound("127.0.0.1", other.getsockname()[1])
        with pytest.raises(BadOption, match="65535"):
            bound("127.0.0.1", 70000)
        # Also while the one that has it is not serving yet.
        with bound("127.0.0.1", 0) as mine, pytest.raises(BadOption, match="cannot be bound"):
            bound("127.0.0.1", mine.getsockname()[1])
