"""The command that compares two runs."""

import json
from pathlib import Path

import click

from cai.cli_options import check_page_file


@click.command()
@click.argument("run_a", metavar="RUN_A")
@click.argument("run_b", metavar="RUN_B")
@click.argument("prompt", required=False)
@click.option("--html", type=click.Path(path_type=Path), help="Write a page.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def compare(run_a: str, run_b: str, prompt: str | None, html: Path | None, as_json: bool) -> None:
    """Say what differs between two runs, and why: inputs, texts, numbers.

    With a PROMPT (its id or the beginning of it): what both made of it, side by side.
    """
    from cai.compare import compare as compare_folders
    from cai.compare import comparison_json, find_prompt
    from cai.view import compared, compared_page, compared_prompt
    from cai.view.listing import find_run
    from cai.view.terminal import standard_console

    if html:
        check_page_file(html)
    comparison = compare_folders(find_run(run_a), find_run(run_b))
    if prompt:
        comparison = comparison._replace(prompts=[find_prompt(comparison, prompt)])
    if html:
        compared_page.write_page(comparison, html)
        click.echo(f"wrote {html}", err=True)
    if as_json:
        click.echo(json.dumps(comparison_json(comparison), indent=1))
    elif prompt:
        compared_prompt.show_prompt(comparison, standard_console())
    elif not html:
        compared.show_comparison(comparison, standard_console())
