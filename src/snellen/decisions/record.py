"""Decisions and reviews of labels, kept in the workspace for the browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from snellen.decisions.decision import Decision
from snellen.storage.documents import Document, Documents, Status
from snellen.storage.store import Store

if TYPE_CHECKING:
    from pydantic import BaseModel

    from snellen.decisions.labels import LabelReview

__all__ = ["decisions_in", "keep_decision", "keep_review", "reviews_in"]


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


def keep_decision(
    store: Store, decision: Decision, data: str, status: Status = "finished"
) -> Document | None:
    """Keep a decision, or the state of a race that goes on. The same race again replaces it."""
    content = decision.published().as_dict()
    race: list[Any] = [sorted(arm.run for arm in decision.arms)]
    race += [content[name] for name in ("within", "confidence", "score", "weighing", "population", "of")]
    return decisions_in(store).keep(content, data=data, key=race, status=status)


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
