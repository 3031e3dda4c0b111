"""Compare short answers as a careful reader does: numbers by value, words without regard to their dress."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable

__all__ = ["DIGITS", "amounts", "comparable", "number", "same"]

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?")


def number(text: str) -> float | None:
    """Parse a number, with a currency sign or thousands separators; a percent sign divides by a hundred.
    None for anything else.

    >>> number("$1,250.50"), number("41%"), number("3/4"), number("about 5")
    (1250.5, 0.41, 0.75, None)
    """
    if any(unicodedata.category(c) == "No" for c in text):  # 5² must not become 52
        return None
    text = unicodedata.normalize("NFKC", text).strip().removesuffix(".").strip("$€£ ").replace("−", "-")
    scale = 1.0
    if text.endswith("%"):
        text, scale = text[:-1].strip(), 100.0
    above, slash, below = text.partition("/")
    if slash:
        first, second = (None if "/" in part else number(part) for part in (above, below))
        value = None if first is None or not second else first / second / scale
        return value if value is not None and math.isfinite(value) else None
    if not re.search(r"\d", text) or _NUMBER.fullmatch(text) is None:
        return None
    value = float(text.replace(",", ""))
    return value / scale if math.isfinite(value) else None


_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
#: Number words up to ten, as the evaluation of VQA replaces them.
DIGITS = {word: str(n) for n, word in enumerate(_SMALL[:11])} | {"none": "0"}
_WORDS = {word: n for n, word in enumerate(_SMALL)} | {word: 10 * n for n, word in enumerate(_TENS, start=2)}
_WORDS["none"] = 0
_WORDS |= {
    f"{ten}{dash}{one}": 10 * n + m
    for n, ten in enumerate(_TENS, start=2)
    for m, one in enumerate(_SMALL[1:10], start=1)
    for dash in "- "
}
_SCALES = {
    "k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "bn": 1e9, "b": 1e9, "billion": 1e9,
    "trillion": 1e12, "hundred": 1e2, "dozen": 12.0,
}  # fmt: skip


def _any_of(words: Iterable[str]) -> str:
    return "|".join(sorted(words, key=len, reverse=True))


_AMOUNT = re.compile(
    r"(?:(?:approximately|about|around|roughly|nearly|almost|~|≈)\s?)?(?P<minus>(?:minus|negative)\s)?"
    r"(?P<value>[-+]?[$€£]?\d[\d,.]{0,30}(?:/\d[\d,.]{0,20})?|[-+]?\.\d{1,30}"
    rf"|(?:{_any_of(_WORDS)})\b)"
    rf"(?:(?P<percent>\s?%|\s?percent|\s?per cent)|\s?(?P<scale>{_any_of(_SCALES)})\b)?"
    r"(?:\s?(?P<unit>°\s?[cf]?|[^\W\d_]{1,20}(?:/[^\W\d_]{1,20}|(?:\s[^\W\d_]{1,20}){1,2})?))?"
)


#: Raised signs, as they stand in a power.
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
#: Scientific notation: 2e3, 2×10^3, 2 \\times 10^{3}, 10^3.
_POWER = re.compile(
    r"(?P<factor>[-+]?\d[\d,.]{0,20})[eE](?P<e>[-+]?\d{1,3})"
    r"|(?:(?P<factor_>[-+]?\d[\d,.]{0,20})\s?(?:[×x*·]|\\times|\\cdot)\s?)?10\s?\^\s?\{?(?P<ten>[-+]?\d{1,3})\}?"
)


def amounts(text: str) -> tuple[frozenset[float], str]:
    """Parse a number as people write one, with its unit: :func:`number`, the end of an equation, number
    words up to 99, thousands and millions. A percentage has two values, since people omit the sign. No
    values for anything else.

    >>> amounts("3 + 4 = 7"), amounts("thirty-nine"), amounts("3.4 million"), amounts("2.5 cm")
    ((frozenset({7.0}), ''), (frozenset({39.0}), ''), (frozenset({3400000.0}), ''), (frozenset({2.5}), 'cm'))
    >>> amounts("minus 5"), sorted(amounts("5 percent")[0]), amounts("route 66")
    ((frozenset({-5.0}), ''), [0.05, 5.0], (frozenset(), ''))
    """
    nothing: tuple[frozenset[float], str] = (frozenset(), "")
    # 5² is no 52, but m² is a unit; so is \\text{m}^2 in LaTeX.
    text = (
        re.sub(r"(?<=[a-zA-Z])(?:[²³]|\^\{?[23]\}?)|(?<=\d\sm)[23]\b|(?<=\d\s[ckm]m)[23]\b", "", text[-200:])
        .replace("\\ ", " ")
        .replace("$", "")
    )
    text = re.sub(r"\\d?frac\{([^{}]{1,20})\}\{([^{}]{1,20})\}", r"\1/\2", text)
    text = re.sub(r"(?<=10)([⁰¹²³⁴-⁹⁻⁺]{1,4})(?=\W|$)", lambda found: f"^{found[0].translate(_RAISED)}", text)
    if any(unicodedata.category(c) == "No" for c in text):
        return nothing
    text = unicodedata.normalize("NFKC", " ".join(text.split())).replace("−", "-").rpartition("=")[2]
    text = re.sub(r"^\[(.*)\]$|^\((.*)\)$", r"\1\2", text.strip().strip("$").removesuffix(".").strip())
    if (power := _POWER.fullmatch(text)) is not None:
        factor = power["factor"] or power["factor_"]
        mantissa = (number(factor) if factor else 1.0) or 0.0
        exponent = int(power["e"] or power["ten"])
        return (frozenset({mantissa * 10.0**exponent}), "") if abs(exponent) < 100 else nothing
    match = _AMOUNT.fullmatch(text.casefold())
    if match is None:
        return nothing
    unit = match["unit"] or ""
    if not _WORDS.keys().isdisjoint(unit.split()):
        return nothing
    written = match["value"]
    if unit == "s" and re.fullmatch(r"\d{2}\d?0", written) and re.search(r"\ds$", text):
        return nothing  # the 1990s are no year, and no seconds
    value = float(_WORDS[written]) if written in _WORDS else number(written)
    if value is None:
        return nothing
    value *= (-1.0 if match["minus"] else 1.0) * _SCALES.get(match["scale"] or "", 1.0)
    values = {value, value / 100} if match["percent"] else {value}
    return frozenset(values), unit


def same(answer: str, reference: str) -> bool:
    """Return whether a careful reader takes an answer for a reference: equal without regard to case,
    punctuation, articles and spaces between words; equal numbers, if their units do not differ; or lists of
    equal parts.

    >>> same("The T-shirt.", "t shirt"), same("on the left", "left"), same("two", "2"), same("35 mph", "35")
    (True, True, True, True)
    >>> same("Brazil and India", "[Brazil, India]"), same("2007-2008", "[2007, 2008]")
    (True, True)
    >>> same("35 mph", "35 kg"), same("C++", "C"), same("-5", "5"), same("1 2", "12"), same("left", "right")
    (False, False, False, False, False)
    >>> same("1%", "100%"), same("$5", "€5"), same("x < 5", "x>5"), same("type A", "type"), same("B-", "B")
    (False, False, False, False, False)
    """
    if _alike(answer, reference):
        return True
    true = _parts(reference)
    if len(true) < 2:
        return False
    said = _parts(answer)
    if len(said) == 1 and len(true) == 2 and (span := _SPAN.fullmatch(said[0])) is not None:
        said = [span[1], span[2]]
    return len(said) == len(true) and all(map(_alike, said, true))


def _alike(answer: str, reference: str) -> bool:
    if _other_money(answer, reference):
        return False
    wanted = _key(reference)
    if _key(answer) == wanted or _key(_PLACE.sub("", answer.strip())) == wanted:
        return True
    said, true = comparable(answer, reference)
    return any(math.isclose(x, y, rel_tol=1e-9, abs_tol=1e-12) for x in said for y in true)


def comparable(answer: str, reference: str) -> tuple[frozenset[float], frozenset[float]]:
    """Return the values of both (see :func:`amounts`); none if their units or currencies differ, or if one of
    them is not a number. Where both have a percent sign, their hundredths do not count.

    >>> comparable("1%", "100%"), comparable("$5", "€5")
    ((frozenset({1.0}), frozenset({100.0})), (frozenset(), frozenset()))
    """
    (said, unit), (true, true_unit) = amounts(answer), amounts(reference)
    if not (said and true) or (unit and true_unit and unit != true_unit) or _other_money(answer, reference):
        return frozenset(), frozenset()
    if len(said) > 1 and len(true) > 1:
        said, true = frozenset({max(said, key=abs)}), frozenset({max(true, key=abs)})
    return said, true


def _other_money(answer: str, reference: str) -> bool:
    """Return whether both name a currency by its sign, but not the same."""
    said, true = ({c for c in text if unicodedata.category(c) == "Sc"} for text in (answer, reference))
    return bool(said and true and said != true)


#: Where something is, but for the word that says where.
_PLACE = re.compile(r"(?:to|on|in|at)\s+the\s+", re.I)
_SPAN = re.compile(r"\s*(\d[\d,.]{0,20})\s?[-–—]\s?(\d[\d,.]{0,20})\s*")
#: What tells one answer from another, other than letters and digits.
_TELLING = frozenset("+#%/<>≤≥≠≈±^")
#: Comparisons as they are typed.
_TYPED = {">=": "≥", "<=": "≤", "!=": "≠"}
#: Names that people and charts abbreviate.
_ABBREVIATED = {"us": "unitedstates", "usa": "unitedstates", "uk": "unitedkingdom"}


def _key(text: str) -> str:
    """Return the letters, digits and telling signs of a text; spaces only between digits."""
    text = re.sub("[⁰¹²³⁴-⁹⁻⁺]{1,9}", lambda found: f"^{found[0].translate(_RAISED)}", text)
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).replace("−", "-")
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"(?:(?<=\s)|^)-(?=[\d.])|(?<=\w)-$", "minus", text.strip())
    text = re.sub("[<>!]=", lambda found: _TYPED[found[0]], text)
    text = re.sub(r"(?<=\d)\.(?=\d)", "point", text)
    text = re.sub(r"(?<=\w)['’](?=\w)", "", text)
    kept = "".join(
        c if c.isalnum() or c in _TELLING or unicodedata.category(c)[0] == "M" else " " for c in text
    )
    words = kept.split()
    # The last word is no article: type A, hepatitis A.
    bare = [word for word in words[:-1] if word not in ("a", "an", "the")] + words[-1:]
    key = re.sub(r"(?<!\d) | (?!\d)", "", " ".join(bare))
    return _ABBREVIATED.get(key, key) or "".join(text.split())


def _parts(text: str) -> list[str]:
    """Return the parts of a list: "[a, b]", "a and b", "a; b"."""
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.rpartition("=")[2].strip().strip("~[](){}. "))
    return [part for part in re.split(r"\s*(?:,\s*and\b|[,;&]|\band\b)\s*", text) if part]
