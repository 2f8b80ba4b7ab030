"""Sealed lines: a record as JSON with a checksum, so that no changed bit passes for a record.

A line is the record's JSON object with one more member, its last: `"sum"`, 16 hex digits of BLAKE2b
over everything before it. It stays JSON Lines that any tool reads.
"""

import io
import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import jsonlines

from cai.errors import ConfigError, Damaged

SEAL = b',"sum":"'
TAIL = len(SEAL) + 16 + len(b'"}\n')


def json_line(row: Mapping[str, Any]) -> bytes:
    """One line: ASCII, so that no text can break or hide a line."""
    return (
        json.dumps(row, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    )


def sealed(row: Mapping[str, Any]) -> bytes:
    """The line of a record, which has at least one member."""
    body = json_line(row)[:-2]
    return body + SEAL + checksum(body) + b'"}\n'


def unsealed(line: bytes, place: str) -> dict[str, Any]:
    """The record in a line. Raises Damaged, with `place` (file:line), unless it is as written."""
    body, seal = line[:-TAIL], line[-TAIL:]
    if seal != SEAL + checksum(body) + b'"}\n':
        raise Damaged(
            f"{place}: broken record: its checksum does not match; restore the file from a copy, "
            "or see what else is damaged: cai verify RUN"
        )
    return json.loads(body + b"}")


def checksum(body: bytes) -> bytes:
    return blake2b(body, digest_size=8).hexdigest().encode()


def loads(text: str | bytes) -> Any:
    """`json.loads`; a line of brackets too is a ValueError."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file, none if it is missing, without a half-written last line.

    Raises ConfigError for any other broken line."""
    data = path.read_bytes() if path.is_file() else b""
    whole = io.BytesIO(data[: data.rfind(b"\n") + 1])
    with jsonlines.Reader(whole, loads=loads) as reader:  # pyright: ignore[reportCallIssue]
        try:
            return list(reader.iter(type=dict))
        except jsonlines.InvalidLineError as error:
            raise ConfigError(f"{path}:{error.lineno}: broken record: {error}") from error
