"""A whole run with the fake engine, started as the command line does it."""

from pathlib import Path
from typing import Any

from cai.conduct import conduct
from cai.resolve import Options
from cai.view.progress import RunProgress

SETTINGS = ("engine.kind=fake", "engine.capacity=4")


def start(
    out: Path, *settings: str, until: str | None = None, base: Path | None = None, **options: Any
) -> Path:
    chosen = Options(
        constitution="harmless.yaml", recipe="quickstart", settings=[*SETTINGS, *settings]
    )
    return conduct(
        chosen._replace(**options),
        str(out),
        until,
        str(base) if base else None,
        RunProgress(quiet=True),
    )
