"""How two runs differ in numbers, with 95 % intervals; pure.

Prompts that both runs measured are compared pairwise, which takes the prompts' own differences out
of the interval. Where they are few, the intervals of the two runs are combined.
"""

import math
from collections.abc import Container, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from cai.compare_causes import Pair
from cai.compare_chains import PARTS, Part
from cai.compare_inputs import Run, models
from cai.compare_measures import MEASURES, Form, Measure
from cai.metrics import Estimate, Z, mean, proportion, wilson
from cai.prompts import QUESTIONS
from cai.view.transcripts import Transcript

Values = Mapping[str, float]
"""By prompt id."""
PAIRED_FROM = 0.5
"""Share of common prompts, of the run with fewer, below which pairing would leave out too many."""
REWARDS = "each run has its own reward model, so its rewards have their own scale"


class Delta(NamedTuple):
    """One measure in both runs; an estimate that is none: nothing to measure."""

    part: Part
    name: str
    scale: float
    digits: int
    a: Estimate | None
    b: Estimate | None
    delta: Estimate | None
    """`b` - `a`; none too where the two numbers cannot be compared."""
    paired: bool
    """Over prompts that both measured; `a` and `b` are then of these prompts alone."""
    n_changed: int
    """Of the paired prompts, how many have another value."""
    note: str


class Measured(NamedTuple):
    """The values of one measure of one part in both runs."""

    part: Part
    measure: Measure
    a: Values
    b: Values


def measure_all(pair: Pair) -> list[Measured]:
    """Every measure that at least one run has values of, part by part."""
    found: list[Measured] = []
    for part in PARTS:
        a, b = ([t for t in run.transcripts.values() if has_part(t, part)] for run in pair.runs)
        for measure in (measure for measure in MEASURES if part in measure.parts):
            sides = values(pair.a, a, part, measure), values(pair.b, b, part, measure)
            found += [Measured(part, measure, *sides)] if any(sides) else []
    return found


def has_part(transcript: Transcript, part: Part) -> bool:
    """Whether there can be anything to measure."""
    if part == "chain":
        return bool(transcript.rounds)
    if part == "labels":
        return bool(transcript.preferences)
    return any(answer.policy == part for answer in transcript.answers)


def values(run: Run, transcripts: Sequence[Transcript], part: Part, measure: Measure) -> Values:
    found = ((t.prompt.id, measure.of(t, run.scores, part)) for t in transcripts)
    return {id: value for id, value in found if value is not None}


def compare_metrics(pair: Pair, measured: Sequence[Measured], same: Container[Part]) -> list[Delta]:
    """A row for each measure. `same` are the parts of which the runs have the same records."""
    notes = {"": "", "reward model": reward_note(pair), "judge": judge_note(pair)}
    rows = [compare_measure(one, notes[one.measure.yardstick]) for one in measured]
    return [exact(row) if row.part in same and not row.n_changed else row for row in rows]


def exact(row: Delta) -> Delta:
    """Of the same texts: there is nothing to estimate."""
    known = row.delta and row.delta._replace(value=0.0, low=0.0, high=0.0)
    return row._replace(delta=known)


def compare_measure(one: Measured, note: str) -> Delta:
    both = [id for id in one.a if id in one.b]
    if len(both) < PAIRED_FROM * min(len(one.a), len(one.b)):
        both = []
    n_changed = sum(one.a[id] != one.b[id] for id in both)
    sides = [[side[id] for id in both or side] for side in (one.a, one.b)]
    form = one.measure.form
    a, b = (estimate(side, form) if side else None for side in sides)
    delta = None
    if both and note != REWARDS:
        delta = paired(sides[0], sides[1], form)
    elif a and b and note != REWARDS:
        delta = unpaired(a, b)
    name, scale, digits = one.measure[:3]
    note = note if a and b else ""
    return Delta(one.part, name, scale, digits, a, b, delta, bool(both), n_changed, note)


def estimate(found: Sequence[float], form: Form) -> Estimate:
    """Over one run's prompts; a mean of probabilities has a share's interval, as in the report."""
    if form == "share":
        return proportion([bool(value) for value in found])
    if form == "probability":
        return wilson(min(1.0, max(0.0, fmean(found))), len(found))
    return mean(found)


def paired(a: Sequence[float], b: Sequence[float], form: Form) -> Estimate:
    """The mean of `b` - `a`, prompt by prompt.

    Of shares with Agresti and Min's interval (2005: half a prompt is added to each of the four
    outcomes): a t-interval has no width where no prompt changed sides.
    """
    differences = [new - old for old, new in zip(a, b, strict=True)]
    if form != "share":
        return mean(differences)
    n = len(differences) + 2
    changed, net = sum(map(abs, differences)) + 1, sum(differences)
    half = Z * math.sqrt(changed - net * net / n) / n
    low, high = net / n - half, net / n + half
    return Estimate(fmean(differences), max(-1.0, low), min(1.0, high), len(differences))


def unpaired(a: Estimate, b: Estimate) -> Estimate:
    """The difference of two independent estimates from their own intervals (Newcombe 1998)."""
    delta, n = b.value - a.value, min(a.n, b.n)
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Estimate(delta, None, None, n)
    low = delta - math.hypot(b.value - b.low, a.high - a.value)
    return Estimate(delta, low, delta + math.hypot(b.high - b.value, a.value - a.low), n)


def reward_note(pair: Pair) -> str:
    """Whether rewards have one scale: the same weights, or the same scores for the same texts."""
    a, b = pair.runs
    if a.reward_model and a.reward_model == b.reward_model:
        return ""
    common = [(a.scores[id].reward, b.scores[id].reward) for id in a.scores if id in b.scores]
    scored = [(old, new) for old, new in common if old is not None and new is not None]
    close = [math.isclose(old, new, rel_tol=1e-3, abs_tol=1e-3) for old, new in scored]
    return "" if close and all(close) else REWARDS


def judge_note(pair: Pair) -> str:
    """What differs in how the judge is asked."""
    found = [judging(run) for run in pair.runs]
    differ = [name for name in found[0] if found[0][name] != found[1][name]]
    return f"not judged the same way: other {' and '.join(differ)}" if differ else ""


def judging(run: Run) -> dict[str, Any]:
    """Everything that enters a judgement but the texts."""
    principles = run.constitution.principles
    label = run.config.label.model_dump(exclude={"pairing", "revision_pairs", "clamp"})
    template = run.files.get(f"{QUESTIONS[run.config.label.mode]}.jinja")
    return {
        "judge model": models(run).get("judge"),
        "engine": run.config.engine.key,
        "label settings": label,
        "template": template,
        "preference principles": [(p.id, p.weight, p.preference) for p in principles],
    }
