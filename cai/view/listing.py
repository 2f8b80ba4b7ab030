"""Finding runs on disk."""

from pathlib import Path
from typing import Any

from cai.errors import ConfigError
from cai.lock import is_locked
from cai.manifest import FORMAT, MANIFEST, check_format, folder_at, is_manifest, read_manifest
from cai.run import read_json


def list_runs(folder: Path) -> list[dict[str, Any]]:
    """One row a run in `folder`, newest first."""
    found = (row_at(path) for path in sorted(folder.glob("*/manifest.json")))
    return sorted(filter(None, found), key=lambda row: row["created"], reverse=True)


def row_at(path: Path) -> dict[str, Any] | None:
    """What the list says of the run with that manifest; none if it is not one of cai."""
    # a folder that begins with a dot is one that is being made
    if path.parent.name.startswith("."):
        return None
    try:
        manifest, damaged = read_manifest(path)
    except ConfigError:
        return little(path.parent, "damaged")
    if damaged:
        return little(path.parent, "damaged")
    if is_manifest(manifest) and manifest["format"] != FORMAT:
        status = f"format {manifest['format']}, for cai {manifest['cai']}"
        return little(path.parent, status) | {"created": str(manifest.get("created", ""))}
    return row(path.parent, manifest) if is_manifest(manifest) else None


def little(run: Path, status: str) -> dict[str, Any]:
    """A row of a run of which nothing is known."""
    found = {"name": run.name, "folder": str(run), "status": status, "created": "", "model": ""}
    return found | {"stages_done": [], "seconds": 0.0}


def row(run: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """What the list says of a run."""
    found = {"name": run.name, "folder": str(run)}
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
    run = find_folder(name)
    check_format(read_json(run / MANIFEST), run)
    return run


def find_folder(name: str) -> Path:
    """The same, whatever its manifest says."""
    if run := folder_at(name):
        return run
    known = ", ".join(row["name"] for row in list_runs(Path("runs"))[:5]) or "none"
    raise ConfigError(f"{name}: no run there (no manifest.json); the runs in ./runs are: {known}")
