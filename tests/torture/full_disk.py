"""A disk without room, in a process of its own: at one call that needs some, or from there on."""

import builtins
import errno
import io
import os
import stat
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from cai.cli import main as cai_command
from cai.errors import DiskFull

FULL = DiskFull.exit_code


class FullDisk:
    """Counts the calls that need room, and refuses number `at`; all later ones too if it `stays`."""

    def __init__(self, at: int | None, stays: bool = False) -> None:
        self.at, self.stays = at, stays
        self.sites: list[str] = []

    def install(self) -> None:
        """Wrap what needs room, for the rest of this process."""
        # what is drawn is no matter of the disk, and half of the time
        Figure.savefig = lambda _, out, **__: out.write(b"PNG")  # pyright: ignore
        for name in ("fsync", "link", "mkdir", "replace", "rename", "sendfile"):
            setattr(os, name, self.around(name, getattr(os, name)))
        os.write = self.written(os.write)
        os.open = self.created(os.open)
        builtins.open = io.open = self.opened(io.open)

    def ask(self, what: str, path: Any = None) -> None:
        """Raise OSError where there is no room."""
        name = Path(path).name if isinstance(path, str | os.PathLike) else ""
        self.sites.append(f"{what} {name}".strip())
        n = len(self.sites)
        if self.at and (n == self.at or (self.stays and n > self.at)):
            named = () if path is None else (path,)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *named)

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            path = next((arg for arg in reversed(args) if isinstance(arg, str | Path)), None)
            if name != "mkdir" or not os.path.lexists(args[0]):
                self.ask(name, path)
            return call(*args, **options)

        return wrapped

    def written(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(handle: int, data: Any) -> int:
            if stat.S_ISREG(os.fstat(handle).st_mode):
                self.ask("write")
            return write(handle, data)

        return wrapped

    def created(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(path: Any, flags: int, *args: Any, **options: Any) -> int:
            if flags & os.O_CREAT and not os.path.lexists(path):
                self.ask("create", path)
            return call(path, flags, *args, **options)

        return wrapped

    def opened(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """`open`, whose files ask for room at each write that leaves their buffer."""
        disk = self

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                if disk.stays and len(disk.sites) + 1 == disk.at:
                    # the last room takes a part of it
                    disk.sites.append("write a part of")
                    return super().write(data[: len(data) // 2])
                disk.ask("write", self.name)
                return super().write(data)

        def wrapped(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
            if isinstance(file, int) or not set(mode) & set("wax+"):
                return call(file, mode, *args, **options)
            if not os.path.lexists(file):
                disk.ask("create", file)
            raw = File(file, mode.replace("b", "").replace("t", ""))
            whole = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            if "b" in mode:
                return whole
            return io.TextIOWrapper(whole, *args[1:], **options)

        return wrapped


class End(NamedTuple):
    """How a command ended."""

    code: int
    said: str
    sites: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether it is one line, and the exit code that says: the same command goes on."""
        lines = [line for line in self.said.splitlines() if line.startswith("Error: ")]
        broken = any(word in self.said for word in ("Traceback", "Exception ignored"))
        return self.code == FULL and len(lines) == 1 and not broken


def in_child(arguments: list[str], at: int | None, stays: bool = False) -> End:
    """A command in a process of its own whose disk is full at call `at`."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile("w+") as sites:
        pid = os.fork()
        if pid == 0:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            disk, code = FullDisk(at, stays), 1
            write, handle = os.write, sites.fileno()
            try:
                disk.install()
                cai_command(arguments)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            finally:
                if code == 1:
                    traceback.print_exc()
                write(handle, "\n".join(disk.sites).encode())
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        said.seek(0)
        sites.seek(0)
        code = os.waitstatus_to_exitcode(status)
        return End(code, said.read().decode(), sites.read().splitlines())
