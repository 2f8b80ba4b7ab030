"""Runs in a terminal, and runs and transcripts as plain data for `--json`.

Model text is hostile: it passes `clean` and is never markup. `*_json` return it as it is."""

import itertools
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cai.view.badges import badges
from cai.view.transcripts import (
    POLICIES,
    Transcript,
    load_transcripts,
    read_object,
    stage_folder,
)

STAGES = ("revise", "sft", "sample", "label", "reward", "rl", "evaluate")
COLUMNS = ("stage", "status", "in>", "out>", "counts", "prompt>", "cached>", "generated>", "time>")
BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
STYLES = {"done": "green", "running": "cyan", "stopped": "yellow", "failed": "red"}
EVALUATION = (
    ("mean reward", "reward", 1, 2),
    ("reward gain over base", "reward_gain", 1, 2),
    ("win rate against base", "win_rate", 100, 0),
    ("refusal, red-team", "refusal", 100, 0),
    ("over-refusal, look-alikes", "over_refusal", 100, 0),
    ("refusal, helpful", "helpful_refusal", 100, 0),
    ("KL from base, nats", "kl", 1, 2),
    ("length, tokens", "length_tokens", 1, 0),
    ("distinct-1", "distinct_1", 1, 3),
    ("distinct-2", "distinct_2", 1, 3),
    ("commonest opening", "top_opening_share", 100, 0),
    ("cut off at the limit", "n_truncated", 1, 0),
    ("errors", "n_error", 1, 0),
)


FILE_WIDTH = 160
"""Columns where no terminal has any."""


def standard_console() -> Console:
    """Where commands print: model text is never read as markup."""
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = FILE_WIDTH
    return console


def page(texts: Iterable[str], console: Console, paged: bool = True) -> None:
    """Write rendered texts, by the user's pager if they do not fit on a terminal's screen."""
    rest, head, n_lines = iter(texts), list[str](), 0
    paged = paged and console.file.isatty()
    while paged and n_lines < console.height and (text := next(rest, None)) is not None:
        head.append(text)
        n_lines += text.count("\n")
    if n_lines >= console.height:
        # Colours survive whatever else the user has less do.
        os.environ["LESS"] = f"-R {os.environ.get('LESS', '')}".rstrip()
        click.echo_via_pager(itertools.chain(head, rest), color=True)
    else:
        console.file.writelines(itertools.chain(head, rest))


def clean(text: object) -> str:
    r"""Text that is safe to print: every control, bidirectional, invisible or unpaired character
    but newline and tab becomes a visible escape such as `\x1b` or `\u202e`."""
    return re.sub(r"[^\n\t\x20-\x7e]", lambda match: visible(match[0]), str(text))


def visible(char: str) -> str:
    hidden = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") or char in BLANK_LETTERS
    return char.encode("unicode_escape").decode() if hidden else char


def one_line(text: object) -> str:
    return clean(" ".join(str(text).split()))


def as_text(value: object) -> str:
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return "–" if value is None else one_line(value)


def duration(seconds: float | None) -> str:
    minutes, rest = divmod(round(seconds or 0), 60)
    return "–" if seconds is None else f"{minutes} m {rest:02} s" if minutes else f"{rest} s"


def measure(metric: Any, scale: float = 1, digits: int = 2) -> str:
    """A metric times `scale`, with its interval if it is an estimate; a dash if there is none."""
    if metric is None:
        return "–"
    number, unit = f".{digits}f", " %" if scale == 100 else ""
    if isinstance(metric, int | float):
        return f"{metric * scale:{number}}{unit}"
    value, low, high, n = (metric[name] for name in ("value", "low", "high", "n"))
    ends = f"(n = {n})" if low is None else f"[{low * scale:{number}}, {high * scale:{number}}]"
    return f"{value * scale:{number}}{unit} {ends}"


def by_policy(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was measured of base, SFT and RL, with the `win_rate` against base; empty if nothing."""
    against = [row for row in metrics.get("win_rates", []) if row["against"] == "base" and row["n"]]
    wins = {row["policy"]: {"win_rate": row | {"value": row["win_rate"]}} for row in against}
    return [metrics.get("policies", {}).get(name, {}) | wins.get(name, {}) for name in POLICIES]


def evaluation_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """The before/after table: a name, then base, SFT and RL; a dash where there is no data."""
    found = by_policy(metrics)
    return [[row, *(measure(p.get(name), *form) for p in found)] for row, name, *form in EVALUATION]


def as_cell(value: object) -> Text:
    return value if isinstance(value, Text) else Text(as_text(value), STYLES.get(str(value), ""))


def make_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table of cleaned cells; a column whose name ends in `>` is aligned to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(Text(name.rstrip(">")), justify="right" if ">" in name else "left")
    for row in rows:
        table.add_row(*map(as_cell, row))
    return table


def heading(title: object, *notes: object) -> Text:
    rest = " · ".join(one_line(note) for note in notes if note)
    return Text.assemble((one_line(title), "bold"), (f"  {rest}" if rest else "", "dim"))


def stage_rows(manifest: Mapping[str, Any]) -> Iterator[Sequence[object]]:
    """The cells under `COLUMNS`: rows in and out, counts, tokens, time."""
    for stage in manifest.get("stages", []):
        tokens, counts = stage.get("tokens") or {}, stage.get("counts") or {}
        said = ", ".join(f"{name} {as_text(n)}" for name, n in counts.items() if n)
        row = [*map(stage.get, ("name", "status", "n_in", "n_out")), said]
        row += [*map(tokens.get, ("prompt", "cached", "generated")), duration(stage.get("seconds"))]
        yield row


def read_run(run: Path) -> dict[str, Any]:
    """The manifest with `constitution`, `evaluation` (none: not there) and `missing_stages`."""
    found = read_object(run / "inputs" / "constitution.json")
    return read_object(run / "manifest.json") | {
        "constitution": f"{found['name']} {found['version']}" if found else None,
        "evaluation": read_object(stage_folder(run, "evaluate") / "metrics.json") or None,
        "missing_stages": [name for name in STAGES if not stage_folder(run, name).is_dir()],
    }


def run_json(run: Path) -> dict[str, Any]:
    """What `show_run` shows, of all prompts."""
    return read_run(run) | {"prompts": [prompt_row(row) for row in load_transcripts(run)]}


def prompt_row(transcript: Transcript) -> dict[str, Any]:
    fields = transcript.prompt.model_dump(include={"id", "kind", "area", "split"})
    text, rounds = transcript.prompt.messages[-1].content, len(transcript.rounds)
    return fields | {"rounds": rounds, "prompt": text, "badges": badges(transcript)}


def show_run(run: Path, console: Console, limit: int = 100) -> None:
    """Print a run: its status, stages and evaluation, and its first `limit` prompts."""
    facts, transcripts = read_run(run), load_transcripts(run)
    models = [f"{role} {model['name']}" for role, model in facts.get("models", {}).items()]
    title, *notes = (facts.get(name) for name in ("name", "created", "constitution"))
    console.print(heading(title or run, *notes, *models))
    console.print(as_cell(facts.get("status", "no manifest yet")), Text(), sep="\n")
    console.print(make_table(COLUMNS, stage_rows(facts)))
    for stage in facts.get("stages", []):
        for note in stage.get("notes", []):
            console.print(Text(one_line(f"{stage['name']}: {note}"), "dim"))
    if facts["missing_stages"]:
        console.print(Text(f"not there (yet): {', '.join(facts['missing_stages'])}", "yellow"))
    if metrics := facts["evaluation"]:
        note = f"{metrics['n_prompts']:,} held-out prompts, 95 % intervals"
        console.print(Text(), heading("Evaluation", note), sep="\n")
        console.print(make_table(("", *POLICIES), evaluation_rows(metrics)))
    show_prompts(transcripts, console, limit)


def run_text(run: Path, console: Console) -> Iterator[str]:
    """What `show_run` prints."""
    with console.capture() as capture:
        show_run(run, console)
    yield capture.get()


def show_prompts(transcripts: Sequence[Transcript], console: Console, limit: int) -> None:
    ids, used = [t.prompt.id for t in transcripts], [t for t in transcripts if t.used]
    short = next((n for n in range(8, 64) if len({id[:n] for id in ids}) == len(ids)), 64)
    room = max(24, console.width - short - 50)
    columns, rows = ("id", "kind", "area", "split", "rounds", "prompt"), list[list[object]]()
    for row in map(prompt_row, used[:limit]):
        text = Text(one_line(row["prompt"]))
        text.truncate(room, overflow="ellipsis")
        if row["badges"]:
            text.append("\n" + ", ".join(row["badges"]), "yellow")
        rows.append([row["id"][:short], *(row[name] for name in columns[1:-1]), text])
    note = f"{len(used):,} of {len(ids):,} used so far"
    if len(used) > limit:
        note += f", the first {limit:,} are listed here, all by --json and in cai browse"
    console.print(Text(), heading("Prompts", note), make_table(columns, rows), sep="\n")


def show_runs(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print one line per run, as listed by `cai.view.listing.list_runs`."""
    names = ("name", "status", "created", "model")
    cells = [[*map(r.get, names), len(r["stages_done"]), duration(r["seconds"])] for r in rows]
    console.print(make_table((*names, "stages done>", "time>"), cells))


def transcript_json(transcript: Transcript) -> dict[str, Any]:
    """The transcript with its badges, as JSON values."""
    fields = TypeAdapter(Transcript).dump_python(transcript, mode="json", exclude={"principles"})
    return fields | {"badges": badges(transcript)}


def block(it: RenderableType) -> Padding:
    return Padding(Text(clean(it)) if isinstance(it, str) else it, (0, 0, 1, 2), expand=False)
