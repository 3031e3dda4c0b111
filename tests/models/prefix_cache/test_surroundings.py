"""What surrounds shared prefixes: batches, budgets of memory, products of matrices, what is remembered."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from helpers import made, picture
from sharing import TOLERANCE, answers, forced, ragged, scores
from snellen.errors import BadOption
from snellen.models.base import MODELS
from snellen.models.huggingface import matmul
from snellen.models.huggingface.prefix_cache import memory, scheduler, strategy
from snellen.models.huggingface.prefix_cache.budget import free_bytes, parse_bytes
from snellen.models.huggingface.prefix_cache.inputs import Reader
from snellen.models.huggingface.prefix_cache.packed import PackedSuffixes
from snellen.models.huggingface.prefix_cache.prefill import Prefix, cached_bytes
from snellen.models.huggingface.prefix_cache.self_check import Findings, Strategy
from snellen.models.huggingface.prefix_cache.strategy import PrefixSharing
from snellen.models.huggingface.prefix_cache.trie import common
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.types import Decoding, Kind, ask

pytestmark = pytest.mark.slow


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
        model.sharing.prompt_tokens = 600
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

    @pytest.mark.parametrize(
        ("memory", "chosen", "images"),
        [(80 * 10**9, None, 64), (24 * 10**9, None, 16), (80 * 10**9, 16, 16), (80 * 10**9, 96, 96)],
    )
    def test_a_gpu_with_much_memory_takes_more(self, llava, monkeypatch, memory, chosen, images):
        """Unless the user said how many."""
        model = forced(made(VisionLanguageModel, f"hf:{llava}"), Strategy.PACKED)
        del model.batch_size, model.sharing.images
        if chosen is not None:
            model.batch_size = chosen
        monkeypatch.setattr(VisionLanguageModel, "device", torch.device("cuda"))
        monkeypatch.setattr(strategy, "memory_of", lambda device: memory)
        assert model.sharing.images == model.block == images

    @pytest.mark.parametrize(("worth", "together"), [(9, [6]), (5, [5, 1]), (1, [2, 2, 2]), (0, [2, 2, 2])])
    def test_more_images_than_a_batch_only_where_they_fit(self, llava, monkeypatch, worth, together):
        """Into half of the room."""
        images = [picture(color) for color in ("red", "green", "blue", "white", "black", "gray")]
        requests = [ask((image,), text, max_tokens=5) for image in images for text in ("What?", "Where?")]
        usual = forced(made(VisionLanguageModel, f"hf:{llava}"), Strategy.PACKED)
        usual.load()
        asked = [usual.sharing.question(request).ids for request in requests[:2]]
        each = sum(len(ids) + 5 for ids in asked) - common(asked)
        room = 2 * cached_bytes(usual.decoder) * (worth * each + each // 2)
        model = made(VisionLanguageModel, f"hf:{llava}", {"cache_budget": str(room)})
        model = forced(model, Strategy.PACKED, images=6, batch_size=2)
        counts = []

        def counted(decoder, looks, *more, **options):
            counts.append(len(looks))
            return Prefix(decoder, looks, *more, **options)

        monkeypatch.setattr(scheduler, "Prefix", counted)
        found = answers(model, requests)
        assert counts == together
        assert [reply.text for reply in found] == [reply.text for reply in answers(usual, requests)]


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
        assert not model.sharing.reader.looks

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
        assert len(reader.looks) == 2


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
        real = PackedSuffixes.step_at

        def measured(self, ids, *given):
            prefix = self.prefix
            taken = prefix.length * cached_bytes(prefix.model)
            widths.append((ids.numel(), taken + ids.numel() * prefix.bytes_per_token))
            return real(self, ids, *given)

        monkeypatch.setattr(PackedSuffixes, "step_at", measured)
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
            matmul.measure_route()
            a, b = torch.randn(64, 512), torch.randn(512, 64)
            truth = a.double() @ b.double()
            assert ((a @ b).double() - truth).abs().max() / truth.abs().max() < matmul.EXACT
        finally:
            MKLDNN.matmul.fp32_precision = usual

    def test_what_rounds_is_put_back(self, monkeypatch):
        usual = MKLDNN.matmul.fp32_precision
        monkeypatch.setattr(matmul, "EXACT", -1.0)
        assert matmul.measure_route() == "default"
        assert MKLDNN.matmul.fp32_precision == usual

    def test_what_is_faster_is_taken(self, monkeypatch):
        usual = MKLDNN.matmul.fp32_precision
        monkeypatch.setattr(matmul, "EXACT", 1.0)
        times = iter([2.0, 1.0])
        monkeypatch.setattr(matmul, "best_seconds", lambda run: next(times))
        try:
            assert matmul.measure_route() == "onednn"
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

        monkeypatch.setattr(matmul, "measure_route", measure)
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
        monkeypatch.setattr(matmul, "measure_route", lambda: "default")
        assert matmul.take_fastest_route() == "default"


class TestRemembered:
    """A self-check of a large model is made once for its weights, options and machine."""

    @pytest.fixture
    def checked(self, monkeypatch, tmp_path) -> list[str]:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(strategy, "LARGE", 0)
        checks: list[str] = []
        real = PrefixSharing.check

        def check(sharing: PrefixSharing) -> Findings:
            checks.append("checked")
            return real(sharing)

        monkeypatch.setattr(PrefixSharing, "check", check)
        return checks

    def test_once(self, checked):
        request = ask((picture(),), "What is it?")
        first, second = (made(VisionLanguageModel, "pico:llava") for _ in range(2))
        replies = [asyncio.run(model.respond([request, request])) for model in (first, second)]
        assert len(checked) == 1
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

        monkeypatch.setattr(PrefixSharing, "check", fail)
        assert made(VisionLanguageModel, "pico:llava").sharing.way == Strategy.PLAIN
        assert not list((tmp_path / "snellen").glob("self-check-*"))

    def test_small_models_are_checked_every_time(self, checked, monkeypatch):
        monkeypatch.setattr(strategy, "LARGE", memory.LARGE)
        for _ in range(2):
            assert made(VisionLanguageModel, "pico:llava").sharing.findings is not None
        assert len(checked) == 2
