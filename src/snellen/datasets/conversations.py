"""Conversations about images for fine-tuning: chat messages, and the layout of LLaVA-Instruct."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from snellen.datasets.base import DATASETS, Dataset, Row
from snellen.datasets.records import JsonLines, Parquet, Records
from snellen.datasets.table import open_image
from snellen.errors import DataError
from snellen.images import Image
from snellen.types import Message, Sample

__all__ = ["Conversations", "are_conversations", "conversations"]

Rows = Sequence[Mapping[str, Any]] | Records

#: Roles, as named by the two layouts.
ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
MARK = "<image>"


@DATASETS.register("conversations", example="conversations:FILE")
def conversations(path: str, *, images: str | None = None, allow_outside: bool = False) -> Conversations:
    """Conversations for fine-tuning, from JSON lines, parquet, or LLaVA-Instruct's JSON.

    A row has ``messages`` and ``images``, or ``prompt`` and ``completion`` (as in TRL). Such rows on the Hub,
    or in a folder, are read by ``hub:``.

    In the first layout, each line is ``{"messages": [{"role": "user", "content": …}, …], "images": [PATH,
    …]}``. A content is a text, where ``<image>`` marks the images' positions (default: the start), or a
    list of parts of type text and image. ``prompt`` and ``completion`` are texts, or lists of messages. In
    LLaVA-Instruct's, the file is a list of ``{"image": PATH, "conversations": [{"from": "human", "value": …},
    {"from": "gpt", …}]}``. Images are optional. What the assistant says before the first question is left
    out.

    Options: ``images``, the folder that image paths are relative to (default: the file's);
    ``allow_outside=true``: image paths may lead out of it.

    Raises:
        DataError: no such file, or a row of another layout.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise DataError(f"{file} is a folder. One in the Hub's format, or of save_to_disk, is hub:{file}")
    root = Path(images).expanduser() if images is not None else file.parent
    return Conversations(f"conversations:{path}", _rows(file), root, allow_outside)


def are_conversations(columns: Sequence[str]) -> bool:
    """Return whether a table with these columns holds conversations.

    >>> are_conversations(["messages", "images"]), are_conversations(["image", "label"])
    (True, False)
    """
    return not {"messages", "conversations"}.isdisjoint(columns) or {"prompt", "completion"} <= set(columns)


def _rows(file: Path) -> Rows:
    """Return the rows of a parquet file, a JSON list, or JSON lines."""
    if not file.is_file():
        raise DataError(f"{file}: no such file.")
    if file.suffix == ".parquet":
        return Parquet(file)
    with file.open("rb") as stream:
        first = stream.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if first != b"[":
        lines = JsonLines(file)
        return list(lines.scan(lines.columns))
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(f"{file}: not JSON ({error}).") from error
    if not all(isinstance(row, dict) for row in content):
        raise DataError(f"{file}: expected a list of objects, as in LLaVA-Instruct.")
    rows: Sequence[Mapping[str, Any]] = content
    return rows


def _listed(turns: Any) -> Any:
    """Return a list of turns; the datasets library gives some as a mapping of lists.

    >>> _listed({"role": ["user", "assistant"], "content": ["?", "!"]})
    [{'role': 'user', 'content': '?'}, {'role': 'assistant', 'content': '!'}]
    """
    if not isinstance(turns, Mapping) or not all(isinstance(cell, list) for cell in turns.values()):
        return turns
    if len({len(cell) for cell in turns.values()}) > 1:
        return turns
    return [dict(zip(turns, cells, strict=True)) for cells in zip(*turns.values(), strict=True)]


def _prompted(row: Mapping[str, Any]) -> list[Any] | None:
    """Return TRL's prompt and completion as messages; None if the row has none."""
    if "prompt" not in row or "completion" not in row:
        return None
    parts = (("user", row["prompt"]), ("assistant", row["completion"]))
    return [
        turn
        for role, part in parts
        for turn in (part if isinstance(part, list) else [{"role": role, "content": part}])
    ]


class Conversations(Dataset):
    """See :func:`conversations`. A sample's ``turns`` hold the whole conversation; its question and
    reference are the first of each, so that it can be evaluated too.
    """

    protocol = "instruct"
    labels = ()

    def __init__(self, name: str, rows: Rows, root: Path | None, outside: bool = False) -> None:
        self.name, self._rows, self._root, self._outside = name, rows, root, outside
        if not len(rows):
            raise DataError(f"{name}: no rows.")
        self._turns(0)  # fail early on a file of another layout

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> Row:
        return Row(f"{index}", None)

    def sample(self, index: int, labels: tuple[str, ...], background: str | None) -> Sample:
        turns = self._turns(index)
        asked = next(turn for turn in turns if turn.role == "user")
        said = next(turn for turn in turns if turn.role == "assistant")
        images = tuple(chain.from_iterable(turn.images for turn in turns))
        return Sample(
            self.row(index).id,
            images,
            question=asked.text,
            references=(said.text,),
            turns=turns,
        )

    def digest(self, index: int) -> str:
        digest = hashlib.sha256(json.dumps(self._rows[index], sort_keys=True, default=repr).encode())
        for turn in self._turns(index):
            for image in turn.images:
                digest.update(image.proven.encode())
        return digest.hexdigest()

    def _turns(self, index: int) -> tuple[Message, ...]:
        row = self._rows[index]
        where = f"{self.name}, row {index}"
        turns = _listed(row.get("messages", row.get("conversations", _prompted(row))))
        if isinstance(turns, Mapping):
            raise DataError(f"{where}: the messages are no list, but {str(turns)[:80]!r}.")
        if not isinstance(turns, list) or not turns:
            raise DataError(
                f"{where}: neither messages nor conversations nor prompt and completion among its keys: "
                f"{', '.join(map(str, row))}. A row is "
                '{"messages": [{"role": …, "content": …}], "images": [PATH]}, or LLaVA-Instruct\'s.'
            )
        cells = row.get("images", row.get("image"))
        cells = [cell for cell in (cells if isinstance(cells, list) else [cells]) if cell not in (None, "")]
        images = [open_image(cell, where, self._root, self._outside) for cell in cells]
        left = iter(images)
        messages = [self._message(turn, left, where) for turn in turns]
        # Some rows of LLaVA's begin with an answer; its authors leave it out, too.
        asked = next((turn for turn in messages if turn.role == "user"), None)
        begun = 0 if asked is None else messages.index(asked)
        messages = [turn for i, turn in enumerate(messages) if i >= begun or turn.role == "system"]
        unplaced = tuple(left)
        if unplaced:  # no position given: before the first question
            if asked is None:
                raise DataError(f"{where}: there is no question.")
            messages[messages.index(asked)] = Message("user", (*unplaced, *asked.content))
        roles = [turn.role for turn in messages if turn.role != "system"]
        if roles[:2] != ["user", "assistant"] or any(a == b for a, b in pairwise(roles)):
            raise DataError(
                f"{where}: user and assistant must alternate; found: {', '.join(roles) or 'no turns'}."
            )
        return tuple(messages)

    def _message(self, turn: Any, left: Iterator[Image], where: str) -> Message:
        said = turn if isinstance(turn, Mapping) else {}
        role = ROLES.get(str(said.get("role", said.get("from"))))
        content = said.get("content", said.get("value"))
        if role is None or not isinstance(content, str | list | Mapping):
            raise DataError(f"{where}: a turn needs a role and a content; found {str(turn)[:60]!r}.")
        parts: list[str | Image] = []
        for piece in [content] if isinstance(content, str) else _listed(content):
            kind = piece.get("type") if isinstance(piece, Mapping) else "text"
            text = piece.get("text") if isinstance(piece, Mapping) else piece
            if kind == "image":
                parts.append(self._next(left, where))
            elif kind == "text" and isinstance(text, str):
                for number, rest in enumerate(text.split(MARK)):
                    parts += [self._next(left, where)] if number else []
                    parts += [rest.strip("\n")] if rest.strip("\n") else []
            else:
                raise DataError(f"{where}: a part must be a text or an image; found {str(piece)[:60]!r}.")
        return Message(role, tuple(parts))  # type: ignore[arg-type]

    def _next(self, left: Iterator[Image], where: str) -> Image:
        image = next(left, None)
        if image is None:
            raise DataError(f"{where}: more image positions than images.")
        return image
