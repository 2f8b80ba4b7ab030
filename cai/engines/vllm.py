"""vLLM, in process: `LLMEngine.add_request` and `step`, so that requests join a running batch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.exceptions import VLLMValidationError
from vllm.platforms import current_platform

from cai.complaints import dotted
from cai.engines.base import Completion, Request
from cai.engines.choices import Prefix, add_up, questions
from cai.engines.encode import ChatEncoder
from cai.engines.process import EngineSettings, context_limit, unfit_prompt
from cai.errors import ConfigError
from cai.forbidden import ENGINE, find_forbidden
from cai.records import Finish

CPU_BLOCK = 32
"""Tokens of a KV block on a CPU: the smallest that its attention kernel takes. Small blocks raise
the prefix-cache hit rate, since only whole blocks are shared."""


class Scoring(NamedTuple):
    """A request with choices, while its questions are being answered."""

    request: Request
    n_prompt: int
    continuations: list[list[int]]
    answers: dict[Prefix, dict[int, float]]
    n_questions: int


class VllmEngine:
    """Loads once; each request has its own seed and sampling."""

    def __init__(self, settings: EngineSettings) -> None:
        path = Path(settings.model)
        self.model = settings.model
        self.context = context_limit(path, settings.max_context)
        self.capacity = settings.capacity
        self.on_step: Callable[[], None] = lambda: None
        """Called after each step that brought a request forward."""
        self._engine = LLMEngine.from_engine_args(engine_args(settings, self.context))
        self._encoder = ChatEncoder(self._engine.get_tokenizer())
        self._done: list[Completion] = []
        self._requests: dict[str, Request] = {}
        self._scoring: dict[str, Scoring] = {}
        self._asked: dict[str, tuple[str, Prefix]] = {}

    def submit(self, request: Request) -> None:
        (self._submit_choices if request.choices else self._submit_text)(request)

    def _submit_text(self, request: Request) -> None:
        ids = self._encoder.encode(request.messages, request.raw)
        if error := unfit_prompt(request.id, len(ids), self.context):
            self._done.append(error)
            return
        sampling = request.sampling
        params = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=min(sampling.max_tokens, self.context - len(ids)),
            stop=list(self._encoder.stops(request)),
            seed=request.seed,
        )
        self._add(request.id, ids, params)
        self._requests[request.id] = request

    def _add(self, request_id: str, ids: Sequence[int], params: SamplingParams) -> None:
        try:
            self._engine.add_request(request_id, {"prompt_token_ids": list(ids)}, params)
        except VLLMValidationError as error:
            raise ValueError(str(error)) from error

    def _submit_choices(self, request: Request) -> None:
        prompt, continuations = self._encoder.encode_choices(
            request.messages, request.choices, request.raw
        )
        longest = max(len(ids) for ids in continuations)
        if error := unfit_prompt(request.id, len(prompt), self.context, longest):
            self._done.append(error)
            return
        asked = questions(continuations)
        names: dict[str, tuple[str, Prefix]] = {}
        try:
            for number, (prefix, tokens) in enumerate(asked.items()):
                ids = sorted(tokens)
                params = SamplingParams(
                    temperature=0.0, max_tokens=1, logprobs=len(ids), logprob_token_ids=ids
                )
                name = f"{request.id}/{number}"
                self._add(name, [*prompt, *prefix], params)
                names[name] = (request.id, prefix)
        except ValueError:
            # a later question is refused: the answers of the earlier ones are nobody's
            self._engine.abort_request(list(names))
            raise
        self._asked |= names
        self._scoring[request.id] = Scoring(request, len(prompt), continuations, {}, len(asked))

    def poll(self) -> list[Completion]:
        """One step of the engine. Empty while everything is still being generated."""
        done, self._done = self._done, []
        if self._engine.has_unfinished_requests():
            outputs = self._engine.step()
            if outputs:
                self.on_step()
            for output in outputs:
                if output.finished:
                    done += self._finished(output)
                else:
                    self._tell(output)
        return done

    def _tell(self, output: Any) -> None:
        """Pass on the text so far; vLLM holds back half a character or what may begin a stop."""
        request = self._requests.get(output.request_id)
        if request and request.on_text:
            request.on_text(output.outputs[0].text)

    def _finished(self, output: Any) -> list[Completion]:
        if output.request_id in self._asked:
            return self._answered(output)
        request = self._requests.pop(output.request_id)
        result = output.outputs[0]
        finish: Finish = "length" if result.finish_reason == "length" else "stop"
        error = None
        if result.finish_reason not in ("stop", "length"):
            finish, error = "error", f"vLLM ended the request: {result.finish_reason}"
        return [
            Completion(
                id=request.id,
                text=result.text,
                finish=finish,
                n_prompt_tokens=len(output.prompt_token_ids),
                n_tokens=len(result.token_ids),
                n_cached_tokens=output.num_cached_tokens or 0,
                error=error,
            )
        ]

    def _answered(self, output: Any) -> list[Completion]:
        request_id, prefix = self._asked.pop(output.request_id)
        scoring = self._scoring[request_id]
        logprobs = output.outputs[0].logprobs[0]
        scoring.answers[prefix] = {token: entry.logprob for token, entry in logprobs.items()}
        if len(scoring.answers) < scoring.n_questions:
            return []
        del self._scoring[request_id]
        return [
            Completion(
                id=request_id,
                text="",
                finish="stop",
                n_prompt_tokens=scoring.n_prompt,
                n_cached_tokens=output.num_cached_tokens or 0,
                choice_logprobs=add_up(scoring.continuations, scoring.answers),
            )
        ]

    def close(self) -> None:
        """Nothing to do: the process's end frees the memory (vllm#21073: `del` does not)."""


def engine_args(settings: EngineSettings, context: int) -> EngineArgs:
    """vLLM's arguments: what fits the hardware, overridden by the user's `engine.options`."""
    if found := find_forbidden(settings.options, ENGINE, code=True):
        # the settings may come from the config of somebody else's run
        raise ConfigError(f"engine.options.{dotted(found)} is not a setting; remove it")
    args: dict[str, Any] = {
        "model": settings.model,
        "max_model_len": context,
        "max_num_seqs": settings.capacity,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "dtype": settings.dtype,
    }
    if current_platform.is_cpu():
        args |= {
            "dtype": "float32" if settings.dtype == "auto" else settings.dtype,
            "enforce_eager": True,
            "block_size": CPU_BLOCK,
            # A seeded request whose prompt is prefilled in chunks kills the engine on a CPU.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(context, 2048),
        }
    elif settings.share < 1:
        args["gpu_memory_utilization"] = 0.9 * settings.share
    try:
        return EngineArgs(**args | settings.options)
    except TypeError as error:
        raise ConfigError(
            f"engine.options: {error}; see vLLM's EngineArgs for the names"
        ) from error
