"""Checkpoints that are asked through code of their own."""

from __future__ import annotations

from typing import Any

import pytest

import customcode
import snellen
from asking import answers
from helpers import made, picture
from snellen.errors import BadOption, ModelError, Unsupported
from snellen.models.huggingface.custom_code.base import CustomCodeModel
from snellen.types import Decoding, Message, Outcome, Request, Response

COLORS = ["red", "green", "blue"]


@pytest.fixture(scope="module", params=list(customcode.FAMILIES))
def family(request: Any) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: Any) -> Any:
    return customcode.save(family, tmp_path_factory.mktemp(family) / family)


@pytest.fixture(scope="module")
def model(checkpoint: Any) -> Any:
    model = made(CustomCodeModel, f"hf:{checkpoint}?trust_remote_code=true")
    model.load()
    yield model
    model.close()


def asked(model: CustomCodeModel, request: Request) -> Response:
    (response,) = answers(model, request)
    return response


def ask(model: Any, *content: Any, system: str = "", **decoding: Any) -> Any:
    first = (Message("system", (system,)),) if system else ()
    return asked(model, Request((*first, Message("user", content)), decoding=Decoding(**decoding)))


def test_each_family_sees_its_pictures_and_its_question(model, family):
    assert isinstance(model, CustomCodeModel)
    for color in COLORS:
        response = ask(model, picture(color, (56, 28)), "Which color is it?")
        assert (response.text, response.outcome) == (color, Outcome.OK)
        assert response.completion_tokens > 0
    assert ask(model, "Which color?").text == "none"
    code = model.family.model
    assert len(code.asked) == 4
    if family != "minicpmv":
        assert "Which color?" in ask(model, "Which color?").prompt


def test_each_family_is_cut_off_where_it_is_told_to_be(model):
    response = ask(model, picture("green"), "Which color is it?", max_tokens=1)
    assert response.outcome is Outcome.TRUNCATED
    assert response.reason == "cut off after 1 tokens"
    assert response.completion_tokens == 1


def test_each_family_evaluates_with_the_ordinary_protocols(checkpoint, tmp_path):
    for color in COLORS:
        (tmp_path / "photos" / color).mkdir(parents=True)
        for number in range(2):
            picture(color, (40 + number, 40)).pixels.save(tmp_path / "photos" / color / f"{number}.png")
    run = snellen.run(
        model=f"hf:{checkpoint}?trust_remote_code=true",
        data=f"folder:{tmp_path / 'photos'}",
        protocol="closed-set",
        workspace=tmp_path / "workspace",
    )
    assert run.predictions[["outcome", "reason"]].values.tolist() == [["ok", ""]] * 6
    assert run.headline is not None
    assert run.headline.value == 1.0


def test_without_permission_no_code_runs(checkpoint):
    with pytest.raises(ModelError, match="trust_remote_code=true"):
        made(CustomCodeModel, f"hf:{checkpoint}")


def test_what_their_code_does_not_take_is_refused(checkpoint):
    with pytest.raises(BadOption, match="through the code that comes with it"):
        made(CustomCodeModel, f"hf:{checkpoint}?trust_remote_code=true&thinking=false")
    with pytest.raises(Unsupported, match="that transformers has can do more"):
        snellen.run(
            model=f"hf:{checkpoint}?trust_remote_code=true", data="chart:shapes", protocol="rank", limit=2
        )


def test_a_conversation_goes_to_those_that_hold_one(model, family):
    turns = (
        Message("user", (picture("blue"), "Which color?")),
        Message("assistant", ("blue",)),
        Message("user", ("Are you sure?",)),
    )
    response = asked(model, Request(turns))
    if family in ("minicpmv", "phi3v"):
        assert response.text == "blue"
    else:
        assert response.outcome is Outcome.ERROR
        assert "takes one question" in response.reason


@pytest.mark.parametrize("family", ["internvl"], indirect=True)
def test_internvl_sees_tiles_of_the_nearest_shape_and_the_whole_picture(model):
    ask(model, picture("red", (56, 28)), picture("blue", (28, 28)), "Compare.", system="Be brief.")
    tiles, question, options, counts = model.family.model.asked[-1]
    # Twice as wide as high: of 1 to 12 tiles the first such grid is 2 x 1, and the whole picture follows.
    assert counts == [3, 1]
    assert tiles.shape == (4, 3, 28, 28)
    red = [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    assert tiles[0].mean((1, 2)).tolist() == pytest.approx(red, abs=1e-4)
    assert question == "Image-1: <image>\nImage-2: <image>\nBe brief.\n\nCompare."
    assert options == {
        "max_new_tokens": 32,
        "num_beams": 1,
        "repetition_penalty": 1.0,
        "do_sample": False,
    }


@pytest.mark.parametrize("family", ["minicpmv"], indirect=True)
def test_minicpm_decodes_greedily_and_takes_images_among_texts(model):
    ask(model, "Compare ", picture("red"), " with ", picture("blue"), system="Be brief.")
    msgs, system, sampling, options = model.family.model.asked[-1]
    content = msgs[0]["content"]
    assert [part if isinstance(part, str) else part.getpixel((0, 0)) for part in content] == [
        "Compare ",
        (255, 0, 0),
        " with ",
        (0, 0, 255),
    ]
    assert (system, sampling) == ("Be brief.", False)
    assert options == {"num_beams": 1, "repetition_penalty": 1.0}


@pytest.mark.parametrize("family", ["phi3v"], indirect=True)
def test_phi_numbers_its_images(model):
    response = ask(model, picture("red"), "and", picture("blue"), "Compare.")
    assert response.prompt == "<|user|>\n<|image_1|>\nand<|image_2|>\nCompare.<|end|>\n<|assistant|>\n"
