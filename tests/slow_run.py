"""`cai` in a process of its own, on a fake engine that takes its time, with trainers in processes.

For what a signal does. As a script: `python slow_run.py cai ARGUMENTS…`, or `train FOLDER` for a
trainer. The environment says how slow: ANSWER_S, TRAIN_S, PATIENCE_S; STUBBORN: trainers ignore
SIGTERM, and are waited for. MARK is for finding all that was started.
"""

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

CONSTITUTION = ("--constitution", "harmless.yaml", "--recipe", "quickstart")
SETTINGS = ("engine.kind=fake", "engine.capacity=4", "revise.n_prompts=6", "sample.n_prompts=8")
SETTINGS += ("evaluate.n_prompts=4",)
COMMAND = ("run", *CONSTITUTION, *(word for one in SETTINGS for word in ("--set", one)))
ASKED = ".asked"
TRAINS = "trains"
"""A file in the folder of a trainer that has begun."""


class SlowRun:
    """A `cai run` to send signals to. Its folder is `folder`; `how` goes into its environment.

    `terminal`: the far side of one, which becomes its own.
    """

    def __init__(
        self, folder: Path, *arguments: str, terminal: int | None = None, **how: float
    ) -> None:
        self.folder, self._mark = folder, uuid4().hex
        (folder.parent / f"{folder.name}{ASKED}").unlink(missing_ok=True)

        def begin() -> None:
            # a test that runs in the background has inherited that it is to be ignored
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if terminal is not None:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [sys.executable, __file__, "cai", *COMMAND, "--out", str(folder), *arguments],
            stdin=terminal or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=terminal or subprocess.PIPE,
            text=True,
            env=os.environ | {"MARK": self._mark} | {k: str(v) for k, v in how.items()},
            start_new_session=True,
            preexec_fn=begin,
        )
        assert self.process.stdout
        self.process.stdout.readline()  # it has begun

    def wait_for(self, there: Callable[[], bool], seconds: float = 300) -> None:
        """Until something is there; it must come while the process runs."""
        end = time.monotonic() + seconds
        while not there():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end
            time.sleep(0.005)

    def send(self, *numbers: int, pause_s: float = 0.05) -> tuple[int, str, float]:
        """Send signals, one after the other; the exit code, what it said, how long that took."""
        started = time.monotonic()
        for position, number in enumerate(numbers):
            time.sleep(pause_s if position else 0)
            self.process.send_signal(number)
        code, said = self.end()
        return code, said, time.monotonic() - started

    def end(self) -> tuple[int, str]:
        """Let it end; the exit code as a shell has it, and what it said."""
        _, said = self.process.communicate(timeout=500)
        code = self.process.returncode
        return (code if code >= 0 else 128 - code), said

    def left(self) -> list[int]:
        """What it has started and still runs some seconds after its end."""
        end = time.monotonic() + 5
        while (found := marked(self._mark)) and time.monotonic() < end:
            time.sleep(0.02)
        return found

    def asked(self) -> list[str]:
        """The ids of the requests that it has given to the engine."""
        return Path(f"{self.folder}{ASKED}").read_text().split()


def marked(mark: str) -> list[int]:
    """The processes with this mark in their environment."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except (OSError, ProcessLookupError):
            continue  # it has ended meanwhile, or is another user's
    return found


def be_slow(folder: str) -> None:
    """Have this process's fake engine and trainers take their time."""
    from cai import stopping
    from cai.engines.base import Completion, Request
    from cai.engines.fake import FakeEngine
    from cai.stages import context
    from cai.train import launch
    from cai.train.jobs import Job

    answer_s = float(os.environ.get("ANSWER_S", 0))
    stopping.PATIENCE_S = float(os.environ.get("PATIENCE_S", stopping.PATIENCE_S))
    notes = os.open(f"{folder}{ASKED}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    submit, due = FakeEngine.submit, dict[str, float]()

    def slow_submit(self: FakeEngine, request: Request) -> None:
        os.write(notes, f"{request.id}\n".encode())
        # not all at the same time
        due[request.id] = time.monotonic() + answer_s * (0.5 + int(request.id[:2], 16) / 256)
        submit(self, request)

    def slow_poll(self: FakeEngine) -> list[Completion]:
        time.sleep(min(answer_s, 0.01))
        now, waiting = time.monotonic(), self._waiting
        n = sum(due[request.id] <= now for request in waiting)
        return [self._answer(waiting.popleft()) for _ in range(n)]

    def slow_job(job: Job, folder: Path, rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
        return launch.run_job(job, folder, rows, lambda _: None)

    FakeEngine.submit, FakeEngine.poll = slow_submit, slow_poll
    if "STUBBORN" in os.environ:
        launch.GRACE_S = stopping.STOP_S = 100
    if "TRAIN_S" in os.environ:
        context.run_fake_job = slow_job
        launch.command = lambda _, folder: [sys.executable, __file__, "train", str(folder)]


def train(folder: Path) -> None:
    """A trainer's process: with a child of its own, and at last a fake job's files."""
    from cai.run import read_rows, write_json
    from cai.train import child
    from cai.train import folder as files
    from cai.train.fake import run_fake_job

    child.die_with_parent()
    if "STUBBORN" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    own = subprocess.Popen(["sleep", "600"])
    (folder / TRAINS).touch()
    time.sleep(float(os.environ["TRAIN_S"]))
    job = child.read_job(folder)
    result = run_fake_job(job, folder, list(read_rows(folder / files.ROWS)))
    own.kill()
    own.wait()
    write_json(folder / files.RESULT, result)


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(Path(sys.argv[2]))
    else:
        from cai.cli import main

        be_slow(sys.argv[sys.argv.index("--out") + 1])
        os.write(1, b"begun\n")
        main(sys.argv[2:], prog_name="cai")
