"""Runs and transcripts in a terminal, and as plain data for `--json`.

Model text is hostile: it passes `clean` and is printed as rich `Text`, never as markup, so that no
control byte and no invisible character reaches the terminal. What the `*_json` functions return is
the text as it is: print it with `json.dumps(…, ensure_ascii=True)`.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cai.errors import ConfigError
from cai.metrics import word_change
from cai.records import Critique, Label, Response, Revision
from cai.view.transcripts import POLICIES, Round, Transcript, badges, load_transcripts
from cai.view.transcripts import read_object, stage_folder, word_diff

STAGES = ("revise", "sft", "sample", "label", "reward", "rl", "evaluate")
STAGE_COLUMNS = "stage status in> out> counts prompt> cached> generated> time>".split()
UNSEEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
STYLES = {"done": "green", "running": "cyan", "stopped": "yellow", "failed": "red"}
CHANGE_STYLES = {"same": "", "removed": "red strike", "added": "green"}
CHANGE_MARKS = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}
REWRITTEN = 0.7
"""Share of changed words above which a word diff is harder to read than the new text."""
transcript_adapter: TypeAdapter[Transcript] = TypeAdapter(Transcript)


def clean(text: object) -> str:
    r"""Text that is safe to print: every control, bidirectional, invisible or unpaired character
    but newline and tab becomes a visible escape such as `\x1b` or `\u202e`."""
    return re.sub(r"[^\n\t\x20-\x7e]", lambda match: visible(match[0]), str(text))


def visible(character: str) -> str:
    hidden = unicodedata.category(character) in UNSEEN or character in BLANK_LETTERS
    return character.encode("unicode_escape").decode() if hidden else character


def one_line(text: object) -> str:
    return clean(" ".join(str(text).split()))


def count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def duration(seconds: float | None) -> str:
    minutes, rest = divmod(round(seconds or 0), 60)
    return "–" if seconds is None else f"{minutes} m {rest:02} s" if minutes else f"{rest} s"


def interval(estimate: Mapping[str, Any] | None, scale: float = 1, digits: int = 2) -> str:
    """`value [low, high]` of a metric, times `scale`; a dash where there is no data."""
    if not estimate or estimate.get("value") is None:
        return "–"
    unit, value = " %" if scale == 100 else "", f"{estimate['value'] * scale:.{digits}f}"
    if estimate["low"] is None or estimate["high"] is None:
        return f"{value}{unit} (n = 1)"
    ends = (f"{estimate[end] * scale:.{digits}f}" for end in ("low", "high"))
    return f"{value}{unit} [{', '.join(ends)}]"


def evaluation_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """The before/after table: a name, then base, SFT and RL; a dash where there is no data."""
    policies = [metrics.get("policies", {}).get(name) or {} for name in POLICIES]
    wins = {row["policy"]: row for row in metrics.get("win_rates", []) if row["against"] == "base"}
    won = [wins[name] | {"value": wins[name]["win_rate"]} if name in wins else None for name in POLICIES]

    def estimates(name: str, scale: float = 1, digits: int = 2) -> list[str]:
        return [interval(policy.get(name), scale, digits) for policy in policies]

    def numbers(name: str, form: str) -> list[str]:
        found = [policy.get(name) for policy in policies]
        return ["–" if value is None else format(value, form) for value in found]

    return [
        ["mean reward", *estimates("reward")],
        ["reward gain over base", *estimates("reward_gain")],
        ["win rate against base", *(interval(entry, 100, 0) for entry in won)],
        ["refusal, red-team", *estimates("refusal", 100, 0)],
        ["over-refusal, look-alikes", *estimates("over_refusal", 100, 0)],
        ["refusal, helpful", *estimates("helpful_refusal", 100, 0)],
        ["KL from base, nats", *estimates("kl")],
        ["length, tokens", *estimates("length_tokens", 1, 0)],
        ["distinct-1", *numbers("distinct_1", ".3f")],
        ["distinct-2", *numbers("distinct_2", ".3f")],
        ["commonest opening", *numbers("top_opening_share", ".0%")],
        ["cut off at the limit", *numbers("n_truncated", ",")],
        ["errors", *numbers("n_error", ",")],
    ]


def make_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table of cleaned cells; the column `name>` is aligned right, `name…` is cut to fit."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        cut, right = name.endswith("…"), name.endswith(">")
        table.add_column(Text(name.rstrip(">…")), "", justify="right" if right else "left",
            no_wrap=cut or right, ratio=1 if cut else None,
            overflow="ellipsis" if cut else "fold")  # fmt: skip
    for row in rows:
        table.add_row(*(Text(one_line(cell), STYLES.get(str(cell), "")) for cell in row))
    return table


def heading(title: object, *notes: object) -> Text:
    rest = " · ".join(one_line(note) for note in notes if note)
    return Text.assemble((one_line(title), "bold"), (f"  {rest}" if rest else "", "dim"))


def missing_stages(run: Path) -> list[str]:
    return [stage for stage in STAGES if not stage_folder(run, stage).is_dir()]


def stage_rows(manifest: Mapping[str, Any]) -> list[list[str]]:
    """Stage, status, rows in and out, counts, tokens (prompt, cached, generated), time."""
    rows: list[list[str]] = []
    for stage in manifest.get("stages", []):
        tokens = stage.get("tokens") or {}
        counts = ", ".join(f"{name} {n}" for name, n in (stage.get("counts") or {}).items() if n)
        numbers = [count(stage.get(name)) for name in ("n_in", "n_out")]
        used = [count(tokens.get(name)) for name in ("prompt", "cached", "generated")]
        row = [str(stage.get(name, "–")) for name in ("name", "status")]
        rows.append([*row, *numbers, counts, *used, duration(stage.get("seconds"))])
    return rows


def read_run(run: Path) -> dict[str, Any]:
    """The manifest with `constitution`, `evaluation` (none: not there) and `missing_stages`."""
    found = read_object(run / "inputs" / "constitution.json")
    return read_object(run / "manifest.json") | {
        "constitution": f"{found['name']} {found['version']}" if found else None,
        "evaluation": read_object(stage_folder(run, "evaluate") / "metrics.json") or None,
        "missing_stages": missing_stages(run),
    }


def run_json(run: Path) -> dict[str, Any]:
    """What `show_run` shows, of all prompts."""
    return read_run(run) | {"prompts": [prompt_row(transcript) for transcript in load_transcripts(run)]}


def prompt_row(transcript: Transcript) -> dict[str, Any]:
    fields = transcript.prompt.model_dump(include={"id", "kind", "area", "split"})
    text, rounds = transcript.prompt.messages[-1].content, len(transcript.rounds)
    return fields | {"rounds": rounds, "prompt": text, "badges": badges(transcript)}


def show_run(run: Path, console: Console, limit: int = 100) -> None:
    """Print a run: how it stands, its stages, its evaluation, and its first `limit` prompts."""
    facts, transcripts = read_run(run), load_transcripts(run)
    status, stages = str(facts.get("status", "no manifest yet")), facts.get("stages", [])
    models = [f"{role} {model['name']}" for role, model in facts.get("models", {}).items()]
    console.print(heading(run.name, facts.get("created"), facts["constitution"], *models))
    console.print(Text(f"{one_line(status)}\n", STYLES.get(status, "")))
    console.print(make_table(STAGE_COLUMNS, stage_rows(facts)))
    for stage in stages:
        for note in stage.get("notes", []):
            console.print(Text(one_line(f"{stage['name']}: {note}"), "dim"))
    if facts["missing_stages"]:
        console.print(Text(f"not there (yet): {', '.join(facts['missing_stages'])}", "yellow"))
    if metrics := facts["evaluation"]:
        console.print(heading("\nEvaluation", f"{metrics['n_prompts']:,} held-out prompts, 95 % intervals"))
        console.print(make_table(("", *POLICIES), evaluation_rows(metrics)))
    show_prompts(transcripts, console, limit)


def show_prompts(transcripts: Sequence[Transcript], console: Console, limit: int) -> None:
    ids, used = [t.prompt.id for t in transcripts], [t for t in transcripts if t.used]
    short = next((n for n in range(8, 64) if len({id[:n] for id in ids}) == len(ids)), 64)
    rows = [prompt_row(transcript) for transcript in used[:limit]]
    for row in rows:
        row |= {"id": row["id"][:short], "badges": ", ".join(row["badges"])}
    console.print(heading("Prompts", f"{len(used):,} of {len(ids):,} used so far"))
    columns = ("id", "kind", "area", "split", "rounds>", "prompt…", "look at")
    console.print(make_table(columns, [[*row.values()] for row in rows]))
    if len(used) > limit:
        console.print(Text(f"… and {len(used) - limit:,} more; --json lists all", "dim"))


def run_row(run: Path) -> dict[str, Any]:
    """What `show_runs` and `--json` list of a run; one that cannot be read has status unreadable."""
    try:
        facts = read_run(run)
    except ConfigError as error:
        return {"name": run.name, "status": "unreadable", "error": str(error)}
    return {
        "name": run.name,
        "status": facts.get("status", "no manifest"),
        "created": facts.get("created"),
        "constitution": facts["constitution"],
        "base": facts.get("models", {}).get("base", {}).get("name"),
        "stages_done": sum(stage.get("status") == "done" for stage in facts.get("stages", [])),
        "seconds": sum(stage.get("seconds") or 0 for stage in facts.get("stages", [])),
    }


def show_runs(rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print one line per run, as made by `run_row`."""
    names = ("name", "status", "created", "constitution", "base", "stages_done")
    cells = [[*(row.get(n, "–") for n in names), duration(row.get("seconds"))] for row in rows]
    console.print(make_table((*names[:-1], "stages done>", "time>"), cells))


def transcript_json(transcript: Transcript) -> dict[str, Any]:
    """The transcript with its badges, as JSON values."""
    plain = transcript_adapter.dump_python(transcript, mode="json", exclude={"principles"})
    return plain | {"badges": badges(transcript)}


def show_transcript(transcript: Transcript, console: Console) -> None:
    """Print everything that the run made of one prompt, in the order in which it was made."""
    prompt, marks = transcript.prompt, console.no_color or console.color_system is None
    title = heading(prompt.id, prompt.kind, prompt.area, prompt.split, prompt.source)
    console.print(Rule(title, align="left"))
    console.print(Text(", ".join(badges(transcript)) + "\n", "yellow"))
    for message in prompt.messages:
        console.print(heading(message.role), block(message.content))
    for part in transcript_parts(transcript, marks):
        console.print(part)


def block(text: str | Text) -> Padding:
    return Padding(Text(clean(text)) if isinstance(text, str) else text, (0, 0, 1, 2))


def generated(title: str, text: Response | Critique | Revision, transcript: Transcript) -> Text:
    """A heading with model, length, how the text ended unless by itself, and reward."""
    made, reward = text.generation, transcript.rewards.get(text.id)
    ending = {"stop": "", "length": "cut off at the limit", "error": f"error: {made.error}"}
    score = "" if reward is None else f"reward {reward:+.2f}"
    return heading(title, made.model, f"{made.n_tokens:,} tokens", ending[made.finish], score)


def transcript_parts(transcript: Transcript, marks: bool) -> Iterator[RenderableType]:
    before = transcript.response
    if before:
        yield from (generated("response", before, transcript), block(before.text))
    for round in transcript.rounds:
        yield from round_parts(round, before.text if before else "", transcript, marks)
        before = round.revision or before
    for sample in transcript.samples:
        yield from (generated(f"sample {sample.sample}", sample, transcript), block(sample.text))
    yield from label_parts(transcript, transcript.labels)
    names = response_names(transcript)
    for row in transcript.preferences:
        agree = "both orders agree" if row.orders_agree else "the orders disagree"
        chosen = names.get(row.chosen_id, row.chosen_id)
        yield heading("preference", f"{chosen}, P(better) = {row.p_chosen:.2f}, {agree}")
    for name, text in ((f"\n{answer.policy}", answer.response) for answer in transcript.answers):
        yield from (generated(f"{name} policy", text, transcript), block(text.text))
    yield from label_parts(transcript, transcript.comparisons)
