"""The web app on a real socket, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import httpx
import uvicorn

from helpers import Scripted
from snellen.api import run
from snellen.storage.store import Store
from snellen.types import Request
from snellen.web.app import create_app
from snellen.web.serve import bound
from snellen.web.state import AppState


@contextmanager
def served(site: AppState) -> Iterator[str]:
    """The app's address while it is served."""
    with bound("127.0.0.1", 0) as sock:
        config = uvicorn.Config(create_app(site), log_level="warning", ws="none", timeout_graceful_shutdown=3)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{sock.getsockname()[1]}"
        try:
            for _ in range(400):
                if server.started:
                    break
                thread.join(0.05)
                assert thread.is_alive(), "the server ended as it began"
            yield address
        finally:
            server.should_exit = True
            thread.join(15)


def browser(address: str) -> httpx.Client:
    """A client that behaves as a browser does on the site's own pages."""
    headers = {"accept": "text/html", "origin": address, "sec-fetch-site": "same-origin"}
    # Drop idle connections before the server does (after 5 s): on a busy machine, that meets a request.
    limits = httpx.Limits(keepalive_expiry=2)
    return httpx.Client(base_url=address, headers=headers, follow_redirects=True, timeout=60, limits=limits)


@contextmanager
def half_way(store: Store, n: int) -> Iterator[Callable[[], None]]:
    """A run of n samples that has begun and waits; what is yielded lets it finish."""
    asked, go_on = Event(), Event()
    told: list[Request] = []

    def script(request: Request) -> str:
        told.append(request)
        if len(told) == n // 2:
            asked.set()
            assert go_on.wait(60)
        assert request.sample is not None
        return str(request.sample.label)

    def evaluate() -> None:
        run(
            model=Scripted(script, "slow", batch_size=1),
            data=f"chart:shapes?n={n}",
            protocol="closed-set?rounds=1",
            workspace=store,
        )

    with ThreadPoolExecutor(1) as running:
        done = running.submit(evaluate)
        assert asked.wait(60)

        def finish() -> None:
            go_on.set()
            done.result(60)

        try:
            yield finish
        finally:
            finish()
