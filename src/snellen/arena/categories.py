"""Kinds of questions, told by their words: rankings differ between reading a text and writing a story.

A question may be of several kinds. The words are English; other languages fall under ``other``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from snellen.errors import BadOption, did_you_mean

__all__ = ["CATEGORIES", "OTHER", "categories_of", "check_category"]

#: What is of no kind below.
OTHER = "other"
#: The words that tell each kind.
_WORDS: Mapping[str, str] = {
    "description": r"describe|caption|summari[sz]e (?:the|this) (?:image|picture|photo|scene)"
    r"|what(?: is| are|'s) (?:going on|happening|shown|depicted|in (?:the|this))|what (?:do|can) you see"
    r"|tell me about",
    "reading": r"read|written|transcribe|ocr|says?|text|letters?|words?|inscription|label|caption reads"
    r"|(?:license|number) plate|headline|receipt|invoice",
    "counting": r"how many|count|number of",
    "charts and documents": r"chart|graph|diagram|plot|table|axis|axes|bars?|figure|document|form|page"
    r"|percent(?:age)?|trend",
    "where": r"where|locate|location|position|point (?:at|to)|bounding box|coordinates"
    r"|left of|right of|above|below|behind|in front of|next to",
    "reasoning": r"why|explain|solve|calculate|compute|prove|how much|what if|what would|step by step"
    r"|reason|compare|difference between|safe to|should (?:i|we|one)",
    "writing": r"write|story|poem|haiku|joke|funny|slogan|tweet|e-?mail|letter to|lyrics|rewrite|translate"
    r"|title for|code|html|script|function",
    "identification": r"which of (?:these|the following)|who|name (?:the|this)|identify|recogni[sz]e|classify"
    r"|(?:what|which) (?:\w+ ){0,3}(?:is|are|was|does) (?:this|that|these|those|it|he|she|they)"
    r"|(?:what|which) (?:kind|type|sort|breed|species|brand|model|make|color|colour|animal|plant|object|city"
    r"|country|landmark)",
    "yes or no": r"(?<!.)(?:is|are|was|were|do|does|did|has|have|can|could|will|would|should) "
    r"(?:the|this|that|these|those|it|he|she|they|there|you|we|any\w*|an?|all|both|his|her|its|their)(?![a-z])",
}
_PATTERNS = {
    name: re.compile(rf"(?<![a-z])(?:{words})(?![a-z])", re.IGNORECASE) for name, words in _WORDS.items()
}
#: All kinds, in the order in which they are listed.
CATEGORIES = (*_PATTERNS, OTHER)


def check_category(name: str) -> None:
    """Refuse a name that is neither empty nor a kind of questions.

    Raises:
        BadOption: as stated.
    """
    if name and name not in CATEGORIES:
        raise BadOption(
            f"category={name!r} is not allowed.{did_you_mean(name, CATEGORIES)} "
            f"Allowed: {', '.join(CATEGORIES)}."
        )


def categories_of(question: str) -> frozenset[str]:
    """Return the kinds of a question: one or more of :data:`CATEGORIES`.

    >>> sorted(categories_of("How many people are there, and what does the sign say?"))
    ['counting', 'reading']
    >>> sorted(categories_of("Is this a cat?")), sorted(categories_of("¿Qué es esto?"))
    (['yes or no'], ['other'])
    """
    text = question.strip()
    return frozenset(name for name, words in _PATTERNS.items() if words.search(text)) or frozenset({OTHER})
