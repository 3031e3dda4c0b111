"""Grounding: locate what an expression refers to, as boxes or outlines.

Sources: Yu et al., "Modeling Context in Referring Expressions" (RefCOCO, arXiv 1608.00272): accuracy at
an intersection over union of 0.5; Lin et al., "Microsoft COCO" (arXiv 1405.0312): average precision. For
the formats of the model families see :mod:`snellen.parsing.boxes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from snellen.errors import BadOption
from snellen.metrics.boxes import iou
from snellen.parsing.boxes import FORMATS, BoxFormat, ParsedBox, parse_boxes
from snellen.parsing.text import ParseFailure
from snellen.prompts import fill
from snellen.protocols.base import PROTOCOLS, Protocol, check_placeholders, failed, positive, refusal
from snellen.scorers.base import Scorer
from snellen.scorers.detection import AveragePrecision, mask_iou, matched, reaches, same
from snellen.types import Examination, Outcome, Prediction, Sample, ask

if TYPE_CHECKING:
    from snellen.models.base import Model

__all__ = ["Grounding"]

_RANGES = {
    "pixels": "in pixels",
    "unit": "from 0 to 1",
    "padded-unit": "from 0 to 1",
    "thousand": "from 0 to 1000",
}
#: Default prompts by format: families with special tokens have their own wording.
_PROMPTS: dict[tuple[str, str], str] = {
    ("refer", "loc"): "detect {expression}",
    ("detect", "loc"): "detect {expression}",
    ("refer", "florence"): "<CAPTION_TO_PHRASE_GROUNDING>{expression}",
    ("detect", "florence"): "<OPEN_VOCABULARY_DETECTION>{expression}",
    ("segment", "florence"): "<REFERRING_EXPRESSION_SEGMENTATION>{expression}",
    ("refer", "kosmos"): "<grounding><phrase> {expression}</phrase>",
    ("detect", "kosmos"): "<grounding> An image of",
    ("refer", "yx-thousand"): 'Locate {expression}. Reply with JSON: [{"box_2d": [ymin, xmin, ymax, xmax], '
    '"label": "name"}], coordinates from 0 to 1000.',
    (
        "detect",
        "yx-thousand",
    ): 'Find every one of these: {expression}. Reply with JSON: [{"box_2d": [ymin, xmin, '
    'ymax, xmax], "label": "name"}], coordinates from 0 to 1000.',
}
_JSON = 'Reply with JSON: [{"bbox_2d": [x1, y1, x2, y2], "label": "name"}], coordinates {range}.'
_REFER = f"Locate {{expression}}. {_JSON}"
_DETECT = f"Find every one of these: {{expression}}. {_JSON}"
_SEGMENT = (
    'Outline {expression}. Reply with JSON: [{"polygon": [x1, y1, x2, y2, x3, y3, and so on], '
    '"label": "name"}], coordinates {range}.'
)


@PROTOCOLS.register("grounding")
@dataclass(frozen=True, kw_only=True)
class Grounding(Protocol):
    """Locate what an expression refers to: IoU, accuracy at 0.5 and 0.75; several boxes: mAP; outlines: IoU.

    Options: ``format``: the model's box format (pixels, unit, thousand, yx-thousand, padded-unit, loc,
    florence, kosmos); by default that of its family, and never chosen by which fits best; ``task``:
    ``refer`` (one box), ``detect`` (all boxes of the classes, matched by name and IoU) or ``segment``
    (outlines); ``prompt`` with ``{expression}``; ``max_tokens``.
    """

    name: ClassVar[str] = "grounding"
    takes_shots: ClassVar[bool] = False
    classifies: ClassVar[bool] = False
    task: Literal["refer", "detect", "segment"] = "refer"
    format: BoxFormat | None = None
    prompt: str | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.prompt is not None:
            check_placeholders("prompt", self.prompt, "expression")
        if self.max_tokens is not None:
            positive("max_tokens", self.max_tokens)

    @property
    def multi_query(self) -> bool:
        return False

    @property
    def primary(self) -> str:
        return {"refer": "acc_50", "detect": "f1_50", "segment": "mask_iou"}[self.task]

    def for_model(self, model: Model) -> Grounding:
        """Use the model's own format, if the user sets none."""
        if self.format is not None:
            return self
        if model.boxes is None:
            raise BadOption(
                f"The box format of {model.name} is unknown. Set it with: -P format={'|'.join(FORMATS)} (see "
                "docs/grounding.md)"
            )
        return replace(self, format=model.boxes)

    def missing_fields(self, sample: Sample) -> str | None:
        if not sample.images:
            return "an image"
        if self.task == "detect":
            return None if sample.labels or sample.question else "class names, or a question that names them"
        if not _expression(sample):
            return "an expression (a question, or a region's name)"
        return (
            None
            if self.task == "refer" or any(r.outlines for r in sample.regions)
            else "an outline (polygon)"
        )

    def truth(self, sample: Sample) -> str | None:
        return "; ".join(_format_box(r.name, r.box) for r in sample.regions) or None

    def sample_details(self, sample: Sample) -> dict[str, Any]:
        return _true(sample)

    def examine(self, sample: Sample) -> Examination:
        """One question."""
        assert self.format is not None, "suited() comes first"
        expression = _expression(sample)
        if self.task == "detect":
            joint = " ; " if self.format == "loc" else ", "
            expression = sample.question or joint.join(sample.labels)
        text = fill(self._prompt(), expression=expression, range=_RANGES.get(self.format, "from 0 to 1000"))
        (reply,) = yield [ask(sample.images, text, max_tokens=self.max_tokens or self._usual())]
        true = _true(sample)
        if (refused := refusal(reply)) is not None:
            return failed(sample, refused, 1, **true)
        width, height = sample.images[0].size
        # A model that rescales pictures and answers in pixels reports the new size.
        frame = tuple(reply.meta.get("frame") or (width, height))
        cut = reply.outcome is Outcome.TRUNCATED
        outlines = self.task == "segment"
        boxes = parse_boxes(reply.text, self.format, (frame[0], frame[1]), outlines=outlines, truncated=cut)
        if isinstance(boxes, list) and cut:
            boxes = ParseFailure("cut off within a list of boxes", Outcome.TRUNCATED)
        if isinstance(boxes, list) and self.task == "refer" and len({box.box for box in boxes}) != 1:
            boxes = ParseFailure(f"names {len(boxes)} boxes instead of one")
        if isinstance(boxes, ParseFailure):
            return failed(sample, boxes, 1, **true)
        if self.task == "refer":
            boxes = boxes[:1]
        label = "; ".join(_format_box(f.name, _pixels(f, width, height)) for f in boxes)
        predicted = [asdict(box) for box in boxes]
        drawn = {**true["drawn"], "predicted": [box.box for box in boxes]}
        details = {**true, "predicted": predicted, "drawn": drawn, "rule": [self.format]}
        return Prediction(sample.id, label, questions=1, details=details)

    def _prompt(self) -> str:
        usual = {"refer": _REFER, "detect": _DETECT, "segment": _SEGMENT}[self.task]
        return self.prompt or _PROMPTS.get((self.task, str(self.format)), usual)

    def _usual(self) -> int:
        return 128 if self.task == "refer" else 1024

    def score_sample(self, sample: Sample, prediction: Prediction) -> dict[str, float]:
        """IoU and accuracies; for several boxes precision, recall and F1 at 0.5; for outlines IoU."""
        if not sample.regions and self.task != "detect":
            return {}
        boxes = [
            ParsedBox(tuple(r["box"]), r["name"], r["polygon"])
            for r in prediction.details.get("predicted", [])
        ]
        true = prediction.details.get("true", _true(sample)["true"])
        if self.task == "segment":
            outlines = [outline for r in true for outline in r["outlines"]]
            return {"mask_iou": mask_iou([box.polygon for box in boxes], outlines)}
        if self.task == "refer":
            overlap = max((iou(box.box, r["box"]) for box in boxes for r in true[:1]), default=0.0)
            return {
                "acc_50": float(reaches(overlap, 0.5)),
                "acc_75": float(reaches(overlap, 0.75)),
                "iou": overlap,
            }
        if not boxes and not true:  # correctly, nothing
            sure = float(prediction.outcome is Outcome.OK)
            return {"f1_50": sure, "precision_50": sure, "recall_50": sure}
        hits = matched([(same(f.name), f.box) for f in boxes], [(same(r["name"]), r["box"]) for r in true])
        return {
            "f1_50": 2 * hits / (len(boxes) + len(true)),
            "precision_50": hits / len(boxes) if boxes else 0.0,
            "recall_50": hits / len(true) if true else 0.0,
        }

    def scorers(self) -> Sequence[Scorer]:
        return [AveragePrecision()] if self.task == "detect" else []

    def summary(self, details: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """The format in which boxes were parsed."""
        return {"box_format": self.format}


def _expression(sample: Sample) -> str:
    return sample.question or (sample.regions[0].name if sample.regions else "")


def _format_box(name: str, box: Sequence[float]) -> str:
    return f"{name} [{', '.join(f'{end:.0f}' for end in box)}]".strip()


def _pixels(box: ParsedBox, width: int, height: int) -> tuple[float, ...]:
    left, top, right, bottom = box.box
    return left * width, top * height, right * width, bottom * height


def _true(sample: Sample) -> dict[str, Any]:
    """Return the sample's regions as fractions of its picture, for drawing and for average precision."""
    if not sample.regions:
        return {"true": [], "drawn": {"true": [], "predicted": []}}
    width, height = sample.images[0].size
    regions = [
        {
            "name": r.name,
            "box": [r.box[0] / width, r.box[1] / height, r.box[2] / width, r.box[3] / height],
            "outlines": [[[x / width, y / height] for x, y in outline] for outline in r.outlines],
        }
        for r in sample.regions
    ]
    return {"true": regions, "drawn": {"true": [r["box"] for r in regions], "predicted": []}}
