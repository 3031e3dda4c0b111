"""LMMs-Eval's model of LLaVA, asked by ``peers.py``: runs in LMMs-Eval's own environment, without Snellen.

Reads lines of JSON, ``{"images": [base64, …], "asked": [[image, text, tokens, names], …]}``, and answers
each with the texts, the losses of names, or ``{"error": …}``. Batches have one prompt: its LLaVA takes no
more (0.7.3).
"""

from __future__ import annotations

import base64
import io
import json
import sys
from types import SimpleNamespace
from typing import Any


class Docs:
    """Pictures of a data set, decoded at each access, as LMMs-Eval's tasks hold them."""

    def __init__(self, encoded: list[bytes]) -> None:
        self._encoded = encoded

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        return Image.open(io.BytesIO(self._encoded[index])).convert("RGB")


def answers(model: Any, told: dict[str, Any]) -> list[Any]:
    """What the model says, in the order of the requests."""
    model.task_dict = {"peers": {"test": Docs([base64.b64decode(image) for image in told["images"]])}}
    written = [
        (text, {"max_new_tokens": tokens, "until": []}, lambda doc: [doc], image, "peers", "test")
        for image, text, tokens, names in told["asked"]
        if not names
    ]
    scored = [
        (text, name, lambda doc: [doc], image, "peers", "test")
        for image, text, _, names in told["asked"]
        for name in names
    ]
    found: list[Any] = []
    if written:
        found += model.generate_until([SimpleNamespace(args=args) for args in written])
    if scored:
        found += [loss for loss, _ in model.loglikelihood([SimpleNamespace(args=args) for args in scored])]
    return found


def main() -> None:
    """Load the checkpoint, say so, and answer until the input ends."""
    out, sys.stdout = sys.stdout, sys.stderr  # where others print
    folder, device, dtype, template = sys.argv[1:]
    from importlib.metadata import version

    from lmms_eval.models.simple.llava_hf import LlavaHf

    model = LlavaHf(folder, device=device, dtype=dtype, device_map=device, chat_template=template)
    print(json.dumps(version("lmms_eval")), file=out, flush=True)
    for line in sys.stdin:
        try:
            said: Any = answers(model, json.loads(line))
        except Exception as error:  # a table says that it cannot
            said = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(said), file=out, flush=True)


if __name__ == "__main__":
    main()
