"""An earlier run whose records a new one keeps: `--base RUN`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from cai.config import RunConfig
from cai.errors import RunConflict
from cai.forecast import CHARS_PER_TOKEN, Lengths
from cai.manifest import run_at
from cai.models import Model, folder_digest
from cai.pace import Pace, as_configured, pace_of_run
from cai.pipeline import FOLDERS
from cai.preferences import Reading
from cai.run import StoredRecord, index, read_at, read_json, read_rows

SAMPLE = 1_000
"""Records of a file from which the lengths of texts are taken."""
TEXTS = (
    ("revise", "records"),
    ("sample", "records"),
    ("label", "records"),
    ("rl", "select-start"),
    ("evaluate", "base"),
    ("evaluate", "sft"),
    ("evaluate", "rl"),
)
"""The files of a run that tell how long texts are."""


def find_base(name: str) -> Path:
    """The folder of the run that `--base` names. Raises RunConflict if it cannot be used."""
    if run := run_at(name):
        return run
    raise RunConflict(f"--base {name}: no run there (no manifest.json); cai runs lists them")


class Earlier:
    """What a forecast needs to know of an earlier run."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.manifest: dict[str, Any] = read_json(run / "manifest.json")
        self.config: dict[str, Any] = read_json(run / "config.json")
        self._offsets: dict[Path, dict[str, int]] = {}

    def same_settings(self, config: RunConfig, *sections: str) -> bool:
        """Whether sections of the config, values such as reward.heldout, the seed and the kind of
        engine are as they were."""
        now = config.model_dump(mode="json")
        names = (*sections, "seed", "engine.kind")
        return all(value_at(self.config, name) == value_at(now, name) for name in names)

    def same_model(self, role: str, model: Model | None) -> bool:
        """Whether a role has the model that it had."""
        then = self.manifest["models"].get(role)
        return (then and then["commit"]) == (model and model.commit)

    def same_sources(self, readings: Sequence[Reading]) -> bool:
        """Whether preferences and ratings from elsewhere are as they were."""
        file = self.run / "inputs" / "sources.json"
        then: dict[str, str] = read_json(file) if file.is_file() else {}
        return then == {reading.source: reading.digest for reading in readings}

    def path(self, stage: str, file: str) -> Path:
        return self.run / FOLDERS[stage] / f"{file}.jsonl"

    def row_ids(self, stage: str) -> list[str]:
        """The ids of the rows that a stage trained on, in their order."""
        return [row["id"] for row in read_rows(self.path(stage, "rows"))]

    def record_ids(self, stage: str) -> set[str]:
        """The ids of a stage's records."""
        return set(self.offsets(self.path(stage, "records")))

    def offsets(self, path: Path) -> dict[str, int]:
        """Where the records of a file are, by id."""
        if path not in self._offsets:
            self._offsets[path] = index(path)
        return self._offsets[path]

    def trained(self, stage: str) -> Model | None:
        """The model that a stage has made, if it is done."""
        folder = self.run / FOLDERS[stage]
        if not (folder / "done.json").is_file():
            return None
        path = folder / "checkpoint"
        return Model(stage, path, folder_digest(path))

    def candidates(self) -> list[Model]:
        """The policies that the rl stage chose from."""
        folder = self.run / FOLDERS["rl"]
        steps = read_json(folder / "done.json")["counts"]["candidates"]
        paths = {step: folder / "candidates" / f"step-{step}" for step in steps}
        return [Model(f"rl-{step}", path, folder_digest(path)) for step, path in paths.items()]

    def pace(self, config: RunConfig, models: Mapping[str, Model]) -> Pace:
        """How fast it went; training only what `config` and `models` leave as it was."""
        pace = pace_of_run(self.run.name, self.manifest, self.config)
        then = {role: model["commit"] for role, model in self.manifest["models"].items()}
        now = {role: model.commit for role, model in models.items()}
        named = {"sft": "base", "reward": "reward", "rl": "policy"}
        begins = {
            stage: [m.get(role, m["base"]) for m in (then, now)] for stage, role in named.items()
        }
        others = {stage for stage, (old, new) in begins.items() if old != new}
        return as_configured(pace, self.config, config.model_dump(mode="json"), others)

    def lengths(self) -> tuple[Lengths, int]:
        """How long its texts are, and of how many records."""
        found: dict[tuple[str, str], list[StoredRecord]] = defaultdict(list)
        for stage, file in TEXTS:
            path = self.path(stage, file)
            for offset in islice(self.offsets(path).values(), SAMPLE):
                record = read_at(path, offset)
                if record.text and record.generation.n_tokens:
                    found[stage, record.type].append(record)
        tokens = {key: [r.generation.n_tokens for r in records] for key, records in found.items()}
        means = {key: sum(numbers) / len(numbers) for key, numbers in tokens.items()}
        n_tokens = sum(map(sum, tokens.values()))
        n_chars = sum(len(r.text or "") for records in found.values() for r in records)
        per_token = n_chars / n_tokens if n_tokens else CHARS_PER_TOKEN
        return Lengths(means, per_token), sum(map(len, tokens.values()))


def value_at(config: Mapping[str, Any], name: str) -> Any:
    """What a config says under a dotted name."""
    found: Any = config
    for key in name.split("."):
        found = found[key]
    return found


class Shelf:
    """What is on disk of a record file: this run's records, then the earlier run's.

    Finds what `RecordFile` would, and writes nothing.
    """

    def __init__(self, stage: str, file: str, own: Path, earlier: Earlier | None) -> None:
        self._own = own / FOLDERS[stage] / f"{file}.jsonl"
        self._own_offsets = index(self._own)
        self._other = earlier.path(stage, file) if earlier else self._own
        self._other_offsets = earlier.offsets(self._other) if earlier else {}

    def find(self, record_id: str) -> StoredRecord | None:
        """The record; of another run's only what did not fail."""
        if record_id in self._own_offsets:
            return read_at(self._own, self._own_offsets[record_id])
        if record_id in self._other_offsets:
            record = read_at(self._other, self._other_offsets[record_id])
            return record if record.generation.finish != "error" else None
        return None
