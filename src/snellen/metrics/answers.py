"""Score short answers by the rules of the benchmarks that ask for them. Pure functions of texts.

All return a number from 0 to 1, the best over the references. Which rule applies is the choice of a data
set's authors; docs/vqa.md lists the sources side by side.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from snellen.errors import require
from snellen.metrics.registry import metric
from snellen.metrics.values import DIGITS, comparable, same

__all__ = [
    "anls",
    "contains",
    "exact_match",
    "mmmu_open",
    "normalize_textvqa",
    "normalize_vqa",
    "number_match",
    "open_match",
    "relaxed_accuracy",
    "textvqa_accuracy",
    "vqa_accuracy",
]


@metric("exact_match", option="exact", protocols=("vqa",))
def exact_match(answer: str, references: Sequence[str]) -> float:
    """Return 1 if the answer equals a reference for a careful reader: without regard to case, punctuation,
    articles and spaces; numbers by value (see :func:`snellen.metrics.values.same`).

    The evaluations of GQA and RealWorldQA in LMMs-Eval ignore case and punctuation only.

    >>> exact_match("Red.", ["red"]), exact_match("a t-shirt", ["T shirt"]), exact_match("a red car", ["red"])
    (1.0, 1.0, 0.0)
    """
    return float(any(same(answer, reference) for reference in references))


@metric("accuracy", option="contains", protocols=("vqa",))
def contains(answer: str, references: Sequence[str]) -> float:
    """Return 1 if a reference occurs in the answer, ignoring case and line breaks; a formula in LaTeX occurs
    with its case, ignoring spaces.

    Source: Liu et al., "OCRBench" (arXiv 2305.07895), whose formulas are those of HME100k; here, they are
    recognized by their commands, braces, or blanks between all signs.

    >>> contains("It reads: STOP", ["Stop"]), contains("$x^{2}$", ["x ^ { 2 }"]), contains("X^{2}", ["x^{2}"])
    (1.0, 1.0, 0.0)
    """

    def within(reference: str) -> bool:
        if _is_formula(reference):
            return "".join(reference.split()) in "".join(answer.split())
        wanted = reference.lower().strip().replace("\n", " ")
        return bool(wanted) and wanted in answer.lower().replace("\n", " ")

    return float(any(map(within, references)))


_FORMULA = re.compile(r"\\[A-Za-z]|[\^_]\s*\{")


def _is_formula(text: str) -> bool:
    """Return whether a text is LaTeX, or an expression with a blank after each sign ("x + y = 4")."""
    signs = text.split()
    spaced = len(signs) > 2 and max(map(len, signs)) == 1 and not set("+-=<>").isdisjoint(signs)
    return spaced or _FORMULA.search(text) is not None


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
    words = (DIGITS.get(word, word) for word in text.split())
    return " ".join(_WITH_APOSTROPHE.get(word, word) for word in words if word not in ("a", "an", "the"))


def normalize_textvqa(text: str) -> str:
    """Normalize a short answer for TextVQA: as :func:`normalize_vqa`, after commas and question marks are
    removed and a possessive is set apart.

    Source: Singh et al., "Towards VQA Models That Can Read" (arXiv 1904.08920), and the answer processor of
    the authors' framework (Pythia, later MMF), which LMMs-Eval uses, too.

    >>> normalize_textvqa("Joe's, 1,000"), normalize_vqa("Joe's, 1,000")
    ("joe 's 1000", "joe's 1000")
    """
    return normalize_vqa(text.lower().replace(",", "").replace("?", "").replace("'s", " 's"))


@metric("vqa_accuracy", option="vqa", protocols=("vqa",))
def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Return the mean over annotators (usually ten) of min(1, matching other annotators / 3).

    Answers are normalized on both sides (see :func:`normalize_vqa`). Fewer than four annotators can never
    reach 1; then, as with a single reference, exact match after normalization is used instead.

    Source: as for :func:`normalize_vqa`.

    >>> vqa_accuracy("red", ["red"] * 3 + ["blue"] * 7), vqa_accuracy("blue", ["red"] * 3 + ["blue"] * 7)
    (0.9, 1.0)
    """
    return _agreement(normalize_vqa(answer), list(map(normalize_vqa, references)))


@metric("textvqa_accuracy", option="textvqa", protocols=("vqa",))
def textvqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """Return the same for TextVQA, whose answers are normalized otherwise (see :func:`normalize_textvqa`)."""
    return _agreement(normalize_textvqa(answer), list(map(normalize_textvqa, references)))


def _agreement(said: str, references: Sequence[str]) -> float:
    same = sum(reference == said for reference in references)
    n = len(references)
    if n < 4:
        return float(same > 0)
    # Leaving out an annotator who agrees reduces the count by one; leaving out another does not.
    included, others = min(1.0, (same - 1) / 3), min(1.0, same / 3)
    return (same * included + (n - same) * others) / n if same else 0.0


# ── numbers ─────────────────────────────────────────────────────────────────────────────────────────


@metric("relaxed_accuracy", option="relaxed", protocols=("vqa",))
def relaxed_accuracy(answer: str, references: Sequence[str], tolerance: float = 0.05) -> float:
    """Return 1 if the answer is within 5% of a numeric reference, or equals it (see :func:`exact_match`).

    Source: Masry et al., "ChartQA" (arXiv 2203.10244); as there, nothing but zero is near zero. Years must be
    equal, as in their "ChartQAPro" (arXiv 2504.05506); in ChartQA itself, 2015 is near 2010.

    >>> relaxed_accuracy("41", ["40"]), relaxed_accuracy("2015", ["2010"])
    (1.0, 0.0)
    """

    def near(reference: str) -> bool:
        if exact_match(answer, [reference]):
            return True
        if _YEAR.fullmatch(reference) and _YEAR.fullmatch(answer.rpartition("=")[2]):
            return False
        said, true = comparable(answer, reference)
        return any(y != 0 and abs(x - y) <= tolerance * abs(y) for x in said for y in true)

    return float(any(near(reference) for reference in references))


_YEAR = re.compile(r"\D*(?:19|20)\d\d\D*")


@metric("number_match", option="number", protocols=("vqa",))
def number_match(answer: str, references: Sequence[str]) -> float:
    """Return 1 if the answer equals a numeric reference after rounding to the reference's decimals; integers,
    lists and texts must be equal (see :func:`exact_match`).

    Source: as MathVista (Lu et al., arXiv 2310.02255) rounds an answer to the requested precision.

    >>> number_match("3.252", ["3.25"]), number_match("3.3", ["3.25"]), number_match("[1, 2]", ["[1,2]"])
    (1.0, 0.0, 1.0)
    >>> number_match("7.0", ["7"]), number_match("6.9", ["7"]), number_match("0.75", ["3/4"])
    (1.0, 0.0, 1.0)
    """

    def rounded(reference: str) -> bool:
        decimals = len(re.sub(r"[^\d.]", "", reference).partition(".")[2])
        said, true = comparable(answer, reference)
        if not decimals or "/" in reference:
            return False
        allowed = 0.5 * 10.0**-decimals
        return any(
            abs(x - y) <= (allowed / 100 if _divided(y, true) else allowed) + 1e-12
            for x in said
            for y in true
        )

    return max(exact_match(answer, references), float(any(map(rounded, references))))


def _divided(value: float, values: frozenset[float]) -> bool:
    """Return whether it is the hundredth of another one, as of a percentage."""
    return len(values) > 1 and abs(value) == min(map(abs, values))


@metric("accuracy", option="open", protocols=("vqa",))
def open_match(answer: str, references: Sequence[str]) -> float:
    """Return 1 if :func:`number_match` does, or if both are the same number at two decimals: for open
    answers among lettered ones.

    Source: MMMU's own evaluation (Yue et al., arXiv 2311.16502), which rounds to two decimals. It also
    accepts a text that contains the answer, and any number of a longer text (see :func:`mmmu_open`); here
    only what the text presents as its answer counts.

    >>> open_match("3.43", ["24/7", "3.429"]), open_match("a lead compensator", ["Lead compensator"])
    (1.0, 1.0)
    """

    def rounded(reference: str) -> bool:
        said, true = comparable(answer, reference)
        return any(round(x, 2) == round(y, 2) != 0 for x in said for y in true)

    return max(number_match(answer, references), float(any(map(rounded, references))))


#: What MMMU's authors look for the answer behind; in the last line, also behind a sign of equality.
_BEFORE_ANSWERS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = tuple(
    map(
        re.compile,
        (
            r"-?\b\d{1,3}(?:,\d{3})+\b",
            # From the first digit on alone: from within, what fails there fails, too, again and again.
            r"-?(?<!\d)\d+(?:\.\d+)?[eE][+-]?\d+",
            r"-?(?:(?<!\d)\d+\.\d+|\.\d+|(?<!\d)\d+\b)(?![eE][+-]?\d+)(?![,\d])",
        ),
    )
)


def mmmu_open(reply: str, references: Sequence[str]) -> float:
    """Return 1 if MMMU's authors take a whole reply to an open question for right: if what stands behind the
    last "is", "answer" and the like, or all of it without such a word, contains a reference that is a text,
    or a number that equals one at two decimals. "It is not 5" is right for 5, and "twelve" wrong for 12.

    Source: the authors' evaluation (github.com/MMMU-Benchmark/MMMU, eval_utils.py, as LMMs-Eval has it).

    >>> mmmu_open("The gain is 3.431 at most.", ["3.43"]), mmmu_open("It is not 5.", ["5"])
    (1.0, 1.0)
    """
    reply = reply.strip().strip(".").lower()
    lines = reply.split("\n")
    tails = []
    for number, line in enumerate(lines, 1):
        tail = ""
        for word in (*_BEFORE_ANSWERS, "=") if number == len(lines) else _BEFORE_ANSWERS:
            if word in line:
                behind = line.rpartition(word)[2].strip()
                tail = behind if not tail or len(behind) < len(tail) else tail
        if tail and tail not in (":", ",", ".", "!", "?", ";", "'"):
            tails.append(tail)
    tails = tails or [reply]
    said = [*tails, *(number for tail in tails for form in _NUMBERS for number in form.findall(tail))]
    wanted = [form for reference in references for form in _rounded_or_text(reference)]
    numbers = {value for value in wanted if isinstance(value, float)}
    texts = [text for text in wanted if isinstance(text, str)]
    return float(
        any(
            value in numbers if isinstance(value, float) else any(text in value for text in texts)
            for part in said
            for value in _rounded_or_text(part)
        )
    )


def _rounded_or_text(text: str) -> list[float] | list[str]:
    """Return a number at two decimals, or a text in lower case; one sign stands next to a blank."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


# ── documents ───────────────────────────────────────────────────────────────────────────────────────


def _levenshtein() -> Any:
    return require("rapidfuzz.distance", "metrics", "ANLS").Levenshtein


@metric("anls", protocols=("vqa",), check=_levenshtein)
def anls(answer: str, references: Sequence[str], threshold: float = 0.5) -> float:
    """Return the normalized Levenshtein similarity of one answer: 1 minus the edit distance over the longer
    length, for the nearest reference; 0 below the threshold. Averaged over samples, it is ANLS.

    Source: Biten et al., "Scene Text Visual Question Answering" (arXiv 1905.13648), as used by DocVQA
    (Mathew et al., arXiv 2007.00398). Distances through rapidfuzz.

    >>> anls("Helo World", ["hello world"]), anls("cat", ["hello world"])
    (0.9090909090909091, 0.0)
    """
    levenshtein = _levenshtein()

    def plain(text: str) -> str:
        return " ".join(text.lower().split())

    said = plain(answer)
    if not said:
        return 0.0
    best = max(
        (1 - levenshtein.normalized_distance(said, plain(reference)) for reference in references), default=0.0
    )
    return float(best) if best >= threshold else 0.0
