"""The figures of benchmarks' authors equal what their own scorers print, to the last digit.

``official/NAME.json`` holds recorded answers (or which of them were right), and what the scorer named there
printed for them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snellen.datasets.benchmarks import entry, names
from snellen.metrics.answers import contains, mmmu_open, textvqa_accuracy, vqa_accuracy
from snellen.metrics.ocrbench_v2 import RULES, ocrbench_v2
from snellen.metrics.official import OfficialFigure, OfficialValue, ScoredRow, official_values
from snellen.protocols.yes_no import YesNo
from snellen.types import Sample

RECORDED = Path(__file__).parent / "official"


def recorded(name: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    content = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    return [dict(zip(content["columns"], row, strict=True)) for row in content["rows"]], content["result"]


def printed(name: str, rows: list[ScoredRow]) -> dict[tuple[str, str], OfficialValue]:
    return {(value.group, value.name): value for value in official_values(entry(name).figures, rows)}


def scored(rows: list[dict[str, Any]]) -> list[ScoredRow]:
    return [ScoredRow({"": row["score"]}, row) for row in rows]


def test_hallusionbench() -> None:
    rows, official = recorded("hallusionbench")
    ours = printed("hallusionbench", scored(rows))
    for name in ("aAcc", "fAcc", "qAcc"):
        assert 100 * ours["", name].value == pytest.approx(official["Overall"][name], abs=1e-12)
    mean = sum(official["Overall"].values()) / 3
    assert 100 * ours["", "average"].value == pytest.approx(mean, abs=1e-12)
    for part in ("illusion", "math", "chart", "map"):
        value = ours["aAcc by subcategory", part].value
        assert 100 * value == pytest.approx(official[part]["aAcc"], abs=1e-12)


def test_mme() -> None:
    rows, official = recorded("mme")
    ours = printed("mme", scored(rows))
    assert ours["", "Perception"].value == pytest.approx(official["perception"], abs=1e-9)
    assert ours["", "Cognition"].value == pytest.approx(official["reasoning"], abs=1e-9)
    assert ours["", "Total"].value == pytest.approx(official["perception"] + official["reasoning"], abs=1e-9)
    assert all(value.points for value in ours.values())
    parts = {name.replace(" ", "_"): value.value for (group, name), value in ours.items() if group}
    for name in official.keys() - {"perception", "reasoning"}:
        assert parts[name] == pytest.approx(official[name], abs=1e-9)


@pytest.mark.parametrize("name", ["mmbench-en", "mmstar"])
def test_abilities(name: str) -> None:
    rows, official = recorded(name)
    ours = printed(name, scored(rows))
    short = {"coarse_perception": "CP", "logic_reasoning": "LR", "attribute_reasoning": "AR"}
    overall = ours.get(("", "Overall")) or ours["", "average"]
    assert overall.value == pytest.approx(official.pop("Overall"), abs=1e-12)
    parts = {short.get(part, part): value.value for (group, part), value in ours.items() if group}
    assert parts == pytest.approx(official, abs=1e-12)


def test_ocrbench() -> None:
    """From the replies: the rule for formulas keeps their case and ignores blanks."""
    rows, official = recorded("ocrbench")
    ours = printed("ocrbench", [ScoredRow({"": contains(row["reply"], row["answer"])}, row) for row in rows])
    assert {name: value.value for (_, name), value in ours.items()} == {
        name: value for name, value in official.items() if name != "Final Score Norm"
    }


def test_mathvista() -> None:
    rows, official = recorded("mathvista")
    meta = [ScoredRow({"": row["score"]}, {"metadata": row}) for row in rows]
    ours = printed("mathvista", meta)
    assert 100 * ours["", "ALL"].value == pytest.approx(official.pop("Overall"), abs=1e-12)
    parts = {part: 100 * value.value for (group, part), value in ours.items() if group in ("task", "skill")}
    assert parts == pytest.approx(official, abs=1e-12)


def test_mmmu() -> None:
    rows, official = recorded("mmmu")
    ours = printed("mmmu", [ScoredRow({"": float(row["answer"] == row["letter"])}, row) for row in rows])
    assert round(ours["", "Overall"].value, 5) == official["Overall"]
    for (group, part), value in ours.items():
        if group:
            assert round(value.value, 5) == official[f"Overall-{part}" if group == "discipline" else part]
    assert len([group for group, _ in ours if group == "subject"]) == 30
    assert len([group for group, _ in ours if group == "discipline"]) == 6


def test_open_answers_by_the_rule_of_mmmu() -> None:
    rows, official = recorded("mmmu-open")
    ours = [mmmu_open(row["reply"], row["answer"]) for row in rows]
    assert ours == [row["score"] for row in rows]
    assert sum(ours) == official["right"]
    # As in a run: an unread letter counts by chance, a read one as it is, an open answer by that rule.
    samples = [({"": 0.0}, 0.25), ({"": 1.0}, 0.0), ({"": 0.0, "open_lenient": 1.0}, 0.0)]
    columns = {"id": "validation_Art_1"}
    values = printed("mmmu", [ScoredRow(scores, columns, chance) for scores, chance in samples])
    assert values["", "Overall"].value == pytest.approx(1 / 3)
    assert values["", "Overall by the authors' rules (expected)"].value == pytest.approx(2.25 / 3)


def test_ocrbench_v2(wordnet: None) -> None:
    rows, official = recorded("ocrbench-v2")
    assert {row["type"] for row in rows} == set(RULES)
    ours = []
    for number, row in enumerate(rows):
        score = ocrbench_v2(row["reply"], Sample(str(number), question=row["question"], meta=row))
        assert score == pytest.approx(row["score"], abs=1e-9), row
        ours.append(ScoredRow({"": score or 0.0}, row))
    values = printed("ocrbench-v2", ours)
    for language, short in (("English", "en"), ("Chinese", "cn")):
        theirs = [value for name, value in official.items() if name.endswith(short)]
        parts = [value.value for (group, _), value in values.items() if group == language]
        assert sorted(parts) == pytest.approx(sorted(theirs), abs=1e-9)
        assert values["", f"{language} Overall"].value == pytest.approx(sum(theirs) / len(theirs))


@pytest.mark.parametrize(
    ("name", "ours_by_theirs"),
    [
        ("naturalbench", {"Acc": "Acc", "Q_Acc": "Q-Acc", "I_Acc": "I-Acc", "G_Acc": "G-Acc"}),
        ("mmvp", {"Average": "Average", "Overall": "Overall"}),
        ("cv-bench", {"cv_bench": "CV-Bench Accuracy"}),
    ],
)
def test_groups_of_rows(name: str, ours_by_theirs: dict[str, str]) -> None:
    rows, official = recorded(name)
    ours = printed(name, scored(rows))
    for theirs, name_here in ours_by_theirs.items():
        assert ours["", name_here].value == pytest.approx(official[theirs], abs=1e-12)


def test_mm_vet() -> None:
    """From a judge's grades, by capability and by combination of them. That scorer sums both in one table, so
    that it counts samples twice whose only capability is rec.
    """
    rows, official = recorded("mm-vet")
    ours = printed("mm-vet", [ScoredRow({"judge": row["score"]}, row) for row in rows])
    assert 100 * ours["", "total"].value == pytest.approx(official["capability"].pop("Overall"))
    official["combination"].pop("Overall")
    for group in ("capability", "combination"):
        parts = {name: 100 * value.value for (of, name), value in ours.items() if of == group}
        theirs = {name.replace("_", ","): value for name, value in official[group].items()}
        if group == "combination":
            assert theirs.pop("rec") == official["capability"]["rec"]  # the same cell
            parts.pop("rec")
        else:
            alone = [row["score"] for row in rows if row["capability"] == "rec"]
            each = [row["score"] for row in rows if "rec" in row["capability"]]
            twice = (sum(each) + sum(alone)) / (len(each) + len(alone))
            assert 100 * twice == pytest.approx(theirs.pop("rec"), abs=1e-12)
            assert 100 * sum(each) / len(each) == pytest.approx(parts.pop("rec"), abs=1e-12)
        assert parts == pytest.approx(theirs, abs=1e-12)


def test_pope() -> None:
    rows, official = recorded("pope")
    details = [
        {"true": row["answer"].lower(), "said": row["said"].lower(), "category": row["category"]}
        for row in rows
    ]
    figures = YesNo().summary(details)
    for part in ("random", "popular", "adversarial"):
        for ours, theirs in (("f1", "Overall"), ("precision", "precision"), ("recall", "recall")):
            value = 100 * figures[f"{ours}_by_category"][part]
            assert value == pytest.approx(official[part][theirs], abs=1e-12)
    assert 100 * figures["f1"] == pytest.approx(official["Overall"]["Overall"], abs=1e-12)


def test_what_a_random_option_would_add_is_an_expectation() -> None:
    """Two right, one wrong and one unread of four options: 50%, and 56.25% if it were guessed."""
    figures = {"plain": OfficialFigure(), "guessed": OfficialFigure(guess=True)}
    rows = [
        ScoredRow({"": 1}, {}),
        ScoredRow({"": 1}, {}),
        ScoredRow({"": 0}, {}),
        ScoredRow({"": 0}, {}, chance=0.25),
    ]
    plain, guessed = official_values(figures, rows)
    assert (plain.value, guessed.value) == (0.5, 0.5625)


def test_a_part_without_rows_is_left_out() -> None:
    figures = {
        "a": OfficialFigure(where={"kind": ["x", "y"]}),
        "b": OfficialFigure(where={"kind": "z"}),
        "mean": OfficialFigure(average=("a", "b")),
    }
    rows = [ScoredRow({"": 1}, {"kind": "x"}), ScoredRow({"": 0}, {"kind": "y"})]
    assert official_values(figures, rows) == [OfficialValue("a", 0.5, 2)]
    # Nor is a mean of several parts taken for one of a part that is missing.
    figures["a"] = OfficialFigure(by="kind")
    assert [value.name for value in official_values(figures, rows)] == ["x", "y"]


def test_what_is_no_number_is_a_group_of_its_kind() -> None:
    figures = {"pairs": OfficialFigure(all=("Index // 2",))}
    rows = [ScoredRow({"": 1}, {"Index": index}) for index in ("0", "1", "x", "", None)]
    (value,) = official_values(figures, rows)
    assert value.n == 3


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 1)), min_size=1))
def test_groups_are_right_where_all_their_answers_are(rows: list[tuple[str, int]]) -> None:
    figures = {"all": OfficialFigure(all=("key",))}
    (value,) = official_values(figures, [ScoredRow({"": score}, {"key": key}) for key, score in rows])
    keys = {key for key, _ in rows}
    right = [all(score for other, score in rows if other == key) for key in keys]
    assert value.value == pytest.approx(sum(right) / len(right))
    assert value.n == len(keys)


@pytest.mark.parametrize("name", names())
def test_every_benchmark_says_what_can_be_compared(name: str) -> None:
    one = entry(name)
    assert one.comparable
    for figure in one.figures.values():
        assert figure.columns() <= set(one.features)


def test_textvqa_normalizes_as_its_authors_do():
    """Answers that differ in punctuation, possessives and numbers; the plain rule gives others."""
    held = json.loads((RECORDED / "textvqa.json").read_text(encoding="utf-8"))
    scores = [textvqa_accuracy(answer, references) for answer, references, _ in held["rows"]]
    official = [score for _, _, score in held["rows"]]
    assert scores == pytest.approx(official, abs=1e-12)
    plain = [vqa_accuracy(answer, references) for answer, references, _ in held["rows"]]
    assert plain != pytest.approx(official, abs=1e-12)
    assert len(set(map(str, official))) > 3
