"""Opening the engine that the config names."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from cai.config import Engine as EngineConfig
from cai.engines.base import Completion, Engine, Request
from cai.engines.fake import FakeEngine
from cai.engines.process import EngineProcess, EngineSettings
from cai.engines.supervise import Supervised
from cai.models import Model

DEFAULT_CONTEXT = 4096
"""Tokens, where the config names none and the model could hold more."""


def to_stderr(text: str) -> None:
    """One line for the user."""
    sys.stderr.write(f"{text}\n")


def open_engine(
    config: EngineConfig,
    model: Model,
    log: Path,
    share: float = 1.0,
    say: Callable[[str], None] = to_stderr,
) -> Engine:
    """Load `model`; its output goes to `log`, and that it was started again is said with `say`.

    Raises EngineError or MissingDependency.
    """
    context = config.max_context or DEFAULT_CONTEXT
    if config.kind == "fake":
        return FakeEngine(model.name, capacity=config.capacity, context=context)
    settings = EngineSettings(
        kind=config.kind,
        model=str(model.path),
        max_context=context,
        capacity=config.capacity,
        dtype=config.dtype,
        options=config.options,
        stall_s=config.stall_s,
        share=share,
    )
    return Supervised(partial(EngineProcess, settings, log), config.restarts, say)


class LazyEngine:
    """Loads its model when the first request comes: a stage that is on disk loads nothing."""

    def __init__(
        self,
        config: EngineConfig,
        model: Model,
        log: Path,
        share: float,
        say: Callable[[str], None] = to_stderr,
    ) -> None:
        self.model = model.name
        self.capacity = config.capacity
        self._arguments = (config, model, log, share, say)
        self._engine: Engine | None = None

    def submit(self, request: Request) -> None:
        if self._engine is None:
            self._engine = open_engine(*self._arguments)
        self._engine.submit(request)

    def poll(self) -> list[Completion]:
        return self._engine.poll() if self._engine else []

    def close(self) -> None:
        if self._engine:
            self._engine.close()
            self._engine = None
