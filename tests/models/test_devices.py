"""Devices and precisions: what is refused before anything is loaded; when memory runs out."""

from __future__ import annotations

import asyncio
import importlib
import json
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode

import snellen
import tiny
from asking import question
from helpers import made
from snellen.errors import BadOption, ModelError, Stopped
from snellen.models.base import EVERYWHERE, MODELS
from snellen.models.huggingface import pixels
from snellen.models.huggingface.checkpoint import Checkpoint
from snellen.models.huggingface.needs import check_attention
from snellen.models.huggingface.prefix_cache.kv import InPlaceCache
from snellen.models.huggingface.vlm import VisionLanguageModel
from snellen.models.out_of_memory import OutOfMemory


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save("llava", tmp_path_factory.mktemp("llava"))


@pytest.mark.parametrize("device", ["meta", "cpux", "cuda:9", "xpu", "mps"])
def test_a_device_that_is_not_there_is_refused_at_once(folder, device):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("it is there")
    with pytest.raises(BadOption, match=f"device='{device}' is not allowed here .*device=cpu"):
        MODELS.make(f"hf:{folder}?device={device}")


def test_memory_that_runs_out_while_loading(folder, monkeypatch):
    import transformers

    def from_pretrained(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")

    monkeypatch.setattr(transformers.AutoModelForImageTextToText, "from_pretrained", from_pretrained)
    with pytest.raises(OutOfMemory, match="does not fit into the memory of cpu .*-M quantization=4bit"):
        MODELS.make(f"hf:{folder}").load()


def test_a_gpu_that_answers_nothing_more_ends_the_run(folder, monkeypatch):
    model = made(VisionLanguageModel, f"hf:{folder}?prefix=off")

    def fails(requests):
        raise RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(model, "answer", fails)
    with pytest.raises(Stopped, match="device-side assert.*CUDA_LAUNCH_BLOCKING=1"):
        asyncio.run(model.respond([question(), question("Which?")]))


class TestQuantization:
    def checkpoint(self, folder, **options):
        found = Checkpoint.find("hf:x", str(folder), device="cpu")
        return Checkpoint(**{**{k: v for k, v in vars(found).items() if k != "revision"}, **options})

    def test_in_4_bits_it_is_nf4_in_the_models_precision(self, folder, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        options = self.checkpoint(folder, quantization="4bit").quantized()
        assert (options["bnb_4bit_quant_type"], options["bnb_4bit_use_double_quant"]) == ("nf4", True)
        assert options["bnb_4bit_compute_dtype"] is torch.bfloat16
        halved = self.checkpoint(folder, quantization="4bit", dtype="float16").quantized()
        assert halved["bnb_4bit_compute_dtype"] is torch.float16
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
        older = self.checkpoint(folder, quantization="4bit").quantized()
        assert older["bnb_4bit_compute_dtype"] is torch.float16
        assert self.checkpoint(folder, quantization="8bit").quantized() == {"load_in_8bit": True}
        assert self.checkpoint(folder).quantized() == {}


class TestPackages:
    """Stand-ins for packages are empty modules, as nothing beyond their presence is asked."""

    @pytest.fixture
    def install(self, tmp_path, monkeypatch):
        (tmp_path / "packages").mkdir()
        monkeypatch.syspath_prepend(str(tmp_path / "packages"))

        def install(*modules):
            for module in modules:
                (tmp_path / "packages" / module).mkdir(parents=True)
                (tmp_path / "packages" / module / "__init__.py").touch()
            importlib.invalidate_caches()

        return install

    @pytest.mark.parametrize(
        ("method", "packages", "modules"),
        [
            ("gptq", "optimum gptqmodel", ("optimum", "gptqmodel")),
            ("awq", "gptqmodel", ("gptqmodel",)),
            ("torchao", "torchao", ("torchao",)),
            ("compressed-tensors", "compressed-tensors", ("compressed_tensors",)),
        ],
    )
    def test_a_quantized_checkpoint_says_what_reads_it(self, tmp_path, install, method, packages, modules):
        folder = tiny.save("llava", tmp_path / "llava")
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": 128}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match=rf"is quantized \({method}\).*: pip install {packages}$"):
            MODELS.make(f"hf:{folder}")
        install(*modules)
        assert MODELS.make(f"hf:{folder}").name == f"hf:{folder}"

    def test_a_quantized_checkpoint_is_not_quantized_again(self, tmp_path, monkeypatch):
        # Not a stand-in: whatever imported it would stay in this process.
        monkeypatch.setattr("snellen.models.huggingface.checkpoint.require", lambda *_: None)
        folder = tiny.save("llava", tmp_path / "llava")
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "awq", "bits": 4}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match=r"is already quantized \(awq\).*Leave it out"):
            MODELS.make(f"hf:{folder}?quantization=4bit")

    @pytest.mark.parametrize("attn", ["flash_attention_2", "flash_attention_3"])
    def test_flash_attention_needs_a_gpu(self, folder, attn):
        with pytest.raises(BadOption, match=f"attn={attn} needs a GPU, but the device is cpu. Try attn=sdpa"):
            MODELS.make(f"hf:{folder}?attn={attn}&device=cpu")

    @pytest.mark.parametrize(
        ("attn", "package", "module"),
        [
            ("flash_attention_2", "flash-attn", "flash_attn"),
            ("flash_attention_3", "flash-attn-3", "flash_attn_interface"),
        ],
    )
    def test_flash_attention_needs_a_package(self, install, attn, package, module):
        with pytest.raises(BadOption, match=f"not installed: pip install {package} or pip install kernels"):
            check_attention(attn, "cuda:0")
        install(module)
        check_attention(attn, "cuda:0")


class TestPixels:
    def test_what_resizes_images_is_part_of_the_identity(self, folder, tmp_path, monkeypatch):
        from importlib import metadata

        own = Checkpoint.find("hf:x", str(folder)).identity()["pixels"]
        assert own.split()[0] == ("torchvision" if tiny.TORCHVISION else "pillow")
        assert own.split()[1] == metadata.version(own.split()[0])
        monkeypatch.setattr(pixels, "find_spec", lambda name: object())
        monkeypatch.setattr(metadata, "version", lambda name: "1.0")
        config = {"image_processor": {"image_processor_type": "CLIPImageProcessor"}}
        (tmp_path / "processor_config.json").write_text(json.dumps(config))
        assert pixels.pixels_by(tmp_path) == pixels.pixels_by(None) == "torchvision 1.0"
        config["image_processor"]["image_processor_type"] += "Pil"
        (tmp_path / "processor_config.json").write_text(json.dumps(config))
        assert pixels.pixels_by(tmp_path) == "pillow 1.0"

    def test_a_missing_package_is_named_before_weights_are_read(self, folder, monkeypatch):
        import transformers

        def from_pretrained(*_, **__):
            raise ImportError("PixtralImageProcessor requires the Torchvision library")

        monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", from_pretrained)
        monkeypatch.setattr(Checkpoint, "load", lambda *_: pytest.fail("the weights were read"))
        monkeypatch.setattr("snellen.models.huggingface.checkpoint.find_spec", lambda _: None)
        with pytest.raises(ModelError, match="pip install torchvision"):
            MODELS.make(f"hf:{folder}").load()


class OneDevice(TorchFunctionMode):
    """Refuses what a GPU refuses: rows of one device chosen by numbers on another."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.index_select and args[0].device != args[2].device:
            raise RuntimeError("tensors on different devices")
        return function(*args, **(kwargs or {}))


def test_layers_on_another_device_are_indexed_there():
    """The other device is one without values, which need not be there."""
    states = torch.zeros(2, 1, 5, 4, device="meta")
    layer = InPlaceCache(3)
    layer.update(states, states)
    with OneDevice():
        spread = layer.spread(torch.tensor([1, 0, 1]), 2)
        assert (spread.keys.device.type, spread.keys.shape[0]) == ("meta", 3)
        spread.reorder_cache(torch.tensor([0]))
        assert (spread.keys.device.type, spread.keys.shape[0]) == ("meta", 1)


def test_where_a_model_computes(folder):
    """Those that are in different places may answer at the same time."""
    assert MODELS.make(f"hf:{folder}?device=cpu").place == "cpu"
    assert MODELS.make(f"hf:{folder}?device_map=auto").place == EVERYWHERE


def test_figures_of_double_precision_are_computed_on_the_processor():
    """Apple's GPUs have none (``mps``)."""
    package = Path(snellen.__file__).parent
    files = [file for part in ("models", "tuning", "diagnosis") for file in (package / part).rglob("*.py")]
    lines = [(file.name, line) for file in files for line in file.read_text().splitlines()]
    made_there = [
        (name, line.strip()) for name, line in lines if ".double()" in line and ".cpu()" not in line
    ]
    assert {name for name, _ in made_there} <= {"matmul.py"}  # which measures the processor itself
