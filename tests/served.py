"""The web app on a real socket, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn

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
