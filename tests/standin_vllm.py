"""Stands in for vLLM's command: serves as it does, or ends as it does."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from snellen.testing import ReceivedRequest, Server, completion, fault


def main() -> None:
    """``serve CHECKPOINT --host H --port P …``; the file ``told`` there says how it was started."""
    assert sys.argv[1] == "serve"
    given = dict(zip(sys.argv[3::2], sys.argv[4::2], strict=True))
    with (Path(sys.argv[2]) / "told").open("a") as told:
        told.write(f"{os.getpid()} {given}\n")
    if given["--dtype"] == "float16":
        print("INFO reading weights", file=sys.stderr)
        print("WARNING OSError: of no importance", file=sys.stderr)
        print("(EngineCore pid=1) ERROR ValueError: half is not enough.", file=sys.stderr)
        print("RuntimeError: Engine core initialization failed. See root cause above.", file=sys.stderr)
        sys.exit(3)
    if given["--dtype"] == "bfloat16":
        time.sleep(600)  # it hangs

    def allowed(asked: ReceivedRequest) -> bool:
        return asked.headers.get("Authorization") == f"Bearer {os.environ['VLLM_API_KEY']}"

    def answer(asked: ReceivedRequest):
        return completion("star") if allowed(asked) else {"error": {"message": "who are you?"}}

    def models(asked: ReceivedRequest):
        known = {"object": "list", "data": [{"id": given["--served-model-name"]}]}
        return known if allowed(asked) else fault.status(401)

    with Server(answer, port=int(given["--port"]), endpoints={"/v1/models": models}):
        time.sleep(600)


if __name__ == "__main__":
    main()
