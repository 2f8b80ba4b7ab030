"""The folder of an import: our YAML files, and in `original/` what they were made from."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from cai.constitution import Constitution, Principle, load_constitution
from cai.errors import ConfigError
from cai.exemplars import (
    CotExemplars,
    Exemplars,
    PreferenceExemplars,
    RevisionExemplars,
    load_exemplars,
    opening_turns,
)
from cai.interop.entries import Entry, Exemplar, Part, with_ids
from cai.strict_yaml import MAX_BYTES, parse_scalar

CONSTITUTION = "constitution.yaml"
ORIGINAL = "original"
FILES: dict[Part, str] = {
    "principles": CONSTITUTION,
    "revision": "critique_revision.yaml",
    "preference": "preference.yaml",
    "cot": "preference_cot.yaml",
}
NO_BLOCK = "\x85\u2028\u2029"
"""Line breaks of YAML 1.1 that a block would turn into another."""

Parts = Mapping[Part, Sequence[Entry]]


class About(NamedTuple):
    """What the files say of themselves."""

    name: str
    description: str
    source: str
    license: str


def documents(parts: Parts, about: About) -> dict[str, str]:
    """Our files' text by name: those that there is something for. Raises ConfigError for a name
    that no constitution can have, and for more than a file may hold."""
    head = about._asdict()
    texts: dict[str, str] = {}
    if principles := [entry for entry in parts["principles"] if isinstance(entry, Principle)]:
        unique = with_ids(principles, [principle.id for principle in principles])
        try:
            whole = Constitution(version="1", principles=unique, **head)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ConfigError(f"--name {about.name!r}: no constitution's name: {reason}") from error
        texts[CONSTITUTION] = yaml_text(whole.model_dump(exclude_defaults=True))
    del head["name"]
    for part, name in FILES.items():
        if part != "principles" and parts[part]:
            entries = [entry.model_dump(mode="json") for entry in parts[part]]
            texts[name] = yaml_text(head | {"exemplars": entries})
    for name, text in texts.items():
        if len(text.encode()) > MAX_BYTES:
            raise ConfigError(f"{name}: more than the {MAX_BYTES} bytes that are read of a file")
    return texts


def read_folder(path: Path) -> tuple[Parts, dict[str, int]]:
    """Principles and exemplars of a constitution file and the exemplar files beside it, or of a
    folder; and how often there is what no other project's format has a place for."""
    whole = path.is_dir()
    folder, file = (path, path / CONSTITUTION) if whole else (path.parent, path)
    parts: dict[Part, Sequence[Entry]] = {
        "principles": (),
        "revision": read_shots(folder / FILES["revision"], RevisionExemplars),
        "preference": read_shots(folder / FILES["preference"], PreferenceExemplars),
        "cot": read_shots(folder / FILES["cot"], CotExemplars),
    }
    extra = Counter[str]()
    if file.is_file() or not whole:
        constitution = load_constitution(file)
        parts["principles"] = principles = constitution.principles
        extra["system_prompt"] = int(constitution.system_prompt is not None)
        extra["tags"] = sum(bool(principle.tags) for principle in principles)
        extra["weight"] = sum(principle.weight != 1 for principle in principles)
    extra["what a file says of itself (description, source, license …)"] = sum(
        map(bool, parts.values())
    )
    return parts, {name: n for name, n in extra.items() if n}


def read_shots(path: Path, model: type[Exemplars]) -> Sequence[Entry]:
    """The exemplars of a file; none where it is not there."""
    return [tidy(shot) for shot in load_exemplars(path, model).exemplars] if path.is_file() else ()


def tidy(shot: Exemplar) -> Exemplar:
    """The exemplar without white space around its texts, a conversation of one turn as a text."""
    turns = [(turn.role, turn.content.strip()) for turn in opening_turns(shot.prompt)]
    said = {name: text.strip() for name, text in shot if isinstance(text, str)}
    alone = [role for role, _ in turns] == ["user"]
    prompt: Any = turns[0][1] if alone else [{"role": r, "content": c} for r, c in turns]
    return type(shot).model_validate(said | {"prompt": prompt})


class Dumper(yaml.SafeDumper):
    """Writes what `cai.strict_yaml` reads as the same: long texts in blocks, without folding."""


def represent_text(dumper: Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    if parse_scalar(text) != text or any(letter in text for letter in NO_BLOCK):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


Dumper.add_representer(str, represent_text)


def yaml_text(data: Mapping[str, Any]) -> str:
    """YAML of texts, numbers, lists and mappings."""
    width = float("inf")
    return yaml.dump(dict(data), Dumper=Dumper, allow_unicode=True, sort_keys=False, width=width)
