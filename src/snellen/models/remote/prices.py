"""Token prices."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from snellen.errors import BadOption
from snellen.types import Usage

__all__ = ["Prices"]


@dataclass(frozen=True)
class Prices:
    """US dollars per million tokens; ``cached`` of the prompt's tokens that the server has cached (None: as
    ``into``).
    """

    into: float
    out: float
    cached: float | None = None

    def cost(self, prompt_tokens: float, completion_tokens: float, cached_tokens: float = 0) -> float:
        """Return the cost in US dollars. The cached tokens are a part of the prompt's.

        >>> Prices(2.5, 10).cost(1_000_000, 100_000)
        3.5
        >>> Prices(2.5, 10, 1.25).cost(1_000_000, 100_000, 400_000)
        3.0
        """
        saved = 0.0 if self.cached is None else cached_tokens * (self.into - self.cached)
        return (prompt_tokens * self.into + completion_tokens * self.out - saved) / 1e6

    def of(self, usage: Usage) -> float:
        """Return the cost of usage in US dollars."""
        return self.cost(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)

    def halved(self) -> Prices:
        """Return the prices of batches."""
        return Prices(self.into / 2, self.out / 2, None if self.cached is None else self.cached / 2)

    def as_options(self) -> dict[str, float]:
        """Return the options that set these prices."""
        known = {} if self.cached is None else {"price_cached": self.cached}
        return {"price_in": self.into, "price_out": self.out, **known}

    @classmethod
    def recorded(cls, facts: Mapping[str, Any]) -> Self | None:
        """Return the prices in a run's metadata; None without."""
        if "price_in" not in facts:
            return None
        return cls(facts["price_in"], facts["price_out"], facts.get("price_cached"))

    @classmethod
    def find(
        cls, model: str, into: float | None, out: float | None, cached: float | None = None
    ) -> Prices | None:
        """Return the prices in the options, or in the user's ``prices.toml`` for this model; None if neither
        has any.

        The file is ``$SNELLEN_PRICES``, or ``./prices.toml``, with one table per model::

            ["openai:gpt-4o"]
            in = 2.5    # US dollars per million tokens
            out = 10.0
            cached = 1.25    # of the prompt's tokens that the server has cached; may be left out

        Raises:
            BadOption: only one of the first two prices, a negative one, or a file with other contents.
        """
        if into is None and out is None and cached is None:
            return cls._listed(model)
        if into is None or out is None:
            raise BadOption("price_in and price_out must be set together, in US dollars per million tokens.")
        return cls._checked(into, out, cached)

    @classmethod
    def _checked(cls, into: float, out: float, cached: float | None) -> Prices:
        given = cls(into, out, cached)
        if not all(0 <= value < math.inf for value in given.as_options().values()):
            said = " ".join(f"{name}={value:g}" for name, value in given.as_options().items())
            raise BadOption(f"{said} is not allowed; allowed: 0 or more.")
        return given

    @classmethod
    def _listed(cls, model: str) -> Prices | None:
        path = Path(os.environ.get("SNELLEN_PRICES") or "prices.toml")
        if not path.exists():
            if "SNELLEN_PRICES" in os.environ:
                raise BadOption(f"SNELLEN_PRICES={path}: no such file.")
            return None
        try:
            entry = tomllib.loads(path.read_text(encoding="utf-8")).get(model)
            if entry is None:
                return None
            cached = float(entry["cached"]) if "cached" in entry else None
            return cls._checked(float(entry["in"]), float(entry["out"]), cached)
        except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadOption(
                f'{path}: expected tables such as ["{model}"] with in = and out = in US dollars per million '
                f"tokens ({type(error).__name__}: {error})."
            ) from error
