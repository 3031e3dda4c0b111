"""Boxes in the formats of the families, and what they are worth."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snellen.metrics.boxes import iou
from snellen.parsing import ParseFailure
from snellen.parsing.boxes import FORMATS, parse_boxes
from snellen.scorers.detection import average_precision, mask_iou, matched
from snellen.types import Outcome

SIZE = (640, 480)


def boxes(text, format, size=SIZE, **more):
    found = parse_boxes(text, format, size, **more)
    assert isinstance(found, list), found
    return [pytest.approx(one.box, abs=2e-3) for one in found]


@pytest.mark.parametrize(
    ("format", "text", "box"),
    [
        ("pixels", '```json\n[{"bbox_2d": [64, 48, 320, 240], "label": "cat"}]\n```', (0.1, 0.1, 0.5, 0.5)),
        ("pixels", "The cat is at [64, 48, 320, 240].", (0.1, 0.1, 0.5, 0.5)),
        ("unit", "[0.1, 0.2, 0.5, 0.6]", (0.1, 0.2, 0.5, 0.6)),
        ("thousand", "<ref>cat</ref><box>(100,200),(500,600)</box>", (0.1, 0.2, 0.5, 0.6)),
        ("thousand", "<|box_start|>(100,200),(500,600)<|box_end|>", (0.1, 0.2, 0.5, 0.6)),
        ("thousand", "<ref>cat</ref><box>[[100, 200, 500, 600]]</box>", (0.1, 0.2, 0.5, 0.6)),
        ("thousand", "<ref>cat</ref><box>100 200 500 600</box>", (0.1, 0.2, 0.5, 0.6)),
        ("yx-thousand", '[{"box_2d": [200, 100, 600, 500], "label": "cat"}]', (0.1, 0.2, 0.5, 0.6)),
        ("loc", "<loc0205><loc0102><loc0614><loc0512> cat", (0.1, 0.2, 0.5, 0.6)),
        ("florence", "cat<loc_100><loc_200><loc_500><loc_600>", (0.1, 0.2, 0.5, 0.6)),
        # the example of transformers' own documentation
        (
            "kosmos",
            "<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object>",
            (0.390625, 0.046875, 0.984375, 0.828125),
        ),
        # one cell: its outer edges
        ("kosmos", "<object><patch_index_0000><patch_index_0000></object>", (0, 0, 1 / 32, 1 / 32)),
        # LLaVA-1.5 sees 640 x 480 with a bar of 80 above and below
        ("padded-unit", "[0.25, 0.125, 0.75, 0.875]", (0.25, 0, 0.75, 1)),
    ],
)
def test_the_formats(format, text, box):
    assert boxes(text, format) == [box]


def test_names_and_several():
    text = "<loc0000><loc0000><loc0511><loc0511> cat ; <loc0512><loc0512><loc1023><loc1023> small dog"
    found = parse_boxes(text, "loc", SIZE)
    assert [one.name for one in found] == ["cat", "small dog"]
    text = json.dumps([{"bbox_2d": [0, 0, 10, 10], "label": "a"}, {"bbox_2d": [5, 5, 20, 20], "label": "b"}])
    assert [one.name for one in parse_boxes(text, "pixels", SIZE)] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "format", "reason"),
    [
        ("[64, 48, 320, 240]", "unit", "outside 0 to 1"),
        ("[64, 48, 320, 900]", "pixels", "outside 640 x 480"),
        ("[0.5, 0.2, 0.1, 0.6]", "unit", "swapped corners"),
        ("[1, 2, 3]", "thousand", "a box of 3 numbers"),
        ("There is no cat.", "thousand", "names no box"),
        ("", "unit", "empty answer"),
        ("[[[[[[", "unit", "names no box"),
    ],
)
def test_what_is_no_box_is_not_taken_for_one(text, format, reason):
    found = parse_boxes(text, format, SIZE)
    assert isinstance(found, ParseFailure)
    assert reason in found.reason
    assert found.outcome is Outcome.UNPARSED


@given(st.text(max_size=60), st.sampled_from(FORMATS), st.booleans())
def test_whatever_is_written_gives_boxes_within_the_picture_or_a_failure(text, format, outlines):
    found = parse_boxes(text, format, SIZE, outlines=outlines)
    if isinstance(found, list):
        for one in found:
            assert all(0 <= end <= 1 for end in one.box)
            assert one.box[0] <= one.box[2]
            assert one.box[1] <= one.box[3]


CORNER = st.integers(0, 1000)


@given(CORNER, CORNER, CORNER, CORNER)
def test_a_box_that_is_written_is_read_in_every_format(a, b, c, d):
    x0, x1, y0, y1 = *sorted((a, c)), *sorted((b, d))
    box = tuple(v / 1000 for v in (x0, y0, x1, y1))
    w, h = SIZE
    written = {
        "pixels": json.dumps([box[0] * w, box[1] * h, box[2] * w, box[3] * h]),
        "unit": json.dumps(box),
        "thousand": f"[{x0}, {y0}, {x1}, {y1}]",
        "yx-thousand": f"[{y0}, {x0}, {y1}, {x1}]",
        "loc": "".join(f"<loc{round(v * 1.023):04d}>" for v in (y0, x0, y1, x1)),
        "florence": "".join(f"<loc_{min(v, 999)}>" for v in (x0, y0, x1, y1)),
    }
    for format, text in written.items():
        assert boxes(text, format) == [box], format


def test_outlines():
    text = json.dumps([{"polygon": [0, 0, 64, 0, 64, 48, 0, 48], "label": "a"}])
    boxes = parse_boxes(text, "pixels", SIZE, outlines=True)
    assert isinstance(boxes, list)
    (found,) = boxes
    assert found.box == pytest.approx((0, 0, 0.1, 0.1))
    assert len(found.polygon) == 4
    assert isinstance(parse_boxes("[1, 2, 3, 4]", "pixels", SIZE, outlines=True), ParseFailure)


BOX = st.tuples(*[st.floats(0, 1, width=16)] * 4).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


@given(BOX, BOX)
def test_iou_is_symmetric_and_a_share(a, b):
    assert iou(a, b) == iou(b, a)
    assert 0 <= iou(a, b) <= 1
    if (a[2] - a[0]) * (a[3] - a[1]) > 0:
        assert iou(a, a) == pytest.approx(1)


@given(BOX, BOX)
def test_iou_equals_a_count_of_cells(a, b):
    """On a grid: boxes snapped to 32nds, cells counted."""
    a, b = ([round(v * 32) for v in box] for box in (a, b))

    def cells(box):
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    union = cells(a) | cells(b)
    expected = len(cells(a) & cells(b)) / len(union) if union else 0.0
    assert iou(a, b) == pytest.approx(expected)


def test_masks():
    square = [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]
    half = [[0.25, 0.25], [0.5, 0.25], [0.5, 0.75], [0.25, 0.75]]
    assert mask_iou([square], [square]) == 1
    assert mask_iou([half], [square]) == pytest.approx(0.5, abs=0.01)
    assert mask_iou([], [square]) == 0
    assert mask_iou([], []) == 0


def test_matching_is_the_largest_not_the_greedy_one():
    """The first prediction fits both truths, the second only the first: both can be paired."""
    true = [("a", (0, 0, 1, 1)), ("a", (0, 0, 0.6, 1))]
    predicted = [("a", (0, 0, 0.8, 1)), ("a", (0, 0, 1, 1))]
    assert matched(predicted, true) == 2
    assert matched([("b", (0, 0, 1, 1))], true) == 0
    assert matched([], true) == matched(predicted, []) == 0


def test_average_precision_by_hand(capsys):
    """Two truths; one found, one false alarm of the same (only) confidence."""
    pytest.importorskip("pycocotools")  # not part of the core
    true = [[("cat", (0, 0, 0.5, 0.5)), ("cat", (0.5, 0.5, 1, 1))]]
    assert average_precision(true, true)["map"] == pytest.approx(1)
    assert average_precision([[]], true) == {"map": 0, "ap_50": 0, "ap_75": 0}
    assert average_precision([[("cat", (0, 0, 0.5, 0.5))]], true)["ap_50"] == pytest.approx(
        51 / 101, abs=1e-6
    )
    loose = [[("cat", (0, 0, 0.5, 0.35)), ("cat", (0.5, 0.5, 1, 1))]]  # IoU 0.7 and 1
    figures = average_precision(loose, true)
    assert figures["ap_50"] == pytest.approx(1)
    assert figures["ap_75"] < 1
    assert average_precision([[]], [[]]) == {}
    assert capsys.readouterr().out == ""
    assert np.isfinite(list(figures.values())).all()


@pytest.mark.parametrize(
    "text",
    [
        "dog: [10, 10, 50, 50]",
        "1. **dog**: [10, 10, 50, 50]",
        "- dog: [10, 10, 50, 50]",
        "[{'bbox_2d': [10, 10, 50, 50], 'label': 'dog'}]",
        '[{"bbox_2d": [10, 10, 50, 50], "label": "dog"},]',
        '{"objects": [{"bbox_2d": [10, 10, 50, 50], "label": "dog"}]}',
        '{"dog": [[10, 10, 50, 50]]}',
        '{"dog": [10, 10, 50, 50]}',
        '[{"bbox": [10, 10, 50, 50], "category": "dog"}]',
    ],
)
def test_names_of_boxes_as_models_write_them(text):
    boxes = parse_boxes(text, "pixels", (100, 100))
    assert isinstance(boxes, list)
    (box,) = boxes
    assert box.name == "dog"
