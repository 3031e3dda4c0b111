"""The leaderboard as data: filters, ranks, averages, facts of models, charts."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import Scripted
from snellen.api import run
from snellen.errors import BadOption
from snellen.leaderboards.board import Board, Group, grouped
from snellen.leaderboards.entries import Entry
from snellen.leaderboards.model_info import SIZES, ModelInfo, ModelInfoIndex, size_of
from snellen.leaderboards.query import COLUMNS, Query
from snellen.leaderboards.ranking import Candidate, averages, interval_ranks, pareto, rank_runs
from snellen.reports.charts import ChartPoint, curves, scatter
from snellen.storage.store import Store
from snellen.suites.published import published


def entry(id: str, value: float | None = 0.5, half: float = 0.1, **more) -> Entry:
    known = {"model": f"hf:org/{id}", "data": "d", "protocol": "p", "primary": "accuracy", "fingerprint": "f"}
    ends = (None, None) if value is None else (value - half, value + half)
    return Entry(id=id, **{**known, **more}, value=value, low=ends[0], high=ends[1])


class TestQuery:
    @given(
        q=st.text(max_size=20).map(str.strip),
        size=st.lists(st.sampled_from([name for name, _, _ in SIZES]), unique=True).map(tuple),
        data=st.lists(st.text(min_size=1).map(str.strip).filter(bool), unique=True, max_size=3).map(tuple),
        sort=st.sampled_from(list(COLUMNS)),
        order=st.sampled_from(["", "up", "down"]),
        published=st.booleans(),
        page=st.integers(1, 99),
    )
    def test_what_stands_in_the_address_comes_back(self, **given):
        query = Query(**given)
        address = query.address(page=query.page)
        assert Query.of(parse_qsl(address[1:], keep_blank_values=True)) == query

    @pytest.mark.parametrize(
        ("pairs", "told"),
        [
            ([("sise", "<4B")], "Did you mean 'size'"),
            ([("size", "huge")], "<4B"),
            ([("sort", "luck")], "score"),
            ([("open", "yes")], "proprietary"),
            ([("page", "0")], "1 to 999999"),
            ([("page", "x")], "1 to 999999"),
            ([("x", "luck")], "speed"),
        ],
    )
    def test_what_is_refused(self, pairs, told):
        with pytest.raises(BadOption, match=told):
            Query.of(pairs)

    def test_filters(self):
        one = entry(
            "a",
            info=ModelInfo(
                parameters=3_000_000_000,
                open=True,
                license="mit",
                family="llava",
                vision="clip",
                language="llama",
            ),
        )
        two = entry(
            "b",
            info=ModelInfo(parameters=8_000_000_000, open=False, license="", family="openai"),
            data="other",
            suites=("charts",),
        )
        three = entry("c")
        every = [one, two, three]

        def kept(**given):
            return [e.id for e in every if Query(**given).keeps(e)]

        assert kept() == ["a", "b", "c"]
        assert kept(size=("<4B",)) == ["a"]
        assert kept(size=("<4B", "4-10B")) == ["a", "b"]
        assert kept(size=("unknown",)) == ["c"]
        assert kept(open="open") == ["a"]
        assert kept(open="proprietary") == ["b"]
        assert kept(open="unknown") == ["c"]
        assert kept(license=("mit",)) == ["a"]
        assert kept(license=("unknown",)) == ["b", "c"]
        assert kept(family=("openai",)) == ["b"]
        assert kept(data=("other",)) == ["b"]
        assert kept(suite="charts") == ["b"]
        assert kept(q="LLAMA org") == ["a"]
        assert kept(q="nobody") == []

    def test_published_figures_are_shown_on_demand(self):
        one = entry("", published="a study")
        assert not Query().keeps(one)
        assert Query(published=True).keeps(one)

    def test_sorting_puts_what_is_unknown_last_either_way(self):
        every = [entry("a", 0.2), entry("b", None), entry("c", 0.9), entry("d", 0.2)]
        assert [e.id for e in Query().ordered(every)] == ["c", "a", "d", "b"]
        assert [e.id for e in Query(order="up").ordered(every)] == ["a", "d", "c", "b"]
        assert [e.id for e in Query(sort="cost").ordered(every)] == ["a", "b", "c", "d"]

    def test_a_second_click_turns_the_order(self):
        query = Query.of(parse_qsl(Query().sorting("speed")[1:]))
        assert (query.sort, query.upwards) == ("speed", False)
        assert Query.of(parse_qsl(query.sorting("speed")[1:])).upwards
        assert Query.of(parse_qsl(Query().sorting("model")[1:])).upwards


def test_groups_are_of_the_same_samples():
    every = [
        entry("a"),
        entry("b", fingerprint="g", n=9),
        entry("c", protocol="q"),
        entry("", fingerprint="", published="s"),
    ]
    found = grouped(every, Query(by="protocol"))
    assert [(g.protocol, g.fingerprint, len(g.entries)) for g in found] == [
        ("p", "g", 2),
        ("p", "f", 1),
        ("q", "f", 1),
    ]
    by_data = grouped(every, Query())
    assert sorted(len(g.entries) for g in by_data) == [2, 2]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.3)), min_size=1, max_size=12))
def test_interval_ranks_by_counting(given):
    every = [Candidate(str(i), value - half, value + half, 1) for i, (value, half) in enumerate(given)]
    found = interval_ranks(every)
    for one in every:
        assert found[one.id] == 1 + sum(other.low > one.high for other in every)


@given(
    st.dictionaries(
        st.sampled_from("abcde"),
        st.fixed_dictionaries({"x": st.none() | st.integers(0, 9), "y": st.none() | st.integers(0, 9)}),
        min_size=1,
    )
)
def test_averages_by_counting(scores):
    for row in averages(scores):
        mine = scores[row.model]
        known = [v for v in mine.values() if v is not None]
        assert row.missing == 2 - len(known)
        assert row.average == (sum(known) / 2 if len(known) == 2 else None)
        places = [
            1 + sum(1 for o in scores.values() if o[k] is not None and o[k] > v)
            for k, v in mine.items()
            if v is not None
        ]
        assert row.rank == (pytest.approx(sum(places) / len(places)) if places else None)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12), st.booleans())
def test_the_pareto_line_is_of_those_that_nothing_beats(points, small):
    found = pareto(points, small=small)
    sign = -1 if small else 1
    beaten = {
        i
        for i, (x, y) in enumerate(points)
        if any((sign * a >= sign * x and b >= y) and (a, b) != (x, y) for a, b in points)
    }
    assert {points[i] for i in found} == {points[i] for i in range(len(points)) if i not in beaten}
    assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)


class TestCharts:
    @given(st.lists(st.tuples(st.floats(1e-3, 1e6), st.floats(0, 100)), min_size=2, max_size=20))
    def test_marks_stay_within_the_frame(self, points):
        drawn = scatter([ChartPoint(x=x, y=y, name="m") for x, y in points], x="x", y="y")
        for mark in drawn["marks"]:
            assert 50 <= mark["x"] <= 540
            assert 20 <= mark["y"] <= 250
        places = [tick["at"] for tick in drawn["across"]]
        assert places == sorted(places)
        assert (places[0], places[-1]) == (50, 540)
        assert len(places) <= 12

    def test_more_is_to_the_right_and_better_is_up(self):
        drawn = scatter(
            [ChartPoint(x=1, y=10, name="slow"), ChartPoint(x=100, y=90, name="fast")],
            x="items/s",
            y="accuracy %",
        )
        slow, fast = drawn["marks"]
        assert slow["x"] < fast["x"]
        assert slow["y"] > fast["y"]
        assert drawn["best"] == [2]
        assert scatter([ChartPoint(x=1, y=10, name="one")], x="", y="") is None

    @given(st.lists(st.tuples(st.floats(0.1, 1e4), st.floats(0, 100)), min_size=2, max_size=40), st.data())
    def test_labels_overlap_neither_markers_nor_each_other(self, points, data):
        names = [data.draw(st.text("abc", min_size=1, max_size=50)) for _ in points]
        drawn = scatter(
            [ChartPoint(x=x, y=y, name=name) for (x, y), name in zip(points, names, strict=True)], x="", y=""
        )
        boxes = []
        for mark in drawn["marks"]:
            label = mark["label"]
            assert label["text"] == (mark["name"] if label["whole"] else str(mark["number"]))
            if label["whole"]:
                wide = 6.6 * len(label["text"])
                begin = label["x"] - wide * {"start": 0, "middle": 0.5, "end": 1}[label["anchor"]]
                boxes.append((begin, label["y"] - 11, begin + wide, label["y"] + 3))
        markers = [(m["x"] - 5.9, m["y"] - 5.9, m["x"] + 5.9, m["y"] + 5.9) for m in drawn["marks"]]
        for i, a in enumerate(boxes):
            assert 49 < a[0] < a[2] < 559
            for b in boxes[i + 1 :] + markers:
                apart = a[2] <= b[0] + 0.2 or b[2] <= a[0] + 0.2 or a[3] <= b[1] + 0.2 or b[3] <= a[1] + 0.2
                assert apart

    def test_a_lone_name_stands_at_its_point(self):
        drawn = scatter([ChartPoint(x=x, y=50, name=f"model {x}") for x in (1, 100)], x="", y="")
        assert [mark["label"]["text"] for mark in drawn["marks"]] == ["model 1", "model 100"]
        assert all(mark["label"]["whole"] for mark in drawn["marks"])
        assert (
            scatter([ChartPoint(x=0, y=10, name="none"), ChartPoint(x=1, y=10, name="one")], x="", y="")
            is None
        )

    def test_curves_are_sorted_by_x(self):
        drawn = curves(
            {
                "m": [ChartPoint(x=50, y=20, name=""), ChartPoint(x=2, y=90, name="")],
                "alone": [ChartPoint(x=2, y=1, name="")],
            },
            x="n",
            y="a",
        )
        (line,) = drawn["lines"]
        assert line["told"] == "2: 90.0, 50: 20.0"
        assert line["places"][0][0] < line["places"][1][0]
        assert curves({"alone": [ChartPoint(x=2, y=1, name="")]}, x="", y="") is None


class TestFacts:
    def test_sizes(self):
        assert [size_of(n) for n in (0, 3.9e9, 4e9, 10e9, 20e9, 40e9, 1e12, None)] == [
            "<4B", "<4B", "4-10B", "10-20B", "20-40B", ">40B", ">40B", "unknown",
        ]  # fmt: skip

    def test_what_the_name_says(self):
        book = ModelInfoIndex()
        assert book.of("hf:Qwen/Qwen2-VL-7B-Instruct", {}).parameters == 7_000_000_000
        assert book.of("hf:HuggingFaceTB/SmolVLM-500M-Instruct", {}).parameters == 500_000_000
        assert book.of("hf:llava-hf/llava-1.5-7b-hf", {}).open is True
        assert book.of("openai:gpt-4o", {}) == ModelInfo(
            parameters=None, open=False, license="proprietary", family="openai"
        )
        assert book.of("openai:Qwen/Qwen2-VL-2B?base_url=http://localhost:1/v1", {}).open is None
        assert book.of("scripted", {}).open is None
        served = {"address": "http://localhost:8000/v1"}
        assert (
            ModelInfoIndex().of("openai:gpt-4o", served).open is None
        )  # an option apart from the name said where
        for name in (
            "hf:laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            "hf:org/Mixtral-8x7B",
            "a?b=c&d",
            "hf:~no/x",
        ):
            assert ModelInfoIndex().of(name, {}).parameters is None

    def test_what_its_files_say(self, tmp_path):
        config = {"model_type": "llava", "vision_config": {"model_type": "clip_vision_model"},
                  "text_config": {"model_type": "llama", "_name_or_path": "lmsys/vicuna-7b"}}  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "README.md").write_text(
            "---\nlanguage: en\nlicense: llama2\n---\n# A model\nlicense: mit\n"
        )
        found = ModelInfoIndex().of(f"hf:{tmp_path}", {}, 7_063_427_072)
        assert found == ModelInfo(
            parameters=7_063_427_072,
            open=True,
            license="llama2",
            family="llava",
            vision="clip_vision_model",
            language="lmsys/vicuna-7b",
        )
        assert ModelInfoIndex().of("pico:llava", {}).language == "llama"

    def test_what_a_user_says_wins(self, tmp_path):
        file = tmp_path / "models.toml"
        file.write_text('["openai:gpt-4o"]\nopen = false\nparameters = 200e9\nlicense = "their own"\n')
        found = ModelInfoIndex(file).of("openai:gpt-4o?temperature=0", {}, None)
        assert (found.parameters, found.license, found.size) == (200_000_000_000, "their own", ">40B")

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ('["x"]\nlicence = "mit"', "Did you mean 'license'"),
            ('["x"]\nopen = "yes"', "true or false"),
            ('["x"]\nparameters = "7B"', "a number"),
            ('["x"]\nparameters = true', "a number"),
            ('["x"]\nparameters = inf', "positive count"),
            ('["x"]\nparameters = nan', "positive count"),
            ('["x"]\nparameters = -1', "positive count"),
            ("x = 3", "not a table"),
            ("[", "cannot be read"),
        ],
    )
    def test_a_file_that_says_something_else(self, tmp_path, text, told):
        file = tmp_path / "models.toml"
        file.write_text(text)
        with pytest.raises(BadOption, match=told):
            ModelInfoIndex(file)


class TestBoard:
    @pytest.fixture
    def runs(self, workspace):
        def teller(share):
            def script(request):
                number = int(request.images[0].sha256[:6], 16) % 10
                return request.sample.label if number < share else "star"

            return script

        return [
            run(
                model=Scripted(teller(share), f"m{share}"),
                data="chart:shapes?n=40",
                protocol="closed-set?rounds=1",
            )
            for share in (9, 9.5, 2)
        ]

    def test_entries_are_the_runs(self, runs, workspace):
        found = [e for e in Board(Store(workspace)).entries() if not e.published]
        assert [e.id for e in found] == [one.id for one in runs]
        for mine, one in zip(found, runs, strict=True):
            assert mine.value == one.metrics["accuracy"].value
            assert (mine.n, mine.classes) == (40, 28)
            assert mine.outcomes == one.metrics.outcomes
            json.dumps(mine.as_dict())

    def test_ranks_are_those_of_paired_tests(self, runs, workspace):
        board = Board(Store(workspace))
        (group,) = board.select(Query())
        found, paired = board.ranks(group)
        assert paired
        assert found == rank_runs(runs)
        assert found[runs[2].id] == 3

    def test_what_changes_is_read_again_and_nothing_else(self, runs, workspace, monkeypatch):
        store = Store(workspace)
        board = Board(store)
        board.entries()
        asked = []
        whole = store.list_runs
        monkeypatch.setattr(store, "list_runs", lambda ids=None: asked.append(ids) or whole(ids))
        board.entries()
        assert asked == [[]]
        new = run(
            model=Scripted(lambda r: "star", "new"), data="chart:shapes?n=8", protocol="closed-set?rounds=1"
        )
        assert [e.id for e in board.entries() if not e.published][-1] == new.id
        assert asked[-1] == [new.id]

    def test_corrections_are_read_when_they_are_written(self, runs, workspace):
        board = Board(Store(workspace))
        assert board.entries()[0].info.license == ""
        (workspace / "models.toml").write_text('["m9"]\nlicense = "mine"\n')
        assert board.entries()[0].info.license == "mine"

    def test_averages_show_what_is_missing(self, runs, workspace):
        run(model=Scripted(lambda r: "star", "m9"), data="chart:shapes?n=8", protocol="closed-set?rounds=1")
        board = Board(Store(workspace))
        names, rows = board.averaged(board.select(Query()))
        assert len(names) == 2
        by_model = {row.model: row for row in rows}
        assert by_model["m9"].missing == 0
        assert by_model["m2"].missing == 1
        assert by_model["m2"].average is None
        assert by_model["m2"].rank is not None

    def test_other_samples_are_another_benchmark(self, workspace):
        for classes, model in (("star,ring", "a"), ("circle,square", "b")):
            run(model=Scripted(lambda r: r.sample.label, model), data="chart:shapes?n=56", classes=[classes])
        board = Board(Store(workspace))
        names, rows = board.averaged(board.select(Query()))
        assert len(set(names)) == 2
        assert {(row.model, row.missing) for row in rows} == {("a", 1), ("b", 1)}

    def test_what_has_not_ended_counts_nowhere(self, runs, workspace):
        def stop(request):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(model=Scripted(stop, "x"), data="chart:shapes?n=9", protocol="closed-set?rounds=1")
        board = Board(Store(workspace))
        names, rows = board.averaged(board.select(Query()))
        assert len(names) == 1
        assert all(row.missing == 0 for row in rows)


def test_published_figures_are_those_of_the_suites():
    found = published()
    assert all(e.published and not e.id for e in found)
    assert all(e.value is None or 0 <= e.value <= 1 for e in found)
    (one,) = [
        e for e in found if (e.model, e.data, e.protocol) == ("openai:gpt-4o", "caltech256", "closed-set")
    ]
    assert (one.value, one.speed, one.primary, one.suites) == (0.94, 2, "accuracy", ("clarifai-caltech256",))
    assert one.info.open is False


def test_a_group_has_the_size_of_its_largest():
    assert Group("d", "p", "a", "f", (entry("a", n=3), entry("b", n=7))).n == 7
