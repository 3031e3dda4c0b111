"""``tune`` and ``build``: fine-tune a model, or assemble one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from snellen.cli.app import (
    IMPROVE,
    AsJson,
    DataOptions,
    ModelOptions,
    Quiet,
    Workspace,
    app,
    print_json,
    read_options,
    screen,
)
from snellen.cli.completion import complete_data
from snellen.errors import BadOption


@app.command("tune", rich_help_panel=IMPROVE)
def tune_(
    model: Annotated[str, typer.Argument(help="A model, such as hf:ORG/NAME or pico:llava-skewed.")],
    data: Annotated[
        str,
        typer.Option(
            "-d",
            "--data",
            autocompletion=complete_data,
            help="The data set to evaluate on; its training split is used for training.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="DIR", help="Write the model, its card and checkpoints here."),
    ],
    recipe: Annotated[
        str, typer.Option(help="What to train: lora, qlora, projector, decoder, two-stage, full, head.")
    ] = "lora",
    train_parts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART[@RATE]",
            help="Parts that lora, qlora or full trains: vision, projector, decoder; with a learning rate.",
        ),
    ] = None,
    train: Annotated[
        str | None, typer.Option(metavar="DATA", help="Train on this data set instead of the training split.")
    ] = None,
    train_split: Annotated[str | None, typer.Option(help="The name of the training split.")] = None,
    hold_out: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Evaluate on this share and train on the rest.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="folder|COLUMN", help="With --hold-out, keep images of a folder or group on one side."
        ),
    ] = None,
    mix: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA[@WEIGHT]",
            help="Mix in this data set, with WEIGHT examples per example of the data.",
        ),
    ] = None,
    retention_data: Annotated[
        list[str] | None,
        typer.Option(metavar="DATA", help="Evaluate forgetting on this data set too. Repeatable."),
    ] = None,
    train_format: Annotated[
        Literal["both", "open", "names"],
        typer.Option(help="Train on open questions, on lists of class names, or both."),
    ] = "both",
    oversample: Annotated[
        list[str] | None,
        typer.Option(
            metavar="rare|hard|none",
            help="Repeat images of rare classes, or hard ones. Repeatable. "
            "[dim]rare, if classes are unequal[/dim]",
        ),
    ] = None,
    augment: Annotated[
        list[str] | None,
        typer.Option(
            metavar="flip|rotate|crop|light",
            help="Change images of classes at random in training. Repeatable.",
        ),
    ] = None,
    leaks: Annotated[
        Literal["refuse", "drop", "allow"],
        typer.Option(
            help="How to handle training images that are in the test set; drop: near-duplicates, too."
        ),
    ] = "refuse",
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Fit a linear probe to the features before training.")
    ] = True,
    training_option: Annotated[
        list[str] | None,
        typer.Option("-T", metavar="KEY=VALUE", help="Set an option of TRL's SFTConfig. Repeatable."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A YAML file with options of TRL's SFTConfig.")
    ] = None,
    lora_option: Annotated[
        list[str] | None,
        typer.Option("-L", metavar="KEY=VALUE", help="Set an option of PEFT's LoraConfig: r, lora_alpha …"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Evaluate on the first N samples of each task only.")
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(help="Train and evaluate on these classes only (comma-separated). Repeatable."),
    ] = None,
    min_per_class: Annotated[
        int | None,
        typer.Option(metavar="N", help="Leave out classes with fewer training images."),
    ] = None,
    train_limit: Annotated[int | None, typer.Option(help="Train on N random samples only.")] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Skip unreadable images and list them.")
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge the adapter into the model and write it to DIR/merged.")
    ] = False,
    export: Annotated[
        list[str] | None,
        typer.Option(
            metavar="vllm|ollama|gguf",
            help="Write what this server needs to run the model; implies --merge. Repeatable.",
        ),
    ] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(metavar="ORG/NAME", help="Push the model to the Hugging Face Hub, as private."),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make the pushed model public.")] = False,
    model_option: ModelOptions = None,
    data_option: DataOptions = None,
    batch_size: Annotated[int | None, typer.Option(help="Requests per batch.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed for splitting, sampling and training.")] = 0,
    seeds: Annotated[
        int, typer.Option(help="Train so often, with this and the following seeds, to see how results vary.")
    ] = 1,
    split_seed: Annotated[
        int | None, typer.Option(help="Random seed for splitting alone. [dim]as --seed[/dim]")
    ] = None,
    workspace: Workspace = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model on your images and evaluate it on the same samples before and after.

    Rerunning resumes from the last checkpoint. On several GPUs: accelerate launch -m snellen tune …
    """
    # Long for its options alone.
    from snellen.exchange.publish import check_address, publish
    from snellen.reports.progress import progress
    from snellen.reports.training import training
    from snellen.runs.filters import Filters
    from snellen.storage.store import Store
    from snellen.tuning.trainer_settings import read_settings
    from snellen.tuning.tuning import Tuning

    if public and push_to_hub is None:
        raise BadOption("--public needs --push-to-hub.")
    if push_to_hub is not None:
        check_address(push_to_hub)
    settings = read_settings(read_options("-T", training_option), config)
    store = Store(workspace)
    with training(quiet=quiet) as watch, progress(quiet=quiet) as watch_evaluation:
        tuning = Tuning(
            model=model,
            data=data,
            out=output,
            train=train,
            train_split=train_split,
            hold_out=hold_out,
            recipe=recipe,
            train_parts=_words(train_parts),
            augment=_words(augment),
            min_per_class=min_per_class,
            mix=mix or (),
            retention_data=retention_data or (),
            train_format=train_format,
            group=group,
            oversample=_words(oversample) if oversample else None,
            probe=probe,
            split_seed=split_seed,
            seeds=seeds,
            leaks=leaks,
            settings=settings,
            lora=_values("-L", read_options("-L", lora_option)),
            model_options=read_options("-M", model_option),
            data_options=read_options("-D", data_option),
            filters=Filters(limit=limit, classes=tuple(classes or ()), skip_invalid=skip_invalid),
            train_limit=train_limit,
            merge=merge,
            export=_words(export),
            batch_size=batch_size,
            seed=seed,
            workspace=store,
            watch=watch,
            watch_evaluation=watch_evaluation,
        )
        result = tuning.run()
    if result is None:  # not the first of several processes
        return
    if as_json and push_to_hub is None:
        print_json(result.as_dict())
        return
    if not as_json:
        _show(result, store.option)
    if push_to_hub is not None:  # even if it fails, the figures are shown
        address = publish(output, push_to_hub, public=public)
        if as_json:
            print_json({**result.as_dict(), "address": address})
        else:
            screen().print(f"Pushed to {address}", soft_wrap=True)


def _words(given: Sequence[str] | None) -> list[str]:
    """Return the words of repeated options, each of which may be a list with commas."""
    return [word.strip() for item in given or () for word in item.split(",")]


def _values(flag: str, given: Mapping[str, str]) -> dict[str, object]:
    """Parse values as YAML.

    Raises:
        BadOption: one is not valid YAML.
    """
    import yaml

    values = {}
    for key, text in given.items():
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise BadOption(f"{flag} {key}={text!r} is not allowed; write the value as in YAML.") from error
    return values


def _show(result: object, where: str) -> None:
    """Print the table of before and after, and what to do next."""
    from rich.table import Table

    from snellen.reports.tables import escape
    from snellen.tuning.results import remarks
    from snellen.tuning.tuning import TunedModel

    assert isinstance(result, TunedModel)
    console = screen()
    table = Table(title="Before and after, on the same samples", title_justify="left")
    for heading in ("task", "score", "samples", "before %", "after %", "difference in points (95%)", ""):
        table.add_column(heading, justify="left" if heading in ("task", "score", "") else "right")
    colors = {"better": "green", "worse": "red", "collapsed": "red", "no difference shown": "dim"}
    for row in [*result.results, *([result.weakest] if result.weakest else [])]:
        *cells, sentence = row.cells
        color = colors[row.verdict]
        table.add_row(escape(row.task), row.score, str(row.paired.n), *cells, f"[{color}]{sentence}[/]")
    console.print(table)
    for remark in remarks(result.results):
        console.print(escape(remark), soft_wrap=True)
    for spread in result.seeds:
        console.print(escape(str(spread)), soft_wrap=True, highlight=False)
    if not result.seeds:
        console.print(
            "One seed: with another, a few points may change. --seeds 3 shows how much.", style="dim"
        )
    for note in result.notes:
        console.print(f"[yellow]Note:[/] {escape(note)}", soft_wrap=True)
    console.print(f"Saved to {result.folder}, with a model card: README.md.", soft_wrap=True)
    for deployment in result.deployments:
        named = f"Serve it with {deployment.format}: {deployment.serve}"
        console.print(named, soft_wrap=True, highlight=False, markup=False)
        console.print(f"Evaluate it there: {deployment.evaluate} --data DATA", style="dim", soft_wrap=True)
    first = result.results[0]
    console.print(
        f"Compare samples: snellen compare {first.first} {first.second} --across{where}",
        style="dim",
        soft_wrap=True,
    )
    use = "chat {} --image FILE" if result.model.startswith("hf:") else "run --model {} --data DATA"
    named = shlex.quote(result.model)
    console.print(f"Use it: snellen {use.format(named)}", style="dim", soft_wrap=True)


@app.command("build", rich_help_panel=IMPROVE)
def build_(
    language: Annotated[str, typer.Option(metavar="MODEL", help="The decoder: hf:ORG/NAME or hf:FOLDER.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Write the model here.")],
    vision: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The vision encoder: CLIP, SigLIP, ViT or DINOv2. [dim]None: raw pixels, as in Fuyu[/dim]",
        ),
    ] = None,
    layer: Annotated[int, typer.Option(help="The encoder's hidden state that the projector reads.")] = -2,
    select: Annotated[
        Literal["auto", "default", "full"],
        typer.Option(help="Which image tokens to use; default drops the class token."),
    ] = "auto",
    image_size: Annotated[
        int | None, typer.Option(help="Image size in pixels a side, without an encoder. [dim]224[/dim]")
    ] = None,
    patch: Annotated[
        int | None, typer.Option(help="Patch size in pixels a side, without an encoder. [dim]16[/dim]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed for the projector's initial weights.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Assemble a vision-language model from an encoder, a decoder and an untrained projector."""
    from snellen.tuning.build import build

    built = build(
        language,
        output,
        vision=vision,
        layer=layer,
        select=select,
        image_size=image_size,
        patch=patch,
        seed=seed,
    )
    if as_json:
        print_json(built.as_dict())
        return
    console = screen()
    for name, count in built.parameters.items():
        note = ", untrained" if name == "projector" else ""
        if name == "vision tower" and vision is None:
            note = " (only passes on the pixels of each patch)"
        console.print(f"{name}: {count:,} parameters{note}")
    template = {
        "decoder": "the decoder's own",
        "plain": "plain (USER: … ASSISTANT: …), as the decoder has none",
    }
    console.print(f"An image takes {built.tokens} tokens. Chat template: {template[built.template]}.")
    console.print(
        f"Train it: snellen tune {shlex.quote(f'hf:{built.folder}')} --recipe two-stage --data DATA -o TUNED",
        style="dim",
        soft_wrap=True,
    )
