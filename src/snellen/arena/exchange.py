"""Votes in the layouts that others use: public human-preference data, FastChat's logs, pairs for DPO."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from snellen.arena.ballots import SIDES, Answer, Ballots, Battle, Choice, Turn, Vote
from snellen.arena.leaks import leak
from snellen.errors import DataError

__all__ = ["EXPORTS", "IMPORTS", "Imported", "export", "read"]

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


class Imported(NamedTuple):
    """How many lines a file had, how many votes were new, and how many lines were no votes."""

    lines: int
    votes: int
    others: int


def export(ballots: Ballots, layout: str) -> Iterator[dict[str, Any]]:
    """Votes as they stand, one row each, the oldest first.

    Pairs for DPO are of decisive votes alone, without repeated battles and without those in which a model
    gave itself away.
    """
    for battle in ballots.voted():
        assert battle.vote is not None  # as they were asked for
        if layout == "preferences":
            yield _preference(battle, battle.vote)
        elif layout == "fastchat":
            yield _fastchat(battle, battle.vote)
        elif battle.vote.choice in SIDES and not battle.repeats and not battle.leak:
            yield _pair(battle, battle.vote)


def _conversation(battle: Battle, side: str) -> list[dict[str, str]]:
    found = []
    for turn in battle.turns:
        found.append({"role": "user", "content": turn.question})
        if (said := getattr(turn, side)) is not None:
            found.append({"role": "assistant", "content": said.text})
    return found


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
        "images": list(battle.images),
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
        "models": ["", ""],  # as in every anonymous battle; the names stand in the states
        "states": states,
        "ip": battle.voter,
    }


def _pair(battle: Battle, vote: Vote) -> dict[str, Any]:
    better, worse = SIDES if vote.choice == "left" else reversed(SIDES)
    chosen, rejected = _conversation(battle, better), _conversation(battle, worse)
    images = list(battle.images)
    return {"prompt": chosen[:1], "chosen": chosen[1:], "rejected": rejected[1:], "images": images}


def _seconds(created: str) -> float:
    with suppress(ValueError):
        return datetime.fromisoformat(created).timestamp()
    return 0.0


def read(ballots: Ballots, path: Path, layout: str) -> Imported:
    """Take votes over from a file of JSON lines. What was taken over before is not doubled.

    Voters' names and addresses become salted ids; images are not in these files.

    Raises:
        DataError: the file cannot be read, or a line is not of this layout.
    """
    source = f"import:{layout}"
    page: list[tuple[Battle, Vote]] = []
    lines = new = others = 0
    make = {"preferences": _from_preference, "fastchat": _from_fastchat}[layout]
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                lines += 1
                where = f"{path}, line {number}"
                try:
                    row = json.loads(line)
                    made = make(ballots, row, source)
                except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                    raise DataError(
                        f"{where}: not of the layout {layout!r} ({type(error).__name__}: {error}). Layouts "
                        f"that are read: {', '.join(IMPORTS)}."
                    ) from error
                if made is None:
                    others += 1
                    continue
                page.append(made)
                if len(page) == 1000:
                    new += ballots.import_votes(page)
                    page = []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error
    return Imported(lines, new + ballots.import_votes(page), others)


def _made(
    ballots: Ballots,
    source: str,
    key: str,
    models: tuple[str, str],
    choice: Choice,
    judge: str,
    conversations: tuple[list[str], list[str]],
    seconds: float,
    more: Mapping[str, Any],
) -> tuple[Battle, Vote]:
    """A battle and its vote from what all layouts hold; conversations are texts, questions first."""
    created = datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else ""
    digest = hashlib.sha256(f"{source}\0{key}".encode()).hexdigest()[:16]
    turns = []
    for number in range(max(len(c) for c in conversations) // 2):
        said = [c[2 * number + 1] if len(c) > 2 * number + 1 else "" for c in conversations]
        left, right = (Answer(text, leak=leak(text, models)) for text in said)
        turns.append(Turn(number, (conversations[0] or conversations[1])[2 * number], left, right))
    text = "\0".join([*sorted(models), *(turns[0].question if turns else digest)])
    battle = Battle(
        digest,
        ballots.voter(f"{source}\0{judge or key}"),
        source,
        str(more.get("item") or hashlib.sha256(text.encode()).hexdigest()[:24]),
        *models,
        float(more.get("propensity") or 0.0),
        tuple(image for image in more.get("images") or () if isinstance(image, str)),
        {name: more[name] for name in ("truth", "right") if more.get(name) is not None},
        created=created,
        turns=tuple(turns),
    )
    reasons = tuple(str(reason) for reason in more.get("reasons") or ())
    return battle, Vote(choice, reasons, max(0, len(turns) - 1), created)


def _from_preference(ballots: Ballots, row: Mapping[str, Any], source: str) -> tuple[Battle, Vote] | None:
    if "winner_model_a" in row:  # the layout of 55k
        flags = [int(row[name]) for name in ("winner_model_a", "winner_model_b", "winner_tie")]
        choice = [Choice.LEFT, Choice.RIGHT, Choice.TIE][flags.index(1)]
        asked = [_list(row[name]) for name in ("prompt", "response_a", "response_b")]
        told = ([x for pair in zip(asked[0], side, strict=False) for x in pair] for side in asked[1:])
        conversations = [[str(text) for text in texts] for texts in told]
    else:
        winners = {told: choice for choice, told in _WINNERS.items()}
        if row["winner"] not in winners:
            raise ValueError(f"winner is {row['winner']!r}; known: {', '.join(winners)}")
        choice = winners[row["winner"]]
        conversations = [
            [_text(line["content"]) for line in _list(row[name]) if line["role"] != "system"]
            for name in ("conversation_a", "conversation_b")
        ]
    if row.get("repeats"):
        return None  # of one whose own id is another here
    key = str(row.get("question_id") or row.get("id") or json.dumps(row, sort_keys=True))
    judge = str(row.get("judge") or row.get("judge_hash") or "")
    models, both = (row["model_a"], row["model_b"]), (conversations[0], conversations[1])
    return _made(ballots, source, key, models, choice, judge, both, float(row.get("tstamp") or 0), row)


def _from_fastchat(ballots: Ballots, row: Mapping[str, Any], source: str) -> tuple[Battle, Vote] | None:
    choices = {told: choice for choice, told in _TYPES.items()}
    if row["type"] not in choices:
        return None  # a chat, a regeneration …: no vote
    left, right = row["states"]
    names = [
        state.get("model_name") or name for state, name in zip((left, right), row["models"], strict=True)
    ]
    conversations = [
        [_text(text) for _, text in state["messages"][int(state.get("offset") or 0) :] if text is not None]
        for state in (left, right)
    ]
    key = f"{left.get('conv_id')}-{right.get('conv_id')}-{row['tstamp']}"
    seconds, judge = float(row["tstamp"]), str(row.get("ip") or "")
    both, models = (conversations[0], conversations[1]), (names[0], names[1])
    return _made(ballots, source, key, models, choices[row["type"]], judge, both, seconds, {})


def _list(value: Any) -> list[Any]:
    """A list, also where it stands as JSON in a text."""
    return list(json.loads(value) if isinstance(value, str) else value)


def _text(content: Any) -> str:
    """The text of a message, whose content may also be parts, or a text with images."""
    if isinstance(content, str):
        return content
    parts = [p if isinstance(p, str) else p.get("text", "") if isinstance(p, dict) else "" for p in content]
    return "".join(parts)
