"""Documents in a workspace, for the browser: decisions, reviews of labels, eye tests. One JSON file each."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from snellen._util.environment import is_gone, this_process
from snellen._util.files import write_text
from snellen._util.paths import bare_name
from snellen._util.redaction import redact, storable
from snellen.errors import StoreError, UnknownName
from snellen.storage.store import Store

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["Document", "Documents", "Status"]

log = logging.getLogger("snellen")
#: The layout of the files.
SCHEMA = 1
#: ``running``: more is to come; ``interrupted``: it would have been, but its process has ended.
Status = Literal["running", "interrupted", "finished"]
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Document:
    """A document in a workspace.

    Attributes:
        created: when it was last written, ISO 8601 in UTC.
        data: the name of the data set, without folders of this machine.
        content: as its layout says.
    """

    id: str
    created: str
    data: str
    content: Mapping[str, Any]
    status: Status = "finished"


@dataclass(frozen=True, kw_only=True)
class Documents:
    """The documents of a kind in a workspace.

    Args:
        folder: its name in the workspace.
        what: a document, in words.
        command: makes one.
        layout: returns the pydantic model of the content: what pages may rely on.
    """

    store: Store
    folder: str
    what: str
    command: str
    layout: Callable[[], type[BaseModel]]

    def keep(
        self, content: Mapping[str, Any], *, data: str, key: Any, status: Status = "finished"
    ) -> Document | None:
        """Write a document; one with the same data and key is replaced. None if that is impossible, which is
        logged: what was computed must not be lost for it.

        Args:
            data: the name of the data set.
            key: JSON that tells documents about the same data apart.
            status: ``running`` if this process will write it again.
        """
        document = Document(
            id=self._id(data, key),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            data=storable(bare_name(redact(data))),
            content=content,
            status=status,
        )
        file = {"schema": SCHEMA, **vars(document), "process": this_process()}
        try:
            text = storable(json.dumps(file, ensure_ascii=False, allow_nan=False))
            self._file().model_validate_json(text)
            write_text(self._path(document.id), text)
        except (StoreError, TypeError, ValueError) as error:
            log.warning("The %s is not kept for the browser: %s", self.what, str(error).splitlines()[0])
            return None
        return document

    def find(self, data: str, key: Any) -> Document | None:
        """Return the document with a key; None if there is none."""
        return self._read(self._id(data, key))

    @staticmethod
    def _id(data: str, key: Any) -> str:
        digest = hashlib.sha256(json.dumps([data, key], sort_keys=True).encode()).hexdigest()[:8]
        words = re.sub(r"[^a-z0-9]+", "-", bare_name(redact(data)).lower()).strip("-")[:60].strip("-")
        return f"{words or 'data'}-{digest}"

    def _file(self) -> Any:
        from snellen.storage.document_file import DocumentFile

        return DocumentFile[self.layout()]  # type: ignore[misc]

    def all(self) -> list[Document]:
        """Return all of them, the latest first. Files that are none are left out."""
        files = sorted(self._path("").parent.glob("*.json"))
        known = [document for file in files if (document := self._read(file.stem)) is not None]
        return sorted(known, key=lambda document: document.created, reverse=True)

    def get(self, id: str) -> Document:
        """Return a document by its id.

        Raises:
            UnknownName: there is none.
        """
        document = self._read(id)
        if document is None:
            raise UnknownName(f"There is no such {self.what} in this workspace. Make one: {self.command}")
        return document

    def __bool__(self) -> bool:
        return self._path("").parent.is_dir()

    def _path(self, id: str) -> Path:
        return self.store.folder / self.folder / f"{id}.json"

    def _read(self, id: str) -> Document | None:
        if not _ID.fullmatch(id):
            return None
        from pydantic import ValidationError

        try:
            file = self._file().model_validate_json(self._path(id).read_bytes())
        except (OSError, ValidationError):
            return None
        if file.id != id:
            return None
        gone = file.status == "running" and is_gone(file.process)
        return Document(
            id=id,
            created=file.created,
            data=file.data,
            content=file.content.model_dump(mode="json"),
            status="interrupted" if gone else file.status,
        )
