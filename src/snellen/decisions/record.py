"""Decisions kept in the workspace, for the browser: one JSON file each, replaced when a race goes on."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from snellen._util.files import write_text
from snellen._util.paths import without_folders
from snellen._util.redaction import redact
from snellen.decisions.decision import Decision
from snellen.errors import StoreError, UnknownName
from snellen.storage.store import Store

__all__ = ["StoredDecision", "keep_decision", "stored_decision", "stored_decisions"]

log = logging.getLogger("snellen")
#: The layout of the files.
SCHEMA = 1
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class StoredDecision:
    """A decision in a workspace.

    Attributes:
        created: when the race ended, ISO 8601 in UTC.
        data: the name of the data set.
        document: :meth:`Decision.as_dict`.
    """

    id: str
    created: str
    data: str
    document: Mapping[str, Any]


def keep_decision(store: Store, decision: Decision, data: str) -> StoredDecision | None:
    """Write a decision into the workspace; the same race again replaces it. None if that is impossible, which
    is logged: the decision itself must not be lost for it.
    """
    document = decision.published().as_dict()
    race: list[Any] = [data, sorted(arm.run for arm in decision.arms)]
    race += [document[name] for name in ("within", "confidence", "score", "weighing", "population", "of")]
    digest = hashlib.sha256(json.dumps(race).encode()).hexdigest()[:6]
    words = re.sub(r"[^a-z0-9]+", "-", without_folders(redact(data)).lower()).strip("-")[:60].strip("-")
    id, created = f"choose-{words}-{digest}", datetime.now(UTC).isoformat(timespec="seconds")
    kept = StoredDecision(id=id, created=created, data=without_folders(redact(data)), document=document)
    file = {"schema": SCHEMA, "id": id, "created": created, "data": kept.data, "decision": document}
    try:
        write_text(store.folder / "decisions" / f"{id}.json", json.dumps(file, ensure_ascii=False))
    except StoreError as error:
        log.warning("The decision is not kept for the browser: %s", error)
        return None
    return kept


def stored_decisions(store: Store) -> list[StoredDecision]:
    """Return the decisions of a workspace, the latest first. Files that are none are left out."""
    files = sorted((store.folder / "decisions").glob("*.json"))
    known = [decision for file in files if (decision := _read(store, file.stem)) is not None]
    return sorted(known, key=lambda decision: decision.created, reverse=True)


def stored_decision(store: Store, id: str) -> StoredDecision:
    """Return a decision by its id.

    Raises:
        UnknownName: there is none.
    """
    known = _read(store, id)
    if known is None:
        raise UnknownName("There is no such decision in this workspace. Make one: snellen choose --help")
    return known


def _read(store: Store, id: str) -> StoredDecision | None:
    if not _ID.fullmatch(id):
        return None
    from pydantic import ValidationError

    from snellen.decisions.document import DecisionFile

    try:
        kept = DecisionFile.model_validate_json((store.folder / "decisions" / f"{id}.json").read_bytes())
    except (OSError, ValidationError):
        return None
    if kept.id != id:
        return None
    return StoredDecision(
        id=id, created=kept.created, data=kept.data, document=kept.decision.model_dump(mode="json")
    )
