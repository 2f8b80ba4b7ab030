"""The data model: frozen records and their ids.

`Prompt → Response → Critique → Revision (rounds 1..n)`; from the SL policy
`Prompt → Response ×k → [Reasoning →] Label (A,B) and (B,A) → Preference`; held-out prompts
`→ Response → Score`.

An id is a digest of what made the record (parent, principle text, template, model, sampling, run
seed), so the same run gives the same ids, resume is a look-up, and editing one principle changes
the ids of exactly the records that drew it and of what follows from them.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Finish = Literal["stop", "length", "error"]
Split = Literal["sft", "preference", "rl", "eval"]
Kind = Literal["red_team", "helpful", "look_alike"]
LabelMode = Literal["logprob", "cot", "text"]
"""How a judgement is read: the options' log-probabilities, the same after written reasoning, or the
written verdict (for servers without log-probabilities)."""
Origin = Literal["sampled", "revision"]
"""What a pair is made of: two samples of the policy, or a revision and the response it revises."""


def digest(*parts: object) -> str:
    """20 hex digits that stand for `parts` (JSON values), the same in every process."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2**31) derived from `parts`."""
    return int(digest("seed", *parts)[:8], 16) >> 1


class Record(BaseModel):
    """Frozen and strict: an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(Record):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Sampling(Record):
    """How a text is drawn. The paper samples at T = 1 always (section 3.2)."""

    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=512, ge=1)
    stop: tuple[str, ...] = ()


class Generation(Record):
    """Where a generated record comes from and how it ended."""

    model: str
    template: str | None
    """Digest of the template and what it was filled with besides model text."""
    sampling: Sampling
    seed: int
    finish: Finish
    error: str | None = None
    n_prompt_tokens: int = 0
    n_tokens: int = 0
    n_cached_tokens: int = 0
    """Prompt tokens that the engine found in its prefix cache."""


class Prompt(Record):
    """A conversation that ends in a user's turn, waiting for a response."""

    type: Literal["prompt"] = "prompt"
    id: str
    messages: tuple[Message, ...]
    kind: Kind
    area: str
    source: str
    """File or dataset and row: enough to find the row again."""
    group: str
    """Prompts of one dialogue share a group, and a split."""
    split: Split


class Response(Record):
    """What a model answers to a prompt."""

    type: Literal["response"] = "response"
    id: str
    prompt_id: str
    sample: int
    """Index among the responses of one model to one prompt."""
    text: str
    generation: Generation


class Critique(Record):
    """What is wrong with a response, under one principle."""

    type: Literal["critique"] = "critique"
    id: str
    prompt_id: str
    parent_id: str
    """The response or revision that is criticised."""
    round: int
    principle_id: str
    text: str
    generation: Generation


class Revision(Record):
    """The response, rewritten after a critique."""

    type: Literal["revision"] = "revision"
    id: str
    prompt_id: str
    parent_id: str
    """The critique that it answers."""
    round: int
    principle_id: str
    text: str
    generation: Generation


class Reasoning(Record):
    """What the judge thinks aloud about a pair in one order, before it judges (mode cot)."""

    type: Literal["reasoning"] = "reasoning"
    id: str
    prompt_id: str
    first_id: str
    """The response shown as option A."""
    second_id: str
    principle_id: str
    sample: int
    """Index among the reasonings on the same question."""
    text: str
    generation: Generation


class Label(Record):
    """One judgement of one pair in one order."""

    type: Literal["label"] = "label"
    id: str
    prompt_id: str
    first_id: str
    """The response (or revision) shown as option A."""
    second_id: str
    principle_id: str
    mode: LabelMode = "logprob"
    reasoning_id: str | None = None
    """The reasoning that the judgement follows (mode cot)."""
    text: str | None = None
    """The written verdict (mode text)."""
    p_first: float | None
    """P(first is better), normalised over the two options; 0 or 1 for a written verdict; none where
    unscored."""
    logprobs: tuple[float, float] | None
    """Log-probability (nats) of each option's token sequence, as shown."""
    p_outside: float | None
    """Probability mass on neither option."""
    unscored: str | None
    """Why there is no judgement."""
    generation: Generation


class Preference(Record):
    """A pair with the mean of its labels in both orders (paper section 4.1: soft targets)."""

    type: Literal["preference"] = "preference"
    id: str
    prompt_id: str
    principle_ids: tuple[str, ...]
    """The principles it was judged under; empty where a revision is assumed to be better."""
    chosen_id: str
    rejected_id: str
    p_chosen: float
    """P(chosen is better), averaged over both orders, then clamped where the config says; ≥ 0.5."""
    p_orders: tuple[float, float] | None
    """P(chosen is better) where it was shown first, and where second, before clamping."""
    orders_agree: bool | None
    label_ids: tuple[str, ...]
    origin: Origin = "sampled"


AnyRecord = Annotated[
    Prompt | Response | Critique | Revision | Reasoning | Label | Preference,
    Field(discriminator="type"),
]
record_adapter: TypeAdapter[AnyRecord] = TypeAdapter(AnyRecord)
AnyOne = TypeVar("AnyOne", bound=Record)


def conversation(messages: Sequence[Message], *replies: str) -> tuple[Message, ...]:
    """`messages` continued by `replies`, which alternate assistant, user, assistant…"""
    roles: tuple[Literal["assistant", "user"], ...] = ("assistant", "user")
    extra = (Message(role=roles[i % 2], content=text) for i, text in enumerate(replies))
    return (*messages, *extra)


def renamed(record: AnyOne, principle_id: str | None) -> AnyOne:
    """A record under the name that its principle has now; none: it stays as it is.

    The id of a judgement stands for the text that was judged by, whatever that is called.
    """
    is_judgement = isinstance(record, Label | Reasoning)
    if principle_id is None or not is_judgement or record.principle_id == principle_id:
        return record
    return record.model_copy(update={"principle_id": principle_id})
