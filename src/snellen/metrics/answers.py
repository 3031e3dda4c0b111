"""How good a short answer is, by the rules of the benchmarks that ask for one. Pure functions of texts.

All give a number from 0 to 1, the best over the true answers. Which rule a data set is scored by is the
choice of its authors; docs/vqa.md has the sources side by side.
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
    "normalise_vqa",
    "number",
    "number_match",
    "open_match",
    "relaxed_accuracy",
    "vqa_accuracy",
]


@metric("exact_match", option="exact", protocols=("vqa",))
def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 where the answer is one of the references, casing, outer blanks and a final full stop aside.

    >>> exact_match("Red.", ["red"]), exact_match("a red car", ["red"])
    (1.0, 0.0)
    """

    def plain(text: str) -> str:
        return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).removesuffix(".")

    return float(plain(answer) in map(plain, references))


@metric("accuracy", option="contains", protocols=("vqa",))
def contains(answer: str, references: Sequence[str]) -> float:
    """1 where a reference occurs in the answer, casing and line breaks aside.

    Source: Liu et al., "OCRBench" (arXiv 2305.07895). There, formulas (HME100k) are compared without blanks
    and with their casing; here they are not told apart.
    """

    def plain(text: str) -> str:
        return text.lower().strip().replace("\n", " ")

    return float(any(plain(reference) in plain(answer) for reference in references if plain(reference)))


# ── VQA accuracy ────────────────────────────────────────────────────────────────────────────────────

#: Contractions that annotators write without their apostrophe; each is known by its letters alone.
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
_DIGITS = dict(
    zip("zero one two three four five six seven eight nine ten".split(), map(str, range(11)), strict=True)
)
_DIGITS["none"] = "0"
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def normalise_vqa(text: str) -> str:
    """A short answer in the form in which VQA accuracy compares it.

    Punctuation goes (between digits a comma is dropped, elsewhere it becomes a blank unless a blank is
    beside it), a full stop goes unless a digit follows, numbers up to ten become digits, articles go, and
    contractions get their apostrophe.

    Source: Antol et al., "VQA: Visual Question Answering" (arXiv 1505.00468) and the authors' evaluation
    (github.com/GT-Vision-Lab/VQA); written anew from its description.

    >>> normalise_vqa("The Two dogs, dont run."), normalise_vqa("1,000")
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
    """The mean, over the annotators, of min(1, others who say the same / 3), the usual ten given.

    Answers are normalised (see :func:`normalise_vqa`) on both sides. Fewer than four annotators cannot agree
    enough to give 1; then, as with a single reference, exact match after normalisation is taken instead.

    Source: as :func:`normalise_vqa`.

    >>> vqa_accuracy("red", ["red"] * 3 + ["blue"] * 7), vqa_accuracy("blue", ["red"] * 3 + ["blue"] * 7)
    (0.9, 1.0)
    """
    said = normalise_vqa(answer)
    same = sum(normalise_vqa(reference) == said for reference in references)
    n = len(references)
    if n < 4:
        return float(same > 0)
    # Left out in turn, an annotator who said the same is one less, each of the others none.
    included, others = min(1.0, (same - 1) / 3), min(1.0, same / 3)
    return (same * included + (n - same) * others) / n if same else 0.0


# ── numbers ─────────────────────────────────────────────────────────────────────────────────────────

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?")


def number(text: str) -> float | None:
    """The number that a text is, with a currency sign or thousands' commas, a per cent sign dividing by a
    hundred; None where it is anything else.

    >>> number("$1,250.50"), number("41%"), number("3/4"), number("about 5")
    (1250.5, 0.41, 0.75, None)
    """
    if any(unicodedata.category(c) == "No" for c in text):  # 5² is not 52, which it would become
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


@metric("relaxed_accuracy", option="relaxed", protocols=("vqa",))
def relaxed_accuracy(answer: str, references: Sequence[str], tolerance: float = 0.05) -> float:
    """1 where the answer is within 5 per cent of a reference that is a number, or else equals it, casing
    aside.

    Source: Masry et al., "ChartQA" (arXiv 2203.10244); a true 0 is compared as text, as there.
    """

    def near(reference: str) -> bool:
        said, true = number(answer), number(reference)
        if said is None or true is None or true == 0:
            return exact_match(answer, [reference]) > 0
        return abs(said - true) <= tolerance * abs(true)

    return float(any(near(reference) for reference in references))


@metric("number_match", option="number", protocols=("vqa",))
def number_match(answer: str, references: Sequence[str]) -> float:
    """1 where the answer is the same number as a reference, once it is rounded to the decimals that the
    reference has; a whole number, and what is no number, must be matched exactly.

    Source: as MathVista (Lu et al., arXiv 2310.02255) rounds an answer to the precision that is asked for.

    >>> number_match("3.252", ["3.25"]), number_match("3.3", ["3.25"]), number_match("[1, 2]", ["[1,2]"])
    (1.0, 0.0, 1.0)
    >>> number_match("7.0", ["7"]), number_match("6.9", ["7"]), number_match("0.75", ["3/4"])
    (1.0, 0.0, 1.0)
    """

    def same(reference: str) -> bool:
        said, true = number(answer), number(reference)
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
    """1 where :func:`exact_match` or :func:`number_match` is: for free answers among lettered ones (MMMU).

    MMMU's own evaluation (Yue et al., arXiv 2311.16502) also takes a text that contains the answer, and the
    last number of a longer text; here an answer is only what the text says is its answer.
    """
    return max(exact_match(answer, references), number_match(answer, references))


# ── documents ───────────────────────────────────────────────────────────────────────────────────────


@metric("anls", protocols=("vqa",))
def anls(answer: str, references: Sequence[str], threshold: float = 0.5) -> float:
    """Average normalised Levenshtein similarity, of one answer: 1 less the edit distance over the longer
    length, of the nearest reference; 0 below the threshold.

    Source: Biten et al., "Scene Text Visual Question Answering" (arXiv 1905.13648), as DocVQA (Mathew et
    al., arXiv 2007.00398) uses it. Distances through rapidfuzz.

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
