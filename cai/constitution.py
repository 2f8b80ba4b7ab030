"""The constitution: principles, how they are read from YAML and how one is drawn."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

from pydantic import ConfigDict, Field, field_validator, model_validator

from cai.complaints import dotted, validated
from cai.errors import ConfigError
from cai.records import Record, derive_seed, digest
from cai.resources import CONSTITUTIONS, find_resource
from cai.strict_yaml import Location, load_yaml, short

ID = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
Text = Literal["critique", "revision", "preference"]


class Principle(Record):
    """One rule, as a critique request, a revision request and a question about two responses."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str = Field(max_length=64)
    critique: str | None = None
    revision: str | None = None
    preference: str | None = None
    tags: list[str] = []
    weight: float = Field(default=1.0, gt=0)
    """How often it is drawn, relative to the others; the paper draws uniformly."""

    @field_validator("id")
    @classmethod
    def is_word(cls, value: str) -> str:
        if not ID.fullmatch(value):
            raise ValueError("an id is lowercase words joined with hyphens, such as 'no-threats'")
        return value

    @field_validator("critique", "revision", "preference")
    @classmethod
    def has_text(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("is empty; write the text or leave the field out")
        return value.strip() if value else None

    @model_validator(mode="after")
    def says_something(self) -> "Principle":
        if not (self.critique or self.revision or self.preference):
            raise ValueError("has none of critique, revision, preference")
        return self


class Constitution(Record):
    """What the model is to follow."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]*$")
    version: str
    description: str
    source: str
    license: str
    system_prompt: str | None = None
    principles: list[Principle] = Field(min_length=1)

    @property
    def digest(self) -> str:
        """Stands for the whole text."""
        return digest("constitution", self.model_dump())

    def for_revision(self) -> list[Principle]:
        """The principles that can be drawn for critique and revision."""
        usable = [p for p in self.principles if p.critique or p.revision]
        self.demand(usable or self.principles, ("critique", "revision"), "revise")
        return usable

    def for_preference(self) -> list[Principle]:
        """The principles that can be drawn for labelling."""
        usable = [p for p in self.principles if p.preference]
        self.demand(usable or self.principles, ("preference",), "label")
        return usable

    def demand(self, principles: Sequence[Principle], texts: Sequence[Text], stage: str) -> None:
        """Raise ConfigError naming each of `principles` that lacks one of `texts`."""
        lacks = [
            f"'{principle.id}' lacks {text}"
            for principle in principles
            for text in texts
            if getattr(principle, text) is None
        ]
        if lacks:
            raise ConfigError(
                f"constitution {self.name}: stage {stage} needs {' and '.join(texts)}, but "
                f"principle {', '.join(lacks)}; add the text to the constitution file"
            )


def draw(principles: Sequence[Principle], *key: object) -> Principle:
    """The principle drawn for `key`: always the same one, with probability weight / sum of weights.

    Paper sections 3.1 and 4.1: drawn anew at each revision round and each label.
    """
    total = sum(principle.weight for principle in principles)
    left = derive_seed("draw", *key) / 2**31 * total
    for principle in principles:
        left -= principle.weight
        if left < 0:
            return principle
    return principles[-1]


def draw_distinct(principles: Sequence[Principle], n: int, *key: object) -> list[Principle]:
    """`n` principles of different preference texts drawn for `key`, one after the other; the first
    is `draw`'s.

    Raises ValueError if there are fewer than `n` such texts."""
    left, drawn = list(principles), list[Principle]()
    if n > (there := n_preference_texts(left)):
        raise ValueError(f"{n} distinct principles wanted, there are {there}")
    for index in range(n):
        drawn.append(draw(left, *key, *([index] if index else [])))
        left = [one for one in left if one.preference != drawn[-1].preference]
    return drawn


def n_preference_texts(principles: Sequence[Principle]) -> int:
    """How many different questions they ask about two responses."""
    return len({principle.preference for principle in principles})


def find_constitution(name: str) -> Path:
    """The file that `--constitution name` means."""
    return find_resource(name, CONSTITUTIONS, ".yaml")


def load_constitution(path: Path) -> Constitution:
    """Read and check a constitution. Raises ConfigError with file, line, column and principle."""
    document = load_yaml(path)
    if not isinstance(document.data, dict):
        raise ConfigError(f"{path}:1:1: expected a mapping with name, version, … principles")
    principles = document.data.get("principles")
    entries: list[object] = principles if isinstance(principles, list) else []
    constitution = validated(document, Constitution, lambda path: named(path, entries))
    seen: dict[str, int] = {}
    for index, principle in enumerate(constitution.principles):
        if principle.id in seen:
            raise ConfigError(
                f"{document.place(('principles', index, 'id'))}: principle '{principle.id}' stands "
                f"here a second time (first is number {seen[principle.id] + 1}); give it its own id"
            )
        seen[principle.id] = index
    return constitution


def named(path: Location, entries: Sequence[object]) -> str:
    """A place in a constitution, by the principle's id: `principles.3.critique` says little."""
    if len(path) > 1 and path[0] == "principles":
        entry = entries[int(path[1])]
        name = cast(dict[str, object], entry).get("id") if isinstance(entry, dict) else None
        if isinstance(name, str):
            field = f", field {dotted(path[2:])}" if path[2:] else ""
            return f"principle '{short(name)}'{field}"
    return dotted(path)
