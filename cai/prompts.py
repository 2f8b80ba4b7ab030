"""Prompt templates: strict Jinja files in, messages out.

Constitution and model text enter only as variables: no template engine ever reads them as a
template. Turning messages into token ids is `cai.engines.encode`'s work.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import ValidationError

from cai.constitution import Constitution, Principle
from cai.errors import ConfigError
from cai.records import Message, Record, conversation, digest
from cai.resources import PROMPTS, find_resource
from cai.strict_yaml import complaints, load_yaml

TemplateName = Literal["critique", "revise", "compare"]
NAMES: tuple[TemplateName, ...] = ("critique", "revise", "compare")
ANSWER_PREFIX = "The answer is: ("
"""What the judge's turn begins with, so that the next token is the option's letter."""
OPTIONS = ("A", "B")
"""The letters of the first and the second response, as `compare.jinja` names them."""


class RevisionExemplar(Record):
    """A worked chain of one round."""

    prompt: str
    response: str
    critique_request: str
    critique: str
    revision_request: str
    revision: str


class PreferenceExemplar(Record):
    """A pair whose better side is known."""

    prompt: str
    better: str
    worse: str


class RevisionExemplars(Record):
    description: str
    exemplars: tuple[RevisionExemplar, ...]


class PreferenceExemplars(Record):
    description: str
    exemplars: tuple[PreferenceExemplar, ...]


Exemplars = TypeVar("Exemplars", RevisionExemplars, PreferenceExemplars)


class Pair(NamedTuple):
    """Two responses to one conversation, in the order in which the judge reads them."""

    messages: Sequence[Message]
    first: str
    second: str


class Templates:
    """The three templates and the exemplars, checked when loaded."""

    def __init__(self) -> None:
        environment = ImmutableSandboxedEnvironment(
            undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=False
        )
        self.paths: dict[str, Path] = {}
        self.digests: dict[TemplateName, str] = {}
        self._templates: dict[TemplateName, jinja2.Template] = {}
        for name in NAMES:
            self._load(name, environment)
        self.revision_exemplars = self._shots("critique_revision", RevisionExemplars).exemplars
        self.preference_exemplars = self._shots("preference", PreferenceExemplars).exemplars
        self._try_out()

    def _shots(self, name: str, model: type[Exemplars]) -> Exemplars:
        path = find_resource(f"exemplars/{name}.yaml", PROMPTS, "")
        self.paths[name] = path
        return load_exemplars(path, model)

    def _load(self, name: TemplateName, environment: jinja2.Environment) -> None:
        path = find_resource(f"{name}.jinja", PROMPTS, ".jinja")
        source = path.read_text(encoding="utf-8")
        try:
            self._templates[name] = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(
                f"{path}:{error.lineno}: not a Jinja template: {error.message}"
            ) from error
        self.paths[name] = path
        self.digests[name] = digest("template", source)

    def _render(self, name: TemplateName, **values: Any) -> str:
        try:
            return self._templates[name].render(**values)
        except jinja2.UndefinedError as error:
            raise ConfigError(
                f"{self.paths[name]}: {error.message}; it may use: {', '.join(sorted(values))}"
            ) from error

    def _try_out(self) -> None:
        """Render each template once, so that a wrong variable is found before a token is spent."""
        principle = Principle(id="trial", critique="c", revision="r", preference="p")
        self.critique(principle)
        self.revise(principle)
        self.compare(principle, Pair([Message(role="user", content="x")], "a", "b"))

    def critique(self, principle: Principle) -> str:
        """The request to criticise the last response."""
        return self._render("critique", principle=principle)

    def revise(self, principle: Principle) -> str:
        """The request to rewrite the last response."""
        return self._render("revise", principle=principle)

    def compare(self, principle: Principle, pair: Pair) -> tuple[Message, ...]:
        """The judge's question about a pair, with the beginning of its answer."""
        # A code that no text could foresee keeps a response from closing its own quotation.
        # It is the same in both orders, whose questions then share all that comes before the first.
        code = digest("code", [m.content for m in pair.messages], *sorted(pair[1:]))[:8]
        question = self._render(
            "compare",
            principle=principle,
            messages=pair.messages,
            first=pair.first,
            second=pair.second,
            code=code,
        )
        return (
            Message(role="user", content=question),
            Message(role="assistant", content=ANSWER_PREFIX),
        )

    def revision_shots(self) -> tuple[Message, ...]:
        """The critique and revision exemplars as turns."""
        turns: tuple[Message, ...] = ()
        for shot in self.revision_exemplars:
            turns += (Message(role="user", content=shot.prompt),)
            turns = conversation(
                turns,
                shot.response,
                shot.critique_request,
                shot.critique,
                shot.revision_request,
                shot.revision,
            )
        return turns

    def preference_shots(self, principles: Sequence[Principle]) -> tuple[Message, ...]:
        """The preference exemplars as turns, the i-th under `principles[i]`, sides alternating."""
        turns: tuple[Message, ...] = ()
        for index, (shot, principle) in enumerate(
            zip(self.preference_exemplars, principles, strict=True)
        ):
            texts = (shot.better, shot.worse) if index % 2 == 0 else (shot.worse, shot.better)
            question, answer = self.compare(
                principle, Pair([Message(role="user", content=shot.prompt)], *texts)
            )
            letter = OPTIONS[index % 2]
            turns += (question, Message(role="assistant", content=f"{answer.content}{letter})"))
        return turns


def load_exemplars(path: Path, model: type[Exemplars]) -> Exemplars:
    """Read a file of exemplars. Raises ConfigError with the place of a mistake."""
    document = load_yaml(path)
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError("\n".join(complaints(error, document, model))) from error


def opening(constitution: Constitution) -> tuple[Message, ...]:
    """The system turn, where the constitution has one."""
    if constitution.system_prompt is None:
        return ()
    return (Message(role="system", content=constitution.system_prompt),)
