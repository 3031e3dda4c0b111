"""The playground's pages: chat with one model, or several side by side, with streaming answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Form, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from snellen.chat.conversation import MAX_QUESTION, MAX_TURNS, Conversation, Playground
from snellen.errors import BadOption, Conflict, ImageError, UsageError
from snellen.types import Outcome
from snellen.web.images import MAX_UPLOAD
from snellen.web.state import AppState, picture, site_of

__all__ = ["router"]

router = APIRouter()
#: The most concurrent readers of streams; others wait until one ends.
WATCHERS = CapacityLimiter(200)


def _play(site: AppState) -> Playground:
    if site.play is None:
        raise UsageError("No model is loaded for chat. Start with one: snellen play MODEL")
    return site.play


def _page(
    request: Request, status: int = 200, *, image: str = "", question: str = "", message: str = ""
) -> Response:
    site = site_of(request)
    play = _play(site)
    return site.page(
        "play",
        status,
        title="Play",
        names=play.names,
        talk=None,
        image=image,
        question=question,
        message=message,
        max_upload=MAX_UPLOAD,
        max_question=MAX_QUESTION,
    )


@router.get("/play", response_model=None)
def play_page(request: Request) -> Response:
    """Show the start of a conversation."""
    return _page(request)


@router.post("/play", response_model=None)
async def begin(
    request: Request, question: str = Form(""), image: str = Form(""), file: UploadFile | None = None
) -> Response:
    """Start a conversation, with an image or without."""
    site = site_of(request)
    play = _play(site)
    site.limit("ask", request)
    known = image if site.uploads.has(image) else ""
    try:
        known = await site.uploaded(request, file) or known
        talk = await run_in_threadpool(play.begin, [known] if known else [], question)
    except (ImageError, BadOption) as error:
        typed = {"image": known, "question": question, "message": str(error)}
        return await run_in_threadpool(partial(_page, request, 400, **typed))
    return RedirectResponse(f"/play/{talk.id}", 303)


@router.get("/play/{id}", response_model=None)
def talk_page(request: Request, id: str) -> Response:
    """Show a conversation."""
    site = site_of(request)
    return _talk_page(site, _play(site).talk(id))


def _talk_page(
    site: AppState, talk: Conversation, status: int = 200, *, question: str = "", message: str = ""
) -> Response:
    return site.page(
        "play",
        status,
        title="Play",
        names=_play(site).names,
        talk=talk,
        message=message,
        image=talk.images[0] if talk.images else "",
        question=question,
        done=all(turn.done for turn in talk.turns),
        takes_more=len(talk.turns) < MAX_TURNS,
        ok=Outcome.OK,
        max_upload=MAX_UPLOAD,
        max_question=MAX_QUESTION,
    )


@router.post("/play/{id}", response_model=None)
def ask(request: Request, id: str, question: str = Form("")) -> Response:
    """Ask a further question."""
    site = site_of(request)
    play = _play(site)
    site.limit("ask", request)
    talk = play.talk(id)
    try:
        with suppress(Conflict):  # sent twice: the page shows the stream
            play.ask(talk, question)
    except BadOption as error:
        return _talk_page(site, talk, 400, question=question, message=str(error))
    return RedirectResponse(f"/play/{id}", 303)


@router.get("/play/{id}/image", response_model=None)
def image(request: Request, id: str) -> Response:
    """Return the image of a conversation."""
    site = site_of(request)
    talk = _play(site).talk(id)
    if not talk.images:
        raise HTTPException(404, "This conversation has no image.")
    return picture(site.uploads.read(talk.images[0]))


@router.get("/play/{id}/answers/{turn}/{model}", response_model=None)
def answer(request: Request, id: str, turn: int, model: int) -> Response:
    """Stream an answer as plain text."""
    talk = _play(site_of(request)).talk(id)
    if not (0 <= turn < len(talk.turns) and 0 <= model < len(talk.turns[turn].answers)):
        raise HTTPException(404, "There is no such answer.")
    growing = talk.turns[turn].answers[model]

    async def pieces() -> AsyncIterator[str]:
        watching = growing.watch()
        # A reader blocks a thread, which must not be one that renders pages.
        while (piece := await to_thread.run_sync(next, watching, None, limiter=WATCHERS)) is not None:
            # An empty piece would end the response; a zero-width space shows whether the client is still
            # there.
            yield piece or "\u200b"

    return StreamingResponse(pieces(), media_type="text/plain; charset=utf-8")
