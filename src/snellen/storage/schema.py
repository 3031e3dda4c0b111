"""The tables of a workspace: runs, answers, and the arena's battles and votes."""

from __future__ import annotations

import sqlalchemy as sa

__all__ = [
    "COLUMNS",
    "SCHEMA_VERSION",
    "arena_answers",
    "battles",
    "exclusions",
    "metadata",
    "predictions",
    "responses",
    "reveals",
    "runs",
    "samples",
    "settings",
    "skips",
    "turns",
    "vote_addresses",
    "voters",
    "votes",
]

#: Stored in the database; increment it when a table changes.
SCHEMA_VERSION = 1
#: The columns of :meth:`Store.frame` that every protocol has.
COLUMNS = (
    "id",
    "label",
    "prediction",
    "outcome",
    "reason",
    "answers",
    "questions",
    "ranking",
    "latencies",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "images",
    "metrics",
)
metadata = sa.MetaData()

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("digest", sa.String, unique=True, nullable=False),
    sa.Column("created", sa.String, nullable=False, index=True),
    sa.Column("updated", sa.String, nullable=False, index=True),
    sa.Column("status", sa.String, nullable=False),  # running, interrupted, stopped, finished
    sa.Column("n_new", sa.Integer, nullable=False, default=0),  # samples that called the model
    sa.Column("seconds", sa.Float, nullable=False, default=0.0),  # the time that those took
    sa.Column("manifest", sa.JSON, nullable=False),
    sa.Column("metrics", sa.JSON),
)
samples = sa.Table(
    "samples",
    metadata,
    sa.Column("run", sa.String, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("label", sa.String),
    sa.Column("images", sa.JSON, nullable=False),  # their SHA-256 hashes
    sa.Column("content", sa.JSON, nullable=False),  # question, choices, references, meta …
    sa.Index("samples_by_position", "run", "position"),
)
predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("run", sa.String, sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("sample", sa.String, primary_key=True),
    sa.Column("label", sa.String, nullable=False),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("questions", sa.Integer, nullable=False),
    sa.Column("ranking", sa.JSON, nullable=False),
    sa.Column("details", sa.JSON, nullable=False),
    sa.Column("responses", sa.JSON, nullable=False),  # keys, in the order of the requests
    sa.Column("metrics", sa.JSON, nullable=False, server_default="{}"),  # scores by name
)
responses = sa.Table(
    "responses",
    metadata,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("request", sa.JSON, nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("scores", sa.JSON, nullable=False),  # [value or null for -inf, tokens] each
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("latency", sa.Float, nullable=False),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("completion_tokens", sa.Integer, nullable=False),
    sa.Column("created", sa.String, nullable=False),
    sa.Column("thinking", sa.Text, nullable=False, server_default=""),
    sa.Column("meta", sa.JSON, nullable=False, server_default="{}"),
)

#: Values shared by the whole workspace: the salt of voters' ids.
settings = sa.Table(
    "settings",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)
battles = sa.Table(
    "battles",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("created", sa.String, nullable=False, index=True),
    sa.Column("voter", sa.String, nullable=False, index=True),  # a salted hash
    sa.Column("source", sa.String, nullable=False),  # live, runs, or the source of an import
    sa.Column("item", sa.String, nullable=False, index=True),  # the same for everyone who sees the same
    sa.Column("left", sa.String, nullable=False),
    sa.Column("right", sa.String, nullable=False),
    sa.Column("propensity", sa.Float, nullable=False),  # of this pair when it was drawn
    sa.Column("repeats", sa.String, sa.ForeignKey("battles.id")),  # an earlier battle of the same voter
    sa.Column("images", sa.JSON, nullable=False),  # their SHA-256 hashes
    sa.Column("content", sa.JSON, nullable=False),  # sample, truth, who is right …
    sa.Index("battles_by_pair", "left", "right"),
)
turns = sa.Table(
    "turns",
    metadata,
    sa.Column("battle", sa.String, sa.ForeignKey("battles.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("created", sa.String, nullable=False),
)
arena_answers = sa.Table(
    "arena_answers",
    metadata,
    sa.Column("battle", sa.String, primary_key=True),
    sa.Column("turn", sa.Integer, primary_key=True),
    sa.Column("side", sa.String, primary_key=True),  # left or right
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    sa.Column("leak", sa.String, nullable=False),  # the words that reveal its author
    sa.Column("created", sa.String, nullable=False),
    sa.ForeignKeyConstraint(["battle", "turn"], ["turns.battle", "turns.number"]),
    sa.Index(
        "answers_that_leak",
        "battle",
        sqlite_where=sa.text("leak <> ''"),
        postgresql_where=sa.text("leak <> ''"),
    ),
)
#: Votes form a chain per battle and voter: a vote (0), its undo (1), another vote (2) … The
#: database itself refuses a second vote, and any change or deletion.
votes = sa.Table(
    "votes",
    metadata,
    sa.Column("battle", sa.String, sa.ForeignKey("battles.id"), primary_key=True),
    sa.Column("voter", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("supersedes", sa.Integer),
    sa.Column("choice", sa.String, nullable=False),  # left, right, tie, both_bad, undo
    sa.Column("reasons", sa.JSON, nullable=False),
    sa.Column("turn", sa.Integer, nullable=False),  # the last one seen
    sa.Column("left", sa.String, nullable=False),
    sa.Column("right", sa.String, nullable=False),
    sa.Column("propensity", sa.Float, nullable=False),
    sa.Column("created", sa.String, nullable=False),
    sa.CheckConstraint("(number = 0) = (supersedes IS NULL)", name="votes_begin"),
    sa.CheckConstraint("supersedes = number - 1", name="votes_chain"),  # or null
    sa.CheckConstraint("(choice = 'undo') = (number % 2 = 1)", name="votes_alternate"),
    sa.CheckConstraint("choice IN ('left', 'right', 'tie', 'both_bad', 'undo')", name="votes_choices"),
    sa.ForeignKeyConstraint(
        ["battle", "voter", "supersedes"], ["votes.battle", "votes.voter", "votes.number"]
    ),
)
reveals = sa.Table(
    "reveals",
    metadata,
    sa.Column("battle", sa.String, sa.ForeignKey("battles.id"), primary_key=True),
    sa.Column("voter", sa.String, primary_key=True),
    sa.Column("created", sa.String, nullable=False),
)
#: Battles that their voter passed over.
skips = sa.Table(
    "skips",
    metadata,
    sa.Column("battle", sa.String, sa.ForeignKey("battles.id"), primary_key=True),
    sa.Column("created", sa.String, nullable=False),
)
#: Voters to whom a cookie was issued, and the salted hash of the address that they came from.
voters = sa.Table(
    "voters",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("address", sa.String, nullable=False, index=True),  # empty once it is forgotten
    sa.Column("created", sa.String, nullable=False),
)
#: The salted hash of the address that a vote came from; apart, so that it can be forgotten while the vote
#: stays.
vote_addresses = sa.Table(
    "vote_addresses",
    metadata,
    sa.Column("battle", sa.String, sa.ForeignKey("battles.id"), primary_key=True),
    sa.Column("voter", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("address", sa.String, nullable=False, index=True),
    sa.Column("created", sa.String, nullable=False),
)
#: Whose votes do not count: the last row about a voter or an address holds. Rows are added, never changed.
exclusions = sa.Table(
    "exclusions",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("who", sa.String, nullable=False, index=True),  # a voter's id, or @ and an address's hash
    sa.Column("excluded", sa.Boolean, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("created", sa.String, nullable=False),
)

#: Statements that make votes append-only, by dialect.
_APPEND_ONLY = {
    "sqlite": [
        f"CREATE TRIGGER votes_no_{what.lower()} BEFORE {what} ON votes "
        "BEGIN SELECT RAISE(ABORT, 'votes are append-only'); END"
        for what in ("UPDATE", "DELETE")
    ]
    # REPLACE deletes without a trigger, so existing rows are protected before it.
    + [
        "CREATE TRIGGER votes_no_replace BEFORE INSERT ON votes WHEN EXISTS (SELECT 1 FROM votes WHERE "
        "battle = NEW.battle AND voter = NEW.voter AND number = NEW.number) BEGIN SELECT RAISE(IGNORE); END"
    ],
    "postgresql": [
        "CREATE OR REPLACE FUNCTION snellen_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'votes are append-only'; END $$",
        "CREATE TRIGGER votes_append_only BEFORE UPDATE OR DELETE ON votes "
        "FOR EACH ROW EXECUTE FUNCTION snellen_append_only()",
        "CREATE TRIGGER votes_no_truncate BEFORE TRUNCATE ON votes "
        "FOR EACH STATEMENT EXECUTE FUNCTION snellen_append_only()",
    ],
}


@sa.event.listens_for(votes, "after_create")
def _protect(_: sa.Table, connection: sa.Connection, **__: object) -> None:
    for statement in _APPEND_ONLY[connection.dialect.name]:
        connection.exec_driver_sql(statement)
