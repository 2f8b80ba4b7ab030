"""Twenty processes on one run folder, holders that are killed, trainers that outlive their run.

PYTHONPATH=tests python tests/torture/lock.py
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from disk import run_command
from tell import tell

import cai.conduct
from cai.cli import main as cai_command
from cai.errors import RunLocked
from cai.lock import RunLock, await_trainer

CHILD = """
import sys, time
from pathlib import Path
from cai.lock import hold_trainer
from cai.orphans import die_with_parent
die_with_parent()
folder = Path(sys.argv[1])
hold_trainer(folder)
while True:
    (folder / "written").write_text(str(time.time()))
    time.sleep(0.001)
"""
"""A trainer, as far as its folder is concerned."""


def forked(work: Callable[[], None], said: Path) -> int:
    """A process that does `work`, and writes to `said` what it prints; its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        os._exit(code)


def running(folder: Path, entered: Path, until: int | None) -> Callable[[], None]:
    """A run that says when it is let in, and stays there until the pipe `until` is closed."""
    finish = cai.conduct.finish

    def held(*arguments: Any) -> int:
        with entered.open("a") as file:
            file.write(f"{os.getpid()} {time.monotonic()}\n")
        if until is not None:
            os.read(until, 1)
        return finish(*arguments)

    def work() -> None:
        cai.conduct.finish = held
        cai_command(run_command(folder))

    return work


def crowd(folder: Path, n: int) -> dict[str, Any]:
    """`n` processes begin the same run at once; who is let in stays until the others have ended."""
    reading, writing = os.pipe()
    entered = folder / "entered"
    work = running(folder / "run", entered, reading)

    def waiting() -> None:
        os.close(writing)
        work()

    pids = [forked(waiting, folder / f"said-{i}") for i in range(n)]
    codes: dict[int, int] = {}
    while len(codes) < n - 1:
        pid, status = os.wait()
        codes[pid] = os.waitstatus_to_exitcode(status)
    os.close(writing)
    pid, status = os.wait()
    codes[pid] = os.waitstatus_to_exitcode(status)
    writers = [int(line.split()[0]) for line in entered.read_text().splitlines()]
    others = [i for i, pid in enumerate(pids) if pid not in writers]
    lines = [(folder / f"said-{i}").read_text().splitlines()[-1] for i in others]
    named = re.compile(rf"Error: .*: process {writers[0]} of .* works on this run")
    return {
        "part": "crowd",
        "processes": n,
        "writers": len(writers),
        "done": sum(codes[pid] == 0 for pid in writers),
        "exit_75": sum(codes[pids[i]] == RunLocked.exit_code for i in others),
        "say_who": sum(bool(named.match(line)) for line in lines),
    }


def killed(folder: Path, n: int) -> dict[str, Any]:
    """The holder is killed `n` times; the seconds until its lock and the same command go on."""
    reading, _ = os.pipe()
    entered, locks, commands, then = folder / "entered", list[float](), list[float](), 0.0
    for _ in range(n + 1):
        entered.unlink(missing_ok=True)
        pid = forked(running(folder / "run", entered, reading), folder / "said")
        while not (entered.exists() and entered.read_text().endswith("\n")):
            time.sleep(0.005)
        commands.append(float(entered.read_text().split()[1]) - then)
        then = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        with RunLock(folder / "run", wait_s=10):
            locks.append(time.monotonic() - then)
        os.waitpid(pid, 0)
    return {
        "part": "killed",
        "kills": n,
        "takeover_s_at_most": round(max(locks), 2),
        "command_goes_on_s_at_most": round(max(commands[1:]), 2),
    }


def orphaned(folder: Path, n: int, launcher: bool) -> dict[str, Any]:
    """A run is killed and its trainer is not: how long it writes, and whether that is waited for.

    `launcher`: another process stands between, as torchrun does.
    """
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {CHILD!r}, sys.argv[1]])"
    start = [sys.executable, "-c", code if launcher else CHILD, str(folder)]
    written, longest, late = folder / "written", 0.0, 0

    def run() -> None:
        environment = os.environ | {"CAI_PARENT_PID": str(os.getpid())}
        subprocess.Popen(start, env=environment, start_new_session=True).wait()

    for _ in range(n):
        written.unlink(missing_ok=True)
        pid = forked(run, folder / "said")
        while not written.exists():
            time.sleep(0.005)
        then = time.time()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        await_trainer(folder)
        free, last = time.time(), written.stat().st_mtime
        time.sleep(0.2)
        late += written.stat().st_mtime > free
        longest = max(longest, last - then)
    part = "orphaned under a launcher" if launcher else "orphaned"
    return {"part": part, "kills": n, "writes_s_at_most": round(longest, 2), "late_writes": late}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--n", type=int, default=20)
    n = parser.parse_args().n
    parts: tuple[Callable[[Path], dict[str, Any]], ...] = (
        lambda folder: crowd(folder, n),
        lambda folder: killed(folder, n),
        lambda folder: orphaned(folder, n, launcher=False),
        lambda folder: orphaned(folder, n, launcher=True),
    )
    for part in parts:
        with tempfile.TemporaryDirectory() as scratch:
            tell(partial(part, Path(scratch)))


if __name__ == "__main__":
    main()
