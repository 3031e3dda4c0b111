"""The rules of OCRBench v2: how a reply is scored depends on the kind of its question.

Source: Fu et al., "OCRBench v2" (arXiv 2501.00321), and the authors' evaluation
(github.com/Yuliang-Liu/MultimodalOCR), as VLMEvalKit and LMMs-Eval have it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

from snellen.errors import require
from snellen.metrics import pages
from snellen.metrics.boxes import iou
from snellen.metrics.literal import literal
from snellen.metrics.pages import page_similarity
from snellen.metrics.registry import METRICS, Metric
from snellen.metrics.spotting import Spotted, read_spotted, spotting_score
from snellen.metrics.trees import document_similarity, markdown_table, page_of_rows, table_similarity

if TYPE_CHECKING:
    from snellen.types import Sample

__all__ = ["ocrbench_v2"]


class Marking(NamedTuple):
    """What rules read of a sample."""

    answers: Sequence[str]
    question: str
    columns: Mapping[str, Any]


KindRule = Callable[[str, Marking], float]


def ocrbench_v2(reply: str, sample: Sample) -> float | None:
    """Return the score of a reply, from 0 to 1, by the kind of its question (the column ``type``); None if
    the authors leave the question out, the kind is unknown, or its rule cannot read the row's truth.

    The columns ``eval`` (a rule of a single question), ``bbox``, ``bbox_list`` and ``content`` are read, too.

    Raises:
        MissingExtra, DataError: a requirement is not installed.
    """
    kind = str(sample.meta.get("type"))
    rule = RULES.get(kind)
    answers = [str(answer) for answer in sample.meta.get("answers") or sample.references]
    if rule is None or not answers or (kind == "text translation cn" and not answers[0]):
        return None
    try:
        return rule(reply, Marking(answers, sample.question or "", sample.meta))
    except (KeyError, TypeError, IndexError, ValueError):  # of the truth: replies raise none
        return None


# ── short answers ───────────────────────────────────────────────────────────────────────────────────


def _held(reply: str, answers: Sequence[str], is_short: Callable[[str], bool]) -> float:
    """Return 1 if the reply holds a short answer, or else its similarity to a long one, from 0.5 on."""
    levenshtein: Any = require("rapidfuzz.distance", "ocr", "The edit distance").Levenshtein
    best = 0.0
    for answer in answers:
        if is_short(answer):
            best = max(best, float(answer in reply))
        elif (alike := 1 - levenshtein.normalized_distance(reply, answer)) >= 0.5:
            best = max(best, alike)
    return best


def _line(text: str) -> str:
    return text.strip().replace("\n", " ")


def _solid(text: str) -> str:
    return "".join(_line(text).split(" "))


def _answered(reply: str, answers: Sequence[str]) -> float:
    lower = [_line(answer.lower()) for answer in answers]
    return _held(_line(reply.lower()), lower, lambda answer: len(answer.split()) < 5)


def _short_answer(reply: str, marking: Marking, *, chinese: bool = False) -> float:
    rule = marking.columns.get("eval")
    if rule == "multiple choice":
        return float("".join(filter(str.isalpha, reply)) == marking.answers[0])
    if rule == "case sensitive":
        return _held(_line(reply), list(map(_line, marking.answers)), lambda answer: len(answer.split()) < 5)
    if chinese:
        solid = [_solid(answer.lower()) for answer in marking.answers]
        return _held(_solid(reply.lower()), solid, lambda answer: len(answer.split(",")) < 4)
    return _answered(reply, marking.answers)


def _count(reply: str, marking: Marking) -> float:
    if marking.columns["eval"] == "exact match":
        return float(any(_line(answer.lower()) in reply for answer in marking.answers))
    if marking.columns["eval"] != "regression":
        raise ValueError("neither exact match nor regression")
    number = re.search(r"\d+", reply)
    said = int(number[0]) if number and len(number[0]) < 20 else 0
    shares = (1 - abs(said - int(answer)) / int(answer) for answer in marking.answers if int(answer))
    return max((share for share in shares if said and share > 0.5), default=0.0)


def _formula(reply: str, marking: Marking) -> float:
    return float(any(_solid(answer) in _solid(reply) for answer in marking.answers))


def _formula_cn(reply: str, marking: Marking) -> float:
    said, true = (re.sub(r"\\text\{([^{}]*)\}", r"\1", text) for text in (reply, marking.answers[0]))
    return _formula(said, marking._replace(answers=[true]))


def _letters_cn(reply: str, marking: Marking) -> float:
    if "简答" in marking.question:  # to be answered in a sentence
        return page_similarity(reply, marking.answers[0])
    between = ("", ".", ". ", ",", ", ", "、", ";", "; ", " ", "和")
    return float(any(mark.join(marking.answers[0]) in reply for mark in between))


# ── pages, tables, charts, documents ────────────────────────────────────────────────────────────────


def _page(reply: str, marking: Marking) -> float:
    return page_similarity(reply, marking.answers[0]) if reply else 0.0


def _html_table(reply: str, marking: Marking) -> float:
    text = reply.replace("\n", "")
    start = next((text.index(tag) for tag in ("<body", "<table") if tag in text), None)
    return 0.0 if start is None else table_similarity(*map(_wrapped, (text[start:], marking.answers[0])))


def _wrapped(table: str) -> str:
    """Return a table with the tags around it that are missing."""
    table = table.replace("\n", "")
    if "</table>" not in table:
        table = f"{table}</table>" if "<table" in table else f"<table>{table}</table>"
    elif "<table" not in table:
        table = f"<table>{table}"
    table = table if "<body>" in table else f"<body>{table}</body>"
    return table if "<html>" in table else f"<html>{table}</html>"


def _table(reply: str, marking: Marking) -> float:
    if "html" in marking.question.lower():
        return _html_table(reply, marking)
    if "markdown" in marking.question.lower():
        return table_similarity(markdown_table(reply), markdown_table(marking.answers[0]))
    return 0.0


def _chart(reply: str, marking: Marking) -> float:
    said = _dictionary(reply)
    return table_similarity(_rows(said), _rows(_dictionary(marking.answers[0]))) if said else 0.0


def _rows(chart: Mapping[str, Any]) -> str:
    # The authors set blanks between the signs of a value.
    return page_of_rows((str(key), " ".join(str(value))) for key, value in chart.items())


_FENCE = re.compile(r"```(?:python|json)?\n", re.IGNORECASE)


def _fenced(text: str) -> list[str]:
    """Return what stands between fences."""
    parts, end = [], 0
    while (fence := _FENCE.search(text, end)) and (end := text.find("\n```", fence.end())) >= 0:
        parts.append(text[fence.end() : end])
        end += 4
    return parts


def _dictionary(text: str) -> dict[Any, Any]:
    """Read a dictionary in Python's notation, with comments and an assignment; else an empty one."""
    text = max(_fenced(text), key=len, default=text).strip()
    text = re.sub(r"#.*", "", re.sub(r"^\s*\w+\s*=\s*", "", text, count=1))
    value = _literal(text[: text.rfind("}") + 1] or text)
    return value if isinstance(value, dict) else {}


def _literal(text: str) -> Any:
    with suppress(ValueError):
        return literal(text)
    return None


def _document(reply: str, marking: Marking) -> float:
    return document_similarity(reply, marking.answers[0])


# ── fields ──────────────────────────────────────────────────────────────────────────────────────────


def _fields(reply: str, marking: Marking) -> float:
    said = _read_fields(reply)
    true = _json_or_literal(marking.answers[0].strip('"'))
    if isinstance(true, str):
        true = _literal(true)
    if not isinstance(true, dict):
        raise ValueError("not fields and their values")
    several = [value if isinstance(value, list) else [value] for value in true.values()]
    return max(
        (_field_f1(said, dict(zip(true, values, strict=True))) for values in product(*several)), default=0.0
    )


def _json_or_literal(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _literal(text)


#: A key and its value where neither JSON nor Python's notation can be read.
_PAIR = re.compile(r"[\"']?([\w\s]++)[\"']?\s*+[:=]\s*[\"']?([^\n,\"'{}]+)[\"']?")
#: More of such a text is not searched, since each of its words is tried anew.
LONGEST = 5_000


def _read_fields(reply: str) -> dict[str, str]:
    """Read keys and values from JSON, Python's notation, or lines such as ``key: value``."""
    text = next(iter(_fenced(reply)), reply.strip())
    value: Any
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = literal(text)
        except ValueError:
            pairs = _PAIR.findall(text[:LONGEST])
            value = {key.strip(): text.strip() for key, text in pairs}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        return {}
    return {key.strip(): str(item).strip() for key, item in value.items()}


def _field_f1(said: Mapping[str, str], true: Mapping[str, Any]) -> float:
    """Return the share of fields, of either side, that are equal."""
    fields = said.keys() | {key for key, value in true.items() if value is not None}
    if not fields:
        return 0.0

    def plain(text: Any) -> str:
        return "".join(str(text).lower().strip().replace("\n", " ").split(" "))

    same = sum(
        key in said and true.get(key) is not None and plain(said[key]) == plain(true[key]) for key in fields
    )
    return same / len(fields)


# ── places ──────────────────────────────────────────────────────────────────────────────────────────


def _with_position(reply: str, marking: Marking) -> float:
    said = _read_fields(reply)
    content = _answered(said["answer"], marking.answers) if "answer" in said else 0.0
    true = [int(side) for side in marking.columns["bbox"]]
    return 0.5 * content + 0.5 * _overlap(_literal(said.get("bbox", "")), true)


_BOX = re.compile(r"[(\[]\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*[)\]]")


def _grounding(reply: str, marking: Marking) -> float:
    boxes = [list(map(int, box)) for box in _BOX.findall(reply) if max(map(len, box)) < 20]
    boxes = [box for box in boxes if max(box) <= 1000]
    true = [int(side) for side in marking.answers]
    return _overlap(boxes[-1], true) if boxes else 0.0


def _overlap(said: Any, true: Sequence[int]) -> float:
    try:
        return iou([int(side) for side in said], true)
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0


def _spotting(reply: str, marking: Marking) -> float:
    true = []
    for corners, text in zip(marking.columns["bbox_list"], marking.columns["content"], strict=False):
        across, down = corners[0::2], corners[1::2]
        true.append(Spotted((min(across), min(down), max(across), max(down)), str(text)))
    return spotting_score(read_spotted(reply), true)


RULES: Mapping[str, KindRule] = {
    **dict.fromkeys(
        (
            *("text recognition en", "document classification en", "diagram QA en", "cognition VQA en"),
            *("APP agent en", "ASCII art classification en", "math QA en", "reasoning VQA en"),
            "science QA en",
        ),
        _short_answer,
    ),
    **dict.fromkeys(("cognition VQA cn", "reasoning VQA cn"), partial(_short_answer, chinese=True)),
    "text counting en": _count,
    "formula recognition en": _formula,
    "formula recognition cn": _formula_cn,
    "handwritten answer extraction cn": _letters_cn,
    **dict.fromkeys(
        (
            *("full-page OCR en", "full-page OCR cn", "fine-grained text recognition en"),
            "text translation cn",
        ),
        _page,
    ),
    "table parsing en": _table,
    "table parsing cn": _html_table,
    "chart parsing en": _chart,
    **dict.fromkeys(("document parsing en", "document parsing cn"), _document),
    **dict.fromkeys(
        ("key information extraction en", "key information mapping en", "key information extraction cn"),
        _fields,
    ),
    "VQA with position en": _with_position,
    "text grounding en": _grounding,
    "text spotting en": _spotting,
}


def _check() -> None:
    for module in ("apted", "lxml.html", "rapidfuzz"):
        require(module, "ocr", "OCRBench v2")
    if find_spec("jieba") is None:  # importing it takes a second
        require("jieba", "ocr", "OCRBench v2")
    pages.require_wordnet()


METRICS.add(
    Metric(
        name="ocrbench_v2",
        heading="OCRBench v2",
        graded=True,
        option="ocrbench-v2",
        protocols=("vqa",),
        sample_rule=ocrbench_v2,
        columns=("type",),
        check=_check,
    )
)
