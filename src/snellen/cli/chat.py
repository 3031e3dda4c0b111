"""``chat``: chat with a model about an image in the terminal."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snellen.cli.app import PEOPLE, MaxCost, ModelOptions, app, load, read_options

if TYPE_CHECKING:
    from snellen.images import Image
    from snellen.models.base import Model

#: The commands of a chat.
COMMANDS = "/image FILE: another image · /forget: start over · /quit"


@app.command("chat", rich_help_panel=PEOPLE)
def chat_(
    model: Annotated[str, typer.Argument(help="A model, such as hf:ORG/NAME, hf:TUNED or pico:llava.")],
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="The image to chat about.")] = None,
    with_: Annotated[
        str | None, typer.Option("--with", metavar="MODEL", help="A second model, asked the same questions.")
    ] = None,
    ask: Annotated[
        list[str] | None, typer.Option(metavar="QUESTION", help="Ask this question and exit. Repeatable.")
    ] = None,
    model_option: ModelOptions = None,
    max_tokens: Annotated[int, typer.Option(help="The most tokens per answer.")] = 512,
    max_cost: MaxCost = None,
) -> None:
    """Chat with a model about an image (streaming). In the browser: snellen play MODEL."""
    from snellen.chat.conversation import check_talker
    from snellen.errors import BadOption, SnellenError
    from snellen.runs.matching import live_models

    if max_tokens < 1:
        raise BadOption(f"--max-tokens {max_tokens} is not allowed; allowed: 1 or more.")
    shown = _opened(image) if image is not None else None
    names = [model, *([with_] if with_ else [])]
    models = live_models(names, read_options("-M", model_option), max_cost)
    for item in models:
        check_talker(item)
    talk = _ChatSession(models, shown, max_tokens)
    load(models)
    try:
        if ask is not None:
            for question in ask:
                if not question.strip():
                    raise BadOption("--ask: the question is empty.")
                if not talk.ask(question):
                    raise typer.Exit(1)
            return
        with suppress(AttributeError):  # input may be invalid text
            sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr] # a test's input has none
        if sys.stdin.isatty():
            typer.echo(f"Ask. {COMMANDS}", err=True)
        while (line := _line()) is not None and line != "/quit":
            command, _, rest = line.partition(" ")
            try:
                if command == "/image":
                    talk = _ChatSession(models, _opened(Path(rest.strip()).expanduser()), max_tokens)
                elif line == "/forget":
                    talk = _ChatSession(models, talk.image, max_tokens)
                elif line.startswith("/"):
                    typer.echo(COMMANDS, err=True)
                elif line.strip():
                    talk.ask(line)
            except SnellenError as error:  # the chat continues after a misspelled name
                typer.echo(f"Error: {error}", err=True)
    finally:
        for item in models:
            item.close()


class _ChatSession:
    """The conversation so far with each model."""

    def __init__(self, models: list[Model], image: Image | None, max_tokens: int) -> None:
        self.models, self.image, self.max_tokens = models, image, max_tokens
        self.said: list[list[tuple[str, str]]] = [[] for _ in models]

    def ask(self, question: str) -> bool:
        """Ask all models and print their answers as they stream; return whether all answered."""
        from snellen.chat.conversation import continued
        from snellen.reports.tables import harmless
        from snellen.types import Outcome

        images = [self.image] if self.image is not None else []
        well = True
        for model, said in zip(self.models, self.said, strict=True):
            if len(self.models) > 1:
                typer.secho(f"{model.name}:", bold=True)
            stream = model.stream(continued(images, said, question, self.max_tokens))
            try:
                while True:
                    typer.echo(harmless(next(stream), "\n\t"), nl=False)
            except StopIteration as end:
                reply = end.value
            except KeyboardInterrupt:
                stream.close()
                typer.echo("\n(stopped)")
                return False
            typer.echo("" if reply.text or reply.outcome is not Outcome.OK else "(an empty answer)")
            well = well and reply.outcome is not Outcome.ERROR
            if reply.outcome is not Outcome.OK:
                typer.echo(f"({reply.outcome}: {harmless(reply.reason)})", err=True)
            said.append((question, reply.text))
        return well


def _opened(path: Path) -> Image:
    """Open an image and check that it can be read.

    Raises:
        ImageError: it cannot.
    """
    from snellen.images import Image

    picture = Image.from_path(path)
    _ = picture.pixels
    return picture


def _line() -> str | None:
    """Read the next line; None at the end."""
    try:
        return input("> " if sys.stdin.isatty() else "")
    except (EOFError, KeyboardInterrupt):
        return None
