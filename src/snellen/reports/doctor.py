"""What a bug report needs: versions, devices, extras, workspace and providers, without secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from snellen._util.environment import hardware, versions
from snellen._util.redaction import redact
from snellen._util.words import counted
from snellen._version import __version__
from snellen.errors import SnellenError
from snellen.models.remote.providers import PROVIDERS
from snellen.storage.store import Store

__all__ = ["doctor", "doctor_lines"]

#: Extras for users; the others are for developers.
EXTRAS = (
    "local",
    "api",
    "report",
    "metrics",
    "web",
    "diagnose",
    "labels",
    "tune",
    "exchange",
    "postgres",
    "ray",
)


def doctor(workspace: str | None = None) -> dict[str, Any]:
    """Collect facts about this installation.

    Returns:
        JSON: ``snellen``, ``packages`` (versions), ``machine``, ``devices``, ``extras`` (the missing packages
        of each), ``workspace``, ``providers`` (whether their key is set).
    """
    devices = _devices()
    return {
        "snellen": __version__,
        "packages": versions(),
        "machine": hardware(),
        "devices": devices,
        "extras": {extra: missing_packages(extra) for extra in EXTRAS},
        "workspace": _workspace(workspace),
        "providers": {name: bool(os.environ.get(p.key)) for name, p in PROVIDERS.items()},
    }


def doctor_lines(facts: dict[str, Any]) -> Iterator[str]:
    """Format the facts as lines of text."""
    yield f"snellen {facts['snellen']}"
    yield ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    machine = facts["machine"]
    yield f"{machine['system']}, {machine['processor']}"
    yield f"{machine['cores']} cores, {machine['memory_bytes'] / 1e9:.1f} GB of memory"
    yield f"devices: {', '.join(facts['devices'])}"
    yield "extras:"
    for extra, missing in facts["extras"].items():
        if missing:
            yield f"  {extra}: missing {', '.join(missing)} (pip install 'snellen[{extra}]')"
        else:
            yield f"  {extra}: installed"
    yield f"workspace: {facts['workspace']}"
    for is_set, what in ((True, "set"), (False, "not set")):
        names = [name for name, known in facts["providers"].items() if known is is_set]
        yield f"API keys {what}: {', '.join(names) or 'none'}"


def _devices() -> list[str]:
    """Return the devices that torch can use."""
    try:
        import torch
    except ImportError:
        return ["unknown (torch is not installed)"]
    gpus = [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    return [*gpus, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def missing_packages(extra: str) -> list[str]:
    """Return the missing packages of an extra, including those of the extras that it includes."""
    missing: list[str] = []
    for requirement in metadata.requires("snellen") or []:
        specification, _, marker = requirement.partition(";")
        if not re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", marker):
            continue
        package = re.match(r"[\w.-]+", specification)
        assert package is not None
        if package[0] == "snellen":
            for included in re.findall(r"[\w-]+", specification.partition("[")[2].partition("]")[0]):
                missing += missing_packages(included)
            continue
        try:
            metadata.version(package[0])
        except metadata.PackageNotFoundError:
            missing.append(package[0])
    return list(dict.fromkeys(missing))


def _workspace(where: str | None) -> str:
    """Describe the workspace, or the problem with it."""
    try:
        store = Store(where, create=False)
    except SnellenError as error:
        return redact(str(error))
    runs = len(store.list_runs())
    store.close()
    return f"{redact(store.name)}, {counted(runs, 'run')}"
