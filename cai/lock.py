"""One writer per run folder, and one trainer per trainer's folder."""

import errno
import fcntl
import os
import socket
import time
from pathlib import Path

from cai.errors import RunConflict, RunLocked
from cai.manifest import now
from cai.run import disk_errors

LOCK = ".lock"
TRAINER_LOCK = ".trainer.lock"
ASK_S = 0.5
"""Not 0: somebody who asks `is_locked` holds a lock for an instant."""
TRAINER_S = 5.0
"""A trainer under a launcher looks once a second whether its run is still there."""
POLL_S = 0.05


class RunLock:
    """One writer per run folder; released when the process ends, however it ends."""

    def __init__(self, folder: Path, name: str = LOCK, wait_s: float = ASK_S) -> None:
        self._path, self._wait_s = folder / name, wait_s
        self._handle = -1

    def __enter__(self) -> "RunLock":
        """Raises RunLocked, which says who holds it, or RunConflict where nobody can, or may."""
        self._handle = open_lock(self._path)
        try:
            self._await(time.monotonic() + self._wait_s)
            refuse_links(self._path.parent)
            sign(self._handle, self._path)
        except BaseException:
            os.close(self._handle)
            raise
        return self

    def _await(self, until: float) -> None:
        while not take(self._handle, fcntl.LOCK_EX, self._path):
            if time.monotonic() > until:
                said = os.pread(self._handle, 200, 0).decode(errors="replace").splitlines()
                who = said[0] if said else "another process"
                raise RunLocked(
                    f"{self._path.parent}: {who} works on this run; wait for it or end it"
                )
            time.sleep(POLL_S)

    def __exit__(self, *_: object) -> None:
        # a fork that holds the same handle does not hold the lock
        fcntl.flock(self._handle, fcntl.LOCK_UN)
        os.close(self._handle)


def open_lock(path: Path) -> int:
    """A handle of the lock, which is made if it is not there and never removed."""
    try:
        with disk_errors(path):
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise RunConflict(f"{path} is a symbolic link; remove it") from error
        raise RunConflict(f"{path}: cannot be locked: {error.strerror}") from error


def refuse_links(folder: Path) -> None:
    """Raise RunConflict if a link leads out of a folder that is about to be written to.

    Somebody else may have made the run: what it appends to must not be a file of its reader's.
    The folder itself may be a link, which whoever named it has made.
    """
    root = Path(os.path.realpath(folder))
    for parent, folders, files in os.walk(root):
        for path in (Path(parent, name) for name in (*folders, *files)):
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                raise RunConflict(
                    f"{path} is a symbolic link out of the run: remove it; to keep a run on "
                    "another disk link its whole folder, or give --out"
                )


def take(handle: int, kind: int, path: Path) -> bool:
    """Whether the lock could be had. Raises RunConflict where the file system has none."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise RunConflict(f"{path}: cannot be locked: {error.strerror}") from error
    return True


def sign(handle: int, path: Path) -> None:
    """Write into the lock who holds it."""
    who = f"process {os.getpid()} of {socket.gethostname()}, since {now()},\n"
    with disk_errors(path):
        os.ftruncate(handle, 0)
        os.pwrite(handle, who.encode(), 0)


def is_locked(folder: Path) -> bool:
    """Whether a process works on the run; makes and changes nothing."""
    path = folder / LOCK
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        return not take(handle, fcntl.LOCK_SH, path)
    finally:
        os.close(handle)


def hold_trainer(folder: Path) -> None:
    """Let others know that this process writes to a trainer's folder, until it ends."""
    path = folder / TRAINER_LOCK
    handle = open_lock(path)
    fcntl.flock(handle, fcntl.LOCK_SH)
    sign(handle, path)


def await_trainer(folder: Path) -> None:
    """Wait for the end of a trainer whose run was killed. Raises RunLocked if it does not end."""
    if (folder / TRAINER_LOCK).exists():
        with RunLock(folder, TRAINER_LOCK, TRAINER_S):
            pass
