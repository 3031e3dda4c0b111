"""Shared by all pages: the workspace, the arena if there is one, and page rendering."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from fastapi import Request, UploadFile  # noqa: TC002 - routes are read off annotations
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException

from snellen._version import __version__
from snellen.arena.live import Live
from snellen.arena.recorded import Recorded
from snellen.arena.results import ArenaResults
from snellen.chat.conversation import Playground
from snellen.errors import SnellenError
from snellen.leaderboards.board import Board
from snellen.metrics.format import detectable, dollars, giga, heading_of, mark, number, short_number
from snellen.reports.page import environment
from snellen.storage.store import Store
from snellen.storage.votes import VoteStore
from snellen.suites.published import published, suites_of
from snellen.web.images import MAX_UPLOAD, SourceImages, Uploads
from snellen.web.markdown import markdown
from snellen.web.security import Policy, Rates

__all__ = ["AppState", "TooFast", "picture", "site_of"]

VOTER = "snellen_voter"


class TooFast(SnellenError):
    """Requests arrive faster than allowed. ``seconds`` is the time to wait."""

    def __init__(self, seconds: float) -> None:
        self.seconds = max(1, round(seconds))
        wait = "a second" if self.seconds == 1 else f"{self.seconds} seconds"
        super().__init__(f"Too many requests. Retry in {wait}.")


@dataclass
class AppState:
    """The app's state."""

    store: Store
    policy: Policy
    arena: Live | Recorded | None = None
    rates: Rates = field(default_factory=Rates)
    play: Playground | None = None

    def __post_init__(self) -> None:
        self.board = Board(self.store, published(), suites_of)
        self.vote_store = VoteStore(self.store)
        self.uploads = Uploads(self.store.folder)
        self.originals = SourceImages(self.store)
        self._results: dict[tuple[bool, bool], tuple[Any, ArenaResults]] = {}
        self._templates = environment("The web app", "snellen.web")
        self._templates.filters |= {
            "number": number,
            "dollars": dollars,
            "detectable": detectable,
            "heading": heading_of,
            "mark": mark,
            "giga": giga,
            "short_number": short_number,
            "day": lambda date: date[:10],
            "markdown": markdown,
            "part": lambda text: quote(str(text), safe=""),
        }

    def page(self, name: str, status: int = 200, **content: Any) -> HTMLResponse:
        """Render a page from its template."""
        template = self._templates.get_template(f"{name}.html.jinja")
        shared: dict[str, Any] = {"version": __version__, "active": name}
        shared |= {"has_arena": self.arena is not None, "has_play": self.play is not None}
        return HTMLResponse(template.render(**{**shared, **content}), status)

    def limit(self, kind: str, request: Request) -> None:
        """Count an action against the rate limits.

        Raises:
            TooFast: there were too many.
        """
        host = request.client.host if request.client else ""
        # Cookies are free to create, so each client address has its own limit too; before
        # logging in, there is only the address.
        voter = host if kind == "login" else request.cookies.get(VOTER) or host
        for sort, who in ((kind, voter), ("all", host)):
            if seconds := self.rates.wait(sort, who):
                raise TooFast(seconds)

    async def uploaded(self, request: Request, file: UploadFile | None) -> str | None:
        """Return the hash of the image uploaded in a form; None if there is none.

        Raises:
            ImageError: it is invalid or too large.
            TooFast: as for :meth:`limit`.
        """
        if file is None or not file.filename:
            return None
        self.limit("upload", request)
        data = await file.read(MAX_UPLOAD + 1)
        return await run_in_threadpool(self.uploads.keep, data, "the upload")

    def results(self, *, style: bool, leaked: bool) -> ArenaResults:
        """Return the results of votes, recomputed if votes or runs changed."""
        stamp = (self.vote_store.stamp(), tuple(self.store.stamps().values()))
        known = self._results.get((style, leaked))
        if known is None or known[0] != stamp:
            results = ArenaResults.of(
                self.vote_store, style=style, leaked=leaked, entries=self.board.entries()
            )
            known = self._results[style, leaked] = (stamp, results)
        return known[1]

    def voter(self, request: Request) -> str | None:
        """Return the salted id of the visitor; None for one who never started a battle."""
        secret = request.cookies.get(VOTER)
        return self.vote_store.voter(secret) if secret else None

    def newcomer(self, request: Request, response: Response) -> None:
        """Recognize a voter by a cookie that only their browser holds."""
        secret = request.state.secret
        if request.cookies.get(VOTER) != secret:
            response.set_cookie(
                VOTER,
                secret,
                max_age=365 * 86400,
                httponly=True,
                samesite="strict",
                secure=request.url.scheme == "https",
            )

    def enrolled(self, request: Request) -> str:
        """Return the salted id of the visitor, new or known; see :meth:`newcomer`."""
        request.state.secret = request.cookies.get(VOTER) or secrets.token_urlsafe(24)
        return self.vote_store.voter(request.state.secret)


def picture(image: tuple[str, bytes] | None) -> Response:
    """Return an image that a browser may cache, since the content under a hash never changes.

    Raises:
        HTTPException: there is none.
    """
    if image is None:
        raise HTTPException(404, "This image is not available.")
    kind, data = image
    return Response(
        data, headers={"content-type": kind, "cache-control": "private, max-age=86400, immutable"}
    )


def site_of(request: Request) -> AppState:
    """Return the app's state for a request."""
    site: AppState = request.app.state.site
    return site
