"""Questions with options: letters, order, and all turns of the options."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import snellen
from helpers import REFUSED, Scripted, converse, picture, sample, text_of
from snellen.errors import BadOption, DataError
from snellen.parsing.choices import LETTERS
from snellen.protocols.multiple_choice import MultipleChoice
from snellen.types import Outcome, Prediction, Sample
from tasks import OPTIONS, question


def shown(request) -> list[str]:
    return [line[3:] for line in text_of(request).splitlines() if line[1:3] == ". "]


def choosing(name):
    """A model that finds an option wherever it stands."""
    return lambda request: LETTERS[shown(request).index(name)]


class TestMultipleChoice:
    def test_asks_letters_and_reads_one(self):
        found, (request,) = converse(MultipleChoice().examine(question()), lambda r: "B")
        assert text_of(request) == (
            "What is it?\nA. a star\nB. a circle\nC. a ring\nD. a moon\n"
            "Answer with the option's letter from the given choices directly."
        )
        assert (found.label, found.outcome) == ("a circle", Outcome.OK)
        assert MultipleChoice().score_sample(question(), found) == {"accuracy": 1.0}

    def test_what_cannot_be_read_is_wrong_and_never_a_guess(self):
        found, _ = converse(MultipleChoice().examine(question()), lambda r: "Both look right.")
        assert (found.label, found.outcome) == ("", Outcome.UNPARSED)
        assert MultipleChoice().score_sample(question(), found) == {"accuracy": 0.0}
        found, _ = converse(MultipleChoice().examine(question()), lambda r: REFUSED)
        assert found.outcome is Outcome.REFUSED

    def test_without_a_truth_there_is_no_score(self):
        found, _ = converse(MultipleChoice().examine(question(answers=())), lambda r: "B")
        assert MultipleChoice().score_sample(question(answers=()), found) == {}

    def test_a_line_without_its_hint_is_left_out(self):
        protocol = MultipleChoice(prompt="Hint: {hint}\n{question}\n{options}")
        _, (plain,) = converse(protocol.examine(question()), lambda r: "B")
        assert text_of(plain).startswith("What is it?")
        _, (hinted,) = converse(protocol.examine(question(meta={"hint": "It is round."})), lambda r: "B")
        assert text_of(hinted).startswith("Hint: It is round.\nWhat")
        _, (usual,) = converse(MultipleChoice().examine(question(meta={"hint": "Round."})), lambda r: "B")
        assert text_of(usual).startswith("Hint: Round.\nWhat")
        _, (none,) = converse(MultipleChoice(hint=False).examine(question(meta={"hint": "R"})), lambda r: "B")
        assert "Hint" not in text_of(none)

    def test_several_images_stand_where_the_text_names_them(self):
        images = (picture("red"), picture("blue"))
        one = Sample(
            "s", images, question="Is <image 2> like <image 1>?", choices=("yes", "no"), answers=(0,)
        )
        _, (request,) = converse(MultipleChoice().examine(one), lambda r: "A")
        kinds = [
            part if isinstance(part, str) else images.index(part) for part in request.messages[0].content
        ]
        assert kinds[:4] == ["Is ", 1, " like ", 0]

    def test_marks_of_llava_are_places_or_text(self):
        images = (picture("red"), picture("blue"))
        one = Sample("s", images, question="<image>\n<image>\nSame?", choices=("yes", "no"), answers=(0,))
        _, (request,) = converse(MultipleChoice().examine(one), lambda r: "A")
        kinds = [
            part if isinstance(part, str) else images.index(part) for part in request.messages[0].content
        ]
        assert kinds[:3] == [0, "\n", 1]
        one = Sample("s", images, question="What is <image> in HTML?", choices=("yes", "no"), answers=(0,))
        _, (request,) = converse(MultipleChoice().examine(one), lambda r: "A")
        assert request.messages[0].content[:2] == images
        assert "What is <image> in HTML?" in text_of(request)

    def test_an_image_that_is_not_there_is_left_as_text(self):
        one = Sample("s", (picture(),), question="See <image 3>.", choices=("yes", "no"), answers=(0,))
        _, (request,) = converse(MultipleChoice().examine(one), lambda r: "A")
        assert "<image 3>" in text_of(request)

    def test_several_letters(self):
        protocol = MultipleChoice(all_that_apply=True)
        one = question(answers=(0, 2))
        found, _ = converse(protocol.examine(one), lambda r: "A, C")
        assert (found.label, protocol.score_sample(one, found)) == ("a star, a ring", {"accuracy": 1.0})
        found, _ = converse(protocol.examine(one), lambda r: "A")
        assert protocol.score_sample(one, found) == {"accuracy": 0.0}

    def test_open_questions_are_mixed_in(self):
        one = sample((), question="How many?", references=("3/4", "0.75"))
        protocol = MultipleChoice(lenient=True)
        found, (request,) = converse(protocol.examine(one), lambda r: "The answer is 0.75")
        assert "single word or phrase" in text_of(request)
        assert found.label == "0.75"
        assert protocol.score_sample(one, found) == {"accuracy": 1.0, "open_lenient": 1.0}
        found, _ = converse(protocol.examine(one), lambda r: "about a half")
        assert protocol.score_sample(one, found) == {"accuracy": 0.0, "open_lenient": 0.0}
        found, _ = converse(protocol.examine(one), lambda r: "it is not 0.75 but a half")
        assert protocol.score_sample(one, found) == {"accuracy": 0.0, "open_lenient": 1.0}
        thought = "<think>It could be 0.75.</think>\n\nOne third"
        found, _ = converse(protocol.examine(one), lambda r: thought)
        assert protocol.score_sample(one, found) == {"accuracy": 0.0, "open_lenient": 0.0}
        assert MultipleChoice().score_sample(one, found) == {"accuracy": 0.0}

    def test_by_likelihood(self):
        found, (request,) = converse(
            MultipleChoice(score="letters").examine(question()), lambda r: [-3, -1, -2, -4]
        )
        assert request.continuations == ("A", "B", "C", "D")
        assert found.label == "a circle"
        found, (request,) = converse(
            MultipleChoice(score="texts").examine(question()), lambda r: [-3, -2, -1, -4]
        )
        assert request.continuations == OPTIONS
        assert "A." not in text_of(request)
        assert found.label == "a ring"
        found, _ = converse(MultipleChoice(score="letters").examine(question()), lambda r: [-1, -1, -2, -4])
        assert found.outcome is Outcome.UNPARSED

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"score": "texts", "circular": True}, "options have no order"),
            ({"score": "letters", "cot": True}, "nothing is generated"),
            ({"prompt": "Which?"}, "must contain {question}"),
            ({"max_tokens": 0}, "1 or more"),
        ],
    )
    def test_options_that_make_no_sense(self, options, message):
        with pytest.raises(BadOption, match=message):
            MultipleChoice(**options)


class TestCircular:
    """CircularEval: on the same answers the score is that of a brute-force recount."""

    @pytest.mark.parametrize("request_batch", [1, 2, 32])
    @given(data=st.data())
    def test_equals_a_recount(self, request_batch, data):
        count = data.draw(st.integers(2, 5))
        options = tuple(f"thing {i}" for i in range(count))
        truth = data.draw(st.integers(0, count - 1))
        # What a model says when the options begin with each of them: a place, or something unreadable.
        said = {options[i]: data.draw(st.sampled_from([*LETTERS[:count], "?"])) for i in range(count)}
        one = question(options, (truth,))
        protocol = MultipleChoice(circular=True, request_batch=request_batch)
        found, asked = converse(protocol.examine(one), lambda r: said[shown(r)[0]])

        right = []
        for first in range(count):  # by hand: roll the list on, look up the letter, compare texts
            rolled = options[first:] + options[:first]
            letter = said[rolled[0]]
            right.append(letter != "?" and rolled[LETTERS.index(letter)] == options[truth])
        marks = protocol.score_sample(one, found)
        assert marks == {"circular_accuracy": float(all(right)), "accuracy": float(right[0])}
        needed = right.index(False) + 1 if False in right else count
        assert found.questions == needed
        assert needed <= len(asked) <= min(count, -(-needed // request_batch) * request_batch)

    def test_a_dry_run_foresees_all_rotations(self, workspace):
        from snellen.runs.plan import Plan

        data = "chart:shapes?ask=multiple-choice&n=28"
        (found,) = Plan(
            models=["pico:llava"], data=[data], protocols=["multiple-choice?circular=true"]
        ).forecasts()
        assert found.requests == (28, 4 * 28)

    def test_every_option_stands_in_every_place_once(self):
        protocol = MultipleChoice(circular=True, request_batch=4)
        _, asked = converse(protocol.examine(question()), choosing("a circle"))
        lists = [shown(r) for r in asked]
        assert len(lists) == 4
        for place in range(4):
            assert sorted(one[place] for one in lists) == sorted(OPTIONS)

    def test_a_model_that_likes_a_letter_is_found_out(self):
        protocol = MultipleChoice(circular=True, request_batch=4)
        found, _ = converse(protocol.examine(question(answers=(0,))), lambda r: "A")
        assert protocol.score_sample(question(answers=(0,)), found) == {
            "circular_accuracy": 0.0,
            "accuracy": 1.0,
        }
        figures = protocol.summary([found.details])
        assert figures["answers_by_position"] == [1]  # as the options stand: later ones depend on the first

    def test_position_bias_by_hand(self):
        """A model that likes A: recall 1 where A is right, 0 at the three other places."""
        protocol = MultipleChoice(circular=True, request_batch=4)
        details = [
            converse(protocol.examine(question(answers=(right,))), lambda r: "A")[0].details
            for right in (0, 1, 2, 3)
        ]
        figures = protocol.summary(details)
        assert figures["answers_by_position"] == [4, 0, 0, 0]
        assert figures["truths_by_position"] == [1, 1, 1, 1]
        assert figures["position_bias"] == pytest.approx(3**0.5 / 4)

    def test_an_incomplete_group_is_refused(self):
        details = {"rotations": [[1], [1]], "options": 4}
        with pytest.raises(DataError, match="2 of 4 rotations"):
            MultipleChoice(circular=True).score_sample(
                question(), Prediction("s1", "a circle", details=details)
            )

    def test_what_cannot_be_read_in_a_rotation_is_told(self):
        for request_batch in (1, 4):
            replies = iter(["B", "hm", "A", "C"])
            protocol = MultipleChoice(circular=True, request_batch=request_batch)
            found, _ = converse(protocol.examine(question()), lambda r, replies=replies: next(replies))  # type: ignore[misc]
            assert (found.label, found.outcome) == ("", Outcome.UNPARSED)
            assert "in a rotation" in found.reason
            assert protocol.score_sample(question(), found) == {"circular_accuracy": 0.0, "accuracy": 1.0}

    def test_options_about_others_are_rolled_like_any(self):
        options = ("a star", "a circle", "all of the above")
        _, asked = converse(
            MultipleChoice(circular=True, request_batch=3).examine(question(options)), choosing("a circle")
        )
        assert {shown(r)[0] for r in asked} == set(options)

    def test_waves_change_no_figure(self, workspace):
        """One by one, as behind an address, or all at once."""
        rng = random.Random(0)
        memory: dict[tuple[str, ...], str] = {}

        def script(request):
            return memory.setdefault((request.sample.id, *shown(request)), rng.choice("ABCD"))

        runs = [
            snellen.run(
                model=Scripted(script, f"w{request_batch}"),
                data="chart:shapes?ask=multiple-choice",
                protocol=f"multiple-choice?circular=true&request_batch={request_batch}",
                limit=56,
            )
            for request_batch in (1, 4)
        ]
        one, all_ = (run.metrics for run in runs)
        assert one["circular_accuracy"] == all_["circular_accuracy"]
        assert one["accuracy"] == all_["accuracy"]
        assert one.questions == all_.questions < all_.requests
