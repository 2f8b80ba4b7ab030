"""What a child died of: want of memory, somebody's SIGKILL, or itself.

Both the kernel without memory and a person send SIGKILL. Linux counts its own: `oom_kill` in
/proc/vmstat (Linux 4.13 on), in `memory.events` of a cgroup (version 2) and in its
`memory.oom_control` (version 1).
"""

import re
import signal
from pathlib import Path

from cai.errors import Cause

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
OUT_OF_MEMORY = re.compile(
    r"out of ?memory|can't allocate memory|MemoryError|bad_alloc", re.IGNORECASE
)
"""What a child's log says where its memory ran out, unless the kernel killed it."""
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
"""Exit codes of a child that SIGKILL ended, or of a shell or launcher around it."""
OUTSIDE = (
    "from outside (the kernel counts no kill for want of memory): somebody ended it, a job "
    "scheduler, or a watcher of memory such as earlyoom"
)
"""To be read after how such a child ended."""


def n_oom_kills() -> int | None:
    """Kills for want of memory since the machine started, for comparing; none where none can tell.

    A kill may stand in several of the files and is then counted as often.
    """
    counts = [n for path in counters() if (n := read_count(path)) is not None]
    return sum(counts) if counts else None


def counters() -> list[Path]:
    """Files that may count kills: the machine's, and those of this process's cgroups."""
    found = [PROC / "vmstat"]
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return found
    for _, kinds, path in (line.split(":", 2) for line in lines):
        if not kinds:
            found.append(CGROUPS / path.lstrip("/") / "memory.events")
        elif "memory" in kinds.split(","):
            found.append(CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control")
    return found


def read_count(path: Path) -> int | None:
    """The number after `oom_kill`; none where the file or the line is missing."""
    try:
        line = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(line[1]) if line else None


def cause_of(code: int | None, log: str, n_before: int | None) -> Cause:
    """What a child with this exit code died of.

    `log`: what it said last. `n_before`: `n_oom_kills` when it was started. A SIGKILL is taken for
    want of memory where the kernel counts another kill since, or does not tell.
    """
    if OUT_OF_MEMORY.search(log):
        return "memory"
    if code not in KILLED:
        return "crash"
    now = n_oom_kills()
    return "killed" if now is not None and n_before is not None and now <= n_before else "memory"


def log_lines(log: Path, start: int, n: int) -> list[str]:
    """The last `n` lines of a child's log, of those after byte `start`."""
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace").splitlines()[-n:]


def how_it_ended(code: int | None, lines: list[str]) -> str:
    """A child's exit code in words, with what it said last."""
    if code is None:
        return "closed its connection"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    # What was asked may stand in it.
    shown = "".join(char if char.isprintable() else " " for char in last[:200])
    return f"ended with code {code} ({shown})"
