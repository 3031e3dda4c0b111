"""Token prices."""

from __future__ import annotations

import math
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from snellen.errors import BadOption

__all__ = ["Prices"]


@dataclass(frozen=True)
class Prices:
    """US dollars per million tokens. Cached tokens are counted at full price, so the bill may be lower."""

    into: float
    out: float

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return the cost in US dollars.

        >>> Prices(2.5, 10).cost(1_000_000, 100_000)
        3.5
        """
        return (prompt_tokens * self.into + completion_tokens * self.out) / 1e6

    @classmethod
    def find(cls, model: str, into: float | None, out: float | None) -> Prices | None:
        """Return the prices in the options, or in the user's ``prices.toml`` for this model; None if neither
        has any.

        The file is ``$SNELLEN_PRICES``, or ``./prices.toml``, with one table per model::

            ["openai:gpt-4o"]
            in = 2.5    # US dollars per million tokens
            out = 10.0

        Raises:
            BadOption: only one of the two prices, a negative one, or a file with other contents.
        """
        if into is None and out is None:
            return cls._listed(model)
        if into is None or out is None:
            raise BadOption("price_in and price_out must be set together, in US dollars per million tokens.")
        return cls._checked(into, out)

    @classmethod
    def _checked(cls, into: float, out: float) -> Prices:
        if not (0 <= into < math.inf and 0 <= out < math.inf):
            raise BadOption(f"price_in={into:g} price_out={out:g} is not allowed; allowed: 0 or more.")
        return cls(into, out)

    @classmethod
    def _listed(cls, model: str) -> Prices | None:
        path = Path(os.environ.get("SNELLEN_PRICES") or "prices.toml")
        if not path.exists():
            if "SNELLEN_PRICES" in os.environ:
                raise BadOption(f"SNELLEN_PRICES={path}: no such file.")
            return None
        try:
            entry = tomllib.loads(path.read_text(encoding="utf-8")).get(model)
            return None if entry is None else cls._checked(float(entry["in"]), float(entry["out"]))
        except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadOption(
                f'{path}: expected tables such as ["{model}"] with in = and out = in US dollars per million '
                f"tokens ({type(error).__name__}: {error})."
            ) from error
