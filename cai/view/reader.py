"""Transcripts in a terminal, each in the order in which it was made."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.rule import Rule
from rich.style import Style
from rich.table import Column, Table
from rich.text import Text

from cai.records import Critique, Label, Preference, Reasoning, Response, Revision
from cai.view.badges import badges
from cai.view.diff import word_diff
from cai.view.terminal import block, clean, heading, make_table, measure, one_line
from cai.view.transcripts import Round, Transcript
from cai.words import word_change

MARKS = {"removed": ("red strike", "[-", "-]"), "added": ("green", "{+", "+}")}
REWRITTEN = 0.7  # share of changed words above which a diff is harder to read than the new text
HIT = Style.parse("reverse yellow")
NUMBERS = itertools.count()
"""By a number in its style `cai browse` knows a hit again, whichever lines it is broken into."""
NARROW = 64  # columns below which two texts or a wide table do not fit
Parts = Iterator[RenderableType]


@dataclass(frozen=True, slots=True)
class Look:
    """How a transcript is shown."""

    round: int | None = None
    """Only this round: its critique, and its revision against what that revises."""
    search: re.Pattern[str] | None = None
    """Highlighted in everything that was written or generated."""
    diff: bool = True
    """Whether a revision shows what it changes, or only its text."""
    marks: bool = False
    """Changes stand in brackets, for where no colour shows."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """What is shown in `NARROW` columns or more, and what in fewer."""

    wide: RenderableType
    narrow: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.narrow if options.max_width < NARROW else self.wide


def show_transcript(transcript: Transcript, console: Console, look: Look | None = None) -> None:
    """Print everything that the run made of one prompt, in the order in which it was made."""
    plain = console.no_color or console.color_system is None
    for part in transcript_parts(transcript, replace(look or Look(), marks=plain)):
        console.print(part)


def chain_texts(
    transcripts: Iterable[Transcript], said: str, look: Look, console: Console
) -> Iterator[str]:
    """`said`, if anything is, and one transcript after the other, rendered when asked for."""
    if said:
        with console.capture() as capture:
            console.print(Text(said, "bold"))
        yield capture.get()
    for transcript in transcripts:
        with console.capture() as capture:
            show_transcript(transcript, console, look)
        yield capture.get()


def transcript_parts(transcript: Transcript, look: Look) -> Parts:
    """The prompt, and what the run made of it: all, or one round."""
    prompt, before = transcript.prompt, transcript.response
    title = heading(prompt.id, prompt.kind, prompt.area, prompt.split, prompt.source)
    yield Rule(title, align="left")
    yield Text(", ".join(badges(transcript)) + "\n", "yellow")
    for message in prompt.messages:
        yield from (heading(message.role), block(found_text(message.content, look)))
    if look.round is None:
        yield from annotation_parts(transcript)
    if before and look.round is None:
        yield from text_parts("response", before, transcript, look)
    for round in transcript.rounds:
        if look.round in (None, round.number):
            yield from round_parts(round, before.text if before else "", transcript, look)
        before = round.revision or before
    if look.round is None:
        yield from later_parts(transcript, look)


def later_parts(transcript: Transcript, look: Look) -> Parts:
    """What the stages after the revisions made: samples, labels, preferences, answers."""
    for row in transcript.samples:
        yield from text_parts(f"sample {row.sample}", row, transcript, look)
    yield from label_parts(transcript, transcript.labels, look)
    yield from preference_parts(transcript)
    for answer in transcript.answers:
        yield from text_parts(f"answer of {answer.policy}", answer.response, transcript, look)
    yield from label_parts(transcript, transcript.comparisons, look)


def annotation_parts(transcript: Transcript) -> Parts:
    """Stars and notes of readers."""
    for one in transcript.annotations:
        when = f"{one.time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        yield heading("★ starred" if one.star else "noted", f"by {one.author}", when)
        if one.note:
            yield block(one.note)


def text_parts(title: str, row: Response, transcript: Transcript, look: Look) -> Parts:
    yield from (generated(title, row, transcript, look), block(found_text(row.text, look)))


def generated(
    title: str, text: Response | Critique | Revision, transcript: Transcript, look: Look
) -> Text:
    """A heading with model, length, how the text ended unless by itself, and reward."""
    made, reward = text.generation, transcript.rewards.get(text.id)
    ending = {"stop": "", "length": "cut off at the limit", "error": f"error: {made.error}"}
    notes = (ending[made.finish], reward is not None and f"reward {reward:+.2f}")
    shown = heading(title, made.model, f"{made.n_tokens:,} tokens", *notes)
    error = one_line(made.error or "")
    before, there, _ = shown.plain.rpartition(f"error: {error}")
    start = len(f"{before}error: ")
    return highlight(shown, error, range(start, start + len(error)), look) if there else shown


def round_parts(round: Round, before: str, transcript: Transcript, look: Look) -> Parts:
    """The critique with its principle beside it, then the revision with its changes marked."""
    critique, revision = round.critique, round.revision
    asked = round.principle.critique if round.principle else "not in this run's constitution"
    principle = Text(f"principle {one_line(round.principle_id)}\n", "bold cyan")
    principle.append(clean(asked or "asks for no critique"), "not bold")
    if critique:
        yield generated(f"round {round.number} · critique", critique, transcript, look)
    said = found_text(critique.text, look) if critique else Text("no critique")
    table = Table.grid(Column(ratio=3), Column(ratio=2), padding=(0, 2), expand=True)
    table.add_row(said, principle)
    yield block(Fitting(table, Group(principle, Text(), said)))
    if revision:
        yield generated(f"round {round.number} · revision", revision, transcript, look)
        failed, after = revision.generation.finish == "error", revision.text
        plain = failed or not look.diff
        yield block(found_text(after, look) if plain else diff_text(before, after, look))


def found_text(text: str, look: Look, style: str = "") -> Text:
    """Cleaned text in which what is searched for is highlighted."""
    shown = clean(text)
    return highlight(Text(shown, style), shown, range(len(shown)), look)


def highlight(text: Text, body: str, places: Sequence[int], look: Look) -> Text:
    """`text`, with what is searched for highlighted in `body`, whose characters are at `places`."""
    for match in look.search.finditer(body) if look.search else ():
        style = HIT + Style(meta={"hit": next(NUMBERS)})
        for place in places[match.start() : match.end()]:
            text.stylize(style, place, place + 1)
    return text


def diff_text(before: str, after: str, look: Look) -> Text:
    """`after` with its changes since `before` coloured, or bracketed where no colour shows."""
    # The space is what parts the last word of one text from a run that follows it.
    before, after = (f"{clean(text).strip()} " for text in (before, after))
    change, text, places = word_change(before, after), Text(), list[int]()
    if change == 0:
        return Text("no word changed", "yellow")
    if change > REWRITTEN:
        note = (f"rewritten: {change:.0%} of the words differ\n", "yellow")
        return Text.assemble(note, found_text(after, look, "green"))
    for kind, words in word_diff(before, after):
        style, *ends = MARKS.get(kind, ("", "", ""))
        opening, closing = ends if look.marks else ("", "")
        body = words.rstrip()
        start, rest = len(text) + len(opening), words[len(body) :]
        text.append(f"{opening}{body}{closing}", style).append(rest)
        if kind != "removed":
            places += range(start, start + len(body))
            places += range(len(text) - len(rest), len(text))
    return highlight(text, after, places, look)


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


def label_parts(transcript: Transcript, labels: Sequence[Label], look: Look) -> Parts:
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
        yield heading("labels", "both orders of each pair")
        short = [[*row[:3], row[4]] for row in rows]
        columns = ("first", "second", "P(first)", "P(neither)")
        wide = (*columns[:3], "log-probs or verdict", columns[3], "principle")
        yield block(Fitting(make_table(wide, rows), make_table(columns, short)))
    for id in dict.fromkeys(label.principle_id for label in labels):
        question = transcript.principles[id].preference if id in transcript.principles else None
        yield block(
            Text(f"{one_line(id)}: {one_line(question or 'not in the constitution')}", "cyan")
        )
    for label in labels:
        if reasoning := reasonings.get(label.reasoning_id or ""):
            yield reasoning_heading(reasoning, names)
            yield block(found_text(reasoning.text, look))


def reasoning_heading(reasoning: Reasoning, names: dict[str, str]) -> Text:
    first, second = (names.get(id, id) for id in (reasoning.first_id, reasoning.second_id))
    return heading("reasoning", f"(A) {first}, (B) {second}", reasoning.principle_id)
