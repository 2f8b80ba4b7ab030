"""The command line: parse, call, print. What is heavy is imported by the command that needs it."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import click

import cai
from cai import stopping
from cai.cli_compare import compare
from cai.cli_interop import export, import_
from cai.cli_measure import eval_, judge_test, reproduce, score
from cai.cli_options import make_options, run_options
from cai.cli_plan import plan, try_
from cai.cli_read import annotate, browse, show
from cai.errors import CaiError, Damaged
from cai.run import NO_SPACE, disk_full

EPILOG = (
    "Exit codes: 0 done, 1 unexpected error, 2 usage or configuration, 3 too many failed rows, "
    "4 a check of --strict or a bound of guards not passed, 5 a damaged file in a run, "
    "75 stopped and resumable (the same command continues), 129 terminal closed, 130 Ctrl-C, "
    "143 SIGTERM."
)
RESUMABLE = ("run", "judge-test", "eval", "reproduce")
"""The commands that find again what they had finished when they were stopped."""


class Group(click.Group):
    """Turns a `CaiError` into its line and its exit code; everything else keeps its traceback."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.obj = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CaiError as error:
            from cai.view.terminal import clean

            # What a model, a file or a run's name says may stand in it.
            click.echo(f"Error: {clean(error)}", err=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            full = disk_full(error.filename or "a file")
            click.echo(f"Error: {full}", err=True)
            ctx.exit(full.exit_code)
        except (KeyboardInterrupt, SystemExit):
            number = stopping.signalled()
            if not number:
                raise
            click.echo(stopped_line(ctx), err=True)
            ctx.exit(128 + number)


def stopped_line(ctx: click.Context) -> str:
    """What is said of a command that a signal has stopped."""
    if ctx.invoked_subcommand not in RESUMABLE:
        return "Stopped."
    from cai.view.terminal import clean

    command = clean(shlex.join(["cai", *ctx.obj]))
    return f"Stopped. What is finished is kept; to go on, type: {command}"


@click.group(cls=Group, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(cai.__version__, prog_name="cai")
def main() -> None:
    """Constitutional AI: a model improves itself against your principles."""
    stopping.install()
    # For what this process itself loads, such as the hub's client; see `cai.environment`.
    os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")


@main.command()
@run_options
@click.option("--out", help="Run folder [default: runs/CONSTITUTION-RECIPE-DIGEST].")
@click.option("--until", help="Stop after this stage.")
@click.option("--base", help="An earlier run whose unchanged records are reused.")
def run(out: str | None, until: str | None, base: str | None, **values: Any) -> None:
    """Run the whole method, or go on with it: the same command continues an interrupted run."""
    from cai.conduct import conduct

    conduct(make_options(values), out, until, base)


@main.command()
@run_options
@click.option("-v", "--verbose", is_flag=True, help="Print the whole resolved config.")
def check(verbose: bool, **values: Any) -> None:
    """Check constitution, config or recipe, templates and prompts, without generating anything."""
    from cai.prepare import prepare
    from cai.view.checked import checked_lines

    prepared = prepare(make_options(values))
    for line in checked_lines(prepared):
        click.echo(line)
    if verbose:
        click.echo(prepared.config.model_dump_json(indent=1))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.option("--folder", default="runs", show_default=True, help="Where the runs are.")
def runs(as_json: bool, folder: str) -> None:
    """List the runs with their status."""
    from cai.view.listing import list_runs
    from cai.view.terminal import show_runs, standard_console

    rows = list_runs(Path(folder))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        show_runs(rows, standard_console())


@main.command()
@click.argument("run_folder", metavar="RUN")
@click.option("--repair", is_flag=True, help="Set broken lines of unfinished stages aside.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def verify(run_folder: str, repair: bool, as_json: bool) -> None:
    """Check that a run's files are as they were written; exit code 5 if one is not.

    Not verified: report.md, report.html and plots/, which are made from the rest and can be made
    again; logs; what was set aside (*.torn); what the Trainer resumes from (trainer/), whose
    checkpoints have checksums of their own.
    """
    from cai.verify import verify as find
    from cai.view.listing import find_folder
    from cai.view.terminal import one_line

    run = find_folder(run_folder)
    found = find(run, repair)
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in found], indent=1))
    else:
        for finding in found:
            click.echo(one_line(f"{finding.path}: {finding.what}: {finding.detail}"))
        click.echo(f"{run}: {len(found)} findings" if found else f"{run}: as it was written")
    if found:
        click.get_current_context().exit(Damaged.exit_code)


@main.group()
def model() -> None:
    """Models: pull one ahead of a run."""


@model.command()
@click.argument("name", default="smollm2-135m")
def pull(name: str) -> None:
    """Bring a model onto this machine and print its folder."""
    from cai.models import resolve_model

    found = resolve_model(name)
    click.echo(f"{found.label}  {found.path}")


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the shell's completion script: eval "$(cai completion bash)"."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is not None:
        click.echo(found(main, {}, "cai", "_CAI_COMPLETE").source())


READING = (show, browse, compare, annotate)
MEASURING = (judge_test, eval_, score, reproduce)
for command in (*READING, plan, try_, *MEASURING, import_, export):
    main.add_command(command)
