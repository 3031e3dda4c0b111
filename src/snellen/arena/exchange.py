"""Read and write votes in other layouts: public human-preference data, FastChat's logs, pairs for DPO."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from snellen._util.redaction import storable
from snellen._util.words import counted
from snellen.arena.leaks import leak
from snellen.errors import DataError
from snellen.images import is_hash
from snellen.storage.vote_rows import SIDES, Answer, Battle, Choice, Turn, Vote
from snellen.storage.votes import VoteStore

__all__ = ["EXPORTS", "IMPORTS", "ImportedVotes", "export", "read"]

#: ``preferences`` are the columns of the public sets of lmarena-ai (``arena-human-preference-100k``,
#: ``VisionArena-Battle``; on reading also of ``arena-human-preference-55k``), ``fastchat`` the lines that
#: FastChat's arena writes for each vote, ``dpo`` the pairs that TRL's DPOTrainer takes.
EXPORTS = ("preferences", "fastchat", "dpo")
IMPORTS = ("preferences", "fastchat")
_WINNERS = {
    Choice.LEFT: "model_a",
    Choice.RIGHT: "model_b",
    Choice.TIE: "tie",
    Choice.BOTH_BAD: "tie (bothbad)",
}
_TYPES = {
    Choice.LEFT: "leftvote",
    Choice.RIGHT: "rightvote",
    Choice.TIE: "tievote",
    Choice.BOTH_BAD: "bothbad_vote",
}


class ImportedVotes(NamedTuple):
    """The number of lines in a file, of new votes, and of lines that are no votes."""

    lines: int
    votes: int
    others: int


def export(
    vote_store: VoteStore, layout: str, picture: Callable[[Battle, str], str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the votes that count, one row each, oldest first.

    Pairs for DPO come from decisive votes only, without repeated battles and without those in which a model
    revealed itself; FastChat's logs omit these too, since their layout cannot mark a repeated battle.

    Args:
        picture: returns the representation of an image, from its battle and hash; by default the hash.
    """
    for battle in vote_store.voted():
        assert battle.vote is not None  # in the order of the request
        if layout != "preferences" and battle.repeats:
            continue
        if layout == "dpo" and (battle.vote.choice not in SIDES or battle.leak):
            continue
        shown = [sha256 if picture is None else picture(battle, sha256) for sha256 in battle.images]
        if layout == "preferences":
            yield {**_preference(battle, battle.vote), "images": shown}
        elif layout == "fastchat":
            yield {**_fastchat(battle, battle.vote), "images": shown}
        else:
            yield {**_pair(battle, battle.vote), "images": shown}


def _conversation(battle: Battle, side: str) -> list[dict[str, str]]:
    messages = []
    for turn in battle.turns:
        messages.append({"role": "user", "content": turn.question})
        if (said := getattr(turn, side)) is not None:
            messages.append({"role": "assistant", "content": said.text})
    return messages


def _preference(battle: Battle, vote: Vote) -> dict[str, Any]:
    return {
        "question_id": battle.id,
        "model_a": battle.left,
        "model_b": battle.right,
        "winner": _WINNERS[vote.choice],
        "judge": battle.voter,
        "conversation_a": _conversation(battle, "left"),
        "conversation_b": _conversation(battle, "right"),
        "turn": len(battle.turns),
        "anony": True,
        "tstamp": _seconds(vote.created),
        "reasons": list(vote.reasons),
        "propensity": battle.propensity,
        "repeats": battle.repeats,
        "item": battle.item,
        "leak": battle.leak,
        "truth": battle.content.get("truth"),
        "right": battle.content.get("right"),
    }


def _fastchat(battle: Battle, vote: Vote) -> dict[str, Any]:
    states = []
    for side in SIDES:
        messages = [[line["role"].upper(), line["content"]] for line in _conversation(battle, side)]
        named = {"conv_id": f"{battle.id}-{side}", "model_name": getattr(battle, side)}
        states.append({"template_name": "", "roles": ["USER", "ASSISTANT"], "messages": messages} | named)
    return {
        "tstamp": _seconds(vote.created),
        "type": _TYPES[vote.choice],
        "models": ["", ""],  # as in every anonymous battle; the states hold the names
        "states": states,
        "ip": battle.voter,
    }


def _pair(battle: Battle, vote: Vote) -> dict[str, Any]:
    better, worse = SIDES if vote.choice == "left" else reversed(SIDES)
    chosen, rejected = _conversation(battle, better), _conversation(battle, worse)
    return {"prompt": chosen[:1], "chosen": chosen[1:], "rejected": rejected[1:]}


def _seconds(created: str) -> float:
    with suppress(ValueError):
        return datetime.fromisoformat(created).timestamp()
    return 0.0


def read(vote_store: VoteStore, path: Path, layout: str) -> ImportedVotes:
    """Import votes from a JSON lines file. Votes imported before are not duplicated.

    Voters' names and addresses become salted ids; these files contain no images. Votes on this
    workspace's own battles are left unchanged.

    Raises:
        DataError: the file cannot be read, or a line does not have this layout.
    """
    page: list[tuple[Battle, Vote]] = []
    lines = new = others = 0
    make = {"preferences": _from_preference, "fastchat": _from_fastchat}[layout]
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                lines += 1
                try:
                    made = make(vote_store, json.loads(line))
                except (ValueError, KeyError, TypeError, LookupError, AttributeError, OverflowError) as error:
                    other = next(name for name in IMPORTS if name != layout)
                    raise DataError(
                        f"{path}, line {number}: not in the layout {layout!r} ({type(error).__name__}: "
                        f"{error}). Perhaps it is in the other: --format {other}. "
                        f"{counted(new, 'vote')} before it "
                        f"{'was' if new == 1 else 'were'} imported."
                    ) from error
                if made is None:
                    others += 1
                    continue
                page.append(made)
                if len(page) == 1000:
                    new += vote_store.import_votes(_foreign(vote_store, page))
                    page = []
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: cannot be read ({reason}).") from error
    return ImportedVotes(lines, new + vote_store.import_votes(_foreign(vote_store, page)), others)


def _foreign(vote_store: VoteStore, page: list[tuple[Battle, Vote]]) -> list[tuple[Battle, Vote]]:
    """Yield only votes on battles from elsewhere, so that importing one's own export adds nothing."""
    own = vote_store.known([str(battle.content["from"]) for battle, _ in page])
    return [(battle, vote) for battle, vote in page if battle.content["from"] not in own]


def _made(
    vote_store: VoteStore,
    key: str,
    models: tuple[str, str],
    choice: Choice,
    judge: str,
    conversations: tuple[list[str], list[str]],
    seconds: float,
    more: Mapping[str, Any],
) -> tuple[Battle, Vote]:
    """Build a battle and its vote from the common content of all layouts; conversations are texts, questions
    first. Several judges of one question get one battle each, about the same item.
    """
    seconds = seconds / 1000 if seconds > 1e11 else seconds  # some write milliseconds
    created = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds") if seconds else ""
    digest = hashlib.sha256("\0".join([key, *models, judge]).encode("utf-8", "replace")).hexdigest()
    turns = []
    for number in range(max(len(c) for c in conversations) // 2):
        said = [c[2 * number + 1] if len(c) > 2 * number + 1 else "" for c in conversations]
        left, right = (Answer(text, leak=leak(text, models)) for text in said)
        longer = max(conversations, key=len)
        turns.append(Turn(number, longer[2 * number], left, right))
    item = str(more.get("item") or hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:24])
    battle = Battle(
        id=digest[:16],
        voter=vote_store.voters.id_of(f"import\0{judge or digest}"),
        source="import",
        item=storable(item),
        left=storable(models[0]),
        right=storable(models[1]),
        propensity=_share(more.get("propensity")),
        images=tuple(image for image in more.get("images") or () if is_hash(str(image))),
        content={"from": storable(key), "truth": more.get("truth"), "right": _right(more.get("right"))},
        created=created,
        turns=tuple(turns),
    )
    reasons = tuple(storable(str(reason)) for reason in more.get("reasons") or ())
    return battle, Vote(choice, reasons, max(0, len(turns) - 1), created)


def _share(value: Any) -> float:
    """Parse a propensity; 0 if absent.

    Raises:
        ValueError: not a number from 0 to 1.
    """
    share = float(value or 0)
    if not 0 <= share <= 1:
        raise ValueError(f"propensity is {value!r}; allowed: a number from 0 to 1")
    return share


def _right(value: Any) -> list[bool | None]:
    """Parse whether both sides are right, if known.

    Raises:
        ValueError: anything else.
    """
    pair = [None, None] if value is None else value
    if not isinstance(pair, list) or len(pair) != 2 or not all(x in (True, False, None) for x in pair):
        raise ValueError(f"right is {value!r}; allowed: a list of two values, each true, false or null")
    return pair


def _from_preference(vote_store: VoteStore, row: Mapping[str, Any]) -> tuple[Battle, Vote] | None:
    if "winner_model_a" in row:  # the layout of 55k
        flags = [int(row[name]) for name in ("winner_model_a", "winner_model_b", "winner_tie")]
        choice = [Choice.LEFT, Choice.RIGHT, Choice.TIE][flags.index(1)]
        asked = [_list(row[name]) for name in ("prompt", "response_a", "response_b")]
        sides = ([x for pair in zip(asked[0], side, strict=False) for x in pair] for side in asked[1:])
        conversations = [[str(text) for text in texts] for texts in sides]
    else:
        winners = {sides: choice for choice, sides in _WINNERS.items()}
        if row["winner"] not in winners:
            raise ValueError(f"winner is {row['winner']!r}; allowed: {', '.join(winners)}")
        choice = winners[row["winner"]]
        conversations = [
            [_text(line["content"]) for line in _list(row[name]) if line["role"] != "system"]
            for name in ("conversation_a", "conversation_b")
        ]
    if row.get("repeats"):
        return None  # its own id differs here
    key = str(row.get("question_id") or row.get("id") or json.dumps(row, sort_keys=True))
    judge = str(row.get("judge") or row.get("judge_hash") or "")
    models, both = (row["model_a"], row["model_b"]), (conversations[0], conversations[1])
    return _made(vote_store, key, models, choice, judge, both, float(row.get("tstamp") or 0), row)


def _from_fastchat(vote_store: VoteStore, row: Mapping[str, Any]) -> tuple[Battle, Vote] | None:
    choices = {kind: choice for choice, kind in _TYPES.items()}
    if row["type"] not in choices:
        return None  # a chat, a regeneration …: not a vote
    left, right = row["states"]
    names = [
        state.get("model_name") or name for state, name in zip((left, right), row["models"], strict=True)
    ]
    conversations = [
        [_text(text) for _, text in state["messages"][int(state.get("offset") or 0) :] if text is not None]
        for state in (left, right)
    ]
    ids = [str(state.get("conv_id") or "") for state in (left, right)]
    own = {id.removesuffix(f"-{side}") for id, side in zip(ids, SIDES, strict=True)}
    # Two ids in our own format identify the battle; others identify conversations only.
    key = own.pop() if len(own) == 1 and ids[0] != ids[1] else "-".join([*ids, str(row["tstamp"])])
    seconds, judge = float(row["tstamp"]), str(row.get("ip") or "")
    both, models = (conversations[0], conversations[1]), (names[0], names[1])
    return _made(vote_store, key, models, choices[row["type"]], judge, both, seconds, {})


def _list(value: Any) -> list[Any]:
    """Return a list, also if it is stored as JSON in a string."""
    return list(json.loads(value) if isinstance(value, str) else value)


def _text(content: Any) -> str:
    """Return the text of a message, whose content may also be parts, or a text with images."""
    if isinstance(content, str):
        return content
    parts = [p if isinstance(p, str) else p.get("text", "") if isinstance(p, dict) else "" for p in content]
    return "".join(parts)
