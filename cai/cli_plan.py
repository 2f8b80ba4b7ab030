"""The commands before a run: `plan` says what it will take, `try` tunes a principle."""

import json
from functools import partial
from typing import Any

import click

from cai.cli_options import make_options, run_options


@click.command("plan")
@run_options
@click.option("--out", help="Run folder, whose records count as kept.")
@click.option("--until", help="Plan up to this stage.")
@click.option("--base", help="An earlier run whose unchanged records are reused.")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), help="Tokens/s generated, in a full batch."
)
@click.option(
    "--measure", is_flag=True, help="Measure: generate a batch, train a few steps (minutes)."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def plan(as_json: bool, **values: Any) -> None:
    """Say what a run would ask, keep and take: calls, tokens, time, disk, memory. Runs nothing."""
    from cai.planning import PlanOptions, plan_run
    from cai.view.planned import footprint_lines, forecast_json, planned_lines

    asked = PlanOptions(**{name: values.pop(name) for name in PlanOptions._fields})
    found = plan_run(make_options(values), asked, partial(click.echo, err=True))
    if as_json:
        data = forecast_json(found.forecast, found.footprint) | {"missing_models": found.missing}
        click.echo(json.dumps(data, indent=1))
        return
    for line in (*planned_lines(found.forecast), *footprint_lines(found.footprint)):
        click.echo(line)
    for name in found.missing:
        click.echo(f"{name}: not on this machine, size unknown; pull it: cai model pull {name}")


@click.command("try")
@click.option("--constitution", required=True, help="Constitution file, or a shipped one's name.")
@click.option("--prompt", required=True, help="What is asked, or a dialogue of Human: Assistant:")
@click.option("--principle", "principles", multiple=True, help="Draw only this one (repeatable).")
@click.option("--recipe", help="A shipped config: quickstart, small, paper.")
@click.option("--config", help="A config file (YAML).")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a setting.")
@click.option("--model", help="Who responds: embedded name, folder or hub id.")
@click.option("--seed", type=click.IntRange(0), help="Decides every draw.")
@click.option("--watch", is_flag=True, help="Run again whenever the constitution is saved.")
def try_(prompt: str, principles: tuple[str, ...], watch: bool, **values: Any) -> None:
    """Respond, criticise and revise ONE prompt before your eyes: the way to tune a principle.

    The prompt draws what it draws in a run of the same seed. Nothing is written.
    """
    from cai.trial import TrialOptions, run_trial
    from cai.view.streamed import Streamed
    from cai.view.terminal import standard_console

    options = TrialOptions(make_options(values), prompt, principles, watch)
    run_trial(options, Streamed(standard_console()))
