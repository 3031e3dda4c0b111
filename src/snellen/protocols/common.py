"""Options that every protocol has: examples before each question, repetitions, a temperature."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from snellen.errors import BadOption
from snellen.types import Kind

__all__ = ["CommonOptions", "with_common"]

T = TypeVar("T", bound="CommonOptions")


@dataclass(frozen=True, kw_only=True)
class CommonOptions(ABC):
    """The options that every protocol has (see :func:`with_common`)."""

    name: ClassVar[str]
    #: Whether examples can be shown before its questions, and whether answers are scored one by one.
    takes_shots: ClassVar[bool] = True
    takes_repeats: ClassVar[bool] = True
    shots: int = 0
    shots_from: str | None = None
    repeats: int = 1
    temperature: float = 0.0
    draws: int = 0

    @property
    @abstractmethod
    def requires(self) -> Kind:
        """The capability that a model needs for it."""

    def check_common(self) -> None:
        """Refuse invalid values, and options that this protocol cannot use.

        Raises:
            BadOption: as stated.
        """
        if self.shots < 0:
            raise BadOption(f"shots={self.shots} is not allowed; allowed: 0 or more.")
        if self.repeats < 1:
            raise BadOption(f"repeats={self.repeats} is not allowed; allowed: 1 or more.")
        if not 0 <= self.temperature <= 2:
            raise BadOption(f"temperature={self.temperature:g} is not allowed; allowed: 0 to 2.")
        if self.shots_from is not None and not self.shots:
            raise BadOption("shots_from= needs a number of examples: shots=N")
        if self.shots and not self.takes_shots:
            raise BadOption(f"shots= is not allowed with {self.name}, whose examples would have no one form.")
        if self.shots and getattr(self, "cot", False):
            raise BadOption("shots= with cot=true is not allowed: the examples have no chain of thought.")
        generates = self.requires in (Kind.GENERATE, Kind.CONSTRAIN)
        if not generates and (self.temperature or self.repeats > 1):
            raise BadOption(f"temperature= and repeats= are not allowed here: {self.name} generates no text.")
        if self.repeats > 1 and not self.temperature:
            raise BadOption(
                f"repeats={self.repeats} needs a temperature above 0, such as temperature=0.7: without it, a "
                "model repeats its answer."
            )
        if self.repeats > 1 and not self.takes_repeats:
            raise BadOption(
                f"repeats= is not allowed with {self.name}, whose texts are only scored when all are there."
            )


def with_common(
    protocol: T,
    *,
    shots: int = 0,
    shots_from: str | None = None,
    repeats: int = 1,
    temperature: float = 0.0,
    draws: int = 0,
) -> T:
    """Set the options that every protocol has.

    Options: ``shots``: the number of examples with their answers that are shown before each question, from
    the training split, or from the data set ``shots_from``; ``repeats``: how often each question is asked,
    with a ``temperature`` above 0: mean, spread and pass@k; ``draws``: the seed of answers drawn at a
    temperature (default: the run's).
    """
    return replace(
        protocol,
        shots=shots,
        shots_from=shots_from,
        repeats=repeats,
        temperature=temperature,
        draws=draws,
    )
