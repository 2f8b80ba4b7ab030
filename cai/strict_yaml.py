"""YAML that cannot surprise: bounded, no aliases, no duplicate keys, YAML 1.2 scalars.

`no`, `on`, `010` and `12:30` are text, as YAML 1.2 has it; only true/false, null and plain decimal
numbers are typed; `cai.complaints` converts nothing, so text in place of a number is an error.
Every complaint carries file, line and column. One pass over the parser's events reads a file.
"""

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cai.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
MAX_NODES = 50_000
"""Keys and values of a file: a constitution of ten thousand principles has fewer."""
MAX_SHOWN = 60
"""Characters of a key or value that a complaint shows."""

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser, where PyYAML was built with it: the other one takes seconds for 1 MiB."""
DIRECTIVE = re.compile(r"^%(YAML|TAG)\b", re.MULTILINE)
NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
MAX_DIGITS = 40
"""Characters of a number; a longer one is text."""
WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "~": None, "": None}
Location = tuple[str | int, ...]


class Mark(NamedTuple):
    """A place in a file, counted from 1."""

    line: int
    column: int


class Document(NamedTuple):
    """A YAML file's data, and where each of its values stands."""

    source: str
    data: Any
    marks: dict[Location, Mark]
    sources: dict[Location, str]
    """Values that came from elsewhere, such as the command line."""

    def place(self, path: Location) -> str:
        """`file:line:column` of the value at `path`, or of the nearest parent that is there."""
        while path and path not in self.marks:
            if path in self.sources:
                return self.sources[path]
            path = path[:-1]
        if not self.marks:
            return self.source
        mark = self.marks.get(path, Mark(1, 1))
        return f"{self.source}:{mark.line}:{mark.column}"


def load_yaml(path: Path) -> Document:
    """Read a YAML file. Raises ConfigError with the place of whatever is wrong."""
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """The text of a file of at most MAX_BYTES. Raises ConfigError for anything else."""
    if not os.path.isfile(path):
        # a pipe would be waited for, a device never ends
        found = "not a file" if os.path.exists(path) else "cannot be read: there is no such file"
        raise ConfigError(f"{path}: {found}; expected a YAML file")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: more than {MAX_BYTES} bytes; at most that many are read")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error


def parse_yaml(text: str, source: str) -> Document:
    """Parse YAML text; `source` names it in complaints."""
    if found := DIRECTIVE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise ConfigError(f"{source}:{line}:1: directives are not allowed; remove the line")
    reader = Reader(text, source)
    return Document(source, reader.document(), reader.marks, {})


def parse_events(text: str, source: str) -> Iterator[yaml.Event]:
    """The parser's events. Whatever it stumbles over becomes a ConfigError."""
    try:
        yield from yaml.parse(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark and error.context_mark and mark.line > text.rstrip().count("\n"):
            # the end is where it was noticed; what was not closed says more
            mark = error.context_mark
        where = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise ConfigError(f"{source}:{where}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # ValueError, OverflowError: half a character in `text`; in PyYAML's own parser "\UFFFFFFFF"
        raise ConfigError(f"{source}: not YAML: {' '.join(str(error).split())}") from error


class Reader:
    """Builds data and marks from the events of one document; stops at what is not allowed."""

    def __init__(self, text: str, source: str) -> None:
        self.marks: dict[Location, Mark] = {}
        self._source = source
        self._events = parse_events(text, source)
        self._n_nodes = 0

    def document(self) -> Any:
        """The document's data; none if there is none."""
        data, n_documents = None, 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                n_documents += 1
                if n_documents > 1:
                    raise self._error(event, "a second document starts here; one file holds one")
            elif isinstance(event, yaml.NodeEvent):
                data = self._value(event, ())
        return data

    def _value(self, event: Any, path: Location) -> Any:
        self._check(event, len(path))
        self.marks[path] = mark_of(event)
        if isinstance(event, yaml.ScalarEvent):
            return event.value if event.style else parse_scalar(event.value)
        if isinstance(event, yaml.SequenceStartEvent):
            return [self._value(child, (*path, i)) for i, child in enumerate(self._children())]
        return self._mapping(path)

    def _mapping(self, path: Location) -> dict[str, Any]:
        data: dict[str, Any] = {}
        children = self._children()
        for event in children:
            self._check(event, len(path) + 1)
            if not isinstance(event, yaml.ScalarEvent):
                raise self._error(event, "a key must be a word")
            key: str = event.value
            if key in data:
                raise self._error(event, f"the key '{short(key)}' stands here twice; remove one")
            data[key] = self._value(next(children), (*path, key))
        return data

    def _children(self) -> Iterator[Any]:
        """The events up to the end of the collection that has begun."""
        for event in self._events:
            if isinstance(event, yaml.CollectionEndEvent):
                return
            yield event

    def _check(self, event: Any, depth: int) -> None:
        """Refuse what a reader of the file could be deceived or overwhelmed by."""
        self._n_nodes += 1
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            raise self._error(event, "anchors and aliases are not allowed; write the value out")
        if event.tag:
            raise self._error(event, f"the tag {short(event.tag)} is not allowed")
        if self._n_nodes > MAX_NODES:
            raise self._error(event, f"more than {MAX_NODES} keys and values")
        if not isinstance(event, yaml.ScalarEvent):
            if depth >= MAX_DEPTH:
                raise self._error(event, f"nested deeper than {MAX_DEPTH} levels")
        elif event.style == '"' and not is_text(event.value):
            raise self._error(event, "holds a NUL or half a character; remove the escape")

    def _error(self, event: Any, complaint: str) -> ConfigError:
        mark = mark_of(event)
        return ConfigError(f"{self._source}:{mark.line}:{mark.column}: {complaint}")


def mark_of(event: Any) -> Mark:
    """Where an event starts."""
    mark = event.start_mark
    return Mark(mark.line + 1, mark.column + 1)


def is_text(value: str) -> bool:
    """Whether a value is no more than text: escapes can make NULs, and surrogates without UTF-8."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def parse_scalar(text: str) -> Any:
    """The value of a plain scalar: true/false, null, a decimal number, or the text itself."""
    if text in WORDS:
        return WORDS[text]
    if len(text) > MAX_DIGITS:
        return text
    if INTEGER.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text


def short(text: str) -> str:
    """A key or name as a complaint shows it: on one line, and no longer than need be."""
    shown = text[: MAX_SHOWN + 1]
    shown = shown if shown.isprintable() else repr(shown)[1:-1]
    return shown if len(shown) <= MAX_SHOWN else f"{shown[: MAX_SHOWN - 1]}…"
