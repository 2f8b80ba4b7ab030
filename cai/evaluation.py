"""Asking a model, or a reward model, the items of a suite.

Log-probabilities are records in a folder of their own: the same command continues an interrupted
evaluation, and asks nothing twice.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cai.accuracy import (
    Outcome,
    Scored,
    SuiteResult,
    make_variants,
    read_outcome,
    reward_accuracy,
)
from cai.chains.answering import answer_chain, make_request, read_answer
from cai.config import Engine
from cai.driver import run_chains
from cai.engines.base import Engine as OpenEngine
from cai.engines.base import Request
from cai.engines.open import DEFAULT_CONTEXT, LazyEngine
from cai.engines.process import context_limit
from cai.errors import ConfigError, TooManyErrors
from cai.lock import RunLock
from cai.models import Model, has_chat_template, is_reward_model, model_for
from cai.records import Response, digest
from cai.run import RecordFile, read_rows, write_json
from cai.score import find_reward_model
from cai.suites import (
    SUITES,
    Asked,
    Format,
    Item,
    SuiteName,
    as_given,
    draw_items,
    load_items,
    shuffled,
)
from cai.train.fake import run_fake_job
from cai.train.folder import SCORES
from cai.train.jobs import ScoreJob
from cai.train.launch import run_job
from cai.view.progress import RunProgress, StageProgress

FOLDER = Path("runs") / "evaluations"
"""Where evaluations are worked on."""
REWARD_BATCH = 16


class SuiteOptions(NamedTuple):
    """What is evaluated, and how."""

    suite: SuiteName
    data: str
    """The folder of the published files (`evals/`), or the suite's file."""
    model: str | None = None
    """Answers by the log-probability of its options; a reward model is treated as one."""
    reward_model: str | None = None
    """Scores the two texts of each hhh item, or the question answered by each option."""
    format: Literal["auto", "raw", "chat", "both"] = "auto"
    """auto: raw for models without a chat template."""
    engine: Engine = Engine()
    seed: int = 0
    """Decides how options are shuffled, and which items `n` draws."""
    n: int | None = None
    skip_bad: bool = False
    folder: Path = FOLDER
    out: Path | None = None
    """A JSON file for the result with every item's outcome."""


def evaluate_suite(options: SuiteOptions, progress: RunProgress | None = None) -> SuiteResult:
    """Ask and measure; writes `options.out`.

    Raises ConfigError for what cannot be used, TooManyErrors where not one item could be scored.
    """
    path = check_options(options)
    loaded = load_items(path, options.suite, options.skip_bad)
    items = draw_items(loaded.items, options.n, options.seed)
    model, reward_model = find_models(options)
    with (progress or RunProgress()).stage(options.suite) as stage:
        outcomes = ask_model(items, model, options, stage) if model else []
        scores = score_answers(items, reward_model, options, stage) if reward_model else []
    result = SuiteResult(
        suite=options.suite,
        file=str(path),
        n_rows=len(loaded.items),
        n_bad=loaded.n_bad,
        n_items=len(items),
        n_not_shuffled=sum(item.question is None for item in items),
        seed=options.seed,
        engine=options.engine,
        model=model.label if model else None,
        reward_model=reward_model.label if reward_model else None,
        variants=make_variants(outcomes),
        reward=reward_accuracy(scores),
        outcomes=tuple(outcomes),
        scores=tuple(scores),
    )
    refuse_nothing(result)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, result.model_dump(mode="json"))
    return result


def check_options(options: SuiteOptions) -> Path:
    """The suite's file. Raises ConfigError for options that contradict each other."""
    if not (options.model or options.reward_model):
        raise ConfigError("nothing to evaluate; give --model NAME or --reward-model FOLDER")
    name, given = SUITES[options.suite].file, Path(options.data)
    for path in (given, given / name, given / "evals" / name):
        if path.is_file():
            return path
    raise ConfigError(
        f"{given}: no {name} there; expected the folder evals/ of "
        "github.com/anthropics/ConstitutionalHarmlessnessPaper, or the file itself"
    )


def find_models(options: SuiteOptions) -> tuple[Model | None, Model | None]:
    """The model and the reward model; the fake engine needs no folders."""
    kind = options.engine.kind
    model = model_for(options.model, kind) if options.model else None
    named = options.reward_model
    if kind == "fake":
        return model, model_for(named, kind) if named else None
    reward_model = find_reward_model(named) if named else None
    if model and not reward_model and is_reward_model(model.path):
        return None, model
    return model, reward_model


def refuse_nothing(result: SuiteResult) -> None:
    """Raise TooManyErrors if a model or a reward model was asked, and nothing was measured."""
    asked = (result.outcomes, result.scores)
    measured = (result.variants, result.reward)
    if any(given and not found for given, found in zip(asked, measured, strict=True)):
        reason, n = result.failures.most_common(1)[0]
        raise TooManyErrors(
            f"suite {result.suite}: none of {result.n_items} items could be scored; {n} times: "
            f"{reason}. A prompt too long? Type --max-context with more tokens"
        )


def work_folder(model: Model, options: SuiteOptions) -> Path:
    """Where one model's evaluation by one suite is worked on."""
    stamp = digest("evaluation", options.suite, model.label, options.engine.key)[:10]
    folder = options.folder / f"{options.suite}-{stamp}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def formats(options: SuiteOptions, model: Model) -> tuple[Format, ...]:
    """In which forms the items are asked."""
    if options.format == "both":
        return ("raw", "chat")
    if options.format != "auto":
        return (options.format,)
    is_base = options.engine.kind != "fake" and not has_chat_template(model.path)
    return ("raw",) if is_base else ("chat",)


def ask_model(
    items: Sequence[Item], model: Model, options: SuiteOptions, progress: StageProgress
) -> list[Outcome]:
    """Every item in every format, as given and, where it can be taken apart, shuffled."""
    folder = work_folder(model, options)
    ways = list(ways_of_asking(items, options, formats(options, model)))
    requests = [make_request(*way, model.label, options.engine.key) for way in ways]
    with (
        RunLock(folder),
        closing(LazyEngine(options.engine, model, folder / "engine.log", 1.0)) as engine,
    ):
        answers = ask(requests, model.label, engine, folder, progress)
    return [
        read_outcome(*way, *read_answer(answers[request.id]))
        for way, request in zip(ways, requests, strict=True)
    ]


def ways_of_asking(
    items: Iterable[Item], options: SuiteOptions, styles: Sequence[Format]
) -> Iterator[tuple[Asked, Format]]:
    """An item's variants come one after the other: they share what an engine has cached."""
    form = SUITES[options.suite].form
    for item in items:
        exchanged = shuffled(item, form, options.seed)
        for style in styles:
            yield as_given(item), style
            if exchanged:
                yield exchanged, style


def ask(
    requests: Iterable[Request],
    label: str,
    engine: OpenEngine,
    folder: Path,
    progress: StageProgress,
) -> dict[str, Response]:
    """The answer to each request by its id, from the folder's records where it is there.

    A shuffled item whose options came out as given is the same request, and asked once.
    """
    distinct = {request.id: request for request in requests}
    progress.doing("log-probabilities of the options", len(distinct))
    with RecordFile(folder / "records.jsonl") as records:
        run_chains(
            (answer_chain(request, label) for request in distinct.values()),
            {"base": engine},
            records,
            lambda tally: progress.steps(len(distinct), tally),
        )
        found = (record for record in records if isinstance(record, Response))
        return {record.id: record for record in found if record.id in distinct}


def score_answers(
    items: Sequence[Item], model: Model, options: SuiteOptions, progress: StageProgress
) -> list[Scored]:
    """The reward model's scores of each item's answers."""
    folder, context = work_folder(model, options), options.engine.max_context or DEFAULT_CONTEXT
    fake = options.engine.kind == "fake"
    rows = [row for item in items for row in score_rows(item)]
    job = ScoreJob(
        reward_model=str(model.path),
        base=None,
        max_length=context if fake else context_limit(model.path, context),
        batch_size=REWARD_BATCH,
    )
    progress.doing(f"scores of {len(rows)} texts")
    with RunLock(folder):
        if fake:
            run_fake_job(job, folder, rows)
        else:
            run_job(job, folder, rows, progress.training)
        found = {row["id"]: row for row in read_rows(folder / SCORES)}
    return [read_scores(item, found) for item in items]


def score_rows(item: Item) -> list[dict[str, Any]]:
    """Rows of a ScoreJob; none for an item without texts."""
    return [
        {
            "id": f"{item.row}/{i}",
            "prompt": [message.model_dump() for message in messages[:-1]],
            "text": messages[-1].content,
            "ended": True,
            "policy": None,
        }
        for i, messages in enumerate(item.answered or ())
    ]


def read_scores(item: Item, found: Mapping[str, Mapping[str, Any]]) -> Scored:
    """An item's scores; none of them where one is missing or not finite."""
    n = len(item.answered or ())
    scores = [found.get(f"{item.row}/{i}", {}) for i in range(n)]
    rewards = [score["reward"] for score in scores if score.get("reward") is not None]
    failed = None
    if not n:
        failed = "the row has no texts to compare, and no options that can be taken apart"
    elif len(rewards) < n:
        failed = "a score of the reward model is not a finite number"
    return Scored(
        row=item.row,
        right=None if failed else rewards[0],
        wrong=None if failed else max(rewards[1:]),
        n_answers=n,
        truncated=any(score.get("truncated", False) for score in scores),
        failed=failed,
    )
