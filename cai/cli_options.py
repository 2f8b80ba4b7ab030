"""The options that the commands about a whole run share."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cai.errors import ConfigError

if TYPE_CHECKING:
    from cai.resolve import Options

RUN_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--constitution", help="Constitution file, or the name of a shipped one."),
    click.option("--recipe", help="A shipped config: quickstart, small, paper."),
    click.option("--config", help="A config file (YAML)."),
    click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a setting."
    ),
    click.option("--model", help="The model to improve: embedded name, folder or hub id."),
    click.option("--prompts", help="Red-team prompts: JSONL(.gz) file, folder or dataset id."),
    click.option("--seed", type=click.IntRange(0), help="Decides every random choice."),
    click.option("--skip-bad", is_flag=True, help="Leave broken prompt lines out and count them."),
)


def run_options(function: Any) -> Any:
    """The options that `run`, `check` and `plan` share."""
    for option in reversed(RUN_OPTIONS):
        function = option(function)
    return function


def make_options(values: dict[str, Any]) -> "Options":
    """The shared options as one value."""
    from cai.resolve import Options

    return Options(**values)


def check_page_file(out: Path) -> None:
    """Raise ConfigError for a file that `--html` cannot write."""
    if out.is_dir() or not out.parent.is_dir():
        wrong = "is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise ConfigError(f"--html {out}: {wrong}; name a file, such as page.html")
