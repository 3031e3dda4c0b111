"""Decoding steps at fixed addresses: what a GPU can record, and what is checked before it does."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import tiny
from helpers import made, picture
from sharing import WAYS, answers, of_each_kind, ragged
from snellen.models.huggingface.prefix_cache import graphs as module
from snellen.models.huggingface.prefix_cache.budget import parse_bytes
from snellen.models.huggingface.prefix_cache.graphs import Graphs, Steps
from snellen.models.huggingface.prefix_cache.packed import PackedSuffixes
from snellen.models.huggingface.prefix_cache.prefill import CannotShare, cached_bytes
from snellen.models.huggingface.prefix_cache.rows import BatchedSuffixes
from snellen.models.huggingface.prefix_cache.scheduler import Scheduler
from snellen.models.huggingface.prefix_cache.self_check import Strategy
from snellen.models.huggingface.prefix_cache.strategy import PrefixSharing
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.types import ask

pytestmark = pytest.mark.slow

PACKED = [name for name, way in WAYS.items() if way is Strategy.PACKED and name != "mllama"]
#: What reads from the device, or whose result's shape depends on values: neither can be recorded.
WAITS = ("_local_scalar_dense", "lift_fresh", "nonzero", "masked_select", "unique", "item")


class Counted(TorchDispatchMode):
    """Counts operators."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def counted(monkeypatch) -> list[Counter[str]]:
    """The operators of each step."""
    found: list[Counter[str]] = []
    real = Steps.run

    def counting(self):
        with Counted() as mode:
            real(self)
        found.append(mode.calls)

    monkeypatch.setattr(Steps, "run", counting)
    return found


@pytest.fixture
def repeating(monkeypatch) -> None:
    """As on a GPU, but issued one by one."""
    unrecorded = property(lambda self: "" if self._graphs else "graphs=off")
    monkeypatch.setattr(PrefixSharing, "unrecorded", unrecorded)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save("llava", tmp_path_factory.mktemp("llava"))


class TestStep:
    @pytest.mark.usefixtures("repeating")
    @pytest.mark.parametrize("name", of_each_kind(PACKED))
    def test_nothing_waits_for_the_device(self, name, tmp_path, counted):
        model = made(VisionLanguageModel, f"hf:{tiny.save(name, tmp_path)}")
        answers(model, ragged()[:6])
        assert len(counted) > 4
        for calls in counted:
            assert not {call for call in calls if call in WAITS}, calls
        # A step is the same each time. About 45 operators a layer, and as many around them.
        assert len({sum(calls.values()) for calls in counted}) == 1
        layers = model.decoder.config.get_text_config(decoder=True).num_hidden_layers
        assert sum(counted[0].values()) < 100 * (layers + 1)

    @pytest.mark.usefixtures("repeating")
    def test_nothing_moves(self, folder, monkeypatch):
        model = made(VisionLanguageModel, f"hf:{folder}")
        places: list[tuple[int, ...]] = []
        real = Steps.run

        def watched(self):
            real(self)
            buffers = [self._tokens, self._positions, self._seeing, self._seen, self._columns, self._visible]
            buffers += [states for layer in self._cache.layers for states in (layer.keys, layer.values)]
            places.append(tuple(buffer.data_ptr() for buffer in buffers))

        answers(model, ragged(colors=("red",))[:6])
        monkeypatch.setattr(Steps, "run", watched)
        for color in ("blue", "white"):
            answers(model, ragged(colors=(color,))[:6])
        assert len(places) > 8
        assert len(set(places)) == 1, "images that are asked alike are answered by the same steps"

    def test_tokens_are_read_once_a_step(self, folder, monkeypatch):
        model = made(VisionLanguageModel, f"hf:{folder}")
        texts = [r.text for r in answers(model, ragged(colors=("red",))[:6])]
        steps, read = [], []
        real, tolist = Steps.step, torch.Tensor.tolist
        monkeypatch.setattr(PrefixSharing, "unrecorded", "")
        model = made(VisionLanguageModel, f"hf:{folder}")
        assert isinstance(model.sharing.findings.graphs, float)

        def stepped(self):
            with monkeypatch.context() as inside:
                inside.setattr(torch.Tensor, "tolist", lambda self: read.append(1) or tolist(self))
                steps.append(1)
                return real(self)

        monkeypatch.setattr(Steps, "step", stepped)
        assert [r.text for r in answers(model, ragged(colors=("red",))[:6])] == texts
        assert len(read) == len(steps) > 2


class TestCheck:
    @pytest.mark.usefixtures("repeating")
    @pytest.mark.parametrize("name", of_each_kind(PACKED))
    def test_what_is_right_is_used(self, name, tmp_path):
        model = made(VisionLanguageModel, f"hf:{tiny.save(name, tmp_path)}")
        found = model.sharing.findings
        assert found.way is Strategy.PACKED
        assert isinstance(found.graphs, float)
        assert model.metadata()["prefix"]["graphs"] == found.graphs
        assert model.sharing.scheduler.graphs is not None

    @pytest.mark.usefixtures("repeating")
    @pytest.mark.parametrize("fault", ["leak", "place", "column", "cannot"])
    def test_what_is_wrong_is_not(self, folder, fault, monkeypatch):
        plain = [r.text for r in answers(made(VisionLanguageModel, f"hf:{folder}?prefix=off"), ragged())]
        begin = Steps.begin

        def faulty(self, *given):
            begin(self, *given)
            if fault == "leak":
                self._visible.fill_(True)
            elif fault == "place":
                self._positions += 1
            elif fault == "column":
                self._columns -= 1
            else:
                raise CannotShare("not today")

        monkeypatch.setattr(Steps, "begin", faulty)
        model = made(VisionLanguageModel, f"hf:{folder}")
        found = model.sharing.findings
        assert found.way is Strategy.PACKED, "what is packed is right all the same"
        assert ("not today" if fault == "cannot" else "recorded steps differ by") in found.graphs
        assert model.sharing.scheduler.graphs is None
        assert [r.text for r in answers(model, ragged())] == plain

    def test_a_processor_records_nothing(self, folder):
        model = made(VisionLanguageModel, f"hf:{folder}")
        assert model.sharing.findings.graphs == "only a GPU repeats recorded steps"
        assert model.sharing.scheduler.graphs is None

    def test_only_a_gpu_with_whole_weights_records(self, folder, monkeypatch):
        model = made(VisionLanguageModel, f"hf:{folder}")
        model.load()
        monkeypatch.setattr(VisionLanguageModel, "device", torch.device("cuda"))
        assert model.sharing.unrecorded == ""
        monkeypatch.setattr(model.decoder, "hf_quantizer", object(), raising=False)
        assert model.sharing.unrecorded == "not tried with quantized weights"

    @pytest.mark.usefixtures("repeating")
    def test_they_can_be_turned_off_and_no_answer_depends_on_it(self, folder):
        model = made(VisionLanguageModel, f"hf:{folder}?graphs=off")
        assert model.sharing.findings.graphs == "graphs=off"
        assert model.sharing.scheduler.graphs is None
        assert model.identity() == made(VisionLanguageModel, f"hf:{folder}").identity()


class TestGraphs:
    @pytest.mark.usefixtures("repeating")
    def test_without_room_for_them_steps_are_taken_one_by_one(self, folder, monkeypatch):
        model = made(VisionLanguageModel, f"hf:{folder}")
        texts = [r.text for r in answers(model, ragged())]
        monkeypatch.setattr(Graphs, "steps", lambda self, *given: None)
        model = made(VisionLanguageModel, f"hf:{folder}")
        assert model.sharing.findings.graphs == "steps are taken one by one"
        assert [r.text for r in answers(model, ragged())] == texts

    @pytest.mark.usefixtures("repeating")
    def test_they_take_a_part_of_the_budget_at_most(self, folder, monkeypatch):
        made_of: list[Any] = []
        real = Graphs.steps

        def watched(self, *given):
            made_of.append(real(self, *given))
            return made_of[-1]

        monkeypatch.setattr(Graphs, "steps", watched)
        for budget, fits in (("64MB", True), ("2MB", True), ("200KB", False)):
            made_of.clear()
            model = made(VisionLanguageModel, f"hf:{folder}?cache_budget={budget}")
            answers(model, ragged())
            assert any(made_of) == fits
            if fits:
                held = model.sharing.scheduler.graphs.tokens_held * cached_bytes(model.decoder)
                assert 0 < held <= (parse_bytes("", budget) + held) / 4

    @pytest.mark.usefixtures("repeating")
    def test_the_last_shapes_are_kept_until_memory_runs_out(self, folder, monkeypatch):
        monkeypatch.setattr(module, "KEPT", 2)
        model = made(VisionLanguageModel, f"hf:{folder}")
        image = (picture(),)
        for count in (2, 3, 4):
            answers(model, [ask(image, f"Is it a cat? {i}", max_tokens=5) for i in range(count)])
        graphs = model.sharing.scheduler.graphs
        assert [key[1] for key in graphs.kept] == [3, 4]
        model.sharing.scheduler.free()
        assert not graphs.kept
        answers(model, [ask(image, f"Is it a cat? {i}", max_tokens=5) for i in range(2)])
        assert graphs.kept
        model.sharing.clear()
        assert not graphs.kept

    def test_the_strategy_in_rows_has_none(self, folder):
        model = made(VisionLanguageModel, f"hf:{folder}")
        assert Scheduler(model.decoder, BatchedSuffixes, 1, lambda: 2**30, graphs=True).graphs is None
        assert Scheduler(model.decoder, PackedSuffixes, 1, lambda: 2**30, graphs=True).graphs is not None


@pytest.mark.usefixtures("repeating")
def test_one_step_is_not_worth_it(folder, monkeypatch):
    model = made(VisionLanguageModel, f"hf:{folder}")
    taken = []
    real = Steps.step
    monkeypatch.setattr(Steps, "step", lambda self: taken.append(1) or real(self))
    _ = model.sharing.findings
    taken.clear()
    for most in (1, 2, 3):
        answers(model, [ask((picture(),), f"Is it a {thing}?", max_tokens=most) for thing in ("cat", "dog")])
        assert bool(taken) == (most == 3)
