"""Score short answers by the rules of the benchmarks that ask for them. Pure functions of texts.

All return a number from 0 to 1, the best over the references. Which rule applies is the choice of a data
set's authors; docs/vqa.md lists the sources side by side.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from snellen.errors import require
from snellen.metrics.registry import metric

__all__ = [
    "anls",
    "contains",
    "exact_match",
    "normalize_vqa",
    "number",
    "number_match",
    "open_match",
    "relaxed_accuracy",
    "vqa_accuracy",
]


@metric("exact_match", option="exact", protocols=("vqa",))
def exact_match(answer: str, references: Sequence[str]) -> float:
    """Return 1 if the answer equals a reference, ignoring case, surrounding spaces and a final period.

    >>> exact_match("Red.", ["red"]), exact_match("a red car", ["red"])
    (1.0, 0.0)
    """

    def plain(text: str) -> str:
        return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).removesuffix(".")

    return float(plain(answer) in map(plain, references))


@metric("accuracy", option="contains", protocols=("vqa",))
def contains(answer: str, references: Sequence[str]) -> float:
    """Return 1 if a reference occurs in the answer, ignoring case and line breaks; a formula in LaTeX occurs
    with its case, ignoring spaces.

    Source: Liu et al., "OCRBench" (arXiv 2305.07895), whose formulas are those of HME100k; here, they are
    recognized by their commands and braces.

    >>> contains("It reads: STOP", ["Stop"]), contains("$x^{2}$", ["x ^ { 2 }"]), contains("X^{2}", ["x^{2}"])
    (1.0, 1.0, 0.0)
    """

    def within(reference: str) -> bool:
        if _FORMULA.search(reference):
            return "".join(reference.split()) in "".join(answer.split())
        wanted = reference.lower().strip().replace("\n", " ")
        return bool(wanted) and wanted in answer.lower().replace("\n", " ")

    return float(any(map(within, references)))


_FORMULA = re.compile(r"\\[A-Za-z]|[\^_]\s*\{")


# ── VQA accuracy ────────────────────────────────────────────────────────────────────────────────────

#: Contractions that annotators write without their apostrophe, looked up by their letters.
_CONTRACTIONS = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't "
    "he'd he'd've he's how'd how'll how's I'd've I'm I've isn't it'd it'd've it'll let's ma'am mightn't "
    "mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've "
    "shouldn't shouldn't've somebody'd somebody'd've somebody'll somebody's someone'd someone'd've "
    "someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's "
    "they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's "
    "what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't "
    "would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"
).split()
_WITH_APOSTROPHE = {word.replace("'", "").lower(): word for word in _CONTRACTIONS}
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_DIGITS = {word: str(n) for n, word in enumerate(_SMALL[:11])} | {"none": "0"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def normalize_vqa(text: str) -> str:
    """Normalize a short answer for VQA accuracy.

    Punctuation is removed (a comma between digits is dropped; other marks become a space unless next to
    one), as is a period not followed by a digit; numbers up to ten become digits, articles are dropped,
    and contractions get their apostrophe.

    Source: Antol et al., "VQA: Visual Question Answering" (arXiv 1505.00468) and the authors' evaluation
    (github.com/GT-Vision-Lab/VQA); implemented from its description.

    >>> normalize_vqa("The Two dogs, dont run."), normalize_vqa("1,000")
    ("2 dogs don't run", '1000')
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    between_digits = re.search(r"\d,\d", text) is not None
    original = text
    for mark in _PUNCTUATION:
        beside_blank = f"{mark} " in original or f" {mark}" in original
        text = text.replace(mark, "" if beside_blank or between_digits else " ")
    text = re.sub(r"\.(?!\d)", "", text).lower()
    words = (_DIGITS.get(word, word) for word in text.split())
    return " ".join(_WITH_APOSTROPHE.get(word, word) for word in words if word not in ("a", "an", "the"))


@metric("vqa_accuracy", option="vqa", protocols=("vqa",))
def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Return the mean over annotators (usually ten) of min(1, matching other annotators / 3).

    Answers are normalized on both sides (see :func:`normalize_vqa`). Fewer than four annotators can never
    reach 1; then, as with a single reference, exact match after normalization is used instead.

    Source: as for :func:`normalize_vqa`.

    >>> vqa_accuracy("red", ["red"] * 3 + ["blue"] * 7), vqa_accuracy("blue", ["red"] * 3 + ["blue"] * 7)
    (0.9, 1.0)
    """
    said = normalize_vqa(answer)
    same = sum(normalize_vqa(reference) == said for reference in references)
    n = len(references)
    if n < 4:
        return float(same > 0)
    # Leaving out an annotator who agrees reduces the count by one; leaving out another does not.
    included, others = min(1.0, (same - 1) / 3), min(1.0, same / 3)
    return (same * included + (n - same) * others) / n if same else 0.0


# ── numbers ─────────────────────────────────────────────────────────────────────────────────────────

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


_WORDS = {word: n for n, word in enumerate(_SMALL)}
_WORDS |= {word: 10 * n for n, word in enumerate(_TENS, start=2)}
_SCALES = {"k": 1e3, "thousand": 1e3, "m": 1e6, "million": 1e6, "bn": 1e9, "billion": 1e9}
_WITH_UNIT = re.compile(
    r"(?P<number>[-+]?[$€£]?\d[\d,.]{0,20}?)(?:\s?(?P<scale>k|m|bn|thousand|million|billion)\b"
    r"|\s?(?P<unit>°\s?[cf]?|[^\W\d_]{1,20}(?:\s[^\W\d_]{1,20}){0,2}))?",
    re.I,
)


def quantity(text: str) -> float | None:
    """Parse a number as people write one: :func:`number`, or the end of an equation, number words up to 99,
    a number with its unit. None for anything else; a percentage in words has no single value.

    >>> quantity("3 + 4 = 7"), quantity("thirty-nine"), quantity("3.4 million"), quantity("2.5 cm")
    (7.0, 39.0, 3400000.0, 2.5)
    >>> quantity("minus 5"), quantity("5 percent"), quantity("route 66")
    (-5.0, None, None)
    """
    if (value := number(text)) is not None:
        return value
    text = unicodedata.normalize("NFKC", text).rpartition("=")[2].strip(" .$").casefold()
    text = re.sub(r"^(?:approximately|about|around|roughly|~|≈)\s?", "", text)
    text, minus = re.subn(r"^(?:minus|negative)\s", "", text)
    sign = -1.0 if minus else 1.0
    if (value := number(text)) is not None:
        return sign * value
    words = re.split(r"[\s-]", text)
    values = [_WORDS.get(word) for word in words]
    if len(words) == 1 and values[0] is not None:
        return sign * values[0]
    if len(words) == 2 and values[0] is not None and values[1] is not None:
        return sign * (values[0] + values[1]) if values[0] >= 20 and 0 < values[1] < 10 else None
    match = _WITH_UNIT.fullmatch(text)
    if match is None or (match["unit"] or "").startswith(
        ("percent", "per cent", "trillion", "hundred", "dozen")
    ):
        return None
    value = number(match["number"])
    return None if value is None else sign * value * _SCALES.get(match["scale"] or "", 1.0)


@metric("relaxed_accuracy", option="relaxed", protocols=("vqa",))
def relaxed_accuracy(answer: str, references: Sequence[str], tolerance: float = 0.05) -> float:
    """Return 1 if the answer is within 5% of a numeric reference, or equals the reference, ignoring case.

    Source: Masry et al., "ChartQA" (arXiv 2203.10244); as there, a reference of 0 is compared as text.
    """

    def near(reference: str) -> bool:
        said, true = quantity(answer), quantity(reference)
        if said is None or true is None or true == 0:
            return exact_match(answer, [reference]) > 0
        return abs(said - true) <= tolerance * abs(true)

    return float(any(near(reference) for reference in references))


@metric("number_match", option="number", protocols=("vqa",))
def number_match(answer: str, references: Sequence[str]) -> float:
    """Return 1 if the answer equals a numeric reference after rounding to the reference's decimals; integers
    and non-numbers must match exactly.

    Source: as MathVista (Lu et al., arXiv 2310.02255) rounds an answer to the requested precision.

    >>> number_match("3.252", ["3.25"]), number_match("3.3", ["3.25"]), number_match("[1, 2]", ["[1,2]"])
    (1.0, 0.0, 1.0)
    >>> number_match("7.0", ["7"]), number_match("6.9", ["7"]), number_match("0.75", ["3/4"])
    (1.0, 0.0, 1.0)
    """

    def same(reference: str) -> bool:
        said, true = quantity(answer), quantity(reference)
        if said is None or true is None:
            return "".join(answer.split()).casefold() == "".join(reference.split()).casefold()
        decimals = len(re.sub(r"[^\d.]", "", reference).partition(".")[2])
        if not decimals or "/" in reference:
            return math.isclose(said, true, rel_tol=1e-9, abs_tol=1e-9)
        if reference.strip().endswith("%"):
            decimals += 2
        return abs(said - true) <= 0.5 * 10.0**-decimals + 1e-12

    return float(any(map(same, references)))


@metric("accuracy", option="open", protocols=("vqa",))
def open_match(answer: str, references: Sequence[str]) -> float:
    """Return 1 if :func:`exact_match` or :func:`number_match` does: for open answers among lettered ones
    (MMMU).

    MMMU's own evaluation (Yue et al., arXiv 2311.16502) also accepts a text that contains the answer, and
    the last number of a longer text; here only what the text presents as its answer counts.
    """
    return max(exact_match(answer, references), number_match(answer, references))


# ── documents ───────────────────────────────────────────────────────────────────────────────────────


@metric("anls", protocols=("vqa",))
def anls(answer: str, references: Sequence[str], threshold: float = 0.5) -> float:
    """Return the normalized Levenshtein similarity of one answer: 1 minus the edit distance over the longer
    length, for the nearest reference; 0 below the threshold. Averaged over samples, it is ANLS.

    Source: Biten et al., "Scene Text Visual Question Answering" (arXiv 1905.13648), as used by DocVQA
    (Mathew et al., arXiv 2007.00398). Distances through rapidfuzz.

    >>> anls("Helo World", ["hello world"]), anls("cat", ["hello world"])
    (0.9090909090909091, 0.0)
    """
    levenshtein: Any = require("rapidfuzz.distance", "metrics", "ANLS").Levenshtein

    def plain(text: str) -> str:
        return " ".join(text.lower().split())

    said = plain(answer)
    if not said:
        return 0.0
    best = max(
        (1 - levenshtein.normalized_distance(said, plain(reference)) for reference in references), default=0.0
    )
    return float(best) if best >= threshold else 0.0
