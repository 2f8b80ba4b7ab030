"""What a stage is given, what it hands back, and how it generates and trains."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cai.config import RunConfig
from cai.constitution import Constitution
from cai.driver import Chain, Tally, run_chains
from cai.engines.base import Engine
from cai.engines.open import LazyEngine
from cai.errors import TooManyErrors
from cai.models import Model, folder_digest, has_chat_template
from cai.prompts import Templates
from cai.records import Kind, Prompt, Split
from cai.run import RecordFile
from cai.sections import Exemplars
from cai.splits import select
from cai.train.fake import run_fake_job
from cai.train.jobs import Job
from cai.train.launch import run_job
from cai.view.progress import StageProgress


class Outcome(NamedTuple):
    """What a stage did, for its marker and the manifest."""

    n_in: int
    n_out: int
    counts: dict[str, Any]
    """What explains the difference between in and out, and what the stage measured."""
    tokens: dict[str, int] = {}


@dataclass(frozen=True)
class RunContext:
    """Everything a stage may use."""

    run: Path
    config: RunConfig
    constitution: Constitution
    templates: Templates
    models: Mapping[str, Model]
    prompts: Sequence[Prompt]
    folders: Mapping[str, str]
    """Stage name to folder name."""
    base_run: Path | None = None
    """An earlier run whose unchanged records are reused."""

    def folder(self, stage: str) -> Path:
        """The folder of a stage of this run."""
        return self.run / self.folders[stage]

    def checkpoint(self, stage: str) -> Model:
        """The model that a training stage of this run made."""
        path = self.folder(stage) / "checkpoint"
        return Model(stage, path, folder_digest(path))

    def policy(self) -> Model:
        """Where sampling and RL start: the named policy, or the sft stage's checkpoint."""
        return self.models.get("policy") or self.checkpoint("sft")

    def select(self, kind: Kind, split: Split, n: int | None) -> list[Prompt]:
        """The prompts of a kind that serve a purpose, at most `n`."""
        return select(self.prompts, kind, split, n, self.config.seed)

    def records(self, stage: str, name: str = "records") -> RecordFile:
        """A record file of a stage, backed by the earlier run's file of the same name."""
        earlier = self.base_run / self.folders[stage] / f"{name}.jsonl" if self.base_run else None
        return RecordFile(self.folder(stage) / f"{name}.jsonl", [earlier] if earlier else [])


def exemplars_on(setting: Exemplars, config: RunConfig, model: Model) -> bool:
    """auto: only for models without a chat template."""
    if setting != "auto":
        return setting == "on"
    return config.engine.kind != "fake" and not has_chat_template(model.path)


class Generation:
    """Generates for one stage: each model is loaded once, when its first request comes."""

    def __init__(self, context: RunContext, stage: str, progress: StageProgress) -> None:
        self._context, self._stage, self._progress = context, stage, progress
        self._engines: dict[str, Engine] = {}
        self._stack = ExitStack()
        self.tokens = {"prompt": 0, "generated": 0, "cached": 0}
        self.counts: dict[str, int] = {
            "generated": 0,
            "from_disk": 0,
            "failed": 0,
            "cut_at_limit": 0,
        }

    def __enter__(self) -> "Generation":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def engine(self, model: Model, share: float = 1.0) -> Engine:
        """The engine of a model, opened at the first request."""
        key = str(model.path)
        if key not in self._engines:
            log = self._context.folder(self._stage) / f"engine-{len(self._engines)}.log"
            config, say = self._context.config.engine, self._progress.note
            engine = LazyEngine(config, model, log, share, say)
            self._engines[key] = self._stack.enter_context(closing(engine))
        return self._engines[key]

    def doing(self, what: str, total: int) -> None:
        """Tell the progress display which part of the stage comes now."""
        self._progress.doing(what, total)

    def release(self) -> None:
        """End all engines: their memory is free for the next one."""
        self._stack.close()
        self._engines.clear()

    def run(
        self,
        chains: Sequence[Chain],
        roles: Mapping[str, Model],
        n_steps: int,
        file: str = "records",
    ) -> Tally:
        """Drive chains that make `n_steps` requests in all, if none breaks off.

        Raises TooManyErrors if more generations failed than the config allows.
        """
        share = 1 / len({str(model.path) for model in roles.values()})
        engines = {role: self.engine(model, share) for role, model in roles.items()}
        with self._context.records(self._stage, file) as records:
            tally = run_chains(
                chains, engines, records, lambda tally: self._progress.steps(n_steps, tally)
            )
            self._add_tokens(records)
        self._add(tally)
        return tally

    def _add_tokens(self, records: RecordFile) -> None:
        """Tokens of all records, whichever attempt at the stage made them."""
        for record in records:
            self.tokens["prompt"] += record.generation.n_prompt_tokens
            self.tokens["generated"] += record.generation.n_tokens
            self.tokens["cached"] += record.generation.n_cached_tokens

    def _add(self, tally: Tally) -> None:
        for name, value in (
            ("generated", tally.n_generated),
            ("from_disk", tally.n_replayed),
            ("failed", tally.n_errors),
            ("cut_at_limit", tally.finishes.get("length", 0)),
        ):
            self.counts[name] += value
        allowed = self._context.config.max_error_rate
        asked = tally.n_generated + tally.n_replayed
        if tally.n_errors > allowed * asked:
            raise TooManyErrors(
                f"stage {self._stage}: {tally.n_errors} of {asked} generations failed, more than "
                f"max_error_rate={allowed}; the records in {self._context.folder(self._stage)} say "
                "why (field generation.error). A prompt too long? Raise engine.max_context"
            )


def train(
    context: RunContext,
    stage: str,
    job: Job,
    rows: Iterable[dict[str, Any]],
    progress: StageProgress,
) -> dict[str, Any]:
    """Run a trainer's process in the stage's folder and return its result."""
    folder = context.folder(stage)
    if context.config.engine.kind == "fake":
        return run_fake_job(job, folder, rows)
    return run_job(job, folder, rows, progress.training)
