"""Votes out and in, in the formats of others."""

from __future__ import annotations

import json
from random import Random

import pytest

from snellen.arena.exchange import export, read
from snellen.arena.recorded import Recorded
from snellen.arena.results import ArenaResults
from snellen.errors import DataError
from snellen.storage.store import Store
from snellen.storage.vote_rows import Choice
from snellen.storage.votes import VoteStore
from voting import battle, vote


class TestExchange:
    @pytest.fixture
    def voted(self, vote_store):
        for k, choice in enumerate(Choice):
            one = battle(
                vote_store, f"v{k}", said=(f"left {k}", f"right {k}"), images=("ab" * 32,), item=f"i{k}"
            )
            vote_store.vote(one.id, f"v{k}", choice, ["left:missed"] if k == 0 else [])
            vote_store.reveal(one.id, f"v{k}")
        return vote_store

    def test_public_preference_data(self, voted):
        found = list(export(voted, "preferences"))
        assert [row["winner"] for row in found] == ["model_a", "model_b", "tie", "tie (bothbad)"]
        row = found[0]
        assert (row["model_a"], row["model_b"], row["turn"], row["anony"]) == ("A", "B", 1, True)
        assert row["conversation_a"] == [
            {"role": "user", "content": "What is it?"},
            {"role": "assistant", "content": "left 0"},
        ]
        assert row["reasons"] == ["left:missed"]
        assert row["judge"] == "v0"

    def test_images_are_hashes_and_lead_nowhere(self, vote_store, tmp_path):
        from snellen.web.images import BattleImages

        row = {"question_id": "q", "model_a": "x", "model_b": "y", "winner": "tie", "tstamp": 1.7e9,
               "conversation_a": [], "conversation_b": [],
               "images": ["../outside/secret", 3, "ab" * 32]}  # fmt: skip
        (tmp_path / "v.jsonl").write_text(json.dumps(row))
        assert read(vote_store, tmp_path / "v.jsonl", "preferences").votes == 1
        (one,) = vote_store.voted()
        assert one.images == ("ab" * 32,)
        secret = vote_store.store.preview_path("../outside/secret")
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_bytes(b"mine")
        assert BattleImages(vote_store.store, tmp_path / "out")(one, "../outside/secret") == ""
        assert not (tmp_path / "out").exists()

    def test_pairs_for_dpo(self, voted):
        found = list(export(voted, "dpo"))
        assert len(found) == 2  # ties teach nothing
        assert found[0]["prompt"] == [{"role": "user", "content": "What is it?"}]
        assert found[0]["chosen"] == [{"role": "assistant", "content": "left 0"}]
        assert found[0]["rejected"] == [{"role": "assistant", "content": "right 0"}]
        assert found[1]["chosen"] == [{"role": "assistant", "content": "right 1"}]

    @pytest.mark.parametrize("layout", ["preferences", "fastchat"])
    def test_what_leaves_comes_back(self, voted, layout, tmp_path):
        file = tmp_path / "votes.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in export(voted, layout)))
        other = VoteStore(Store(tmp_path / "other"))
        assert read(other, file, layout) == (4, 4, 0)
        assert read(other, file, layout) == (4, 0, 0)  # nothing is doubled
        mine = [(b.left, b.right, b.vote.choice, b.turns[0].left.text) for b in voted.voted()]
        theirs = [(b.left, b.right, b.vote.choice, b.turns[0].left.text) for b in other.voted()]
        assert theirs == mine
        assert not {b.voter for b in other.voted()} & {"v0", "v1", "v2", "v3"}
        assert ArenaResults.of(other).ranking.votes == 4
        # The other layout of the same votes, and one's own export, bring nothing new.
        again = tmp_path / "again.jsonl"
        twin = {"preferences": "fastchat", "fastchat": "preferences"}[layout]
        again.write_text("".join(json.dumps(row) + "\n" for row in export(voted, twin)))
        assert read(other, again, twin) == (4, 0, 0)
        assert read(voted, file, layout) == (4, 0, 0)
        assert len(voted.cast()) == 4

    def test_several_judges_of_one_question_are_of_one_item(self, vote_store, tmp_path):
        row = {"question_id": "q", "model_a": "x", "model_b": "y", "conversation_a": [], "conversation_b": []}
        lines = [{**row, "judge": judge, "winner": w} for judge, w in [("p", "model_a"), ("q", "model_b")]]
        lines += [{**row, "question_id": f"q{k}", "judge": "p", "winner": "tie"} for k in range(5)]
        file = tmp_path / "p.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)))
        assert read(vote_store, file, "preferences") == (7, 7, 0)
        assert sorted(b.vote.choice for b in vote_store.voted()) == ["left", "right", *["tie"] * 5]
        plain, held = ArenaResults.of(vote_store), ArenaResults.of(vote_store, style=True)
        assert plain.quality.shared == 1
        assert [s.wins for s in plain.ranking.standings] == [s.wins for s in held.ranking.standings] == [1, 1]

    @pytest.mark.parametrize(
        "more",
        [
            {"right": True}, {"right": [True]}, {"right": {"a": 1}}, {"right": ["yes", "no"]},
            {"propensity": -3}, {"propensity": 7}, {"tstamp": 1e300}, {"tstamp": "soon"},
        ],
    )  # fmt: skip
    def test_what_would_break_a_ranking_is_refused(self, vote_store, tmp_path, more):
        row = {"question_id": "q", "model_a": "x", "model_b": "y", "conversation_a": [], "conversation_b": []}
        file = tmp_path / "p.jsonl"
        file.write_text(json.dumps({**row, "winner": "tie", **more}))
        with pytest.raises(DataError, match="line 1"):
            read(vote_store, file, "preferences")
        assert ArenaResults.of(vote_store).ranking is None

    def test_texts_that_databases_do_not_take(self, vote_store, tmp_path):
        said = [{"role": "user", "content": "a\0b"}, {"role": "assistant", "content": "c\ud83d"}]
        row = {"question_id": "q\ud83d", "model_a": "x\0", "model_b": "y", "winner": "tie", "tstamp": 1.7e12}
        file = tmp_path / "p.jsonl"
        file.write_text(json.dumps({**row, "conversation_a": said, "conversation_b": said}))
        assert read(vote_store, file, "preferences") == (1, 1, 0)
        (one,) = vote_store.voted()
        assert one.vote.created.startswith("2023")
        assert "\0" not in one.turns[0].question

    def test_images_leave_as_files(self, runs, tmp_path):
        from snellen.web.images import BattleImages

        vote_store = VoteStore(runs[0].store)
        dealt = Recorded(vote_store, runs, repeat=0, rng=Random(0)).deal("me")
        assert dealt is not None
        vote(vote_store, dealt, "left")
        album = BattleImages(runs[0].store, tmp_path / "images")
        (row,) = export(vote_store, "dpo", album)
        (path,) = row["images"]
        from PIL import Image

        with Image.open(path) as picture:
            assert picture.size == (96, 96)

    def test_other_layouts_of_others(self, vote_store, tmp_path):
        lines = [
            # arena-human-preference-55k
            {"id": 30192, "model_a": "gpt-4", "model_b": "vicuna", "prompt": '["Hi?", "And?"]',
             "response_a": '["Hello.", "More."]', "response_b": '["Hm.", null]',
             "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0},
            # conversations as JSON in a text, contents in parts
            {"question_id": "q", "model_a": "x", "model_b": "y", "winner": "tie (bothbad)", "tstamp": 1.7e9,
             "conversation_a": json.dumps([{"role": "user", "content": [{"type": "text", "text": "See?"}]},
                                           {"role": "assistant", "content": "Yes."}]),
             "conversation_b": json.dumps([{"role": "user", "content": "See?"},
                                           {"role": "assistant", "content": "No."}])},
        ]  # fmt: skip
        file = tmp_path / "p.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)))
        assert read(vote_store, file, "preferences") == (2, 2, 0)
        first, second = (
            vote_store.voted()
            if next(vote_store.voted()).left == "gpt-4"
            else reversed(list(vote_store.voted()))
        )
        assert [turn.question for turn in first.turns] == ["Hi?", "And?"]
        assert [turn.left.text for turn in first.turns] == ["Hello.", "More."]
        assert second.turns[0].question == "See?"
        assert second.vote.choice == Choice.BOTH_BAD

    def test_fastchats_log_holds_more_than_votes(self, vote_store, tmp_path):
        state = {"messages": [["USER", ["What?", ["image"]]], ["ASSISTANT", "A cat."]], "offset": 0}
        lines = [
            {"tstamp": 1.0, "type": "chat", "model": "x", "state": {}},
            {"tstamp": 2.0, "type": "leftvote", "models": ["", ""], "ip": "10.0.0.1",
             "states": [{**state, "model_name": name, "conv_id": name} for name in "xy"]},
        ]  # fmt: skip
        file = tmp_path / "log.json"
        file.write_text("\n".join(map(json.dumps, lines)))
        assert read(vote_store, file, "fastchat") == (2, 1, 1)
        (one,) = vote_store.voted()
        assert (one.left, one.right, one.turns[0].question) == ("x", "y", "What?")
        assert "10.0.0.1" not in str(one)

    @pytest.mark.parametrize(
        "line", ["{", "[]", '{"winner": "me"}', '{"model_a": "x", "model_b": "y", "winner": "z"}']
    )
    def test_another_layout(self, vote_store, tmp_path, line):
        file = tmp_path / "x.jsonl"
        file.write_text(line + "\n")
        with pytest.raises(DataError, match="line 1: not in the layout"):
            read(vote_store, file, "preferences")
        with pytest.raises(DataError, match="cannot be read"):
            read(vote_store, tmp_path / "none.jsonl", "preferences")
