"""What servers need in addition to weights to run a tuned model: scripts, a Modelfile, GGUF files."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snellen._util.files import write_atomic
from snellen.errors import BadOption, Stopped, UsageError

__all__ = ["FORMATS", "Deployment", "check_formats", "deploy"]

#: The environment variable with the folder of llama.cpp's sources, whose converter writes GGUF files.
LLAMA_CPP, CONVERTER = "LLAMA_CPP", "convert_hf_to_gguf.py"
#: The end of a converter's output that an error shows.
LINES = 4


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """How to serve a tuned model.

    Attributes:
        format: a key of :data:`FORMATS`.
        files: what was written, in the output folder.
        serve: the command that serves it; ``evaluate``: the one that evaluates it there.
    """

    format: str
    files: tuple[str, ...]
    serve: str
    evaluate: str


def check_formats(formats: Sequence[str]) -> None:
    """Check formats, and that what writes them is there, before anything is trained.

    Raises:
        BadOption: an unknown format.
        UsageError: the converter of GGUF files is missing.
    """
    for name in formats:
        if name not in FORMATS:
            raise BadOption(f"--export {name!r} is not allowed; allowed: {', '.join(FORMATS)}.")
    if "gguf" in formats:
        converter()


def deploy(format: str, weights: Path, out: Path) -> Deployment:
    """Write what a server needs, unless it is there.

    Args:
        format: a key of :data:`FORMATS`.
        weights: the folder of the whole model: ``out`` or a folder in it.
        out: the output folder of a fine-tuning.

    Raises:
        Stopped: the converter of GGUF files failed.
    """
    return FORMATS[format](weights, out)


def _vllm(weights: Path, out: Path) -> Deployment:
    """Write a script that starts vLLM. The weights already have the names that it reads."""
    name = _name(out)
    words = ["vllm", "serve", '"$here"' if weights == out else f'"$here/{weights.relative_to(out)}"']
    words += ["--served-model-name", name]
    if (most := _context(weights)) is not None:
        words += ["--max-model-len", str(most)]
    script = out / "serve-vllm.sh"
    write_atomic(
        script,
        "#!/bin/sh\n# Serve the tuned model with vLLM on port 8000. Further options are passed on.\n"
        f'here=$(dirname "$0")\nexec {" ".join(words)} "$@"\n',
    )
    script.chmod(0o755)
    return Deployment(
        format="vllm",
        files=(script.name,),
        serve=shlex.quote(str(script)),
        evaluate=f"snellen run --model vllm:{name}",
    )


def _ollama(weights: Path, out: Path) -> Deployment:
    """Write a Modelfile, from which Ollama imports the weights of the architectures that it knows.

    Source: https://docs.ollama.com/import and https://docs.ollama.com/modelfile.
    """
    name = _name(out)
    lines = [f"FROM {'.' if weights == out else f'./{weights.relative_to(out)}'}"]
    lines += ["# As in an evaluation: the most likely answer.", "PARAMETER temperature 0"]
    if (most := _context(weights)) is not None:
        lines.append(f"PARAMETER num_ctx {most}")
    write_atomic(out / "Modelfile", "\n".join(lines) + "\n")
    made = f"ollama create {name} -f {shlex.quote(str(out / 'Modelfile'))}"
    return Deployment(
        format="ollama",
        files=("Modelfile",),
        serve=made,
        evaluate=f"snellen run --model ollama:{name}",
    )


def _gguf(weights: Path, out: Path) -> Deployment:
    """Write the decoder and the encoder with its projector as two GGUF files, by llama.cpp's converter."""
    folder, name = out / "gguf", _name(out)
    parts: dict[str, list[str]] = {"model.gguf": [], "mmproj.gguf": ["--mmproj"]}
    for file, options in parts.items():
        if not (folder / file).exists():
            _convert(weights, folder / file, options)
    decoder, encoder = (shlex.quote(str(folder / file)) for file in parts)
    return Deployment(
        format="gguf",
        files=tuple(f"gguf/{file}" for file in parts),
        serve=f"llama-server -m {decoder} --mmproj {encoder} --alias {name} --port 8080",
        evaluate=f"snellen run --model llama-cpp:{name}",
    )


#: By the word of ``--export``.
FORMATS: Mapping[str, Callable[[Path, Path], Deployment]] = {
    "vllm": _vllm,
    "ollama": _ollama,
    "gguf": _gguf,
}


def converter() -> Path:
    """Return llama.cpp's converter.

    Raises:
        UsageError: it is not there.
    """
    given = os.environ.get(LLAMA_CPP)
    path = Path(given or ".") / CONVERTER
    if not given or not path.is_file():
        why = f"${LLAMA_CPP} is not set" if not given else f"{path} does not exist"
        raise UsageError(
            f"--export gguf needs the sources of llama.cpp, whose {CONVERTER} writes the files, and {why}. "
            "Get them: git clone https://github.com/ggml-org/llama.cpp && pip install gguf sentencepiece && "
            f"export {LLAMA_CPP}=$PWD/llama.cpp"
        )
    return path


def _convert(weights: Path, file: Path, options: Sequence[str]) -> None:
    """Run the converter; the file is there whole or not at all.

    Raises:
        Stopped: it failed.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"part-{file.name}")
    command = [sys.executable, str(converter()), str(weights), "--outfile", str(part), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # Of an encoder, the converter puts a prefix before the name that it is given.
    written = next(iter(sorted(file.parent.glob(f"*{part.name}"))), None)
    if done.returncode or written is None:
        said = [line for line in done.stderr.splitlines() if line.strip()][-LINES:]
        raise Stopped(
            f"llama.cpp could not convert {weights} (the model itself is complete). It said: "
            + " / ".join(said or ["nothing"])
        )
    written.replace(file)


def _name(out: Path) -> str:
    """Return a name for servers, of letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^\w.-]+", "-", out.resolve().name.lower(), flags=re.ASCII).strip("-.") or "tuned"


def _context(weights: Path) -> int | None:
    """Return the most tokens that the decoder has positions for; None if its configuration has no number."""
    config: dict[str, Any] = json.loads((weights / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config") or config
    most = text.get("max_position_embeddings")
    return most if isinstance(most, int) else None
