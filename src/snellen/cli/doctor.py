"""``doctor``: print what a bug report needs."""

from __future__ import annotations

import typer

from snellen.cli.app import INSPECT, AsJson, Workspace, app, print_json


@app.command("doctor", rich_help_panel=INSPECT)
def doctor_(workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Print versions, devices, extras, workspace and providers for a bug report (no secrets)."""
    from snellen.reports.doctor import doctor, doctor_lines

    facts = doctor(workspace)
    if as_json:
        print_json(facts)
        return
    for line in doctor_lines(facts):
        typer.echo(line)
