"""What the tests of shared prefixes share."""

from __future__ import annotations

from snellen.models.huggingface.prefix_cache.prefill import Prefix


def count_prefixes(monkeypatch) -> list[int]:
    made: list[int] = []
    real = Prefix.__init__

    def counted(self, *args, **more):
        made.append(1)
        real(self, *args, **more)

    monkeypatch.setattr(Prefix, "__init__", counted)
    return made
