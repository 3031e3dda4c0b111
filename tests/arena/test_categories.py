"""Kinds of questions: told by their words, and ranked apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from snellen.arena.categories import CATEGORIES, categories_of
from snellen.arena.results import ENOUGH, ArenaResults
from snellen.cli import app
from snellen.errors import BadOption
from snellen.storage.store import Store
from snellen.storage.vote_rows import Turn
from snellen.storage.votes import VoteStore
from voting import battle, vote

runner = CliRunner()


@pytest.mark.parametrize(
    ("question", "kinds"),
    [
        ("What is it?", "identification"),
        ("Which of these classes best describes the object? star, ring", "identification"),
        ("Describe the image in detail.", "description"),
        ("What's in this image?", "description"),
        ("How many dogs are in the picture?", "counting"),
        ("What does the sign say?", "reading"),
        ("Transcribe the receipt.", "reading"),
        ("Is this a cat?", "yes or no"),
        ("Is there a dog left of the tree?", "where, yes or no"),
        ("Where was this photo taken?", "where"),
        ("Why is the man laughing?", "reasoning"),
        ("Solve this equation.", "reasoning"),
        ("Write a haiku about this picture.", "writing"),
        ("What is the highest value in the chart?", "charts and documents"),
        ("Was ist das?", "other"),
        ("", "other"),
    ],
)
def test_words_tell_the_kind(question, kinds):
    assert ", ".join(name for name in CATEGORIES if name in categories_of(question)) == kinds


@given(st.text(max_size=200))
def test_every_question_has_a_kind(question):
    assert categories_of(question) <= set(CATEGORIES)
    assert categories_of(question)


def asked(vote_store: VoteStore, question: str, winner: str, times: int) -> None:
    """So many votes on a question, by as many voters, all for one model."""
    for i in range(times):
        voter = f"{question} {i}"
        one = battle(vote_store, voter)
        one = vote_store.keep(
            replace(one, id="", item=voter, turns=(replace(one.turns[0], question=question),))
        )
        vote(vote_store, one, "left" if winner == one.left else "right")


@pytest.fixture
def votes(anywhere) -> VoteStore:
    """A reads better, B counts better; B leads, since more was counted."""
    vote_store = VoteStore(Store(anywhere))
    asked(vote_store, "What does the sign say?", "A", ENOUGH)
    asked(vote_store, "How many are there?", "B", 2 * ENOUGH)
    asked(vote_store, "Where is it?", "A", 1)
    return vote_store


def test_each_kind_has_its_ranking(votes):
    everything = ArenaResults.of(votes)
    assert everything.ranking is not None
    assert everything.ranking.standings[0].model == "B"
    assert dict(everything.questions) == {"reading": ENOUGH, "counting": 2 * ENOUGH, "where": 1}
    firsts = {name: known.standings[0].model for name, known in everything.by_category.items()}
    assert firsts == {"reading": "A", "counting": "B"}  # of a single vote there is none
    for style in (False, True):
        reading = ArenaResults.of(votes, category="reading", style=style)
        assert reading.ranking is not None
        assert (reading.ranking.standings[0].model, reading.ranking.votes) == ("A", ENOUGH)
        assert not reading.by_category
    assert everything.as_dict()["categories"]["reading"]["votes"] == ENOUGH
    with pytest.raises(BadOption, match="Did you mean 'counting'"):
        ArenaResults.of(votes, category="countin")


def test_the_command(votes, anywhere):
    told = runner.invoke(app, ["votes", "ranking"], catch_exceptions=False).output
    assert "Ranks by kind of question" in told
    assert "40 votes" in told
    told = runner.invoke(app, ["votes", "ranking", "--category", "reading"], catch_exceptions=False).output
    assert "20 votes by 20 voters" in told
    told = runner.invoke(app, ["votes", "ranking", "--category", "writing"], catch_exceptions=False).output
    assert "No votes on such questions. There are votes on: reading (20), counting (40), where (1)." in told


def test_later_questions_do_not_count(workspace):
    vote_store = VoteStore(Store(workspace))
    one = battle(vote_store)
    more = Turn(1, "How many?", one.turns[0].left, one.turns[0].right)
    one = vote_store.keep(replace(one, id="", turns=(one.turns[0], more)))
    vote(vote_store, one, "left")
    assert dict(ArenaResults.of(vote_store).questions) == {"identification": 1}
