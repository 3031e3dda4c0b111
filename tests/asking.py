"""Ask a model behind an address, without a run."""

from __future__ import annotations

import asyncio

from PIL import Image as pillow

from snellen.images import Image, encode
from snellen.models.base import MODELS
from snellen.types import ask


def model_at(server, scheme="openai", name="any", **options):
    return MODELS.make(f"{scheme}:{name}", {"base_url": server.url, **options})


def answers(model, *requests):
    """What the model answers, in its own event loop."""

    async def go():
        async with model.connected():
            return await model.respond(requests)

    model.load()
    return asyncio.run(go())


def question(text="What is it? {star, ring}", color="red", **more):
    return ask((Image(lambda: encode(pillow.new("RGB", (16, 16), color)), color),), text, **more)
