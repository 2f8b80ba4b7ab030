"""One transcript in a terminal, in the order in which it was made."""

from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.rule import Rule
from rich.table import Column, Table
from rich.text import Text

from cai.metrics import word_change
from cai.records import Critique, Label, Preference, Reasoning, Response, Revision
from cai.view.diff import word_diff
from cai.view.terminal import block, clean, heading, make_table, measure, one_line
from cai.view.transcripts import Round, Transcript, badges

MARKS = {"removed": ("red strike", "[-", "-]"), "added": ("green", "{+", "+}")}
REWRITTEN = 0.7  # share of changed words above which a diff is harder to read than the new text
Parts = Iterator[RenderableType]


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
    yield from preference_parts(transcript)
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


def preference_parts(transcript: Transcript) -> Parts:
    """What the labels of each pair come to."""
    names = response_names(transcript)
    for row in transcript.preferences:
        chosen, rejected = (names.get(id, id) for id in (row.chosen_id, row.rejected_id))
        said = f"{chosen} over {rejected}, P(better) = {row.p_chosen:.2f}"
        yield heading("preference", said, how_judged(row))


def how_judged(row: Preference) -> str:
    if row.p_orders is None:
        return "assumed: the revision is taken as better, nobody was asked"
    agree = "both orders agree" if row.orders_agree else "the orders disagree"
    return f"{agree} ({row.p_orders[0]:.2f} shown first, {row.p_orders[1]:.2f} shown second)"


def response_names(transcript: Transcript) -> dict[str, str]:
    """What a reader calls each response and revision, by id."""
    names = {sample.id: f"sample {sample.sample}" for sample in transcript.samples}
    names |= {answer.response.id: answer.policy for answer in transcript.answers}
    for version in transcript.versions():
        round = getattr(version, "round", None)
        names[version.id] = f"revision {round}" if round else "response"
    return names


def label_parts(transcript: Transcript, labels: Sequence[Label]) -> Parts:
    """The labels' probabilities, a row for each judgement, and the questions that were asked."""
    names, rows = response_names(transcript), list[list[object]]()
    reasonings = {reasoning.id: reasoning for reasoning in transcript.reasonings}
    for label in labels:
        shown = (names.get(id, id) for id in (label.first_id, label.second_id))
        logs = ", ".join(f"{value:.2f}" for value in label.logprobs or ())
        p, outside = (measure(value, 1, 3) for value in (label.p_first, label.p_outside))
        said = label.text if label.mode == "text" else logs
        rows.append([*shown, label.unscored or p, said or None, outside, label.principle_id])
    if rows:
        columns = ("first", "second", "P(first)", "log-probs or verdict", "P(neither)", "principle")
        yield from (heading("labels", "both orders of each pair"), block(make_table(columns, rows)))
    for id in dict.fromkeys(label.principle_id for label in labels):
        question = transcript.principles[id].preference if id in transcript.principles else None
        yield block(
            Text(f"{one_line(id)}: {one_line(question or 'not in the constitution')}", "cyan")
        )
    for label in labels:
        if reasoning := reasonings.get(label.reasoning_id or ""):
            yield from reasoning_parts(reasoning, names)


def reasoning_parts(reasoning: Reasoning, names: dict[str, str]) -> Parts:
    first, second = (names.get(id, id) for id in (reasoning.first_id, reasoning.second_id))
    yield heading("reasoning", f"(A) {first}, (B) {second}", reasoning.principle_id)
    yield block(reasoning.text)
