"""Read yes or no from free text, by an ordered table of rules: the first one that finds an answer decides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from snellen.parsing.lexicon import YES_NO
from snellen.parsing.text import (
    ParsedAnswer,
    ParseFailure,
    Token,
    ends_clause,
    failure,
    is_refusal,
    marked,
    normalize,
    plain,
    tokenize,
)

__all__ = ["parse_yes_no", "read_yes_no"]

#: The characters of an answer that may come again.
SHORT = 64


def _phrases(text: str) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(t.word for t in tokenize(phrase)) for phrase in normalize(text).split(","))


_YES = _phrases(", ".join(yes for yes, _ in YES_NO.values()))
_NO = _phrases(", ".join(no for _, no in YES_NO.values()))
#: Words that answer only if a clause ends behind them ("Correct, …").
_AGREES = _phrases(
    "true, correct, that is right, that's right, that is correct, that's correct, absolutely, definitely, "
    "indeed, affirmative, exactly, 正确, 没错, verdadero, vrai, richtig, verdadeiro, vero, верно, صحيح, "
    "doğru, सही, ถูกต้อง, benar, betul, así es, por supuesto que sí, efectivamente, effectivement, "
    "tout à fait, genau, esatto, certo, isso mesmo, com certeza, конечно, đúng vậy, kesinlikle, elbette"
)
_DISAGREES = _phrases(
    "false, incorrect, wrong, that is wrong, that's wrong, that is not correct, that is not right, "
    "that is incorrect, not correct, not true, not at all, not really, probably not, most likely not, "
    "i do not think so, i do not believe so, by no means, negative, 错误, 错, 不正确, falso, faux, falsch, "
    "неверно, خطأ, yanlış, गलत, ผิด, sai, salah"
)
#: Words that answer only if they are the whole answer; before more text, they are politeness.
_ALONE = {
    True: _phrases(
        "sure, certainly, of course, y, 1, right, okay, ok, i think so, i believe so, it is, it does, it has,"
        "they are, they do, there is, there are, yes it is, he is, she is, he does, she does"
    ),
    False: _phrases(
        "n, 0, none, neither, never, it is not, it does not, they are not, they do not, there is not, "
        "there are not, he is not, she is not, he does not, she does not, none that i can see"
    ),
}
#: Words after a bare "no" without punctuation that make it an answer ("No there is not").
_AFTER_NO = frozenset("there it its this that the i we in a an because since as".split())
#: Words after "yes" or "no" that make it a possibility ("Yes would need a dog").
_IF = frozenset("would could might may means requires needs if".split())
#: Words before an answer in its sentence ("Unfortunately, no", "I would say yes", "(A) Yes").
_FILLERS = frozenset(
    "unfortunately actually well hmm sorry sure indeed i d would say think believe so my guess is thus ok "
    "okay probably most likely answer go with therefore hence then oh ah hm just simply clearly no doubt "
    "without a b c option certainly it s was but".split()
)
#: Both in one breath, if the second one ends its clause: "Yes and no.", but not "Yes, no dogs are there".
_BOTH = re.compile(
    r"\byes\b[^\w.!?;:\n]*(?:(?:but|and|or|then)\W+)?no\b(?=\s*(?:[.,;:!?\n]|$))"
    r"|\bno\b[^\w.!?;:\n]*(?:(?:but|and|or|then)\W+)?yes\b(?=\s*(?:[.,;:!?\n]|$))"
)
_OFFERED = re.compile(r"\byes\b\W{0,3}(?:or|/)\W{0,3}no\b|\bno\b\W{0,3}(?:or|/)\W{0,3}yes\b")


@dataclass(frozen=True)
class _Text:
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


def parse_yes_no(text: str, *, truncated: bool = False, question: str | None = None) -> bool | ParseFailure:
    """Return whether an answer says yes or no: where it is marked, at its start or at the start of a
    sentence, or as a statement ("There is no dog").

    Args:
        text: The answer.
        truncated: Whether it was cut off, so that its last word may be half of one.
        question: The question. With it, a statement counts only if it is about what was asked.

    >>> parse_yes_no("**Yes**, there is."), parse_yes_no("There is no dog.")
    (True, False)
    >>> parse_yes_no("I have no idea")
    ParseFailure(reason='says neither yes nor no', outcome=<Outcome.UNPARSED: 'unparsed'>)
    """
    return read_yes_no(text, truncated=truncated, question=question).value


def read_yes_no(text: str, *, truncated: bool = False, question: str | None = None) -> ParsedAnswer[bool]:
    """Return what :func:`parse_yes_no` does, and which of the :data:`RULES` decided."""
    read = _read_again if len(text) <= SHORT else _read
    return read(text, truncated, question)


def _read(text: str, truncated: bool, question: str | None) -> ParsedAnswer[bool]:
    text = plain(text)
    normal = _OFFERED.sub(" ", re.sub("[、。،।]", ". ", normalize(text)).replace("ๆ", ""))
    words = tokenize(normal)
    cut = truncated and len(words) > 1
    if cut and words[-1].end == len(normal):
        words = words[:-1]
    if _BOTH.search(normal):
        return ParsedAnswer(failure(text, truncated, "says both yes and no"))
    answer = _Text(normal, words, cut, question)
    for name, rule in RULES.items():
        said = set(rule(answer))
        if len(said) == 1 and (one := next(iter(said))) is not None:
            return ParsedAnswer(one, name)
        if said:
            reason = "says both yes and no" if {True, False} <= said else "says neither yes nor no"
            return ParsedAnswer(failure(text, truncated, reason))
    return ParsedAnswer(failure(text, truncated, "says neither yes nor no"))


#: Most answers are a word, the same again and again.
_read_again = lru_cache(maxsize=1024)(_read)

_JSON = re.compile(r"[\"'](\w{1,40})[\"']\s{0,4}:\s{0,4}[\"']?(yes|no|true|false)[\"']?\s{0,4}(?=[,}\n])")


def _json(answer: _Text) -> Iterator[bool | None]:
    """``{"answer": true}``; among several keys, the one called answer."""
    found = {key: value in ("yes", "true") for key, value in _JSON.findall(answer.normal)}
    named = [value for key, value in found.items() if "answer" in key]
    yield from named or (found.values() if len(found) == 1 else ())


def _marked(answer: _Text) -> Iterator[bool | None]:
    """``Answer: yes``: a marked answer starts with its word, and nothing outside it counts."""
    for stretch in marked(answer.normal, answer.words):
        yield _said(answer, stretch[0])


def _whole(answer: _Text) -> Iterator[bool | None]:
    """``Sure.``, ``0``: an answer of nothing but such words."""
    for value, phrases in _ALONE.items():
        length = answer.phrase(0, phrases)
        if length and length == len(answer.words):
            yield value


def _opening(answer: _Text) -> Iterator[bool | None]:
    """``No. It is a cat.``, ``Looking at the image, yes``: at the start of a sentence or a line, also after
    fillers or an introduction.
    """
    for i, token in enumerate(answer.words):
        if token.word in _FIRST_WORDS and _opens(answer, i) and (said := _said(answer, i)) is not None:
            yield said


_FIRST_WORDS = {phrase[0] for phrases in (_YES, _NO, _AGREES, _DISAGREES) for phrase in phrases}
_COPULA = re.compile(
    r"\b(?:is|be|say|(?:is|that['’]s|it['’]s)\sa|答案是)\s{0,3}[\"'*(]{0,3}(yes|no|true|false|是|否|有|没有)\b(?=\W{0,4}(?:[.!?\n]|$))"
    r"|\b(?:statement|claim|assertion|sentence|this|that|it)\s+(?:is|seems|appears)\s+"
    r"(?:(not)\s+)?(?:(true|correct|right|accurate)|(?:false|incorrect|wrong|inaccurate))\b(?=\W{0,4}(?:[.!?\n]|$))"
)
_OPEN = re.compile(r"\b(?:not|if|whether)\b")


def _copula(answer: _Text) -> Iterator[bool | None]:
    """``The response is no.``, ``The statement is not correct.``"""
    for match in _COPULA.finditer(answer.normal):
        if _OPEN.search(answer.normal[max(0, match.start() - 40) : match.start()]):
            continue
        said, negated, right = match.groups()
        yield said in ("yes", "true", "是", "有") if said else (right is not None) != (negated is not None)


#: What a statement about the picture may contain in addition to its subject.
_STOP = frozenset(
    "a an the in on at of to it its this that these those there here is are was were be been being does do "
    "did has have had can could image picture photo photograph scene figure shown visible present seen see "
    "any some no not none i we one ones contain contains show shows depict depicts appear appears anywhere "
    "within with and feature features include includes find found exist exists as you provided given "
    "indeed definitely clearly certainly really plenty several unfortunately sadly actually hmm".split()
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


def _statement(answer: _Text) -> Iterator[bool | None]:
    """``There is no dog in the image.``: each sentence that is about what was asked."""
    if answer.cut or is_refusal(answer.normal, seeing=False):
        return
    asked, exists = (set(), False) if answer.question is None else _asked(answer.question)
    for sentence in re.split(r"[.!?\n]", answer.normal):
        if len(sentence := sentence.strip()) < 2 or _UNSURE.search(sentence):
            continue
        if _NEGATES_THERE.search(sentence):
            yield None if _UNSURE_THERE.search(sentence) else False
            continue
        clause = re.split(r"[,;:]|\bbut\b", sentence, maxsplit=1)[0]
        negates = _NEGATES.search(clause) is not None
        affirms = _AFFIRMS.search(clause) or (asked and _DECLARES.search(clause))
        if not negates and (not affirms or re.search(r"\b(?:no|not)\b", sentence)):
            continue
        if answer.question is None or _is_about(clause, asked, exists, negates):
            yield not negates


def _is_about(clause: str, asked: set[str], exists: bool, negates: bool) -> bool:
    """Return whether a statement answers what was asked."""
    said = set(_content(tokenize(clause)))
    if said == asked:
        return True
    if negates:  # where there is no dog, there is no red dog; what is not cut is not cut in half
        return said < asked and (exists or bool(said and _PRONOUN.match(clause)))
    # Where there is a red dog, there is a dog.
    return exists and bool(asked) and asked < said and _AFFIRMS.search(clause) is not None


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


def _foreign_statement(answer: _Text) -> Iterator[bool | None]:
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


def _asked(question: str) -> tuple[set[str], bool]:
    """Return what a question is about, and whether it asks for existence: its last sentence that asks."""
    before, mark, _ = question.rpartition("?")
    asking = normalize(re.split(r"[.!?\n]", before)[-1] if mark else question)
    words = tokenize(asking)
    # "Is there no dog?" is not about a dog alone: no statement answers it.
    denied = {token.word for token in words} & {"no", "not"}
    return {*_content(words), *denied}, _EXISTS.match(asking) is not None


def _content(words: list[Token]) -> Iterator[str]:
    for token in words:
        if token.word not in _STOP:
            yield token.word.removesuffix("s")


#: The rules in their order, by name.
RULES: dict[str, Callable[[_Text], Iterator[bool | None]]] = {
    "json": _json,
    "marked": _marked,
    "whole": _whole,
    "opening": _opening,
    "copula": _copula,
    "statement": _statement,
    "foreign statement": _foreign_statement,
}


def _said(answer: _Text, i: int) -> bool | None:
    """Return what the words from number ``i`` on would mean in the position of an answer."""
    for value, phrases in ((False, _NO), (True, _YES), (False, _DISAGREES), (True, _AGREES)):
        if not (length := answer.phrase(i, phrases)):
            continue
        behind = i + length
        follows = answer.words[behind].word if behind < len(answer.words) else None
        gap = answer.gap(behind)
        if follows is None:  # "doubt" may have followed in a truncated answer
            return None if answer.cut and not value and not ends_clause(gap) else value
        if follows in _IF or gap.lstrip(" *_\"')").startswith("?"):
            return None
        if ends_clause(gap):
            return value
        if answer.words[i].word in ("yes", "yeah", "yep") or (
            answer.words[i].word == "no" and follows in _AFTER_NO
        ):
            return value
    return None


#: How an introduction starts: "Looking at the image, yes".
_INTRODUCES = frozenset("looking based according in from judging given on at considering after as by".split())


#: What starts the end of a sentence of reasoning: "Both are equal, so yes".
_CONCLUDES = frozenset("so thus therefore hence but".split())


def _opens(answer: _Text, i: int) -> bool:
    """Return whether the word at ``i`` starts a sentence or a line, ignoring fillers and an introduction."""
    words = answer.words
    if i and "," in answer.gap(i):
        first = i - 1
        while first and i - first < 12 and not re.search(r"[.!?:;\n,]", answer.gap(first)):
            first -= 1
        if words[first].word in _INTRODUCES and (not first or re.search(r"[.!?:;\n]", answer.gap(first))):
            return True
    start = i
    while i and start - i < 12:
        gap = answer.gap(i)
        if re.search(r"[.!?:;\n]", gap) or ("," in gap and words[i].word in _CONCLUDES):
            return True
        i -= 1
        if words[i].word not in _FILLERS:
            return False
    return not i
