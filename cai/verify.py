"""`cai verify`: whether a run's files are as they were written.

A stage that is done lists the checksums of its files in `done.json`, whose own checksum is in the
manifest; records have one each. What is not verified `cai verify --help` lists.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cai.artefacts import DONE
from cai.errors import ConfigError, Damaged
from cai.lines import unsealed
from cai.lock import RunLock
from cai.manifest import MANIFEST, check_format, is_ours, read_manifest, sha256
from cai.pipeline import FOLDERS
from cai.run import read_json, repair, whole_lines, write_atomic

RECORDS = re.compile(r"(records|preferences|labels|identical|base|sft|rl|select-.*)\.jsonl")
"""Names of files of records."""


class Finding(NamedTuple):
    """Something that is not as it was written."""

    path: str
    """In the run's folder."""
    what: Literal["changed", "missing", "damaged", "torn"]
    detail: str


def verify(run: Path, repairs: bool = False) -> list[Finding]:
    """Everything that is wrong with the files of a run.

    `repairs`: torn and damaged lines of stages that are not done are moved to `*.torn`; the same
    `cai run` then asks for those records again. Of a manifest that is not as it was written nothing
    is believed: it is the only finding then.
    """
    try:
        manifest, damaged = read_manifest(run / MANIFEST)
    except ConfigError as error:
        return [Finding(MANIFEST, "changed", str(error))]
    if not damaged:
        check_format(manifest, run)
    if not is_ours(manifest) or damaged:
        return [Finding(MANIFEST, "changed", "its content does not match its checksum")]
    with RunLock(run) if repairs else nullcontext():
        return list(find(run, manifest, repairs))


def find(run: Path, manifest: Mapping[str, Any], repairs: bool) -> Iterator[Finding]:
    """The findings: inputs first, then stage by stage."""
    yield from compare(run, {f"inputs/{k}": v for k, v in manifest["inputs"].items()})
    yield from compare(run, manifest.get("files", {}))
    entries = {entry["name"]: entry for entry in manifest["stages"]}
    for name, folder in FOLDERS.items():
        marker, entry = run / folder / DONE, entries.get(name, {})
        done = entry.get("status") == "done"
        wrong = list(compare(run, {f"{folder}/{DONE}": entry["marker"]})) if done else []
        yield from wrong
        if done and not wrong:
            files = read_json(marker)["files"]
            yield from compare(run, {f"{folder}/{k}": v for k, v in files.items()})
        for path in sorted((run / folder).glob("*.jsonl")):
            yield from lines(run, path, repairs and not done)


def compare(run: Path, sums: Mapping[str, str]) -> Iterator[Finding]:
    """Files that are gone, or whose checksum is another one."""
    for name, expected in sums.items():
        path = run / name
        if not path.is_file():
            yield Finding(name, "missing", "the file is not there")
        elif sha256(path) != expected:
            yield Finding(name, "changed", "its sha256 is another one than when it was written")


def lines(run: Path, path: Path, repairs: bool) -> Iterator[Finding]:
    """Lines of a file of records that are not whole."""
    name = str(path.relative_to(run))
    if not is_record_file(path):
        return
    if path.read_bytes()[-1:] not in (b"", b"\n"):
        yield Finding(name, "torn", "the last line has no end" + said(repairs))
        if repairs:
            repair(path)
    good: list[bytes] = []
    bad: list[bytes] = []
    for number, line in whole_lines(path):
        try:
            unsealed(line, "")
            good.append(line)
        except Damaged:
            bad.append(line)
            detail = f"line {number}: its checksum does not match" + said(repairs)
            yield Finding(name, "damaged", detail)
    if bad and repairs:
        torn = path.with_suffix(".torn")
        write_atomic(torn, (torn.read_bytes() if torn.is_file() else b"") + b"".join(bad))
        write_atomic(path, b"".join(good))


def is_record_file(path: Path) -> bool:
    """Whether it is a file of records: by its name, or because a line says that it was sealed.

    Of a short one no line may be whole.
    """
    return bool(RECORDS.fullmatch(path.name)) or b'"sum":"' in path.read_bytes()


def said(repairs: bool) -> str:
    return ": moved to *.torn" if repairs else ""
