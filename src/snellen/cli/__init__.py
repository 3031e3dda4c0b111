"""The command line: each command parses, calls one function and prints. An error prints as one message."""

from __future__ import annotations

import sys
import warnings

import typer

from snellen._util.redaction import redact
from snellen.cli import (
    browser,
    chat,
    check,
    decide,
    diagnosis,
    doctor,
    evaluate,
    eye_test,
    inspect,
    suites,
    tuning,
    votes,
)
from snellen.cli.app import app, speak_ascii
from snellen.errors import Interrupted, SnellenError, UsageError

__all__ = [
    "app",
    "browser",
    "chat",
    "check",
    "decide",
    "diagnosis",
    "doctor",
    "evaluate",
    "eye_test",
    "inspect",
    "main",
    "suites",
    "tuning",
    "votes",
]


def main() -> None:
    """Run the command line; Snellen's own errors become one message and an exit code."""
    speak_ascii()
    # Pillow's warning about an image that is refused anyway.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    try:
        app()
    except SnellenError as error:
        typer.echo(f"Error: {redact(str(error))}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 130 if isinstance(error, Interrupted) else 1)
