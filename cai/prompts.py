"""Prompt templates: strict Jinja files in, messages out.

Constitution and model text enter only as variables: no template engine ever reads them as a
template. Turning messages into token ids is `cai.engines.encode`'s work.

A template may come from a run folder that somebody else made, so it is held to a small part of
Jinja: text, variables, `if` and one level of `for`. What could hang, fill the memory or call
something is refused when it is loaded.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jinja2
from jinja2 import nodes
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
MAX_TEMPLATE = 64 * 1024
"""Bytes of a template's file."""
MAX_NESTING = 20
CODE_LENGTH = 16
"""Hex digits of a code: its maker would have to try 2^64 texts to find one that foretells it."""
FILTERS = {"capitalize", "first", "last", "length", "lower", "title", "trim", "upper"}
ALLOWED: tuple[type[nodes.Node], ...] = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.Getattr,
    nodes.Getitem, nodes.Dict, nodes.Pair, nodes.List, nodes.Tuple, nodes.Neg, nodes.If, nodes.For,
    nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Filter,
    nodes.Concat,
)  # fmt: skip
"""What a template may be made of."""


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
        source = read_template(path)
        self._templates[name] = environment.from_string(parse_template(path, source, environment))
        self.paths[name] = path
        self.digests[name] = digest("template", source)

    def _render(self, name: TemplateName, **values: Any) -> str:
        try:
            return self._templates[name].render(**values)
        except (jinja2.TemplateError, TypeError) as error:
            raise ConfigError(
                f"{self.paths[name]}: {error}; it may use: {', '.join(sorted(values))}"
            ) from error

    def _try_out(self) -> None:
        """Render each template once, so that a wrong variable is found before a token is spent."""
        principle = Principle(id="trial", critique="c", revision="r", preference="p")
        self.critique(principle)
        self.revise(principle)
        for mode in QUESTIONS:
            self.compare(principle, Pair([Message(role="user", content="x")], "a", "b"), mode)

    def critique(self, principle: Principle, quoted: str | None = None) -> str:
        """The request to criticise the last response, which may be `quoted` between markers."""
        if quoted is None:
            return self._render("critique", principle=principle, code=None, response=None)
        code = code_for(quoted)
        request = self._render("critique", principle=principle, code=code, response=quoted)
        if request.count(code) < 2:
            raise ConfigError(
                f"{self.paths['critique']}: expected {{{{ response }}}} between two lines with "
                "{{ code }}: add them, or set delimiters to false"
            )
        return request

    def revise(self, principle: Principle) -> str:
        """The request to rewrite the last response."""
        return self._render("revise", principle=principle)

    def compare(
        self, principle: Principle, pair: Pair, mode: LabelMode = "logprob"
    ) -> tuple[Message, ...]:
        """The judge's question about a pair, with the beginning of its answer if it has one."""
        # The same in both orders, whose questions then share all that comes before the first.
        code = code_for(*(m.content for m in pair.messages), *sorted(pair[1:]))
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


def code_for(*quoted: str) -> str:
    """A code that none of the `quoted` texts could foresee: none can close its own quotation."""
    return digest("code", *quoted)[:CODE_LENGTH]


def read_template(path: Path) -> str:
    """The text of a template's file."""
    with path.open("rb") as file:
        raw = file.read(MAX_TEMPLATE + 1)
    if len(raw) > MAX_TEMPLATE:
        raise ConfigError(f"{path}: longer than {MAX_TEMPLATE} bytes: not a prompt template")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start + 1})") from error


def parse_template(path: Path, source: str, environment: jinja2.Environment) -> nodes.Template:
    """The template, once it is known to be made of what a template may be made of."""
    try:
        template = environment.parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(
            f"{path}:{error.lineno}: not a Jinja template: {error.message}"
        ) from error
    # Parentheses without end, and a number of thousands of digits.
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: not a Jinja template: {error}") from error
    refuse_nodes(path, template)
    return template


def refuse_nodes(path: Path, template: nodes.Template) -> None:
    """Refuse what is not `ALLOWED`, with its line."""
    below: list[tuple[nodes.Node, int, bool]] = [(template, 0, False)]
    while below:
        node, depth, in_loop = below.pop()
        what = type(node).__name__
        if not isinstance(node, ALLOWED) or depth > MAX_NESTING:
            what = "too deep a nesting" if isinstance(node, ALLOWED) else what
        elif isinstance(node, nodes.For) and in_loop:
            what = "a loop inside a loop"
        elif isinstance(node, nodes.Filter) and (node.name not in FILTERS or node.args):
            what = f"the filter {node.name}"
        else:
            within = in_loop or isinstance(node, nodes.For)
            below += [(child, depth + 1, within) for child in node.iter_child_nodes()]
            continue
        raise ConfigError(
            f"{path}:{node.lineno}: {what} is not for a prompt template: expected text, variables, "
            f"if, one level of for and the filters {', '.join(sorted(FILTERS))}"
        )


def conclusion(reasoning: str) -> str:
    """The judge's turn after its reasoning, up to the option's letter."""
    return f"{REASONING_PREFIX} {reasoning.strip()}\n\n{CONCLUSION}"


def opening(constitution: Constitution) -> tuple[Message, ...]:
    """The system turn, where the constitution has one."""
    if constitution.system_prompt is None:
        return ()
    return (Message(role="system", content=constitution.system_prompt),)
