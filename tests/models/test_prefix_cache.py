"""Sharing changes no answer: every architecture against its plain path, and every planted fault caught."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from helpers import made, picture
from sharing import SHARING, TOLERANCE, WAYS, answers, forced, of_each_kind, ragged, scores
from snellen.errors import BadOption, ModelError
from snellen.models.base import MODELS
from snellen.models.huggingface import matmul
from snellen.models.huggingface.prefix_cache import memory, strategy
from snellen.models.huggingface.prefix_cache.budget import free_bytes, parse_bytes
from snellen.models.huggingface.prefix_cache.graphs import Steps
from snellen.models.huggingface.prefix_cache.inputs import ImageContext, Reader
from snellen.models.huggingface.prefix_cache.packed import PackedSuffixes
from snellen.models.huggingface.prefix_cache.prefill import Prefix, cached_bytes
from snellen.models.huggingface.prefix_cache.rows import BatchedSuffixes
from snellen.models.huggingface.prefix_cache.self_check import Findings, Strategy
from snellen.models.huggingface.prefix_cache.strategy import MAX_FAILURES, PrefixSharing
from snellen.models.huggingface.prefix_cache.trie import chunks, common, plant
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.runs.filters import Filters
from snellen.runs.plan import Plan
from snellen.types import Decoding, Kind, ask

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


# ── answers, both ways ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=of_each_kind(SHARING))
def name(request) -> str:
    return request.param


#: Packed and in rows, with a sliding window, with linear attention, and with cross-attention.
MEMORY = ("llava", "qwen3_5", "gemma3", "mllama")


@pytest.fixture(scope="module")
def folder(name, tmp_path_factory) -> Path:
    return tiny.save(name, tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def plain(folder) -> VisionLanguageModel:
    return made(VisionLanguageModel, f"hf:{folder}?prefix=off")


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
        for way, images in ways(name):
            forced(shared, way, images)
            shared.sharing.clear()
            found = answers(shared, ragged())
            assert [r.text for r in found] == [r.text for r in plain_texts]
            assert (
                scores(answers(shared, ragged(Kind.SCORE))) - scores(plain_scores)
            ).abs().max() < TOLERANCE

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


def count_prefixes(monkeypatch) -> list[int]:
    made: list[int] = []
    real = Prefix.__init__

    def counted(self, *args, **more):
        made.append(1)
        real(self, *args, **more)

    monkeypatch.setattr(Prefix, "__init__", counted)
    return made


# ── the self-check ──────────────────────────────────────────────────────────────────────────────────


class TestSelfCheck:
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    @pytest.mark.parametrize("name", of_each_kind(tiny.ARCHITECTURES))
    def test_it_finds_the_first_exact_way(self, name, dtype, tmp_path, caplog):
        folder = tiny.save(name, tmp_path, scale=6.0 if dtype == "float32" else 3.0)
        model = made(VisionLanguageModel, f"hf:{folder}?dtype={dtype}")
        with caplog.at_level(logging.INFO, "snellen"):
            assert model.sharing.way is WAYS[name]
        declared = WAYS[name] is Strategy.PLAIN
        assert len(caplog.records) == (0 if declared else 1)
        if not declared:
            assert caplog.records[0].levelno == (
                logging.INFO if WAYS[name] in (Strategy.PACKED, Strategy.ROWS) else logging.WARNING
            )
            found = model.metadata()["prefix"]
            assert found["way"] == WAYS[name]
            assert found["tried"][WAYS[name]] < 0.2
            # Three questions in one padded batch, at twelve places each; only half precision may flip some.
            assert found["decisions"] == 36
            assert found["flips"] == 0 if dtype == "float32" else found["flips"] < 36
        assert model.request_batch == (32 if WAYS[name] in (Strategy.PACKED, Strategy.ROWS) else 1)

    def test_decisions_that_depend_on_the_batch_are_counted(self, tmp_path, monkeypatch):
        on_device = VisionLanguageModel.on_device

        def dazzled(self, inputs):
            if len(inputs["input_ids"]) > 1:
                inputs["pixel_values"] = -inputs["pixel_values"]
            return on_device(self, inputs)

        monkeypatch.setattr(VisionLanguageModel, "on_device", dazzled)
        model = made(VisionLanguageModel, f"hf:{tiny.save('llava', tmp_path)}")
        assert model.sharing.way
        found = model.metadata()["prefix"]
        assert 0 < found["flips"] <= found["decisions"] == 36

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("fault", ["position", "leak", "image"])
    def test_planted_faults_are_caught(self, name, fault, dtype, tmp_path, monkeypatch):
        if fault == "leak" and WAYS[name] is Strategy.ROWS:
            pytest.skip("rows have nothing to leak through")
        plant_fault(monkeypatch, fault)
        # The linear layers of this one hardly tell positions apart from rounding, where weights are large.
        folder = tiny.save(name, tmp_path, scale=2.0 if (name, dtype) == ("qwen3_5", "bfloat16") else 6.0)
        model = made(VisionLanguageModel, f"hf:{folder}?dtype={dtype}")
        model.load()
        model.sharing.images = 1
        way = model.sharing.way
        assert way is (Strategy.ROWS if fault == "leak" else way)
        assert way not in ((Strategy.PACKED,) if fault == "leak" else (Strategy.PACKED, Strategy.ROWS))

    @pytest.mark.parametrize("attn", ["eager", "sdpa"])
    def test_whatever_computes_attention(self, attn, tmp_path):
        folder = tiny.save("gemma3", tmp_path)
        assert made(VisionLanguageModel, f"hf:{folder}?attn={attn}").sharing.way is Strategy.PACKED

    def test_attention_that_takes_no_mask_runs_in_rows(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Prefix, "attention", "flash_attention_2")
        model = made(VisionLanguageModel, f"hf:{tiny.save('llava', tmp_path)}")
        assert model.sharing.way is Strategy.ROWS
        assert "does not support this kind of mask" in str(model.sharing.findings)

    def test_a_processor_that_joins_text_and_image_is_run_for_each_prompt(self, tmp_path, monkeypatch):
        """Tokens that cannot be put together are not: the forward pass is shared all the same."""
        folder = tiny.save("llava", tmp_path)
        monkeypatch.setattr(ImageContext, "continued", lambda self, text: [7, *self.ids])
        model = made(VisionLanguageModel, f"hf:{folder}")
        assert model.sharing.way is Strategy.PACKED
        assert not model.sharing.reader.splices
        plain = made(VisionLanguageModel, f"hf:{folder}?prefix=off")
        requests = ragged()[:6]
        prefixes = count_prefixes(monkeypatch)
        assert [r.text for r in answers(model, requests)] == [r.text for r in answers(plain, requests)]
        assert len(prefixes) == 1

    def test_one_that_breaks_is_plain_and_says_so(self, tmp_path, monkeypatch, caplog):
        def broken(self):
            raise RuntimeError("no such luck")

        model = made(VisionLanguageModel, f"hf:{tiny.save('llava', tmp_path)}")
        monkeypatch.setattr(type(model.sharing), "_check", broken)
        assert model.sharing.way is Strategy.PLAIN
        assert "the self-check failed: RuntimeError: no such luck" in caplog.text
        assert answers(model, ragged()[:3])

    def test_prefix_on_refuses_what_is_not_possible(self, tmp_path):
        for name in ("paligemma", "florence2"):
            model = made(VisionLanguageModel, f"hf:{tiny.save(name, tmp_path / name)}?prefix=on")
            with pytest.raises(ModelError, match="prefix=on is not possible.*Leave prefix at auto"):
                answers(model, ragged()[:3])

    def test_prefix_off_checks_nothing_and_is_another_model(self, tmp_path):
        folder = tiny.save("llava", tmp_path)
        model = made(VisionLanguageModel, f"hf:{folder}?prefix=off")
        answers(model, ragged()[:3])
        assert model.sharing.found is None
        assert "prefix" not in model.metadata()
        assert model.identity() != MODELS.make(f"hf:{folder}").identity()
        assert MODELS.make(f"hf:{folder}").identity() == MODELS.make(f"hf:{folder}?prefix=on").identity()


def plant_fault(monkeypatch, fault: str) -> None:
    if fault == "position":
        real = Prefix.positions
        monkeypatch.setattr(Prefix, "positions", lambda self, *given: real(self, *given) + 1)
    elif fault == "leak":
        monkeypatch.setattr(PackedSuffixes, "visible", lambda self, sees: torch.ones_like(sees))
    else:
        begin = ImageContext.beginning
        first: list[ImageContext] = []

        def wrong(self, length):
            first.append(self)
            mine, other = begin(self, length), begin(first[0], length)
            pixels = "pixel_values"
            return {**mine, pixels: other[pixels]}

        monkeypatch.setattr(ImageContext, "beginning", wrong)


class TestVision:
    def test_features_are_computed_once_and_answers_stay(self, tmp_path, monkeypatch):
        folder = tiny.save("paligemma", tmp_path)
        model, plain = (
            made(VisionLanguageModel, f"hf:{folder}"),
            made(VisionLanguageModel, f"hf:{folder}?prefix=off"),
        )
        requests = [
            ask((picture(c),), t, max_tokens=6)
            for c in ("red", "blue")
            for t in ("What?", "Is it? Is it?", "A")
        ]
        expected = answers(plain, requests)
        assert model.sharing.way is Strategy.VISION
        tower = type(model._model.model.vision_tower)
        seen = []
        real = tower.forward

        def counted(self, pixel_values, **more):
            seen.append(len(pixel_values))
            return real(self, pixel_values, **more)

        monkeypatch.setattr(tower, "forward", counted)
        assert [r.text for r in answers(model, requests)] == [r.text for r in expected]
        assert seen == [1, 1]


# ── what surrounds it ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> Path:
    return tiny.save("llava", tmp_path_factory.mktemp("llava"))


class TestTogether:
    def test_an_images_questions_stay_together(self, llava):
        model = forced(made(VisionLanguageModel, f"hf:{llava}"), Strategy.PACKED, images=2, batch_size=4)
        images = [(picture(color),) for color in ("red", "green", "blue")]
        requests = [ask(image, f"{i}?", max_tokens=5) for i in range(6) for image in images]
        requests += [ask((picture("white"),), f"{i}?", max_tokens=5 + i) for i in range(2)]
        found = model.together(requests)
        assert sorted(i for batch in found for i in batch) == list(range(20))
        assert [sorted(batch) for batch in found] == [
            sorted([*range(0, 18, 3), *range(1, 18, 3)]),
            list(range(2, 18, 3)),
            [18],
            [19],
        ]

    def test_long_lists_of_names_take_fewer_images_at_once(self, llava):
        model = forced(made(VisionLanguageModel, f"hf:{llava}"), Strategy.PACKED, images=8)
        model.sharing._tokens = 600
        assert [model.sharing.at_once(names) for names in (0, 20, 1000)] == [8, 7, 3]

    def test_samples_drawn_warm_share_nothing(self, llava):
        model = made(VisionLanguageModel, f"hf:{llava}")
        warm = [ask((picture(),), "?", max_tokens=5) for _ in range(3)]
        warm = [replace(r, decoding=Decoding(5, temperature=1.0, draw=i)) for i, r in enumerate(warm)]
        assert model.sharing.clusters(warm) == []

    def test_small_models_take_more_images_at_once(self, llava):
        model = made(VisionLanguageModel, f"hf:{llava}")
        assert model.sharing.way is Strategy.PACKED
        assert model.sharing.images == model.batch_size
        for parameter in (huge := made(VisionLanguageModel, f"hf:{llava}")).decoder.parameters():
            parameter.numel = lambda: 10**10
        assert huge.sharing.images == 1


class TestForesight:
    def test_looks_are_made_ready(self, llava, monkeypatch):
        model = forced(made(VisionLanguageModel, f"hf:{llava}"), Strategy.PACKED)
        model.load()
        requests = ragged()[:6]
        runs = []
        real = VisionLanguageModel.process_all
        monkeypatch.setattr(
            VisionLanguageModel, "process_all", lambda self, *given: runs.append(1) or real(self, *given)
        )
        model.prefetch(requests)
        assert len(runs) == 1
        answers(model, requests)
        assert len(runs) == 1

    def test_before_the_check_nothing_is(self, llava):
        model = made(VisionLanguageModel, f"hf:{llava}")
        model.prefetch(ragged()[:6])
        assert not model.sharing.reader._looks

    def test_a_reader_keeps_some(self):
        class Tensors(dict):
            pass

        def process(prompt, images):
            return {"input_ids": torch.tensor([[1, *map(ord, prompt)]])}

        reader = Reader(process, lambda prompt: list(map(ord, prompt)), kept=2)
        images = [(picture(color),) for color in ("red", "green", "blue")]
        first, ids = reader.read("abc", images[0])
        assert ids == [1, 97, 98, 99]
        again, ids = reader.read("abd", images[0])
        assert again is first
        assert ids == [1, 97, 98, 100]
        other, _ = reader.read("xyz", images[0])
        assert other is not first
        for image in images[1:]:
            reader.read("abc", image)
        assert len(reader._looks) == 2


class TestBudget:
    @pytest.mark.parametrize(
        ("value", "size"), [("auto", None), ("100", 100), ("2GB", 2**31), ("1.5k", 1536), ("512 MiB", 2**29)]
    )
    def test_sizes(self, value, size):
        assert parse_bytes("cache_budget", value) == size

    @pytest.mark.parametrize("value", ["", "0", "-1GB", "lots", "1PB", "GB"])
    def test_what_is_none(self, value):
        with pytest.raises(BadOption, match="allowed: auto, or a size such as"):
            parse_bytes("cache_budget", value)

    def test_it_is_an_option(self, llava):
        assert made(VisionLanguageModel, f"hf:{llava}?cache_budget=2GB").sharing.budget() == 2**31
        with pytest.raises(BadOption, match="cache_budget='much'"):
            MODELS.make(f"hf:{llava}?cache_budget=much")

    def test_free_memory_bounds_it(self):
        assert 2**20 < free_bytes(torch.device("cpu")) < 2**44

    def test_it_bounds_what_is_run_at_once(self, llava, monkeypatch):
        """A thousand names in passes of as many nodes as the budget holds."""
        names = tuple(f"{a}{b}{c}" for a in "abcdefghij" for b in "klmnopqrst" for c in "uvwxyzabcd")
        request = ask((picture(),), "What?", kind=Kind.SCORE, continuations=names)
        widths: list[tuple[int, int]] = []
        real = PackedSuffixes._step

        def measured(self, ids, *given):
            prefix = self.prefix
            taken = prefix.length * cached_bytes(prefix.model)
            widths.append((ids.numel(), taken + ids.numel() * prefix.bytes_per_token))
            return real(self, ids, *given)

        monkeypatch.setattr(PackedSuffixes, "_step", measured)
        found = {}
        for budget in ("8MB", "2GB"):
            model = forced(made(VisionLanguageModel, f"hf:{llava}?cache_budget={budget}"), Strategy.PACKED)
            widths.clear()
            found[budget] = scores(answers(model, [request]))
            assert max(taken for _, taken in widths) <= parse_bytes("", budget)
            passes = len(widths)
        assert passes == 1
        assert (found["8MB"] - found["2GB"]).abs().max() < TOLERANCE


#: Its type says nothing of the route.
MKLDNN: Any = torch.backends.mkldnn


class TestMatmul:
    def test_the_route_is_exact_or_not_taken(self):
        usual = MKLDNN.matmul.fp32_precision
        try:
            matmul._measured()
            a, b = torch.randn(64, 512), torch.randn(512, 64)
            truth = a.double() @ b.double()
            assert ((a @ b).double() - truth).abs().max() / truth.abs().max() < matmul.EXACT
        finally:
            MKLDNN.matmul.fp32_precision = usual

    def test_what_rounds_is_put_back(self, monkeypatch):
        usual = MKLDNN.matmul.fp32_precision
        monkeypatch.setattr(matmul, "EXACT", -1.0)
        assert matmul._measured() == "default"
        assert MKLDNN.matmul.fp32_precision == usual

    def test_what_is_faster_is_taken(self, monkeypatch):
        usual = MKLDNN.matmul.fp32_precision
        monkeypatch.setattr(matmul, "EXACT", 1.0)
        times = iter([2.0, 1.0])
        monkeypatch.setattr(matmul, "_seconds", lambda run: next(times))
        try:
            assert matmul._measured() == "onednn"
            assert MKLDNN.matmul.fp32_precision == "bf16"
        finally:
            MKLDNN.matmul.fp32_precision = usual

    def test_it_is_decided_once_for_a_machine(self, monkeypatch, tmp_path):
        """Also if two processes decide at once: the first one does."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        usual = MKLDNN.matmul.fp32_precision
        measured: list[str] = []

        def measure() -> str:
            measured.append("onednn")
            if len(measured) == 2:  # meanwhile, another process has decided
                (file,) = (tmp_path / "snellen").glob("matmul-*")
                file.write_text("default")
            return "onednn"

        monkeypatch.setattr(matmul, "_measured", measure)
        try:
            assert matmul.take_fastest_route() == "onednn"
            assert matmul.take_fastest_route() == "onednn"
            assert MKLDNN.matmul.fp32_precision == "bf16"
            assert len(measured) == 1
            (file,) = (tmp_path / "snellen").glob("matmul-*")
            MKLDNN.matmul.fp32_precision = usual
            monkeypatch.setattr(Path, "exists", lambda self: False)
            assert matmul.take_fastest_route() == "default"
            assert MKLDNN.matmul.fp32_precision == usual
        finally:
            MKLDNN.matmul.fp32_precision = usual

    def test_a_cache_that_cannot_be_written_is_no_error(self, monkeypatch, tmp_path):
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        monkeypatch.setattr(matmul, "_measured", lambda: "default")
        assert matmul.take_fastest_route() == "default"


class TestRemembered:
    """A self-check of a large model is made once for its weights, options and machine."""

    @pytest.fixture
    def checked(self, monkeypatch, tmp_path) -> list[str]:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(strategy, "LARGE", 0)
        checks: list[str] = []
        real = PrefixSharing._check

        def check(sharing: PrefixSharing) -> Findings:
            checks.append(sharing._model.name)
            return real(sharing)

        monkeypatch.setattr(PrefixSharing, "_check", check)
        return checks

    def test_once(self, checked):
        request = ask((picture(),), "What is it?")
        first, second = (made(VisionLanguageModel, "pico:llava") for _ in range(2))
        replies = [asyncio.run(model.respond([request, request])) for model in (first, second)]
        assert checked == ["pico:llava"]
        assert replies[0][0].text == replies[1][0].text
        assert first.sharing.found == second.sharing.found
        assert "remembered" not in first.metadata()["prefix"]
        assert second.metadata()["prefix"]["remembered"] is True
        # What follows from the length of the check's prompts is the same, too.
        assert first.sharing.images == second.sharing.images

    def test_not_for_other_options_or_code(self, checked, monkeypatch):
        for options in ({}, {"max_side": "32"}):
            assert made(VisionLanguageModel, "pico:llava", options).sharing.findings is not None
        assert len(checked) == 2
        monkeypatch.setattr(memory, "_code", lambda: "another")
        assert made(VisionLanguageModel, "pico:llava").sharing.findings is not None
        assert len(checked) == 3

    def test_a_broken_file_and_a_failure_are_not_remembered(self, checked, monkeypatch, tmp_path):
        assert made(VisionLanguageModel, "pico:llava").sharing.findings is not None
        (file,) = (tmp_path / "snellen").glob("self-check-*")
        file.write_text('{"way": "packed"')
        assert made(VisionLanguageModel, "pico:llava").sharing.findings is not None
        assert len(checked) == 2
        file.unlink()

        def fail(_: PrefixSharing) -> Findings:
            raise RuntimeError("out of luck")

        monkeypatch.setattr(PrefixSharing, "_check", fail)
        assert made(VisionLanguageModel, "pico:llava").sharing.way == Strategy.PLAIN
        assert not list((tmp_path / "snellen").glob("self-check-*"))

    def test_small_models_are_checked_every_time(self, checked, monkeypatch):
        monkeypatch.setattr(strategy, "LARGE", memory.LARGE)
        for _ in range(2):
            assert made(VisionLanguageModel, "pico:llava").sharing.findings is not None
        assert len(checked) == 2


# ── end to end ──────────────────────────────────────────────────────────────────────────────────────


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
