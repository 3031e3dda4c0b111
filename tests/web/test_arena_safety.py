"""What voters cannot do: vote as many people, see more than the arena, change what counts."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from PIL import Image as pillow

from helpers import Scripted
from served import browser, served
from snellen.api import run
from snellen.arena.live import Live
from snellen.arena.recorded import Recorded
from snellen.arena.voters import summarize_addresses, summarize_voters
from snellen.errors import Conflict, UnknownName
from snellen.runs.matching import load_all
from snellen.storage import vote_queries
from snellen.storage.store import Store
from snellen.storage.vote_rows import Answer, Battle, Turn
from snellen.storage.votes import VoteStore
from snellen.web.images import BattleImages, Uploads
from snellen.web.security import Policy, Rates
from snellen.web.state import AppState

HOST, VOTER = "the host's own secret", "what voters are given"


@pytest.fixture
def runs(workspace, store):
    """Two runs that differ on half of the samples, and answer the others alike."""

    def teller(k):
        def script(request):
            even = int(request.images[0].sha256[:6], 16) % 2 == 0
            return request.sample.label if even or not k else "no idea"

        return script

    kwargs: dict[str, Any] = {"data": "chart:shapes?n=24", "protocol": "closed-set?rounds=1"}
    return [run(model=Scripted(teller(k), f"model-{k}"), **kwargs) for k in range(2)]


@pytest.fixture
def recorded(store, runs):
    return Recorded(VoteStore(store), runs, repeat=0, rng=Random(0))


def free() -> Rates:
    return Rates(dict.fromkeys(Rates().limits, (9999, 9999)))


def battle(vote_store: VoteStore, voter: str, left: str = "A", right: str = "B", words: int = 10) -> Battle:
    answers = (Answer("word " * words), Answer("word " * words))
    return vote_store.keep(
        Battle(
            id="", voter=voter, source="live", item="i", left=left, right=right, propensity=1.0,
            turns=(Turn(0, "?", *answers),),
        )
    )  # fmt: skip


def cast(vote_store: VoteStore, voter: str, choice: str, host: str = "", **more: Any) -> Battle:
    one = battle(vote_store, voter, **more)
    address = vote_store.voters.address(host) if host else ""
    vote_store.vote(one.id, voter, choice, address=address)
    vote_store.reveal(one.id, voter)
    return one


class TestManyVoters:
    def test_invented_cookies_are_nobody(self, store, recorded):
        """134 votes "of 134 people" came so from one address."""
        site = AppState(store, Policy(), recorded, free(), newcomers=5)
        with served(site) as address:
            statuses = []
            for number in range(12):
                with browser(address) as client:
                    client.cookies.set("snellen_voter", f"invented-{number}")
                    reply = client.post("/arena")
                    statuses.append(reply.status_code)
                    if reply.status_code == 200:
                        client.post(f"{reply.url.path}/votes", data={"choice": "left"})
            assert statuses == [200] * 5 + [403] * 7
            with browser(address) as client:
                assert "--voters-per-address" in client.post("/arena").text
        assert len({one.voter for one in site.vote_store.voters.cast()}) == 5

    def test_a_forged_signature_is_nobody(self, store):
        voters = VoteStore(store).voters
        cookie = voters.issue()
        assert voters.voter(cookie) is not None
        secret, _, signature = cookie.rpartition(".")
        for forged in (f"{secret}x.{signature}", f"{secret}.{'0' * 32}", secret, "", ".", f".{signature}"):
            assert voters.voter(forged) is None

    def test_new_voters_of_an_address_are_slowed(self, store, recorded):
        with served(AppState(store, Policy(), recorded)) as address:
            statuses = []
            for _ in range(12):
                with browser(address) as client:
                    statuses.append(client.post("/arena").status_code)
        assert statuses == [200] * 10 + [429] * 2

    def test_an_invitation_is_for_one_voter_on_any_browser(self, store, recorded):
        voters = recorded.vote_store.voters
        invites = tuple(voters.invitation(k) for k in range(2))
        assert invites == tuple(VoteStore(store).voters.invitation(k) for k in range(2))
        site = AppState(store, Policy(token=HOST, invites=invites, results=False), recorded, free())
        with served(site) as address:
            seen = []
            for invite in (invites[0], invites[0], invites[1]):
                with browser(address) as client:
                    page = client.get(f"/arena?invite={invite}")
                    assert (page.url.path, page.url.query, page.status_code) == ("/arena", b"", 200)
                    seen.append(voters.voter(client.cookies["snellen_voter"]))
                    assert client.post("/arena").status_code == 200
            assert seen[0] == seen[1] != seen[2]
            with browser(address) as client:
                assert client.get("/arena").url.path == "/login"
                assert client.get("/arena?invite=another").url.path == "/login"
            with browser(address) as client:
                client.get(f"/arena?token={HOST}")  # the host may look, but is not invited
                assert "by invitation" in client.post("/arena").text

    def test_addresses_are_stored_as_salted_hashes(self, store, recorded):
        with served(AppState(store, Policy(), recorded, free())) as address, browser(address) as client:
            path = client.post("/arena").url.path
            client.post(f"{path}/votes", data={"choice": "left"})
            client.post(f"{path}/reveal")
            assert "from 1 address." in client.get("/ranking").text
        (one,) = recorded.vote_store.voters.cast()
        assert re.fullmatch("@[0-9a-f]{12}", one.address)
        assert one.address == recorded.vote_store.voters.address("127.0.0.1")
        dump = "\n".join(store.do(lambda c: list(c.connection.iterdump())))
        assert "127.0.0.1" not in dump

    def test_addresses_are_forgotten_in_time_but_not_those_left_out(self, store):
        vote_store = VoteStore(store)
        voters = vote_store.voters
        for number in range(3):
            cast(vote_store, f"v{number}", "left", host=f"10.0.0.{number}")
        voters.decide(voters.address("10.0.0.0"), excluded=True)
        assert voters.forget(1) == 0
        assert voters.forget(-1) == 2
        assert [one.address for one in voters.cast()] == [voters.address("10.0.0.0"), "", ""]
        assert len(vote_store.verdicts()) == 2

    def test_without_addresses_none_are_kept(self, store, recorded):
        site = AppState(store, Policy(), recorded, free(), keep_addresses=0)
        with served(site) as address, browser(address) as client:
            path = client.post("/arena").url.path
            client.post(f"{path}/votes", data={"choice": "left"})
        assert [one.address for one in site.vote_store.voters.cast()] == [""]


class TestExclusion:
    def test_a_voter_or_an_address_can_be_left_out_and_counted_again(self, anywhere):
        vote_store = VoteStore(Store(anywhere))
        voters = vote_store.voters
        for number in range(3):
            cast(vote_store, f"stuffer-{number}", "right", host="10.0.0.1")
        cast(vote_store, "honest", "left", host="10.0.0.2")
        assert sum(v.times for v in vote_store.verdicts()) == 4
        before = vote_store.stamp()
        voters.decide("stuffer-0", excluded=True, reason="a bot")
        assert vote_store.stamp() != before
        assert voters.excluded() == {"stuffer-0": "a bot"}
        assert {v.voter for v in vote_store.verdicts()} == {"stuffer-1", "stuffer-2", "honest"}
        voters.decide(voters.address("10.0.0.1"), excluded=True)
        assert {v.voter for v in vote_store.verdicts()} == {"honest"}
        assert {v.voter for v in vote_store.cast()} == {"honest"}
        assert [b.voter for b in vote_store.voted()] == ["honest"]
        counts = vote_store.counts()
        assert (counts["votes"], counts["excluded"], counts["addresses"]) == (1, 3, 1)
        voters.decide(voters.address("10.0.0.1"), excluded=False)
        voters.decide("stuffer-0", excluded=False)
        assert sum(v.times for v in vote_store.verdicts()) == 4
        assert voters.excluded() == {}
        vote_store.store.close()

    def test_names_are_found_by_their_beginning(self, store):
        vote_store = VoteStore(store)
        cast(vote_store, "abc", "left", host="10.0.0.1")
        cast(vote_store, "abd", "left")
        assert vote_store.voters.find("abc") == "abc"
        assert vote_store.voters.find("@").startswith("@")
        for name in ("ab", "x"):
            with pytest.raises(UnknownName, match="snellen votes voters"):
                vote_store.voters.find(name)

    def test_what_is_odd_is_said(self, store):
        vote_store = VoteStore(store)
        now = datetime.now(UTC)
        for number in range(8):
            cast(vote_store, "sided", "left", *(), left="AB"[number % 2], right="BA"[number % 2])
            cast(
                vote_store,
                "fan",
                ["left", "right"][number % 2],
                left="AB"[number % 2],
                right="BA"[number % 2],
            )
            cast(vote_store, "fair", ["left", "right", "tie"][number % 3], host="10.0.0.9")
        for number in range(6):
            cast(vote_store, f"crowd-{number}", "right", host="10.0.0.1")
        votes = vote_store.voters.cast()
        assert all(abs((datetime.fromisoformat(v.created) - now).total_seconds()) < 60 for v in votes)
        slow = [v._replace(seconds=60.0) for v in votes]
        quick = [v._replace(seconds=0.5) if v.voter == "fair" else v for v in slow]
        odd = {one.voter: one.odd for one in summarize_voters(slow, {})}
        assert odd["sided"] == ("always left",)
        assert odd["fan"] == ("always A",)
        assert odd["fair"] == ()
        odd = {one.voter: one.odd for one in summarize_voters(quick, {})}
        assert odd["fair"] == ("faster than reading",)
        places = summarize_addresses(votes, {vote_store.voters.address("10.0.0.1"): ""})
        assert [(one.voters, one.odd, one.excluded) for one in places] == [
            (6, ("6 voters",), True),
            (1, (), False),
        ]


class TestBlindness:
    HIDDEN = (
        "/averages", "/runs/{run}", "/runs/{run}/samples/0", "/runs/{run}/samples.csv",
        "/compare?run={run}&run={run}",
        "/heatmap?run={run}", "/leaderboard.csv", "/leaderboard.json", "/previews/{image}", "/play",
    )  # fmt: skip

    @pytest.mark.parametrize(
        ("policy", "login"),
        [
            (Policy(results=False), ""),
            (Policy(token=HOST, voter_token=VOTER, results=False), VOTER),
            (Policy(token=HOST, voter_token=VOTER, results=False), HOST),
            (Policy(token=HOST, voter_token=VOTER, results=True), VOTER),
        ],
    )
    def test_voters_see_the_arena_alone(self, store, runs, recorded, policy, login):
        image = next(runs[0].findings())["images"][0]
        with served(AppState(store, policy, recorded, free())) as address, browser(address) as client:
            if login:
                client.get(f"/arena?token={login}")
            assert client.get("/").url.path == "/arena"
            for path in self.HIDDEN:
                reply = client.get(path.format(run=runs[0].id, image=image))
                assert reply.status_code == 403, path
                assert "model-" not in reply.text.replace("which model", "")
            page = client.post("/arena")
            assert page.status_code == 200
            assert "Leaderboard" not in page.text
            assert client.get(f"{page.url.path}/images/1").status_code == 200
            assert (
                client.get(f"/arena/images/{image}").status_code == 404
            )  # whose address would tell the sample
            assert client.get("/ranking").status_code == 200

    def test_the_host_sees_results_if_told_so(self, store, runs, recorded):
        policy = Policy(token=HOST, voter_token=VOTER, results=True)
        with served(AppState(store, policy, recorded)) as address, browser(address) as client:
            assert client.get(f"/?token={HOST}").url.path == "/"
            assert client.get(f"/runs/{runs[0].id}").status_code == 200

    def test_no_tag_tells_before_the_vote(self, store, recorded):
        with served(AppState(store, Policy(), recorded, free())) as address, browser(address) as client:
            seen = 0
            while "Which answer" in (page := client.post("/arena")).text:
                unread = "no idea" in page.text
                assert "no clear answer" not in page.text
                voted = client.post(f"{page.url.path}/votes", data={"choice": "tie"}).text
                assert ("no clear answer" in voted) is unread
                seen += unread
            assert seen > 3


class TestTokens:
    def test_a_link_logs_in_and_loses_its_token(self, store):
        policy = Policy(token=HOST)
        with served(AppState(store, policy)) as address:
            reply = httpx.get(f"{address}/averages?token={HOST}&q=x")
            assert (reply.status_code, reply.headers["location"]) == (303, "/averages?q=x")
            cookie = reply.headers["set-cookie"]
            assert HOST not in cookie
            assert "HttpOnly" in cookie
            another = httpx.get(f"{address}/?token={HOST}").headers["set-cookie"]
            assert cookie.partition(";")[0] != another.partition(";")[0]  # one session a login
            wrong = httpx.get(f"{address}/?token=wrong", headers={"accept": "text/html"})
            assert wrong.headers["location"].startswith("/login")

    def test_logging_out_ends_the_session_itself(self, store):
        with served(AppState(store, Policy(token=HOST))) as address, browser(address) as client:
            client.get(f"/?token={HOST}")
            stolen = dict(client.cookies)
            assert "Log out" in client.get("/").text
            assert client.post("/logout").url.path == "/login"
            assert client.get("/").url.path == "/login"
            with browser(address) as thief:
                thief.cookies.update(stolen)
                assert thief.get("/").url.path == "/login"

    def test_the_voters_token_opens_no_more_than_the_arena(self, store, recorded):
        policy = Policy(token=HOST, voter_token=VOTER, results=True)
        with served(AppState(store, policy, recorded)) as address:
            bearer = {"authorization": f"Bearer {VOTER}"}
            assert httpx.get(f"{address}/arena", headers=bearer).status_code == 200
            assert httpx.get(f"{address}/leaderboard.json", headers=bearer).status_code == 403


class TestVotes:
    def test_a_vote_that_counts_is_final(self, store, monkeypatch):
        """After ten minutes the ranking tells the names, so that a change would be an informed one."""
        vote_store = VoteStore(store)
        one = battle(vote_store, "me")
        vote_store.vote(one.id, "me", "left")
        vote_store.undo(one.id, "me")
        vote_store.vote(one.id, "me", "left")
        monkeypatch.setattr(vote_queries, "SETTLED", -1.0)
        assert len(vote_store.verdicts()) == 1
        with pytest.raises(Conflict, match="counts this vote by now"):
            vote_store.undo(one.id, "me")
        assert vote_store.verdicts()[0].outcome == "left"

    def test_a_skipped_battle_does_not_come_back_and_an_undone_one_does(self, store, recorded):
        with served(AppState(store, Policy(), recorded, free())) as address, browser(address) as client:
            first = client.post("/arena").url.path
            assert client.post("/arena").url.path == first  # nor does a second tab begin another
            second = client.post(f"{first}/skip").url.path
            assert second != first
            client.post(f"{second}/votes", data={"choice": "left"})
            assert client.post(f"{second}/skip").status_code == 409
            client.post(f"{second}/undo")
            assert client.post("/arena").url.path == second
            client.post(f"{second}/votes", data={"choice": "left"})
            assert client.post("/arena").url.path not in (first, second)

    def test_equal_answers_are_ties_unasked_if_wanted(self, store, runs):
        vote_store = VoteStore(store)
        arena = Recorded(vote_store, runs, repeat=0, settle_identical=True, rng=Random(0))
        shown = 0
        while (one := arena.deal("me")) is not None:
            assert one.turns[0].left.text != one.turns[0].right.text
            vote_store.vote(one.id, "me", "left")
            vote_store.reveal(one.id, "me")
            shown += 1
        outcomes = [v.outcome for v in vote_store.verdicts() for _ in range(v.times)]
        assert 0 < shown < len(outcomes) == 24
        assert outcomes.count("tie") == 24 - shown

    def test_disagreements_come_first_also_where_both_are_wrong(self, workspace, store):
        def evaluate(name, answers):
            told = iter(answers)
            model = Scripted(lambda _: next(told), name)
            return run(model=model, data="chart:shapes?n=9", protocol="open-world")

        found = [evaluate("m0", ["star"] * 9), evaluate("m1", ["ring", "star", "ring"] * 3)]
        arena = Recorded(
            VoteStore(store), found, disagreements_first=True, repeat=0, overlap=0, rng=Random(1)
        )
        order = []
        while (one := arena.deal("me")) is not None:
            left, right = one.content["right"]
            differs = one.turns[0].left.text != one.turns[0].right.text
            order.append(0 if left != right else 1 if differs else 2)
            arena.vote_store.vote(one.id, "me", "tie")
        assert order == sorted(order)
        assert order.count(2) > 0

    def test_a_forged_sample_gives_no_truth(self, store, tmp_path):
        for color in ("red", "blue"):
            (tmp_path / "photos" / color).mkdir(parents=True)
            pillow.new("RGB", (20, 20), color).save(tmp_path / "photos" / color / "1.png")
        models = [Scripted(lambda _: "a square", f"m{k}") for k in range(2)]
        arena = Live(
            VoteStore(store), models, image_path=Uploads(store.folder).path,
            data=load_all(f"folder:{tmp_path / 'photos'}", {}), rng=Random(0),
        )  # fmt: skip
        with served(AppState(store, Policy(), arena, free())) as address, browser(address) as client:
            drawn = client.post("/arena/random").url.params
            own = {"image": drawn["image"], "sample": drawn["sample"], "question": "What?"}
            id = client.post("/arena", data=own).url.path.rpartition("/")[2]
            assert arena.vote_store.battle(id).content["truth"] in ("red", "blue")
            data = arena.data
            assert data is not None
            other = next(data.id(i) for i in range(2) if data.id(i) != drawn["sample"])
            id = client.post("/arena", data={**own, "sample": other}).url.path.rpartition("/")[2]
            assert arena.vote_store.battle(id).content == {}


def test_images_of_stored_runs_leave_without_metadata(store, tmp_path):
    """Neither on a page nor in a file does a photo tell where it was taken."""
    for number, color in enumerate(("red", "blue")):
        exif = pillow.Exif()
        exif[0x010F] = "a camera"
        exif.get_ifd(0x8825)[1] = "N"
        where = tmp_path / "photos" / color
        where.mkdir(parents=True)
        pillow.new("RGB", (64, 48), color).save(where / f"{number}.jpg", exif=exif)
    found = [
        run(model=Scripted(lambda r: r.sample.label, f"m{k}"), data=f"folder:{tmp_path / 'photos'}")
        for k in range(2)
    ]
    arena = Recorded(VoteStore(store), found, repeat=0, rng=Random(0))
    site = AppState(store, Policy(), arena, free())
    with served(site) as address, browser(address) as client:
        path = client.post("/arena").url.path
        shown = client.get(f"{path}/images/1").content
    one = arena.vote_store.battle(path.rpartition("/")[2])
    written = BattleImages(store, tmp_path / "out")(one, one.images[0])
    exported = Path(written).read_bytes()
    for data in (shown, exported):
        picture = pillow.open(io.BytesIO(data))
        assert picture.size == (64, 48)
        assert not picture.getexif()
        assert b"a camera" not in data
