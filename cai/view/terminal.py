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
STAGE_COLUMNS = ("stage", "status", "in>", "out>", "counts", "prompt tokens>", "cached>",
                 "generated>", "time>")  # fmt: skip
PROMPT_COLUMNS = ("id", "kind", "area", "split", "rounds", "prompt")
UNSEEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
STYLES = {"done": "green", "running": "cyan", "stopped": "yellow", "failed": "red"}
CHANGE_STYLES = {"same": "", "removed": "red strike", "added": "green"}
CHANGE_MARKS = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}
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
"""Rows of the before/after table: label, metric, scale, digits."""
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


def measure(metric: Any, scale: float = 1, digits: int = 2) -> str:
    """A metric times `scale`, with its interval if it is an estimate; a dash if there is none."""
    if metric is None:
        return "–"
    number, unit = f".{digits}f", " %" if scale == 100 else ""
    if not isinstance(metric, Mapping):
        return f"{metric * scale:{number}}{unit}"
    value, low, high, n = (metric[name] for name in ("value", "low", "high", "n"))
    ends = f"(n = {n})" if low is None else f"[{low * scale:{number}}, {high * scale:{number}}]"
    return f"{value * scale:{number}}{unit} {ends}"


def evaluation_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    """The before/after table: a name, then base, SFT and RL; a dash where there is no data."""
    against = [row for row in metrics.get("win_rates", []) if row["against"] == "base" and row["n"]]
    wins = {row["policy"]: {"win_rate": row | {"value": row["win_rate"]}} for row in against}
    found = [metrics.get("policies", {}).get(name, {}) | wins.get(name, {}) for name in POLICIES]
    return [
        [label, *(measure(policy.get(name), scale, digits) for policy in found)]
        for label, name, scale, digits in EVALUATION
    ]


def make_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table of cleaned cells; a column whose name ends in `>` is aligned to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(Text(name.rstrip(">")), justify="right" if ">" in name else "left")
    for row in rows:
        table.add_row(*map(as_cell, row))
    return table


def as_cell(value: object) -> Text:
    if isinstance(value, Text):
        return value
    return Text("–" if value is None else one_line(value), STYLES.get(str(value), ""))


def heading(title: object, *notes: object) -> Text:
    rest = " · ".join(one_line(note) for note in notes if note)
    return Text.assemble((one_line(title), "bold"), (f"  {rest}" if rest else "", "dim"))


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
        note = f"{metrics['n_prompts']:,} held-out prompts, 95 % intervals"
        console.print(Text(), heading("Evaluation", note), sep="\n")
        console.print(make_table(("", *POLICIES), evaluation_rows(metrics)))
    show_prompts(transcripts, console, limit)


def show_prompts(transcripts: Sequence[Transcript], console: Console, limit: int) -> None:
    ids, used = [t.prompt.id for t in transcripts], [t for t in transcripts if t.used]
    short = next((n for n in range(8, 64) if len({id[:n] for id in ids}) == len(ids)), 64)
    room = max(24, console.width - short - 50)
    rows: list[list[object]] = []
    for row in map(prompt_row, used[:limit]):
        text = Text(one_line(row["prompt"]))
        text.truncate(room, overflow="ellipsis")
        if row["badges"]:
            text.append("\n" + ", ".join(row["badges"]), "yellow")
        rows.append([row["id"][:short], *(row[n] for n in PROMPT_COLUMNS[1:-1]), text])
    note = f"{len(used):,} of {len(ids):,} used so far"
    console.print(Text(), heading("Prompts", note), make_table(PROMPT_COLUMNS, rows), sep="\n")
    if len(used) > limit:
        console.print(Text(f"… and {len(used) - limit:,} more; --json lists all", "dim"))


def run_row(run: Path) -> dict[str, Any]:
    """What `show_runs` lists of a run; one that cannot be read has status "unreadable"."""
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
    cells = [[*map(row.get, names), duration(row.get("seconds"))] for row in rows]
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


def block(part: RenderableType) -> Padding:
    text = Text(clean(part)) if isinstance(part, str) else part
    return Padding(text, (0, 0, 1, 2), expand=False)


def generated(title: str, text: Response | Critique | Revision, transcript: Transcript) -> Text:
    """A heading with model, length, how the text ended unless by itself, and reward."""
    made, reward = text.generation, transcript.rewards.get(text.id)
    ending = {"stop": "", "length": "cut off at the limit", "error": f"error: {made.error}"}
    score = "" if reward is None else f"reward {reward:+.2f}"
    return heading(title, made.model, f"{made.n_tokens:,} tokens", ending[made.finish], score)


def transcript_parts(transcript: Transcript, marks: bool) -> Iterator[RenderableType]:
    before: Response | Revision | None = transcript.response
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
    for answer in transcript.answers:
        title = f"answer of {answer.policy}"
        yield from (generated(title, answer.response, transcript), block(answer.response.text))
    yield from label_parts(transcript, transcript.comparisons)


def round_parts(
    round: Round, before: str, transcript: Transcript, marks: bool
) -> Iterator[RenderableType]:
    """The critique with its principle beside it, then the revision with its changes marked."""
    asked = round.principle.critique if round.principle else "not in this run's constitution"
    principle = Text.assemble((f"principle {one_line(round.principle_id)}\n", "bold cyan"))
    principle.append(clean(asked or "asks for no critique"), "cyan")
    beside = Table.grid(padding=(0, 2), expand=True)
    beside.add_column(ratio=3)
    beside.add_column(ratio=2)
    if round.critique:
        yield generated(f"round {round.number} · critique", round.critique, transcript)
    beside.add_row(Text(clean(round.critique.text if round.critique else "no critique")), principle)
    yield block(beside)
    if round.revision:
        yield generated(f"round {round.number} · revision", round.revision, transcript)
        yield block(diff_text(before, round.revision.text, marks))


def diff_text(before: str, after: str, marks: bool) -> Text:
    """`after` with its changes since `before` coloured, or bracketed where no colour shows."""
    change = word_change(before, after)
    if change == 0:
        return Text("no word changed", "yellow")
    if change > REWRITTEN:
        note = (f"rewritten: {change:.0%} of the words differ\n", "yellow")
        return Text.assemble(note, (clean(after), CHANGE_STYLES["added"]))
    text = Text()
    for kind, words in word_diff(before, after):
        opening, closing = CHANGE_MARKS[kind] if marks else ("", "")
        body = words.rstrip()
        text.append(f"{opening}{clean(body)}{closing}", CHANGE_STYLES[kind])
        text.append(clean(words[len(body) :]) or " ")
    return text


def response_names(transcript: Transcript) -> dict[str, str]:
    """How the labels' responses are called here, by id."""
    names = {sample.id: f"sample {sample.sample}" for sample in transcript.samples}
    return names | {answer.response.id: answer.policy for answer in transcript.answers}


def label_parts(transcript: Transcript, labels: Sequence[Label]) -> Iterator[RenderableType]:
    """The labels' probabilities, a row for each order, and the questions that were asked."""
    names = response_names(transcript)
    rows: list[list[object]] = []
    for label in labels:
        shown = (names.get(id, id) for id in (label.first_id, label.second_id))
        p = label.unscored if label.p_first is None else f"{label.p_first:.3f}"
        logs = ", ".join(f"{value:.2f}" for value in label.logprobs or ())
        outside = "–" if label.p_outside is None else f"{label.p_outside:.3f}"
        rows.append([*shown, p, logs or "–", outside, label.principle_id])
    if rows:
        columns = ("first", "second", "P(first)", "log-probs", "P(neither)", "principle")
        yield from (heading("labels", "both orders of each pair"), block(make_table(columns, rows)))
    for name in dict.fromkeys(label.principle_id for label in labels):
        question = transcript.principles[name].preference if name in transcript.principles else None
        yield block(
            Text(f"{one_line(name)}: {one_line(question or 'not in the constitution')}", "cyan")
        )
