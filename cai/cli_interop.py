"""The commands that bring other projects' files in, and take ours out."""

from collections.abc import Iterable
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
    from cai.constitution import find_constitution
    from cai.interop.constitutions import export_constitution, is_constitution
    from cai.interop.datasets import export_run
    from cai.view.listing import find_run

    path = find_constitution(what) if what.endswith((".yaml", ".yml")) else Path(what)
    if is_constitution(path):
        done = export_constitution(path, form, out)
        show_files(done.files, done.counts, done.not_held)
        return
    result = export_run(find_run(what), form, out, parquet)
    for path in result.files:
        rows = result.counts.get(path.name.split("-0000")[0].split(".")[0])
        click.echo(f"{path}" + (f"  {rows} rows" if rows is not None else ""))
    for reason, n in result.left_out.items():
        click.echo(f"left out: {n} {reason}")
    for note in result.notes:
        click.echo(note)


@click.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A new folder.")
@click.option("--format", "form", help="anthropic, llm-swarm, salmon [by content].")
@click.option("--name", help="Of the constitution [the folder's name].")
@click.option("--source", help="Where the texts are from [the format's project].")
@click.option("--license", "terms", help="Of the texts [the format's project's].")
def import_(paths: tuple[Path, ...], out: Path, form: str | None, **said: str | None) -> None:
    """Turn other projects' constitutions and exemplars into ours, in a new folder.

    PATHS are files, or folders of them: Anthropic's five prompt files, an llm-swarm constitution,
    SALMON's principles.
    """
    from cai.interop.constitutions import Told, import_constitution

    told = Told(said["name"], said["source"], said["terms"])
    done = import_constitution(paths, out, form, told)
    show_files(done.files, done.counts, done.not_held)
    for note in done.notes:
        click.echo(note)


def show_files(files: Iterable[Path], counts: dict[str, int], not_held: dict[str, int]) -> None:
    """Print what was written, and what the format has no place for."""
    for path in files:
        click.echo(path)
    for name, n in counts.items():
        click.echo(f"{name}: {n} entries")
    for name, n in not_held.items():
        click.echo(f"not held: {n} × {name}")
