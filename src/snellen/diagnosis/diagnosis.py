"""A diagnosis: its parts in order, a verdict in plain sentences, and a report."""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from snellen._util.paths import bare_name
from snellen._version import __version__
from snellen.diagnosis.analysis import Analysis, Finding, Skipped, Subject
from snellen.errors import SnellenError, UnknownName, UsageError, did_you_mean, reason_of

__all__ = ["Diagnosis", "diagnose", "parts", "references_of"]


log = logging.getLogger(__name__)


@cache
def parts() -> dict[str, Analysis]:
    """Return all parts by name, in order."""
    package = import_module("snellen.diagnosis.analyses")
    modules = (import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__))
    analyses: list[Analysis] = [module.PART for module in modules]
    return {part.name: part for part in sorted(analyses, key=lambda part: part.order)}


@dataclass(kw_only=True)
class Diagnosis:
    """The result of a diagnosis.

    Attributes:
        left_out: skipped parts, and why.
        missing: unavailable models, and why.
    """

    model: str
    data: str
    n: int
    findings: list[Finding] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def claims(self) -> tuple[int, int]:
        """How many of the study's findings hold here, and how many were tested."""
        known = [finding.shows for finding in self.findings if finding.shows is not None]
        return sum(known), len(known)

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "model": self.model,
            "data": self.data,
            "n": self.n,
            "findings": [finding.as_dict() for finding in self.findings],
            "left_out": self.left_out,
            "missing": self.missing,
        }

    def html(self) -> str:
        """Render one self-contained page.

        Raises:
            MissingExtra: jinja2 is not installed.
        """
        from datetime import UTC, datetime

        from snellen.reports.page import environment

        template = environment("Writing a report").get_template("diagnosis.html.jinja")
        date = datetime.now(UTC).strftime("%d %B %Y")
        return str(template.render(diagnosis=self, version=__version__, date=date))

    def write(self, path: Path) -> None:
        """Write the page."""
        from snellen.exchange.export import write_text

        write_text(path, self.html())


def chosen(only: Sequence[str] = ()) -> list[Analysis]:
    """Return parts by name; all if no names are given.

    Raises:
        UnknownName: no such part.
    """
    known = parts()
    names = [name.strip() for item in only for name in item.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise UnknownName(f"Unknown part {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}.")
    return [part for name, part in known.items() if not names or name in names]


def references_of(model: str) -> tuple[str, ...]:
    """Return the default references: for a built-in model, the built-in CLIP and classifier."""
    return ("pico:clip", "pico:classifier") if model.startswith("pico:") else ()


def diagnose(
    case: Subject,
    only: Sequence[str] = (),
    watch: Callable[[Analysis], None] | None = None,
    into: Diagnosis | None = None,
) -> Diagnosis:
    """Diagnose a model part by part. Finished runs are reused. A part that fails is skipped with its reason,
    and the others continue.

    Args:
        only: names of parts.
        watch: called with each part before it starts.
        into: collects findings as they arrive, so that an interruption keeps them.

    Raises:
        UnknownName: no such part.
        Stopped: a model gave up, or the budget is used up.
    """
    diagnosis = (
        into
        if into is not None
        else Diagnosis(model=bare_name(case.model), data=bare_name(case.data), n=len(case.selection))
    )
    for part in chosen(only):
        if watch is not None:
            watch(part)
        try:
            diagnosis.findings.append(part.run(case))
        except (Skipped, UsageError) as reason:
            diagnosis.left_out[part.name] = str(reason).rstrip(".")
        except SnellenError:
            raise
        except Exception as error:
            log.exception("%s", part.name)
            diagnosis.left_out[part.name] = reason_of(error)
        diagnosis.missing = dict(case.missing)
    return diagnosis
