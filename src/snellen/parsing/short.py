"""Read short free-form answers: a word, a number, a phrase."""

from __future__ import annotations

from snellen.parsing.text import ParseFailure, failure, is_refusal, marked_text, plain

__all__ = ["parse_short"]

#: A longer text is not a short answer, whatever it contains.
LONGEST_SHORT = 2_000


def parse_short(text: str, *, truncated: bool = False) -> str | ParseFailure:
    """Return the answer as text: the marked part ("The answer is 7"), or else all of it. It is never
    shortened to please a metric.

    >>> parse_short("So 3 + 4 = 7. The answer is: **7**."), parse_short(" a red car ")
    ('7', 'a red car')
    """
    text = plain(text)
    stretches = marked_text(text)
    if not stretches and is_refusal(text):
        return failure(text, truncated, "refusal")
    if truncated and stretches and text.endswith(stretches[-1]):
        stretches = stretches[:-1]  # a truncated answer may have continued
    distinct = dict.fromkeys(filter(None, map(_bare, stretches)))
    if len(distinct) > 1:
        return failure(text, truncated, f"marks several answers: {', '.join(list(distinct)[:3])[:80]}")
    if distinct:
        return next(iter(distinct))
    if truncated or not text:
        return failure(text, truncated, "empty answer" if not text else "no marked answer")
    if len(text) > LONGEST_SHORT:
        return ParseFailure(f"an answer of {len(text):,} characters, where a short one was requested")
    return _bare(text) or failure("", truncated, "empty answer")


def _bare(text: str) -> str:
    """Strip emphasis or quotes around the whole text, a period after them, and a closing JSON bracket.

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


#: Pairs that can enclose a whole text.
_PAIRS = ("**", "**"), ("*", "*"), ("__", "__"), ("_", "_"), ("`", "`"), ("$", "$"), ('"', '"'), ("'", "'")
_QUOTES = ("\u201c", "\u201d"), ("\u2018", "\u2019"), ("«", "»"), ("\u201e", "\u201c")


def _unwrapped(text: str) -> str:
    """Strip the outermost pair, and a period after it; return the text unchanged if there is none."""
    inner = text.removesuffix(".")
    for begin, end in (*_PAIRS, *_QUOTES):
        if len(inner) > len(begin + end) and inner.startswith(begin) and inner.endswith(end):
            inside = inner[len(begin) : -len(end)]
            if begin not in inside and end not in inside:
                return inside
    return text
