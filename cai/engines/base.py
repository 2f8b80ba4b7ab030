"""What every engine does: take requests, give each a completion, in any order."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cai.records import Finish, Message, Sampling


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a model. A last message of the assistant's is continued, not answered."""

    id: str
    messages: tuple[Message, ...]
    sampling: Sampling
    seed: int
    choices: tuple[str, ...] = ()
    """Continuations to be scored instead of generating: see `Completion.choice_logprobs`."""
    role: str = "base"
    """The model role that answers: the driver picks the engine by it."""
    raw: bool = False
    """The contents of the messages, joined as they are, are the prompt: no chat template, no stop
    text but the sampling's. For pre-trained models."""
    on_text: Callable[[str], None] | None = None
    """Called by `poll` with the text so far, as it grows. The completion's text begins with it."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to the request of the same id."""

    id: str
    text: str
    finish: Finish
    n_prompt_tokens: int = 0
    n_tokens: int = 0
    n_cached_tokens: int = 0
    choice_logprobs: tuple[float, ...] = ()
    """Log-probability (nats, natural distribution: no temperature) of each choice's whole token
    sequence after the prompt, in the order of `Request.choices`."""
    error: str | None = None
    """Why there is no text: `finish` is then "error"."""


class Engine(Protocol):
    """One loaded model. Not thread-safe; `close` frees everything and may be called twice."""

    model: str
    capacity: int
    """How many requests are worth having in flight."""

    def submit(self, request: Request) -> None:
        """Queue a request; never blocks on the model."""
        ...

    def poll(self) -> list[Completion]:
        """Work, or wait a moment: what has been completed since, possibly nothing yet."""
        ...

    def close(self) -> None: ...
