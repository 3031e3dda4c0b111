"""The arena's pages: start a battle, ask, vote, undo, reveal the names; and the ranking."""

from __future__ import annotations

import json
from functools import partial
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from snellen.arena.live import MAX_TURNS, Live
from snellen.arena.recorded import Recorded
from snellen.arena.results import ENOUGH, ArenaResults
from snellen.arena.vote_counts import FEW_VOTERS
from snellen.chat.conversation import MAX_QUESTION
from snellen.errors import BadOption, ImageError, UnknownName, UsageError
from snellen.images import Image, is_hash
from snellen.images.sending import as_sent
from snellen.storage.vote_queries import settled_before
from snellen.storage.vote_rows import REASONS, SIDES, Battle, Choice
from snellen.types import Outcome
from snellen.web.images import MAX_UPLOAD, preview
from snellen.web.state import AppState, Counted, Forbidden, picture, site_of

__all__ = ["router"]

router = APIRouter()


def _arena(site: AppState) -> Live | Recorded:
    if site.arena is None:
        raise UnknownName(
            "No arena is running here. Start one: snellen arena --model A --model B, or snellen arena --runs "
            "RUN RUN"
        )
    return site.arena


@router.get("/arena", response_model=None)
def arena_page(request: Request, image: str = "", sample: str = "", invite: str = "") -> Response:
    """Show the start of a battle: an image and a question, or a stored one."""
    site = site_of(request)
    arena = _arena(site)
    if invite:
        if site.policy.role_of(invite) is None:
            raise Forbidden("This invitation is not valid here. Ask the arena's host for another.")
        site.invited(request, invite)
        response = RedirectResponse("/arena", 303)
        site.newcomer(request, response)
        return response
    if image and not site.uploads.has(image):
        raise HTTPException(404, "This image is not available.")
    question = ""
    if image and sample and isinstance(arena, Live) and (known := arena.sample(sample)) is not None:
        question = known.question or ""
    return _begin_page(request, image=image, sample=sample, question=question)


def _begin_page(
    request: Request, status: int = 200, *, image: str, sample: str, question: str, message: str = ""
) -> Response:
    """Show the start of a battle, with the form's contents and any error."""
    site = site_of(request)
    arena = _arena(site)
    voter = site.voter(request)
    return site.page(
        "arena",
        status,
        title="Arena",
        live=isinstance(arena, Live),
        players=len(arena.players),
        has_data=isinstance(arena, Live) and arena.data is not None,
        image=image,
        sample=sample,
        question=question,
        message=message,
        again=bool(voter and site.vote_store.earlier(voter)),
        unfinished=next(iter(site.vote_store.unvoted(voter, arena.source)), None) if voter else None,
        max_upload=MAX_UPLOAD,
        max_question=MAX_QUESTION,
        keep_addresses=site.keep_addresses,
    )


@router.post("/arena/random", response_model=None)
def random_image(request: Request) -> Response:
    """Draw a random image from the data."""
    site = site_of(request)
    arena = _arena(site)
    if not isinstance(arena, Live):
        raise UsageError("This arena shows stored answers. Press Start.")
    site.limit("upload", request)
    image, sample, _ = arena.random_image()
    sha256 = _kept(site, image)
    return RedirectResponse(
        str(request.url_for("arena_page").include_query_params(image=sha256, sample=sample)), 303
    )


@router.post("/arena", response_model=None)
async def begin(
    request: Request,
    question: str = Form(""),
    image: str = Form(""),
    sample: str = Form(""),
    file: UploadFile | None = None,
) -> Response:
    """Start a battle."""
    site = site_of(request)
    arena = _arena(site)
    # Stored answers need no model.
    site.limit("vote" if isinstance(arena, Recorded) else "ask", request)
    voter = await run_in_threadpool(site.enrolled, request)
    if isinstance(arena, Recorded):
        response = await run_in_threadpool(_deal, site, voter)
        site.newcomer(request, response)
        return response
    known = image if site.uploads.has(image) else ""
    try:
        sha256 = await _image(site, request, known, file)
        known, sample = sha256, sample if sha256 == known else ""  # what has arrived is not sent twice
        more = await run_in_threadpool(_about, site, arena, sample, sha256)
        battle = await run_in_threadpool(arena.begin, voter, [sha256], question, more)
    except (ImageError, BadOption) as error:
        typed = {"image": known, "sample": sample, "question": question}
        return await run_in_threadpool(partial(_begin_page, request, 400, message=str(error), **typed))
    arena.attend(battle)
    response = RedirectResponse(f"/arena/battles/{battle.id}", 303)
    site.newcomer(request, response)
    return response


def _deal(site: AppState, voter: str) -> Response:
    """Lead to a voter's next battle of stored answers."""
    assert isinstance(site.arena, Recorded)
    battle = site.arena.deal(voter)
    if battle is None:
        return site.page("arena_done", title="Nothing left to vote on")
    return RedirectResponse(f"/arena/battles/{battle.id}", 303)


def _about(site: AppState, arena: Live, sample: str, sha256: str) -> dict[str, Any]:
    """Return what the data says about a sample, if the image is indeed its own: a form may name any."""
    known = arena.sample(sample) if sample else None
    if known is None or not known.images or _kept(site, known.images[0]) != sha256:
        return {}
    truth = known.label or " / ".join(known.references)
    return {"sample": sample, **({"truth": truth} if truth else {})}


def _kept(site: AppState, image: Image) -> str:
    """Store an image of the data as an upload; return its hash."""
    return site.uploads.keep(as_sent(image, ("PNG", "JPEG", "WEBP"))[1], "the image")


async def _image(site: AppState, request: Request, known: str, file: UploadFile | None) -> str:
    """Return the hash of the image in a form, uploaded or named.

    Raises:
        ImageError: it is missing, invalid or too large.
    """
    if sha256 := await site.uploaded(request, file) or known:
        return sha256
    raise ImageError("There is no image. Choose a PNG, JPEG or WebP file, or draw a random image.")


@router.post("/arena/again", response_model=None)
def again(request: Request) -> Response:
    """Repeat an earlier battle with sides swapped."""
    site = site_of(request)
    arena = _arena(site)
    site.limit("vote", request)
    voter = site.voter(request)
    battle = site.vote_store.again(voter, arena.rng) if voter else None
    if battle is None:
        raise UsageError("None of your battles is old enough to be repeated. Vote on more first.")
    return RedirectResponse(f"/arena/battles/{battle.id}", 303)


async def _mine(request: Request, id: str) -> tuple[AppState, str, Battle]:
    site = site_of(request)
    voter = await run_in_threadpool(site.voter, request)
    return site, voter or "", await run_in_threadpool(site.vote_store.battle, id, voter or "")


@router.get("/arena/battles/{id}", response_model=None)
async def battle_page(request: Request, id: str) -> Response:
    """Show a battle. Questions left unanswered when a server stopped are resumed."""
    site, _, battle = await _mine(request, id)
    if isinstance(site.arena, Live):
        site.arena.attend(battle)
    return await run_in_threadpool(_show, site, battle)


def _show(site: AppState, battle: Battle) -> Response:
    live = battle.source == Live.source and isinstance(site.arena, Live)
    return site.page(
        "battle",
        title="Battle",
        battle=battle,
        sides=list(zip(SIDES, ("A", "B"), strict=True)),
        answered=battle.answered,
        failed=battle.failed,
        live=live,
        has_data=live and isinstance(site.arena, Live) and site.arena.data is not None,
        takes_more=live
        and battle.vote is None
        and not battle.failed
        and not battle.repeats
        and len(battle.turns) < MAX_TURNS,
        streams=live and isinstance(site.arena, Live) and site.arena.stream,
        takes_new_answers=live and isinstance(site.arena, Live) and site.arena.takes_new_answers(battle),
        reasons=REASONS,
        undone_until=settled_before(),
        choices={
            Choice.LEFT: "A is better",
            Choice.RIGHT: "B is better",
            Choice.TIE: "A tie",
            Choice.BOTH_BAD: "Both are bad",
        },
        ok=Outcome.OK,
        max_question=MAX_QUESTION,
    )


@router.get("/arena/battles/{id}/state", response_model=None)
async def battle_state(request: Request, id: str) -> Response:
    """Return whether both models have answered, for a waiting page."""
    site, _, battle = await _mine(request, id)
    if isinstance(site.arena, Live):
        site.arena.attend(battle)
    return JSONResponse({"answered": battle.answered})


@router.get("/arena/images/{sha256}", response_model=None)
def arena_image(request: Request, sha256: str) -> Response:
    """Return an uploaded image. Those of runs are shown within their battles only."""
    if not is_hash(sha256):
        raise HTTPException(404)
    return picture(site_of(request).uploads.read(sha256))


@router.get("/arena/battles/{id}/images/{number}", response_model=None)
def battle_image(request: Request, id: str, number: int) -> Response:
    """Return an image of a battle at the largest available size."""
    site = site_of(request)
    battle = site.vote_store.battle(id, site.voter(request) or "")
    if not 0 < number <= len(battle.images):
        raise HTTPException(404, "This battle has no such image.")
    sha256 = battle.images[number - 1]
    image = site.originals.of_battle(battle, sha256) or site.uploads.read(sha256)
    if image is None and (small := preview(site.store, sha256)) is not None:
        image = ("image/jpeg", small)
    return picture(image)


@router.post("/arena/battles/{id}/turns", response_model=None)
async def further(request: Request, id: str, question: str = Form("")) -> Response:
    """Ask both models a further question."""
    site, voter, battle = await _mine(request, id)
    site.limit("ask", request)
    if not isinstance(site.arena, Live) or battle.source != Live.source:
        raise UsageError("This battle shows stored answers, so its models cannot be asked anything.")
    await run_in_threadpool(site.arena.ask, battle, question)
    site.arena.attend(await run_in_threadpool(site.vote_store.battle, id, voter))
    return RedirectResponse(f"/arena/battles/{id}", 303)


@router.post("/arena/battles/{id}/votes", response_model=None)
def vote(request: Request, id: str, choice: str = Form(""), reason: list[str] = Form([])) -> Response:  # noqa: B008 - read, not called
    """Vote; the names are revealed later, so that the vote can still be undone."""
    site = site_of(request)
    site.limit("vote", request)
    site.vote_store.vote(id, site.voter(request) or "", choice, reason, address=site.address(request))
    return RedirectResponse(f"/arena/battles/{id}", 303)


@router.post("/arena/battles/{id}/skip", response_model=None)
def skip(request: Request, id: str) -> Response:
    """Pass a battle over, and go on to another."""
    site = site_of(request)
    site.limit("vote", request)
    voter = site.voter(request) or ""
    site.vote_store.skip(id, voter)
    if not isinstance(site.arena, Recorded):
        return RedirectResponse("/arena", 303)
    return _deal(site, voter)


@router.post("/arena/battles/{id}/regenerate", response_model=None)
async def regenerate(request: Request, id: str) -> Response:
    """Let both models answer the same question anew."""
    site, _, battle = await _mine(request, id)
    site.limit("ask", request)
    if not isinstance(site.arena, Live) or battle.source != Live.source:
        raise UsageError("This battle shows stored answers, so its models cannot be asked anything.")
    again = await run_in_threadpool(site.arena.regenerate, battle)
    site.arena.attend(again)
    return RedirectResponse(f"/arena/battles/{again.id}", 303)


@router.get("/arena/battles/{id}/answers/{turn}/{side}", response_model=None)
async def streamed(request: Request, id: str, turn: int, side: str) -> Response:
    """Stream an answer as plain text, at the pace of both."""
    site, _, battle = await _mine(request, id)
    pieces = site.arena.watch(battle, turn, side) if isinstance(site.arena, Live) else None
    if pieces is None:  # complete, or nothing that was asked
        said = getattr(battle.turns[turn], side) if side in SIDES and 0 <= turn < len(battle.turns) else None
        if said is None:
            raise HTTPException(404, "There is no such answer.")
        return PlainTextResponse(said.text)
    return StreamingResponse(pieces, media_type="text/plain; charset=utf-8")


@router.post("/arena/battles/{id}/undo", response_model=None)
def undo(request: Request, id: str) -> Response:
    """Undo a vote before the names are revealed."""
    site = site_of(request)
    site.limit("vote", request)
    site.vote_store.undo(id, site.voter(request) or "")
    return RedirectResponse(f"/arena/battles/{id}", 303)


@router.post("/arena/battles/{id}/reveal", response_model=None)
def reveal(request: Request, id: str) -> Response:
    """Reveal the names."""
    site = site_of(request)
    site.vote_store.reveal(id, site.voter(request) or "")
    return RedirectResponse(f"/arena/battles/{id}", 303)


@router.get("/ranking", response_model=None)
def ranking_page(request: Request, style: str = "", leaks: str = "", category: str = "") -> Response:
    """Show the ranking."""
    site = site_of(request)
    counted = _results(site, style, leaks, category)
    results = counted.results
    return site.page(
        "ranking",
        title="Ranking",
        counted=counted,
        results=results,
        ranking=results.ranking,
        quality=results.quality,
        style=bool(style),
        leaks=bool(leaks),
        few=FEW_VOTERS,
        enough=ENOUGH,
        scale=_scale(results),
        address=urlencode(
            {"style": "1" if style else "", "leaks": "1" if leaks else "", "category": category}
        ),
    )


def _results(site: AppState, style: str, leaks: str, category: str) -> Counted:
    """Compute the results with the options in the URL.

    Raises:
        BadOption: an invalid option.
    """
    for name, value in (("style", style), ("leaks", leaks)):
        if value not in ("", "1"):
            raise BadOption(f"{name}={value!r} is not allowed; allowed: 1, or no value.")
    return site.results(style=bool(style), leaked=bool(leaks), category=category)


def _scale(results: ArenaResults) -> dict[str, Any]:
    """Map ratings to positions on a line of 160 units."""
    if results.ranking is None:
        return {}
    low = min(standing.low for standing in results.ranking.standings)
    high = max(standing.high for standing in results.ranking.standings)
    width = max(high - low, 1.0)

    def at(rating: float) -> float:
        return round(4 + 152 * (rating - low) / width, 1)

    return {
        standing.model: (at(standing.low), at(standing.rating), at(standing.high))
        for standing in results.ranking.standings
    }


@router.get("/ranking.json", response_model=None)
def ranking_json(request: Request, style: str = "", leaks: str = "", category: str = "") -> Response:
    """Return the ranking as JSON."""
    results = _results(site_of(request), style, leaks, category).results
    text = json.dumps(results.as_dict(), indent=1, ensure_ascii=False)
    return Response(text, headers={"content-type": "application/json; charset=utf-8"})
