"""Parse answers from text, or return a :class:`ParseFailure`: pure functions, one library for every protocol.

Nothing is guessed. Names match whole words only; the longest of overlapping names counts; a negated name
does not count. An answer that names several classes is a failure, unless it marks one of them as its
answer ("The answer is …"); so is a truncated one whose last name may be incomplete.
"""

from snellen.parsing.choices import parse_choice, parse_choices
from snellen.parsing.labels import parse_label
from snellen.parsing.short import parse_short
from snellen.parsing.text import (
    ParsedAnswer,
    ParseFailure,
    is_refusal,
    split_thinking,
    strip_thinking,
    tokens,
)
from snellen.parsing.yes_no import parse_yes_no

__all__ = [
    "ParseFailure",
    "ParsedAnswer",
    "is_refusal",
    "parse_choice",
    "parse_choices",
    "parse_label",
    "parse_short",
    "parse_yes_no",
    "split_thinking",
    "strip_thinking",
    "tokens",
]
