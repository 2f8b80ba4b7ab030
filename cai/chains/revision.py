"""Responding, and revising under a drawn principle (Bai et al. 2022, section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cai.constitution import Principle, draw
from cai.driver import Chain, Step, generation
from cai.engines.base import Completion, Request
from cai.prompts import Templates
from cai.records import (
    Critique,
    Message,
    Prompt,
    Response,
    Revision,
    Sampling,
    conversation,
    derive_seed,
    digest,
)


class Voice(NamedTuple):
    """Who speaks: a model in a role, and how its texts are drawn."""

    role: str
    model: str
    """`name@commit`."""
    sampling: Sampling
    engine: str = ""
    """Stands for the engine's settings that change what it says."""

    @property
    def key(self) -> list[object]:
        """What of the speaker belongs into a record's id."""
        return [self.model, self.engine, self.sampling.model_dump()]


@dataclass(frozen=True)
class RevisionSetup:
    """What all revision chains of a run share."""

    opening: tuple[Message, ...]
    """System turn and exemplars: the prefix of every conversation."""
    principles: Sequence[Principle]
    templates: Templates
    rounds: int
    seed: int
    responder: Voice
    critic: Voice
    reviser: Voice
    delimiters: bool = False
    """Whether the critique request quotes the response between markers that it cannot forge."""


def response_chain(
    prompt: Prompt, sample: int, opening: tuple[Message, ...], voice: Voice, seed: int
) -> Chain:
    """Respond once."""
    yield respond(prompt, sample, opening, voice, seed)


def revision_chain(prompt: Prompt, setup: RevisionSetup) -> Chain:
    """Respond, then `rounds` times criticise and revise under a newly drawn principle.

    Each request continues the conversation of the one before, so that the engine's prefix cache
    holds all but its last turn. A failed generation ends the chain: its record says why.
    """
    response: Response = yield respond(prompt, 0, setup.opening, setup.responder, setup.seed)
    messages = conversation((*setup.opening, *prompt.messages), response.text)
    parent: Response | Revision = response
    for number in range(1, setup.rounds + 1):
        if parent.generation.finish == "error":
            return
        principle = draw(setup.principles, setup.seed, prompt.id, number)
        turn = Turn(prompt.id, number, principle, setup)
        request_critique = setup.templates.critique(
            principle, parent.text if setup.delimiters else None
        )
        messages = (*messages, Message(role="user", content=request_critique))
        critique: Critique = yield ask_critique(turn, messages, parent)
        if critique.generation.finish == "error":
            return
        messages = conversation(messages, critique.text, setup.templates.revise(principle))
        parent = yield ask_revision(turn, messages, critique)
        messages = conversation(messages, parent.text)


class Turn(NamedTuple):
    """One round of one chain."""

    prompt_id: str
    number: int
    principle: Principle
    setup: RevisionSetup


def respond(
    prompt: Prompt, sample: int, opening: tuple[Message, ...], voice: Voice, seed: int
) -> Step:
    """Ask for a response to a prompt."""
    before = digest("opening", [message.model_dump() for message in opening])
    key = ("response", prompt.id, sample, before, voice.key, seed)
    request = make_request(digest(*key), (*opening, *prompt.messages), voice)

    def read(completion: Completion) -> Response:
        return Response(
            id=request.id,
            prompt_id=prompt.id,
            sample=sample,
            text=completion.text.strip(),
            generation=generation(request, completion, voice.model, None),
        )

    return Step(request, read)


def ask_critique(turn: Turn, messages: tuple[Message, ...], parent: Response | Revision) -> Step:
    """Ask what is wrong with the last response under the turn's principle."""
    voice, template = turn.setup.critic, turn.setup.templates.digests["critique"]
    said = (turn.principle.id, turn.principle.critique, template, turn.setup.delimiters)
    key = ("critique", parent.id, turn.number, said, voice.key)
    request = make_request(digest(*key), messages, voice)

    def read(completion: Completion) -> Critique:
        return Critique(
            id=request.id,
            prompt_id=turn.prompt_id,
            parent_id=parent.id,
            round=turn.number,
            principle_id=turn.principle.id,
            text=completion.text.strip(),
            generation=generation(request, completion, voice.model, template),
        )

    return Step(request, read)


def ask_revision(turn: Turn, messages: tuple[Message, ...], critique: Critique) -> Step:
    """Ask for the response, rewritten after the critique."""
    voice, template = turn.setup.reviser, turn.setup.templates.digests["revise"]
    said = (turn.principle.revision, template)
    key = ("revision", critique.id, said, voice.key)
    request = make_request(digest(*key), messages, voice)

    def read(completion: Completion) -> Revision:
        return Revision(
            id=request.id,
            prompt_id=turn.prompt_id,
            parent_id=critique.id,
            round=turn.number,
            principle_id=turn.principle.id,
            text=completion.text.strip(),
            generation=generation(request, completion, voice.model, template),
        )

    return Step(request, read)


def make_request(request_id: str, messages: tuple[Message, ...], voice: Voice) -> Request:
    """A request whose seed is derived from its id."""
    return Request(request_id, messages, voice.sampling, derive_seed(request_id), (), voice.role)
