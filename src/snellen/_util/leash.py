"""Run a program that ends with whoever started it, even if that one is killed.

``python -m snellen._util.leash PROGRAM ARGUMENT…``: the program runs until it ends by itself, or until
standard input is closed, as it is when the other end of its pipe is gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

__all__ = ["main"]

#: Seconds to end by itself.
PATIENCE = 10.0


def main() -> int:
    """Run the program; return its exit status."""
    # Signals are for whoever holds the leash. (Ignored ones would be ignored by the program as well.)
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: None)
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)

    def watch() -> None:
        while os.read(0, 4096):  # not sys.stdin, whose lock would be held when this process ends
            pass
        _end(program)

    threading.Thread(target=watch, daemon=True).start()
    return program.wait()


def _end(program: subprocess.Popen[bytes]) -> None:
    """End a program with all that it started."""
    if not hasattr(os, "killpg"):
        program.terminate()
        return
    with suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        program.wait(PATIENCE)
    with suppress(ProcessLookupError):  # what it started may hang, whether or not it ended itself
        os.killpg(program.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
