"""Runs and transcripts in a terminal, and as plain data for `--json`.

Model text is hostile: it passes `clean` and is never markup. `*_json` return it as it is."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Column, Table
from rich.text import Text

from cai.metrics import word_change
from cai.records import Critique, Label, Response, Revision
from cai.view.transcripts import (
    POLICIES,
    Round,
    Transcript,
    badges,
    load_transcripts,
    read_object,
    stage_folder,
    word_diff,
)

STAGES = ("revise", "sft", "sample", "label", "reward", "rl", "evaluate")
COLUMNS = ("stage", "status", "in>", "out>", "counts", "prompt>", "cached>", "generated>", "time>")
BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
STYLES = {"done": "green", "running": "cyan", "stopped": "yellow", "failed": "red"}
MARKS = {"removed": ("red strike", "[-", "-]"), "added": ("green", "{+", "+}")}
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
REWRITTEN = 0.7  # share of changed words above which a diff is harder to read than the new text
Parts = Iterator[RenderableType]


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
    note += f", the first {limit:,} are listed here, all by --json" if len(used) > limit else ""
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


def block(it: RenderableType) -> Padding:
    return Padding(Text(clean(it)) if isinstance(it, str) else it, (0, 0, 1, 2), expand=False)


def generated(title: str, text: Response | Critique | Revision, transcript: Transcript) -> Text:
    """A heading with model, length, how the text ended unless by itself, and reward."""
    made, reward = text.generation, transcript.rewards.get(text.id)
    ending = {"stop": "", "length": "cut off at the limit", "error": f"error: {made.error}"}
    notes = (ending[made.finish], reward is not None and f"reward {reward:+.2f}")
    return heading(title, made.model, f"{made.n_tokens:,} tokens", *notes)


def transcript_parts(transcript: Transcript, marks: bool) -> Parts:
    before: Response | Revision | None = transcript.response
    if before:
        yield from (generated("response", before, transcript), block(before.text))
    for round in transcript.rounds:
        yield from round_parts(round, before.text if before else "", transcript, marks)
        before = round.revision or before
    for row in transcript.samples:
        yield from (generated(f"sample {row.sample}", row, transcript), block(row.text))
    yield from label_parts(transcript, transcript.labels)
    for row in transcript.preferences:
        agree = "both orders agree" if row.orders_agree else "the orders disagree"
        chosen = response_names(transcript).get(row.chosen_id, row.chosen_id)
        yield heading("preference", f"{chosen}, P(better) = {row.p_chosen:.2f}, {agree}")
    for policy, row in ((answer.policy, answer.response) for answer in transcript.answers):
        yield from (generated(f"answer of {policy}", row, transcript), block(row.text))
    yield from label_parts(transcript, transcript.comparisons)


def round_parts(round: Round, before: str, transcript: Transcript, marks: bool) -> Parts:
    """The critique with its principle beside it, then the revision with its changes marked."""
    critique, revision = round.critique, round.revision
    asked = round.principle.critique if round.principle else "not in this run's constitution"
    beside = Table.grid(Column(ratio=3), Column(ratio=2), padding=(0, 2), expand=True)
    principle = Text(f"principle {one_line(round.principle_id)}\n", "bold cyan")
    principle.append(clean(asked or "asks for no critique"), "not bold")
    beside.add_row(Text(clean(critique.text if critique else "no critique")), principle)
    if critique:
        yield generated(f"round {round.number} · critique", critique, transcript)
    yield block(beside)
    if revision:
        yield generated(f"round {round.number} · revision", revision, transcript)
        yield block(diff_text(before, revision.text, marks))


def diff_text(before: str, after: str, marks: bool) -> Text:
    """`after` with its changes since `before` coloured, or bracketed where no colour shows."""
    change, text = word_change(before, after), Text()
    if change == 0:
        return Text("no word changed", "yellow")
    if change > REWRITTEN:
        note = (f"rewritten: {change:.0%} of the words differ\n", "yellow")
        return Text.assemble(note, (clean(after), "green"))
    for kind, words in word_diff(before, after):
        style, opening, closing = MARKS.get(kind, ("", "", ""))
        body = words.rstrip()
        text.append(f"{opening}{clean(body)}{closing}" if marks else clean(body), style)
        text.append(clean(words[len(body) :]) or " ")
    return text


def response_names(transcript: Transcript) -> dict[str, str]:
    names = {sample.id: f"sample {sample.sample}" for sample in transcript.samples}
    return names | {answer.response.id: answer.policy for answer in transcript.answers}


def label_parts(transcript: Transcript, labels: Sequence[Label]) -> Parts:
    """The labels' probabilities, a row for each order, and the questions that were asked."""
    names, rows = response_names(transcript), list[list[object]]()
    for label in labels:
        shown = (names.get(id, id) for id in (label.first_id, label.second_id))
        logs = ", ".join(f"{value:.2f}" for value in label.logprobs or ())
        p, outside = (measure(value, 1, 3) for value in (label.p_first, label.p_outside))
        rows.append([*shown, label.unscored or p, logs or None, outside, label.principle_id])
    if rows:
        columns = ("first", "second", "P(first)", "log-probs", "P(neither)", "principle")
        yield from (heading("labels", "both orders of each pair"), block(make_table(columns, rows)))
    for id in dict.fromkeys(label.principle_id for label in labels):
        question = transcript.principles[id].preference if id in transcript.principles else None
        yield block(
            Text(f"{one_line(id)}: {one_line(question or 'not in the constitution')}", "cyan")
        )
