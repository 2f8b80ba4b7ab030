"""Answering a suite's items by the log-probabilities of their options."""

import json
import math
from dataclasses import replace

from cai.driver import Chain, Step, generation
from cai.engines.base import Completion, Request
from cai.records import Response, Sampling, derive_seed, digest
from cai.suites import Asked, Format, to_messages

SAMPLING = Sampling(temperature=0.0, max_tokens=1)
"""A request needs one; nothing is drawn."""
OTHER = " It"
"""Scored beside the options and not counted. It begins like none of them, so that what all share
is the prompt alone, and an option's log-probability is that of its whole text."""


def make_request(asked: Asked, form: Format, model: str, engine: str) -> Request:
    """The question for the log-probabilities of the options, and of `OTHER`.

    `model` and `engine` stand for what answers.
    """
    messages, choices = to_messages(asked.prompt, form), (*asked.item.options, OTHER)
    said = [message.model_dump() for message in messages]
    request_id = digest("choices", said, form, choices, model, engine)
    seed = derive_seed(request_id)
    return Request(request_id, messages, SAMPLING, seed, choices, raw=form == "raw")


def answer_chain(request: Request, model: str) -> Chain:
    """One request. Its record's text is the log-probabilities as a JSON list."""

    def read(completion: Completion) -> Response:
        completion = checked(completion, len(request.choices))
        return Response(
            id=request.id,
            prompt_id=request.id,
            sample=0,
            text=json.dumps(completion.choice_logprobs),
            generation=generation(request, completion, model, None),
        )

    yield Step(request, read)


def checked(completion: Completion, n: int) -> Completion:
    """The completion, or an error in its place unless it has `n` finite numbers."""
    values = completion.choice_logprobs
    if completion.finish == "error" or (len(values) == n and all(map(math.isfinite, values))):
        return completion
    error = f"expected {n} finite log-probabilities, got {list(values)}"
    return replace(completion, choice_logprobs=(), finish="error", error=error)


def read_answer(response: Response) -> tuple[list[float] | None, str | None]:
    """The options' log-probabilities without that of `OTHER`, or why there are none."""
    made = response.generation
    if made.finish == "error":
        return None, made.error or "the engine gave no answer"
    return json.loads(response.text)[:-1], None
