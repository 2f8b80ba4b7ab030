"""What two runs made of one prompt, side by side in a terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.rule import Rule
from rich.table import Column, Table
from rich.text import Text

from cai.compare import Comparison, Figure, PromptComparison, Side
from cai.compare_chains import Judgement, Step
from cai.compare_chains import Text as Generated
from cai.records import Preference, Response
from cai.view.compared import PARTS, Parts, diff_runs, dim, names
from cai.view.diff import word_diff
from cai.view.reader import NARROW, REWRITTEN
from cai.view.terminal import block, clean, heading, make_table, measure, one_line


@dataclass(frozen=True, slots=True)
class Beside:
    """Two texts beside each other, or the second below the first where there is little room."""

    a: Text
    b: Text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width < NARROW:
            yield from (Text("A", "bold red"), self.a, Text("B", "bold green"), self.b)
            return
        table = Table.grid(Column(ratio=1), Column(ratio=1), padding=(0, 3, 0, 0), expand=True)
        table.add_row(Text("A", "bold red"), Text("B", "bold green"))
        table.add_row(self.a, self.b)
        yield table


def show_prompt(comparison: Comparison, console: Console) -> None:
    """Print what both runs made of the comparison's first prompt, side by side."""
    marks = console.no_color or console.color_system is None
    for part in prompt_parts(comparison, comparison.prompts[0], marks):
        console.print(part)


def prompt_parts(comparison: Comparison, row: PromptComparison, marks: bool) -> Parts:
    prompt = row.prompt
    yield Rule(heading(prompt.id, prompt.kind, prompt.area, prompt.source), align="left")
    yield from (*names(comparison), Text())
    for message in prompt.messages:
        yield from (heading(message.role), block(message.content))
    for thread in row.threads:
        yield Rule(heading(PARTS[thread.part]), align="left")
        said = row.whys.get(thread.part) or "the same in both"
        yield Text(clean(said) + "\n", "yellow" if thread.differs else "dim")
        for item in thread.items:
            if isinstance(item, Step):
                yield from step_parts(comparison, item, marks)
            else:
                yield from judgement_parts(item)
    yield block(make_table(("", "", "A>", "B>"), figure_rows(row)))


def figure_rows(row: PromptComparison) -> Iterator[list[str]]:
    """Every measure of the prompt; its part is named where it begins."""
    before = ""
    for figure in row.figures:
        title = PARTS[figure.part] if figure.part != before else ""
        yield [title, figure.name, *figure_cells(figure)]
        before = figure.part


def figure_cells(figure: Figure) -> list[str]:
    """In A and in B; what is either so or not so as yes and no."""
    values = (figure.a, figure.b)
    return [
        ("yes" if value else "no")
        if isinstance(value, bool)
        else measure(value, figure.scale, figure.digits)
        for value in values
    ]


def step_parts(comparison: Comparison, step: Step, marks: bool) -> Parts:
    """One text of both runs: once if it is the same record, else beside each other."""
    said = f"{step.change:.0%} of the words differ" if step.change else "the same"
    yield heading(step.name, said if step.a and step.b else "in one run only")
    sides, texts = (comparison.a, comparison.b), (step.a, step.b)
    requests = [asked(side, text) for side, text in zip(sides, texts, strict=True)]
    same_principle = len({principle for principle, _ in requests}) == 1
    requested = marked([request for _, request in requests], same_principle, marks)
    alike = step.change is not None and step.change <= REWRITTEN
    written = marked([text.text if text else "" for text in texts], alike, marks)
    columns = [
        column(side, text, request, body)
        for side, text, request, body in zip(sides, texts, requested, written, strict=True)
    ]
    yield block(columns[0] if step.same_record and not step.differs else Beside(*columns))


def marked(texts: Sequence[str], alike: bool, marks: bool) -> list[Text]:
    """Two texts, what only one of them has being marked if they are `alike`."""
    one, other = map(clean, texts)
    if not alike:
        return [Text(one), Text(other)]
    runs = word_diff(one, other)
    return [diff_runs(runs, ("same", kind), marks) for kind in ("removed", "added")]


def asked(side: Side, text: Generated | None) -> tuple[str, str]:
    """The principle that a critique or revision was drawn under, and what it asks for."""
    if text is None or isinstance(text, Response):
        return "", ""
    principle = side.principles.get(text.principle_id)
    return text.principle_id, getattr(principle, text.type, None) or "no such text"


def column(side: Side, text: Generated | None, request: Text, body: Text) -> Text:
    """One run's text under the principle's request and what made it."""
    if text is None:
        return dim("not there")
    lines = [made_by(side, text), body]
    if not isinstance(text, Response):
        request.stylize_before("cyan")
        lines.insert(0, Text(f"{one_line(text.principle_id)}: ", "bold cyan").append_text(request))
    return Text("\n").join(lines)


def made_by(side: Side, text: Generated) -> Text:
    """The model, the length, how the text ended unless by itself, the reward."""
    made, reward = text.generation, side.rewards.get(text.id)
    ending = {"stop": "", "length": "cut off at the limit", "error": f"error: {made.error}"}
    notes = [made.model, f"{made.n_tokens:,} tokens", ending[made.finish]]
    notes += [f"reward {reward:+.2f}"] if reward is not None else []
    return dim(" · ".join(note for note in notes if note))


def judgement_parts(judgement: Judgement) -> Parts:
    yield heading(judgement.name)
    rows = [
        [letter, *judged(row, p)]
        for letter, row, p in (("A", judgement.a, judgement.p_a), ("B", judgement.b, judgement.p_b))
    ]
    yield block(make_table(("", "P(first)>", "under", "orders"), rows))


def judged(row: Preference | None, p: float | None) -> list[str]:
    if row is None or p is None:
        return ["–", "no preference", ""]
    said = {True: "agree", False: "disagree", None: "not asked: assumed"}
    return [f"{p:.2f}", ", ".join(row.principle_ids), said[row.orders_agree]]
