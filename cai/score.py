"""`cai score`: a reward model's scores of the conversations in a file.

Light: the model is loaded in a child process, so this module imports no torch.
"""

import importlib.util
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from cai.conversations import SIDES, Conversation, conversations, read_each
from cai.errors import ConfigError, MissingDependency, TrainError
from cai.manifest import run_at
from cai.metrics import gap_accuracy, known, mean
from cai.models import Model, check_reward_model, model_context, resolve_model
from cai.records import Record
from cai.run import read_rows, write_rows
from cai.sources import Row, SourceCount, read_file
from cai.train.folder import CHECKPOINT, SCORES
from cai.train.jobs import ScoreJob
from cai.train.launch import run_job
from cai.view.progress import RunProgress

if TYPE_CHECKING:
    from rich.console import Console


class ScoreOptions(Record):
    """How to read the file and the texts."""

    max_length: int = Field(default=2048, ge=1)
    """Tokens of a conversation; a longer one is cut at its left and counted. The model's own
    context bounds it."""
    batch_size: int = Field(default=16, ge=1)
    skip_bad: bool = False
    """Leave broken lines out and count them."""


class Item(NamedTuple):
    """What one line asks to be scored: a conversation, or the two of a pair (chosen, rejected)."""

    line: int
    conversations: tuple[Conversation, ...]


class Scored(NamedTuple):
    """An item's scores, none where one is not finite; `truncated`: some text did not fit."""

    line: int
    rewards: tuple[float | None, ...]
    truncated: bool


def score_file(model: str, data: str, out: Path | None, options: ScoreOptions) -> dict[str, Any]:
    """Score each row of the JSONL(.gz) file `data`, write a line for each to `out`, summarise.

    `model`: a run's folder or name, the folder of a reward model, or a hub id. Raises ConfigError
    naming the first broken line, for a file without rows, and for a model that is no reward model.
    """
    check_installed()
    check_out(out, data)
    count = SourceCount(data, "red_team")
    items = read_items(Path(data), count, options.skip_bad)
    folder = find_reward_model(model).path
    context = model_context(folder)
    max_length = min(options.max_length, context or options.max_length)
    job = ScoreJob(
        reward_model=str(folder),
        base=None,
        max_length=max_length,
        batch_size=options.batch_size,
    )
    scored = score_items(job, items, out)
    if out:
        write_rows(out, map(output_row, scored))
    place = {"model": str(folder), "data": data, "out": str(out) if out else None}
    counts = {"max_length": max_length, "n_rows": count.n_rows, "n_bad": count.n_bad}
    return place | counts | summary(scored)


def check_installed() -> None:
    """Raise MissingDependency where the child process would miss a library."""
    for name in ("torch", "transformers", "peft"):
        if importlib.util.find_spec(name) is None:
            raise MissingDependency(f"{name} is not installed: pip install 'cai-toolkit[train]'")


def check_out(out: Path | None, data: str) -> None:
    """Raise ConfigError for a place that scores cannot be written to; make its folder."""
    if out is None:
        return
    if out.is_dir():
        raise ConfigError(f"{out}: a folder; expected a file to write, such as {out}/scores.jsonl")
    if out.exists() and Path(data).exists() and out.samefile(data):
        raise ConfigError(f"{out}: is the file to be scored; write the scores to another one")
    out.parent.mkdir(parents=True, exist_ok=True)


def find_reward_model(name: str) -> Model:
    """A reward model by its folder or hub id; of a run, the one that it trained.

    Raises ConfigError for a model that is none.
    """
    from cai.view.transcripts import stage_folder

    if run := run_at(name):
        folder = stage_folder(run, "reward") / CHECKPOINT
        if not (folder / "config.json").is_file():
            raise ConfigError(f"{run}: no reward model in this run ({folder} is not there)")
        name = str(folder)
    model = resolve_model(name)
    check_reward_model(model)
    return model


def read_items(path: Path, count: SourceCount, skip_bad: bool) -> list[Item]:
    """Every line's conversations. Raises ConfigError naming a broken line, or if none is left."""
    items = list(read_each(read_file(path, count, skip_bad), item_of, count, skip_bad))
    if not items:
        raise ConfigError(f"{path}: nothing to score ({count.n_rows} rows, {count.n_bad} broken)")
    return items


def item_of(row: Row) -> Item:
    """A line's conversations."""
    return Item(int(row.place.rpartition(":")[2]), conversations(row))


def score_items(job: ScoreJob, items: Sequence[Item], out: Path | None) -> list[Scored]:
    """Score all items in a child process."""
    n_texts = sum(len(item.conversations) for item in items)
    with scratch(out) as folder, RunProgress().stage("score") as progress:
        progress.doing("reading texts", n_texts)
        run_job(job, folder, job_rows(items), progress.training)
        return read_scored(folder, items)


def job_rows(items: Sequence[Item]) -> Iterator[dict[str, Any]]:
    """A row of the score job for each conversation, in order."""
    for item in items:
        for i, (*before, answer) in enumerate(item.conversations):
            yield {
                "id": f"{item.line}-{i}",
                "prompt": [message.model_dump() for message in before],
                "text": answer.content,
                "ended": True,
                "policy": None,
            }


def read_scored(folder: Path, items: Sequence[Item]) -> list[Scored]:
    """What the job of `job_rows(items)` left in its folder."""
    found = read_rows(folder / SCORES)
    scored: list[Scored] = []
    for item in items:
        rows = [next(found) for _ in item.conversations]
        rewards = tuple(row["reward"] for row in rows)
        scored.append(Scored(item.line, rewards, any(row["truncated"] for row in rows)))
    return scored


@contextmanager
def scratch(out: Path | None) -> Generator[Path]:
    """A folder beside `out` for the child process, gone afterwards."""
    folder, keep = Path(mkdtemp(prefix=".cai-score-", dir=out.parent if out else None)), False
    try:
        yield folder
    except TrainError:
        keep = True  # The error names the log in it.
        raise
    finally:
        if not keep:
            shutil.rmtree(folder)


def output_row(scored: Scored) -> dict[str, Any]:
    """The line of the output file."""
    names = [f"reward_{name}" for name in SIDES] if len(scored.rewards) == 2 else ["reward"]
    rewards = dict(zip(names, scored.rewards, strict=True))
    return {"line": scored.line, **rewards, "truncated": scored.truncated}


def summary(scored: Sequence[Scored]) -> dict[str, Any]:
    """Counts of rows, and estimates over the rows whose scores are all finite.

    Means have t-intervals. `accuracy` is the share of pairs with the chosen one on top, a tie being
    half, with Wilson's interval; `gap` the mean of chosen minus rejected. None where there is none.
    """
    whole = [row.rewards for row in scored]
    finite = [tuple(r for r in rewards if r is not None) for rewards in whole]
    usable = [one for one, all_of in zip(finite, whole, strict=True) if len(one) == len(all_of)]
    singles = [rewards[0] for rewards in usable if len(rewards) == 1]
    pairs = [(rewards[0], rewards[1]) for rewards in usable if len(rewards) == 2]
    gaps = [chosen - rejected for chosen, rejected in pairs]
    return {
        "n_scored": len(usable),
        "n_not_finite": len(scored) - len(usable),
        "n_truncated": sum(row.truncated for row in scored),
        "reward": known(mean, singles),
        "reward_chosen": known(mean, [chosen for chosen, _ in pairs]),
        "reward_rejected": known(mean, [rejected for _, rejected in pairs]),
        "gap": known(mean, gaps),
        "accuracy": known(gap_accuracy, gaps),
    }


def print_score(found: Mapping[str, Any], console: "Console") -> None:
    """Print a summary; an estimate only where there is one."""
    from cai.view.terminal import measure, one_line

    lines = [
        f"{one_line(found['data'])}: {found['n_rows']:,} rows, {found['n_scored']:,} scored, "
        f"{found['n_bad']:,} broken, {found['n_not_finite']:,} without a finite score, "
        f"{found['n_truncated']:,} cut to {found['max_length']:,} tokens",
        f"model: {one_line(found['model'])}",
    ]
    for name in ("reward", "reward_chosen", "reward_rejected", "gap"):
        if found[name]:
            lines.append(f"{name.replace('_', ' of ')}: {measure(found[name])}")
    if found["accuracy"]:
        lines.append(f"accuracy: {measure(found['accuracy'], 100, 0)} of {found['gap']['n']:,}")
    if found["out"]:
        lines.append(f"scores: {one_line(found['out'])}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
