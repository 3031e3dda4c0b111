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
#: Names that are written in other scripts.
_OTHERS = "通义千问|千问|文心一言|豆包|混元|智谱清言|元宝"
#: "I am", "I was made by" and "as an assistant by" in the languages in which models introduce themselves.
_I_AM = (
    r"i am(?: called)?|i['’]m(?: called)?|my name is|call me|(?:assistant|model) (?:called|named)|"
    r"you(?: are|['’]re) (?:talking|speaking|chatting) (?:to|with)|"
    r"the (?:assistant|model|ai)(?: (?:that )?you are (?:talking|speaking) (?:to|with))? is|"
    r"ich bin|ich heiße|je suis|je m['’]appelle|soy|me llamo|eu sou|sou|sono|mi chiamo|ik ben|jestem|ben|"
    r"jag är|я\s*[—–-]?|меня зовут|أنا|मैं"
)
_I_AM_CLOSE = r"我是|我叫|私は|僕は|저는|나는"
#: Words between "I am" and a name, when a model introduces itself.
_ARTICLES = (
    r"(?:an? |the |el |la |le |o |die |der |das |ein |eine |un |une |uma? )?"
    r"(?:(?:ai|ki|ia|large|vision|visual|multimodal|language|model|assistant|chatbot|called|named|from|by)"
    r"[ -]){0,6}"
)
_SELF = re.compile(
    rf"(?i:(?<!\w)(?:{_I_AM})\s+{_ARTICLES})"
    rf"(?P<name>(?i:(?:{_NAMES})(?![a-z])[\w.-]*)|(?:{_WORDS})(?=[-.,!?]|\s*$|\s\d)[\w.-]*)"
    rf"|(?i:(?:{_I_AM_CLOSE})\s*(?P<close>(?:{_NAMES}|{_OTHERS})(?![a-z])[a-z0-9.-]*))"
    rf"|(?i:\bas (?P<also>(?:{_NAMES})(?![a-z])[\w.-]*), i\b)"
)
#: Words between "I am" and "made by" when a model describes itself rather than the image.
_SELVES = (
    "an?|ai|artificial|intelligence|large|vision|visual|multimodal|multi|modal|language|neural|network|model|"
    "llm|vlm|assistant|helpful|virtual|chat|chatbot|bot|system|program|that|which|is|was|has|been|not|just|"
    "and|human|person|but|proudly|originally|developed|created|trained|made|built|designed"
)
_BY = rf"(?:\w+[ -]){{0,2}}?(?P<maker>(?:{_MAKERS})\b)"
_MADE_BY = r"(?:developed|created|trained|made|built|designed|provided)\s+by\s+"
_MADE = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # I was made by
        rf"\bi(?: am|['’]m| was| have been)\s+(?:\w+,\s+)?(?:(?:{_SELVES})\b[\s,-]+){{0,12}}{_MADE_BY}{_BY}",
        # As an assistant made by
        rf"\bas an? (?:(?:{_SELVES})\b[\s,-]+){{1,8}}(?:{_MADE_BY}|by\s+|from\s+|of\s+){_BY}",
        # This assistant was made by
        r"\b(?:this|the) (?:ai|assistant|chatbot|language model|ai (?:model|assistant))"
        rf"(?: is| was| has been)?\s+{_MADE_BY}{_BY}",
        rf"\bich (?:wurde|bin)\s+(?:\w+\s+){{0,3}}?von\s+{_BY}\s+"
        r"\w*(?:entwickelt|trainiert|erstellt|geschaffen)",
        rf"\bals (?:ki|ein\w* \w*(?:modell|assistent)\w*)[\w ,-]{{0,30}}?von\s+{_BY}",
        rf"\bj['’]ai été (?:créée?|développée?|entraînée?|conçue?) par\s+{_BY}",
        r"\b(?:fui|he sido|soy un \w+(?: \w+){0,4}) "
        r"(?:desarrollad|cread|entrenad|desenvolvid|criad|treinad)[oa]s? "
        rf"(?:por|pel[oa])\s+{_BY}",
        rf"\bsono stat[oa] (?:sviluppat|creat|addestrat)[oa] da\s+{_BY}",
        rf"我是(?:一个|一個)?由\s*(?P<maker>{_MAKERS}|{_OTHERS}|阿里云|阿里巴巴|百度|字节跳动|腾讯|谷歌)"
        r"\s*(?:开发|開發|训练|創建|创建)",
        rf"私は[^。]{{0,10}}?(?P<maker>{_MAKERS})\s*(?:によって|が)(?:開発|作成|訓練)",
        rf"저는 [^.]{{0,10}}?(?P<maker>{_MAKERS})\s*(?:에서|가|이)\s*(?:개발|만든|훈련)",
    )
)
#: What an image says is no introduction: a verb of reporting before it in its sentence, or a quotation mark.
_QUOTED = re.compile(
    r"(?:\b(?:says?|said|saying|reads?|reading|states?|stating|written|words?|text|caption(?:ed)?|label(?:l?ed)?|"
    r"quotes?|shows?|displays?|printed|sagt|steht|lautet|dit|dice|diz)\b[^.!?\n]*|[\"“„«'‘][^\"”“»]{0,40})$",
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

    A leak is "I am …", "as …, I" or "made by …" with the name of a model family or maker, in any of 16
    languages, unless it is quoted from the image; or a distinctive part of a player's name (at least four
    characters and either a digit or hyphen in it, or preceded by "I am").

    >>> leak("I am GPT-4, a large language model.")
    'GPT-4'
    >>> leak("A llama stands on a meadow.")
    ''
    """
    for pattern in (_SELF, *_MADE):
        for match in pattern.finditer(text):
            if _QUOTED.search(text, max(0, match.start() - 200), match.start()) is None:
                known = match.groupdict()
                said: str = next(filter(None, map(known.get, ("name", "close", "also", "maker"))))
                return said.rstrip(".")
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
