"""The conversations in a row: whole dialogues, a prompt and its answer, two sides of a preference.

One reader for scores, preferences and ratings. Forms: `prompt` with `response` or `completion`;
`messages`; `chosen` with `rejected`, which are whole dialogues (hh-rlhf's text, or turns) that
begin with the `prompt`, if there is one, or go on from it
(https://huggingface.co/docs/trl/dataset_formats).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast

from cai.errors import ConfigError
from cai.records import Message
from cai.sources import TURN, Row, SourceCount, one_dialogue

Conversation = tuple[Message, ...]
SIDES = ("chosen", "rejected")
ANSWERS = ("response", "completion")
SKIP_BAD = "mend the line, or leave such lines out and have them counted: --skip-bad"
Made = TypeVar("Made")


def read_each(
    rows: Iterable[Row], make: Callable[[Row], Made], count: SourceCount, skip_bad: bool
) -> Iterator[Made]:
    """What `make` makes of each row. A ConfigError of its is raised, or the row counted as bad."""
    for row in rows:
        try:
            made = make(row)
        except ConfigError as error:
            if not skip_bad:
                raise ConfigError(f"{error}; {SKIP_BAD}") from error
            count.n_bad += 1
            continue
        yield made


def conversations(row: Row) -> tuple[Conversation, ...]:
    """A row's one conversation, or its two: chosen, rejected. Each ends with an answer."""
    data, place = row.data, row.place
    given = {name for name, value in data.items() if value is not None}
    if given.issuperset(SIDES):
        return tuple(side(data, name, place) for name in SIDES)
    if "messages" in given:
        return (side({"messages": data["messages"]}, "messages", place),)
    answer = next((name for name in ANSWERS if name in given), None)
    if "prompt" in given and answer:
        return (continued(data["prompt"], data[answer], place),)
    raise ConfigError(
        f"{place}: expected prompt and response, messages, or chosen and rejected (it has: "
        f"{', '.join(sorted(map(str, given)))[:80] or 'nothing'})"
    )


def side(data: Mapping[str, Any], name: str, place: str) -> Conversation:
    """The conversation in a field: a whole dialogue, or what follows the row's prompt."""
    value, prompt = data[name], data.get("prompt")
    place = f"{place}: {name}"
    if prompt is None:
        return answered(one_dialogue(value, place), place)
    if isinstance(value, str) and not TURN.match(value):
        return continued(prompt, value, place)
    before = opening(prompt, f"{place}: prompt")
    turns = one_dialogue(value, place, whole=False)
    if begins_with(turns, before):
        return answered(one_dialogue(value, place), place)
    joined = [message.model_dump() for message in (*before, *turns)]
    whole = answered(one_dialogue(joined, place), place)
    # turns of one role in a row are read as one, and neither part has two
    if len(whole) < len(joined) or "system" in (message.role for message in turns):
        raise ConfigError(
            f"{place}: begins with the {turns[0].role}'s turn and the row's prompt ends with the "
            f"{before[-1].role}'s; expected a dialogue that begins as the prompt does, or the "
            "turns that follow it"
        )
    return whole


def opening(prompt: Any, place: str) -> Conversation:
    """A prompt's turns, none where they say nothing.

    Without hh-rlhf's way to end a prompt: an empty "Assistant:".
    """
    turns = one_dialogue(prompt, place, whole=False)
    if not any(turn.content.strip() for turn in turns):
        return ()
    is_open = turns[-1].role == "assistant" and not turns[-1].content.strip()
    return turns[:-1] if is_open else turns


def begins_with(turns: Conversation, before: Conversation) -> bool:
    """Whether a side is a whole dialogue: it repeats the prompt, under a system turn or not."""
    both = [[(m.role, m.content.strip()) for m in part] for part in (turns, before)]
    if turns and turns[0].role == "system" and before and before[0].role != "system":
        del both[0][0]
    return both[0][: len(both[1])] == both[1]


def continued(prompt: Any, answer: Any, place: str) -> Conversation:
    """A prompt (text or turns) with its answer (text or turns)."""
    one_dialogue(prompt, f"{place}: prompt")  # refuses one in which no human says anything
    before = opening(prompt, f"{place}: prompt")
    if before[-1].role != "user":
        raise ConfigError(f"{place}: the prompt ends with an {before[-1].role}'s turn")
    said: Any = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
    if not isinstance(said, list):
        raise ConfigError(f"{place}: expected text or a list of turns")
    turns = [*(message.model_dump() for message in before), *cast(list[Any], said)]
    return answered(one_dialogue(turns, place), place)


def answered(messages: Conversation, place: str) -> Conversation:
    """The conversation. Raises ConfigError unless it ends with an answer."""
    if messages[-1].role == "assistant":
        return messages
    raise ConfigError(f"{place}: expected an assistant's turn at the end, to be scored")
