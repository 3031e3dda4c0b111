"""Read YAML files as dataclasses: safely loaded, validated by pydantic, errors with line numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from snellen.errors import DataError, did_you_mean

__all__ = ["read_model"]

T = TypeVar("T")

#: pydantic's error types for an unknown key.
UNEXPECTED = ("unexpected_keyword_argument", "extra_forbidden")


def read_model(path: Path, kind: type[T], what: str, **given: Any) -> T:
    """Read a YAML file as a dataclass. Keys without a value count as absent.

    Args:
        kind: a dataclass; nested ones and ``__post_init__`` (by ``ValueError``) are validated too.
        what: the kind of file, in messages ("suite").
        given: fields that the file does not contain.

    Raises:
        DataError: the file is missing, not YAML, or does not fit; the message names the line and the field.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read as a {what} ({error}).") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: a {what} must be a mapping of keys to values.")
    from pydantic import ValidationError

    values = {key: value for key, value in content.items() if value is not None}
    try:
        made: T = _adapter(cast("Any", kind)).validate_python({**values, **given})
    except ValidationError as error:
        problems = error.errors()
        # A misspelled key comes first: it explains the missing one.
        problem = next((p for p in problems if p["type"] in UNEXPECTED), problems[0])
        absent = [str(p["loc"][-1]) for p in problems if p["type"] in ("missing", "missing_argument")]
        place = [key for key in problem["loc"] if not str(key).startswith(("function-", "dataclass"))]
        line = _line(yaml.compose(text, yaml.SafeLoader), place)
        raise DataError(f"{path}, line {line}: {_explain(problem, place, kind, given, absent)}") from error
    return made


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _line(node: Any, place: Sequence[Any]) -> int:
    """Return the line (from 1) of the deepest part of a path that exists."""
    line: int = node.start_mark.line + 1
    for key in place:
        value = node.value
        if isinstance(key, int) and isinstance(value, list) and key < len(value):
            node = value[key]
        elif isinstance(value, list) and value and isinstance(value[0], tuple):
            found = next((pair for pair in value if pair[0].value == str(key)), None)
            if found is None:
                break
            node = found[1]
            line = found[0].start_mark.line + 1
            continue
        else:
            break
        line = node.start_mark.line + 1
    return line


def _explain(
    problem: Mapping[str, Any],
    place: Sequence[Any],
    kind: Any,
    given: Mapping[str, Any],
    absent: Sequence[str],
) -> str:
    """Explain the problem, its place, and what is allowed."""
    where = "".join(f"[{key + 1}]" if isinstance(key, int) else f".{key}" for key in place).lstrip(".")
    if problem["type"] in UNEXPECTED:
        known = [name for name in _fields_at(kind, place[:-1]) if name not in given]
        return f"unknown key {where!r}.{did_you_mean(str(place[-1]), known)} Allowed: {', '.join(known)}."
    if problem["type"] in ("missing", "missing_argument"):
        if place and isinstance(place[-1], int):
            return f"{where.rpartition('[')[0]} has {place[-1]} cells, which are too few."
        inside = "".join(f" in {name}" for name in [where.rpartition(".")[0]] if name)
        return f"it lacks {', '.join(sorted(absent))}{inside}."
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}" if where else message
    return f"{where}: {message[0].lower()}{message[1:]}; found {problem['input']!r}."


def _fields_at(kind: Any, place: Sequence[Any]) -> list[str]:
    """Return the fields of the dataclass at a path within a dataclass."""
    import typing

    for key in place:
        if isinstance(key, int) or not is_dataclass(kind):
            continue
        hint = typing.get_type_hints(kind).get(str(key))
        options = [hint, *typing.get_args(hint)]
        kind = next((option for option in options if is_dataclass(option)), None)
    return [field.name for field in fields(kind)] if is_dataclass(kind) else []
