"""Prompts as the families' chat templates want them."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from asking import question
from helpers import made
from snellen.errors import BadOption, ModelError, Stopped
from snellen.models.huggingface.chat import ChatRenderer, ChatTemplate, pinned
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.types import Kind, Message, Outcome

PARTS = (
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
)
#: Templates in the shapes of families, with this tokenizer's tokens; how they want a user's text, and the
#: form of an answer.
FAMILIES = {
    # LLaVA, Idefics 3: all contents are parts.
    "parts": (
        "{% for message in messages %}{{ message['role'] }}: " + PARTS + "\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}",
        "text",
        list,
    ),
    # Qwen2-VL: ChatML, a default system prompt.
    "chatml": (
        "{% if messages[0]['role'] != 'system' %}<s>system\nYou are a helpful assistant.</s>\n{% endif %}"
        "{% for message in messages %}<s>{{ message['role'] }}\n"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        + PARTS
        + "{% endif %}</s>\n"
        "{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}",
        "text",
        list,
    ),
    # GLM-4.1V: the answer is printed as it is.
    "glm": (
        "<s>{% for message in messages %}{% if message['role'] == 'user' %}user\n" + PARTS + "\n"
        "{% elif message['role'] == 'assistant' %}assistant\n{{ message['content'] }}\n{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}assistant\n{% endif %}",
        "text",
        str,
    ),
    # Pixtral in vLLM's form: the answer is added to a text.
    "mistral": (
        "<s>{% for message in messages %}{% if message['role'] == 'user' %}[INST]" + PARTS + "[/INST]"
        "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}{% else %}"
        "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}",
        "text",
        str,
    ),
    # Pixtral in the Hub's older form.
    "older pixtral": (
        "<s>{% for message in messages %}{% if message['role'] == 'user' %}[INST]"
        "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['content'] }}"
        "{% else %}IMAGE{% endif %}{% endfor %}[/INST]"
        "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
        "{% endif %}{% endfor %}",
        "content",
        str,
    ),
    # Gemma 3: turns, the assistant is the model.
    "gemma": (
        "<s>{% for message in messages %}<start_of_turn>"
        "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
        "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
        + PARTS
        + "{% endif %}"
        "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        "text",
        list,
    ),
    # Llama 3.2 Vision: a date in the system prompt.
    "llama": (
        "<s>system\nToday: {{ date_string if date_string is defined else strftime_now('%d %b %Y') }} "
        "{{ strftime_now('%d %b %Y') }}\n{% for message in messages %}{{ message['role'] }}\n"
        + PARTS
        + "</s>"
        "{% endfor %}{% if add_generation_prompt %}assistant\n\n{% endif %}",
        "text",
        list,
    ),
}


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> Path:
    return tiny.save("llava", tmp_path_factory.mktemp("llava"))


def with_template(llava: Path, folder: Path, template: str | None, **options: str) -> VisionLanguageModel:
    """The tiny LLaVA, with another template."""
    for file in llava.iterdir():
        if file.name != "chat_template.jinja":
            (folder / file.name).write_bytes(file.read_bytes())
    if template is not None:
        (folder / "chat_template.jinja").write_text(template.replace("IMAGE", "<image>"))
    return made(VisionLanguageModel, f"hf:{folder}", {"prefix": "off", **options})


def rendered(chat: ChatRenderer, *messages: Message) -> str:
    return chat.prompt(messages)


class TestFamilies:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_tokens_are_those_of_transformers(self, llava, tmp_path, family):
        """Of a question with an image, and of a conversation: one beginning, one image, the same system
        prompt and call for an answer.
        """
        template, name, answer = FAMILIES[family]
        model = with_template(llava, tmp_path, template)
        model.load()
        request = question("What is it?")
        (image,) = request.images
        parts = [{"type": "image", "image": image.pixels}, {"type": "text", name: "What is it?"}]
        said = "A star." if answer is str else [{"type": "text", "text": "A star."}]
        more = [{"type": "text", name: "Of which color?"}]
        turns = [
            {"role": "user", "content": parts},
            {"role": "assistant", "content": said},
            {"role": "user", "content": more},
        ]
        later = (*request.messages, Message("assistant", ("A star.",)), Message("user", ("Of which color?",)))
        for messages, conversation in ((request.messages, turns[:1]), (later, turns)):
            expected = model.processor.apply_chat_template(
                conversation,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                chat_template=pinned(model.processor.chat_template),
                date_string="1 January 2025",
            )["input_ids"]
            ours = model.process(model.prompt(messages), request.images)["input_ids"]
            assert ours.tolist() == expected.tolist()

    @pytest.mark.parametrize("family", FAMILIES)
    def test_a_name_is_scored_as_its_words(self, llava, tmp_path, family):
        model = with_template(llava, tmp_path, FAMILIES[family][0])
        model.load()
        chat = ChatRenderer(model.processor)
        messages = question("What is it?").messages
        text = chat.prompt(messages) + chat.continuation(messages, "star")
        assert text.rstrip().endswith("star")
        assert "type" not in text
        tails, _ = model.tails(replace(question("?"), continuations=("star",)), chat.prompt(messages))
        assert model.tokenizer.decode(tails[0]).strip() == "star"
        prompt, answer = chat.lesson(messages, "star")
        assert "star" in answer
        assert "type" not in prompt + answer

    def test_prompts_do_not_depend_on_the_day(self, llava, tmp_path):
        model = with_template(llava, tmp_path, FAMILIES["llama"][0])
        model.load()
        prompt = model.prompt(question("What is it?").messages)
        assert "Today: 1 January 2025 01 Jan 2025" in prompt
        assert model.identity()["date"] == "2025-01-01"


class TestRefused:
    @pytest.mark.parametrize(
        ("template", "why"),
        [
            ("{% for message in messages %}{{ message['role'] }}{% endfor %}", "loses the question"),
            ("{{ messages[0]['content'] }}", "shows the form"),
            ("{{ raise_exception('no') }}", "fails"),
            (
                "{% for part in messages[0]['content'] %}{{ part['text'] }}{% endfor %}",
                "loses the image",
            ),
        ],
    )
    def test_a_template_that_loses_something(self, llava, tmp_path, template, why):
        model = with_template(llava, tmp_path, template)
        if why == "shows the form":
            model.load()  # it takes text, so that it gets text
            assert "<image>\nWhat" in model.prompt(question("What?").messages)
            return
        with pytest.raises(ModelError, match=f"chat template {why}.*-M chat_template=FILE"):
            model.load()

    def test_another_template_helps(self, llava, tmp_path):
        file = tmp_path / "mine.jinja"
        file.write_text(FAMILIES["chatml"][0].replace("IMAGE", "<image>"))
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        broken = "{{ raise_exception('no') }}"
        model = with_template(llava, folder, broken, chat_template=str(file))
        model.load()
        assert "You are a helpful assistant." in model.prompt(question("What?").messages)
        plain = with_template(llava, folder, broken)
        assert model.identity()["chat_template"] != plain.identity().get("chat_template")
        with pytest.raises(BadOption, match="cannot be read"):
            with_template(llava, folder, broken, chat_template=str(tmp_path / "none.jinja"))


THINKING = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}" + PARTS + "{% endif %}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}{% endif %}{{ style }}"
)


class TestVariables:
    def test_thinking_is_turned_off(self, llava, tmp_path):
        on = with_template(llava, tmp_path, THINKING)
        off = with_template(llava, tmp_path, THINKING, thinking="false")
        for model in (on, off):
            model.load()
        prompts = [model.prompt(question("What?").messages) for model in (on, off)]
        assert prompts[0].endswith("<think>\n")
        assert prompts[1].endswith("</think>\n\n")
        assert on.identity() != off.identity()
        scored = replace(question("What?"), kind=Kind.SCORE, continuations=("star", "ring"))
        with pytest.raises(Stopped, match="begins answers with <think>.*-M thinking=false"):
            on.answer([scored])
        assert len(off.answer([scored])[0].scores) == 2

    def test_any_other(self, llava, tmp_path):
        model = with_template(llava, tmp_path, THINKING, **{"template.style": "short"})
        model.load()
        assert model.prompt(question("What?").messages).endswith("short")
        assert model.identity()["template"] == {"style": "short"}

    def test_values(self):
        given = {"a": "true", "b": "3", "c": "yes", "d": '"true"'}
        assert ChatTemplate.of(None, None, given).variables == {"a": True, "b": 3, "c": "yes", "d": "true"}


class TestWithout:
    def test_a_template_of_the_tokenizer_alone(self, llava, tmp_path):
        """Its messages are texts, and the image's mark is put there."""
        model = with_template(llava, tmp_path, None)
        config = json.loads((tmp_path / "tokenizer_config.json").read_text())
        config["chat_template"] = (
            "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}"
            "{% endfor %}"
            "{% if add_generation_prompt %}assistant:{% endif %}"
        )
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        model.load()
        prompt = model.prompt(question("What?").messages)
        assert prompt == "user: <image>\nWhat?\nassistant:"

    def test_no_template_is_said(self, llava, tmp_path, caplog):
        model = with_template(llava, tmp_path, None)
        with caplog.at_level(logging.WARNING):
            model.load()
        assert "has no chat template" in caplog.text
        assert "-M chat_template=FILE" in caplog.text

    def test_a_tokenizer_without_padding(self, llava, tmp_path):
        model = with_template(llava, tmp_path, FAMILIES["parts"][0])
        for name in ("tokenizer_config.json", "config.json", "generation_config.json"):
            config = json.loads((tmp_path / name).read_text())
            config.pop("pad_token", None)
            config.pop("pad_token_id", None)
            (tmp_path / name).write_text(json.dumps(config))
        model.load()
        replies = model.answer([question("What?"), question("What is it? {star, ring}")])
        assert all(reply.outcome in (Outcome.OK, Outcome.TRUNCATED) for reply in replies)


class TestSystemTurns:
    """Templates without them (Gemma's) get what they say before the first question."""

    NONE = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{% for message in messages %}{{ message['role'] }}: " + PARTS + "\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    SILENT = (
        "{% for message in messages if message['role'] != 'system' %}{{ message['role'] }}: "
        + PARTS
        + "\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )

    @pytest.mark.parametrize("template", [NONE, SILENT])
    def test_they_are_folded_into_the_first_question(self, llava, tmp_path, template):
        model = with_template(llava, tmp_path, template)
        model.load()
        chat = model.chat
        assert chat.folds_system
        first = (Message("system", ("Be brief.",)), *question("What is it?").messages)
        text = rendered(chat, *first)
        assert "user: <image>Be brief.\n\nWhat is it?" in text
        later = (*first, Message("assistant", ("A star.",)), Message("user", ("Sure?",)))
        assert rendered(chat, *later).count("Be brief.") == 1
        prompt, lesson = chat.lesson(first, "A star.")
        assert "Be brief." in prompt
        assert "A star." in lesson

    def test_others_are_as_they_were(self, llava, tmp_path):
        model = with_template(llava, tmp_path, FAMILIES["parts"][0])
        model.load()
        assert not model.chat.folds_system
        first = (Message("system", ("Be brief.",)), *question("What is it?").messages)
        assert rendered(model.chat, *first).startswith("system: Be brief.")
