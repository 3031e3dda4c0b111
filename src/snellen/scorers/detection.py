"""Compare boxes and outlines with references: intersection over union, and average precision.

All coordinates are fractions of the picture's width and height.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

from snellen.errors import require
from snellen.metrics.boxes import iou
from snellen.scorers.base import AskModel, SamplePrediction, Scorer

__all__ = ["AveragePrecision", "mask_iou", "matched", "reaches", "same"]

Box = Sequence[float]
Outline = Sequence[Sequence[float]]


def reaches(overlap: float, least: float) -> bool:
    """Return whether an IoU reaches a threshold, allowing for floating-point error."""
    return overlap >= least - 1e-9


def matched(predicted: Sequence[tuple[str, Box]], true: Sequence[tuple[str, Box]], least: float = 0.5) -> int:
    """Count the predicted boxes that can be matched one-to-one with reference boxes of the same name at an
    IoU of at least ``least``: a maximum matching (Hopcroft and Karp, through scipy).
    """
    import numpy as np
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    if not predicted or not true:
        return 0
    fits = np.array([[n == m and reaches(iou(a, b), least) for m, b in true] for n, a in predicted])
    return int((maximum_bipartite_matching(csr_array(fits), perm_type="column") >= 0).sum())


def same(name: str) -> str:
    """Normalize a name for comparison: case, spaces and a leading article are ignored."""
    words = name.casefold().split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in ("a", "an", "the") else words)


def mask_iou(predicted: Sequence[Outline], true: Sequence[Outline], side: int = 512) -> float:
    """Return the intersection over union of the areas inside outlines, on a raster of ``side`` by
    ``side``.
    """
    import numpy as np
    from PIL import Image, ImageDraw

    def mask(outlines: Sequence[Outline]) -> Any:
        paper = Image.new("1", (side, side))
        pen = ImageDraw.Draw(paper)
        for outline in outlines:
            pen.polygon([(x * side, y * side) for x, y in outline], fill=1)
        return np.asarray(paper)

    first, second = mask(predicted), mask(true)
    union = int((first | second).sum())
    return float((first & second).sum() / union) if union else 0.0


#: The nominal side of pictures in pixels: COCO's size classes depend on it, but
#: the reported figures do not.
SIDE = 1000


class AveragePrecision(Scorer):
    """Mean average precision of boxes, through pycocotools: over IoU 0.50 to 0.95, at 0.50 and at 0.75.

    Source: Lin et al., "Microsoft COCO" (arXiv 1405.0312). Boxes written by a model have no confidence
    and all count the same, so AP is less informative than for a detector; precision and recall at 0.5 are
    reported too.
    """

    def check(self) -> None:
        require("pycocotools.cocoeval", "metrics", "Average precision")

    async def score(self, predictions: Sequence[SamplePrediction], ask: AskModel) -> list[dict[str, float]]:
        return [{} for _ in predictions]

    def overall(
        self, predictions: Sequence[SamplePrediction], scores: Sequence[Mapping[str, float]]
    ) -> dict[str, float]:
        true, said = (
            [
                [(same(r["name"]), r["box"]) for r in prediction.details.get(which, [])]
                for prediction in predictions
            ]
            for which in ("true", "predicted")
        )
        return average_precision(said, true)


def average_precision(
    predicted: Sequence[Sequence[tuple[str, Box]]], true: Sequence[Sequence[tuple[str, Box]]]
) -> dict[str, float]:
    """Compute mAP, AP50 and AP75 over pictures; empty if there is nothing to locate. Names without
    references are ignored, as in COCO's evaluation.
    """
    coco: Any = require("pycocotools.coco", "metrics", "Average precision").COCO
    evaluate: Any = require("pycocotools.cocoeval", "metrics", "Average precision").COCOeval
    names = sorted({name for boxes in true for name, _ in boxes})
    if not names:
        return {}
    number = {name: i for i, name in enumerate(names, 1)}

    def rows(boxes: Sequence[Sequence[tuple[str, Box]]]) -> list[dict[str, Any]]:
        return [
            {
                "image_id": image,
                "category_id": number[name],
                "bbox": [SIDE * b for b in (left, top, right - left, bottom - top)],
            }
            for image, some in enumerate(boxes, 1)
            for name, (left, top, right, bottom) in some
            if name in number
        ]

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints how long it took
        truth = coco()
        truth.dataset = {
            "images": [{"id": i, "width": SIDE, "height": SIDE} for i in range(1, len(true) + 1)],
            "categories": [{"id": i, "name": name} for name, i in number.items()],
            "annotations": [
                {**row, "id": i, "iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3]}
                for i, row in enumerate(rows(true), 1)
            ],
        }
        truth.createIndex()
        guesses = [{**row, "score": 1.0} for row in rows(predicted)]
        if not guesses:
            return {"map": 0.0, "ap_50": 0.0, "ap_75": 0.0}
        result = evaluate(truth, truth.loadRes(guesses), "bbox")
        result.evaluate()
        result.accumulate()
        result.summarize()
    return {name: max(0.0, float(result.stats[i])) for i, name in enumerate(("map", "ap_50", "ap_75"))}
