"""Protocols as pure functions of (options, sample, responses)."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import REFUSED, converse, sample, text_of
from snellen.errors import BadOption, DataError
from snellen.protocols.base import PROTOCOLS
from snellen.protocols.binary import Binary
from snellen.protocols.closed_set import ClosedSet
from snellen.protocols.multiple_choice import MultipleChoice
from snellen.protocols.open_world import OpenWorld
from snellen.protocols.rank import Rank
from snellen.types import Kind, Outcome, Response, Sample, Score

LABELS = ("cat", "dog", "bird", "fish")


def replies(*texts):
    left = iter(texts)
    return lambda request: next(left)


def listed(request) -> list[str]:
    inside = text_of(request).partition("{")[2].partition("}")[0]
    return inside.split(", ")


class TestClosedSet:
    def test_asks_all_rounds_at_once_each_in_another_order(self):
        request_batches: list[int] = []
        found, asked = converse(ClosedSet().examine(sample(LABELS)), lambda r: "cat", request_batches)
        assert request_batches == [5]
        assert found.label == "cat"
        assert found.questions == 5
        assert all(sorted(listed(r)) == sorted(LABELS) for r in asked)
        assert len({tuple(listed(r)) for r in asked}) > 1

    def test_the_prompt_is_the_studys(self):
        fixed = ClosedSet(order="fixed", rounds=1)
        _, (request,) = converse(fixed.examine(sample(LABELS)), lambda r: "cat")
        assert text_of(request) == (
            "Answer this question in one word: What type of object is in this photo? "
            "Choose one from {cat, dog, bird, fish}. Answer:"
        )
        assert request.messages[-1].content[0] is not text_of(request)  # the image stands first

    def test_order_depends_on_seed_sample_and_round_alone(self):
        def orders(seed, name):
            _, asked = converse(ClosedSet(seed=seed).examine(sample(LABELS, id=name)), lambda r: "cat")
            return [listed(r) for r in asked]

        assert orders(1, "a") == orders(1, "a")
        assert orders(1, "a") != orders(2, "a")
        assert orders(1, "a") != orders(1, "b")

    def test_majority(self):
        found, _ = converse(ClosedSet().examine(sample(LABELS)), replies("dog", "cat", "cat", "dog", "cat"))
        assert found.label == "cat"
        assert found.details["agreement"] == 0.6
        assert not found.details["tie"]

    def test_a_tie_goes_to_the_earliest_vote_and_is_recorded(self):
        found, _ = converse(ClosedSet(rounds=4).examine(sample(LABELS)), replies("dog", "cat", "cat", "dog"))
        assert found.label == "dog"
        assert found.details["tie"]

    def test_what_cannot_be_read_casts_no_vote(self):
        found, _ = converse(ClosedSet(rounds=3).examine(sample(LABELS)), replies("hm", "cat or dog", "fish"))
        assert (found.label, found.outcome) == ("fish", Outcome.OK)
        assert found.details["votes"] == [None, None, "fish"]
        assert found.details["agreement"] == pytest.approx(1 / 3)

    @pytest.mark.parametrize(
        ("texts", "outcome"),
        [
            (("hm", "hm", "hm"), Outcome.UNPARSED),
            ((REFUSED, REFUSED, "hm"), Outcome.REFUSED),
            ((Response("It is a do", outcome=Outcome.TRUNCATED),) * 3, Outcome.TRUNCATED),
        ],
    )
    def test_no_vote_no_prediction(self, texts, outcome):
        found, _ = converse(ClosedSet(rounds=3).examine(sample(LABELS)), replies(*texts))
        assert (found.label, found.outcome) == ("", outcome)
        assert found.reason

    def test_positions_tell_where_the_answer_stood(self):
        def first(request):
            return listed(request)[0]

        found, _ = converse(ClosedSet().examine(sample(LABELS)), first)
        assert found.details["positions"] == [0] * 5
        summary = ClosedSet().summary([found.details, found.details])
        assert summary["answers_by_position"] == [10]

    @given(st.lists(st.sampled_from([*LABELS, "hm"]), min_size=1, max_size=9))
    def test_the_vote_equals_a_recount(self, texts):
        found, _ = converse(ClosedSet(rounds=len(texts)).examine(sample(LABELS)), replies(*texts))
        counts = Counter(t for t in texts if t != "hm")
        if not counts:
            assert found.outcome is Outcome.UNPARSED
            return
        best = [t for t in counts if counts[t] == max(counts.values())]
        assert found.label == min(best, key=texts.index)
        assert found.details["tie"] == (len(best) > 1)
        assert found.details["agreement"] == counts[found.label] / len(texts)


class TestBinary:
    @staticmethod
    def says(*yes):
        return lambda r: "yes" if any(f"the {name} in" in text_of(r) for name in yes) else "No."

    def test_stops_at_the_first_yes(self):
        request_batches: list[int] = []
        exam = Binary(order="fixed").examine(sample(LABELS))
        found, asked = converse(exam, self.says("dog", "bird"), request_batches)
        assert found.label == "dog"
        assert found.questions == 2 == len(asked)
        assert request_batches == [1, 1]
        assert text_of(asked[0]) == ("Answer the question in one word: yes or no. Is the cat in this image?")

    def test_all_no_is_no_class(self):
        found, asked = converse(Binary().examine(sample(LABELS)), self.says())
        assert (found.label, found.outcome, found.questions) == ("", Outcome.OK, 4)
        assert len(asked) == 4

    def test_all_no_is_the_background_which_is_not_asked_about(self):
        exam = Binary().examine(sample((*LABELS, "clutter"), background="clutter"))
        found, asked = converse(exam, self.says())
        assert found.label == "clutter"
        assert len(asked) == 4
        assert not any("clutter" in text_of(r) for r in asked)

    def test_what_cannot_be_read_is_never_a_no(self):
        exam = Binary(order="fixed").examine(sample(LABELS, background="fish"))
        found, _ = converse(exam, replies("no", "perhaps", "no"))
        assert (found.label, found.outcome) == ("", Outcome.UNPARSED)
        assert found.details["unparsed_answers"] == 1

    def test_a_later_yes_decides_all_the_same(self):
        found, _ = converse(Binary(order="fixed").examine(sample(LABELS)), replies("hm", "no", "yes"))
        assert (found.label, found.outcome) == ("bird", Outcome.OK)
        assert found.details["unparsed_answers"] == 1

    def test_refusals(self):
        found, _ = converse(Binary().examine(sample(LABELS)), lambda r: REFUSED)
        assert found.outcome is Outcome.REFUSED

    @given(
        st.lists(st.sampled_from(["yes", "no", "hm"]), min_size=4, max_size=4),
        st.integers(1, 6),
        st.integers(0, 3),
    )
    def test_a_wave_predicts_the_same(self, answers, request_batch, seed):
        script = dict(zip(LABELS, answers, strict=True))

        def answer(request):
            return next(a for name, a in script.items() if f"the {name} in" in text_of(request))

        one, _ = converse(Binary(seed=seed).examine(sample(LABELS)), answer)
        many, _ = converse(Binary(seed=seed, request_batch=request_batch).examine(sample(LABELS)), answer)
        assert one == many


class TestRank:
    @staticmethod
    def scores(*values, tokens=1):
        return lambda r: Response(scores=tuple(Score(v, tokens) for v in values))

    def test_one_request_with_all_names(self):
        found, (request,) = converse(Rank().examine(sample(LABELS)), self.scores(-3, -1, -2, -4))
        assert request.kind is Kind.SCORE
        assert request.continuations == LABELS
        assert found.label == "dog"
        assert found.ranking == ("dog", "bird", "cat", "fish")
        assert found.details["scores"]["dog"] == -1

    def test_equal_scores_keep_the_order_of_the_labels(self):
        found, _ = converse(Rank().examine(sample(LABELS)), self.scores(-1, -1, -1, -1))
        assert found.ranking == LABELS

    @pytest.mark.parametrize(
        ("how", "best"), [("sum", "ox"), ("tokens", "hippopotamus"), ("bytes", "hippopotamus")]
    )
    def test_normalization(self, how, best):
        def script(request):
            return Response(scores=(Score(-2.0, 1), Score(-4.0, 4)))

        found, _ = converse(Rank(normalize=how).examine(sample(("ox", "hippopotamus"))), script)
        assert found.label == best
        expected = {"sum": -4.0, "tokens": -1.0, "bytes": -4 / 12}[how]
        assert found.details["scores"]["hippopotamus"] == pytest.approx(expected)

    def test_similarities_are_never_normalized(self):
        script = self.scores(0.2, 0.3, 0.1, 0.0, tokens=0)
        plain, _ = converse(Rank().examine(sample(LABELS)), script)
        normalized, _ = converse(Rank(normalize="bytes").examine(sample(LABELS)), script)
        assert plain == normalized

    def test_pmi_takes_the_prior_away(self):
        def script(request):
            values = (-1, -5, -6, -7) if request.images else (-0.5, -9, -6, -7)
            return Response(scores=tuple(Score(v, 1) for v in values))

        found, asked = converse(Rank(pmi=True).examine(sample(LABELS)), script)
        assert [len(r.images) for r in asked] == [1, 0]
        assert found.label == "dog"

    def test_unknown_classes_are_not_ranked(self):
        found, _ = converse(Rank().examine(sample(LABELS)), self.scores(-math.inf, 1, -math.inf, 2))
        assert found.ranking == ("fish", "dog")
        nothing, _ = converse(Rank().examine(sample(LABELS)), self.scores(*[-math.inf] * 4))
        assert (nothing.label, nothing.outcome) == ("", Outcome.UNPARSED)

    def test_a_score_that_is_no_number_is_an_error(self):
        found, _ = converse(Rank().examine(sample(LABELS)), self.scores(1, math.nan, 2, 3))
        assert (found.label, found.outcome) == ("", Outcome.ERROR)

    def test_a_prefix_begins_the_answer(self):
        exam = Rank(prefix="The photo features a").examine(sample(LABELS))
        _, (request,) = converse(exam, self.scores(1, 2, 3, 4))
        assert [m.role for m in request.messages] == ["user", "assistant"]

    @given(st.lists(st.floats(-50, 0), min_size=4, max_size=4))
    def test_the_best_score_wins(self, values):
        found, _ = converse(Rank().examine(sample(LABELS)), self.scores(*values))
        assert values[LABELS.index(found.label)] == max(values)
        ranked = [values[LABELS.index(name)] for name in found.ranking]
        assert ranked == sorted(values, reverse=True)


class TestOpenWorld:
    def test_the_longest_name_counts_and_the_list_is_not_shown(self):
        exam = OpenWorld().examine(sample(("car", "car tyre")))
        found, (request,) = converse(exam, lambda r: "I see a car tyre on a road.")
        assert found.label == "car tyre"
        assert "tyre" not in text_of(request)

    def test_synonyms(self):
        exam = OpenWorld().examine(sample(LABELS, synonyms={"dog": ("hound",)}))
        assert converse(exam, lambda r: "a gray hound")[0].label == "dog"

    def test_out_of_the_list_is_unparsed(self):
        found, _ = converse(OpenWorld().examine(sample(LABELS)), lambda r: "a wombat")
        assert (found.label, found.outcome) == ("", Outcome.UNPARSED)

    def test_chain_of_thought_reads_the_marked_answer(self):
        exam = OpenWorld(cot=True).examine(sample(LABELS))
        found, (request,) = converse(exam, lambda r: "A dog? It has fins.\nAnswer: fish")
        assert found.label == "fish"
        assert "step by step" in text_of(request)
        assert request.decoding.max_tokens == 512

    def test_mapping_by_embedding(self, minilm):
        protocol = OpenWorld(map="embedding", embedding=minilm)
        protocol.prepare()
        found, _ = converse(protocol.examine(sample(LABELS)), lambda r: "a little kitten")
        assert found.label == "cat"
        assert found.details["mapped_by"] == "embedding"
        strict = OpenWorld(map="embedding", embedding=minilm, min_similarity=0.99)
        found, _ = converse(strict.examine(sample(LABELS)), lambda r: "a little kitten")
        assert (found.label, found.outcome) == ("", Outcome.UNPARSED)
        for reply in ("", REFUSED):
            assert converse(protocol.examine(sample(LABELS)), lambda r, reply=reply: reply)[0].label == ""  # type: ignore[misc]

    def test_words_come_before_embeddings(self, minilm):
        protocol = OpenWorld(map="embedding", embedding=minilm)
        found, _ = converse(protocol.examine(sample(LABELS)), lambda r: "a fish")
        assert found.details["mapped_by"] == "words"


@pytest.mark.parametrize("name", PROTOCOLS.entries)
def test_images_come_first_and_what_varies_last(name):
    """So that prefix caches are hit: all prompts of a sample share all but their ends."""
    protocol = PROTOCOLS.make(name, {"format": "unit"} if name == "grounding" else {})

    def script(request):
        return Response("no", scores=(Score(-1.0, 1),) * 4)

    about: dict[str, Any] = {"question": "What is it?", "choices": LABELS, "meta": {"rationale": "because"}}
    _, asked = converse(protocol.examine(sample(LABELS, **about)), script)
    assert asked
    for request in asked:
        first, *rest = request.messages[0].content
        assert not isinstance(first, str)
        assert all(isinstance(part, str) for part in rest)


@pytest.mark.parametrize("name", [n for n, e in PROTOCOLS.entries.items() if e.factory.classifies])  # type: ignore[attr-defined]
def test_a_data_set_without_class_names_is_refused(name):
    with pytest.raises(DataError, match="needs class names"):
        PROTOCOLS.make(name).check((), None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClosedSet(prompt="Which one?"), "must contain {names}"),
        (lambda: Binary(prompt="Is it?"), "must contain {name}"),
        (lambda: ClosedSet(rounds=0), "1 or more"),
        (lambda: Binary(request_batch=-1), "1 or more"),
        (lambda: OpenWorld(max_tokens=0), "1 or more"),
    ],
)
def test_options_that_make_no_sense_are_refused(make, message):
    with pytest.raises(BadOption, match=message):
        make()


@pytest.mark.parametrize("marked", [False, True])
def test_a_chain_of_thought_that_was_cut_off_is_no_answer(marked):
    """Unless it had marked one: what it says on the way names much."""
    text = "It is typical of a dog. However, looking at its whiskers and its"
    reply = Response(f"The answer is dog.\n{text}" if marked else text, outcome=Outcome.TRUNCATED)
    about: dict[str, Any] = {"labels": ("cat", "dog"), "question": "What?", "choices": ("cat", "dog")}
    for protocol in (OpenWorld(cot=True), MultipleChoice(cot=True)):
        exam = protocol.examine(Sample("a", **about))
        next(exam)
        with pytest.raises(StopIteration) as end:
            exam.send([reply])
        assert end.value.value.outcome is (Outcome.OK if marked else Outcome.TRUNCATED)
