"""The default prompts of all protocols, in one place.

Fixed text comes first and the variable parts (names, options) last, so that KV caches, ours and those of
servers, are hit. :func:`fill` fills in ``{names}``, ``{name}``, ``{question}`` and ``{options}``; all
other braces are plain text.
"""

from __future__ import annotations

import re

__all__ = [
    "ANSWER_AND_REASON",
    "BINARY",
    "CAPTION",
    "CAPTION_OF_WORDS",
    "CLOSED_SET",
    "COT",
    "MULTIPLE_CHOICE",
    "OPEN_WORLD",
    "SEVERAL_CHOICES",
    "SHORT_ANSWER",
    "YES_NO",
    "fill",
]

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

#: Lettered options, as LLaVA-1.5 was trained to answer them.
MULTIPLE_CHOICE = "{question}\n{options}\nAnswer with the option's letter from the given choices directly."
SEVERAL_CHOICES = (
    "{question}\n{options}\nAnswer with the letters of all options that are right, such as A, C."
)
#: A chain of thought that ends in a final line.
COT = "Let's think step by step, and end with one line that says: Answer: followed by {what}."
CAPTION = "Describe this image."
CAPTION_OF_WORDS = "Describe this image in about {words} words."

#: Short answers, as in the training data of LLaVA-1.5 (Liu et al., arXiv 2310.03744).
SHORT_ANSWER = "{question}\nAnswer the question using a single word or phrase."
YES_NO = "{question}\nAnswer the question using yes or no."
ANSWER_AND_REASON = (
    "{question}\n{options}\nGive the letter of the right option in the first line, and the reason in the "
    "lines after it."
)


def fill(prompt: str, **values: str) -> str:
    """Replace each ``{key}`` in a prompt with its value, in one pass; other braces stay.

    >>> fill("Choose one from {{names}}.", names="cat, dog")
    'Choose one from {cat, dog}.'
    """
    return re.sub(r"\{(\w+)\}", lambda slot: values.get(slot[1], slot[0]), prompt)
