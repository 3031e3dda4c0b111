"""Serve the app: one process, one address, until interrupted."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from snellen.errors import BadOption, require

if TYPE_CHECKING:
    from snellen.web.state import AppState

__all__ = ["bound", "serve"]


def bound(host: str, port: int) -> socket.socket:
    """Bind a socket to an address.

    Raises:
        BadOption: it is in use, not local, or invalid.
    """
    if not 0 <= port < 65536:
        raise BadOption(f"--port {port} is not allowed; allowed: 0 (any free port) to 65535.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()  # otherwise another process may bind it too while models load
    except OSError as error:
        listening.close()
        raise BadOption(
            f"--host {host} --port {port}: cannot be bound ({error.strerror or error}). Use another one; "
            "--port 0 picks any free port."
        ) from error
    return listening


def serve(
    site: AppState,
    sock: socket.socket,
    *,
    browse: bool = False,
    token: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve until interrupted.

    Args:
        sock: see :func:`bound`.
        browse: open a browser once it responds.
        token: the host's, if the address is to contain it.
        say: called with the address.

    Raises:
        MissingExtra: uvicorn is not installed.
    """
    uvicorn: Any = require("uvicorn", "web", "The web app")
    from snellen.web.app import create_app

    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared with, not bound
        shown = socket.gethostname()
    path = "/play" if site.play is not None else "/arena" if site.arena is not None else "/"
    address = f"http://{shown}:{port}{path}"
    opened = f"{address}?token={token}" if token else address

    class BoundServer(uvicorn.Server):  # type: ignore[misc] # loaded when it is needed, so of no known type
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                say(f"{opened}  (press Ctrl+C to stop)")
                if site.policy.voter_token is not None:
                    say(f"for voters: {address}?token={site.policy.voter_token}")
                for number, invite in enumerate(site.policy.invites, 1):
                    say(f"voter {number}: {address}?invite={invite}")
                if browse:
                    webbrowser.open(opened)

    config = uvicorn.Config(
        create_app(site),
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=5,
        # A local proxy tells whether the browser uses https.
        proxy_headers=True,
        forwarded_allow_ips="127.0.0.1",
        ws="none",
    )
    BoundServer(config).run([sock])
