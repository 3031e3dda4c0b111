"""Plurals and singulars of English nouns."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["other_numbers"]

_IRREGULAR = {
    "man": "men",
    "woman": "women",
    "person": "people",
    "child": "children",
    "mouse": "mice",
    "goose": "geese",
    "foot": "feet",
    "tooth": "teeth",
    "ox": "oxen",
    "leaf": "leaves",
    "loaf": "loaves",
    "wolf": "wolves",
    "calf": "calves",
    "half": "halves",
    "shelf": "shelves",
    "elf": "elves",
    "thief": "thieves",
    "scarf": "scarves",
    "knife": "knives",
    "life": "lives",
    "wife": "wives",
    "cactus": "cacti",
    "fungus": "fungi",
}
_REGULAR = {plural: single for single, plural in _IRREGULAR.items()}
#: Words in -s that are not plurals of the word without it (a glass is not glasses).
_NO_PLURAL = frozenset("glasses eyeglasses sunglasses news lens gas series species".split())


def other_numbers(word: str) -> Iterator[str]:
    """Return the other grammatical number of a word: its plural, and its singular if it looks like a
    plural.
    """
    if len(word) < 2 or not word.isalpha():
        return
    if f"{word}es" in _NO_PLURAL or f"{word}s" in _NO_PLURAL:
        return
    if word in _IRREGULAR:
        yield _IRREGULAR[word]
    if word in _REGULAR:
        yield _REGULAR[word]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        yield f"{word}es"
    elif word.endswith("y") and word[-2] not in "aeiou":
        yield f"{word[:-1]}ies"
    else:
        yield f"{word}s"
        if word.endswith("o"):
            yield f"{word}es"
    if word in _NO_PLURAL or len(word) < 4 or word.endswith(("ss", "us", "is")):
        return
    if word.endswith("ies"):
        yield f"{word[:-3]}y"
    elif word.endswith(("ses", "xes", "zes", "ches", "shes")):
        yield word[:-2]
    if word.endswith("s"):
        yield word[:-1]
