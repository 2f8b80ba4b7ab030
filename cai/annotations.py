"""What readers noted on the transcripts of a run: `annotations.jsonl`, which only grows."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import AwareDatetime, ValidationError

from cai.errors import ConfigError
from cai.lines import json_line, read_whole_rows
from cai.lock import RunLock
from cai.records import Record, digest
from cai.run import disk_errors, read_json, read_records, read_rows, repair

FILE = "annotations.jsonl"


class Annotation(Record):
    """A star or a note of one reader on one chain; one without either takes back an earlier one."""

    type: Literal["annotation"] = "annotation"
    id: str
    prompt_id: str
    star: bool = False
    note: str = ""
    author: str
    time: AwareDatetime


class Imported(NamedTuple):
    """What became of the rows of an import."""

    n_new: int
    n_known: int
    """Rows that the run has already."""


def import_annotations(path: Path, run: Path, author: str | None) -> Imported:
    """Add the annotations that a page exported to its run: all of them, or none.

    `author` signs those that name nobody. Raises ConfigError naming the line of a row that is no
    annotation, has no author, is of another run, or is on a prompt that the run does not have.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; export it from the page of the run")
    with RunLock(run):
        name, prompt_ids = run_name(run), known_prompts(run)
        rows = list(enumerate(read_rows(path), 1))
        found = [parse(row, f"{path}:{number}", name, author) for number, row in rows]
        refuse_unknown(path, found, prompt_ids)
        target = run / FILE
        repair(target)
        known = {row["id"] for row in read_rows(target)}
        new = {one.id: one for one in found if one.id not in known}
        append(target, new.values())
    return Imported(len(new), len(found) - len(new))


def run_name(run: Path) -> str:
    path = run / "manifest.json"
    if not path.is_file():
        raise ConfigError(
            f"{run}: no run there (no manifest.json); `cai runs` lists those there are"
        )
    return read_json(path)["name"]


def known_prompts(run: Path) -> set[str]:
    return {prompt.id for prompt in read_records(run / "inputs" / "prompts.jsonl")}


def parse(row: dict[str, Any], place: str, name: str, author: str | None) -> Annotation:
    """The annotation in an exported row; its id stands for all that it says."""
    if row.get("run", name) != name:
        raise ConfigError(f"{place}: an annotation of run {row['run']!r}, but this is run {name!r}")
    fields = {key: value for key, value in row.items() if key not in ("run", "id")}
    if not fields.get("author"):
        if not author:
            raise ConfigError(f"{place}: names no author; say whose it is: --author NAME")
        fields["author"] = author
    try:
        one = Annotation.model_validate({"id": "", **fields})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{place}: not an annotation: {where}: {first['msg']}") from error
    id = digest("annotation", one.model_dump(mode="json", exclude={"id"}))
    return one.model_copy(update={"id": id})


def refuse_unknown(path: Path, found: Sequence[Annotation], prompt_ids: set[str]) -> None:
    unknown = list(dict.fromkeys(one.prompt_id for one in found if one.prompt_id not in prompt_ids))
    if unknown:
        listed = ", ".join(map(repr, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        raise ConfigError(
            f"{path}: {len(unknown)} prompts that the run does not have: {listed}; nothing was "
            "imported; was the file exported from the page of this run?"
        )


def append(path: Path, rows: Iterable[Annotation]) -> None:
    """Write a batch durably: one write, one fsync."""
    data = b"".join(json_line(row.model_dump(mode="json")) for row in rows)
    if data:
        with disk_errors(path), path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def read_annotations(run: Path) -> dict[str, list[Annotation]]:
    """By prompt id what each author said last, in order of time; nothing that was taken back."""
    latest: dict[tuple[str, str], Annotation] = {}
    for row in read_whole_rows(run / FILE):
        try:
            one = Annotation.model_validate(row)
        except ValidationError as error:
            raise ConfigError(
                f"{run / FILE}: not an annotation: {error.errors()[0]['msg']}"
            ) from error
        before = latest.get((one.prompt_id, one.author))
        if before is None or one.time >= before.time:
            latest[one.prompt_id, one.author] = one
    found: dict[str, list[Annotation]] = defaultdict(list)
    for one in sorted(latest.values(), key=lambda one: one.time):
        if one.star or one.note:
            found[one.prompt_id].append(one)
    return dict(found)
