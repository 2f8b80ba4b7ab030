"""The files that a stage leaves, and their checksums."""

from pathlib import Path

from cai.manifest import sha256

DONE = "done.json"
LEFT_OUT = (DONE, "log.txt")


def artefacts(folder: Path) -> dict[str, str]:
    """sha256 of the files that a stage leaves, by their path in its folder; links only once."""
    sums: dict[str, str] = {}
    known: dict[int, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or is_left_out(name):
            continue
        node = path.stat().st_ino
        known[node] = known.get(node) or sha256(path)
        sums[str(name)] = known[node]
    return sums


def is_left_out(name: Path) -> bool:
    """Logs, torn lines, temporary files and what the Trainer resumes from."""
    return (
        name.parts[0] == "trainer"
        or name.suffix in (".log", ".torn")
        or name.name in LEFT_OUT
        or name.name.startswith(".")
    )
