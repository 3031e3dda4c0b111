"""Find answers that reveal which model wrote them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["leak"]

#: Names of model families and makers.
_NAMES = (
    "chatgpt|gpt|openai|claude|anthropic|gemini|gemma|deepmind|llama|llava|meta ai|mistral|pixtral|qwen|"
    "tongyi|alibaba|internvl|internlm|smolvlm|idefics|hugging ?face|deepseek|moonshot|kimi|yi-vl|01\\.ai|"
    "copilot|molmo|ai2|grok|xai|cohere|reka|minicpm|cogvlm|glm|zhipu|paligemma|instructblip|fuyu|hunyuan|doubao"
)
#: Names that are also ordinary words or people's names: counted only when used as a model's name.
_WORDS = "Bard|Phi|Command|Aya|Florence|BLIP|Adept|Nova|Ernie|ERNIE|Step"
_MAKERS = f"{_NAMES}|google|microsoft|amazon|apple|nvidia|meta|baidu|tencent"
_SELF = re.compile(
    r"(?i:\b(?:i am|i['’]m|my name is|call me|(?:assistant|model) (?:called|named))\s+(?:an? |the )?"
    r"(?:(?:ai|large|vision|visual|multimodal|language|model|assistant|chatbot|called|named|from|by)[ -])"
    r"{0,6})"
    rf"(?P<name>(?i:(?:{_NAMES})(?![a-z])[\w.-]*)|(?:{_WORDS})(?=[-.,!?]|\s*$|\s\d)[\w.-]*)"
    rf"|(?i:\bas (?P<also>(?:{_NAMES})(?![a-z])[\w.-]*), i\b)"
)
#: Words between "I am" and "made by" when a model describes itself rather than the image.
_SELVES = (
    "an?|ai|artificial|intelligence|large|vision|visual|multimodal|multi|modal|language|neural|network|model|"
    "llm|vlm|assistant|helpful|virtual|chat|chatbot|bot|system|program|that|which|is|was|has|been|not|just|"
    "and|human|person|but|proudly|originally|developed|created|trained|made|built|designed"
)
_MADE = re.compile(
    rf"\bi(?: am|['’]m| was| have been)\s+(?:\w+,\s+)?(?:(?:{_SELVES})\b[\s,-]+){{0,12}}"
    r"(?:developed|created|trained|made|built|designed)\s+by\s+"
    rf"(?:\w+[ -]){{0,2}}?(?P<also>)(?P<name>(?:{_MAKERS})\b)",
    re.IGNORECASE,
)
#: Parts of players' names that do not identify them.
_COMMON = frozenset(
    "model models vision language instruct chat base large small mini tiny preview latest test the and main "
    "hf pico openai clip local image images photo photos shapes rounds prompt binary rank closed open world "
    "set revision dtype temperature".split()
)


def leak(text: str, players: Iterable[str] = ()) -> str:
    """Return the words by which an answer reveals its author, or ``""``.

    A leak is "I am …", "as …, I" or "made by …" with the name of a model family or maker, or a
    distinctive part of a player's name (at least four characters and either a digit or hyphen in it, or
    preceded by "I am").

    >>> leak("I am GPT-4, a large language model.")
    'GPT-4'
    >>> leak("A llama stands on a meadow.")
    ''
    """
    for pattern in (_SELF, _MADE):
        if (match := pattern.search(text)) is not None:
            return (match["name"] or match["also"]).rstrip(".")
    lowered = text.lower()
    for player in players:
        for part in _parts(player.lower()):
            if len(part) < 4 or part in _COMMON:
                continue
            part = "-".join(part.split("-")[:2])  # the family, regardless of size
            distinct = any(c.isdigit() or c in "-_" for c in part)
            before = "" if distinct else r"(?:i am|i'm|my name is)\s+(?:an? |the )?"
            if (hit := re.search(rf"{before}(?<![\w-])({re.escape(part)})(?!\w)", lowered)) is not None:
                return hit[1]
    return ""


def _parts(player: str) -> list[str]:
    """Return the words of a player's name; for a path, only its last component counts."""
    scheme, colon, rest = player.partition(":")
    path, mark, options = rest.partition("?")
    if colon and path.startswith(("/", ".", "~")):
        rest = path.rstrip("/").rpartition("/")[2] + mark + options
    return re.split(r"[:/?&=\s]", scheme + colon + rest)
