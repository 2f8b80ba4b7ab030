"""The moments at which a process can die: before and after each call that makes something durable,
between a batch's completion and its write, and inside that write.

A moment is counted in the process itself, so the same number is the same moment in every run.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cai.lines import sealed
from cai.run import RecordFile


class Points:
    """Counts moments, and ends the process by SIGKILL at number `at`."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.n = 0

    def install(self) -> None:
        """Wrap what makes something durable, for the rest of this process."""
        os.fsync = self.around(os.fsync)
        os.link = self.around(os.link)
        for name in ("replace", "rename", "mkdir", "unlink"):
            setattr(Path, name, self.around(getattr(Path, name)))
        RecordFile.append = self.torn(RecordFile.append)  # pyright: ignore[reportAttributeAccessIssue]

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            self.pass_()
            result = call(*args, **options)
            self.pass_()
            return result

        return wrapped

    def torn(self, append: Callable[..., Any]) -> Callable[..., Any]:
        """Two moments of a batch: nothing of it is on disk; a part of it is, and the rest is not."""

        def wrapped(file: RecordFile, records: Any) -> None:
            if records:
                self.pass_()
                if self.n + 1 == self.at:
                    data = b"".join(sealed(record.model_dump(mode="json")) for record in records)
                    with file.path.open("ab", buffering=0) as raw:
                        raw.write(data[: 1 + (self.n * 7919) % (len(data) - 1)])
                self.pass_()
            append(file, records)

        return wrapped

    def pass_(self) -> None:
        self.n += 1
        if self.n == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def torn_files(run: Path) -> list[Path]:
    """The record files of a run whose last line is not whole."""
    return [path for path in run.glob("*/*.jsonl") if path.read_bytes()[-1:] not in (b"", b"\n")]
