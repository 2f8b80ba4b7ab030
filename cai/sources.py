"""Where prompts come from: JSONL(.gz) files, folders of them, Hugging Face datasets.

A row is recognised by its fields: `prompt` (text), `messages` (a list of turns), or `chosen` /
`rejected` (hh-rlhf dialogues). Every human turn of a dialogue can start a prompt.
"""

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

from cai.config import Prompts, Source
from cai.errors import ConfigError, MissingDependency
from cai.records import Kind, Message, Prompt, digest
from cai.resources import PROMPTS, find_resource
from cai.run import disk_errors
from cai.sections import DatasetSource
from cai.splits import group_of, split_of

TURN = re.compile(r"\n\n(Human|Assistant):")
ROLES: dict[str, Literal["user", "assistant"]] = {"Human": "user", "Assistant": "assistant"}
MAX_LINE = 16 * 2**20
"""Bytes: no more of a line than this is ever held."""
MAX_DEPTH = 100
"""Lists and objects inside each other: whatever walks a row may recurse."""


@dataclass
class SourceCount:
    """What became of a source's rows; nothing is dropped without a count."""

    source: str
    kind: Kind
    n_rows: int = 0
    n_bad: int = 0
    """Broken rows left out (`prompts.skip_bad`)."""
    n_human_turns: int = 0
    n_prompts: int = 0
    n_duplicates: int = 0
    """Human turns whose conversation so far had been seen already."""
    n_moved: int = 0
    """Prompts held out, whatever their draw: a look-alike begins with the same words."""


class Row(NamedTuple):
    """A source's row and where it stands."""

    place: str
    data: Mapping[str, Any]


class Loader:
    """Reads sources, removes duplicates across all of them, and assigns splits.

    Look-alikes come first: they only measure over-refusal, so whatever shares a dialogue with one
    is held out too.
    """

    def __init__(self, config: Prompts, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._found: dict[str, Prompt] = {}
        self._measuring: set[str] = set()
        self.counts: list[SourceCount] = []

    def load(self, kind: Kind, sources: Sequence[Source]) -> list[Prompt]:
        """All prompts of one kind. Raises ConfigError naming file and line of a broken row."""
        for source in sources:
            self._load_one(kind, source)
        return [prompt for prompt in self._found.values() if prompt.kind == kind]

    def _load_one(self, kind: Kind, source: Source) -> None:
        name = source if isinstance(source, str) else source.path
        count = SourceCount(name, kind)
        self.counts.append(count)
        for row in read_source(source, count, self._config.skip_bad):
            try:
                dialogues = row_dialogues(row)
            except ConfigError:
                if not self._config.skip_bad:
                    raise
                count.n_bad += 1
                continue
            for dialogue in dialogues:
                self._add(dialogue, row, count)
        if not count.n_human_turns:
            raise ConfigError(f"{name}: no prompts in it ({count.n_rows} rows)")

    def _add(self, dialogue: Sequence[Message], row: Row, count: SourceCount) -> None:
        """Add the dialogue's prompts that are new."""
        kind, group, area = count.kind, group_of(dialogue), row.data.get("area")
        drawn = split_of(group, self._seed, self._config.shares)
        if kind == "look_alike":
            self._measuring.add(group)
        split = "eval" if group in self._measuring else drawn
        for messages in openings(dialogue, self._config.turns):
            count.n_human_turns += 1
            prompt = Prompt(
                id=digest("prompt", [[m.role, m.content] for m in messages]),
                messages=messages,
                kind=kind,
                area=area if isinstance(area, str) else kind,
                source=row.place,
                group=group,
                split=split,
            )
            earlier = self._found.setdefault(prompt.id, prompt)
            if earlier is prompt:
                count.n_prompts += 1
                count.n_moved += split != drawn and kind != "look_alike"
                continue
            count.n_duplicates += 1
            # Of several areas always the same one, whichever row comes first.
            if earlier.kind == kind and prompt.area < earlier.area:
                self._found[prompt.id] = prompt


def load_prompts(config: Prompts, seed: int) -> tuple[list[Prompt], list[SourceCount]]:
    """Every prompt that the config names, and what became of each source's rows."""
    loader = Loader(config, seed)
    look_alike = loader.load("look_alike", config.look_alike)
    red_team = loader.load("red_team", config.red_team)
    helpful = loader.load("helpful", config.helpful)
    return [*red_team, *helpful, *look_alike], loader.counts


def openings(
    dialogue: Sequence[Message], turns: Literal["auto", "all", "first", "last"]
) -> list[tuple[Message, ...]]:
    """The conversations up to those human turns that start a prompt: see `Prompts.turns`."""
    ends = [i for i, message in enumerate(dialogue) if message.role == "user"]
    auto = ends[-1:] if dialogue[-1].role == "user" else ends
    chosen = {"auto": auto, "all": ends, "first": ends[:1], "last": ends[-1:]}[turns]
    return [tuple(dialogue[: end + 1]) for end in chosen]


def read_source(source: Source, count: SourceCount, skip_bad: bool) -> Iterator[Row]:
    """Rows of a file, of every JSONL file in a folder, or of a dataset."""
    name = source if isinstance(source, str) else source.path
    path = local_path(name)
    if path is None:
        yield from read_dataset(source, count)
        return
    column = None if isinstance(source, str) else source.column
    files = sorted(path.glob("*.jsonl*")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"{path}: no *.jsonl files in this folder")
    for file in files:
        for row in read_file(file, count, skip_bad):
            yield Row(row.place, {"dialogue": row.data.get(column)} if column else row.data)


def local_path(name: str) -> Path | None:
    """The file or folder that a source's name means; none: a dataset's id."""
    looks_like_file = ".jsonl" in name or name.startswith((".", "/", "~")) or "/" not in name
    if looks_like_file or os.path.exists(name):  # never raises, however long
        return find_resource(name, PROMPTS, ".jsonl")
    return None


def read_file(path: Path, count: SourceCount, skip_bad: bool) -> Iterator[Row]:
    """JSON objects of a JSONL or JSONL.gz file, each line of it accounted for."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            for number, line in enumerate(lines(cast(BinaryIO, file)), 1):
                count.n_rows += 1
                try:
                    data = parse_line(line)
                except ValueError as error:
                    if not skip_bad:
                        raise ConfigError(
                            f"{path}:{number}: not a JSON object "
                            f"({str(error).splitlines()[0][:80]}); mend the line, or leave "
                            "such lines out and have them counted: --skip-bad"
                        ) from error
                    count.n_bad += 1
                    continue
                yield Row(f"{path.name}:{number}", data)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one that is too long only its beginning."""
    while line := file.readline(MAX_LINE + 1):
        yield line
        while len(line) > MAX_LINE and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE + 1)


def parse_line(line: bytes) -> dict[str, Any]:
    """The JSON object in a line. Raises ValueError, which says what is there instead."""
    if len(line) > MAX_LINE:
        raise ValueError(f"the line has more than {MAX_LINE // 2**20} MiB")
    try:
        data: Any = json.loads(line.decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from error
    if is_deeper(data, MAX_DEPTH):
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    if not isinstance(data, dict):
        raise ValueError(f"found {json.dumps(data)[:40]}")
    return cast(dict[str, Any], data)


def is_deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects are inside each other more than `depth` times."""
    level: list[Any] = [value]
    for _ in range(depth + 1):
        level = [one for one in level if isinstance(one, dict | list)]
        if not level:
            return False
        level = [x for one in level for x in (one.values() if isinstance(one, dict) else one)]
    return True


def read_dataset(source: Source, count: SourceCount) -> Iterator[Row]:
    """Rows of a Hugging Face dataset."""
    spec = DatasetSource(path=source) if isinstance(source, str) else source
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetNotFoundError
    except ImportError as error:
        raise MissingDependency(
            f"{spec.path}: reading a dataset needs: pip install 'cai-toolkit[train]'"
        ) from error
    try:
        with disk_errors(Path(spec.path)):
            dataset: Any = load_dataset(spec.path, split=spec.split, revision=spec.revision)
    except (DatasetNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{spec.path}: neither a file here nor a dataset to be had from the hub ({reason})"
        ) from error
    if spec.column and spec.column not in dataset.column_names:
        raise ConfigError(
            f"{spec.path}: no column '{spec.column}'; it has: {', '.join(dataset.column_names)}"
        )
    for number, data in enumerate(dataset):
        count.n_rows += 1
        row = {"dialogue": data[spec.column]} if spec.column else data
        yield Row(f"{spec.path}/{spec.split}:{number}", row)


def row_dialogues(row: Row) -> list[tuple[Message, ...]]:
    """The dialogues in a row: hh-rlhf's chosen and rejected may differ before the last turn."""
    data = row.data
    for field in ("dialogue", "messages", "prompt"):
        if data.get(field) is not None:
            return [one_dialogue(data[field], f"{row.place}: {field}")]
    fields = [field for field in ("chosen", "rejected") if data.get(field) is not None]
    if not fields:
        known = ", ".join(sorted(map(str, data)))[:80]
        raise ConfigError(
            f"{row.place}: none of the fields prompt, messages, chosen (it has: {known})"
        )
    return [one_dialogue(data[field], f"{row.place}: {field}") for field in fields]


def one_dialogue(value: Any, place: str, whole: bool = True) -> tuple[Message, ...]:
    """Messages of a text, of a dialogue in `Human: … Assistant: …` form, or of a list of turns.
    Raises ConfigError if no human says anything in a `whole` one."""
    if isinstance(value, str):
        turns = parse_dialogue(value) if TURN.match(value) else [("user", value)]
    elif isinstance(value, list):
        turns = [check_turn(turn, place) for turn in value]
    else:
        raise ConfigError(f"{place}: expected text or a list of turns")
    messages: list[Message] = []
    # Two turns of one role in a row are one turn: no template can render them, no word is lost.
    for role, group in groupby(turns, lambda turn: turn[0]):
        # Half of a surrogate pair can stand in JSON and nowhere else.
        content = "\n\n".join(raw for _, raw in group).encode("utf-8", "replace").decode()
        messages.append(Message.model_validate({"role": role, "content": content}))
    if whole and not any(one.role == "user" and one.content.strip() for one in messages):
        raise ConfigError(f"{place}: no turn of a human's")
    return tuple(messages)


def parse_dialogue(text: str) -> list[tuple[str, str]]:
    """hh-rlhf's format: turns begin with a blank line and `Human:` or `Assistant:`."""
    parts = TURN.split(text)[1:]
    return [(ROLES[r], c.strip()) for r, c in zip(parts[::2], parts[1::2], strict=True)]


def check_turn(turn: Any, place: str) -> tuple[str, str]:
    if isinstance(turn, dict):
        role, content = turn.get("role"), turn.get("content")
        if role in ("system", "user", "assistant") and isinstance(content, str):
            return role, content
    shown = json.dumps(turn, default=str)[:60]
    raise ConfigError(f"{place}: a turn needs role (system, user, assistant) and content: {shown}")
