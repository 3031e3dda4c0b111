"""Decisions and reviews of labels, kept in the workspace for the browser."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from snellen.decisions.decision import Decision
from snellen.storage.documents import Document, Documents, Status
from snellen.storage.store import Store

if TYPE_CHECKING:
    from pydantic import BaseModel

    from snellen.decisions.labels import LabelReview

__all__ = ["decisions_in", "keep_decision", "keep_review", "race_key", "reopen_race", "reviews_in"]


def decisions_in(store: Store) -> Documents:
    """The decisions of a workspace: :meth:`Decision.as_dict`."""
    return Documents(
        store=store,
        folder="decisions",
        what="decision",
        command="snellen choose --help",
        layout=_decision_layout,
    )


def reviews_in(store: Store) -> Documents:
    """The reviews of labels of a workspace: :meth:`snellen.decisions.labels.LabelReview.as_dict`."""
    return Documents(
        store=store,
        folder="labels",
        what="review of labels",
        command="snellen labels --help",
        layout=_review_layout,
    )


def race_key(
    runs: Iterable[str], *, within: float, confidence: float, weighing: str, population: bool
) -> list[Any]:
    """What tells races on the same data apart. (How many images can be read is known only as they are.)"""
    return [sorted(runs), within, round(confidence, 9), weighing, population]


def reopen_race(store: Store, data: str, key: list[Any]) -> None:
    """Say of a race that was interrupted that it goes on."""
    kept = decisions_in(store)
    known = kept.find(data, key)
    if known is not None and known.status == "interrupted":
        kept.keep(known.content, data=data, key=key, status="running")


def keep_decision(
    store: Store, decision: Decision, data: str, status: Status = "finished"
) -> Document | None:
    """Keep a decision, or the state of a race that goes on. The same race again replaces it, but for states
    that are behind what is known of it.
    """
    kept = decisions_in(store)
    key = race_key(
        (arm.run for arm in decision.arms),
        within=decision.within,
        confidence=decision.confidence,
        weighing=decision.weighing,
        population=decision.population,
    )
    content = decision.published().as_dict()
    if status != "finished" and (known := kept.find(data, key)) is not None:
        if known.status == "finished":
            return known
        if known.content["images"] > content["images"]:
            content = dict(known.content)
    return kept.keep(content, data=data, key=key, status=status)


def keep_review(store: Store, review: LabelReview) -> Document | None:
    """Keep what models say about labels. A review by the same runs replaces it."""
    key = [review.fingerprint, sorted(review.runs)]
    return reviews_in(store).keep(review.as_dict(), data=review.data, key=key)


def _decision_layout() -> type[BaseModel]:
    from snellen.decisions.document import DecisionDocument

    return DecisionDocument


def _review_layout() -> type[BaseModel]:
    from snellen.decisions.document import ReviewDocument

    return ReviewDocument
