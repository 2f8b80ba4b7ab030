"""What two runs were made from, and where that differs: constitution, config, models, files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pydantic import ValidationError

from cai.config import RunConfig
from cai.constitution import Constitution, Principle, Text
from cai.errors import ConfigError
from cai.metrics import Score
from cai.models import folder_digest
from cai.opening import differences
from cai.pipeline import STAGES
from cai.view.diff import Change, word_diff
from cai.view.transcripts import (
    Transcript,
    load_transcripts,
    read_object,
    read_scores,
    stage_folder,
)

NOT_TEXT = ("prompts.jsonl", "sources.json", "constitution.yaml", "constitution.json")
"""Inputs that are compared otherwise, or only by their checksum."""


class Run(NamedTuple):
    """Everything about one run that is compared."""

    folder: Path
    manifest: Mapping[str, Any]
    config: RunConfig
    constitution: Constitution
    files: Mapping[str, str]
    """The texts of templates and exemplars, by file name."""
    transcripts: Mapping[str, Transcript]
    """By prompt id."""
    scores: Mapping[str, Score]
    reward_model: str | None
    """Stands for the weights that gave the rewards; none: they are not on disk."""

    @property
    def principles(self) -> dict[str, Principle]:
        return {principle.id: principle for principle in self.constitution.principles}


class Words(NamedTuple):
    """One text in both runs, word by word; none: not there."""

    name: str
    a: str | None
    b: str | None
    diff: Sequence[tuple[Change, str]]


class PrincipleChange(NamedTuple):
    """A principle that is not the same in both runs."""

    id: str
    state: Literal["edited", "added", "removed", "renamed"]
    renamed_to: str | None
    weights: tuple[float, float] | None
    """Where both runs have it, with other weights."""
    texts: Sequence[Words]


class ConstitutionChange(NamedTuple):
    """Names with versions, and what differs of the content."""

    a: str
    b: str
    system_prompt: Words | None
    principles: Sequence[PrincipleChange]
    n_same: int
    reordered: bool
    """Whether the principles that both have stand in another order: draws depend on it."""


class Setting(NamedTuple):
    """A leaf of the config that differs."""

    key: str
    a: Any
    b: Any
    stages: Sequence[str]
    """The stages that it enters directly; none: a name, or how the work is done."""


class Named(NamedTuple):
    """Something with a name whose value differs; none: not there."""

    name: str
    a: str | None
    b: str | None


class Inputs(NamedTuple):
    """Everything that differs in what the runs were made from."""

    constitution: ConstitutionChange
    settings: Sequence[Setting]
    models: Sequence[Named]
    """By role."""
    files: Sequence[Words]
    versions: Sequence[Named]
    """Libraries and hardware."""

    @property
    def same(self) -> bool:
        change = self.constitution
        found = (change.system_prompt, change.principles, change.reordered)
        return not any((*found, self.settings, self.models, self.files, self.versions))


def load_run(folder: Path) -> Run:
    """Read a run; it may have stopped anywhere. Raises ConfigError for what is broken."""
    inputs, manifest = folder / "inputs", read_object(folder / "manifest.json")
    try:
        config = RunConfig.model_validate(read_object(folder / "config.json"))
        constitution = Constitution.model_validate(read_object(inputs / "constitution.json"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{folder}: its {error.title} does not fit this version of cai: {where}: "
            f"{first['msg']}; it was made by cai {manifest.get('cai', 'unknown')}"
        ) from error
    names = [name for name in manifest.get("inputs", {}) if name not in NOT_TEXT]
    paths = [inputs / Path(name).name for name in sorted(names)]
    files = {path.name: path.read_text() for path in paths if path.is_file()}
    found = {transcript.prompt.id: transcript for transcript in load_transcripts(folder)}
    scorer = stage_folder(folder, "reward") / "checkpoint"
    weights = folder_digest(scorer) if scorer.is_dir() else None
    return Run(folder, manifest, config, constitution, files, found, read_scores(folder), weights)


def compare_inputs(a: Run, b: Run) -> Inputs:
    """What differs in what the runs were made from."""
    names = sorted({*a.files, *b.files})
    return Inputs(
        constitution=compare_constitutions(a.constitution, b.constitution),
        settings=compare_settings(a.config, b.config),
        models=compare_named(models(a), models(b)),
        files=[words(n, a.files.get(n), b.files.get(n)) for n in names if differ(n, a, b)],
        versions=compare_named(made_with(a), made_with(b)),
    )


def differ(name: str, a: Run, b: Run) -> bool:
    return a.files.get(name) != b.files.get(name)


def words(name: str, a: str | None, b: str | None) -> Words:
    return Words(name, a, b, word_diff(a or "", b or ""))


def compare_constitutions(a: Constitution, b: Constitution) -> ConstitutionChange:
    """Principle by principle: in the order of `a`, then what `b` adds."""
    ours, theirs = ({p.id: p for p in c.principles} for c in (a, b))
    added = [p for p in b.principles if p.id not in ours]
    renamed = {
        old.id: new
        for old in a.principles
        for new in added
        if old.id not in theirs and spoken(old) == spoken(new)
    }
    pairs = [(p, theirs.get(p.id) or renamed.get(p.id)) for p in a.principles]
    taken = {new.id for new in renamed.values()}
    changes = [change for pair in pairs if (change := compare_principles(*pair))]
    changes += [principle_change(p, "added", None, p) for p in added if p.id not in taken]
    kept = [[p.id for p in c.principles if p.id in ours and p.id in theirs] for c in (a, b)]
    one, two = a.system_prompt, b.system_prompt
    return ConstitutionChange(
        a=f"{a.name} {a.version}",
        b=f"{b.name} {b.version}",
        system_prompt=words("system prompt", one, two) if one != two else None,
        principles=changes,
        n_same=sum(theirs.get(p.id) == p for p in a.principles),
        reordered=kept[0] != kept[1],
    )


def spoken(principle: Principle) -> list[str | None]:
    """What a model gets to read of a principle."""
    return [getattr(principle, name) for name in get_args(Text)]


def compare_principles(old: Principle, new: Principle | None) -> PrincipleChange | None:
    """None where nothing differs but tags, which no stage reads."""
    if new is None:
        return principle_change(old, "removed", old, None)
    if new.id != old.id:
        return principle_change(old, "renamed", old, new)
    if spoken(old) == spoken(new) and old.weight == new.weight:
        return None
    return principle_change(old, "edited", old, new)


def principle_change(
    principle: Principle,
    state: Literal["edited", "added", "removed", "renamed"],
    old: Principle | None,
    new: Principle | None,
) -> PrincipleChange:
    texts = [
        words(name, one, two)
        for name in get_args(Text)
        if (one := getattr(old, name, None)) != (two := getattr(new, name, None))
    ]
    weights = (old.weight, new.weight) if old and new and old.weight != new.weight else None
    renamed_to = new.id if state == "renamed" and new else None
    return PrincipleChange(principle.id, state, renamed_to, weights, texts)


def compare_settings(a: RunConfig, b: RunConfig) -> list[Setting]:
    """By dotted key. `constitution` and prompt files are names here; content is compared apart."""
    decides = differences(a.deciding(), b.deciding())
    whole = differences(a.model_dump(mode="json"), b.model_dump(mode="json"))
    return [
        Setting(key, one, two, stages_of(key) if key in decides else ())
        for key, (one, two) in whole.items()
    ]


def stages_of(key: str) -> tuple[str, ...]:
    """The stages that a setting enters directly."""
    section = key.split(".")[0]
    return tuple(s.name for s in STAGES if section == "seed" or section in s.settings)


def models(run: Run) -> dict[str, str]:
    found = run.manifest.get("models", {})
    return {role: f"{model['name']}@{model['commit']}" for role, model in found.items()}


def made_with(run: Run) -> dict[str, str]:
    found = run.manifest.get("versions", {}) | run.manifest.get("hardware", {})
    return {name: str(value) for name, value in found.items()}


def compare_named(a: Mapping[str, str], b: Mapping[str, str]) -> list[Named]:
    names = dict.fromkeys((*a, *b))
    return [Named(n, a.get(n), b.get(n)) for n in names if a.get(n) != b.get(n)]
