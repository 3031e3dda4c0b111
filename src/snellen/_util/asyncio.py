"""Run coroutines from synchronous code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from typing import Any, TypeVar

__all__ = ["complete"]

T = TypeVar("T")


def complete(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to completion, in its own thread if an event loop is already running (a notebook).

    Raises:
        KeyboardInterrupt: interrupted; the coroutine's cancellation has completed. A second interrupt does
            not wait for it.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    outer = asyncio.current_task()
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)
    done: Future[T] = Future()

    def target() -> None:
        asyncio.set_event_loop(loop)
        try:
            done.set_result(loop.run_until_complete(task))
        except BaseException as error:
            done.set_exception(error)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    interrupted = False
    while not done.done():
        try:
            wait([done], timeout=0.2)
            # asyncio.run takes the first interrupt for itself, and only cancels the task around us.
            if not interrupted and outer is not None and outer.cancelling():
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            loop.call_soon_threadsafe(task.cancel)
    thread.join()
    if interrupted:
        raise KeyboardInterrupt
    return done.result()
