"""How well the text of a page was read: words by BLEU, METEOR and F-measure, characters by edit distance."""

from __future__ import annotations

import logging
import re
import warnings
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

from snellen.errors import DataError, require

__all__ = ["page_similarity", "require_wordnet"]

EXTRA = "ocr"
_CHINESE = re.compile("[\u4e00-\u9fa5]")


def require_wordnet() -> Any:
    """Return WordNet, of which METEOR takes synonyms.

    Raises:
        MissingExtra: nltk is not installed.
        DataError: WordNet has not been downloaded.
    """
    wordnet: Any = require("nltk.corpus", EXTRA, "METEOR").wordnet
    try:
        wordnet.ensure_loaded()
    except LookupError as error:
        raise DataError(
            "METEOR needs WordNet, which nltk has not downloaded yet: python -m nltk.downloader wordnet"
        ) from error
    return wordnet


def page_similarity(said: str, true: str) -> float:
    """Return the mean of BLEU-4 (not smoothed), METEOR, the F-measure of the sets of words, and 1 minus the
    edit distance of characters over the greater length. Words of Chinese texts are those of jieba.

    Source: the evaluation of OCRBench v2 (arXiv 2501.00321); BLEU and METEOR through nltk.

    Raises:
        MissingExtra, DataError: see :func:`require_wordnet`.
    """
    translate: Any = require("nltk.translate", EXTRA, "BLEU")
    meteor: Any = require("nltk.translate.meteor_score", EXTRA, "METEOR")
    levenshtein: Any = require("rapidfuzz.distance", EXTRA, "The edit distance").Levenshtein
    wordnet = require_wordnet()
    if not said and not true:
        return 0.0
    words, wanted = _words(said, true)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of texts that have no four words in a row in common
        bleu = float(translate.bleu([wanted], words))
    shared = len(set(words) & set(wanted))
    f_measure = 2 * shared / (len(set(words)) + len(set(wanted))) if words or wanted else 0.0
    similarity: float = 1 - levenshtein.distance(said, true) / max(len(said), len(true))
    return (bleu + float(meteor.meteor_score([wanted], words, wordnet=wordnet)) + f_measure + similarity) / 4


def _words(said: str, true: str) -> tuple[list[str], list[str]]:
    if _CHINESE.search(true) or _CHINESE.search(said):
        words = _segmenter()
        return words.lcut(said), words.lcut(true)
    return said.split(), true.split()


@cache
def _segmenter() -> Any:
    """Return jieba's segmenter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own
        jieba: Any = require("jieba", EXTRA, "Words of Chinese texts")
    jieba.setLogLevel(logging.WARNING)
    segmenter = jieba.Tokenizer()
    # Its cache is a file of Python's own format, which nobody else may write.
    with TemporaryDirectory() as folder:
        segmenter.tmp_dir = folder
        segmenter.initialize()
    return segmenter
