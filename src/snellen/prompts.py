"""The wordings that protocols ask by default, in one place.

The shared text stands first and what varies (names, options) last, so that key-value caches, ours and
those of servers, are hit. ``{names}``, ``{name}``, ``{question}`` and ``{options}`` are filled by
:func:`fill`; all other braces are plain text.
"""

from __future__ import annotations

import re

__all__ = ["BINARY", "CAPTION", "CLOSED_SET", "MULTIPLE_CHOICE", "OPEN_WORLD", "fill"]

#: Closed set and yes/no, as in "Best Vision Language Models (VLMs) for Image Classification"
#: (Clarifai, 2025).
CLOSED_SET = (
    "Answer this question in one word: What type of object is in this photo? "
    "Choose one from {{names}}. Answer:"
)
BINARY = "Answer the question in one word: yes or no. Is the {name} in this image?"

#: The four wordings of Zhang et al., "Why are Visually-Grounded Language Models Bad at Image
#: Classification?" (arXiv 2405.18415); the first is the default.
OPEN_WORLD = (
    "What type of object is in this photo?",
    "Can you name the specific item pictured here?",
    "Identify the object in this image.",
    "What is the main object depicted in this photograph?",
)

#: Lettered options in the wording that LLaVA-1.5 made common.
MULTIPLE_CHOICE = "{question}\n{options}\nAnswer with the option's letter from the given choices directly."
CAPTION = "Describe this image."


def fill(prompt: str, **values: str) -> str:
    """Replace each ``{key}`` in a prompt by its value, in one pass; other braces stay.

    >>> fill("Choose one from {{names}}.", names="cat, dog")
    'Choose one from {cat, dog}.'
    """
    return re.sub(r"\{(\w+)\}", lambda slot: values.get(slot[1], slot[0]), prompt)
