"""Remember what a self-check found, since it repeats for the same weights on the same machine."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from snellen._util.environment import processor
from snellen._util.files import cache_folder, write_atomic
from snellen._version import __version__
from snellen.models.huggingface.prefix_cache.self_check import BRANCHES, Findings, Strategy

if TYPE_CHECKING:
    import torch

__all__ = ["LARGE", "Memory", "Remembered"]

log = logging.getLogger(__name__)
#: The number of parameters from which a check takes long enough to be remembered.
LARGE = 10_000_000


class Remembered(NamedTuple):
    """What a self-check found.

    Attributes:
        tokens: the length of its prompts.
        splices: whether images can be read apart from the text around them.
    """

    findings: Findings
    tokens: int
    splices: bool


class Memory:
    """The user's cache of self-checks that found an exact strategy.

    What is remembered holds for the same weights, options, versions of packages, our own code, and hardware.

    Args:
        identity: of the model.
        batch_size: of its requests.
    """

    def __init__(self, identity: Mapping[str, Any], device: torch.device, batch_size: int) -> None:
        import torch

        hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
        route: Any = torch.backends.mkldnn
        computed = [hardware, torch.__version__, torch.get_num_threads(), str(route.matmul.fp32_precision)]
        known = [identity, batch_size, computed, __version__, _code()]
        key = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:32]
        self._file = cache_folder() / f"self-check-{key}.json"

    def recall(self) -> Remembered | None:
        """Return what was found before; None if nothing was, or it cannot be read."""
        try:
            held = json.loads(self._file.read_text(encoding="utf-8"))
            findings = Findings(
                Strategy(held["way"]),
                float(held["noise"]),
                {Strategy(way): found for way, found in held["tried"].items()},
                int(held["flips"]),
                int(held["decisions"]),
                held["graphs"],
                mixes=bool(held["mixes"]),
                mixed=held["mixed"],
            )
            return Remembered(findings, int(held["tokens"]), bool(held["splices"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def keep(self, found: Remembered) -> None:
        """Remember an exact strategy; what failed may have failed for a passing reason."""
        findings = found.findings
        if findings.way not in BRANCHES or isinstance(findings.mixed, str):
            return
        held = {**asdict(findings), "tokens": found.tokens, "splices": found.splices}
        try:
            write_atomic(self._file, json.dumps(held))
        except OSError as error:  # nothing can be remembered here
            log.debug("%s: %s", self._file, error)


@cache
def _code() -> str:
    """Return a hash of the code that shares prefixes."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
