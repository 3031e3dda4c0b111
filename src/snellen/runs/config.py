"""A whole run in one YAML file, whose keys are those of a suite's part and of a plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from snellen._util.files import write_text
from snellen._util.redaction import redact
from snellen._util.yaml import read_model
from snellen.errors import BadOption
from snellen.runs.filters import Filters

__all__ = ["RunConfig"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What to evaluate.

    Attributes:
        filters: by name, as in :class:`snellen.runs.filters.Filters`.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    models: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    data_names: tuple[str, ...] = ()
    filters: Mapping[str, Any] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)
    data_options: Mapping[str, Any] = field(default_factory=dict)
    protocol_options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    batch_size: int | None = None
    max_cost: float | None = None
    max_concurrency: int | None = None

    def __post_init__(self) -> None:
        Filters.refuse_unknown(self.filters)

    @classmethod
    def read(cls, path: Path) -> RunConfig:
        """Read a file.

        Raises:
            DataError: it is missing, not YAML, or has an unknown key; the message names the line.
        """
        return read_model(path, cls, "run")

    def override(self, other: RunConfig) -> RunConfig:
        """Return this with what ``other`` sets: lists and numbers replace, options and filters are added."""
        usual = RunConfig()
        changes: dict[str, Any] = {}
        for option in fields(RunConfig):
            given = getattr(other, option.name)
            if isinstance(given, Mapping):
                changes[option.name] = {**getattr(self, option.name), **given}
            elif given != getattr(usual, option.name):
                changes[option.name] = given
        return replace(self, **changes)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of :class:`snellen.runs.plan.Plan`.

        Raises:
            BadOption: no model, or no data set.
        """
        for name, flag in (("models", "--model"), ("data", "--data")):
            if not getattr(self, name):
                raise BadOption(f"At least one {flag} is required, or a file with {name}: --config run.yaml")
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        filters = {**self.filters, "classes": tuple(self.filters.get("classes", ()))}
        return {**values, "filters": Filters(**filters)}

    def write(self, path: Path) -> None:
        """Write what is set, without keys.

        Raises:
            StoreError: it cannot be written.
        """
        import yaml

        usual = asdict(RunConfig())
        values = {name: value for name, value in asdict(self).items() if value != usual[name]}
        plain = json.loads(json.dumps(values))  # lists instead of tuples
        write_text(path, redact(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)))
