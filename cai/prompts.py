"""Prompt templates: strict Jinja files in, messages out.

Constitution and model text enter only as variables: no template engine ever reads them as a
template. Turning messages into token ids is `cai.engines.encode`'s work.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cai.constitution import Constitution, Principle
from cai.errors import ConfigError
from cai.exemplars import (
    CotExemplars,
    Exemplars,
    PreferenceExemplars,
    RevisionExemplars,
    load_exemplars,
    opening_turns,
)
from cai.records import LabelMode, Message, conversation, digest
from cai.resources import PROMPTS, find_resource
from cai.sections import ExemplarFiles

TemplateName = Literal["critique", "revise", "compare", "compare_cot", "compare_text"]
NAMES: tuple[TemplateName, ...] = get_args(TemplateName)
QUESTIONS: dict[LabelMode, TemplateName] = {
    "logprob": "compare",
    "cot": "compare_cot",
    "text": "compare_text",
}
ANSWER_PREFIX = "The answer is: ("
"""What the judge's turn begins with, so that the next token is the option's letter."""
REASONING_PREFIX = "Let's think step by step:"
"""What the judge's turn begins with where it reasons first (paper section 4.1)."""
CONCLUSION = "So the answer is: ("
"""What follows the reasoning, so that the next token is the option's letter."""
CONCLUDES = CONCLUSION.removesuffix(": (")
"""Where it is written by the judge itself, the reasoning ends."""
OPTIONS = ("A", "B")
"""The letters of the first and the second response, as the templates name them."""


class Pair(NamedTuple):
    """Two responses to one conversation, in the order in which the judge reads them."""

    messages: Sequence[Message]
    first: str
    second: str


class Templates:
    """The templates and the exemplars, checked when loaded."""

    def __init__(self, files: ExemplarFiles | None = None, copies: Path | None = None) -> None:
        """`copies`: a run's `inputs/`, whose files are read in place of today's."""
        environment = ImmutableSandboxedEnvironment(
            undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=False
        )
        self.paths: dict[str, Path] = {}
        """Where each template and each file of exemplars was found, by what it is for."""
        self.digests: dict[TemplateName, str] = {}
        self._copies = copies
        self._templates: dict[TemplateName, jinja2.Template] = {}
        for name in NAMES:
            self._load(name, environment)
        files = files or ExemplarFiles()
        self.revision_exemplars = self._shots("revision", files, RevisionExemplars).exemplars
        self.preference_exemplars = self._shots("preference", files, PreferenceExemplars).exemplars
        self.cot_exemplars = self._shots("cot", files, CotExemplars).exemplars
        self._try_out()

    def _shots(self, role: str, files: ExemplarFiles, model: type[Exemplars]) -> Exemplars:
        name: str = getattr(files, role)
        is_path = name.endswith((".yaml", ".yml"))
        path = self._copy(f"exemplars_{role}.yaml") or find_resource(
            name if is_path else f"exemplars/{name}.yaml", PROMPTS, ""
        )
        self.paths[f"exemplars_{role}"] = path
        return load_exemplars(path, model)

    def _copy(self, name: str) -> Path | None:
        path = self._copies / name if self._copies else None
        return path if path and path.is_file() else None

    def _load(self, name: TemplateName, environment: jinja2.Environment) -> None:
        path = self._copy(f"{name}.jinja") or find_resource(f"{name}.jinja", PROMPTS, ".jinja")
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
        for mode in QUESTIONS:
            self.compare(principle, Pair([Message(role="user", content="x")], "a", "b"), mode)

    def critique(self, principle: Principle) -> str:
        """The request to criticise the last response."""
        return self._render("critique", principle=principle)

    def revise(self, principle: Principle) -> str:
        """The request to rewrite the last response."""
        return self._render("revise", principle=principle)

    def compare(
        self, principle: Principle, pair: Pair, mode: LabelMode = "logprob"
    ) -> tuple[Message, ...]:
        """The judge's question about a pair, with the beginning of its answer if it has one."""
        # A code that no text could foresee keeps a response from closing its own quotation.
        # It is the same in both orders, whose questions then share all that comes before the first.
        code = digest("code", [m.content for m in pair.messages], *sorted(pair[1:]))[:8]
        question = self._render(
            QUESTIONS[mode],
            principle=principle,
            messages=pair.messages,
            first=pair.first,
            second=pair.second,
            code=code,
        )
        asked = Message(role="user", content=question)
        begins = {"logprob": ANSWER_PREFIX, "cot": REASONING_PREFIX}
        if mode not in begins:
            return (asked,)
        return (asked, Message(role="assistant", content=begins[mode]))

    def revision_shots(self) -> tuple[Message, ...]:
        """The critique and revision exemplars as turns."""
        turns: tuple[Message, ...] = ()
        for shot in self.revision_exemplars:
            turns += opening_turns(shot.prompt)
            turns = conversation(
                turns,
                shot.response,
                shot.critique_request,
                shot.critique,
                shot.revision_request,
                shot.revision,
            )
        return turns

    def n_shots(self, mode: LabelMode) -> int:
        """How many worked comparisons there are for a judge of this mode."""
        return len(self.cot_exemplars if mode == "cot" else self.preference_exemplars)

    def preference_shots(
        self, principles: Sequence[Principle], mode: LabelMode = "logprob"
    ) -> tuple[Message, ...]:
        """The worked comparisons as turns, the i-th under `principles[i]`."""
        turns: tuple[Message, ...] = ()
        worked = self._worked_cot() if mode == "cot" else self._worked(mode)
        for (pair, answer), principle in zip(worked, principles, strict=True):
            question = self.compare(principle, pair, mode)[0]
            turns += (question, Message(role="assistant", content=answer))
        return turns

    def _worked(self, mode: LabelMode) -> Iterator[tuple[Pair, str]]:
        """Pairs and whole answers, the better side alternating."""
        form = "Verdict: {}" if mode == "text" else ANSWER_PREFIX + "{})"
        for index, shot in enumerate(self.preference_exemplars):
            texts = (shot.better, shot.worse) if index % 2 == 0 else (shot.worse, shot.better)
            pair = Pair(opening_turns(shot.prompt), *texts)
            yield pair, form.format(OPTIONS[index % 2])

    def _worked_cot(self) -> Iterator[tuple[Pair, str]]:
        for shot in self.cot_exemplars:
            pair = Pair(opening_turns(shot.prompt), shot.first, shot.second)
            yield pair, f"{conclusion(shot.reasoning)}{shot.answer})"


def conclusion(reasoning: str) -> str:
    """The judge's turn after its reasoning, up to the option's letter."""
    return f"{REASONING_PREFIX} {reasoning.strip()}\n\n{CONCLUSION}"


def opening(constitution: Constitution) -> tuple[Message, ...]:
    """The system turn, where the constitution has one."""
    if constitution.system_prompt is None:
        return ()
    return (Message(role="system", content=constitution.system_prompt),)
