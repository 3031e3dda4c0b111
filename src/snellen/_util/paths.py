"""Remove folders from what is published: they name people and their machines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

__all__ = ["bare_name", "bare_names", "is_local", "without_folders", "without_paths"]

#: A path that begins at the root, a drive or the home folder, up to its last part.
_CHARACTERS = r"[^/\\\s\"'<>|:;,?&=()]"
_ABSOLUTE = re.compile(
    r"(?<![\w/.~<>\\-])(?:~?/(?!/)|[A-Za-z]:[\\/](?!/))"
    rf"(?:{_CHARACTERS}+(?: {_CHARACTERS}+)*[/\\])*(?={_CHARACTERS})"
)


def is_local(name: str) -> bool:
    """Return whether a name, such as ``folder:photos`` or ``hf:/models/mine``, has a path on this machine.

    >>> is_local("hub:org/name"), is_local("chart:shapes"), is_local("csv:~/table.csv")
    (False, False, True)
    """
    scheme, _, rest = name.partition("?")[0].partition(":")
    rest = rest.partition("@")[0] or rest
    if not rest or scheme == "hub":
        return _absolute(rest)
    return scheme == "folder" or _absolute(rest) or Path(rest).exists()


def _absolute(path: str) -> bool:
    return path.startswith(("/", "~", "./", "../", ".\\")) or PureWindowsPath(path).is_absolute()


def without_folders(text: str) -> str:
    r"""Return a text in which each path that begins at the root, a drive or home is only its last part.

    >>> without_folders("folder:/home/ann/my photos?split=val: 3 .psd (in 'a/b')")
    "folder:my photos?split=val: 3 .psd (in 'a/b')"
    >>> without_folders("https://example.com/a/b and C:\\Users\\ann\\x.csv, 3/4, and/or")
    'https://example.com/a/b and x.csv, 3/4, and/or'
    """
    return _ABSOLUTE.sub("", text.replace("file:///", "/"))


def bare_name(name: str) -> str:
    """Return the name of a model or data set in which a path on this machine is only its last part, whatever
    the folders are called.

    >>> bare_name("folder:/home/ann/Ann's photos (old)/2020?split=val"), bare_name("hf:ORG/NAME")
    ('folder:2020?split=val', 'hf:ORG/NAME')
    >>> bare_name("hf:ORG/NAME?adapter=/home/ann's/lora&dtype=bfloat16"), bare_name("a, b")
    ('hf:ORG/NAME?adapter=lora&dtype=bfloat16', 'a, b')
    """
    scheme, colon, rest = name.partition(":")
    path, mark, options = rest.partition("?")
    if colon and _absolute(path) and not path.startswith(("//", ".")):
        path = _last(path)
    parts = [
        key + equals + (_last(value) if _absolute(value) else value) for key, equals, value in _pairs(options)
    ]
    name = f"{scheme}{colon}{path}{mark}{'&'.join(parts)}"
    return without_folders(name)


def _last(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _pairs(options: str) -> list[tuple[str, str, str]]:
    return [part.partition("=") for part in options.split("&")]


def bare_names(names: Iterable[str]) -> dict[str, str]:
    """Return each name's :func:`bare_name`, told apart by a number where several are alike.

    >>> bare_names(["hf:/a/final", "hf:/b/final", "pico:clip"])
    {'hf:/a/final': 'hf:final', 'hf:/b/final': 'hf:final (2)', 'pico:clip': 'pico:clip'}
    """
    known: dict[str, str] = {}
    for name in dict.fromkeys(names):
        bare = shown = bare_name(name)
        number = 1
        while shown in known.values():
            number += 1
            shown = f"{bare} ({number})"
        known[name] = shown
    return known


def without_paths(value: Any) -> Any:
    """Return JSON whose texts are :func:`without_folders`."""
    if isinstance(value, str):
        return without_folders(value)
    if isinstance(value, Mapping):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    return value
