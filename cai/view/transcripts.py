"""What a reader needs per prompt: a run's records, joined across its stages.

Works on runs that are still going on or stopped early: a stage without a folder has no records, and
a last line that is only half written is left out. Everything else that is broken is an error.
"""

import difflib
import gc
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from cai.annotations import Annotation, read_annotations
from cai.constitution import Principle
from cai.errors import ConfigError
from cai.lines import read_whole_rows
from cai.metrics import Score
from cai.records import (
    AnyRecord,
    Critique,
    Label,
    Preference,
    Prompt,
    Reasoning,
    Response,
    Revision,
)
from cai.run import read_json, read_records

POLICIES = ("base", "sft", "rl")
Kept = TypeVar("Kept", Prompt, Response, Reasoning, Label, Preference)


@dataclass(frozen=True, slots=True)
class Round:
    """One critique and the revision that answers it; a chain that failed lacks what came after."""

    number: int
    principle_id: str
    principle: Principle | None
    """None: the run's constitution has no principle of that id."""
    critique: Critique | None
    revision: Revision | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one policy (base, sft or rl) answers to a held-out prompt."""

    policy: str
    response: Response


@dataclass(frozen=True, slots=True)
class Transcript:
    """One prompt and everything that the run made of it."""

    prompt: Prompt
    response: Response | None = None
    rounds: tuple[Round, ...] = ()
    samples: tuple[Response, ...] = ()
    labels: tuple[Label, ...] = ()
    reasonings: tuple[Reasoning, ...] = ()
    """What the judge wrote before its judgements (mode cot), those of `comparisons` too."""
    preferences: tuple[Preference, ...] = ()
    answers: tuple[Answer, ...] = ()
    comparisons: tuple[Label, ...] = ()
    """Judgements between the policies' answers."""
    principles: Mapping[str, Principle] = field(default_factory=dict[str, Principle])
    """The whole constitution of the run, by principle id."""
    rewards: Mapping[str, float] = field(default_factory=dict[str, float])
    """By id of the response or revision."""
    annotations: tuple[Annotation, ...] = ()
    """Stars and notes that were imported into the run."""

    @property
    def used(self) -> bool:
        """Whether any stage made something of the prompt."""
        return bool(self.response or self.samples or self.answers)

    def texts(self) -> Iterator[Response | Critique | Revision]:
        """Everything generated, in order."""
        if self.response:
            yield self.response
        for round in self.rounds:
            yield from (text for text in (round.critique, round.revision) if text)
        yield from self.samples
        yield from (answer.response for answer in self.answers)

    def versions(self) -> list[Response | Revision]:
        """The response and its revisions, oldest first, without one that failed: it is no text."""
        texts = (self.response, *(round.revision for round in self.rounds))
        return [text for text in texts if text and text.generation.finish != "error"]


def stage_folder(run: Path, stage: str) -> Path:
    """The folder of a stage, which is numbered; it need not be there."""
    return next(iter(sorted(run.glob(f"[0-9][0-9]-{stage}"))), run / stage)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of the run, empty if the file is not there (yet)."""
    content: dict[str, Any] = read_json(path) if path.is_file() else {}
    if not isinstance(content, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"{path}: expected a JSON object")
    return content


def read_principles(run: Path) -> dict[str, Principle]:
    """The principles of the run's constitution by id."""
    path = run / "inputs" / "constitution.json"
    try:
        entries = [Principle.model_validate(row) for row in read_object(path).get("principles", [])]
    except ValidationError as error:
        raise ConfigError(f"{path}: not a constitution: {error.errors()[0]['msg']}") from error
    return {principle.id: principle for principle in entries}


def read_scores(run: Path) -> dict[str, Score]:
    """What the evaluation measured, by id of the response or revision."""
    rows = read_whole_rows(stage_folder(run, "evaluate") / "scores.jsonl")
    names = Score._fields
    return {row["id"]: Score(**{name: row[name] for name in names if name in row}) for row in rows}


def record_files(run: Path) -> dict[str, Path]:
    """Where each kind of record lies: stage name, or policy name for the evaluation."""
    label, evaluate = stage_folder(run, "label"), stage_folder(run, "evaluate")
    return {
        "revise": stage_folder(run, "revise") / "records.jsonl",
        "sample": stage_folder(run, "sample") / "records.jsonl",
        "label": label / "records.jsonl",
        "preferences": label / "preferences.jsonl",
        "compare": evaluate / "labels.jsonl",
        **{policy: evaluate / f"{policy}.jsonl" for policy in POLICIES},
    }


@contextmanager
def no_collection() -> Generator[None]:
    """Without the search for cycles, which takes most of the time while records are made that all
    stay."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@no_collection()
def load_transcripts(run: Path) -> list[Transcript]:
    """One transcript per prompt of the run, in the order of the prompts.

    Raises ConfigError if `run` is no run folder, and for an orphaned record; Damaged for a broken
    one."""
    if not run.is_dir():
        raise ConfigError(f"{run}: no such run folder; `cai runs` lists those there are")
    prompts = of_type(read_records(run / "inputs" / "prompts.jsonl"), Prompt)
    parts: dict[str, dict[str, list[AnyRecord]]] = {prompt.id: {} for prompt in prompts}
    for part, path in record_files(run).items():
        for record in read_records(path):
            if isinstance(record, Prompt) or record.prompt_id not in parts:
                raise ConfigError(f"{path}: record {record.id} belongs to no prompt of this run")
            parts[record.prompt_id].setdefault(part, []).append(record)
    principles, scores, noted = read_principles(run), read_scores(run), read_annotations(run)
    rewards = {id: score.reward for id, score in scores.items() if score.reward is not None}
    joined = (join(prompt, parts[prompt.id], principles, rewards) for prompt in prompts)
    return [replace(one, annotations=tuple(noted.get(one.prompt.id, ()))) for one in joined]


def join(
    prompt: Prompt,
    parts: Mapping[str, Sequence[AnyRecord]],
    principles: Mapping[str, Principle],
    rewards: Mapping[str, float],
) -> Transcript:
    """The transcript of one prompt from its records by stage."""
    responses = of_type(parts.get("revise", ()), Response)
    answers = tuple(
        Answer(policy, response)
        for policy in POLICIES
        for response in of_type(parts.get(policy, ()), Response)
    )
    ids = [record.id for records in parts.values() for record in records]
    return Transcript(
        prompt=prompt,
        response=responses[0] if responses else None,
        rounds=join_rounds(parts.get("revise", ()), principles),
        samples=tuple(
            sorted(of_type(parts.get("sample", ()), Response), key=lambda response: response.sample)
        ),
        labels=tuple(of_type(parts.get("label", ()), Label)),
        reasonings=tuple(of_type([*parts.get("label", ()), *parts.get("compare", ())], Reasoning)),
        preferences=tuple(of_type(parts.get("preferences", ()), Preference)),
        answers=answers,
        comparisons=tuple(of_type(parts.get("compare", ()), Label)),
        principles=principles,
        rewards={id: rewards[id] for id in ids if id in rewards},
    )


def of_type(records: Iterator[AnyRecord] | Sequence[AnyRecord], kind: type[Kept]) -> list[Kept]:
    return [record for record in records if isinstance(record, kind)]


def join_rounds(
    records: Sequence[AnyRecord], principles: Mapping[str, Principle]
) -> tuple[Round, ...]:
    """Critiques and revisions of one prompt, by round."""
    found: dict[int, dict[str, Critique | Revision]] = defaultdict(dict)
    for record in records:
        if isinstance(record, Critique | Revision):
            found[record.round][record.type] = record
    return tuple(make_round(number, found[number], principles) for number in sorted(found))


def make_round(
    number: int, found: Mapping[str, Critique | Revision], principles: Mapping[str, Principle]
) -> Round:
    critique, revision = found.get("critique"), found.get("revision")
    principle_id = next(iter(found.values())).principle_id
    return Round(
        number=number,
        principle_id=principle_id,
        principle=principles.get(principle_id),
        critique=critique if isinstance(critique, Critique) else None,
        revision=revision if isinstance(revision, Revision) else None,
    )


def find_transcript(run: Path, prompt_id: str) -> Transcript:
    """The transcript of a prompt by its id, or by the beginning of its id if only one begins so.

    Raises ConfigError that names near ids if none or several fit."""
    found = {transcript.prompt.id: transcript for transcript in load_transcripts(run)}
    fits = [id for id in found if id.startswith(prompt_id)] if prompt_id else []
    if prompt_id in found or len(fits) == 1:
        return found.get(prompt_id) or found[fits[0]]
    near = fits or difflib.get_close_matches(prompt_id, found, 5, 0.3) or list(found)
    listed = ", ".join(near[:5]) + (", …" if len(near) > 5 else "")
    if fits:
        raise ConfigError(
            f"{prompt_id!r} fits {len(fits)} prompts of {run}: {listed}; type more of it"
        )
    hint = f"did you mean {listed}?" if listed else "the run has no prompts yet"
    raise ConfigError(f"{run} has no prompt {prompt_id!r}; {hint}")
