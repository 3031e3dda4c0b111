"""The command line: parses, calls one function, prints. What it prints on errors is one sentence."""

from __future__ import annotations

import sys

import typer

from snellen.cli import browser, chat, diagnosis, examine, look, studies, tuning
from snellen.cli.app import app
from snellen.errors import SnellenError, UsageError
from snellen.redaction import redact

__all__ = ["app", "browser", "chat", "diagnosis", "examine", "look", "main", "studies", "tuning"]


def main() -> None:
    """Run the command line; errors of Snellen's own become one message and an exit code."""
    try:
        app()
    except SnellenError as error:
        typer.echo(f"Error: {redact(str(error))}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
