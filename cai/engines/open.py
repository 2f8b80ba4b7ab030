"""Opening the engine that the config names."""

from pathlib import Path

from cai.config import Engine as EngineConfig
from cai.engines.base import Engine
from cai.engines.fake import FakeEngine
from cai.engines.process import EngineProcess, EngineSettings
from cai.models import Model


def open_engine(config: EngineConfig, model: Model, log: Path, share: float = 1.0) -> Engine:
    """Load `model`; its output goes to `log`. Raises EngineError, MissingDependency, ConfigError."""
    if config.kind == "fake":
        return FakeEngine(model.name, capacity=config.capacity, context=config.max_context)
    settings = EngineSettings(
        kind=config.kind,
        model=str(model.path),
        max_context=config.max_context,
        capacity=config.capacity,
        dtype=config.dtype,
        options=config.options,
        stall_s=config.stall_s,
        share=share,
    )
    return EngineProcess(settings, log)
