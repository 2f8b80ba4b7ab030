"""Opening a run's folder: a new one, whole or not at all, or the same one to go on in."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cai.config import RunConfig
from cai.errors import RunConflict
from cai.fresh import new_folder
from cai.manifest import Manifest, check_format, sha256
from cai.models import Model
from cai.pipeline import FOLDERS, Stage
from cai.prepare import Prepared
from cai.records import digest
from cai.run import read_json, sweep, write_json, write_records
from cai.space import check_run
from cai.stages.context import RunContext


def run_folder(prepared: Prepared, out: str | None) -> Path:
    """`--out`, or a name made of the config and the inputs: the same command, the same folder."""
    if out:
        # An existing folder by its real name: a link or "." cannot be replaced.
        return Path(out).resolve() if Path(out).is_dir() else Path(out)
    inputs = [prepared.constitution.digest]
    inputs += [sha256(path) for path in prepared.templates.paths.values()]
    inputs += [prompt.id for prompt in prepared.prompts]
    inputs += [reading.digest for reading in prepared.readings]
    stamp = digest("run", prepared.config.deciding(), inputs)[:6]
    name = prepared.constitution.name.lower().replace(" ", "-")
    return Path("runs") / f"{name}-{prepared.config.recipe or 'custom'}-{stamp}"


def make_run(
    prepared: Prepared, folder: Path, models: dict[str, Model], stages: Sequence[Stage]
) -> None:
    """Make the folder of a run of `stages` if it is not there. Raises RunConflict if it holds
    something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        check_run(folder, models, prepared.config, [stage.name for stage in stages])
        create_folder(prepared, folder, models)
    load_manifest(folder)


def open_run(
    prepared: Prepared, folder: Path, models: dict[str, Model], base_run: Path | None
) -> tuple[RunContext, Manifest]:
    """Go on in a run folder that this process has locked. Raises RunConflict for another run."""
    sweep(folder)
    manifest = load_manifest(folder)
    refuse_changes(prepared, folder, manifest, models)
    return make_context(prepared, folder, models, base_run), manifest


def make_context(
    prepared: Prepared, folder: Path, models: Mapping[str, Model], base_run: Path | None
) -> RunContext:
    """What the stages of a run in `folder` are given."""
    return RunContext(
        run=folder,
        config=prepared.config,
        constitution=prepared.constitution,
        templates=prepared.templates,
        models=models,
        prompts=prepared.prompts,
        folders=FOLDERS,
        base_run=base_run,
    )


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a run folder. Raises RunConflict if there is none, or a newer one."""
    if not (folder / "manifest.json").is_file():
        raise RunConflict(
            f"{folder}: is there and is no run of cai (no manifest.json); give another folder "
            "with --out"
        )
    manifest = Manifest.load(folder)
    check_format(manifest.data, folder)
    return manifest


def create_folder(prepared: Prepared, folder: Path, models: dict[str, Model]) -> None:
    """Make the folder with its inputs, unless another process has just put the same there."""
    try:
        with new_folder(folder) as scratch:
            manifest = Manifest.create(scratch, models, *write_inputs(prepared, scratch))
            manifest.data["name"] = folder.name
            manifest.data["sources"] = [asdict(count) for count in prepared.counts]
            manifest.data["preference_sources"] = [asdict(one) for one in prepared.readings]
            manifest.write()
    except OSError:
        if not (folder / "manifest.json").is_file():
            raise


def write_inputs(prepared: Prepared, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Copy what the run is made from; returns the checksums of `inputs/` and of other files."""
    inputs = folder / "inputs"
    inputs.mkdir()
    shutil.copyfile(prepared.constitution_path, inputs / "constitution.yaml")
    write_json(inputs / "constitution.json", prepared.constitution.model_dump())
    for name, path in prepared.templates.paths.items():
        shutil.copyfile(path, inputs / f"{name}{path.suffix}")
    write_records(inputs / "prompts.jsonl", prepared.prompts)
    if prepared.readings:
        found = {reading.source: reading.digest for reading in prepared.readings}
        write_json(inputs / "sources.json", found)
    write_json(folder / "config.json", prepared.config.model_dump(mode="json"))
    given = prepared.options.config
    if given:
        shutil.copyfile(given, folder / "config.yaml")
    return checksums(inputs), checksums(folder)


def checksums(folder: Path) -> dict[str, str]:
    """sha256 of the files in a folder, by name."""
    return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}


def refuse_changes(
    prepared: Prepared, folder: Path, manifest: Manifest, models: Mapping[str, Model]
) -> None:
    """A run goes on only with the config, the inputs and the models that it was begun with."""
    stored = RunConfig.model_validate(read_json(folder / "config.json")).deciding()
    changed = [
        f"{key} ({old!r} → {new!r})"
        for key, (old, new) in differences(stored, prepared.config.deciding()).items()
    ]
    changed += [
        f"the {role} model ({then['commit']} → {models[role].commit})"
        for role, then in manifest.data["models"].items()
        if role in models and then["commit"] != models[role].commit
    ]
    with tempfile.TemporaryDirectory() as scratch:
        now, _ = write_inputs(prepared, Path(scratch))
    # YAML comments are no change of the constitution: its JSON is what counts.
    then = manifest.data["inputs"]
    names = sorted({*then, *now} - {"constitution.yaml"})
    changed += [f"inputs/{name}" for name in names if then.get(name) != now.get(name)]
    if changed:
        raise RunConflict(
            f"{folder}: was begun with something else: {', '.join(changed)}; to make a new run "
            "that reuses every record these leave unchanged, type the command with "
            f"--base {folder} and another --out"
        )


def differences(old: Any, new: Any, at: str = "") -> dict[str, Sequence[Any]]:
    """The leaves in which two JSON values differ, by dotted key."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, Sequence[Any]] = {}
        for key in (*old, *(key for key in new if key not in old)):
            found |= differences(old.get(key), new.get(key), f"{at}.{key}" if at else key)
        return found
    return {} if old == new else {at: (old, new)}
