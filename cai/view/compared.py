"""Two runs beside each other in a terminal: what differs, why, and by how much."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from cai.compare import Comparison, PartSummary, PromptComparison, Reason
from cai.compare_deltas import Delta
from cai.compare_inputs import Inputs, PrincipleChange, Setting, Words
from cai.metrics import Estimate
from cai.view.reader import MARKS
from cai.view.terminal import STAGES, block, clean, heading, make_table, measure, one_line

PARTS = {
    "chain": "chain of revisions",
    "samples": "samples",
    "labels": "labelled pairs",
    "base": "answer of base",
    "sft": "answer of sft",
    "rl": "answer of rl",
}
MAX_VALUE = 60  # characters of a setting's value
Parts = Iterator[RenderableType]


def show_comparison(comparison: Comparison, console: Console) -> None:
    """Print what differs between two runs: inputs, texts with reasons, numbers, and examples."""
    marks = console.no_color or console.color_system is None
    for part in comparison_parts(comparison, marks):
        console.print(part)
    for part in most_changed_parts(comparison, console.width):
        console.print(part)


def names(comparison: Comparison) -> Parts:
    yield Text.assemble(("A  ", "bold red"), one_line(comparison.a.folder))
    yield Text.assemble(("B  ", "bold green"), one_line(comparison.b.folder))


def comparison_parts(comparison: Comparison, marks: bool) -> Parts:
    yield from names(comparison)
    yield from (Text(), heading("What they were made from"))
    yield from input_parts(comparison, marks)
    yield from (Text(), heading("What changed, and why"))
    yield from made_parts(comparison.parts)
    yield from (Text(), heading("In numbers", "B − A with 95 % intervals over prompts"))
    yield from number_parts(comparison)


def input_parts(comparison: Comparison, marks: bool) -> Parts:
    inputs = comparison.inputs
    yield from constitution_parts(inputs, marks)
    if inputs.settings:
        rows = ([s.key, short(s.a), short(s.b), enters(s)] for s in inputs.settings)
        yield block(make_table(("setting", "A", "B", "enters"), rows))
    for name, found in (("model", inputs.models), ("made with", inputs.versions)):
        if found:
            yield block(make_table((name, "A", "B"), found))
    for file in inputs.files:
        yield block(words_text(file, marks))
    if inputs.same:
        yield block("Everything is the same: constitution, settings, models, templates, versions.")
    yield block(prompts_line(comparison))


def prompts_line(comparison: Comparison) -> str:
    rest = [
        f"{n:,} only in {letter}"
        for letter, n in (("A", comparison.n_only_a), ("B", comparison.n_only_b))
        if n
    ]
    said = ", ".join([f"{comparison.n_common:,} prompts in both", *rest])
    return f"{said}; of {len(comparison.prompts):,} both have made something to compare."


def constitution_parts(inputs: Inputs, marks: bool) -> Parts:
    """Principle by principle: what differs, word by word."""
    change = inputs.constitution
    if change.system_prompt:
        yield block(words_text(change.system_prompt, marks))
    for principle in change.principles:
        yield block(principle_text(principle, marks))
    if change.reordered:
        yield block("The principles stand in another order, which decides what is drawn.")
    if change.principles:
        yield block(f"{change.n_same:,} principles are the same in {change.a} and {change.b}.")


def principle_text(change: PrincipleChange, marks: bool) -> Text:
    renamed = f" as {change.renamed_to}" if change.renamed_to else ""
    weights = f", weight {change.weights[0]:g} → {change.weights[1]:g}" if change.weights else ""
    text = Text.assemble(
        (one_line(f"principle {change.id}"), "bold cyan"), f": {change.state}{renamed}{weights}"
    )
    for words in change.texts:
        text.append("\n").append_text(words_text(words, marks))
    return text


def words_text(words: Words, marks: bool) -> Text:
    """What is only in A is struck, what is only in B is added."""
    text = Text(f"{one_line(words.name)}: ", "bold")
    text.append_text(diff_runs(words.diff, ("same", "removed", "added"), marks))
    return text


def diff_runs(runs: Sequence[tuple[str, str]], kinds: Sequence[str], marks: bool) -> Text:
    """The runs of a word diff that are of `kinds`; changes in brackets where no colour shows."""
    text = Text(style="not bold")
    for kind, words in runs:
        style, *ends = MARKS.get(kind, ("", "", ""))
        opening, closing = ends if marks else ("", "")
        body = words.rstrip()
        if kind in kinds:
            text.append(f"{opening}{clean(body)}{closing}", style)
            text.append(clean(words[len(body) :]) or " ")
    text.rstrip()
    return text


def enters(setting: Setting) -> str | None:
    """The stages that a setting enters."""
    every = len(setting.stages) == len(STAGES)
    return "every stage" if every else ", ".join(setting.stages) or None


def short(value: Any) -> str:
    said = one_line(value)
    return said if len(said) <= MAX_VALUE else f"{said[: MAX_VALUE - 1]}…"


def made_parts(parts: Sequence[PartSummary]) -> Parts:
    """Part by part: how much is the same, and what the first differences come from."""
    rows: list[Sequence[object]] = []
    alone: Sequence[Reason] = ()
    for part in parts:
        same = part.n_same + part.n_same_words
        if part.n_prompts or part.alone:
            name = Text(PARTS[part.part], "bold")
            rows.append([name, part.n_prompts, same, part.n_changed, ""])
        if part.n_same_words:
            rows.append(["", "", part.n_same_words, "", "made anew, with the same words"])
        rows += [["", "", "", n, said] for said, n in part.reasons]
        if part.alone != alone:  # All policies answer the same prompts.
            rows += [["", dim(f"{n:,}"), "", "", dim(f"not compared: {s}")] for s, n in part.alone]
        alone = part.alone
    yield block(make_table(("", "in both>", "same>", "changed>", "first difference"), rows))


def dim(said: str) -> Text:
    return Text(one_line(said), "dim")


def number_parts(comparison: Comparison) -> Parts:
    """A table of what both runs measured; footnotes say what does not mean the same in both."""
    both = [row for row in comparison.deltas if row.a and row.b]
    same = {row.part for row in both} - {
        row.part for row in both if row.n_changed or not row.paired
    }
    notes = list(dict.fromkeys(row.note for row in both if row.note and row.part not in same))
    rows: list[Sequence[object]] = []
    for part, title in PARTS.items():
        found = [row for row in both if row.part == part and part not in same]
        moved = [row for row in found if row.n_changed or not row.paired]
        rows += [[Text(title, "bold"), "", "", "", ""]] if moved else []
        rows += [delta_row(row, notes) for row in moved]
    if rows:
        yield block(make_table(("", "A>", "B>", "B − A>", "changed>"), rows))
    still = [row for row in both if row.paired and not row.n_changed and row.part not in same]
    if still:
        listed = dict.fromkeys(row.name for row in still)
        yield block(f"Of the same value for every prompt, and left out above: {'; '.join(listed)}.")
    for number, note in enumerate(notes, 1):
        yield block(f"({number}) {note}")
    if same:
        yield block(f"Every number is the same: {named(same)}.")
    for letter, found in (("A", "a"), ("B", "b")):
        lone = {row.part for row in comparison.deltas if getattr(row, found)} - {
            r.part for r in both
        }
        if lone:
            yield block(f"Only {letter} has {named(lone)}: nothing to compare.")


def named(parts: set[Any]) -> str:
    return ", ".join(title for part, title in PARTS.items() if part in parts)


def delta_row(row: Delta, notes: Sequence[str]) -> list[object]:
    """Bold where the interval leaves out zero."""
    form = (row.scale, row.digits)
    a, b = (e and measure(e.value, *form) for e in (row.a, row.b))
    mark = f" ({notes.index(row.note) + 1})" if row.note else ""
    said = signed(row.delta, *form) if row.delta else "–"
    n = row.a.n if row.a else 0
    m = row.b.n if row.b else 0
    changed = f"{row.n_changed} of {n}" if row.paired else f"unpaired: {n}, {m}"
    style = "bold" if row.delta and clear(row.delta) else ""
    return [f"  {row.name}{mark}", a, b, Text(said, style), changed]


def clear(delta: Estimate) -> bool:
    return delta.low is not None and delta.high is not None and not delta.low <= 0 <= delta.high


def signed(delta: Estimate, scale: float, digits: int) -> str:
    """`+0.12 [-0.10, +0.34]`; one digit more than the values, so that small ones show."""
    unit, form = " %" if scale == 100 else "", f"+.{digits + 1}f"
    number = f"{delta.value * scale:{form}}{unit}"
    if delta.low is None or delta.high is None:
        return f"{number} (n = {delta.n})"
    return f"{number} [{delta.low * scale:{form}}, {delta.high * scale:{form}}]"


def most_changed_parts(comparison: Comparison, width: int) -> Parts:
    """The prompts that changed most, each with what changed it."""
    found = comparison.most_changed
    if not found:
        return
    ids = [row.prompt.id for row in comparison.prompts]
    n = next((n for n in range(8, 64) if len({id[:n] for id in ids}) == len(ids)), 64)
    rows: list[Sequence[object]] = []
    for row in found:
        text = Text(one_line(row.prompt.messages[-1].content))
        text.truncate(max(24, width - n - 14), overflow="ellipsis")
        for said in reasons(row):
            text.append(f"\n{said}", "dim")
        rows.append([row.prompt.id[:n], f"{row.change:.0%}", text])
    title = f"The {len(found)} prompts that changed most" if len(found) > 1 else "What changed"
    yield from (Text(), heading(title, "share of words that differ in what came of them"))
    yield block(make_table(("id", "change>", ""), rows))
    a, b = comparison.a.folder, comparison.b.folder
    yield block(f"Both chains side by side: cai compare {one_line(a)} {one_line(b)} {ids[0][:n]}")


def reasons(row: PromptComparison) -> list[str]:
    """What each part's difference comes from; those with the same reason on one line."""
    by_reason: dict[str, list[str]] = {}
    for thread in row.threads:
        if thread.differs and thread.causes:
            by_reason.setdefault(row.whys.get(thread.part, ""), []).append(thread.part)
    return [one_line(f"{', '.join(parts)}: {said}") for said, parts in by_reason.items()]
