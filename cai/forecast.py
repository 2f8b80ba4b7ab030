"""What a run keeps and what it asks for anew, found out without asking. Pure.

A record's id stands for what makes it, not for what it says. So a chain can be played to its end
with stand-ins for the texts that are not there yet, and the ids that are on disk are what is kept.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

from cai.driver import Chain, Step
from cai.engines.base import Completion, Request
from cai.records import Message, renamed
from cai.run import StoredRecord

CHARS_PER_TOKEN = 4.0
"""English text, where no records tell."""
TURN_TOKENS = 5
"""What a chat template puts around a turn."""
READ_COST = 1 / 8
"""Time for a token that is read, over that for one that is generated in a full batch: about what
the embedded model takes on two cores (740 and 120 tokens/s)."""
RECORD_BYTES = 500
"""A record on disk without its text."""

Find = Callable[[str], StoredRecord | None]
"""The record of an id, if it is on disk."""


class Tokens(NamedTuple):
    """Tokens of some calls."""

    prompt: int = 0
    cached: int = 0
    """Of the prompt's, those found in the prefix cache."""
    generated: int = 0

    @property
    def work(self) -> float:
        """What they cost, in generated tokens."""
        return self.generated + READ_COST * (self.prompt - self.cached)


class Lengths(NamedTuple):
    """How long generated texts are."""

    means: Mapping[tuple[str, str], float] = {}
    """Mean tokens by stage and type of record. What is not in here takes its limit."""
    chars_per_token: float = CHARS_PER_TOKEN

    def expected(self, stage: str, kind: str, request: Request) -> int:
        """Tokens that a request's text will have."""
        limit = request.sampling.max_tokens
        return 0 if request.choices else round(min(self.means.get((stage, kind), limit), limit))

    def at_limit(self, stage: str, kind: str, request: Request) -> bool:
        """Whether the expected length is the most that there can be, for want of a mean."""
        return not request.choices and (stage, kind) not in self.means


class Call(NamedTuple):
    """One step of a chain: a record that is kept, or a stand-in for what will be asked."""

    record: StoredRecord
    kept: bool
    tokens: Tokens
    """What asking will cost."""
    at_limit: bool = False
    """Its text is taken at its limit."""


class Play:
    """Plays the chains of a stage one after the other."""

    def __init__(self, stage: str, find: Find, lengths: Lengths) -> None:
        self._stage, self._find, self._lengths = stage, find, lengths
        self._shown: Sequence[Message] = ()
        """What the call before has left in the prefix cache."""

    def all(self, chains: Iterable[Chain]) -> list[Call]:
        """Every step of every chain."""
        return [call for chain in chains for call in self.one(chain)]

    def one(self, chain: Chain) -> Iterator[Call]:
        """The steps of a chain, which no failure breaks off."""
        record: StoredRecord | None = None
        while True:
            try:
                step = chain.send(record)
            except StopIteration:
                return
            record = self._find(step.request.id)
            record = renamed(record, step.principle_id) if record else None
            call = Call(record, True, Tokens()) if record else self._stand_in(step)
            record = call.record
            yield call

    def _stand_in(self, step: Step) -> Call:
        request = step.request
        kind = sketch(step).type
        n = self._lengths.expected(self._stage, kind, request)
        # The id makes the text unlike any other: equal responses would not be compared.
        text = request.id.ljust(round(n * self._lengths.chars_per_token), "?")
        tokens = Tokens(
            self._count(request.messages),
            self._count(shared(self._shown, request.messages)),
            n,
        )
        self._shown = request.messages
        record = step.read(Completion(request.id, text, "stop", n_tokens=n))
        at_limit = self._lengths.at_limit(self._stage, kind, request)
        return Call(record, False, tokens, at_limit)

    def _count(self, messages: Sequence[Message]) -> int:
        n_chars = sum(len(message.content) for message in messages)
        return round(n_chars / self._lengths.chars_per_token) + TURN_TOKENS * len(messages)


def sketch(step: Step) -> StoredRecord:
    """The record that a step will make, without its text."""
    return step.read(Completion(step.request.id, "", "stop"))


def shared(one: Sequence[Message], other: Sequence[Message]) -> list[Message]:
    """How two conversations begin alike; the last message is cut where they part."""
    same: list[Message] = []
    for a, b in zip(one, other, strict=False):
        if a != b:
            alike = takewhile(
                lambda pair: pair[0] == pair[1], zip(a.content, b.content, strict=False)
            )
            begins = "".join(char for char, _ in alike) if a.role == b.role else ""
            return [*same, Message(role=a.role, content=begins)] if begins else same
        same.append(a)
    return same


class StageForecast(NamedTuple):
    """What a stage will do."""

    name: str
    n_kept: int = 0
    """Records that are on disk, here or in the base run."""
    n_new: int = 0
    """Calls of a model."""
    tokens: Tokens = Tokens()
    at_limit: bool = False
    """Some of its texts are taken at their limit: `tokens` are the most there can be."""
    n_bytes: int = 0
    """Size of its records."""
    n_loads: int = 0
    """Models that are loaded to generate."""
    n_rows: int | None = None
    """Rows that a model is trained on."""
    done: bool = False
    notes: tuple[str, ...] = ()
    """Why, and what is assumed."""
    seconds: float | None = None
    """None: unknown."""


def count(name: str, calls: Sequence[Call], *notes: str) -> StageForecast:
    """The forecast of a stage that makes these calls."""
    new = [call for call in calls if not call.kept]
    spent = [call.tokens for call in new]
    return StageForecast(
        name,
        n_kept=len(calls) - len(new),
        n_new=len(new),
        tokens=Tokens(*map(sum, zip(*spent, strict=True))) if spent else Tokens(),
        at_limit=any(call.at_limit for call in new),
        n_bytes=sum(RECORD_BYTES + len(call.record.text or "") for call in calls),
        n_loads=len({call.record.generation.model for call in new}),
        notes=tuple(note for note in notes if note),
    )


class Forecast(NamedTuple):
    """What a run will do and take."""

    stages: tuple[StageForecast, ...]
    base: str | None
    """The earlier run whose records are kept."""
    n_lengths: int
    """Records that the expected lengths are the means of; 0: every text is taken at its limit."""
    pace: str | None
    """Where the times come from."""
    lacks: str = ""
    """Why the time of some stages is unknown."""

    @property
    def n_kept(self) -> int:
        return sum(stage.n_kept for stage in self.stages)

    @property
    def n_new(self) -> int:
        return sum(stage.n_new for stage in self.stages)

    @property
    def tokens(self) -> Tokens:
        return Tokens(*map(sum, zip(*(stage.tokens for stage in self.stages), strict=True)))

    @property
    def seconds(self) -> float:
        """Of the stages whose time is known."""
        return sum(stage.seconds or 0.0 for stage in self.stages)

    @property
    def untimed(self) -> list[str]:
        """The stages whose time is unknown."""
        return [stage.name for stage in self.stages if stage.seconds is None]
