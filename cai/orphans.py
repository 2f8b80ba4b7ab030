"""A child process does not outlive the one that asked for it."""

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
WATCH_S = 1.0


def die_with_parent() -> None:
    """End this process when the one that asked for it ends, however that ends.

    The kernel does it at once for a direct child on Linux; a thread that looks once a second does
    it elsewhere, and under torchrun, which stands between.
    """
    asked_by = int(os.environ.get("CAI_PARENT_PID", "0"))
    if not asked_by:
        return
    parent = os.getppid()
    if sys.platform == "linux" and parent == asked_by:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != asked_by:
            os._exit(1)
        return
    threading.Thread(target=watch, args=(asked_by, parent), daemon=True).start()


def watch(*pids: int) -> None:
    """Kill this process as soon as one of `pids` is gone."""
    while all(map(is_alive, pids)):
        time.sleep(WATCH_S)
    os.kill(os.getpid(), signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether a process with this id runs. One that has ended may wait for ever to be asked how."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return True  # no such file system
    # the name before it may hold anything
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")
