"""How long it takes to count class names in captions.

``python benchmarks/exposure.py [CAPTIONS] [NAMES]`` writes so many made-up captions of twelve words as JSON
lines (by default 1,000,000), counts 1,000 names of one or two words in them, and prints seconds of one core,
reading included.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Write, count, tell."""
    from snellen.diagnosis.exposure_counts import count, texts

    given = [int(word) for word in sys.argv[1:3]]
    captions, names = given + [1_000_000, 1000][len(given) :]
    rng = random.Random(0)
    words = [f"word{i}" for i in range(5000)]
    known: dict[str, list[str]] = {f"word{i} word{i + 1}" if i % 2 else f"word{i}": [] for i in range(names)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for _ in range(captions):
                file.write(json.dumps({"caption": " ".join(rng.choices(words, k=12))}) + "\n")
        began = time.process_time()
        found, _, number = count(known, texts(path))
        took = time.process_time() - began
    print(f"{number:,} captions, {names:,} names: {took:.1f} s, {number / took:,.0f} a second")
    print(f"occurrences: {found.total():,}")


if __name__ == "__main__":
    main()
