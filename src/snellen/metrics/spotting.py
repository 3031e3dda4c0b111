"""Text spotting: where words are, and what they say.

Source: the end-to-end protocol of the Robust Reading Competition (rrc.cvc.uab.es), in the version that
OCRBench v2 uses: boxes match if their IoU exceeds 0.5, and their texts must be equal in either case; a mark
at the beginning or end of the truth may be missing. A truth of ``###`` cannot be read and does not count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from snellen.metrics.boxes import area, iou, shared_area
from snellen.metrics.literal import literal

__all__ = ["Spotted", "read_spotted", "spotting_score"]

UNREADABLE = "###"
MARKS = "!?.:,*\"()·[]/'"

Box = tuple[int, int, int, int]


class Spotted(NamedTuple):
    """A word, and its box as left, top, right, bottom."""

    box: Box
    text: str


_ITEM = re.compile(r"[\[(]([^\[\]()]*)[\])]")


def read_spotted(reply: str) -> list[Spotted]:
    """Read a list of ``(left, top, right, bottom, text)`` with whole numbers from 0 to 1000, each only once.

    >>> read_spotted("[(1, 2, 30, 40, 'STOP')]") == read_spotted("It says (1, 2, 30, 40, STOP).")
    True
    """
    try:
        value = literal(reply)
    except ValueError:
        value = [match.split(",", 4) for match in _ITEM.findall(reply)]
    items: Sequence[Any] = value if isinstance(value, list | tuple) else ()
    words: dict[Spotted, None] = {}
    for item in items:
        if not isinstance(item, list | tuple) or len(item) < 5:
            continue
        try:
            left, top, right, bottom = (int(str(number).strip()) for number in item[:4])
        except ValueError:
            continue
        if all(0 <= number <= 1000 for number in (left, top, right, bottom)):
            text = str(item[4]).replace("\n", "").strip().strip('"').strip("'")
            words[Spotted((left, top, right, bottom), text)] = None
    return list(words)


def spotting_score(said: Sequence[Spotted], true: Sequence[Spotted]) -> float:
    """Return the harmonic mean of precision and recall; 0 if nothing was said.

    >>> truth = [Spotted((0, 0, 10, 10), "Stop!"), Spotted((20, 0, 40, 10), "here")]
    >>> spotting_score([Spotted((0, 0, 10, 9), "STOP")], truth)
    0.6666666666666666
    """
    said = [word for word in said if word.box[0] < word.box[2] and word.box[1] < word.box[3]]
    said, true = ([Spotted(word.box, _without_quotes(word.text)) for word in words] for words in (said, true))
    unreadable = [word.box for word in true if word.text == UNREADABLE]
    true = [word for word in true if word.text != UNREADABLE]
    left = [
        word for word in said if all(2 * shared_area(word.box, box) <= area(word.box) for box in unreadable)
    ]
    counted, right = len(left), 0
    for wanted in true:
        match = next((word for word in left if iou(wanted.box, word.box) > 0.5), None)
        if match is not None:
            left.remove(match)
            right += _same_text(wanted.text.upper(), match.text.upper())
    return 2 * right / (len(true) + counted) if right else 0.0


def _without_quotes(text: str) -> str:
    text = text.replace("\r", "")
    match = re.fullmatch(r'\s*"(.*)"\s*', text)
    return match[1].replace("\\\\", "\\").replace('\\"', '"') if match else text


def _same_text(true: str, said: str) -> bool:
    first, last = (bool(mark) and mark in MARKS for mark in (true[:1], true[-1:]))
    return said in {true, *([true[1:]] if first else []), *([true[:-1]] if last else [])} or (
        first and last and said == true[1:-1]
    )
