"""YAML that cannot surprise: bounded, no aliases, no duplicate keys, YAML 1.2 scalars.

`no`, `on`, `010` and `12:30` are text, as YAML 1.2 has it; only true/false, null and plain decimal
numbers are typed. Every complaint carries file, line and column.
"""

import difflib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ValidationError

from cai.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 50

NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
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
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: {len(raw)} bytes; at most {MAX_BYTES} are read")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Document:
    """Parse YAML text; `source` names it in complaints."""
    marks: dict[Location, Mark] = {}
    try:
        check_events(text, source)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise ConfigError(f"{source}:{where}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {' '.join(str(error).split())}") from error
    return Document(source, build(node, (), marks, source) if node else None, marks, {})


def check_events(text: str, source: str) -> None:
    """Refuse aliases, tags, several documents and deep nesting before anything is built."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = f"{source}:{event.start_mark.line + 1}:{event.start_mark.column + 1}"
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            raise ConfigError(f"{where}: a second document starts here; one file holds one")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(f"{where}: anchors and aliases are not allowed; write the value out")
        tag = getattr(event, "tag", None)
        if tag and tag != "!":
            raise ConfigError(f"{where}: the tag {tag} is not allowed")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{where}: nested deeper than {MAX_DEPTH} levels")


def build(node: yaml.Node, path: Location, marks: dict[Location, Mark], source: str) -> Any:
    """Data of a node; fills `marks`."""
    marks[path] = Mark(node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style else parse_scalar(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [build(child, (*path, i), marks, source) for i, child in enumerate(node.value)]
    return build_mapping(node, path, marks, source)


def build_mapping(
    node: yaml.Node, path: Location, marks: dict[Location, Mark], source: str
) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        where = f"{source}:{key_node.start_mark.line + 1}:{key_node.start_mark.column + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{where}: a key must be a word")
        key = key_node.value
        if key in data:
            raise ConfigError(f"{where}: the key '{key}' stands here twice; remove one")
        data[key] = build(value_node, (*path, key), marks, source)
    return data


def parse_scalar(text: str) -> Any:
    """The value of a plain scalar: true/false, null, a decimal number, or the text itself."""
    if text in WORDS:
        return WORDS[text]
    if INTEGER.fullmatch(text) and len(text) <= 18:
        return int(text)
    if NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text


def complaints(error: ValidationError, document: Document, model: type[BaseModel]) -> Iterator[str]:
    """One line for each thing that pydantic found wrong, with its place and what was expected."""
    for item in error.errors():
        path = tuple(part for part in item["loc"] if not is_union_branch(part))
        field = ".".join(str(part) for part in path)
        if item["type"] == "extra_forbidden":
            yield f"{document.place(path)}: {unknown_key(path, model)}"
        elif item["type"] == "missing":
            yield f"{document.place(path)}: {field} is missing"
        else:
            message = item["msg"].removeprefix("Value error, ")
            shown = repr(item["input"])[:60]
            yield f"{document.place(path)}: {field}: {message} (found {shown})"


def is_union_branch(part: str | int) -> bool:
    """Pydantic puts the name of a union's branch into the path; the file has no such key."""
    return isinstance(part, str) and (part in ("str", "DatasetSource") or "[" in part)


def unknown_key(path: Location, model: type[BaseModel]) -> str:
    """Complaint about a key that `model` does not have at `path`."""
    key, fields = str(path[-1]), fields_at(path[:-1], model)
    near = difflib.get_close_matches(key, fields, 1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known are: {', '.join(fields)}"
    return f"unknown key '{'.'.join(map(str, path))}'; {hint}"


def fields_at(path: Location, model: type[BaseModel]) -> list[str]:
    """Field names of the model that sits at `path` inside `model`."""
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            inner = inner_model(model.model_fields[part].annotation)
            model = inner or model
    return list(model.model_fields)


def inner_model(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model inside `X`, `X | None`, `list[X]`, `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if found := inner_model(inner):
            return found
    return None
