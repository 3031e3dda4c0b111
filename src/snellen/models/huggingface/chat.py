"""Render messages with a checkpoint's chat template."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from snellen.errors import BadOption, ModelError, reason_of
from snellen.models.marks import literal
from snellen.types import Message

__all__ = ["DATE", "ChatRenderer", "ChatTemplate", "inserts_images", "pinned"]

_MARK = "@@answer@@"
#: Some templates include today's date; a fixed one keeps prompts reproducible.
DATE = datetime(2025, 1, 1)


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """What a user says about the chat template.

    Attributes:
        text: a template to use in place of the checkpoint's own.
        variables: of the template.
    """

    text: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, file: str | None, thinking: bool | None, variables: Mapping[str, str]) -> ChatTemplate:
        """Return it from options.

        Args:
            file: a Jinja file, or None.
            thinking: whether the model is to think, by the variables that templates have for it; None
                leaves it to the template.
            variables: others; numbers, true, false and other JSON are such values, all else is text.

        Raises:
            BadOption: the file cannot be read.
        """
        text = None
        if file is not None:
            try:
                text = Path(file).expanduser().read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise BadOption(f"chat_template={file}: cannot be read ({reason_of(error)}).") from error
        switch = {} if thinking is None else {"enable_thinking": thinking, "thinking": thinking}
        return cls(text=text, variables={**switch, **{k: _value(v) for k, v in variables.items()}})

    def identity(self) -> Mapping[str, Any]:
        """Return what can change a prompt."""
        known: dict[str, Any] = {"date": DATE.date().isoformat()}
        if self.text is not None:
            known["chat_template"] = sha256(self.text.encode()).hexdigest()
        if self.variables:
            known["template"] = dict(self.variables)
        return known


class ChatRenderer:
    """Renders conversations with a processor's chat template.

    Templates differ in how they want a message's content: as parts, as parts whose text is called
    ``content`` (older ones of Pixtral), or as text. Each role gets the first form of which a probe's text and
    image survive. A checkpoint without a template gets the plain form: its image token (if it has one) and
    the text.

    Raises:
        ModelError: the template loses questions or images.
    """

    def __init__(self, processor: Any, template: ChatTemplate | None = None) -> None:
        self._processor = processor
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._variables = dict(template.variables) if template is not None else {}
        with_template = (p for p in (processor, self._tokenizer) if getattr(p, "chat_template", None))
        self._owner: Any = next(with_template, None)
        own = self._owner.chat_template if self._owner is not None else None
        if template is not None and template.text is not None:
            self._owner, own = processor, template.text
        # Some checkpoints have several by name.
        self._text = pinned(own["default"] if isinstance(own, Mapping) else own) if own else ""
        self._image_token = str(getattr(processor, "image_token", None) or "")
        if self._owner is None and inserts_images(processor):
            self._image_token = ""
        self._forms: dict[str, Callable[[Message], Any]] = {}
        #: Whether the template has no system turns (Gemma's), so that they are put before the first question.
        self.folds_system = False
        self._find_forms()
        self.separator = self._find_separator()

    @property
    def has_template(self) -> bool:
        """Whether there is a chat template."""
        return self._owner is not None

    @cached_property
    def opens_thinking(self) -> bool:
        """Whether answers begin within the model's reasoning."""
        prompt = self._render([Message("user", ("?",))], add_generation_prompt=True)
        return prompt.rstrip().endswith(("<think>", "<thinking>"))

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return the text up to the start of the answer; a started answer is its end."""
        begun = ""
        if messages[-1].role == "assistant":
            *messages, last = messages
            begun = self.separator + literal(last.text)
        return self._render(messages, add_generation_prompt=True) + begun

    def continuation(self, messages: Sequence[Message], text: str) -> str:
        """Return a continuation as it follows :meth:`prompt`: after a space, if there is one."""
        begun = messages[-1].role == "assistant"
        return (" " if begun else self.separator) + literal(text)

    def lesson(self, messages: Sequence[Message], answer: str) -> tuple[str, str]:
        """Return a prompt, and the text to train on: the answer with its end token."""
        end = str(self._tokenizer.eos_token or "")
        after = ""
        if self.has_template:
            turns = [*messages, Message("assistant", (_MARK,))]
            after = self._render(turns, add_generation_prompt=False).partition(_MARK)[2]
        tail = after[: after.index(end) + len(end)] if end and end in after else after.rstrip() + end
        return self.prompt(messages), self.continuation(messages, answer) + tail

    @cached_property
    def keeps_turns(self) -> bool:
        """Whether a longer conversation's text begins with that of its first turns, as it was learned."""
        turns = [Message("user", ("a",)), Message("assistant", ("b",)), Message("user", ("c",))]
        return self.prompt(turns).startswith("".join(self.lesson(turns[:1], "b")))

    def adds_special_tokens(self, prompt: str) -> bool:
        """Return whether the tokenizer must add its own special tokens, as decided by transformers: not if
        the template already starts with the first of them.
        """
        bos = self._tokenizer.bos_token
        return not (bos is not None and prompt.startswith(bos))

    # ── the template ────────────────────────────────────────────────────────────────────────────────

    def _render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        if self._owner is None:
            return "\n".join(self._plain(message) for message in messages)
        if self.folds_system:
            messages = _folded(messages)
        turns = [{"role": message.role, "content": self._content(message)} for message in messages]
        return str(
            self._owner.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                chat_template=self._text,
                date_string=f"{DATE.day} {DATE:%B %Y}",
                **self._variables,
            )
        )

    def _content(self, message: Message) -> Any:
        form = self._forms.get(message.role)
        return _parts(message) if form is None else form(message)

    def _plain(self, message: Message) -> str:
        mark = f"{self._image_token}\n" if self._image_token else ""
        return "".join(literal(part) if isinstance(part, str) else mark for part in message.content)

    def _find_forms(self) -> None:
        if self._owner is None:
            return
        forms = (_parts, _parts_called_content, self._plain)
        asked = Message("user", (_IMAGE, _MARK))
        problem = self._first("user", forms, lambda: self._lost([asked], image=True))
        if problem:
            raise ModelError(
                f"The chat template {problem}. Give one that fits: -M chat_template=FILE, with a template in "
                "Jinja."
            )
        user = Message("user", ("?",))
        answered = [user, Message("assistant", (_MARK,))]
        self._first("assistant", forms, lambda: self._lost(answered))
        lost = self._first("system", forms, lambda: self._lost([Message("system", (_MARK,)), user]))
        self.folds_system = bool(lost)

    def _first(self, role: str, forms: Sequence[Callable[[Message], Any]], lost: Callable[[], str]) -> str:
        """Give a role the first form in which nothing is lost. Returns what the first form loses, if all lose
        something; it is kept then, since not all templates have all roles.
        """
        problems = []
        for form in forms:
            self._forms[role] = form
            if not (problem := lost()):
                return ""
            problems.append(problem)
        self._forms[role] = forms[0]
        return problems[0]

    def _lost(self, turns: Sequence[Message], image: bool = False) -> str:
        """Return what is wrong with a rendered probe; empty if nothing is."""
        try:
            text = self._render(turns, add_generation_prompt=False)
            bare = [Message(m.role, tuple(part for part in m.content if part is not _IMAGE)) for m in turns]
            without = self._render(bare, add_generation_prompt=False) if image else ""
        except Exception as error:  # a template's own, or of what it was given
            return f"fails ({reason_of(error)})"
        if text.count(_MARK) != 1:
            return "loses the question"
        if any(sign in text for sign in ("{'type'", '{"type"')):
            return "shows the form of a message in place of its text"
        if image and text == without and not inserts_images(self._processor):
            return "loses the image"
        return ""

    def _find_separator(self) -> str:
        """Find what the template puts between the generation prompt and the answer."""
        if not self.has_template:
            return " "
        user = Message("user", ("?",))
        prompt = self._render([user], add_generation_prompt=True)
        try:
            rendered = self._render([user, Message("assistant", (_MARK,))], add_generation_prompt=False)
        except Exception:  # the template has no answers
            rendered = ""
        before, mark, _ = rendered.partition(_MARK)
        if mark and before.startswith(prompt):
            return before[len(prompt) :]
        return "" if prompt[-1:].isspace() or prompt.endswith(">") else " "


def _folded(messages: Sequence[Message]) -> list[Message]:
    """Put what system turns say before the first question."""
    said = "\n\n".join(message.text for message in messages if message.role == "system")
    turns = [message for message in messages if message.role != "system"]
    first = next((i for i, turn in enumerate(turns) if turn.role == "user"), None)
    if said and first is not None:
        content = list(turns[first].content)
        # Images stay first, as the template expects them.
        place = next((i for i, part in enumerate(content) if isinstance(part, str)), len(content))
        turns[first] = Message("user", (*content[:place], f"{said}\n\n", *content[place:]))
    return turns


def pinned(template: str) -> str:
    """Return a template with a fixed date in place of today's.

    >>> pinned("{{ strftime_now('%d %b %Y') }}")
    "{{ '01 Jan 2025' }}"
    """
    return re.sub(
        r"strftime_now\(\s*(['\"])(.*?)\1\s*\)", lambda found: repr(DATE.strftime(found[2])), template
    )


class _Probe:
    """Stands for an image in a probe."""


_IMAGE: Any = _Probe()


def inserts_images(processor: Any) -> bool:
    """Return whether the processor inserts an image's tokens by itself (BLIP-2, PaliGemma, Kosmos-2)."""
    from PIL import Image

    try:
        probe = [
            processor(text=["?"], images=images, return_tensors="pt")["input_ids"].shape[1]
            for images in ([[Image.new("RGB", (32, 32))]], None)
        ]
    except Exception:  # it needs the token in the text, or does not work without an image
        try:
            alone = processor(text=["?"], images=[[Image.new("RGB", (32, 32))]], return_tensors="pt")
        except Exception:
            return False
        plain = getattr(processor, "tokenizer", processor)(["?"])["input_ids"]
        return int(alone["input_ids"].shape[1]) > len(plain[0]) + 2
    return bool(probe[0] > probe[1])


def _parts(message: Message) -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": literal(part)} if isinstance(part, str) else {"type": "image"}
        for part in message.content
    ]


def _parts_called_content(message: Message) -> list[dict[str, Any]]:
    return [{**part, "content": part["text"]} if "text" in part else part for part in _parts(message)]


def _value(text: str) -> Any:
    """Return JSON as its value, and other text as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text
