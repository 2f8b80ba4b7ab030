"""The run folder: record files, markers, the lock. Nothing here knows what a stage does.

A record file is append-only JSON lines. A batch is one write and one fsync; a torn last line (the
process died in the middle of a write) is moved to `*.torn` when the file is opened again. Small
files are written whole: temporary file, fsync, rename, fsync of the folder.
"""

import contextlib
import errno
import io
import json
import os
import shutil
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock
import jsonlines

from cai.errors import ConfigError, DiskFull, RunConflict, RunLocked
from cai.records import Critique, Label, Reasoning, Response, Revision, record_adapter

StoredRecord = Response | Critique | Revision | Reasoning | Label
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def disk_errors(path: Path) -> Generator[None]:
    """A refused write becomes a DiskFull that says where and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise DiskFull(
            f"{path}: no space left on the device; free some and type the same command again: "
            "everything finished so far is kept"
        ) from error


@contextlib.contextmanager
def new_folder(out: Path) -> Generator[Path]:
    """A folder to write to, which becomes `out` at the end, or nothing at all.

    Raises ConfigError where `out` cannot be made, OSError where another has taken its place.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=out.parent))
    except OSError as error:
        raise ConfigError(f"{out}: cannot be made: {error.strerror}") from error
    try:
        with disk_errors(out):
            yield scratch
            scratch.chmod(0o755)
            scratch.replace(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a small file whole: readers see the old one or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    raw = data.encode() if isinstance(data, str) else data
    try:
        with disk_errors(path), temporary.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, data: Any) -> None:
    """Write JSON for people and programs."""
    write_atomic(path, json.dumps(data, indent=1, ensure_ascii=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read one of our JSON files. Raises ConfigError if it is not whole."""
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error


def json_line(row: Mapping[str, Any]) -> bytes:
    """One line: ASCII, so that no text can break or hide a line."""
    return (
        json.dumps(row, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    )


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a whole JSON-lines file at once; returns the number of rows."""
    lines = [json_line(row) for row in rows]
    write_atomic(path, b"".join(lines))
    return len(lines)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one of our JSON-lines files; a broken line is named."""
    if not path.is_file():
        return
    # Bytes are split at "\n" only: text mode would also split at U+2028 and the like.
    with path.open("rb") as file, jsonlines.Reader(file) as reader:
        try:
            yield from reader.iter(type=dict)
        except jsonlines.InvalidLineError as error:
            raise ConfigError(f"{path}:{error.lineno}: broken record: {error}") from error


class RecordFile:
    """An append-only file of records with a look-up by id. One writer; see `RunLock`.

    `earlier` are files of other runs: a record found there is copied here and used, which is how a
    run reuses another's unchanged records (ids stand for everything that made a record).
    """

    def __init__(self, path: Path, earlier: Sequence[Path] = ()) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        repair(path)
        self._offsets = index(path)
        self._earlier = [(other, index(other)) for other in earlier if other.is_file()]
        self._file: io.BufferedWriter = path.open("ab")
        self.n_reused = 0

    def get(self, record_id: str) -> StoredRecord | None:
        """The record of that id, if it is on disk."""
        offset = self._offsets.get(record_id)
        if offset is not None:
            return self._read(self.path, offset)
        for path, offsets in self._earlier:
            if record_id in offsets:
                record = self._read(path, offsets[record_id])
                if record.generation.finish == "error":
                    continue  # What failed there may succeed here.
                self.append([record])
                self.n_reused += 1
                return record
        return None

    def _read(self, path: Path, offset: int) -> StoredRecord:
        with path.open("rb") as file:
            file.seek(offset)
            record = record_adapter.validate_json(file.readline())
        assert isinstance(record, StoredRecord)
        return record

    def append(self, records: Sequence[StoredRecord]) -> None:
        """Write a batch durably: one write, one fsync."""
        if not records:
            return
        data = b"".join(json_line(record.model_dump(mode="json")) for record in records)
        with disk_errors(self.path):
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())

    def __iter__(self) -> Iterator[StoredRecord]:
        """All records, in the order in which they were written."""
        for row in read_rows(self.path):
            record = record_adapter.validate_python(row)
            assert isinstance(record, StoredRecord)
            yield record

    def __enter__(self) -> "RecordFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After a refused write the buffer still holds the batch: closing would fail again.
        with contextlib.suppress(OSError):
            self._file.close()


def repair(path: Path) -> None:
    """Move a torn last line, left by a process that died while writing, to `*.torn`."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        data = file.read()
        end = data.rfind(b"\n") + 1
        if end == len(data):
            return
        with path.with_suffix(".torn").open("ab") as torn:
            torn.write(data[end:] + b"\n")
        file.truncate(end)
        os.fsync(file.fileno())


def index(path: Path) -> dict[str, int]:
    """Where each record's line begins."""
    offsets: dict[str, int] = {}
    position = 0
    if path.is_file():
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break  # Torn: its writer died, or is still at it.
                try:
                    offsets[json.loads(line)["id"]] = position
                except (json.JSONDecodeError, KeyError, TypeError) as error:
                    raise ConfigError(f"{path}:{number}: broken record") from error
                position += len(line)
    return offsets


class RunLock:
    """One writer per run folder; released when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".lock"
        if self._path.is_symlink():
            raise RunConflict(f"{self._path} is a symbolic link; remove it")
        self._lock = filelock.FileLock(self._path)

    def __enter__(self) -> "RunLock":
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise RunLocked(
                f"{self._path.parent}: another process works on this run; wait for it or end it"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
