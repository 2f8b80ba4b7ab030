"""`cai compare`: what differs between two runs, and why; pure but for reading them."""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from pydantic import BaseModel

from cai.compare_causes import Pair, make_pair
from cai.compare_chains import PARTS, Part, Thread, compare_threads, why
from cai.compare_deltas import Delta, Measured, compare_metrics, measure_all
from cai.compare_inputs import Inputs, Run, compare_inputs, load_run
from cai.constitution import Principle
from cai.errors import ConfigError
from cai.records import Prompt

N_MOST_CHANGED = 10


class Figure(NamedTuple):
    """One measure of one prompt; none: nothing to measure."""

    part: Part
    name: str
    scale: float
    digits: int
    a: bool | float | None
    b: bool | float | None


class PromptComparison(NamedTuple):
    """What both runs made of one prompt."""

    prompt: Prompt
    threads: Sequence[Thread]
    whys: Mapping[str, str]
    """What the differences of each part come from, in a sentence."""
    change: float | None
    """Mean share of changed words of what the parts come to: the last revision, each sample, the
    answer of the policy trained last. None: the runs have none of these in common."""
    figures: Sequence[Figure]

    @property
    def differs(self) -> bool:
        return any(thread.differs for thread in self.threads)


class Reason(NamedTuple):
    """What the first difference of several prompts comes from."""

    summary: str
    n_prompts: int


class PartSummary(NamedTuple):
    """One part over all prompts that both runs made it of."""

    part: Part
    n_prompts: int
    n_same: int
    """Every record the same."""
    n_same_words: int
    """Made anew, word by word the same."""
    n_changed: int
    reasons: Sequence[Reason]
    """Of the changed ones, the commonest first."""
    alone: Sequence[Reason]
    """Why other prompts have the part in one run only."""


class Side(NamedTuple):
    """What of one run a reader of its texts needs."""

    folder: str
    principles: Mapping[str, Principle]
    rewards: Mapping[str, float]
    """By id of the response or revision."""


class Comparison(NamedTuple):
    """Everything that differs between two runs."""

    a: Side
    b: Side
    inputs: Inputs
    n_common: int
    n_only_a: int
    n_only_b: int
    """Prompts of both runs, and of one."""
    parts: Sequence[PartSummary]
    deltas: Sequence[Delta]
    prompts: Sequence[PromptComparison]
    """Those of which both runs made something, the most changed first."""

    @property
    def most_changed(self) -> Sequence[PromptComparison]:
        """The first of `prompts`; a text that failed has changed no word."""
        return [row for row in self.prompts if row.change][:N_MOST_CHANGED]


def compare(folder_a: Path, folder_b: Path) -> Comparison:
    """Compare two runs, whole or not. Raises ConfigError for what is broken in either."""
    return compare_runs(make_pair(load_run(folder_a), load_run(folder_b)))


def compare_runs(pair: Pair) -> Comparison:
    a, b = pair.runs
    measured = measure_all(pair)
    common = [id for id in a.transcripts if id in b.transcripts]
    rows: list[PromptComparison] = []
    alone: dict[Part, Counter[str]] = {part: Counter() for part in PARTS}
    for id in common:
        threads, missing = compare_threads(pair, (a.transcripts[id], b.transcripts[id]))
        for part, reason in missing:
            alone[part][reason] += 1
        if threads:
            rows.append(compare_prompt(a.transcripts[id].prompt, threads, measured))
    parts = [summarise(part, rows, alone[part]) for part in PARTS]
    same = {summary.part for summary in parts if summary.n_same == summary.n_prompts > 0}
    return Comparison(
        a=make_side(a),
        b=make_side(b),
        inputs=compare_inputs(a, b),
        n_common=len(common),
        n_only_a=len(a.transcripts) - len(common),
        n_only_b=len(b.transcripts) - len(common),
        parts=parts,
        deltas=compare_metrics(pair, measured, same),
        prompts=sorted(
            rows, key=lambda row: (-(row.change or 0.0), row.change is None, row.prompt.id)
        ),
    )


def make_side(run: Run) -> Side:
    rewards = {id: s.reward for id, s in run.scores.items() if s.reward is not None}
    return Side(str(run.folder), run.principles, rewards)


def compare_prompt(
    prompt: Prompt, threads: Sequence[Thread], measured: Sequence[Measured]
) -> PromptComparison:
    whys = {thread.part: said for thread in threads if (said := why(thread))}
    figures = [
        Figure(one.part, *one.measure[:3], one.a.get(prompt.id), one.b.get(prompt.id))
        for one in measured
        if prompt.id in one.a or prompt.id in one.b
    ]
    return PromptComparison(prompt, threads, whys, change_of(threads), figures)


def change_of(threads: Sequence[Thread]) -> float | None:
    """See `PromptComparison.change`."""
    found = {thread.part: thread.change for thread in threads}
    answers = [found[part] for part in PARTS if part in ("base", "sft", "rl") and part in found]
    ends = [found.get("chain"), found.get("samples"), *answers[-1:]]
    changes = [change for change in ends if change is not None]
    return fmean(changes) if changes else None


def summarise(
    part: Part, rows: Sequence[PromptComparison], alone: Mapping[str, int]
) -> PartSummary:
    threads = [thread for row in rows for thread in row.threads if thread.part == part]
    changed = [thread for thread in threads if thread.differs]
    n_same = sum(thread.same_records and not thread.differs for thread in threads)
    counts = Counter(thread.reason for thread in changed)
    return PartSummary(
        part=part,
        n_prompts=len(threads),
        n_same=n_same,
        n_same_words=len(threads) - n_same - len(changed),
        n_changed=len(changed),
        reasons=[Reason(*item) for item in counts.most_common()],
        alone=[Reason(*item) for item in Counter(alone).most_common()],
    )


def find_prompt(comparison: Comparison, prompt_id: str) -> PromptComparison:
    """The prompt of that id, or whose id alone begins so. Raises ConfigError if there is none."""
    found = {row.prompt.id: row for row in comparison.prompts}
    fits = [id for id in found if id.startswith(prompt_id)] if prompt_id else []
    if len(fits) == 1:
        return found[fits[0]]
    near = fits or difflib.get_close_matches(prompt_id, found, 5, 0.3) or list(found)
    said = f"fits {len(fits)} prompts" if fits else "is no prompt"
    listed = ", ".join(near[:5]) or "there are none"
    raise ConfigError(
        f"{prompt_id!r} {said} of which both {comparison.a.folder} and {comparison.b.folder} made "
        f"something; those are: {listed}{', …' if len(near) > 5 else ''}"
    )


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The whole comparison as JSON values, each field under its name."""
    return plain(comparison)


def plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if fields := getattr(value, "_asdict", None):  # A NamedTuple.
        value = fields()
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value
