"""Words that tokenizers take for something else: an image's place, the end of a turn."""

from __future__ import annotations

import re

__all__ = ["literal"]

#: Special tokens of the families that transformers knows, as they are written: for images and videos
#: (LLaVA, Idefics, InternVL, Gemma, Pixtral, Qwen, Phi), for turns, and for the ends of texts.
_MARKS = re.compile(
    r"<\|[^|<>\s]{1,40}\|>"  # <|image_pad|>, <|im_end|>, <|image_1|>
    r"|</?(?:image|img|video|IMG_CONTEXT|image_soft_token|image_placeholder|global-img|row_\d+_col_\d+"
    r"|fake_token_around_image|end_of_utterance|start_of_image|end_of_image|start_of_turn|end_of_turn"
    r"|s|bos|eos|pad|unk)>"
    r"|\[/?INST\]|\[IMG(?:_BREAK|_END)?\]"
)


def literal(text: str) -> str:
    """Return a text in which no tokenizer finds its special tokens: a space is put before their last
    character. People write ``<image>`` about HTML, and class names may be anything; taken for an image,
    they fail, or move the images of a batch. All models get the same text.
    """
    return _MARKS.sub(lambda mark: f"{mark[0][:-1]} {mark[0][-1]}", text)
