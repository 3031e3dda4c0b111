"""Read yes or no from statements: "There is no dog in the image.", "Der Mann trägt keine Brille."."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from snellen.parsing.text import Token, is_refusal, normalize, tokenize

__all__ = ["YesNoText", "foreign_statement", "statement"]


@dataclass(frozen=True)
class YesNoText:
    """An answer in the forms in which the rules see it."""

    normal: str
    words: list[Token]
    cut: bool
    question: str | None

    def gap(self, i: int) -> str:
        """Return the text between the word before number ``i`` and that word."""
        start = self.words[i - 1].end if i else 0
        return self.normal[start : self.words[i].start if i < len(self.words) else len(self.normal)]

    def phrase(self, i: int, phrases: frozenset[tuple[str, ...]]) -> int:
        """Return the length in words of the longest of the phrases that starts at word ``i``; 0 for none."""
        said = tuple(token.word for token in self.words[i : i + 5])
        return next((n for n in range(len(said), 0, -1) if said[:n] in phrases), 0)


#: What a statement about the picture may contain in addition to its subject.
_STOP = frozenset(
    "a an the in on at of to it its this that these those there here is are was were be been being does do "
    "did has have had can could image picture photo photograph scene figure shown visible present seen see "
    "any some no not none i we one ones contain contains show shows depict depicts appear appears anywhere "
    "within with and feature features include includes find found exist exists as you provided given "
    "indeed definitely clearly certainly really plenty several unfortunately sadly actually hmm "
    "zero neither nor lack absence".split()
)
#: Where things are to each other, or to a part of the picture.
_RELATION = re.compile(
    r"in|on|at|under|over|above|below|beneath|behind|besid\w|near|next|left|right|front|between|inside|outside"
    r"|by|off|with|without|from"
)
#: What may follow the thing that is there, so that it is no part of another one: a bus, but not a bus stop.
_BEHIND = frozenset(
    "a an the that which who and to of is are was were here there too as well also shown present visible for "
    "along across around among against up down held worn seen shown made full".split()
)
_IN_THE_PICTURE = re.compile(
    r"\b(?:in|on|at|within) (?:the|this) (?:image|picture|photo|photograph|scene|figure)\b"
)
#: What makes a statement a supposition.
_SUPPOSES = re.compile(
    r"\b(?:may|might|could|possibly|perhaps|maybe|chance|possibility|resembl\w*|similar|looks? like|so called"
    r"|why|says?|hardly|without|absence|0|(?:picture|drawing|photo|image|statue|toy) of)\b"
)
#: What follows "no" and "not" where somebody does not know.
_UNSURE = re.compile(
    r"\b(?:sure|certain|clear|unclear|know|idea|tell|way|determine|determined|unable|information|context|enough|"
    r"depends|hard|difficult|impossible|possible|say|confirm|answer|whether|help|assist|if|view|question|doubt|"
    r"only|just|necessarily|wrong|incorrect|false)\b|\bno (?:image|picture|photo)s?\b"
)
_NEGATES = re.compile(
    r"^\W*(?:(?:unfortunately|sadly|sorry|actually|well|hmm|so)\W+)?(?:no(?:ne)?\s+\w|there\s+(?:is|are|was|were)\s+(?:no|not)\b"
    r"|(?:i|we|you)\s+(?:can|do|could)\s+not\s+(?:see|find|spot)\b|(?:i|we|you)\s+(?:can\s+)?see\s+no\b"
    r"|(?:the|this)\s+\w+\s+(?:shows|contains|depicts|has)\s+no\b"
    r"|(?:(?:i|we|you)\s+(?:can\s+)?see|there\s+(?:is|are|was|were))\s+(?:neither|zero|(?:a|an)\s+(?:lack|absence)\s+of)\b"
    r"|(?:the|this|that|it|they|these|those|he|she|both|a|an)\b[^,;:]{0,80}"
    r"\b(?:is|are|was|were|does|do|did|has|have|can)\s+not\b)"
)
_AFFIRMS = re.compile(
    r"^\W*(?:there\s+(?:is|are|was|were)\s+(?:a|an|some|one|two|indeed|definitely)\b|(?:i|we|you)\s+(?:can\s+|do\s+)?see\b"
    r"|(?:the|this)\s+(?:image|picture|photo|scene)\s+(?:does|do|did)\s+\w)"
)
#: A statement that may repeat the question.
_DECLARES = re.compile(r"^\W*(?:the|this|that|these|those|both|all|a|an|his|her|their)\s+\w")
_PRONOUN = re.compile(r"^\W*(?:it|they|he|she)\b")
#: Statements in scripts and languages of their own: it is there, or it is not.
_NEGATES_THERE = re.compile("没有|沒有|不是|不存在|ません|ではない|없습니다|없어요|아닙니다|아니에요")
_UNSURE_THERE = re.compile(
    "问题|不是没|しか|わけ|言い切|かもしれ|밖에|것은 아니|图片[。.]?$|图像[。.]?$|无法|不能|不知|不确定"
    "|不清楚|わかりません|分かりません|できません|모르|수 없"
)


#: A question whether something is in the picture.
_EXISTS = re.compile(
    r"\s*(?:(?:is|are) there|(?:do|can) you see"
    r"|(?:does|do) (?:the|this|these) \w+ (?:contain|show|have|include))\b"
    r"(?!.*\b(?:no|not|without|nothing|nobody)\b)"
)


def statement(answer: YesNoText) -> Iterator[bool | None]:
    """``There is no dog in the image.``: each sentence that is about what was asked."""
    if answer.cut or is_refusal(answer.normal, seeing=False):
        return
    asked, exists = ([], False) if answer.question is None else _asked(answer.question)
    where = [] if answer.question is None else _relations(normalize(answer.question))
    for sentence in re.split(r"[.!?\n]", answer.normal):
        if len(sentence := sentence.strip()) < 2 or _UNSURE.search(sentence):
            continue
        if _NEGATES_THERE.search(sentence):
            yield None if _UNSURE_THERE.search(sentence) else False
            continue
        clause = re.split(r"[,;:]|\b(?:but|rather than|instead of)\b", sentence, maxsplit=1)[0]
        negates = _NEGATES.search(clause) is not None
        affirms = _AFFIRMS.search(clause) or (asked and _DECLARES.search(clause))
        if not negates and (
            not affirms or re.search(r"\b(?:no|not)\b", sentence) or _SUPPOSES.search(sentence)
        ):
            continue
        there = _relations(clause)
        if where and there and where != there:
            continue
        if answer.question is None or _is_about(clause, asked, exists, negates):
            yield not negates


def _is_about(clause: str, asked: list[str], exists: bool, negates: bool) -> bool:
    """Return whether a statement answers what was asked."""
    words = tokenize(clause)
    said = list(_content(words))
    if set(said) == set(asked):
        return exists or said == asked  # the dog that chases the cat is not chased by it
    if negates:  # where there is no dog, there is no red dog; what is not cut is not cut in half
        return set(said) < set(asked) and (exists or bool(said and _PRONOUN.match(clause)))
    # Where there is a red dog, there is a dog; but a bus stop is no bus.
    if not (exists and asked and set(asked) < set(said) and _AFFIRMS.search(clause)):
        return False
    last = max(i for i, token in enumerate(words) if token.word.removesuffix("s") in asked)
    behind = words[last + 1].word if last + 1 < len(words) else "here"
    gap = clause[words[last].end : words[last + 1].start] if last + 1 < len(words) else ","
    related = behind in _BEHIND or _RELATION.fullmatch(behind) is not None
    return gap != " " or related or behind.endswith(("ing", "ed", "ly"))


def _relations(text: str) -> list[str]:
    """Return the words that say where things are, but for "in the picture"."""
    text = re.sub(
        r"\b(?:in|on|at|within) (?:the|this) (?:image|picture|photo|photograph|scene|figure)\b", "", text
    )
    return [token.word for token in tokenize(text) if _RELATION.fullmatch(token.word)]


#: Negations in other languages, words of not knowing, and what ends a question there.
_NOT_THERE = re.compile(
    r"\b(?:no|ningun[ao]?|ne|n['’]\w+|pas|kein(?:e[nmrs]?)?|nicht|não|nenhuma?|non|nessun[ao]?|не|нет|tidak|bukan|không|değil|yok"
    r"|hiçbir)\b|m[ıiuü]yor|नहीं|ไม่|不|没|沒|ません|ない|않|없|아니|\b(?:لا|ليس|ليست|لم|لن)\b"
)
_UNKNOWN = re.compile(
    r"\b(?:puedo|puede|sé|seguro|claro|kann|weiß|sicher|peux|peut|sais|sûr|posso|possível|sei|certeza|so|sicuro|могу|знаю"
    r"|ясно|yapam|bilmiyor|emin|belli|tahu|bisa|dapat|yakin|jelas|thể|biết|rõ|chắc)|अनिश्चित|पता|कह|ทราบ|แน่|สามารถ|能|知|清|確|确|判"
    r"|duda|cierto|verdad|más\sque|zweifel|nur\b|wahr|dúvida|verdade|só\b|além|solo\b|сомне|только|кроме|нельзя|şüphe"
    r"|diragukan|hanya|selain|chỉ\b|问题|不是没|可能|好像|しか|わけ|言い切|かもしれ|밖에|것은\s?아니|سوى|صحيح|ไม่ใช่ว่า"
    r"|わか|分か|でき|모르|수\s?없|확실|أعرف|أستطيع|يمكن|متأكد|واضح"
)
_ASKS = re.compile(r"หรือไม่|ไหม|không\s*$|phải không|有没有|是不是|किया|\bmu\b|\bmı\b|\bmi\b")


def foreign_statement(answer: YesNoText) -> Iterator[bool | None]:
    """``Der Mann trägt keine Brille.``: a sentence with most words of the question, and with a negation that
    the question does not have.
    """
    if answer.cut or answer.question is None or is_refusal(answer.normal):
        return
    if _ENGLISH.search(normalize(answer.question)):
        return
    asked = _ASKS.sub(" ", normalize(answer.question).strip(" ?？¿؟"))
    sentence = re.split(r"[.!?\n]", answer.normal.strip(), maxsplit=1)[0]
    if _NOT_THERE.search(asked) or not _NOT_THERE.search(sentence) or _UNKNOWN.search(sentence):
        return
    wanted, said = _stems(asked), _stems(sentence)
    if wanted and 2 * len(wanted & said) >= len(wanted):
        yield False


def _stems(text: str) -> set[str]:
    """Return the beginnings of words, which inflection leaves alone, or pairs of letters in scripts without
    spaces.
    """
    stems: set[str] = set()
    for token in tokenize(text):
        if re.search("[\u0e00-\u0e7f\u3040-\u30ff\u4e00-\u9fff]", token.word):
            stems |= {token.word[i : i + 2] for i in range(len(token.word) - 1)}
        elif len(token.word) > 2:
            stems.add(token.word[:4])
    return stems - _QUESTION_STEMS


_ENGLISH = re.compile(r"\b(?:the|there|is|are|does|you|any)\b")
#: "Is there" and the like.
_QUESTION_STEMS = frozenset("есть gibt apak hay क्या có".split())


def _asked(question: str) -> tuple[list[str], bool]:
    """Return what a question is about, and whether it asks for existence: its last sentence that asks."""
    before, mark, _ = question.rpartition("?")
    asking = normalize(re.split(r"[.!?\n]", before)[-1] if mark else question)
    words = tokenize(asking)
    # "Is there no dog?" is not about a dog alone: no statement answers it.
    denied = sorted({token.word for token in words} & {"no", "not"})
    return [*_content(words), *denied], _EXISTS.match(asking) is not None


def _content(words: list[Token]) -> Iterator[str]:
    for token in words:
        if token.word not in _STOP:
            yield token.word.removesuffix("s")
