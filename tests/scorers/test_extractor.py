"""The extractor: what it is asked, that it never overrules a rule, and both figures."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import snellen
from helpers import Scripted
from snellen.datasets.base import select
from snellen.datasets.chart import chart
from snellen.errors import BadOption
from snellen.models.base import MODELS
from snellen.protocols.multiple_choice import MultipleChoice
from snellen.runs.estimate import forecast_scorers
from snellen.runs.rescore import rescore
from snellen.runs.run import open_run
from snellen.scorers.extractor import Extractor, nearest_option
from snellen.storage.store import Store
from snellen.types import Outcome, Response
from websites import png


@pytest.fixture
def extractor(monkeypatch):
    """A model that reads the word in double brackets backwards, which no rule does, and else says none."""

    def read(request) -> str | Response:
        text = request.messages[0].text
        if "[[broken]]" in text:
            return Response(outcome=Outcome.ERROR, reason="no connection")
        found = re.search(r"\[\[(.*)\]\]", text)
        return found[1][::-1] if found else "None."

    made = Scripted(read, "extractor")
    made.text_only = True
    MODELS.register("extractor")(lambda rest, **options: made)
    return made


def answered(protocol: str, *replies: str, ask: Any = "object", **options):
    data = chart("shapes", n=len(replies), ask=ask)
    said = {data.row(i).id: reply for i, reply in enumerate(replies)}
    model = Scripted(lambda request: said[request.sample.id])
    return snellen.run(model=model, data=data, protocol=protocol, **options)


def test_both_figures_stand_side_by_side(extractor, workspace):
    data = chart("shapes", n=4, ask="color")
    truth = [data.sample(i, (), None).references[0] for i in range(4)]
    long = "One looks and wonders. " * 100
    run = answered(
        "vqa?extractor=extractor:x",
        truth[0],
        f"{long} [[{truth[1][::-1]}]]",
        f"{long} [[roloc on]]",
        f"{long} who knows",
        ask="color",
    )
    assert run.metrics["exact_match"].value == 0.25
    assert run.metrics["with_extractor"].value == 0.5
    frame = run.predictions
    assert frame["prediction"].tolist() == [truth[0], "", "", ""]
    assert frame["outcome"].tolist() == ["ok", *["unparsed"] * 3]
    assert frame["extracted"].tolist()[1:3] == [truth[1], "no color"]
    assert frame["extracted"].isna().tolist() == [True, False, False, True]
    told = run.metrics.protocol
    assert (told["extractor"], told["extractor_asked"], told["extracted"]) == ("extractor:x", 3, 2)
    # Only what no rule read is asked, with the question and without an image.
    assert len(extractor.asked) == 3
    assert all("color" in r.messages[0].text and not r.images for r in extractor.asked)


def test_rescoring_asks_the_extractor_alone_and_only_once(extractor, workspace):
    long = "One looks and wonders. " * 100
    plain = answered("vqa", "red", f"{long} [[der]]", ask="color")
    assert extractor.asked == []
    with Store(workspace).database.engine.connect():
        new = open_run(rescore(Store(workspace), plain.id, {"extractor": "extractor:x"}))
    assert new.predictions["extracted"].tolist()[1] == "red"
    assert new.metrics["exact_match"] == plain.metrics["exact_match"]
    rescore(Store(workspace), plain.id, {"extractor": "extractor:x", "metric": "vqa"})
    assert len(extractor.asked) == 1


def test_letters_and_yes_and_no(extractor, workspace):
    options = "Between the two, who could say? Perhaps [[B]]"
    run = answered("multiple-choice?extractor=extractor:x", options, "A or B", "A", ask="multiple-choice")
    said = run.predictions
    assert said["extracted"].tolist()[0] == next(run.samples())["content"]["choices"][1]
    assert said["outcome"].tolist()[:2] == ["unparsed", "unparsed"]
    assert len(extractor.asked) == 2


def test_the_nearest_option_counts_where_that_is_the_rule(extractor, workspace):
    """Of what the extractor reads alone; what it says is none stays none."""
    data = chart("shapes", n=3, ask="multiple-choice")
    choices = [data.sample(i, (), None).choices for i in range(3)]
    truth = [data.sample(i, (), None).answers[0] for i in range(3)]
    near = choices[0][truth[0]][::-1] + "ni s"  # "s in NAME"
    replies = (f"Who could say? [[{near}]]", "Who could say? [[enon]]", "Nobody could say")
    strict = answered("multiple-choice?extractor=extractor:x", *replies, ask="multiple-choice")
    assert strict.predictions.get("extracted") is None
    run = answered("multiple-choice?extractor=extractor:x&nearest=true", *replies, ask="multiple-choice")
    frame = run.predictions
    assert frame["extracted"].tolist()[0] == choices[0][truth[0]]
    assert frame["extracted"].isna().tolist() == [False, True, True]
    assert frame["outcome"].tolist() == ["unparsed"] * 3
    assert run.metrics["accuracy"].value == 0
    assert run.metrics["with_extractor"].value == pytest.approx(1 / 3)


@given(st.text(max_size=12), st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5))
def test_the_nearest_by_hand(text, options):
    def distance(a: str, b: str) -> int:
        row = list(range(len(b) + 1))
        for i, x in enumerate(a, 1):
            last, row[0] = row[0], i
            for j, y in enumerate(b, 1):
                last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
        return row[-1]

    distances = [distance(text, option) for option in options]
    assert nearest_option(text, options) == distances.index(min(distances))


@pytest.mark.parametrize(
    ("options", "said", "nearest"),
    [("CBA", "Aa", 2), ("421", "1 cm", 2), ("DE", "EE", 1), (["two", "three"], "thrice", 1)],
)
@pytest.mark.parametrize("circular", ["false", "true"])
def test_options_that_look_like_letters(extractor, tmp_path, options, said, nearest, circular):
    """The nearest one is chosen, not the option that its text would name."""
    (tmp_path / "a.png").write_bytes(png())
    row = {"image": "a.png", "q": "?", "o": list(options), "a": "ABC"[nearest]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    data = f"jsonl:{tmp_path}/rows.jsonl?question=q&choices=o&answer=a&answer_as=letter"
    model = Scripted(lambda _: f"Who could say? [[{said[::-1]}]]")
    run = snellen.run(
        model=model,
        data=data,
        protocol=f"multiple-choice?extractor=extractor:x&nearest=true&circular={circular}&request_batch=9",
        workspace=tmp_path / "ws",
    )
    assert run.metrics["with_extractor"].value == 1


def test_what_a_rule_read_and_refusals_are_not_asked(extractor, workspace):
    answered(
        "closed-set?rounds=1&extractor=extractor:x", "star", "I'm sorry, but I can't help.", "", ask="object"
    )
    assert extractor.asked == []


def test_errors_are_counted_and_asked_again(extractor, workspace):
    replies = ("perhaps [[broken]]", "perhaps [[rats]]")
    run = answered("closed-set?rounds=2&extractor=extractor:x", *replies, ask="object")
    assert run.metrics.protocol["extractor_errors"] == 1
    assert run.predictions["extracted"].tolist()[1] == "star"
    asked = len(extractor.asked)
    answered("closed-set?rounds=2&extractor=extractor:x", *replies, ask="object")
    assert len(extractor.asked) > asked


def test_a_dry_run_shows_what_it_may_be_asked(extractor):
    data = select(chart("shapes", n=3, ask="multiple-choice"))
    protocol = MultipleChoice(extractor="extractor:x", circular=True)
    (found,) = forecast_scorers(data, protocol, "multiple-choice")
    assert found.requests == (0, 3)  # a circular evaluation stops at an unread answer
    assert found.tokens_in[1] > 0


def test_a_model_that_needs_an_image_is_no_extractor():
    with pytest.raises(BadOption, match="generates text without an image"):
        Extractor("pico:clip", MultipleChoice(), "a letter").check()
