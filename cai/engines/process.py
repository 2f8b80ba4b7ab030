"""An engine in a child process: its end frees everything, its crash is an error, not a hang."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple

from cai import stopping
from cai.deaths import OUTSIDE, cause_of, how_it_ended, log_lines, n_oom_kills
from cai.engines.base import Completion, Request
from cai.environment import child_environment, n_gpus
from cai.errors import Cause, ConfigError, DiskFull, EngineError, MissingDependency
from cai.models import model_context
from cai.records import Record
from cai.space import is_full

POLL_S = 0.2
HINTS: dict[Cause, str] = {
    "memory": "; if memory ran out lower engine.capacity or engine.max_context",
    "killed": f" {OUTSIDE}; if it was such a watcher lower engine.capacity",
    "hang": "; if that is too short raise engine.stall_s",
    "crash": "",
}
GRACE_S = 5.0
"""Seconds between the polite and the impolite end of a child."""
STARTING = 3
"""A child may take this many times `stall_s` to load its model."""
LAST_LINES = 12
MEMORY_LINES = 40
"""Lines of the log that may say that memory ran out."""

Outbox = SimpleQueue[Any]
"""Settings, then requests, each with whether its text is listened to; none at the end."""


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


def unfit_prompt(
    request_id: str, n_tokens: int, context: int, longest: int = 1
) -> Completion | None:
    """An error completion if the prompt has no token or leaves no room for the `longest` of what
    may come next, in tokens, else none."""
    if 0 < n_tokens <= context - longest:
        return None
    error = f"the prompt has {n_tokens} tokens, {longest} must follow; the context holds {context}"
    if not n_tokens:
        error = "the prompt has no token: there is nothing to continue (an odd chat template?)"
    return Completion(request_id, "", "error", n_tokens, error=error)


def send_all(connection: Connection, outbox: Outbox) -> None:
    """Send what is in `outbox` until none comes, or nobody is there any more.

    In a thread of its own: a child that does not read lets a writer wait for ever.
    """
    with suppress(OSError):
        while (message := outbox.get()) is not None:
            connection.send(message)


class EngineProcess:
    """Runs `module` in a child and passes requests and completions through a socket."""

    module = "cai.engines.worker"

    def __init__(self, settings: EngineSettings, log: Path) -> None:
        check_libraries(settings.kind)
        self.model = settings.model
        self.capacity = settings.capacity
        self._log, self._stall_s = log, settings.stall_s
        self._log_start = log.stat().st_size if log.exists() else 0
        self._in_flight = 0
        self._listeners: dict[str, Callable[[str], None]] = {}
        self._closed = True
        # Nobody else holds this engine yet: an interrupt here must not leave its child behind.
        try:
            with stopping.held():
                self._start_child()
            self._await_start(settings)
        except BaseException:
            self.close()
            raise

    def _start_child(self) -> None:
        ours, theirs = socket.socketpair()
        self._n_oom_kills = n_oom_kills()
        with theirs, self._log.open("ab") as output:
            self._child = subprocess.Popen(
                [sys.executable, "-m", self.module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=child_environment(**vllm_environment(), CAI_PARENT_PID=str(os.getpid())),
                # A terminal's Ctrl-C reaches the parent alone, which ends the child in good order.
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        self._outbox = Outbox()
        self._sender = Thread(target=send_all, args=(self._connection, self._outbox), daemon=True)
        self._sender.start()
        self._closed = False

    def _await_start(self, settings: EngineSettings) -> None:
        self._outbox.put(settings)
        self._last_news = time.monotonic()
        while not self._has_news(POLL_S):
            self._check_stall("did not start", STARTING * self._stall_s)
        self._receive()

    def _has_news(self, seconds: float) -> bool:
        """Whether there is something to receive, the child's end included."""
        # What the child has started may still hold the connection open after it.
        return self._closed or self._connection.poll(seconds) or self._child.poll() is not None

    def _receive(self) -> list[Completion]:
        """What the child has completed; nothing, if it only says that it is at work.

        A partial text goes to its listener at once. A text instead is what its user has to mend.
        """
        try:
            if self._closed or not self._connection.poll(0):
                raise EOFError
            news: list[Completion] | Partial | str = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        self._last_news = time.monotonic()
        if isinstance(news, str):
            self.close()
            raise ConfigError(f"{self.model}: {news} (log: {self._log})")
        if isinstance(news, Partial):
            self._listeners[news.id](news.text)
            return []
        for completion in news:
            self._listeners.pop(completion.id, None)
        return news

    def _death(self) -> EngineError | DiskFull:
        """The error of a child that has closed its end."""
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(GRACE_S)
        code = self._child.poll()
        self.close()
        lines = log_lines(self._log, self._log_start, MEMORY_LINES)
        cause = cause_of(code, "\n".join(lines), self._n_oom_kills)
        how = how_it_ended(code, lines)
        # its last words may have found no room either
        if is_full(self._log.parent):
            return DiskFull(
                f"the engine of {self.model} {how}; the disk of {self._log.parent} is full: "
                "free some space and run the same command again"
            )
        return self._error(cause, how)

    def _check_stall(self, what: str, seconds: float) -> None:
        if time.monotonic() - self._last_news > seconds:
            self.close()
            how = f"{what} within {seconds:.0f} s"
            raise self._error("hang", how)

    def _error(self, cause: Cause, how: str) -> EngineError:
        lines = log_lines(self._log, self._log_start, LAST_LINES)
        return EngineError(
            f"the engine of {self.model} {how}{HINTS[cause]}; what is on disk is kept and the same "
            f"command continues (log: {self._log})\n"
            + "\n".join(f"    {line[:200]}" for line in lines),
            cause,
            how,
        )

    def submit(self, request: Request) -> None:
        if request.on_text:
            self._listeners[request.id] = request.on_text
        self._outbox.put((replace(request, on_text=None), request.on_text is not None))
        if not self._in_flight:
            self._last_news = time.monotonic()
        self._in_flight += 1

    def poll(self) -> list[Completion]:
        if not self._has_news(POLL_S):
            if self._in_flight:
                self._check_stall("made no step", self._stall_s)
            return []
        completions = self._receive()
        while self._connection.poll(0):
            try:
                completions += self._receive()
            except (EngineError, DiskFull):
                if not completions:
                    raise
                break  # The next poll says it again.
        self._in_flight -= len(completions)
        return completions

    def close(self) -> None:
        """End the child and whatever it has started. A closed connection asks it to leave."""
        if self._closed:
            return
        self._closed = True
        with stopping.held():
            self._outbox.put(None)
            with suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as ours:
                # wakes the sender, whose write would else go on
                ours.shutdown(socket.SHUT_RDWR)
            self._sender.join()
            self._connection.close()
            stopping.wait(self._child, GRACE_S)
            # The whole group: an engine spread over GPUs has workers of its own.
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()


def check_libraries(kind: str) -> None:
    """Raises MissingDependency if an engine of this kind lacks its library."""
    if kind == "vllm" and importlib.util.find_spec("vllm") is None:
        raise MissingDependency(
            "vLLM is not installed: pip install 'cai-toolkit[vllm]' (on a CPU: "
            "pip install --no-deps -r requirements/cpu.txt), or --set engine.kind=transformers"
        )
    if importlib.util.find_spec("torch") is None:
        raise MissingDependency("torch is not installed: pip install 'cai-toolkit[train]'")


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
