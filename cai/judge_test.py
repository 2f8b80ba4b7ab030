"""`cai judge-test`: what a judge's labels are worth, measured before money is spent on them.

Pairs whose better side is known are judged exactly as the label stage would judge them. Answers are
records in a folder of their own: the same command continues, and asks nothing twice.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cai.chains.judging import Trial, make_trial, trial_chains
from cai.config import RunConfig
from cai.constitution import Constitution, find_constitution, load_constitution
from cai.driver import Chain, run_chains
from cai.engines.open import LazyEngine
from cai.errors import ConfigError, QualityGate, TooManyErrors
from cai.judge_metrics import chance, is_chance, measure
from cai.lock import RunLock
from cai.manifest import run_at
from cai.models import Model, model_for
from cai.preferences import Reading, read_pairs
from cai.prompts import Templates
from cai.records import digest
from cai.resolve import Options, resolve_config
from cai.run import RecordFile, StoredRecord, write_json
from cai.sections import PreferenceSource
from cai.stages.label import label_setup
from cai.view.progress import RunProgress

FOLDER = Path("runs") / "judge-tests"


class JudgeTestOptions(NamedTuple):
    """Who is tested, and on what."""

    judge: str
    """A run's folder or name, whose judge, principles and label settings are taken; or a model."""
    data: str
    """Preferences: see `cai.preferences`."""
    options: Options = Options()
    """For a model: constitution and settings. For a run: settings over its own."""
    n: int | None = 200
    """Pairs drawn from the data; none: all."""
    n_identical: int = 16
    n_written: int = 16
    folder: Path = FOLDER


class Subject(NamedTuple):
    """The judge as it would label."""

    config: RunConfig
    constitution: Constitution
    templates: Templates
    model: Model


def judge_test(options: JudgeTestOptions, progress: RunProgress | None = None) -> dict[str, Any]:
    """Ask, measure, write `result.json`; returns its content.

    Raises TooManyErrors where not one pair could be scored.
    """
    progress = progress or RunProgress()
    subject = find_subject(options)
    config = subject.config
    source = PreferenceSource(path=options.data, n=options.n)
    pairs, count = read_pairs(source, config.seed, config.prompts.skip_bad)
    decided = [pair for pair in pairs if pair.p_chosen != 0.5]
    if not decided:
        raise ConfigError(f"{options.data}: no pair in it that says which side is better")
    leave_out(len(pairs) - len(decided), "undecided", count)
    # Where verdicts are written anyway, there is no need for more of them.
    n_written = 0 if config.label.mode == "text" else options.n_written
    trial = make_trial(decided, options.n_identical, n_written)
    folder = work_folder(subject, options)
    records = ask_judge(subject, trial, folder, progress)
    measured = measure(trial, records)
    result = {
        "judge": subject.model.label,
        "constitution": f"{subject.constitution.name} {subject.constitution.version}",
        "label": config.label.model_dump(mode="json"),
        "engine": config.engine.model_dump(mode="json"),
        "seed": config.seed,
        "data": options.data,
        "rows": count.summary(),
        "folder": str(folder),
        **measured,
        "at_chance": bool(measured["accuracy"]) and is_chance(measured),
    }
    if not result["accuracy"]:
        raise TooManyErrors(
            f"{subject.model.label}: none of {len(decided)} pairs could be scored: "
            f"{result['unscored_reasons']}; a prompt too long? Type --set "
            "engine.max_context=… with more tokens"
        )
    write_json(folder / "result.json", result)
    return result


def leave_out(n: int, reason: str, reading: Reading) -> None:
    """Count `n` of the rows used as left out."""
    if n:
        reading.n_used -= n
        reading.left_out[reason] = n


def refuse_chance(result: Mapping[str, Any]) -> None:
    """Raise QualityGate for a judge whose accuracy is not above chance."""
    if is_chance(result):
        raise QualityGate(f"{result['judge']}: {chance(result)}")


def find_subject(options: JudgeTestOptions) -> Subject:
    """The judge of a run, or a model under the given constitution."""
    copies: Path | None = None
    if run := run_at(options.judge):
        copies = run / "inputs"
        own = options.options._replace(
            config=str(run / "config.json"), constitution=str(copies / "constitution.yaml")
        )
        config = resolve_config(own)
    else:
        given = options.options.constitution or "harmless"
        model = options.judge
        config = resolve_config(options.options._replace(constitution=given, model=model))
    constitution = load_constitution(find_constitution(config.constitution))
    constitution.for_preference()
    name = config.models.judge or config.models.base
    templates = Templates(config.exemplars, copies)
    return Subject(config, constitution, templates, model_for(name, config.engine.kind))


def work_folder(subject: Subject, options: JudgeTestOptions) -> Path:
    """Where a judge's answers lie; other settings ask other questions there."""
    folder = options.folder / f"{Path(subject.model.name).name}-{digest(subject.model.label)[:6]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def ask_judge(
    subject: Subject, trial: Trial, folder: Path, progress: RunProgress
) -> list[StoredRecord]:
    """Every answer to the trial, those that were on disk included."""
    config, heard = subject.config, list[StoredRecord]()
    setup = label_setup(config, subject.constitution, subject.templates, subject.model)
    chains = trial_chains(trial, setup, replace(setup, mode="text"))
    n_pairs = len(trial.pairs) + len(trial.identical)
    n_steps = setup.n_steps * n_pairs + len(trial.written)
    engine = LazyEngine(config.engine, subject.model, folder / "engine.log", 1.0)
    with RunLock(folder), closing(engine), progress.stage("judge-test") as stage:
        stage.doing(f"{n_pairs} pairs in both orders", n_steps)
        with RecordFile(folder / "records.jsonl") as records:
            run_chains(
                (overheard(chain, heard) for chain in chains),
                {"judge": engine},
                records,
                lambda tally: stage.steps(n_steps, tally),
            )
    return heard


def overheard(chain: Chain, heard: list[StoredRecord]) -> Chain:
    """The chain; its records are kept in `heard` too."""
    record: Any = None
    while True:
        try:
            step = chain.send(record)
        except StopIteration:
            return
        record = yield step
        heard.append(record)
