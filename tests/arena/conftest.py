"""What the tests of votes share."""

from __future__ import annotations

from typing import Any

import pytest

from helpers import Scripted
from snellen.api import run
from snellen.storage.store import Store
from snellen.storage.votes import VoteStore


@pytest.fixture
def vote_store(anywhere):
    store = Store(anywhere)
    yield VoteStore(store)
    store.close()


@pytest.fixture
def runs(workspace):
    """Three models that are right about other samples."""

    def teller(k):
        def script(request):
            number = int(request.images[0].sha256[:6], 16)
            return request.sample.label if number % 3 != k else "star" if number % 2 else "no idea at all"

        return script

    kwargs: dict[str, Any] = {"data": "chart:shapes?n=12", "protocol": "closed-set?rounds=1"}
    return [run(model=Scripted(teller(k), f"model-{k}"), **kwargs) for k in range(3)]
