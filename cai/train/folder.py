"""A trainer's folder: its files, how they are replaced, which of them survive a crash.

`rows.jsonl job.json` go in; `log.txt metrics.jsonl trainer/checkpoint-N/` grow while it trains;
`checkpoint/` (or `scores.jsonl`) and, last, `result.json` come out; RL and DPO leave
`candidates/step-N/` too, from the weights in `kept/step-N/`. Light: imports no torch.

The Trainer writes the files of a checkpoint one after the other, in place, so that a killed process
leaves a folder that looks like one. Complete is what has been sealed and is still as it was then.
"""

import filecmp
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from cai.manifest import sha256
from cai.run import json_text, sync, sync_tree, whole_lines, write_atomic, write_rows
from cai.train.jobs import Job

ROWS = "rows.jsonl"
JOB = "job.json"
LOG = "log.txt"
METRICS = "metrics.jsonl"
TRAINER = "trainer"
SUMS = "sums.json"
"""In a checkpoint: size and SHA-256 of each of its other files."""
CHECKPOINT = "checkpoint"
KEPT = "kept"
CANDIDATES = "candidates"
SCORES = "scores.jsonl"
ERROR = "error.json"
RESULT = "result.json"


def prepare(job: Job, folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the job and its rows. What an earlier attempt left stays only if both are unchanged."""
    folder.mkdir(parents=True, exist_ok=True)
    new_rows, old_rows = folder / f"{ROWS}.tmp", folder / ROWS
    write_rows(new_rows, rows)
    text = job.model_dump_json(indent=1) + "\n"
    same_rows = old_rows.is_file() and filecmp.cmp(new_rows, old_rows, shallow=False)
    if not (same_rows and holds(folder / JOB, text)):
        clear(folder)
    publish(new_rows, old_rows)
    write_atomic(folder / JOB, text)


def holds(path: Path, text: str) -> bool:
    """Whether the file is there and says exactly `text`."""
    return path.is_file() and path.read_bytes() == text.encode()


def clear(folder: Path) -> None:
    """Remove what a trainer leaves; files that are not its own stay."""
    for name in (RESULT, ERROR, JOB, ROWS, METRICS, SCORES, LOG):
        (folder / name).unlink(missing_ok=True)
    for name in (TRAINER, CHECKPOINT, f"{CHECKPOINT}.tmp", KEPT, CANDIDATES):
        shutil.rmtree(folder / name, ignore_errors=True)


def rewind(folder: Path) -> int:
    """Go back to the newest checkpoint that will do (step 0 if none), drop what is newer; its step.

    `log.txt` says which did not.
    """
    newest = newest_checkpoint(folder)
    step = step_of(newest) if newest else 0
    for checkpoint in checkpoints(folder):
        if step_of(checkpoint) > step:
            sealed = (checkpoint / SUMS).exists()
            why = f"it, or its line of {METRICS}, is damaged" if sealed else f"it has no {SUMS}"
            note(folder, f"{checkpoint.name} is not used: {why}")
            shutil.rmtree(checkpoint)
    for path in (*(folder / KEPT).glob("step-*"), *(folder / CANDIDATES).glob("step-*")):
        if not 0 <= step_of(path) <= step:
            shutil.rmtree(path)
    lines = whole_lines(folder / METRICS)
    broken = [number for number, line in lines if metrics_of(line) is None]
    if broken:
        note(folder, f"{METRICS}: broken lines are left out: {broken}")
    kept = [line for line in read_metrics(folder) if line["step"] <= step]
    write_rows(folder / METRICS, kept)
    (folder / ERROR).unlink(missing_ok=True)
    return step


def note(folder: Path, text: str) -> None:
    """Add a line to `log.txt`, in the form of the child's own."""
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def step_of(checkpoint: Path) -> int:
    """N of `checkpoint-N` and `step-N`; -1 for anything else, such as `step-N.tmp`."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def newest_checkpoint(folder: Path) -> Path | None:
    """The `trainer/checkpoint-N` to resume from: the newest complete one whose step was logged."""
    logged = {line["step"] for line in read_metrics(folder)}
    there = (path for path in checkpoints(folder) if step_of(path) in logged)
    return next(filter(is_complete, there), None)


def checkpoints(folder: Path) -> list[Path]:
    """Every `trainer/checkpoint-N`, complete or not, the newest first."""
    return steps(folder / TRAINER, "checkpoint")[::-1]


def steps(folder: Path, name: str) -> list[Path]:
    """Every folder `NAME-N` in `folder`, the smallest N first."""
    found = (path for path in folder.glob(f"{name}-*") if step_of(path) >= 0)
    return sorted(found, key=step_of)


def seal(checkpoint: Path) -> None:
    """Make a checkpoint durable and, last, write down what is in it."""
    sync_tree(checkpoint)
    write_atomic(checkpoint / SUMS, sums(checkpoint))
    sync(checkpoint.parent)


def is_complete(checkpoint: Path) -> bool:
    """Whether `checkpoint` holds what it held when it was sealed, to the byte, and nothing else."""
    sealed = checkpoint / SUMS
    return sealed.is_file() and sealed.read_bytes() == sums(checkpoint).encode()


def sums(checkpoint: Path) -> str:
    """What SUMS says of the files that are there now."""
    there = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    return json_text(
        {
            path.relative_to(checkpoint).as_posix(): [path.stat().st_size, sha256(path)]
            for path in there
            if path != checkpoint / SUMS
        }
    )


def is_finished(checkpoint: Path) -> bool:
    """Whether a complete checkpoint is of the training's last step."""
    state = read_json(checkpoint / "trainer_state.json")
    return state is not None and state["global_step"] >= state["max_steps"]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """What was logged so far, a dict per logging step; lines that are not whole are left out."""
    lines = (metrics_of(line) for _, line in whole_lines(folder / METRICS))
    return [line for line in lines if line is not None]


def metrics_of(line: bytes) -> dict[str, Any] | None:
    """The numbers of a line of `metrics.jsonl`; none if it is broken."""
    try:
        found = cast(dict[str, Any], json.loads(line))
        return found if isinstance(found["step"], int) else None
    except (KeyError, TypeError, ValueError):
        return None


def append_metrics(folder: Path, line: Mapping[str, Any]) -> None:
    """Append one line, for a reader that follows the file."""
    with (folder / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in the file; none if there is no such file or it does not parse."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file or folder its name, in one step that survives a power cut."""
    if path.is_dir():
        shutil.rmtree(path)
    temporary.replace(path)
    sync(path.parent)


def link_tree(source: Path, target: Path) -> None:
    """Copy a folder without copying its bytes: hard links, where the file system has them."""
    target.mkdir()
    # not copytree, whose own errors do not say that the disk is full
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir()
        else:
            link(path, place)


def link(source: str | Path, target: str | Path) -> None:
    """A second name for a file; a copy where there can be none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def choose(candidate: Path, checkpoint: Path) -> None:
    """Give a kept policy's files their second name, that of the stage's checkpoint."""
    temporary = checkpoint.with_name(f"{checkpoint.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    link_tree(candidate, temporary)
    sync_tree(temporary)
    publish(temporary, checkpoint)
