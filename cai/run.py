"""The run folder: record files and small files. Nothing here knows what a stage does.

A record file is append-only sealed JSON lines (`cai.lines`). A batch is one write and one fsync; a
torn last line (the process died in the middle of a write) is moved to `*.torn` when the file is
opened again. Small files are written whole: temporary file, fsync, rename, fsync of the folder.
"""

import contextlib
import errno
import io
import json
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any

import jsonlines
from pydantic import ValidationError

from cai.errors import ConfigError, Damaged, DiskFull
from cai.lines import json_line, loads, sealed, unsealed
from cai.records import (
    AnyRecord,
    Critique,
    Label,
    Reasoning,
    Response,
    Revision,
    record_adapter,
    renamed,
)

StoredRecord = Response | Critique | Revision | Reasoning | Label
TEMPORARY = ".cai-tmp"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_full(path: object) -> DiskFull:
    """What is said of a refused write."""
    return DiskFull(
        f"{path}: no space left on the device; free some and type the same command again: "
        "everything finished so far is kept"
    )


@contextlib.contextmanager
def disk_errors(path: Path) -> Generator[None]:
    """A refused write becomes a DiskFull that says where and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise disk_full(path) from error


def sync_tree(folder: Path) -> None:
    """Make everything in a folder durable, before it gets its name."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() or path.is_file():
            sync(path)


def sync(path: Path) -> None:
    """Make a file's content durable, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove temporary files of writers that were killed. For the process that holds the lock."""
    for path in folder.rglob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write a small file whole: readers see the old one or the new one."""
    # a name of its own for each writer, made anew: what lies there already is never written to
    temporary = path.with_name(f".{path.name}.{token_hex(8)}{TEMPORARY}")
    raw = data.encode() if isinstance(data, str) else data
    try:
        with disk_errors(path):
            with temporary.open("xb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def json_text(data: Any) -> str:
    """JSON for people and programs."""
    return json.dumps(data, indent=1, ensure_ascii=True, allow_nan=False) + "\n"


def write_json(path: Path, data: Any) -> None:
    write_atomic(path, json_text(data))


def read_json(path: Path) -> Any:
    """Read one of our JSON files. Raises ConfigError if it is not whole."""
    return parse_json(path.read_bytes(), path)


def parse_json(data: bytes, path: Path) -> Any:
    """What one of our JSON files holds. Raises ConfigError if it is not whole."""
    try:
        return json.loads(data.decode())
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        # a byte that is no UTF-8, a number of too many digits, a bomb of brackets
        raise ConfigError(f"{path}: not JSON: {error}") from error


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a whole JSON-lines file at once; returns the number of rows."""
    lines = [json_line(row) for row in rows]
    write_atomic(path, b"".join(lines))
    return len(lines)


def write_records(path: Path, records: Iterable[AnyRecord]) -> None:
    """Write a whole file of records at once."""
    write_atomic(path, b"".join(sealed(record.model_dump(mode="json")) for record in records))


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of one of our JSON-lines files; a broken line is named."""
    if not path.is_file():
        return
    # Bytes are split at "\n" only: text mode would also split at U+2028 and the like.
    with (
        path.open("rb") as file,
        jsonlines.Reader(file, loads=loads) as reader,  # pyright: ignore[reportCallIssue]
    ):
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
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            repair(path)
            self._offsets = index(path)
            self._earlier = [(other, index(other)) for other in earlier if other.is_file()]
            self._file: io.BufferedWriter = path.open("ab")
            if not self._file.tell():
                # it may be new, and its name is not durable by what is written to it
                sync(path.parent)
        self.n_reused = 0

    def get(self, record_id: str, principle_id: str | None = None) -> StoredRecord | None:
        """The record of that id, if it is on disk: a copy, if its principle is `renamed`."""
        offset = self._offsets.get(record_id)
        if offset is not None:
            found = read_at(self.path, offset)
            record = renamed(found, principle_id)
            if record is not found:
                self.append([record])
            return record
        for path, offsets in self._earlier:
            if record_id in offsets:
                record = renamed(read_at(path, offsets[record_id]), principle_id)
                if record.generation.finish == "error":
                    continue  # What failed there may succeed here.
                self.append([record])
                self.n_reused += 1
                return record
        return None

    def append(self, records: Sequence[StoredRecord]) -> None:
        """Write a batch durably: one write, one fsync."""
        if not records:
            return
        data = b"".join(sealed(record.model_dump(mode="json")) for record in records)
        with disk_errors(self.path):
            self._file.write(data)
            self._file.flush()
            os.fsync(self._file.fileno())

    def __iter__(self) -> Iterator[StoredRecord]:
        """All records, in the order in which they were written."""
        for record in read_records(self.path):
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
            is_new = not torn.tell()
            torn.write(data[end:] + b"\n")
            torn.flush()
            os.fsync(torn.fileno())
        if is_new:
            sync(path.parent)
        file.truncate(end)
        os.fsync(file.fileno())


def whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The number and the bytes of each line of a file that may be missing.

    A last line without an end is left out: its writer died, or is still at it.
    """
    if path.is_file():
        # Bytes are split at "\n" only: text mode would also split at U+2028 and the like.
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):
                    yield number, line


def index(path: Path) -> dict[str, int]:
    """Where each record's line begins. Raises Damaged naming the first line that is not whole."""
    offsets: dict[str, int] = {}
    position = 0
    for number, line in whole_lines(path):
        offsets[unsealed(line, f"{path}:{number}")["id"]] = position
        position += len(line)
    return offsets


def read_records(path: Path) -> Iterator[AnyRecord]:
    """Every whole record of a file. Raises Damaged naming a line that is not as it was written."""
    for number, line in whole_lines(path):
        place = f"{path}:{number}"
        try:
            yield record_adapter.validate_python(unsealed(line, place))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise Damaged(f"{place}: not a record: {where}: {first['msg']}") from error


def read_at(path: Path, offset: int) -> StoredRecord:
    """The record whose line begins there."""
    with path.open("rb") as file:
        file.seek(offset)
        record = record_adapter.validate_python(unsealed(file.readline(), f"{path}, byte {offset}"))
    assert isinstance(record, StoredRecord)
    return record
