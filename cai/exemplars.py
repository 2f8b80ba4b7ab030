"""Worked examples that a judge or critic without instruction tuning is shown (paper 3.1, 4.1)."""

from pathlib import Path
from typing import Literal, TypeVar

from cai.complaints import validated
from cai.records import Message, Record
from cai.strict_yaml import load_yaml

Opening = str | tuple[Message, ...]
"""A human's turn, or a whole conversation that ends in one."""


class RevisionExemplar(Record):
    """A worked chain of one round."""

    prompt: Opening
    response: str
    critique_request: str
    critique: str
    revision_request: str
    revision: str


class PreferenceExemplar(Record):
    """A pair whose better side is known."""

    prompt: Opening
    better: str
    worse: str


class CotExemplar(Record):
    """A pair with the reasoning that leads to the better side."""

    prompt: Opening
    first: str
    second: str
    reasoning: str
    """Speaks of the two as (A) and (B); does not say the answer in the form asked for."""
    answer: Literal["A", "B"]


class ExemplarFile(Record):
    """What every file of exemplars says of itself."""

    description: str
    source: str | None = None
    license: str | None = None


class RevisionExemplars(ExemplarFile):
    exemplars: tuple[RevisionExemplar, ...]


class PreferenceExemplars(ExemplarFile):
    exemplars: tuple[PreferenceExemplar, ...]


class CotExemplars(ExemplarFile):
    exemplars: tuple[CotExemplar, ...]


Exemplars = TypeVar("Exemplars", RevisionExemplars, PreferenceExemplars, CotExemplars)


def opening_turns(prompt: Opening) -> tuple[Message, ...]:
    """The conversation of an exemplar up to the response."""
    return (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt


def load_exemplars(path: Path, model: type[Exemplars]) -> Exemplars:
    """Read a file of exemplars. Raises ConfigError with the place of a mistake."""
    return validated(load_yaml(path), model)
