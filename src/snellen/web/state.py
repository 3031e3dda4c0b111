"""Shared by all pages: the workspace, the arena if there is one, and page rendering."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from fastapi import Request, UploadFile  # noqa: TC002 - routes are read off annotations
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException

from snellen._util.paths import without_folders
from snellen._version import __version__
from snellen.arena.categories import check_category
from snellen.arena.live import Live
from snellen.arena.recorded import Recorded
from snellen.arena.results import ArenaResults
from snellen.chat.conversation import Playground
from snellen.decisions.record import decisions_in, reviews_in
from snellen.errors import SnellenError
from snellen.eye_test.record import eye_tests_in
from snellen.leaderboards.board import Board
from snellen.metrics.format import detectable, dollars, giga, heading_of, mark, number, short_number
from snellen.reports.page import environment
from snellen.runs.compare import Comparison, compare
from snellen.runs.run import Run
from snellen.storage.store import Store
from snellen.storage.votes import VoteStore
from snellen.suites.published import published, suites_of
from snellen.web.access import ROLE
from snellen.web.digest import Digest, Kept
from snellen.web.images import MAX_UPLOAD, SourceImages, Uploads
from snellen.web.markdown import markdown
from snellen.web.security import Policy, Rates

__all__ = ["AppState", "Counted", "Forbidden", "TooFast", "picture", "site_of"]

VOTER = "snellen_voter"
#: Runs whose samples, and comparisons whose results, stay in memory.
DIGESTS, COMPARISONS = 6, 12
#: The most voters who may begin from one address within a day (an office shares one), and the days for
#: which the hashes of addresses are kept.
NEWCOMERS, KEEP_ADDRESSES = 30, 90
#: Uploads that are in memory at a time: decoding a large one takes hundreds of megabytes.
DECODING = 2


class TooFast(SnellenError):
    """Requests arrive faster than allowed. ``seconds`` is the time to wait."""

    def __init__(self, seconds: float) -> None:
        self.seconds = max(1, round(seconds))
        wait = "a second" if self.seconds == 1 else f"{self.seconds} seconds"
        super().__init__(f"Too many requests. Retry in {wait}.")


class Forbidden(SnellenError):
    """Somebody may not do this."""


@dataclass(frozen=True)
class Counted:
    """Results of votes, the state of the workspace that they are of, when they were computed (UTC), and
    whether newer votes are being counted.
    """

    results: ArenaResults
    stamp: Any
    time: str
    stale: bool = False


@dataclass
class AppState:
    """The app's state."""

    store: Store
    policy: Policy
    arena: Live | Recorded | None = None
    rates: Rates = field(default_factory=Rates)
    play: Playground | None = None
    #: The most voters who may begin from one address within a day.
    newcomers: int = NEWCOMERS
    #: How many days the hashes of voters' addresses are kept.
    keep_addresses: int = KEEP_ADDRESSES

    def __post_init__(self) -> None:
        self.board = Board(self.store, published(), suites_of)
        self.vote_store = VoteStore(self.store)
        self.uploads = Uploads(self.store.folder)
        self.originals = SourceImages(self.store)
        self._digests: Kept[tuple[str, str], Digest] = Kept(DIGESTS)
        self._compared: Kept[tuple[tuple[str, str], ...], list[Comparison]] = Kept(COMPARISONS)
        self._results: dict[tuple[bool, bool, str], Counted] = {}
        self._counting: dict[tuple[bool, bool, str], threading.Lock] = {}
        self._lock = threading.Lock()
        self._decoding = asyncio.Semaphore(DECODING)
        self._templates = environment("The web app", "snellen.web")
        self._templates.filters |= {
            "number": number,
            "dollars": dollars,
            "detectable": detectable,
            "heading": heading_of,
            "mark": mark,
            "giga": giga,
            "short_number": short_number,
            "bare": without_folders,
            "day": lambda date: date[:10],
            "markdown": markdown,
            "part": lambda text: quote(str(text), safe=""),
        }

    def page(self, name: str, status: int = 200, **content: Any) -> HTMLResponse:
        """Render a page from its template."""
        template = self._templates.get_template(f"{name}.html.jinja")
        shared: dict[str, Any] = {"version": __version__, "active": name}
        shared |= {"has_arena": self.arena is not None, "has_play": self.play is not None}
        shared |= {"has_results": self.shows("/runs"), "logged_in": self.policy.token is not None}
        kinds = {"decisions": decisions_in, "labels": reviews_in, "eye_tests": eye_tests_in}
        shared["has"] = {kind: bool(documents(self.store)) for kind, documents in kinds.items()}
        return HTMLResponse(template.render(**{**shared, **content}), status)

    def shows(self, path: str) -> bool:
        """Return whether the visitor may open a path."""
        return self.policy.shows(ROLE.get(), path)

    def known_runs(self, runs: Iterable[str]) -> set[str]:
        """Return those runs that are still there."""
        return set(runs) & {row["id"] for row in self.store.list_runs()}

    def previewed(self, images: Iterable[str]) -> set[str]:
        """Return those hashes of images that have a preview."""
        return {sha256 for sha256 in images if sha256 and self.store.preview_path(sha256).is_file()}

    def limit(self, kind: str, request: Request) -> None:
        """Count an action against the rate limits.

        Raises:
            TooFast: there were too many.
        """
        host = _host(request)
        # Cookies are free to create, so each client address has its own limit too; before
        # logging in, there is only the address.
        voter = host if kind == "login" else self.voter(request) or host
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
        # Whoever waits here holds no thread, and the file stays on the disk.
        async with self._decoding:
            data = await file.read(MAX_UPLOAD + 1)
            return await run_in_threadpool(self.uploads.keep, data, "the upload")

    def results(self, *, style: bool, leaked: bool, category: str = "") -> Counted:
        """Return the results of votes, computed again if votes or runs changed. One request at a time
        computes; meanwhile, others get the last results, if there are any.

        Raises:
            BadOption: there is no such category.
        """
        check_category(category)
        wanted = (style, leaked, category)
        stamp = (self.vote_store.stamp(), tuple(self.store.stamps().values()))
        with self._lock:
            known = self._results.get(wanted)
            turn = self._counting.setdefault(wanted, threading.Lock())
        if known is not None and known.stamp == stamp:
            return known
        if not turn.acquire(blocking=known is None):
            assert known is not None
            return replace(known, stale=True)
        try:
            with self._lock:
                latest = self._results.get(wanted)
            if latest is not None and latest.stamp == stamp:
                return latest
            results = ArenaResults.of(
                self.vote_store, style=style, leaked=leaked, category=category, entries=self.board.entries()
            )
            counted = Counted(results, stamp, f"{datetime.now(UTC):%H:%M:%S}")
            with self._lock:
                self._results[wanted] = counted
        finally:
            turn.release()
        return counted

    def digest(self, run: Run) -> Digest:
        """Return a run's samples as pages list them, read again when the run has changed."""
        shards = run.store.shards(run.id)  # files that workers write do not change the database
        stamp = f"{run.updated} {len(shards.names()) if shards else ''}"
        return self._digests.get((run.id, stamp), lambda: Digest.of(run))

    def compared(self, runs: Sequence[Run]) -> list[Comparison]:
        """Return the comparisons of all pairs of runs, computed again when one has changed.

        Raises:
            UsageError: as for :func:`snellen.runs.compare.compare`.
        """
        key = tuple((run.id, run.updated) for run in runs)
        return self._compared.get(key, lambda: compare(runs, across=True))

    def voter(self, request: Request) -> str | None:
        """Return the salted id of the visitor; None for one who never started a battle."""
        return self.vote_store.voters.voter(request.cookies.get(VOTER, ""))

    def address(self, request: Request) -> str:
        """Return the salted hash of where a request comes from; empty if none are to be kept."""
        if not self.keep_addresses:
            return ""
        return self.vote_store.voters.address(_host(request))

    def newcomer(self, request: Request, response: Response) -> None:
        """Recognize a voter by a cookie that only their browser holds."""
        if (cookie := getattr(request.state, "cookie", None)) is not None:
            response.set_cookie(
                VOTER,
                cookie,
                max_age=365 * 86400,
                httponly=True,
                samesite="lax",
                secure=request.url.scheme == "https",
            )

    def enrolled(self, request: Request) -> str:
        """Return the salted id of the visitor, new or known; see :meth:`newcomer`.

        Raises:
            Forbidden: this arena is by invitation.
            TooFast: too many new voters come from this address.
        """
        known = self.voter(request)
        if known is not None:
            return known
        if self.policy.invites:
            raise Forbidden("This arena is by invitation. Open the link that its host gave you.")
        address = self.address(request)
        if seconds := self.rates.wait("newcomer", _host(request)):
            raise TooFast(seconds)
        if address and self.vote_store.voters.newcomers(address) >= self.newcomers:
            raise Forbidden(
                f"{self.newcomers} people have begun to vote from this address within a day, which is as "
                "many as its host allows. The host can raise that (--voters-per-address), or invite voters "
                "(--invite)."
            )
        return self._welcomed(request, self.vote_store.voters.issue(address))

    def invited(self, request: Request, invite: str) -> None:
        """Make the visitor the voter whom an invitation is for, on whatever browser; see :meth:`newcomer`."""
        self._welcomed(request, self.vote_store.voters.issue(self.address(request), f"invite-{invite}"))

    def _welcomed(self, request: Request, cookie: str) -> str:
        request.state.cookie = cookie
        voter = self.vote_store.voters.voter(cookie)
        assert voter is not None
        return voter


def _host(request: Request) -> str:
    """Return the address that a request comes from."""
    return request.client.host if request.client else ""


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
