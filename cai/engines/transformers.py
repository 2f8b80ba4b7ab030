"""The reference engine: batched `generate` of transformers, on whatever device there is."""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessor,
    StoppingCriteria,
)

from cai.engines.base import Completion, Request
from cai.engines.choices import add_up, questions
from cai.engines.encode import ChatEncoder
from cai.engines.process import EngineSettings, context_limit, unfit_prompt
from cai.records import Finish

Row = tuple[Request, list[int]]
Choices = tuple[Request, list[int], list[list[int]]]
"""A request, its prompt and its continuations."""


class SeededSampling(LogitsProcessor):
    """Draws each row from its own seed, inside a greedy `generate`.

    `argmax(log p + Gumbel noise)` is a draw from p (the Gumbel-max trick), so one batch can hold
    rows of different temperature, top-p and seed, which `do_sample` cannot.
    """

    def __init__(self, rows: list[Row]) -> None:
        self._samplings = [request.sampling for request, _ in rows]
        self._generators = [torch.Generator().manual_seed(request.seed) for request, _ in rows]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """`scores`: logits (B, V)."""
        for row, (sampling, generator) in enumerate(
            zip(self._samplings, self._generators, strict=True)
        ):
            if sampling.temperature == 0:
                continue
            logprobs = (scores[row].float() / sampling.temperature).log_softmax(-1)
            if sampling.top_p < 1:
                logprobs = nucleus(logprobs, sampling.top_p)
            uniform = torch.rand(len(logprobs), generator=generator).to(logprobs.device)
            scores[row] = logprobs - (-uniform.clamp_min(1e-20).log()).log()
        return scores


class AfterToken(StoppingCriteria):
    """Calls `on_token` with the ids generated so far, (B, L), after each token. Stops nothing."""

    def __init__(self, width: int, on_token: Callable[[Any], None]) -> None:
        self._width, self._on_token = width, on_token

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """`input_ids`: the prompts, `width` wide, and what has been generated."""
        self._on_token(input_ids[:, self._width :])
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def settled(text: str, stops: Sequence[str]) -> str:
    """What no further token changes: without half a character or what may begin a stop text."""
    held = max((len(stop) - 1 for stop in stops), default=0)
    return text.rstrip("\ufffd")[: max(0, len(text) - held)]


def nucleus(logprobs: torch.Tensor, top_p: float) -> torch.Tensor:
    """Log-probabilities (V,) with all but the smallest set of mass `top_p` at -inf."""
    ordered, order = logprobs.sort(descending=True)
    before = ordered.exp().cumsum(-1) - ordered.exp()
    return logprobs.index_fill(0, order[before >= top_p], float("-inf"))


class TransformersEngine:
    """Answers a batch at a time."""

    def __init__(self, settings: EngineSettings) -> None:
        path = Path(settings.model)
        self.model = settings.model
        self.capacity = settings.capacity
        self.context = context_limit(path, settings.max_context)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        auto = "bfloat16" if self._device == "cuda" else "float32"
        dtype = getattr(torch, auto if settings.dtype == "auto" else settings.dtype)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        self._encoder = ChatEncoder(self._tokenizer)
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, trust_remote_code=False, use_safetensors=True
        )
        self._model.to(self._device).eval()
        self._rows: deque[Row] = deque()
        self._choices: deque[Choices] = deque()
        self._done: list[Completion] = []
        self.on_step: Callable[[], None] = lambda: None
        """Called after each forward pass."""
        ends = self._model.generation_config.eos_token_id
        self._ends: set[int] = set(ends if isinstance(ends, list) else [ends])

    def submit(self, request: Request) -> None:
        messages, raw = request.messages, request.raw
        if request.choices:
            prompt, continuations = self._encoder.encode_choices(messages, request.choices, raw)
            longest = max(len(ids) for ids in continuations)
            if self._fits(request, len(prompt), longest):
                self._choices.append((request, prompt, continuations))
        else:
            ids = self._encoder.encode(messages, raw)
            if self._fits(request, len(ids), 1):
                self._rows.append((request, ids))

    def _fits(self, request: Request, n_tokens: int, longest: int) -> bool:
        error = unfit_prompt(request.id, n_tokens, self.context, longest)
        self._done += [error] if error else []
        return error is None

    def poll(self) -> list[Completion]:
        """The next batch's completions."""
        done, self._done = self._done, []
        with torch.inference_mode():
            if self._choices:
                done.append(self._score(self._choices.popleft()))
            elif self._rows:
                n = min(self.capacity, len(self._rows))
                done += self._run([self._rows.popleft() for _ in range(n)])
        return done

    def _score(self, choices: Choices) -> Completion:
        request, prompt, continuations = choices
        answers: dict[tuple[int, ...], dict[int, float]] = {}
        for prefix, tokens in questions(continuations).items():
            ids = torch.tensor([[*prompt, *prefix]], device=self._device)
            logprobs = self._model(ids).logits[0, -1].float().log_softmax(-1)
            answers[prefix] = {token: float(logprobs[token]) for token in tokens}
            self.on_step()
        scores = add_up(continuations, answers)
        return Completion(request.id, "", "stop", len(prompt), choice_logprobs=scores)

    def _run(self, rows: list[Row]) -> list[Completion]:
        """One `generate` over a left-padded batch."""
        width = max(len(ids) for _, ids in rows)
        pad = min(self._ends)
        ids = torch.tensor([[pad] * (width - len(p)) + p for _, p in rows])
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for _, p in rows])
        output = self._model.generate(
            ids.to(self._device),
            attention_mask=mask.to(self._device),
            do_sample=False,
            max_new_tokens=max(self._limit(row) for row in rows),
            pad_token_id=pad,
            logits_processor=[SeededSampling(rows)],
            stopping_criteria=[AfterToken(width, lambda ids: self._tell(rows, ids))],
        )
        return [
            self._completion(row, text)
            for row, text in zip(rows, output[:, width:].tolist(), strict=True)
        ]

    def _tell(self, rows: list[Row], generated: Any) -> None:
        """Tell each row's text so far to whoever listens to it."""
        self.on_step()
        for row, ids in zip(rows, generated, strict=True):
            request = row[0]
            if request.on_text:
                text = self._completion(row, ids.tolist()).text
                request.on_text(settled(text, self._encoder.stops(request)))

    def _limit(self, row: Row) -> int:
        request, prompt = row
        return min(request.sampling.max_tokens, self.context - len(prompt))

    def _completion(self, row: Row, ids: list[int]) -> Completion:
        """Cut a row at its own end token, stop text or limit: the batch runs to the longest."""
        request, prompt = row
        finish: Finish = "length"
        ids = ids[: self._limit(row)]
        for index, token in enumerate(ids):
            if token in self._ends:
                ids, finish = ids[: index + 1], "stop"
                break
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        for stop in self._encoder.stops(request):
            if stop in text:
                text, finish = text[: text.index(stop)], "stop"
        return Completion(request.id, text, finish, len(prompt), len(ids))

    def close(self) -> None:
        self._rows.clear()
        self._choices.clear()
