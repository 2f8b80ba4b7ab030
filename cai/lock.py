"""One writer per run folder."""

import fcntl
import os
from pathlib import Path

import filelock

from cai.errors import RunConflict, RunLocked
from cai.run import disk_errors


class RunLock:
    """One writer per run folder; released when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".lock"
        if self._path.is_symlink():
            raise RunConflict(f"{self._path} is a symbolic link; remove it")
        self._lock = filelock.FileLock(self._path)

    def __enter__(self) -> "RunLock":
        try:
            with disk_errors(self._path):
                # not 0: somebody who asks `is_locked` holds it for an instant
                self._lock.acquire(timeout=0.5, poll_interval=0.05)
        except filelock.Timeout as error:
            raise RunLocked(
                f"{self._path.parent}: another process works on this run; wait for it or end it"
            ) from error
        except OSError as error:
            raise RunConflict(f"{self._path}: cannot be locked: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a process works on the run; makes and changes nothing."""
    try:
        handle = os.open(folder / ".lock", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
