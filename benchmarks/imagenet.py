"""What it takes to examine ImageNet-1k's 50,000 validation images with a model of 7 billion parameters, under
each protocol: tokens are counted, operations follow from them, and hours and dollars from a rate and a price.

``python benchmarks/imagenet.py [--tokenizer FILE] [--tflops RATE] [--dollars PRICE]``

The class names are those of the package ``open_clip_torch``, and the tokenizer is that of Mistral 7B (32,000
pieces), as the package ``mistral_common`` brings it: ``pip install --no-deps open_clip_torch mistral_common``
and ``pip install sentencepiece``. An image is 576 tokens (336 pixels in patches of 14, as LLaVA-1.5 has it).
RATE is what the GPU gets done in 10¹² operations a second, PRICE what an hour of it costs.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
from pathlib import Path

IMAGES, PARAMETERS, IMAGE_TOKENS = 50_000, 7e9, 576
#: The chat template of LLaVA-1.5 around a question.
AROUND = "USER: \n%s ASSISTANT:"


def folder_of(package):
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package} is not installed; see this script's first lines")
    return Path(found.origin).parent


def class_names():
    """The 1,000 names, without importing what else the package needs."""
    tree = ast.parse((folder_of("open_clip") / "zero_shot_metadata.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "IMAGENET_CLASSNAMES":
            return list(ast.literal_eval(node.value))
    raise SystemExit("open_clip has no IMAGENET_CLASSNAMES")


def counter(file):
    """A function that counts tokens."""
    import sentencepiece

    if file is None:
        file = folder_of("mistral_common") / "data" / "tokenizer.model.v1"
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(file))
    return lambda text: len(pieces.encode(text))


def main(tokenizer, rate, price):
    """The table."""
    from snellen.prompts import BINARY, CLOSED_SET, OPEN_WORLD, fill

    count, names = counter(tokenizer), class_names()
    lengths = [count(name) for name in names]
    mean = sum(lengths) / len(lengths)
    print(f"{len(names)} names of {mean:.2f} tokens on average, {sum(lengths)} together")
    closed = count(AROUND % fill(CLOSED_SET, names=", ".join(names)))
    asked = sum(count(AROUND % fill(BINARY, name=name)) for name in names) / len(names)
    opened = count(AROUND % OPEN_WORLD[0])
    half = (len(names) + 1) / 2
    said = mean + 1  # a name, and the end
    # What is read anew for each question, how many there are, and what is said to each.
    rows = [
        ("open-world", opened, 1, 16),
        ("rank", opened, 1, sum(lengths)),  # the names are read, all in one go
        ("closed-set, 1 round", closed, 1, said),
        ("closed-set, 5 rounds", closed, 5, said),
        ("binary, a yes halfway", asked, half, 2),
        ("binary, no yes", asked, len(names), 2),
    ]
    print("| protocol | questions an image | tokens an image | apart | GPU hours | $ | apart, $ |")
    for name, text, questions, out in rows:
        once = IMAGE_TOKENS + questions * (text + out)
        alone = questions * (IMAGE_TOKENS + text + out)
        if name == "rank":  # alone, each name is a question of its own
            alone = len(names) * (IMAGE_TOKENS + text) + out
        hours, worse = (2 * PARAMETERS * tokens * IMAGES / (rate * 1e12) / 3600 for tokens in (once, alone))
        print(
            f"| {name} | {questions:g} | {once:,.0f} | {alone:,.0f} | {hours:.1f} | {hours * price:.0f} "
            f"| {worse * price:.0f} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokenizer", default=None)
    parser.add_argument("--tflops", type=float, default=400.0)
    parser.add_argument("--dollars", type=float, default=2.50)
    given = parser.parse_args()
    main(given.tokenizer, given.tflops, given.dollars)
