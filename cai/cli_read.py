"""`cai show` and `cai browse`: reading a run, and choosing what of it."""

import json
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from cai.cli_options import check_page_file
from cai.errors import ConfigError

if TYPE_CHECKING:
    from cai.view.choosing import Choice
    from cai.view.transcripts import Transcript

CHOICE_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--round", type=click.IntRange(1), help="Only this round of the revisions."),
    click.option("--principle", metavar="ID", help="Only chains that drew this principle."),
    click.option(
        "--filter", "tags", multiple=True, metavar="BADGE",
        help="Only chains with this badge, stage, kind, area or split; may be repeated.",
    ),
    click.option("--search", default="", metavar="TEXT", help="Only chains with this text."),
    click.option(
        "--random", "n_random", type=click.IntRange(1), metavar="N", help="Only N of those."
    ),
    click.option("--seed", type=click.IntRange(0), help="Draws the same N every time."),
)  # fmt: skip


def choice_options(function: Any) -> Any:
    """The options that `show` and `browse` share."""
    for option in reversed(CHOICE_OPTIONS):
        function = option(function)
    return function


def make_choice(seed: int | None, **fields: Any) -> "Choice":
    """What the shared options ask for. Without a seed each draw is another one."""
    from cai.view.choosing import Choice

    if seed is not None and fields["n_random"] is None:
        raise click.UsageError("--seed goes with --random N")
    return Choice(**fields, seed=secrets.randbelow(10_000) if seed is None else seed)


@click.command()
@click.argument("run_folder", metavar="RUN")
@click.argument("prompt", required=False)
@choice_options
@click.option("--json", "as_json", is_flag=True, help="Machine-readable; chosen chains are whole.")
@click.option("--no-pager", is_flag=True, help="Print without the pager.")
@click.option(
    "--html", is_flag=False, flag_value="", metavar="[FILE]",
    help="Write the run's page instead [default: report.html in RUN].",
)  # fmt: skip
def show(run_folder: str, prompt: str | None, html: str | None, **asked: Any) -> None:
    """Print a run's summary, or the chains that PROMPT and the options choose.

    PROMPT is a prompt's id or the beginning of it; its chain is all that the run made of it."""
    from cai.view.listing import find_run

    run, as_json, no_pager = find_run(run_folder), asked.pop("as_json"), asked.pop("no_pager")
    if html is None:
        show_text(run, prompt, (as_json, no_pager), asked)
    else:
        refuse_beside_html()
        show_page(run, Path(html) if html else run / "report.html")


def refuse_beside_html() -> None:
    """Raise UsageError for what chooses chains: the page has all of them."""
    context = click.get_current_context()
    given = [
        parameter.name.upper() if isinstance(parameter, click.Argument) else parameter.opts[0]
        for parameter in context.command.params
        if parameter.name and parameter.name not in ("run_folder", "html")
        if context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"--html writes the whole run: leave out {', '.join(given)}")


def show_page(run: Path, out: Path) -> None:
    """Write the page, and say where it is and how large."""
    from cai.view.page import write_page
    from cai.view.planned import gib
    from cai.view.terminal import clean

    check_page_file(out)
    path = write_page(run, out)
    click.echo(f"{clean(path)} ({gib(path.stat().st_size)})")


def show_text(run: Path, prompt: str | None, how: tuple[bool, bool], asked: dict[str, Any]) -> None:
    """Print to the terminal; `how`: as JSON, without the pager."""
    from cai.view.reader import Look, chain_texts
    from cai.view.terminal import page, run_json, run_text, standard_console, transcript_json

    (as_json, no_pager), console = how, standard_console()
    narrowed, choice = any(asked.values()), make_choice(**asked)
    whole = not prompt and not narrowed
    found, said = ([], "") if whole else chosen(run, prompt, choice)
    if as_json:
        rows = [transcript_json(transcript) for transcript in found]
        data = run_json(run) if whole else rows[0] if prompt and rows else rows
        click.echo(json.dumps(data, indent=1))
        return
    look = Look(choice.round, choice.pattern)
    said = said if narrowed else ""
    texts = run_text(run, console) if whole else chain_texts(found, said, look, console)
    page(texts, console, not no_pager)


def chosen(run: Path, prompt: str | None, choice: "Choice") -> "tuple[list[Transcript], str]":
    """The transcript of a prompt or those of the run, as far as they fit, and how many do."""
    from cai.view.choosing import Chain, choose, make_chains
    from cai.view.transcripts import find_transcript, load_transcripts

    one = [Chain(find_transcript(run, prompt))] if prompt else None
    found, said = choose(one or make_chains(load_transcripts(run)), choice)
    return [chain.transcript for chain in found], said


@click.command()
@click.argument("run_folder", metavar="RUN")
@choice_options
def browse(run_folder: str, **asked: Any) -> None:
    """Read a run's chains in a full-screen browser; the options choose which to begin with."""
    from cai.view.browse import browse_run
    from cai.view.listing import find_run

    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise ConfigError(
            f"cai browse needs a terminal; elsewhere use: cai show {run_folder} --json"
        )
    sys.exit(browse_run(find_run(run_folder), make_choice(**asked)))


@click.group()
def annotate() -> None:
    """Stars and notes that readers made in a run's page."""


@annotate.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("run_folder", metavar="RUN")
@click.option("--author", help="Who made those that name nobody.")
def import_notes(file: Path, run_folder: str, author: str | None) -> None:
    """Put what the page exported (FILE, JSONL) into the RUN, with author and time."""
    from cai.annotations import import_annotations
    from cai.view.listing import find_run
    from cai.view.terminal import clean

    done = import_annotations(file, find_run(run_folder), author)
    click.echo(f"{done.n_new} new, {done.n_known} known already")
    if done.n_new:
        click.echo(f"to bring the run's page up to date, type: cai show {clean(run_folder)} --html")
