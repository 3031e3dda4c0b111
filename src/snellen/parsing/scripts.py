"""Find names in scripts that do not separate words, or that attach particles and articles to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from snellen.parsing.text import Token

__all__ = ["Splitter", "negates"]

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KATAKANA = "\u30a1-\u30ff\u31f0-\u31ff"
_HIRAGANA = "\u3041-\u309f"
#: Thai, Lao, Myanmar and Khmer.
_SOUTHEAST_ASIAN = "\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff"
_UNSPACED = re.compile(f"[{_HAN}{_KATAKANA}{_HIRAGANA}{_SOUTHEAST_ASIAN}]")
_HANGUL = re.compile("[\uac00-\ud7a3]")
_ARABIC = re.compile("[\u0620-\u064a]")
#: A name of one character is one only between other scripts and these: 猫 is no part of 熊猫.
_AROUND_HAN = frozenset(
    "是为為有的只隻条條头頭匹个個张張辆輛朵棵座架一这這那中了和与與或在叫像到出见見非并而"
)
_KOREAN_ENDING = re.compile(
    r"(?:들|이|가|은|는|을|를|의|에|에서|로|으로|와|과|도|만|랑|이랑|인|인데|입니다|이다|다|이에요|예요|이고|고|이며|며"
    r"|라고|이라고|같은|처럼|보다|요|네요|이네요|군요|이군요|임|였다|이었다|라는|이라는|이지만|지만){1,3}"
)
#: And, so, in, like, for; the article.
_ARABIC_BEGINNING = re.compile(r"(?:[وف]?[بكل]?ال|[وف]?لل|[وف][بكل]?)(?=\w{2})")


class Splitter:
    """Splits words so that the names within them are words of their own.

    Args:
        names: the words of all names, normalized.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.unspaced = {name for name in names if _UNSPACED.search(name)}
        self.korean = {name for name in names if _HANGUL.search(name)}
        self.arabic = {_bare_arabic(name): name for name in names if _ARABIC.search(name)}
        self.longest = max(map(len, self.unspaced), default=0)

    def split(self, words: list[Token]) -> list[Token]:
        """Return the words, split where a word holds a name; the longest of overlapping names counts.

        >>> splitter = Splitter(["熊", "北极熊"])
        >>> [token.word for token in splitter.split([Token("这是北极熊", 0, 5)])]
        ['这是', '北极熊']
        """
        if not (self.unspaced or self.korean or self.arabic):
            return words
        return [part for word in words for part in self._parts(word)]

    def _parts(self, word: Token) -> Iterator[Token]:
        text = word.word
        if self.unspaced and _UNSPACED.search(text):
            yield from self._cut(word)
        elif self.korean and _HANGUL.search(text) and text not in self.korean:
            for length in range(len(text) - 1, 0, -1):
                if text[:length] in self.korean and _KOREAN_ENDING.fullmatch(text[length:]):
                    yield Token(text[:length], word.start, word.start + length)
                    yield Token(text[length:], word.start + length, word.end)
                    return
            yield word
        elif self.arabic and _ARABIC.search(text):
            # What looks like an article or a particle may belong to the name.
            yield Token(
                self.arabic.get(text) or self.arabic.get(_bare_arabic(text), text), word.start, word.end
            )
        else:
            yield word

    def _cut(self, word: Token) -> Iterator[Token]:
        text, done, at = word.word, 0, 0
        while at < len(text):
            length = next(
                (
                    n
                    for n in range(min(self.longest, len(text) - at), 0, -1)
                    if self._is_name(text, at, at + n)
                ),
                0,
            )
            if length:
                if done < at:
                    yield Token(text[done:at], word.start + done, word.start + at)
                yield Token(text[at : at + length], word.start + at, word.start + at + length)
                done = at + length
            at += length or 1
        if done < len(text):
            yield Token(text[done:], word.start + done, word.end)

    def _is_name(self, text: str, start: int, end: int) -> bool:
        """Return whether a name stands there that is not part of a longer word of its script."""
        name = text[start:end]
        if name not in self.unspaced:
            return False
        around = text[max(0, start - 1) : start] + text[end : end + 1]
        if re.fullmatch(f"[{_KATAKANA}]+", name):
            return not re.search(f"[{_KATAKANA}]", around)
        if len(name) > 1:
            return True
        if not re.fullmatch(f"[{_HAN}]", name):
            return not around
        return all(char in _AROUND_HAN or not re.fullmatch(f"[{_HAN}]", char) for char in around)


def _bare_arabic(word: str) -> str:
    return _ARABIC_BEGINNING.sub("", word, count=1)


_BEFORE = re.compile(
    r"(?:不是|不像|没有|沒有|并非|並非|不存在|ไม่ใช่|ไม่มี|ليس|ليست|ليس هذا|لا توجد|لا يوجد)[^.,;:!?。\n]{0,6}$"
)
_BEHIND = re.compile(r"\s?(?:ではな|じゃな|ではあり|でもな|(?:이|가|은|는)\s?아[니닙닌]|नहीं|değil)")


def negates(normal: str, start: int, end: int) -> bool:
    """Return whether a negation of another language belongs to the name between these positions.

    >>> negates("不是猫,是狗", 2, 3), negates("不是猫,是狗", 5, 6), negates("猫ではなく犬", 0, 1)
    (True, False, True)
    """
    return bool(_BEFORE.search(normal[max(0, start - 16) : start]) or _BEHIND.match(normal[end : end + 10]))
