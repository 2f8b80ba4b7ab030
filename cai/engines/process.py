"""An engine in a child process: its end frees everything, its crash is an error, not a hang."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from cai.engines.base import Completion, Request
from cai.environment import child_environment, n_gpus
from cai.errors import ConfigError, EngineError, MissingDependency
from cai.models import model_context
from cai.records import Record

POLL_S = 0.2
LAST_LINES = 12


class EngineSettings(Record):
    """What the child loads."""

    kind: str
    model: str
    """A local folder."""
    max_context: int
    capacity: int
    dtype: str = "auto"
    options: dict[str, Any] = {}
    stall_s: float = 600
    share: float = 1.0
    """Part of a GPU's memory it may take: below 1 where a stage holds several engines."""


class Partial(NamedTuple):
    """The text so far of a request that its asker listens to."""

    id: str
    text: str


def context_limit(path: Path, max_context: int) -> int:
    """Tokens that a model can hold: the lesser of its own limit and `max_context`."""
    return min(max_context, model_context(path) or max_context)


def prompt_too_long(request_id: str, n_tokens: int, context: int) -> Completion | None:
    """An error completion if the prompt leaves no room for a token, else none."""
    if n_tokens < context:
        return None
    error = f"the prompt has {n_tokens} tokens; with one generated the context holds {context}"
    return Completion(request_id, "", "error", n_tokens, error=error)


def last_lines(log: Path, n: int = LAST_LINES) -> str:
    """The end of a child's log, as far as it says something."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return "\n".join(f"    {line[:200]}" for line in lines[-n:])


class EngineProcess:
    """Runs `python -m cai.engines.worker` and passes requests and completions through a socket."""

    def __init__(self, settings: EngineSettings, log: Path) -> None:
        if settings.kind == "vllm" and importlib.util.find_spec("vllm") is None:
            raise MissingDependency(
                "vLLM is not installed: pip install 'cai-toolkit[vllm]' (on a CPU: "
                "pip install --no-deps -r requirements/cpu.txt), or --set engine.kind=transformers"
            )
        if importlib.util.find_spec("torch") is None:
            raise MissingDependency("torch is not installed: pip install 'cai-toolkit[train]'")
        self.model = settings.model
        self.capacity = settings.capacity
        self._log, self._stall_s = log, settings.stall_s
        self._in_flight = 0
        self._listeners: dict[str, Callable[[str], None]] = {}
        ours, theirs = socket.socketpair()
        with theirs, log.open("ab") as output:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "cai.engines.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=child_environment(**vllm_environment()),
                # A terminal's Ctrl-C reaches the parent alone, which ends the child in good order.
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        self._connection.send(settings)
        self._last_news = time.monotonic()
        try:
            self._await_start()
        except BaseException:
            # Nobody else holds this engine yet: an interrupt here must not leave its child behind.
            self.close()
            raise

    def _await_start(self) -> None:
        while not self._connection.poll(POLL_S):
            self._check_stall("did not start")
        self._receive()
        self._last_news = time.monotonic()

    def _receive(self) -> list[Completion]:
        """What the child has completed. A text instead is what its user has to mend.

        A partial text goes to its listener at once.
        """
        try:
            news: list[Completion] | Partial | str = self._connection.recv()
        except (EOFError, OSError) as error:
            self._child.wait()
            raise self._dead() from error
        if isinstance(news, str):
            self.close()
            raise ConfigError(f"{self.model}: {news} (log: {self._log})")
        if isinstance(news, Partial):
            self._listeners[news.id](news.text)
            return []
        for completion in news:
            self._listeners.pop(completion.id, None)
        return news

    def _dead(self) -> EngineError:
        code = self._child.returncode
        how = (
            f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        )
        hint = (
            "; if memory ran out lower engine.capacity or engine.max_context" if code == -9 else ""
        )
        return EngineError(
            f"the engine of {self.model} {how}{hint}; what is on disk is kept and the same command "
            f"continues (log: {self._log})\n{last_lines(self._log)}"
        )

    def _check_stall(self, what: str) -> None:
        if time.monotonic() - self._last_news > self._stall_s:
            self.close()
            raise EngineError(
                f"the engine of {self.model} {what} within {self._stall_s:.0f} s; if that is too "
                f"short raise engine.stall_s (log: {self._log})\n{last_lines(self._log)}"
            )

    def submit(self, request: Request) -> None:
        if request.on_text:
            self._listeners[request.id] = request.on_text
        try:
            self._connection.send((replace(request, on_text=None), request.on_text is not None))
        except OSError as error:
            while self._connection.poll(0):
                self._receive()  # Its last words may say what to mend.
            self._child.wait()
            raise self._dead() from error
        if not self._in_flight:
            self._last_news = time.monotonic()
        self._in_flight += 1

    def poll(self) -> list[Completion]:
        if not self._connection.poll(POLL_S):
            if self._in_flight:
                self._check_stall("completed nothing")
            return []
        completions = self._receive()
        while self._connection.poll(0):
            completions += self._receive()
        self._in_flight -= len(completions)
        self._last_news = time.monotonic()
        return completions

    def close(self) -> None:
        self._connection.close()
        try:
            self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            # The whole group: an engine spread over GPUs has workers of its own.
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()


def vllm_environment() -> dict[str, str]:
    """Settings that vLLM reads from the environment; the user's own win."""
    cores = sorted(os.sched_getaffinity(0))
    wanted = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "4",
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "OMP_NUM_THREADS": str(len(cores)),
        "VLLM_LOGGING_LEVEL": "WARNING",
        # The log-probability kernel is compiled at its first use: half a minute, and a compiler.
        "TORCHDYNAMO_DISABLE": "0" if n_gpus() else "1",
    }
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def open_engine_in_process(settings: EngineSettings) -> Any:
    """Load an engine here: the child's side. Raises ConfigError for a wrong setting."""
    if settings.kind == "vllm":
        from cai.engines.vllm import VllmEngine

        return VllmEngine(settings)
    if settings.kind == "transformers":
        from cai.engines.transformers import TransformersEngine

        return TransformersEngine(settings)
    raise ConfigError(f"engine.kind {settings.kind}: expected vllm, transformers or fake")
