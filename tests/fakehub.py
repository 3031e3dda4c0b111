"""What of the Hub's protocol an upload needs, on loopback."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FakeHub(BaseHTTPRequestHandler):
    """What of the Hub's protocol an upload needs."""

    state: dict

    def _json(self, document, status=200):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            found = b""
            while size := int(self.rfile.readline(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def do_POST(self):
        body = self._body()
        here = f"http://{self.headers['host']}"
        self.state["keys"].add(self.headers.get("authorization"))
        if self.headers.get("authorization") != "Bearer hf_right":
            return self._json({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            self.state["created"] = json.loads(body)
            return self._json({"url": f"{here}/org/name", "name": "org/name", "id": "1"})
        if "/preupload/" in self.path:
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith((".safetensors", ".parquet")) else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{here}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects})
        if "/commit/" in self.path:
            self.state["commit"] = [json.loads(line) for line in body.decode().splitlines()]
            return self._json(
                {"success": True, "commitOid": "c" * 40, "commitUrl": f"{here}/org/name/commit/c"}
            )
        return self._json({})

    def do_PUT(self):
        self.state["lfs"][self.path.rpartition("/")[2]] = self._body()
        self._json({})

    def do_GET(self):
        if self.headers.get("authorization") != "Bearer hf_right":
            self._json({"error": "Invalid username or password."}, 401)
            return
        self._json(
            {
                "name": "me",
                "type": "user",
                "private": self.state.get("private", True),
                "id": "org/name",
                "sha": "0" * 40,
                "siblings": [],
            }
        )


@contextmanager
def fake_hub() -> Iterator[tuple[str, dict]]:
    """Its address, and what arrived there."""
    state: dict = {"lfs": {}, "keys": set()}
    handler = type("Handler", (FakeHub,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", state
    finally:
        server.shutdown()
        server.server_close()


def environment(address: str, home: Path, key: str | None) -> dict[str, str]:
    """The environment of a process that takes this address for the Hub's."""
    found = {k: v for k, v in os.environ.items() if k != "HF_TOKEN"}
    found |= {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    found |= {"HF_HOME": str(home / "home"), "OMP_NUM_THREADS": "1"}
    return found | ({"HF_TOKEN": key} if key else {})
