"""Facts about models other than scores: size, license, openness, architecture.

Sources, in order: the user's ``models.toml``, the run's manifest, the checkpoint's ``config.json`` and card
(``README.md``) if they are on this machine, and the name. Nothing is fetched.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from snellen.errors import BadOption, did_you_mean
from snellen.models.builtin import WEIGHTS
from snellen.registry import parse_name

__all__ = ["SIZES", "ModelInfo", "ModelInfoIndex", "size_of"]

#: The size classes that leaderboards filter by: name, from, below (parameters).
SIZES: tuple[tuple[str, float, float], ...] = (
    ("<4B", 0, 4e9),
    ("4-10B", 4e9, 10e9),
    ("10-20B", 10e9, 20e9),
    ("20-40B", 20e9, 40e9),
    (">40B", 40e9, float("inf")),
)
UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Facts about a model; empty or None if unknown.

    Attributes:
        parameters: their number.
        open: whether its weights are available.
        license: as named in its card.
        family: the architecture, or the provider.
        vision, language: the backbones.
    """

    parameters: int | None = None
    open: bool | None = None
    license: str = ""
    family: str = ""
    vision: str = ""
    language: str = ""

    @property
    def size(self) -> str:
        """Its size class."""
        return size_of(self.parameters)


def size_of(parameters: float | None) -> str:
    """Return the size class of a number of parameters.

    >>> size_of(7.6e9), size_of(None)
    ('4-10B', 'unknown')
    """
    if parameters is None:
        return UNKNOWN
    return next(name for name, low, high in SIZES if low <= parameters < high)


class ModelInfoIndex:
    """Facts about models, each looked up once.

    Args:
        path: the user's corrections, one table per model::

            ["openai:gpt-4o"]
            open = false
            license = "proprietary"
            parameters = 200e9

    Raises:
        BadOption: the file contains something else.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._given = _read(path) if path is not None and path.exists() else {}
        self._known: dict[str, ModelInfo] = {}

    def of(self, name: str, identity: Mapping[str, Any], parameters: int | None = None) -> ModelInfo:
        """Return facts about a model.

        Args:
            name: as a user named it; ``models.toml`` ignores its options.
            identity: from a run of the model; empty if unknown.
            parameters: as reported by that run.
        """
        bare = name.partition("?")[0]
        if name not in self._known:
            info = _from_name(name, identity)
            checkpoint = _folder(name, identity)
            if checkpoint is not None:
                from_files: dict[str, Any] = {**_from_config(checkpoint), **_from_card(checkpoint)}
                info = replace(info, **from_files)
            self._known[name] = info
        info = self._known[name]
        more: dict[str, Any] = {
            **({"parameters": parameters} if parameters else {}),
            **self._given.get(bare, {}),
        }
        return replace(info, **{**more, **self._given.get(name, {})})


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadOption(
            f'{path}: cannot be read ({error}). Expected one table per model: ["hf:ORG/NAME"]'
        ) from error
    sorts: dict[str, Any] = {"parameters": (int, float), "open": bool}
    known = [field.name for field in fields(ModelInfo)]
    for name, table in content.items():
        if not isinstance(table, dict):
            raise BadOption(
                f'{path}: {name} = {table!r} is not a table; write ["{name}"] and its keys below.'
            )
        for key, value in table.items():
            if key not in known:
                raise BadOption(
                    f"{path}: {name} has an unknown key {key!r}.{did_you_mean(key, known)} Known keys: "
                    f"{', '.join(known)}."
                )
            if not isinstance(value, sorts.get(key, str)) or (
                key == "parameters" and isinstance(value, bool)
            ):
                wanted = {"parameters": "a number", "open": "true or false"}.get(key, "a text")
                raise BadOption(f"{path}: {name}: {key} must be {wanted}; found {value!r}.")
        if not 0 < table.get("parameters", 1) < 1e15:
            raise BadOption(
                f"{path}: {name}: parameters must be a positive count; found {table['parameters']}."
            )
        if "parameters" in table:
            table["parameters"] = int(table["parameters"])
    return content


def _parsed(name: str) -> tuple[str, str, dict[str, str]]:
    """Split any name into scheme, rest and options."""
    with suppress(BadOption):
        return parse_name(name)
    return name, "", {}


def _from_name(name: str, identity: Mapping[str, Any]) -> ModelInfo:
    """Infer facts from the scheme and name: ``7B`` in it, the provider."""
    scheme, rest, options = _parsed(name)
    last = rest.rstrip("/").rsplit("/", 1)[-1]
    # A separate part of the name: not 8x7B, and not the size of its training set.
    size = re.search(r"(?:^|[-_])(\d+(?:\.\d+)?)([bm])(?=$|[-_.])", last, re.IGNORECASE)
    parameters = None
    if size is not None:
        parameters = int(float(size[1]) * (1e9 if size[2].lower() == "b" else 1e6))
    if scheme in ("hf", "clip", "classifier", "pico"):
        return ModelInfo(parameters=parameters, open=True, family=re.split(r"[-_.\d]", last.lower())[0])
    known = identity.get("address", "//api.openai.com")
    if scheme == "openai" and "//api.openai.com" in options.get("base_url", str(known)):
        # OpenAI's own endpoint: the weights are not public.
        return ModelInfo(parameters=None, open=False, license="proprietary", family="openai")
    return ModelInfo(parameters=parameters, open=None, family=scheme)


def _folder(name: str, identity: Mapping[str, Any]) -> Path | None:
    """Return the local folder of a checkpoint's files, or None."""
    scheme, rest, _ = _parsed(name)
    if scheme == "pico":
        folder = WEIGHTS / rest
        return folder if (folder / "config.json").is_file() else None
    if scheme not in ("hf", "clip", "classifier") or not rest:
        return None
    with suppress(ImportError, ValueError, OSError, RuntimeError):
        if (Path(rest).expanduser() / "config.json").is_file():
            return Path(rest).expanduser()
        from huggingface_hub import try_to_load_from_cache

        revision = identity.get("revision")
        cached = try_to_load_from_cache(rest, "config.json", revision=revision)
        if isinstance(cached, str | os.PathLike):
            return Path(cached).parent
    return None


def _from_config(folder: Path) -> dict[str, str]:
    """Read family and backbones from ``config.json``."""
    with suppress(OSError, ValueError):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        names_found = {"family": str(config.get("model_type") or "")}
        for key, names in (
            ("vision", ("vision_config", "vit_config")),
            ("language", ("text_config", "llm_config")),
        ):
            part: dict[str, Any] = next((config[n] for n in names if isinstance(config.get(n), dict)), {})
            names_found[key] = str(part.get("_name_or_path") or part.get("model_type") or "")
        return {key: value for key, value in names_found.items() if value}
    return {}


def _from_card(folder: Path) -> dict[str, str]:
    """Read the license from the front matter of the card."""
    with suppress(OSError, UnicodeDecodeError):
        text = (folder / "README.md").read_text(encoding="utf-8")
        head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
        for key in ("license_name", "license"):
            match = re.search(rf"^{key}:[ \t]*([\w.+-]+)[ \t]*$", head[1] if head else "", re.MULTILINE)
            if match is not None and match[1] != "other":
                return {"license": match[1]}
    return {}
