"""What the tests of the web app share."""

from __future__ import annotations

import io
from html.parser import HTMLParser

from PIL import Image as pillow

from snellen.storage.vote_rows import Answer, Battle, Turn
from snellen.storage.votes import VoteStore


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))


def inert(text: str) -> None:
    """Nothing on a page runs, loads or sends anything but the site's own."""
    allowed = {"/static/snellen.js", "/static/labels.js"}
    for tag, attributes in Tags(text).tags:
        assert tag not in ("iframe", "object", "embed", "base", "style", "b", "u"), (tag, attributes)
        if tag == "script":
            assert attributes.get("src") in allowed
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, attributes)
            assert name != "style", (tag, attributes)
            if name in ("src", "href", "action", "formaction"):
                assert value.startswith(("/", "#", "?")), (tag, attributes)
                assert not value.startswith("//"), (tag, attributes)


def cast(vote_store: VoteStore, choice: str, voter: str = "v") -> None:
    """One vote between A and B that counts."""
    answers = (Answer("one"), Answer("two"))
    battle = vote_store.keep(
        Battle(
            id="", voter=voter, source="live", item=choice, left="A", right="B", propensity=1.0,
            turns=(Turn(0, "?", *answers),),
        )
    )  # fmt: skip
    vote_store.vote(battle.id, voter, choice)
    vote_store.reveal(battle.id, voter)


def png(color="red", size=(32, 24), **more) -> bytes:
    buffer = io.BytesIO()
    pillow.new("RGB", size, color).save(buffer, "PNG", **more)
    return buffer.getvalue()
