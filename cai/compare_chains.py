"""The same prompt in two runs, text beside text, and what each difference comes from.

The first difference of a chain explains what follows: a later text has causes of its own only where
something beside its parent differs too.
"""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Literal, NamedTuple, get_args

from cai.compare_causes import Cause, Pair, label_causes, response_causes, turn_causes
from cai.records import Critique, Preference, Response, Revision
from cai.view.reader import response_names
from cai.view.transcripts import Transcript
from cai.words import word_change

Text = Response | Critique | Revision
Part = Literal["chain", "samples", "labels", "base", "sft", "rl"]
PARTS: tuple[Part, ...] = get_args(Part)
"""What of a prompt is compared: base, sft and rl are the answers of these policies."""
STAGE = {"chain": "revise", "samples": "sample", "labels": "label"}
"""The stage that makes a part; evaluate makes the others."""
Sides = tuple[Transcript, Transcript]
SAME_REQUEST = "the same request got another answer (other versions, hardware or batches)"
FAILED = "a generation failed in"
OTHER_RESPONSES = "other responses were compared"
UNEXPLAINED = "nothing that is recorded differs (another version of cai?)"


class Step(NamedTuple):
    """One text in both runs; none: that run does not have it."""

    name: str
    a: Text | None
    b: Text | None
    causes: Sequence[Cause]
    """Its own; a text that only follows from an earlier difference has none."""
    change: float | None
    """Share of the words of both that are in one only; none where one is missing."""

    @property
    def differs(self) -> bool:
        return self.change != 0

    @property
    def same_record(self) -> bool:
        return bool(self.a and self.b and self.a.id == self.b.id)


class Judgement(NamedTuple):
    """What the judge made of one pair, such as sample 0 and sample 1, in both runs."""

    name: str
    a: Preference | None
    b: Preference | None
    p_a: float | None
    """P(the first of the pair is better), as the run learns it."""
    p_b: float | None
    causes: Sequence[Cause]

    @property
    def differs(self) -> bool:
        return self.p_a != self.p_b

    @property
    def same_record(self) -> bool:
        return bool(self.a and self.b and self.a.id == self.b.id)


class Thread(NamedTuple):
    """One part of what both runs made of a prompt."""

    part: Part
    items: Sequence[Step | Judgement]

    @property
    def differs(self) -> bool:
        return any(item.differs for item in self.items)

    @property
    def causes(self) -> Sequence[Cause]:
        """What the first difference comes from; none: it follows from another part."""
        return next((item.causes for item in self.items if item.causes), ())

    @property
    def reason(self) -> str:
        """The first difference's causes as they are summed up over prompts; empty without one."""
        if self.causes:
            return " and ".join(cause.summary for cause in self.causes)
        return OTHER_RESPONSES if self.differs else ""

    @property
    def same_records(self) -> bool:
        return all(item.same_record for item in self.items)

    @property
    def change(self) -> float | None:
        """Of the last response or revision that both runs have; of samples their mean."""
        steps = (item for item in self.items if isinstance(item, Step))
        changes = [
            step.change
            for step in steps
            if step.change is not None and not isinstance(step.a, Critique)
        ]
        return fmean(changes[-1:] if self.part == "chain" else changes) if changes else None


def compare_threads(pair: Pair, sides: Sides) -> tuple[list[Thread], list[tuple[Part, str]]]:
    """The parts that both runs made of a prompt, and why others cannot be compared."""
    texts, preferences = [texts_of(side) for side in sides], [preferences_of(s) for s in sides]
    threads: list[Thread] = []
    alone: list[tuple[Part, str]] = []
    for part in PARTS:
        asked = [found[part] for found in texts]
        there = preferences if part == "labels" else list(map(succeeded, asked))
        lacking = 0 if there[1] else 1
        if all(there) and part == "labels":
            threads.append(Thread(part, list(compare_judgements(pair, sides))))
        elif all(there):
            threads.append(Thread(part, compare_steps(pair, part, asked)))
        elif any(there) and asked[lacking]:
            alone.append((part, f"{FAILED} {'AB'[lacking]}"))
        elif any(there):
            alone.append((part, why_alone(pair, part, sides, lacking)))
        elif all(asked):
            alone.append((part, f"{FAILED} both"))
    return threads, alone


def texts_of(transcript: Transcript) -> dict[Part, dict[str, Text]]:
    """What was generated from a prompt, by part and name, in the order in which it was made."""
    found: dict[Part, dict[str, Text]] = {part: {} for part in PARTS}
    if transcript.response:
        found["chain"]["response"] = transcript.response
    for round in transcript.rounds:
        for text in (round.critique, round.revision):
            if text:
                found["chain"][f"{text.type} {round.number}"] = text
    found["samples"] = {f"sample {sample.sample}": sample for sample in transcript.samples}
    answers = {answer.policy: answer.response for answer in transcript.answers}
    for part in PARTS:
        if part in answers:
            found[part] = {f"answer of {part}": answers[part]}
    return found


def succeeded(texts: Mapping[str, Text]) -> dict[str, Text]:
    """Those that can be compared: a generation that failed is no text, but why there is none."""
    return {name: text for name, text in texts.items() if text.generation.finish != "error"}


def preferences_of(transcript: Transcript) -> dict[tuple[str, ...], Preference]:
    """By the names of the two that were compared, such as sample 0 and sample 1."""
    names = response_names(transcript)
    rows = transcript.preferences
    return {
        tuple(sorted(names.get(id, id) for id in (r.chosen_id, r.rejected_id))): r for r in rows
    }


def why_alone(pair: Pair, part: Part, sides: Sides, lacking: int) -> str:
    """Why one of the runs (0 or 1) has not made this part of a prompt that the other has."""
    letter = "AB"[lacking]
    if sides[0].prompt.split != sides[1].prompt.split:
        return "the prompt is in another split of the other run"
    return unfinished(pair, part, lacking) or (
        f"{letter} has no preference for it" if part == "labels" else f"{letter} did not choose it"
    )


def unfinished(pair: Pair, part: Part, lacking: int) -> str | None:
    """How far the stage is that makes the part, unless it is done."""
    stage = STAGE.get(part, "evaluate")
    entries = pair.runs[lacking].manifest.get("stages", [])
    status = next((e["status"] for e in entries if e["name"] == stage), "not begun")
    return None if status == "done" else f"stage {stage} of {'AB'[lacking]} is {status}"


def compare_steps(pair: Pair, part: Part, sides: Sequence[Mapping[str, Text]]) -> list[Step]:
    """Text by text, without what failed; both runs name them alike, one of them may have more."""
    steps: list[Step] = []
    texts = [succeeded(side) for side in sides]
    for name in {**texts[0], **texts[1]}:
        before = steps[-1] if steps and part == "chain" else None
        old, new = (side.get(name) for side in texts)
        if old and new:
            causes = step_causes(pair, old, new, before, opens=part == "chain")
            steps.append(Step(name, old, new, causes, change_between(old, new)))
        else:
            steps.append(Step(name, old, new, [why_missing(pair, part, name, sides)], None))
    return steps


def why_missing(pair: Pair, part: Part, name: str, sides: Sequence[Mapping[str, Text]]) -> Cause:
    """Why one run lacks a text although it has others of the same part, failed ones counted in."""
    lacking = 0 if name not in succeeded(sides[0]) else 1
    asked = sides[lacking]
    last = name if name in asked else list(asked)[-1]
    if asked[last].generation.finish == "error":
        summary = f"{FAILED} {'AB'[lacking]}"
        return Cause("failed", summary, f"{summary}: {last}: {asked[last].generation.error}")
    sections = [run.config.revise if part == "chain" else run.config.sample for run in pair.runs]
    key = "rounds" if part == "chain" else "k"
    limits = [getattr(section, key) for section in sections]
    if limits[lacking] < limits[1 - lacking]:
        return Cause("not made", f"{STAGE[part]}.{key} {limits[0]} → {limits[1]}")
    return Cause("not made", unfinished(pair, part, lacking) or f"{'AB'[lacking]} has not made it")


def step_causes(
    pair: Pair, old: Text, new: Text, before: Step | None, *, opens: bool
) -> list[Cause]:
    """What differs in what made two texts, beside the text `before` them in the chain."""
    found: list[Cause] = []
    if old.id == new.id:
        follows = before is not None and before.differs
        anew = not follows and change_between(old, new)
        return [Cause("same request", SAME_REQUEST)] if anew else []
    if isinstance(old, Response) and isinstance(new, Response):
        found += response_causes(pair, old, new, opens)
    elif not isinstance(old, Response) and not isinstance(new, Response):
        found += turn_causes(pair, old, new)
    if not found and (before is None or before.same_record):
        found.append(Cause("unexplained", UNEXPLAINED))
    return found


def change_between(old: Text, new: Text) -> float:
    """The share of their words that is in one only; most texts of two runs are the same."""
    return 0.0 if old.text == new.text else word_change(old.text, new.text)


def compare_judgements(pair: Pair, sides: Sides) -> Iterator[Judgement]:
    """Each pair of texts, by the names that both runs give them."""
    found = [preferences_of(side) for side in sides]
    for names in dict.fromkeys(names for preferences in found for names in preferences):
        old, new = (preferences.get(names) for preferences in found)
        p_a, p_b = (p_first(p, side, names) for p, side in zip((old, new), sides, strict=True))
        causes = judgement_causes(pair, sides, old, new)
        if old and new and old.id == new.id and p_a != p_b:
            causes = [Cause("same request", SAME_REQUEST)]
        yield Judgement(" against ".join(names), old, new, p_a, p_b, causes)


def p_first(row: Preference | None, transcript: Transcript, names: Sequence[str]) -> float | None:
    if row is None:
        return None
    chosen = response_names(transcript).get(row.chosen_id, row.chosen_id)
    return row.p_chosen if chosen == names[0] else 1 - row.p_chosen


def judgement_causes(
    pair: Pair, sides: Sides, old: Preference | None, new: Preference | None
) -> list[Cause]:
    """What differs in how a pair was judged; nothing where other texts were compared."""
    if old is None or new is None:
        return [Cause("not made", f"{'A' if old is None else 'B'} has no preference for this pair")]
    pairs = [{row.chosen_id, row.rejected_id} for row in (old, new)]
    if old.id == new.id or pairs[0] != pairs[1]:
        return []
    labels = [[x for x in s.labels if {x.first_id, x.second_id} == pairs[0]] for s in sides]
    return label_causes(pair, *labels) or [Cause("unexplained", UNEXPLAINED)]


def why(thread: Thread) -> str:
    """What the differences of a thread come from, in a sentence; empty if there are none."""
    told: dict[str, str] = {}
    for item in thread.items:
        for cause in item.causes:
            begins = "from" if isinstance(item, Step) and not told else "then"
            where = f"{begins} {item.name} on: " if thread.part == "chain" else ""
            told.setdefault(cause.summary, f"{where}{cause.said}")
    return "; ".join(told.values()) or thread.reason
