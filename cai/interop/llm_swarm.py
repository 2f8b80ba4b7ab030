"""llm-swarm's constitutions: principles without ids, and worked chats put before every request.

Format: https://github.com/huggingface/llm-swarm, `examples/constitutional-ai`.
"""

from collections.abc import Sequence
from typing import Any, cast

from cai.constitution import Principle
from cai.errors import ConfigError
from cai.exemplars import RevisionExemplar, opening_turns
from cai.interop.entries import (
    UNNAMED,
    Format,
    Kind,
    Sheet,
    fields_of,
    shown,
    text_of,
    worked_round,
)
from cai.records import conversation


def read_principle(value: Any, place: str) -> Principle:
    """`{"critic": text, "revision": text}`."""
    fields = fields_of(value, place, ("critic", "revision"))
    critique = text_of(fields["critic"], f"{place}.critic")
    return Principle(
        id=UNNAMED,
        critique=critique,
        revision=text_of(fields["revision"], f"{place}.revision"),
    )


def write_principle(principle: Principle) -> dict[str, Any]:
    return {"critic": principle.critique, "revision": principle.revision}


def read_chat(value: Any, place: str) -> RevisionExemplar:
    """User and assistant in turns; the last five messages are response, critique request, critique,
    revision request and revision."""
    if not isinstance(value, list):
        raise ConfigError(f"{place}: expected a list of messages, found {shown(value)}")
    messages = [
        fields_of(message, f"{place}.{number}", ("role", "content"))
        for number, message in enumerate(cast(Sequence[Any], value))
    ]
    roles = [message["role"] for message in messages]
    if len(roles) < 6 or roles != ["user", "assistant"] * (len(roles) // 2):
        wanted = "six messages or more of user and assistant in turns"
        raise ConfigError(f"{place}: expected {wanted}; found {', '.join(map(shown, roles))[:200]}")
    texts = [text_of(m["content"], f"{place}.{i}.content") for i, m in enumerate(messages)]
    return worked_round(texts)


def write_chat(shot: RevisionExemplar) -> list[dict[str, str]]:
    said = conversation(
        opening_turns(shot.prompt),
        shot.response,
        shot.critique_request,
        shot.critique,
        shot.revision_request,
        shot.revision,
    )
    return [{"role": message.role, "content": message.content} for message in said]


def is_constitution(data: Any) -> bool:
    return isinstance(data, dict) and "constitutions" in data


PRINCIPLES = Sheet(
    "principles",
    read_principle,
    write_principle,
    prefix="principle-",
    texts=("critique", "revision"),
    under="constitutions",
)
CHATS = Sheet("revision", read_chat, write_chat, under="system_chat")
LLM_SWARM = Format(
    kinds=(Kind("constitution.json", is_constitution, (PRINCIPLES, CHATS)),),
    source="https://github.com/huggingface/llm-swarm",
    license="MIT",
)
