"""Compare options that are formulas or numbers."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["cut_from_a_number", "formula"]


def formula(text: str) -> str:
    r"""Return a formula without the LaTeX around it: fractions as a/b, no spaces.

    >>> formula(r"\boxed{\dfrac{1}{3}}"), formula(r"$\frac13$"), formula("1/3.")
    ('1/3', '1/3', '1/3')
    """
    text = re.sub(r"\\boxed\s?\{(.*)\}", r"\1", text[:400].strip(" $*`\n").rstrip("."))
    text = re.sub(r"\\(?:left|right|displaystyle|[,;!:])|[$\s]", "", text)
    text = re.sub(r"\\[dt]?frac(?:\{([^{}]*)\}\{([^{}]*)\}|(\d)(\d))", r"\1\3/\2\4", text)
    return text.replace("\\cdot", "*").replace("\\times", "*").casefold()


def cut_from_a_number(option: str, text: str) -> bool:
    """Return whether an option with a number in it only occurs inside another number: 3 in -3, 5 in 5.5."""
    if not re.search(r"\d", option):
        return False
    unbroken = rf"(?<![\w.,^/−-]){re.escape(option.casefold())}(?![\w^/%]|[.,]\d)"
    loose = rf"(?<![\w.,^/−]){re.escape(option.casefold())}(?![\w^/%]|[.,]\d)"
    pattern = loose if option.strip().startswith("-") else unbroken
    return re.search(pattern, unicodedata.normalize("NFKC", text).casefold()) is None
