"""The order of the stages, and what running them means: skip, refuse, or do and mark done."""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cai.artefacts import DONE, artefacts
from cai.errors import CaiError, ConfigError
from cai.guards import broken, lost, refuse
from cai.manifest import Manifest
from cai.records import digest
from cai.run import disk_errors, json_text, read_json, sync, write_atomic
from cai.space import check_stage
from cai.stages import evaluate, label, revise, reward, rl, sample, sft
from cai.stages.context import Outcome, RunContext
from cai.view.progress import RunProgress, StageProgress


class Stage(NamedTuple):
    """One step of a run."""

    name: str
    folder: str
    run: Callable[[RunContext, StageProgress], Outcome]
    needs: tuple[str, ...]
    """The stages whose files it reads."""
    settings: tuple[str, ...]
    """The sections of the config that decide what it makes."""


STAGES: tuple[Stage, ...] = (
    Stage("revise", "01-revise", revise.run, (), ("revise", "prompts", "engine")),
    Stage("sft", "02-sft", sft.run, ("revise",), ("sft",)),
    Stage("sample", "03-sample", sample.run, ("sft",), ("sample", "prompts", "engine")),
    Stage("label", "04-label", label.run, ("revise", "sample"), ("label", "engine")),
    Stage(
        "reward",
        "05-reward",
        reward.run,
        ("revise", "sample", "label"),
        ("reward", "preferences"),
    ),
    Stage(
        "rl",
        "06-rl",
        rl.run,
        ("sft", "reward"),
        ("rl", "reward", "prompts", "sample", "label", "engine"),
    ),
    Stage(
        "evaluate",
        "07-evaluate",
        evaluate.run,
        ("revise", "sft", "label", "reward", "rl"),
        ("evaluate", "prompts", "engine"),
    ),
)
METRICS = "metrics.json"
"""What a stage measured beside its counts."""
FOLDERS = {stage.name: stage.folder for stage in STAGES}


def plan(until: str | None) -> tuple[Stage, ...]:
    """The stages up to `until`, or all of them."""
    names = [stage.name for stage in STAGES]
    if until is None:
        return STAGES
    if until not in names:
        raise ConfigError(f"--until {until}: no such stage; the stages are {', '.join(names)}")
    return STAGES[: names.index(until) + 1]


def fingerprints(context: RunContext, inputs: str) -> dict[str, str]:
    """What each stage's result depends on: its settings, the models, the inputs, earlier stages.

    Earlier stages enter by name, so that two of them exchanged are not the same.
    """
    config = context.config.deciding()
    models = {role: model.commit for role, model in context.models.items()}
    found: dict[str, str] = {}
    for stage in STAGES:
        settings = {key: config[key] for key in (*stage.settings, "seed")}
        needs = {name: found[name] for name in stage.needs}
        found[stage.name] = digest(stage.name, settings, models, inputs, needs)
    return found


def run_stages(
    context: RunContext, stages: Sequence[Stage], manifest: Manifest, progress: RunProgress
) -> int:
    """Run what is not done yet; returns how many stages that were."""
    expected = fingerprints(context, manifest.inputs_digest)
    n_run = 0
    for stage in stages:
        folder = context.folder(stage.name)
        done = folder / DONE
        if done.is_file():
            check_marker(done, expected[stage.name])
        else:
            n_run += 1
            run_stage(context, stage, manifest, progress, expected[stage.name])
        guard(context, stage.name, manifest, progress)
    return n_run


def guard(context: RunContext, stage: str, manifest: Manifest, progress: RunProgress) -> None:
    """Hold what a finished stage measured against the bounds, which may change at any time.

    New warnings are said. Raises QualityGate for a bound that stops the run.
    """
    folder, guards = context.folder(stage), context.config.guards
    found = read_json(folder / DONE)["counts"]
    if (folder / METRICS).is_file():
        found |= read_json(folder / METRICS)
    over = broken(stage, found, guards)
    texts = [*(measure.text for measure in over), *lost(found)]
    for text in manifest.warn(stage, texts):
        progress.say(f"! {text}")
    refuse(stage, over, guards)


def run_stage(
    context: RunContext,
    stage: Stage,
    manifest: Manifest,
    progress: RunProgress,
    fingerprint: str,
) -> None:
    """Do one stage and mark it done, last of all."""
    folder = context.folder(stage.name)
    check_stage(folder, stage.name, context.models, context.config)
    manifest.begin(stage.name, stage.folder)
    started = time.monotonic()
    try:
        with disk_errors(folder), progress.stage(stage.name) as stage_progress:
            folder.mkdir(exist_ok=True)
            sync(context.run)
            outcome = stage.run(context, stage_progress)
    except (CaiError, KeyboardInterrupt, SystemExit) as error:
        manifest.stop(stage.name, type(error).__name__, time.monotonic() - started)
        raise
    entry: dict[str, Any] = {
        "n_in": outcome.n_in,
        "n_out": outcome.n_out,
        "counts": outcome.counts,
        "tokens": outcome.tokens,
    }
    seconds = manifest.seconds(stage.name, time.monotonic() - started)
    done = {"fingerprint": fingerprint, "stage": stage.name, "seconds": seconds, **entry}
    marker = json_text(done | {"files": artefacts(folder)})
    manifest.finish(stage.name, entry, seconds, hashlib.sha256(marker.encode()).hexdigest())
    write_atomic(folder / DONE, marker)
    progress.say(summary_line(stage.name, outcome, seconds))


def summary_line(name: str, outcome: Outcome, seconds: float) -> str:
    """What a stage did, in a line."""
    tokens = outcome.tokens.get("generated")
    rate = f", {tokens} tokens generated" if tokens else ""
    return f"✓ {name}: {outcome.n_in} in, {outcome.n_out} out{rate}, {seconds:.0f} s"


def check_marker(done: Path, fingerprint: str) -> None:
    """Refuse to build on a stage that was made from something else."""
    if read_json(done).get("fingerprint") != fingerprint:
        raise ConfigError(
            f"{done.parent}: was made from other settings or inputs than this run's; delete the "
            "run folder, or give another one with --out"
        )
