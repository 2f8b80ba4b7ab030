"""A whole run with the fake engine, started as the command line does it."""

from collections import Counter
from pathlib import Path
from typing import Any

from cai.conduct import conduct
from cai.resolve import Options
from cai.view.progress import RunProgress

SETTINGS = ("engine.kind=fake", "engine.capacity=4")
DERIVED = {"manifest.json", "done.json"}
"""They hold times. `cai verify` looks at them."""


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


def content(run: Path) -> dict[str, Counter[bytes]]:
    """The lines of every file that must be the same in two equal runs."""
    return {
        str(path.relative_to(run)): Counter(
            path.read_bytes().replace(str(run).encode(), b"RUN").splitlines()
        )
        for path in run.rglob("*.json*")
        if path.name not in DERIVED
    }
