"""An engine without a model: answers are a pure function of the request. For tests and trials."""

import random
import re
from collections import deque
from collections.abc import Callable

from cai.engines.base import Completion, Request
from cai.engines.process import unfit_prompt
from cai.records import derive_seed

Answer = Callable[[Request], Completion]

WORDS = tuple(
    word
    for line in (
        "please consider that a careful answer names the risk and offers a kinder way forward",
        "because people deserve honest help respect and clear reasons even when asking is hard",
    )
    for word in line.split()
)


def answer(request: Request) -> Completion:
    """A deterministic answer: words and log-probabilities drawn from the request's own seed."""
    text = "\n".join(message.content for message in request.messages)
    draw = random.Random(derive_seed("fake", request.seed, text))
    n_prompt = sum(len(message.content.split()) for message in request.messages)
    if request.choices:
        scores = tuple(-draw.uniform(0.3, 3.0) for _ in request.choices)
        return Completion(request.id, "", "stop", n_prompt, 0, 0, scores)
    longest = request.sampling.max_tokens
    n = min(longest, draw.randint(4, 40))
    words = " ".join(draw.choice(WORDS) for _ in range(n))
    return Completion(request.id, words, "length" if n == longest else "stop", n_prompt, n)


class FakeEngine:
    """Answers with a function, in submission order, `capacity` requests a poll."""

    def __init__(
        self,
        model: str = "fake",
        function: Answer = answer,
        capacity: int = 64,
        context: int = 4096,
    ) -> None:
        self.model = model
        self.capacity = capacity
        self.context = context
        self._function = function
        self._waiting: deque[Request] = deque()
        self.n_asked = 0
        """Requests answered so far: what a resumed run must not ask again."""

    def submit(self, request: Request) -> None:
        self._waiting.append(request)

    def poll(self) -> list[Completion]:
        n = min(self.capacity, len(self._waiting))
        self.n_asked += n
        return [self._answer(self._waiting.popleft()) for _ in range(n)]

    def _answer(self, request: Request) -> Completion:
        completion = self._function(request)
        n = completion.n_prompt_tokens
        # a chat template adds some tokens
        if error := unfit_prompt(request.id, n if request.raw else max(n, 1), self.context):
            return error
        if request.on_text:
            for word in re.finditer(r"\S+", completion.text):
                request.on_text(completion.text[: word.end()])
        return completion

    def close(self) -> None:
        self._waiting.clear()
