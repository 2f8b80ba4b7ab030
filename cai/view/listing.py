"""Finding runs on disk."""

from pathlib import Path
from typing import Any

from cai.errors import ConfigError
from cai.lock import is_locked
from cai.manifest import FORMAT, is_manifest, run_at
from cai.run import read_json


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """One row a run in `folder`, newest first."""
    found = ((path, read_json(path)) for path in sorted(folder.glob("*/manifest.json")))
    rows = [
        row(path.parent, manifest)
        for path, manifest in found
        # a folder that begins with a dot is one that is being made
        if is_manifest(manifest) and not path.parent.name.startswith(".")
    ]
    return sorted(rows, key=lambda row: row["created"], reverse=True)


def row(run: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """What the list says of a run; little of one in another format."""
    found = {"name": run.name, "folder": str(run)}
    if manifest["format"] != FORMAT:
        return found | {
            "status": f"format {manifest['format']}, for cai {manifest['cai']}",
            "created": str(manifest.get("created", "")),
            "model": "",
            "stages_done": [],
            "seconds": 0.0,
        }
    return found | {
        "status": status(run, manifest),
        "created": manifest["created"],
        "model": manifest["models"]["base"]["name"],
        "stages_done": [s["name"] for s in manifest["stages"] if s["status"] == "done"],
        "seconds": round(sum(s["seconds"] for s in manifest["stages"]), 1),
    }


def status(run: Path, manifest: dict[str, Any]) -> str:
    """A run that says it is running and that no process holds was killed."""
    if manifest["status"] != "running":
        return manifest["status"]
    return "running" if is_locked(run) else "stopped"


def find_run(name: str) -> Path:
    """The folder of a run: a path, or the name of one in ./runs."""
    if run := run_at(name):
        return run
    known = ", ".join(row["name"] for row in list_runs(Path("runs"))[:5]) or "none"
    raise ConfigError(f"{name}: no run there (no manifest.json); the runs in ./runs are: {known}")
