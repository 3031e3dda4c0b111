"""Shared prefixes: the same answers both ways, with little memory, too, and from start to finish."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import made
from prefixes import count_prefixes
from sharing import TOLERANCE, WAYS, answers, forced, ragged, scores
from snellen.models.huggingface.prefix_cache.graphs import Steps
from snellen.models.huggingface.prefix_cache.packed import PackedSuffixes
from snellen.models.huggingface.prefix_cache.prefill import Prefix
from snellen.models.huggingface.prefix_cache.rows import BatchedSuffixes
from snellen.models.huggingface.prefix_cache.self_check import Strategy
from snellen.models.huggingface.prefix_cache.strategy import MAX_FAILURES
from snellen.models.huggingface.prefix_cache.trie import chunks, common, plant
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.runs.filters import Filters
from snellen.runs.plan import Plan
from snellen.types import Kind, ask

pytestmark = pytest.mark.slow


sequences = st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=12)


class TestForest:
    @given(sequences)
    def test_common_is_the_longest_common_prefix(self, rows):
        length = common(rows)
        assert len({tuple(row[:length]) for row in rows}) == 1
        assert min(map(len, rows)) == length or len({tuple(row[: length + 1]) for row in rows}) > 1

    @given(sequences, st.data())
    def test_nodes_are_distinct_beginnings_and_see_their_own(self, rows, data):
        begins = [data.draw(st.integers(0, len(row))) for row in rows]
        forest = plant(rows, begins)
        beginnings = {tuple(row[: i + 1]) for row in rows for i in range(len(row))}
        assert len(forest.tokens) == len(beginnings)
        for row, path in zip(rows, forest.paths, strict=True):
            assert [forest.tokens[node] for node in path] == row
            assert [forest.depths[node] for node in path] == list(range(len(row)))
            for i, node in enumerate(path):
                assert set(forest.sees[node].nonzero()[0]) == set(path[: i + 1])
        first = len(forest.tokens) - forest.wanted
        asked = {path[i] for path, b in zip(forest.paths, begins, strict=True) for i in range(b, len(path))}
        assert asked == set(range(first, len(forest.tokens)))

    @given(sequences, st.integers(1, 20), st.integers(0, 3))
    def test_chunks_hold_all_once_and_keep_to_the_limit(self, rows, limit, more):
        found = chunks(rows, limit, more)
        assert sorted(i for chunk in found for i in chunk) == list(range(len(rows)))
        for chunk in found:
            nodes = len(plant([rows[i] for i in chunk], [0] * len(chunk)).tokens) + more * len(chunk)
            assert nodes <= limit or len(chunk) == 1

    def test_a_thousand_names_share_their_beginnings(self):
        names = [[1, i // 100, i // 10 % 10, i % 10] for i in range(1000)]
        assert len(plant([n[:-1] for n in names], [0] * 1000).tokens) == 1 + 10 + 100


#: Packed and in rows, with a sliding window, with linear attention, and with cross-attention.
MEMORY = ("llava", "qwen3_5", "gemma3", "mllama")


@pytest.fixture
def shared(folder) -> VisionLanguageModel:
    """A fresh one, so that nothing is kept from other tests."""
    found = made(VisionLanguageModel, f"hf:{folder}?prefix=on")
    found.load()
    return found


@pytest.fixture(scope="module")
def plain_texts(plain):
    return answers(plain, ragged())


@pytest.fixture(scope="module")
def plain_scores(plain):
    return answers(plain, ragged(Kind.SCORE))


def ways(name) -> list[tuple[Strategy, int]]:
    both = [Strategy.PACKED, Strategy.ROWS] if WAYS[name] is Strategy.PACKED else [WAYS[name]]
    return [(way, images) for way in both for images in (1, 8)]


class TestBothWays:
    def test_texts_are_equal(self, name, shared, plain_texts):
        assert len({r.text for r in plain_texts}) > 3, "weights too small: answers are alike"
        for way, images in ways(name):
            found = answers(forced(shared, way, images), ragged())
            for a, b in zip(found, plain_texts, strict=True):
                assert replace(a, latency=0) == replace(b, latency=0)

    def test_steps_at_fixed_addresses_give_equal_texts(self, name, shared, plain_texts, monkeypatch):
        if WAYS[name] is not Strategy.PACKED:
            pytest.skip("rows are not packed")
        taken = []
        real = Steps.step

        def counted(self):
            taken.append(self)
            return real(self)

        monkeypatch.setattr(Steps, "step", counted)
        for images in (1, 8):
            shared.sharing.clear()
            found = answers(forced(shared, WAYS[name], images, graphs=0.0), ragged())
            assert [r.text for r in found] == [r.text for r in plain_texts]
        assert bool(taken) == (name != "mllama")  # whose cross-attention has a separate mask

    def test_log_likelihoods_are_equal(self, name, shared, plain_scores):
        right = scores(plain_scores)
        assert right.std() > 100 * TOLERANCE
        for way, images in ways(name):
            found = answers(forced(shared, way, images), ragged(Kind.SCORE))
            assert (scores(found) - right).abs().max() < TOLERANCE
            for a, b in zip(found, plain_scores, strict=True):
                assert [s.tokens for s in a.scores] == [s.tokens for s in b.scores]
                assert (a.prompt, a.prompt_tokens) == (b.prompt, b.prompt_tokens)

    def test_waves_go_on_from_the_same_prefix(self, name, shared, plain_texts, monkeypatch):
        """What is asked later of the same image is answered from the prefix that was kept for it."""
        assert shared.sharing.way is WAYS[name]
        made = count_prefixes(monkeypatch)
        found = []
        requests = ragged(colors=("red",))[4:6]
        more = [ask(requests[0].images, f"Is it a {thing}?", max_tokens=7) for thing in ("car", "tyre")]
        for request_batch in (requests, more):
            found += answers(shared, request_batch)
        assert [r.text for r in found[:2]] == [r.text for r in plain_texts[4:6]]
        assert len(made) == 1
        shared.close()
        assert shared.sharing.clusters(more)
        answers(shared, more)
        assert len(made) == 2


@pytest.mark.parametrize("name", MEMORY, indirect=True)
@pytest.mark.usefixtures("no_collection")
class TestLittleMemory:
    """What happens then depends on the way and on the kind of cache, so one of each is enough."""

    def test_a_small_budget_changes_nothing(self, name, shared, plain_texts, plain_scores, monkeypatch):
        """Not even where every branch is run alone."""
        monkeypatch.setattr(shared.sharing, "budget", lambda: 1)
        first = slice(len(ragged(colors=("red",))))
        for way, images in ways(name):
            forced(shared, way, images)
            shared.sharing.clear()
            found = answers(shared, ragged()[first])
            assert [r.text for r in found] == [r.text for r in plain_texts[first]]
            found = answers(shared, ragged(Kind.SCORE)[first])
            assert (scores(found) - scores(plain_scores[first])).abs().max() < TOLERANCE

    def test_running_out_of_memory_halves_what_is_run_at_once(self, name, shared, plain_scores, monkeypatch):
        forced(shared, WAYS[name])
        sizes = []
        kind = PackedSuffixes if WAYS[name] is Strategy.PACKED else BatchedSuffixes
        real = kind.likelihoods

        def small(self, begins):
            sizes.append(len(begins))
            if len(begins) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(self, begins)

        monkeypatch.setattr(kind, "likelihoods", small)
        found = answers(shared, ragged(Kind.SCORE))
        assert (scores(found) - scores(plain_scores)).abs().max() < TOLERANCE
        fitted = next(i for i, size in enumerate(sizes) if size <= 3)
        assert fitted > 0
        assert max(sizes[fitted:]) <= 3, "what did not fit once is not tried again"

    def test_running_out_of_memory_halves_the_images_at_once(self, name, shared, plain_scores, monkeypatch):
        forced(shared, WAYS[name], images=8)
        counts = []
        real = Prefix.__init__

        def small(self, model, looks, *args, **more):
            counts.append(len(looks))
            if len(looks) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            real(self, model, looks, *args, **more)

        monkeypatch.setattr(Prefix, "__init__", small)
        found = answers(shared, ragged(Kind.SCORE))
        assert (scores(found) - scores(plain_scores)).abs().max() < TOLERANCE
        assert set(counts) > {1}
        assert set(counts[counts.index(1) :]) == {1}, "what did not fit once is not tried again"

    def test_too_little_memory_for_sharing_leaves_plain_batches(
        self, name, shared, plain_scores, monkeypatch, caplog
    ):
        forced(shared, WAYS[name])

        def none(self, *args, **more):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(Prefix, "__init__", none)
        found = answers(shared, ragged(Kind.SCORE))
        assert (scores(found) - scores(plain_scores)).abs().max() < TOLERANCE
        assert "plain batches" in caplog.text
        for _ in range(3):
            answers(shared, ragged(Kind.SCORE)[:2])
        assert caplog.text.count("plain batches") == MAX_FAILURES, "it does not try for ever"


def pico(prefix) -> VisionLanguageModel:
    model = made(VisionLanguageModel, f"pico:llava?prefix={prefix}")
    model.name = f"pico, prefix {prefix}"
    return model


@pytest.mark.parametrize(
    "protocol",
    [
        "closed-set",
        pytest.param("binary", marks=pytest.mark.exhaustive),
        pytest.param("rank", marks=pytest.mark.exhaustive),
        "rank?pmi=true&prefix=It is a",
    ],
)
def test_runs_predict_the_same_both_ways(protocol, workspace):
    kept = {}
    for prefix in ("on", "off"):
        plan = Plan(
            models=[pico(prefix)], data=["chart:shapes"], protocols=[protocol], filters=Filters(limit=28)
        )
        (found,) = plan.run()
        kept[prefix] = found.predictions[["id", "prediction", "outcome", "questions"]]
        assert ("prefix" in found.manifest.model.metadata) == (prefix == "on")
    assert kept["on"].equals(kept["off"])
    assert found.metrics["accuracy"].value > (0.2 if "pmi" in protocol else 0.5)  # chance: 4%


def test_binary_asks_ahead_and_counts_what_the_stop_rule_needed(workspace):
    """In one wave or one by one: the same predictions and the same count of questions."""
    model = pico("on")
    asked = []
    real = model.answer
    model.answer = lambda requests: asked.append(len(requests)) or real(requests)  # type: ignore[method-assign]
    found = {}
    for protocol in ("binary", "binary?request_batch=1"):
        asked.clear()
        (run,) = Plan(
            models=[model],
            data=["chart:shapes"],
            protocols=[protocol],
            filters=Filters(limit=28),
            workspace=workspace,
            fresh=True,
        ).run()
        found[protocol] = run.predictions[["id", "prediction", "outcome", "questions"]]
        if protocol == "binary":
            assert sum(asked) == 28 * 28
    assert found["binary"].equals(found["binary?request_batch=1"])
    assert found["binary"]["questions"].sum() == sum(asked) < 28 * 28


def test_the_line_that_says_which_is_printed(workspace, capsys):
    from snellen.reports.progress import progress

    with progress() as watch:
        Plan(
            models=[pico("auto")], data=["chart:shapes"], protocols=["closed-set"], filters=Filters(limit=4)
        ).run(watch)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "pico, prefix auto: each image is encoded once, with its questions packed behind it"
    assert not logging.getLogger("snellen").handlers
