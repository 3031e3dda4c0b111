"""What servers need: written whole, refused early, and read back by the tools that it is for."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from snellen.errors import BadOption, Stopped, UsageError
from snellen.models.pico import WEIGHTS
from snellen.tuning.deployment import FORMATS, check_formats, deploy
from snellen.tuning.tuning import Tuning


@pytest.fixture
def out(tmp_path) -> Path:
    """An output folder with merged weights."""
    out = tmp_path / "My photos, tuned"
    shutil.copytree(WEIGHTS / "llava", out / "merged")
    return out


def llama_cpp(folder: Path, program: str) -> Path:
    folder.mkdir()
    (folder / "convert_hf_to_gguf.py").write_text(f"import pathlib, sys\n{program}")
    return folder


#: As llama.cpp's does, it puts a prefix before the name of an encoder's file.
CONVERTS = """
words = sys.argv[1:]
assert pathlib.Path(words[0], "config.json").is_file()
file = pathlib.Path(words[words.index("--outfile") + 1])
if "--mmproj" in words:
    file = file.with_name("mmproj-" + file.name)
file.write_text(" ".join(words[3:]) or "decoder")
"""


def test_vllm(out, tmp_path):
    """The script starts vLLM with the merged weights, wherever the folder lies, and passes options on."""
    told = deploy("vllm", out / "merged", out)
    moved = out.rename(tmp_path / "moved here")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "vllm").write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    (tmp_path / "bin" / "vllm").chmod(0o755)
    script = moved / told.files[0]
    assert script.stat().st_mode & stat.S_IXUSR
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    said = subprocess.run(
        [script, "--port", "9"], env={"PATH": path}, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    config = json.loads((WEIGHTS / "llava" / "config.json").read_text())
    most = config["text_config"]["max_position_embeddings"]
    name = "my-photos-tuned"
    assert said == [
        "serve", f"{moved}/merged", "--served-model-name", name, "--max-model-len", str(most), "--port", "9"
    ]  # fmt: skip
    assert told.evaluate == f"snellen run --model vllm:{name}"


def test_ollama(out):
    told = deploy("ollama", out / "merged", out)
    first, *others = (out / "Modelfile").read_text().splitlines()
    assert first == "FROM ./merged"
    assert "PARAMETER temperature 0" in others
    assert told.evaluate == "snellen run --model ollama:my-photos-tuned"
    shutil.copy(out / "merged" / "config.json", out)
    deploy("ollama", out, out)  # all weights were trained
    assert (out / "Modelfile").read_text().startswith("FROM .\n")


def test_gguf(out, tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMA_CPP", str(llama_cpp(tmp_path / "llama.cpp", CONVERTS)))
    told = deploy("gguf", out / "merged", out)
    assert {path.name: path.read_text() for path in (out / "gguf").iterdir()} == {
        "model.gguf": "decoder",
        "mmproj.gguf": "--mmproj",
    }
    assert "--mmproj" in told.serve
    monkeypatch.setenv("LLAMA_CPP", str(llama_cpp(tmp_path / "broken", "sys.exit('again?')")))
    assert deploy("gguf", out / "merged", out) == told  # what is there is not converted again


def test_a_model_that_the_converter_does_not_know(out, tmp_path, monkeypatch):
    program = "print('INFO: loading', file=sys.stderr); sys.exit('ERROR: Model X is not supported')"
    monkeypatch.setenv("LLAMA_CPP", str(llama_cpp(tmp_path / "llama.cpp", program)))
    with pytest.raises(Stopped, match=r"the model itself is complete.*ERROR: Model X is not supported"):
        deploy("gguf", out / "merged", out)
    assert not list((out / "gguf").iterdir())


def test_refused_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    with pytest.raises(BadOption, match="'onnx' is not allowed; allowed: vllm, ollama, gguf"):
        check_formats(["vllm", "onnx"])
    with pytest.raises(UsageError, match=r"\$LLAMA_CPP is not set.*git clone"):
        check_formats(["gguf"])
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    with pytest.raises(UsageError, match=r"convert_hf_to_gguf\.py does not exist"):
        check_formats(["gguf"])
    check_formats([name for name in FORMATS if name != "gguf"])
    given = {"data": "chart:shapes", "out": tmp_path / "out", "export": ["vllm"]}
    for model, recipe in (("pico:llava", "head"), ("pico:clip", "lora")):
        with pytest.raises(BadOption, match="--export"):
            Tuning(model=model, recipe=recipe, **given)
