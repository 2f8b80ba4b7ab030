"""Runs one training or scoring job in its own process, so that its memory is truly free after it.

Light: the command line imports this module, so it imports no torch.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cai import errors, stopping
from cai.deaths import OUTSIDE, cause_of, n_oom_kills
from cai.environment import child_environment, n_gpus
from cai.errors import CaiError, ConfigError, DiskFull, TrainError
from cai.lock import await_trainer
from cai.space import is_full
from cai.train import folder as files
from cai.train.jobs import Job

SECTION = {"sft": "sft", "reward": "reward", "rating": "reward", "rl": "rl", "dpo": "rl"}
"""The config's section whose `trainer` a kind of job gets."""
SPREAD = tuple(SECTION)
"""Kinds of job that are spread over the visible GPUs, one process each (data parallel)."""
POLL_S = 0.1
GRACE_S = 5.0
"""Seconds between the polite and the impolite end of a child."""
LOG_LINES = 15
BATCH_SIZE = {
    kind: f"{section}.trainer.per_device_train_batch_size" for kind, section in SECTION.items()
}
BATCH_SIZE["score"] = "rl.reward_batch_size"
"""The setting to lower where memory runs out."""

TRACEBACK = "Traceback (most recent call last):"
LAUNCHER = ("ChildFailedError", "CalledProcessError")


def reporters(job: Job) -> list[str]:
    """Whom a trainer was told to report to: these need their keys."""
    given: str | list[str] = getattr(job, "trainer", {}).get("report_to") or []
    return [given] if isinstance(given, str) else given


def run_job(
    job: Job,
    folder: Path,
    rows: Iterable[dict[str, Any]],
    on_metrics: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Run `job` on `rows` in `folder` and return its `result.json`.

    An unchanged job that has its result is not run again; one that was interrupted goes on from its
    newest complete checkpoint. `on_metrics` gets each line of `metrics.jsonl` (those from before an
    interruption first). Raises TrainError, DiskFull, what the child itself raised (ConfigError), or
    RunLocked where a trainer of a killed run still writes there.
    """
    await_trainer(folder)
    files.prepare(job, folder, rows)
    done = files.read_json(folder / files.RESULT)
    if done is not None:
        return done
    files.rewind(folder)
    log = folder / files.LOG
    log_start = log.stat().st_size if log.exists() else 0
    n_before = n_oom_kills()
    with running(job, folder) as child:
        follow(child, folder / files.METRICS, on_metrics)
    result = files.read_json(folder / files.RESULT)
    if result is None:
        raise failure(job, folder, child.returncode, (log_start, n_before))
    return result


@contextmanager
def running(job: Job, folder: Path) -> Generator[subprocess.Popen[bytes]]:
    """The trainer; at the end it is ended, with whatever it started."""
    child = None
    try:
        with stopping.held():  # a signal in the midst of it would leave the child behind
            child = start_child(job, folder)
        yield child
    finally:
        if child:
            end(child)


def start_child(job: Job, folder: Path) -> subprocess.Popen[bytes]:
    """Start the trainer, in a process group of its own; what it prints goes to `log.txt`."""
    with (folder / files.LOG).open("ab") as log:
        return subprocess.Popen(
            command(job.kind, folder.absolute()),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=child_environment(reporters(job), **told(job)),
            start_new_session=True,
        )


def told(job: Job) -> dict[str, str]:
    """What the child is told beside its job, as variables of its environment."""
    return {"CAI_PARENT_PID": str(os.getpid()), "CAI_MAX_CUT": str(getattr(job, "max_cut", 1.0))}


def command(kind: str, folder: Path) -> list[str]:
    """The child's command line: plain Python, or torchrun for more than one process."""
    module = ["-m", "cai.train.child", str(folder)]
    n = n_processes(kind)
    if n == 1:
        return [sys.executable, *module]
    # standalone: a free port, so that two runs on one machine do not meet
    spread = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n)]
    return [sys.executable, *spread, *module]


def n_processes(kind: str) -> int:
    """Processes for a job: one a GPU, or `CAI_NUM_PROCESSES` (ConfigError if not a number)."""
    if kind not in SPREAD:
        return 1
    given = os.environ.get("CAI_NUM_PROCESSES")
    if given is None:
        return max(1, n_gpus())
    if not given.isdecimal() or int(given) < 1:
        raise ConfigError(f"CAI_NUM_PROCESSES={given}: expected a whole number, 1 or more")
    return int(given)


def follow(
    child: subprocess.Popen[bytes], metrics: Path, on_metrics: Callable[[dict[str, Any]], None]
) -> None:
    """Hand on each line of `metrics` until the child has ended."""
    running, torn = True, ""
    with metrics.open(encoding="utf-8") as file:
        while running:
            running = child.poll() is None
            *lines, torn = (torn + file.read()).split("\n")
            for line in lines:
                on_metrics(json.loads(line))
            if running:
                time.sleep(POLL_S)


def end(child: subprocess.Popen[bytes]) -> None:
    """End the child and whatever it started; nothing happens where all have ended."""
    with stopping.held():
        if child.poll() is None:
            signal_group(child.pid, signal.SIGTERM)
            stopping.wait(child, GRACE_S)
        signal_group(child.pid, signal.SIGKILL)
        child.wait()


def signal_group(group: int, number: signal.Signals) -> None:
    """Signal a process group that may be gone."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def failure(job: Job, folder: Path, code: int, before: tuple[int, int | None]) -> CaiError:
    """The error of a child that left no result: its own, or what its log says.

    `before`: bytes of the log, and `n_oom_kills`, when it was started.
    """
    said = files.read_json(folder / files.ERROR)
    if said is not None:
        return getattr(errors, said["type"])(said["message"])
    with (folder / files.LOG).open("rb") as file:
        file.seek(before[0])
        lines = file.read().decode(errors="replace").splitlines()
    reason = gist(lines) or "it printed nothing"
    tail = "\n".join(f"  {line}" for line in lines[-LOG_LINES:])
    cause = cause_of(code, tail, before[1])
    how = how_it_ended(code) + (f" {OUTSIDE}" if cause == "killed" else "")
    message = f"{job.kind}: {reason} ({how}; log: {folder / files.LOG})"
    # its last words may have found no room either
    if "No space left on device" in tail or code == DiskFull.exit_code or is_full(folder):
        return DiskFull(f"{message}; free some space and run the same command again\n{tail}")
    if cause == "memory":
        message += f"; probably out of memory: lower {BATCH_SIZE[job.kind]}"
    return TrainError(f"{message}\n{tail}")


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def gist(lines: list[str]) -> str:
    """The line that says what went wrong: the last of the last traceback, or just the last line."""
    plain = [re.sub(r"^\[rank\d+\]:\s?", "", line) for line in lines]
    starts = [i for i, line in enumerate(plain) if line.strip() == TRACEBACK]
    for start in reversed(starts):
        after = (line for line in plain[start + 1 :] if line and not line[0].isspace())
        found = next(after, "")
        if found and not any(name in found for name in LAUNCHER):
            return found
    return next((line.strip() for line in reversed(plain) if line.strip()), "")
