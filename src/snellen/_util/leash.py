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

__all__ = ["main"]

#: Seconds to end by itself.
PATIENCE = 15.0


def main() -> int:
    """Run the program; return its exit status."""
    # Ctrl-C is for whoever holds the leash.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)

    def watch() -> None:
        while os.read(0, 4096):  # not sys.stdin, whose lock would be held when this process ends
            pass
        _end(program)

    threading.Thread(target=watch, daemon=True).start()
    return program.wait()


def _end(program: subprocess.Popen[bytes]) -> None:
    """End a program with all that it started."""
    for how in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        try:
            if hasattr(os, "killpg"):
                os.killpg(program.pid, how)
            else:
                program.terminate()
            program.wait(PATIENCE)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


if __name__ == "__main__":
    sys.exit(main())
