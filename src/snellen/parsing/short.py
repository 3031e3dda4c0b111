"""Short free answers: a word, a number, a phrase."""

from __future__ import annotations

from snellen.parsing.text import ParseFailure, failure, is_refusal, marked_text, plain

__all__ = ["parse_short"]

#: An answer that is longer is no short answer, whatever it holds.
LONGEST_SHORT = 2_000


def parse_short(text: str, *, truncated: bool = False) -> str | ParseFailure:
    """The answer as text: what is marked as the answer ("The answer is 7"), or else all of it. It is not cut
    down to what a metric would like to see.

    >>> parse_short("So 3 + 4 = 7. The answer is: **7**."), parse_short(" a red car ")
    ('7', 'a red car')
    """
    text = plain(text)
    stretches = marked_text(text)
    if not stretches and is_refusal(text):
        return failure(text, truncated, "refusal")
    if truncated and stretches and text.endswith(stretches[-1]):
        stretches = stretches[:-1]  # what was cut off may have gone on
    distinct = dict.fromkeys(filter(None, map(_bare, stretches)))
    if len(distinct) > 1:
        return failure(text, truncated, f"marks several answers: {', '.join(list(distinct)[:3])[:80]}")
    if distinct:
        return next(iter(distinct))
    if truncated or not text:
        return failure(text, truncated, "empty answer" if not text else "no marked answer")
    if len(text) > LONGEST_SHORT:
        return ParseFailure(f"an answer of {len(text):,} characters; a short one was asked for")
    return _bare(text) or failure("", truncated, "empty answer")


def _bare(text: str) -> str:
    """Without what emphasises or quotes the whole of it, a full stop behind that, and JSON's end around it.

    >>> _bare('**"42"**.'), _bare('"red"}'), _bare('"a" and "b"'), _bare("It is red.")
    ('42', 'red', '"a" and "b"', 'It is red.')
    """
    text = text.strip()
    if text.count("}") > text.count("{"):
        text = text.rstrip("} \n")
    bare = text
    while (shorter := _unwrapped(bare.strip())) != bare:
        bare = shorter
    return bare.strip("*")


#: What stands around a text as a whole.
_PAIRS = ("**", "**"), ("*", "*"), ("__", "__"), ("_", "_"), ("`", "`"), ("$", "$"), ('"', '"'), ("'", "'")
_QUOTES = ("\u201c", "\u201d"), ("\u2018", "\u2019"), ("«", "»"), ("\u201e", "\u201c")


def _unwrapped(text: str) -> str:
    """Without the outermost pair, and a full stop behind it; as it is where there is none."""
    inner = text.removesuffix(".")
    for begin, end in (*_PAIRS, *_QUOTES):
        if len(inner) > len(begin + end) and inner.startswith(begin) and inner.endswith(end):
            inside = inner[len(begin) : -len(end)]
            if begin not in inside and end not in inside:
                return inside
    return text
