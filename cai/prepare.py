"""Everything that can be found wrong before a token is generated, and opening the run folder."""

import importlib.util
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from cai.config import RunConfig
from cai.constitution import Constitution, find_constitution, load_constitution
from cai.errors import ConfigError, DiskFull, MissingDependency, RunConflict
from cai.manifest import FORMAT, Manifest, is_manifest, sha256
from cai.models import Model, model_context, resolve_model, weight_bytes
from cai.pipeline import FOLDERS, STAGES, Stage
from cai.prompts import Templates
from cai.records import Prompt, Split, digest
from cai.resolve import Options, resolve_config
from cai.run import disk_errors, read_json, write_json, write_rows
from cai.sources import SourceCount, load_prompts
from cai.stages.context import RunContext

CHECKPOINTS = 4
"""Model-sized folders that a whole run leaves at most: sft, reward, rl, and one being trained."""


class Prepared(NamedTuple):
    """A run's inputs, all checked against each other."""

    options: Options
    config: RunConfig
    constitution: Constitution
    constitution_path: Path
    templates: Templates
    prompts: list[Prompt]
    counts: list[SourceCount]


def prepare(options: Options, stages: Sequence[Stage] = STAGES) -> Prepared:
    """Read and check constitution, config or recipe, templates and prompts together.

    Only what `stages` need is demanded of the constitution and the prompts.
    """
    config = resolve_config(options)
    path = find_constitution(config.constitution)
    constitution = load_constitution(path)
    names = {stage.name for stage in stages}
    if "revise" in names:
        constitution.for_revision()
    if names & {"label", "evaluate"}:
        constitution.for_preference()
    prompts, counts = load_prompts(config.prompts, config.seed)
    check_splits(prompts, names)
    return Prepared(options, config, constitution, path, Templates(), prompts, counts)


def check_splits(prompts: Sequence[Prompt], stages: set[str]) -> None:
    """Refuse prompts so few that a planned stage would find none."""
    splits = Counter(prompt.split for prompt in prompts if prompt.kind == "red_team")
    needs: dict[str, Split] = {"revise": "sft", "sample": "preference", "rl": "rl"}
    for stage, split in (needs | {"evaluate": "eval"}).items():
        if stage in stages and splits[split] < 2:
            raise ConfigError(
                f"stage {stage}: {splits[split]} of {splits.total()} red-team prompts fall into "
                f"the {split} share, 2 are needed; give more, or raise prompts.shares.{split}"
            )


def check_installed(config: RunConfig, stages: Sequence[Stage]) -> None:
    """Refuse to start what would stop at a library that is not there."""
    if config.engine.kind == "fake":
        return
    wanted = {"torch": "train", "transformers": "train", "huggingface_hub": "train"}
    if config.engine.kind == "vllm":
        wanted["vllm"] = "vllm"
    if {stage.name for stage in stages} & {"sft", "reward", "rl"}:
        wanted |= {"trl": "train", "peft": "train", "datasets": "train"}
    for name, extra in wanted.items():
        if importlib.util.find_spec(name) is None:
            raise MissingDependency(
                f"{name} is not installed: pip install 'cai-toolkit[{extra}]' (on a CPU: "
                "pip install --no-deps -r requirements/cpu.txt)"
                + ("; or --set engine.kind=transformers" if name == "vllm" else "")
            )


def resolve_models(config: RunConfig) -> dict[str, Model]:
    """The local folder of each role's model. `policy` and `reward` only if named."""
    names = config.models
    roles = {"base": names.base, "critic": names.critic or names.base}
    roles["judge"] = names.judge or names.base
    roles |= {r: n for r, n in (("policy", names.policy), ("reward", names.reward)) if n}
    if config.engine.kind == "fake":
        return {role: Model(name, Path(name), "fake") for role, name in roles.items()}
    found = {name: resolve_model(name) for name in dict.fromkeys(roles.values())}
    models = {role: found[name] for role, name in roles.items()}
    check_contexts(config, models)
    return models


def check_contexts(config: RunConfig, models: Mapping[str, Model]) -> None:
    """Refuse a length that was asked for and that a model cannot hold."""
    asked = {
        "engine.max_context": config.engine.max_context,
        "sft.max_length": asked_for(config.sft, "max_length"),
        "reward.max_length": asked_for(config.reward, "max_length"),
    }
    for role, model in models.items():
        limit = model_context(model.path)
        for key, value in asked.items():
            if limit and value and value > limit:
                raise ConfigError(
                    f"{key}={value}: the {role} model {model.name} holds {limit} tokens; "
                    f"type --set {key}={limit} or less"
                )


def asked_for(section: Any, field: str) -> int | None:
    """A field's value if it was set, not defaulted."""
    return getattr(section, field) if field in section.model_fields_set else None


def run_folder(prepared: Prepared, out: str | None) -> Path:
    """`--out`, or a name made of the config and the inputs: the same command, the same folder."""
    if out:
        # An existing folder by its real name: a link or "." cannot be replaced.
        return Path(out).resolve() if Path(out).is_dir() else Path(out)
    inputs = [prepared.constitution.digest]
    inputs += [sha256(path) for path in prepared.templates.paths.values()]
    inputs += [prompt.id for prompt in prepared.prompts]
    stamp = digest("run", prepared.config.deciding(), inputs)[:6]
    name = prepared.constitution.name.lower().replace(" ", "-")
    return Path("runs") / f"{name}-{prepared.config.recipe or 'custom'}-{stamp}"


def open_run(
    prepared: Prepared, folder: Path, models: dict[str, Model], base_run: Path | None
) -> tuple[RunContext, Manifest]:
    """Make the run folder, or go on in it. Raises RunConflict if it holds something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        check_space(folder, models)
        create_folder(prepared, folder, models)
    manifest = load_manifest(folder)
    refuse_changes(prepared, folder, manifest, models)
    context = RunContext(
        run=folder,
        config=prepared.config,
        constitution=prepared.constitution,
        templates=prepared.templates,
        models=models,
        prompts=prepared.prompts,
        folders=FOLDERS,
        base_run=base_run,
    )
    return context, manifest


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a run folder. Raises RunConflict if there is none, or a newer one."""
    if not (folder / "manifest.json").is_file():
        raise RunConflict(
            f"{folder}: is there and is no run of cai (no manifest.json); give another folder "
            "with --out"
        )
    manifest = Manifest.load(folder)
    if not is_manifest(manifest.data):
        raise RunConflict(
            f"{folder}: is there and its manifest.json is not one of cai; give another folder "
            "with --out"
        )
    if manifest.data["format"] > FORMAT:
        raise RunConflict(
            f"{folder}: was written in format {manifest.data['format']} by cai "
            f"{manifest.data['cai']}; this cai reads up to {FORMAT}: pip install -U cai-toolkit"
        )
    return manifest


def check_space(folder: Path, models: Mapping[str, Model]) -> None:
    """Refuse to start a run that cannot fit."""
    parent = next(path for path in folder.absolute().parents if path.is_dir())
    need = CHECKPOINTS * weight_bytes(models["base"].path)
    free = shutil.disk_usage(parent).free
    if free < need:
        raise DiskFull(
            f"{folder}: {free / 2**30:.1f} GiB free, a run with {models['base'].name} takes up to "
            f"{need / 2**30:.1f} GiB; free some, or give a folder on another disk with --out"
        )


def create_folder(prepared: Prepared, folder: Path, models: dict[str, Model]) -> None:
    """Make the folder with its inputs beside its place, then move it there: whole or not at all."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {error.strerror}") from error
    try:
        with disk_errors(folder):
            inputs = write_inputs(prepared, scratch)
            manifest = Manifest.create(scratch, models, inputs)
            manifest.data["name"] = folder.name
            manifest.data["sources"] = [asdict(count) for count in prepared.counts]
            manifest.write()
            scratch.chmod(0o755)
            publish(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def publish(scratch: Path, folder: Path) -> None:
    """Move the new folder to its place, unless another process has just put the same there."""
    try:
        scratch.rename(folder)
    except OSError:
        if not (folder / "manifest.json").is_file():
            raise


def write_inputs(prepared: Prepared, folder: Path) -> dict[str, str]:
    """Copy what the run is made from; returns the checksums."""
    inputs = folder / "inputs"
    inputs.mkdir()
    shutil.copyfile(prepared.constitution_path, inputs / "constitution.yaml")
    write_json(inputs / "constitution.json", prepared.constitution.model_dump())
    for path in prepared.templates.paths.values():
        shutil.copyfile(path, inputs / path.name)
    write_rows(inputs / "prompts.jsonl", [p.model_dump(mode="json") for p in prepared.prompts])
    write_json(folder / "config.json", prepared.config.model_dump(mode="json"))
    given = prepared.options.config
    if given:
        shutil.copyfile(given, folder / "config.yaml")
    return {path.name: sha256(path) for path in sorted(inputs.iterdir())}


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
        now = write_inputs(prepared, Path(scratch))
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
