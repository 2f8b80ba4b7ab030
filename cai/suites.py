"""The three evaluations published with Bai et al. 2022, as items to be asked.

`hhh`: which of two responses is more helpful, honest and harmless (section 2 of the paper);
`harmful-vs-ethical`, `harm-classification`: whether, and in which of nine ways, an assistant
behaved harmfully. A model answers with the log-probability of each option. Two of the three files
have their options always in one order, so each item is also asked with its options shuffled: there
a letter says nothing about the answer.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, NamedTuple

import jsonlines
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cai.errors import ConfigError
from cai.lines import loads
from cai.records import Message, derive_seed, digest
from cai.sources import one_dialogue

SuiteName = Literal["hhh", "harmful-vs-ethical", "harm-classification"]
Format = Literal["raw", "chat"]
ANSWER = "The answer is:"
"""How every prompt ends."""
MAX_NAMED = 5
"""Broken rows that an error names."""


class Form(NamedTuple):
    """How a file writes its options: `\\n (A) ` each, then the text between two marks."""

    opening: str
    closing: str
    ending: str
    """What follows the last option."""


class Suite(NamedTuple):
    """One of the evaluations."""

    file: str
    form: Form


QUOTED = Form("[[[", "]]]", f"\n\n{ANSWER}")
LINES = Form("", "", f"\n{ANSWER}")
SUITES: dict[SuiteName, Suite] = {
    "hhh": Suite("438HHHEvaluations.jsonl", QUOTED),
    "harmful-vs-ethical": Suite("HarmfulVsEthical.jsonl", LINES),
    "harm-classification": Suite("HarmfulnessClassification.jsonl", LINES),
}


class Row(BaseModel):
    """A line of a file."""

    model_config = ConfigDict(frozen=True, strict=True)

    prompt: str
    corrects: list[str] = Field(min_length=1, max_length=1)
    incorrects: list[str] = Field(min_length=1)
    text_correct: str | None = None
    text_incorrect: str | None = None

    @model_validator(mode="after")
    def check(self) -> "Row":
        options = [*self.corrects, *self.incorrects]
        if len(set(options)) < len(options):
            raise ValueError(f"two options are the same: {options}")
        if not all(option.strip() for option in options):
            raise ValueError("an option is empty")
        if not self.prompt.endswith(ANSWER):
            raise ValueError(f"prompt: expected it to end in '{ANSWER}'")
        return self


class Question(NamedTuple):
    """A prompt taken apart: what comes before its options, and their texts in order."""

    head: str
    texts: tuple[str, ...]


Conversation = tuple[Message, ...]


class Item(NamedTuple):
    """One question of a suite."""

    row: int
    """The line of the file."""
    id: str
    prompt: str
    options: tuple[str, ...]
    """The answers in the order of their letters, such as " (A)"."""
    right: int
    """Index of the right option."""
    question: Question | None
    """None where the prompt cannot be taken apart exactly: it is then not shuffled."""
    answered: tuple[Conversation, ...] | None
    """What a reward model compares, the right one first: conversations that end in a response.
    None where there are no two of them."""


class Asked(NamedTuple):
    """An item as a model is asked it."""

    item: Item
    prompt: str
    right: int
    order: tuple[int, ...] | None = None
    """Shuffled: the original index of each option shown; none: as the file has them."""


class Loaded(NamedTuple):
    """A file's items and how many rows had to be left out."""

    items: list[Item]
    n_bad: int


def load_items(path: Path, name: SuiteName, skip_bad: bool = False) -> Loaded:
    """Every row as an item. Raises ConfigError naming broken rows, or counts them (`skip_bad`)."""
    items: list[Item] = []
    bad: list[str] = []
    for number, data in enumerate(read_lines(path), 1):
        try:
            if isinstance(data, jsonlines.InvalidLineError):
                raise ConfigError(f"not a JSON object ({str(data).splitlines()[0][:80]})")
            items.append(make_item(name, number, Row.model_validate(data)))
        except (ConfigError, ValidationError) as error:
            bad.append(f"{path}:{number}: {complaint(error)}")
    if bad and not skip_bad:
        more = f"\nand {len(bad) - MAX_NAMED} more" if len(bad) > MAX_NAMED else ""
        raise ConfigError(
            "\n".join(bad[:MAX_NAMED]) + f"{more}\nmend the file, or leave such rows out and have "
            "them counted: --skip-bad"
        )
    if not items:
        raise ConfigError(f"{path}: no usable rows in it ({len(bad)} broken)")
    return Loaded(items, len(bad))


def read_lines(path: Path) -> list[dict[str, Any] | jsonlines.InvalidLineError]:
    """What each line holds: an object, or why it is none."""
    found: list[dict[str, Any] | jsonlines.InvalidLineError] = []
    try:
        with (
            path.open("rb") as file,
            jsonlines.Reader(file, loads=loads) as reader,  # pyright: ignore[reportCallIssue]
        ):
            while True:
                try:
                    found.append(reader.read(type=dict))
                except jsonlines.InvalidLineError as error:
                    found.append(error)
    except EOFError:
        return found
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def complaint(error: ConfigError | ValidationError) -> str:
    """One line about a broken row."""
    if isinstance(error, ConfigError):
        return str(error)
    first = error.errors()[0]
    return ": ".join([*map(str, first["loc"]), first["msg"].removeprefix("Value error, ")])


def make_item(name: SuiteName, number: int, row: Row) -> Item:
    """A row with its options in order and its prompt taken apart."""
    options = tuple(sorted([*row.corrects, *row.incorrects]))
    right = options.index(row.corrects[0])
    question = take_apart(row.prompt, options, SUITES[name].form)
    return Item(
        row=number,
        id=digest("item", name, row.prompt, options),
        prompt=row.prompt,
        options=options,
        right=right,
        question=question,
        answered=with_texts(row) if name == "hhh" else with_options(question, right),
    )


def with_texts(row: Row) -> tuple[Conversation, ...] | None:
    """The row's own two conversations."""
    if row.text_correct is None or row.text_incorrect is None:
        return None
    return dialogue(row.text_correct), dialogue(row.text_incorrect)


def with_options(question: Question | None, right: int) -> tuple[Conversation, ...] | None:
    """The question, answered by the text of each option."""
    if question is None:
        return None
    asked = Message(role="user", content=question.head.strip())
    answers = [(asked, Message(role="assistant", content=text)) for text in question.texts]
    return (answers.pop(right), *answers)


def dialogue(text: str) -> Conversation:
    """A dialogue that ends in a response. Raises ConfigError for any other."""
    messages = one_dialogue(text, "text_correct, text_incorrect")
    if messages[-1].role != "assistant":
        raise ConfigError("text_correct, text_incorrect: expected dialogues that end in a response")
    return messages


def letters(n: int) -> tuple[str, ...]:
    """The options of `n` texts that can be exchanged."""
    return tuple(f" ({letter})" for letter in ascii_uppercase[:n])


def take_apart(prompt: str, options: Sequence[str], form: Form) -> Question | None:
    """The parts of a prompt; none unless they are certain: then `put_together` gives it back."""
    if tuple(options) != letters(len(options)) or not prompt.endswith(form.ending):
        return None
    head, texts = prompt.removesuffix(form.ending), list[str]()
    for letter in reversed(options):
        mark = f"\n{letter} {form.opening}"
        head, found, text = head.rpartition(mark)
        # A mark inside a quoted text, or a text of several lines, leaves the cut in doubt.
        doubtful = prompt.count(mark) > 1 if form.opening else "\n" in text
        if doubtful or not found or not text.endswith(form.closing):
            return None
        texts.insert(0, text.removesuffix(form.closing))
    return Question(head, tuple(texts))


def put_together(question: Question, form: Form) -> str:
    """The prompt of a question."""
    shown = zip(letters(len(question.texts)), question.texts, strict=True)
    options = (f"\n{letter} {form.opening}{text}{form.closing}" for letter, text in shown)
    return question.head + "".join(options) + form.ending


def as_given(item: Item) -> Asked:
    """The item with its options where the file has them."""
    return Asked(item, item.prompt, item.right)


def shuffled(item: Item, form: Form, seed: int) -> Asked | None:
    """The item with its options' texts exchanged and the letters kept in order.

    The order is drawn from the item and `seed`, the given one included; none without a question.
    """
    if item.question is None:
        return None
    order = list(range(len(item.options)))
    random.Random(derive_seed("options", seed, item.id)).shuffle(order)
    texts = tuple(item.question.texts[index] for index in order)
    prompt = put_together(Question(item.question.head, texts), form)
    return Asked(item, prompt, order.index(item.right), tuple(order))


def draw_items(items: Sequence[Item], n: int | None, seed: int) -> list[Item]:
    """`n` items (none: all) drawn by `seed`, in the order of the file."""
    drawn = sorted(items, key=lambda item: derive_seed("item", seed, item.id, item.row))[:n]
    return sorted(drawn, key=lambda item: item.row)


def to_messages(prompt: str, form: Format) -> Conversation:
    """What a model reads: the prompt as it is (raw), or as a user's turn and an opened answer."""
    if form == "raw":
        return (Message(role="user", content=prompt),)
    question = prompt.removesuffix(ANSWER).strip()
    return (Message(role="user", content=question), Message(role="assistant", content=ANSWER))
