"""The application: routes, guards, and error pages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Form, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from snellen._util.redaction import redact
from snellen.arena.live import Live
from snellen.errors import Conflict, SnellenError, StoreError, UnknownName
from snellen.web import arena, decisions, eye_tests, leaderboard, play, runs
from snellen.web.access import within_arena
from snellen.web.security import SecurityMiddleware, cookie_of, cookies, login_cookie
from snellen.web.state import AppState, Forbidden, TooFast, site_of

__all__ = ["create_app"]

log = logging.getLogger(__name__)
_STATIC = {
    "style.css": ("snellen.reports", "templates/style.css", "text/css; charset=utf-8"),
    "web.css": ("snellen.web", "static/web.css", "text/css; charset=utf-8"),
    "labels.js": ("snellen.reports", "templates/labels.js", "text/javascript; charset=utf-8"),
    "snellen.js": ("snellen.web", "static/snellen.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("snellen.web", "static/icon.svg", "image/svg+xml"),
}


def create_app(site: AppState) -> SecurityMiddleware:
    """Create the web app of a workspace, with an arena if the site has one. The guard is outermost, so that
    no response leaves without its headers.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if site.arena is not None:
                forgetting = asyncio.create_task(_forget(site))
                stack.callback(forgetting.cancel)
            if isinstance(site.arena, Live):
                await stack.enter_async_context(site.arena.open())
            if site.play is not None:
                stack.enter_context(site.play.open())
            yield

    app = FastAPI(title="Snellen", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.site = site
    app.include_router(leaderboard.router)
    app.include_router(runs.router)
    app.include_router(decisions.router)
    app.include_router(eye_tests.router)
    app.include_router(arena.router)
    app.include_router(play.router)
    app.add_api_route("/static/{name}", _static, methods=["GET"])
    app.add_api_route("/health", _health, methods=["GET"])
    app.add_api_route("/login", _login_page, methods=["GET"], response_model=None)
    app.add_api_route("/login", _login, methods=["POST"], response_model=None)
    app.add_api_route("/logout", _logout, methods=["POST"], response_model=None)
    app.add_exception_handler(SnellenError, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    return SecurityMiddleware(app, site.policy, site.rates)


async def _forget(site: AppState) -> None:
    """Forget old addresses of voters, now and every few hours."""
    while True:
        await run_in_threadpool(site.vote_store.voters.forget, site.keep_addresses)
        await asyncio.sleep(6 * 3600)


def _static(name: str) -> Response:
    if name not in _STATIC:
        raise HTTPException(404)
    package, path, kind = _STATIC[name]
    data = files(package).joinpath(path).read_bytes()
    return Response(data, headers={"content-type": kind, "cache-control": "max-age=300"})


def _health() -> Response:
    return PlainTextResponse("ok\n")


def _login_page(request: Request, next: str = "/") -> Response:
    return site_of(request).page("login", title="Log in", next=_own(next), wrong=False)


def _login(request: Request, token: str = Form(), next: str = Form("/")) -> Response:
    site = site_of(request)
    site.limit("login", request)
    role = site.policy.role_of(token.strip())
    if role is None:
        return site.page("login", 401, title="Log in", next=_own(next), wrong=True)
    response = RedirectResponse(_own(next), 303)
    response.headers["set-cookie"] = login_cookie(request.scope, site.policy.sessions.begin(role))
    return response


def _logout(request: Request) -> Response:
    """End this browser's login; its cookie is worth nothing from then on."""
    site, name = site_of(request), cookie_of(request.scope)
    site.policy.sessions.end(cookies(request.headers).get(name, ""))
    response = RedirectResponse("/login", 303)
    response.delete_cookie(name)
    return response


def _own(address: str) -> str:
    """Return a URL within this site, or its first page."""
    inside = address.startswith("/") and not address.startswith("//") and "\\" not in address
    return address if inside and address.isprintable() else "/"


def _error(request: Request, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    if "text/html" not in request.headers.get("accept", ""):
        return PlainTextResponse(f"{message}\n", status, headers=headers)
    path = request.url.path
    site = site_of(request)
    again = "/play" if path.startswith("/play") else "/"
    again = "/arena" if site.arena is not None and (within_arena(path) or not site.shows("/runs")) else again
    page = site.page("error", status, title="Something went wrong", message=message, again=again)
    page.headers.update(headers or {})
    return page


async def _refused(request: Request, error: Exception) -> Response:
    """Return an error of Snellen in its own words, with a fitting status."""
    more = {"retry-after": str(error.seconds)} if isinstance(error, TooFast) else None
    sorts: list[tuple[Any, int]] = [
        (TooFast, 429),
        (Forbidden, 403),
        (Conflict, 409),
        (UnknownName, 404),
        (StoreError, 503),
    ]
    status = next((code for sort, code in sorts if isinstance(error, sort)), 400)
    return _error(request, status, redact(str(error)), more)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {404: "There is no such page.", 405: "This URL does not support that method."}
    return _error(request, error.status_code, messages.get(error.status_code, str(error.detail)))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fields = ", ".join(str(problem["loc"][-1]) for problem in error.errors())
    return _error(
        request, 400, f"The request has missing or invalid fields: {fields}. Go back and try again."
    )


async def _failed(request: Request, error: Exception) -> Response:
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    return _error(request, 500, "Internal error. See the server's log.")
