"""Read boxes and outlines in the formats of the model families, as fractions of the picture.

The format is given in advance, never guessed from the text. Sources of the formats: PaliGemma (Beyer et
al., arXiv 2407.07726), Florence-2 (Xiao et al., arXiv 2311.06242), Kosmos-2 (Peng et al., arXiv
2306.14824), Qwen-VL (Bai et al., arXiv 2308.12966), Qwen2.5-VL (arXiv 2502.13923), InternVL (arXiv
2404.16821), LLaVA-1.5 (arXiv 2310.03744) and Shikra (Chen et al., arXiv 2306.15195).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from snellen.parsing.text import ParseFailure, failure, is_refusal, strip_thinking

__all__ = ["FORMATS", "BoxFormat", "ParsedBox", "parse_boxes"]

BoxFormat = Literal["pixels", "unit", "thousand", "yx-thousand", "padded-unit", "loc", "florence", "kosmos"]
FORMATS: tuple[BoxFormat, ...] = get_args(BoxFormat)

#: A longer answer is degenerate; unlike prose, a list of boxes cannot be read without its middle.
LONGEST = 20_000

Corners = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class ParsedBox:
    """A region in an answer.

    Attributes:
        box: left, top, right, bottom, as fractions of width and height.
        name: the model's name for it; may be empty.
        polygon: its outline, as fractions, if the model gives one.
    """

    box: Corners
    name: str = ""
    polygon: tuple[tuple[float, float], ...] = ()


def parse_boxes(
    text: str, format: BoxFormat, size: tuple[int, int], *, outlines: bool = False, truncated: bool = False
) -> list[ParsedBox] | ParseFailure:
    """Return all regions of an answer, in order, including duplicates.

    Args:
        format: ``pixels`` (of a picture of this size), ``unit`` (0 to 1), ``thousand`` (0 to 1000),
            ``yx-thousand`` (the same, top before left), ``padded-unit`` (0 to 1 of the picture padded to
            a square, as LLaVA-1.5 sees it), all four as numbers in brackets or JSON; ``loc`` (PaliGemma's
            <loc0000> to <loc1023>, top first), ``florence`` (<loc_0> to <loc_999>), ``kosmos``
            (<patch_index_0000>, a grid of 32 by 32).
        size: width and height of the picture in the model's pixels.
        outlines: polygons are expected: flat lists of x and y.

    >>> parse_boxes("[0.1, 0.2, 0.5, 0.6]", "unit", (100, 100))
    [ParsedBox(box=(0.1, 0.2, 0.5, 0.6), name='', polygon=())]
    >>> parse_boxes("[10, 20, 50, 60]", "unit", (100, 100))
    ParseFailure(reason='box outside 0 to 1: 10, 20, 50, 60', outcome=<Outcome.UNPARSED: 'unparsed'>)
    """
    text = strip_thinking(text).strip()
    if len(text) > LONGEST:
        return ParseFailure(f"an answer of {len(text):,} characters; at most {LONGEST:,} are read")
    if is_refusal(text):
        return failure(text, truncated, "refusal")
    if re.fullmatch(r"(?:```(?:json)?)?\s*\[\s*\]\s*(?:```)?", text):
        return []  # the model says that there is nothing
    reader = _READERS.get(format, _numbers)
    parsed: list[ParsedBox] = []
    for values, name in reader(text, outlines):
        if outlines:
            if len(values) < 6 or len(values) % 2 or not all(map(math.isfinite, values)):
                return failure(text, truncated, f"an outline of {len(values)} numbers")
        elif len(values) != 4 or not all(map(math.isfinite, values)):
            return failure(text, truncated, f"a box of {len(values)} numbers: {_shown(values)}")
        points = _shares(values, format, size)
        if isinstance(points, str):
            return failure(text, truncated, f"box outside {points}: {_shown(values)}")
        xs, ys = [x for x, _ in points], [y for _, y in points]
        if not outlines and (xs[0] > xs[1] or ys[0] > ys[1]):
            return failure(text, truncated, f"a box with swapped corners: {_shown(values)}")
        box = (min(xs), min(ys), max(xs), max(ys))
        parsed.append(ParsedBox(box, name, tuple(points) if outlines else ()))
    return parsed or failure(text, truncated, "names no box")


def _shown(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values[:6])


#: The maximum of each format; pixels have the picture's size.
_TOP = {"unit": 1.0, "padded-unit": 1.0, "thousand": 1000.0, "yx-thousand": 1000.0, "loc": 1023.0}
#: How far rounding may take a number beyond its range.
_SLACK = 0.005


def _shares(
    values: Sequence[float], format: BoxFormat, size: tuple[int, int]
) -> list[tuple[float, float]] | str:
    """Return corners as fractions of width and height; or the valid range, if they exceed it."""
    if format in ("florence", "kosmos"):
        within = all(0 <= share <= 1 for share in values)
        return list(zip(values[::2], values[1::2], strict=True)) if within else "the picture"
    width, height = size
    tops = (float(width), float(height)) if format == "pixels" else (_TOP[format], _TOP[format])
    pairs = list(zip(values[::2], values[1::2], strict=True))
    if format in ("loc", "yx-thousand"):
        pairs = [(x, y) for y, x in pairs]
    shares = [(x / tops[0], y / tops[1]) for x, y in pairs]
    if not all(-_SLACK <= share <= 1 + _SLACK for pair in shares for share in pair):
        return f"{width} x {height} pixels" if format == "pixels" else f"0 to {tops[0]:g}"
    if format == "padded-unit":
        side = max(width, height)
        shares = [
            ((x * side - (side - width) / 2) / width, (y * side - (side - height) / 2) / height)
            for x, y in shares
        ]
    return [(min(1.0, max(0.0, x)), min(1.0, max(0.0, y))) for x, y in shares]


Regions = Iterator[tuple[list[float], str]]

_DECIMAL = r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)"
_LIST = re.compile(rf"[\[(<]\s*({_DECIMAL}(?:[\s,;]+{_DECIMAL})*)\s*[\])>]")
#: Qwen-VL's two corners, and MiniCPM's four numbers between tags.
_PAIR = re.compile(
    rf"\(\s*({_DECIMAL})\s*,\s*({_DECIMAL})\s*\)\s*,?\s*\(\s*({_DECIMAL})\s*,\s*({_DECIMAL})\s*\)"
)
_TAGGED = re.compile(rf"<box>\s*({_DECIMAL}(?:[\s,]+{_DECIMAL})*)\s*</box>")
_NAME = re.compile(
    r"(?:(?:<ref>|<\|ref\|>|<\|object_ref_start\|>)([^<]{0,200})(?:</ref>|<\|/ref\|>|<\|object_ref_end\|>)"
    r"|(?:^|[\n;,.\]])\s*([^\n;,.<>\[\]]{1,80}))\s*(?:<box>|<\|box_start\|>|<\|det\|>)?[\s\[(:]*$"
)


def _named(before: str) -> str:
    """Return the name at the end of the text before a box; empty if there is none."""
    match = _NAME.search(before[-300:])
    name = (match[1] or match[2] or "") if match else ""
    return re.sub(r"^\s*\d{1,3}[.)]\s+", "", name).strip(" \t:*_-\"'`{#")


def _numbers(text: str, outlines: bool) -> Regions:
    """Read four numbers in JSON, in brackets, or between tags."""
    if (read := _json(text)) is not None:
        yield from read
        return
    for pattern in (_PAIR, _TAGGED, _LIST):
        matches = list(pattern.finditer(text))
        for match in matches:
            values = [
                float(number) for number in re.findall(_DECIMAL, match[0] if pattern is _PAIR else match[1])
            ]
            parts = [values] if outlines else [values[i : i + 4] for i in range(0, len(values), 4)]
            name = _named(text[: match.start()])
            yield from ((part, name) for part in parts)
        if matches:
            return


def _json(text: str) -> list[tuple[list[float], str]] | None:
    """Read objects with a box and a label, or lists of numbers; None if the text is not JSON."""
    items = _documents(text) or _documents(_repaired(text))
    if items is None:
        return None
    parsed = []
    for item, name in (found_pair for document, before in items for found_pair in _within(document, before)):
        if isinstance(item, dict):
            name = next((str(item[key]) for key in _NAMES if key in item), name)
            item = next((item[key] for key in _BOXES if key in item), None)
        if isinstance(item, list) and all(isinstance(pair, list) for pair in item):
            item = [value for pair in item for value in pair]  # corners as pairs
        if not isinstance(item, list) or not all(_is_number(value) for value in item):
            return None
        parsed.append(([float(value) for value in item], name))
    return parsed


_BOXES = ("bbox_2d", "box_2d", "bbox", "box", "polygon", "points")
_NAMES = ("label", "name", "category", "class", "object")


def _repaired(text: str) -> str:
    """Repair common errors in JSON: single quotes, or trailing commas."""
    text = text if '"' in text else text.replace("'", '"')
    return re.sub(r",(\s*[\]}])", r"\1", text)


def _within(item: Any, name: str) -> Iterator[tuple[Any, str]]:
    """Return the items of an object that wraps them, or boxes by name: ``{"dog": [[1, 2, 3, 4]]}``."""
    if not isinstance(item, dict) or any(key in item for key in _BOXES):
        yield item, name
        return
    for key, value in item.items():
        if isinstance(value, list) and value and all(map(_is_number, value)):
            yield value, key
        elif isinstance(value, list) and all(isinstance(element, list | dict) for element in value):
            yield from ((element, key if isinstance(element, list) else name) for element in value)
        else:
            yield item, name
            return


def _documents(text: str) -> list[tuple[Any, str]] | None:
    """Return the items of all JSON documents in a text, each with the name before its document; None if
    there are none. A list of numbers is itself an item.
    """
    decoder = json.JSONDecoder()
    documents: list[tuple[Any, str]] = []
    place = 0
    while (begin := re.compile(r"[\[{]").search(text, place)) is not None:
        try:
            document, place = decoder.raw_decode(text, begin.start())
        except (ValueError, RecursionError):
            return documents or None  # other brackets, or broken JSON
        many = document if isinstance(document, list) else [document]
        before = _named(text[: begin.start()])
        documents += [(item, before) for item in ([many] if many and all(map(_is_number, many)) else many)]
    return documents if place else None


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _loc(text: str, _: bool) -> Regions:
    """PaliGemma: four <loc####>, then the name; regions are separated by ";". Masks in <seg###> need a
    decoder that no checkpoint includes, so only their box is read.
    """
    for match in re.finditer(r"((?:<loc\d{4}>)+)(?:<seg\d{3}>)*([^<;]*)", text):
        yield [float(number) for number in re.findall(r"<loc(\d{4})>", match[1])], match[2].strip()


def _florence(text: str, outlines: bool) -> Regions:
    """Florence-2: a name, then positions in 1000 bins, each represented by its middle."""
    name = ""
    last = 0
    text = re.sub(r"</?s>|<pad>|</?poly>|<sep>", " ", text)
    for match in re.finditer(r"(?:<loc_\d{1,6}>)+", text):
        name = text[last : match.start()].rpartition(">")[2].strip() or name
        last = match.end()
        values = [(int(number) + 0.5) / 1000 for number in re.findall(r"<loc_(\d+)>", match[0])]
        if outlines:
            yield values[: len(values) // 2 * 2], name
        else:
            yield from ((values[i : i + 4], name) for i in range(0, len(values), 4))


#: Kosmos-2's grid has this many cells a side.
_CELLS = 32


def _kosmos(text: str, _: bool) -> Regions:
    """Kosmos-2: the cells of the upper left and the lower right corner; centers of cells, or, if both are in
    one row or column, their outer edges.
    """
    for match in re.finditer(r"(?:<phrase>(.*?)</phrase>)?\s*<object>(.*?)</object>", text, re.S):
        for pair in re.finditer(r"<patch_index_(\d{4})>\s*<patch_index_(\d{4})>", match[2]):
            (top, left), (bottom, right) = (divmod(int(cell), _CELLS) for cell in pair.groups())
            near, far = (0.0, 1.0) if top == bottom or left == right else (0.5, 0.5)
            corners = (left + near, top + near, right + far, bottom + far)
            yield [corner / _CELLS for corner in corners], (match[1] or "").strip()


_READERS: dict[str, Callable[[str, bool], Regions]] = {"loc": _loc, "florence": _florence, "kosmos": _kosmos}
