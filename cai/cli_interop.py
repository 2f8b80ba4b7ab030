"""The commands that bring other projects' files in, and take ours out."""

from pathlib import Path

import click


@click.command("export")
@click.argument("what", metavar="RUN|CONSTITUTION")
@click.option("--format", "form", required=True, help="trl, hh-rlhf, llm-swarm, icai, anthropic.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder.")
@click.option("--parquet/--jsonl", default=None, help="[Parquet where pyarrow is installed]")
def export(what: str, form: str, out: Path, parquet: bool | None) -> None:
    """Write a run's data as datasets with a card, or a constitution as another project's files.

    A run: trl, hh-rlhf, llm-swarm, icai. A constitution file: anthropic, llm-swarm.
    """
    from cai.interop.datasets import export_run
    from cai.view.listing import find_run

    result = export_run(find_run(what), form, out, parquet)
    for path in result.files:
        rows = result.counts.get(path.name.split("-0000")[0].split(".")[0])
        click.echo(f"{path}" + (f"  {rows} rows" if rows is not None else ""))
    for reason, n in result.left_out.items():
        click.echo(f"left out: {n} {reason}")
    for note in result.notes:
        click.echo(note)


@click.command("import")
def import_() -> None:
    """x"""
