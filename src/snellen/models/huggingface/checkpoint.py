"""Find a checkpoint's files and version, and load them."""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from snellen._util.files import hash_files
from snellen._util.hub import check_hub
from snellen.errors import BadOption, ModelError, reason_of, require
from snellen.models.builtin import WEIGHTS
from snellen.models.huggingface.image_size import ImageSize
from snellen.models.huggingface.needs import check_attention, check_quantized
from snellen.models.huggingface.pixels import pixels_by, without_torchvision
from snellen.models.huggingface.recorded import recorded
from snellen.models.out_of_memory import OutOfMemory, is_out_of_memory

__all__ = ["Checkpoint", "hash_folder"]

#: Held while weights are read: transformers and torch then replace functions of the whole process, which two
#: threads would not find again as they were.
LOADING = threading.RLock()

#: Files of a local checkpoint that can change an answer.
_HASHED = {".safetensors", ".bin", ".json", ".model", ".txt", ".jinja", ".py", ".tiktoken"}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint with its loading options.

    Attributes:
        name: the model as the user named it.
        path: Hub id or folder.
        revision: the Hub's commit, or a hash of the folder's files.
    """

    name: str
    path: str
    local: bool
    pinned: str | None
    dtype: str
    device: str
    attn: str
    trust_remote_code: bool
    adapter: str | None = None
    quantization: str = "none"
    #: How accelerate spreads the layers over devices; None for a single device.
    device_map: str | None = None
    #: How large images are when the model sees them.
    image_size: ImageSize = field(default_factory=ImageSize)

    @classmethod
    def find(
        cls,
        name: str,
        path: str,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        attn: str = "auto",
        trust_remote_code: bool = False,
        adapter: str | None = None,
        quantization: str = "none",
    ) -> Checkpoint:
        """Find a checkpoint without loading its weights.

        Raises:
            MissingExtra: transformers or torch is not installed.
            ModelError: there is no such checkpoint, or the Hub cannot be reached.
            BadOption: the device does not exist.
        """
        # Long for its options alone.
        require("torch", "local", f"The model {name!r}")
        require("transformers", "local", f"The model {name!r}")
        quiet()
        device = _usable(device)
        check_attention(attn, device)
        if adapter is not None:
            require("peft", "tune", f"adapter={adapter}")
        if quantization != "none":
            require("bitsandbytes", "quantization", f"quantization={quantization}")
        folder = Path(path).expanduser()
        if path and (folder / "adapter_config.json").is_file() and not (folder / "config.json").exists():
            base, commit = _base_of(folder, adapter)
            require("peft", "tune", f"The adapter {path}")
            try:
                return cls.find(
                    name,
                    base,
                    revision=commit or revision,
                    dtype=dtype,
                    device=device,
                    attn=attn,
                    trust_remote_code=trust_remote_code,
                    adapter=str(folder),
                    quantization=quantization,
                )
            except ModelError as error:
                raise ModelError(
                    f"{path} is an adapter on {base}, which is not available ({error}) If it has moved "
                    f"elsewhere, give both: hf:BASE?adapter={path}"
                ) from error
        local = bool(path) and folder.is_dir()
        if local and not (folder / "config.json").is_file():
            raise ModelError(
                f"{path}: not a checkpoint: there is no config.json. Give a folder that "
                "save_pretrained wrote."
            )
        scheme = name.partition(":")[0]
        if not local and (
            not path or path.startswith((".", "/", "~")) or path.count("/") > 1 or os.sep != "/"
        ):
            raise ModelError(
                f"{path or '(nothing)'}: no such folder, and not a Hub id. Write a model as "
                f"{scheme}:ORG/NAME or {scheme}:FOLDER."
            )
        return cls(
            name=name,
            path=str(folder) if local else path,
            local=local,
            pinned=None if local else _hub_commit(path, revision),
            dtype=dtype,
            device=device,
            attn=attn,
            trust_remote_code=trust_remote_code,
            adapter=adapter,
            quantization=quantization,
        )

    @cached_property
    def revision(self) -> str:
        """The commit of a Hub checkpoint; ``sha256:…`` over the files of a folder."""
        return self.pinned or f"sha256:{hash_folder(Path(self.path))}"

    def showing(self, size: ImageSize) -> Checkpoint:
        """Return the checkpoint with limits on images; without any, those with which it was fine-tuned."""
        kept = (
            size
            if size.identity()
            else ImageSize.recorded(self.adapter or (self.path if self.local else None))
        )
        return replace(self, image_size=kept)

    def identity(self) -> Mapping[str, Any]:
        """Return everything about the checkpoint and its options that can change an answer."""
        return {
            # A folder is identified by its contents, wherever it is.
            "checkpoint": None if self.local else self.path,
            "revision": self.revision,
            "dtype": self._dtype_name,
            "attn": self.attn,
            "adapter": self._adapter_revision,
            "quantization": self.quantization,
            **self.image_size.identity(),
            # Its processors and templates affect answers too.
            "transformers": metadata.version("transformers"),
            "pixels": pixels_by(Path(self.path) if self.local else None),
        }

    def config(self) -> Any:
        """The checkpoint's configuration.

        Raises:
            ModelError: transformers cannot read it, or a package for its weights is missing.
        """
        from transformers import AutoConfig

        config = self._pretrained(AutoConfig.from_pretrained, "configuration")
        check_quantized(self.name, config, self.quantization)
        return config

    @cached_property
    def _adapter_revision(self) -> str | None:
        """Return a hash of the adapter's files, or its commit on the Hub; None without an adapter."""
        if self.adapter is None:
            return None
        folder = Path(self.adapter).expanduser()
        if folder.is_dir():
            return f"sha256:{hash_folder(folder)}"
        return f"{self.adapter}@{_hub_commit(self.adapter, None, 'adapter_config.json')}"

    @property
    def _dtype_name(self) -> str:
        """Resolve "auto": float32 on the CPU, where half precision is slow and inaccurate."""
        return "float32" if self.dtype == "auto" and self.device == "cpu" else self.dtype

    def load(self, auto_class: Any) -> Any:
        """Load the model in evaluation mode, on its device.

        Raises:
            ModelError: transformers failed.
        """
        options: dict[str, Any] = {"dtype": self._dtype_name}
        if self.attn != "auto":
            options["attn_implementation"] = self.attn
        if self.quantization != "none":
            from transformers import BitsAndBytesConfig

            options["quantization_config"] = BitsAndBytesConfig(**self.quantized())
            options["device_map"] = self.device
        elif self.device != "cpu" and find_spec("accelerate") is not None:
            options["device_map"] = self.device  # without a copy in main memory
        if self.device_map is not None:
            options["device_map"] = self.device_map
        with LOADING:
            model = self._pretrained(auto_class.from_pretrained, "model", **options)
            if self.adapter is not None:
                model = self._merged(model)
            return (model if "device_map" in options else model.to(self.device)).eval()

    def quantized(self) -> dict[str, Any]:
        """Return bitsandbytes' options. In 4 bits as in QLoRA (Dettmers et al., arXiv 2305.14314): normal
        floats with double quantization, computed in the model's precision.
        """
        import torch

        if self.quantization != "4bit":
            return {f"load_in_{self.quantization}": True} if self.quantization != "none" else {}
        best = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
        return {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": getattr(torch, best if self.dtype == "auto" else self.dtype),
        }

    def _merged(self, model: Any) -> Any:
        """Return the model with its adapter merged into its weights.

        Raises:
            ModelError: the adapter was made for another model.
        """
        from peft import PeftModel

        self._refuse_another_base()
        try:
            with warnings.catch_warnings():
                # peft imports an old name from transformers
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
                # and only warns if the adapter's weights fit nothing: then the model would be the base
                warnings.filterwarnings("error", "Found missing adapter keys")
                return PeftModel.from_pretrained(model, self.adapter).merge_and_unload()
        except Exception as error:
            raise ModelError(
                f"adapter={self.adapter}: cannot be merged into {self.name} ({reason_of(error)})."
            ) from error

    def _refuse_another_base(self) -> None:
        """Refuse an adapter on other weights than those recorded in it."""
        made_on = (recorded(self.adapter).get("base") or {}).get("revision")
        if made_on is not None and made_on != self.revision:
            raise ModelError(
                f"{self.adapter}: this adapter was trained on different weights ({made_on[:19]}…) than "
                f"{self.path} "
                f"has ({self.revision[:19]}…). Use the model that it was trained on, or tune this one."
            )

    def load_processor(self, auto_class: Any) -> Any:
        """Load the checkpoint's processor (or image processor, or tokenizer).

        Raises:
            ModelError: transformers failed.
        """
        without_torchvision()
        return self._pretrained(auto_class.from_pretrained, "processor")

    def _pretrained(self, load: Callable[..., Any], what: str, **options: Any) -> Any:
        try:
            return load(
                self.path,
                revision=self.pinned,
                trust_remote_code=self.trust_remote_code,
                **options,
            )
        except Exception as error:
            if is_out_of_memory(error):
                raise OutOfMemory(
                    f"{self.name} does not fit into the memory of {self.device} ({reason_of(error)}). "
                    "Smaller: -M dtype=bfloat16, -M quantization=4bit (a GPU), or -M device_map=auto "
                    "(several GPUs, and main memory)."
                ) from error
            hint = ""
            if "trust_remote_code" in str(error):
                hint = " It includes its own code. To run it, add: -M trust_remote_code=true"
            for package in ("torchvision", "timm"):
                if package in str(error).lower() and find_spec(package) is None:
                    hint = f" Install what it needs: pip install {package}"
            raise ModelError(
                f"{self.name}: transformers cannot load its {what} ({reason_of(error)}).{hint}"
            ) from error


def _base_of(folder: Path, adapter: str | None) -> tuple[str, str | None]:
    """Return the checkpoint that an adapter belongs to, and its revision.

    Raises:
        BadOption: another adapter on top of it is requested.
        ModelError: the adapter does not name its base model, or names a model with other weights.
    """
    if adapter is not None:
        raise BadOption(
            f"{folder} is itself an adapter, so adapter={adapter!r} is not allowed. Merge it first."
        )
    try:
        said = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        base, commit = said["base_model_name_or_path"], said.get("revision")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder}: its adapter_config.json names no base model ({reason_of(error)})."
        ) from error
    if not base:
        raise ModelError(f"{folder}: its adapter_config.json names no base model.")
    if base.startswith("pico:"):
        base = str(WEIGHTS / base.removeprefix("pico:"))
    sibling = folder / base
    return (str(sibling) if sibling.is_dir() else base), commit


def _hub_commit(path: str, revision: str | None, file: str = "config.json") -> str:
    """Return the commit that a Hub id and revision currently refer to; from the local cache if offline."""
    from transformers.utils.hub import cached_file, extract_commit_hash

    check_hub()
    try:
        config = cached_file(path, file, revision=revision)
        commit: str | None = extract_commit_hash(str(config), None)
    except OSError as error:
        at = f" at revision {revision!r}" if revision else ""
        raise ModelError(
            f"{path}{at}: not found on this disk, and the Hub has no such checkpoint or cannot "
            f"be reached. Check the name. While online, download it with: hf download {path}"
        ) from error
    if commit is None:
        raise ModelError(f"{path}: the Hub's cache does not record the commit.")
    return commit


def _usable(device: str) -> str:
    """Resolve a device: ``auto`` means a GPU if available.

    Raises:
        BadOption: the device does not exist.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        on = torch.device(device)
        if on.type == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("torch finds no usable GPU")
        if on.type == "cuda" and (on.index or 0) >= torch.cuda.device_count():
            raise RuntimeError(f"there are {torch.cuda.device_count()} GPUs, numbered from 0")
        if on.type == "meta":
            raise RuntimeError("it holds no values")
        torch.zeros(1, device=on).cpu()  # a backend that is not built in, or not usable, says so here
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        reason = str(error).splitlines()[0][:200]
        raise BadOption(
            f"device={device!r} is not allowed here ({reason}); try device=cpu or device=auto."
        ) from error
    return device


def hash_folder(folder: Path) -> str:
    """Hash the files of a checkpoint or adapter that can change an answer (SHA-256, hex)."""
    # Next to an adapter there may be checkpoints of its training, and the merged model.
    adapter = (folder / "adapter_config.json").is_file() and not (folder / "config.json").exists()
    files = folder.glob("*") if adapter else folder.rglob("*")
    return hash_files(folder, (file for file in files if file.is_file() and file.suffix in _HASHED))


def quiet() -> None:
    """Keep transformers' progress bars and warnings out of the output."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
