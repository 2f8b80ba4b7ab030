"""Whether the disk has room: for a whole run before it is begun, for a stage before it starts."""

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from cai.config import RunConfig
from cai.environment import n_gpus
from cai.errors import DiskFull
from cai.models import Model
from cai.sections import Reward, Rl, Sft
from cai.train.folder import RESULT

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TRAINED = ("sft", "reward", "rl")
STATES = 3
"""A trainer's checkpoint has of each trained weight itself and Adam's two moments, in float32."""
KEPT_CHECKPOINTS = 2
"""Of a trainer, where its `save_total_limit` says nothing."""
ALL_CHECKPOINTS = 10
"""Of a trainer that keeps all of them, where its `save_steps` says nothing."""
RECORDS = 64 << 20
"""Bytes kept free for records, logs and reports."""
FULL = 1 << 20
"""A disk with fewer bytes than this is full: it refuses all but the smallest files."""
GIB = 1 << 30


def weight_bytes(path: Path) -> int:
    """Size of a model's weights on disk."""
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))


def n_parameters(path: Path) -> int:
    """From the size of a model's weights, and the type that its config says they have."""
    file = path / "config.json"
    whole: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    config: dict[str, Any] = whole.get("text_config", whole)
    stored = config.get("dtype") or config.get("torch_dtype") or "float32"
    return weight_bytes(path) // DTYPE_BYTES.get(stored, 2)


def run_bytes(config: RunConfig, base: Path, stages: Collection[str] = TRAINED) -> int:
    """What the training stages of a run, or those among `stages`, take, at most: what each leaves,
    and what one trainer at a time has beside that."""
    trained = {stage: section for stage, section in sections(config).items() if stage in stages}
    left = sum(left_bytes(stage, config, base) for stage in trained)
    return left + max((beside_bytes(*one, base) for one in trained.items()), default=0)


def stage_bytes(stage: str, config: RunConfig, base: Path) -> int:
    """What a stage takes in models: what it leaves, and what its trainer has beside that."""
    section = sections(config).get(stage)
    return run_bytes(config, base, [stage]) if section else 0


def sections(config: RunConfig) -> dict[str, Sft | Reward | Rl]:
    """The settings of the stages that train."""
    return {stage: getattr(config, stage) for stage in TRAINED}


def left_bytes(stage: str, config: RunConfig, base: Path) -> int:
    """What a training stage leaves: its models, and the checkpoints that its trainer keeps."""
    section = sections(config)[stage]
    n_models = 1 + (config.rl.n_checkpoints if stage == "rl" else 0)
    models = n_models * model_bytes(stage, section, base)
    return models + n_kept(section) * checkpoint_bytes(section, base)


def beside_bytes(stage: str, section: Sft | Reward | Rl, base: Path) -> int:
    """What a trainer has for a while beside what its stage leaves: the next checkpoint. An
    adapter's are less than a model, which it is merged into."""
    return checkpoint_bytes(section, base) or model_bytes(stage, section, base)


def model_bytes(stage: str, section: Sft | Reward | Rl, base: Path) -> int:
    """A model as a stage saves it: in float32, but for a policy under LoRA on a GPU."""
    halved = n_gpus() and section.lora and stage != "reward"
    return DTYPE_BYTES["bfloat16" if halved else "float32"] * n_parameters(base)


def checkpoint_bytes(section: Sft | Reward | Rl, base: Path) -> int:
    """A checkpoint of a trainer of all weights; none where it saves none, or an adapter only."""
    if section.lora or section.trainer.get("save_strategy") == "no":
        return 0
    return STATES * DTYPE_BYTES["float32"] * n_parameters(base)


def n_kept(section: Sft | Reward | Rl) -> int:
    """How many checkpoints a trainer keeps: by its `save_total_limit`, or all that it writes."""
    limit = section.trainer.get("save_total_limit", KEPT_CHECKPOINTS)
    return limit if isinstance(limit, int) and limit > 0 else ALL_CHECKPOINTS


def used_bytes(folder: Path) -> int:
    """What a folder holds on the disk; a file with several names counts once."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            stat = path.stat()
            found[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    return sum(found.values())


def check_run(
    folder: Path, models: Mapping[str, Model], config: RunConfig, stages: Collection[str]
) -> None:
    """Raise DiskFull for a run of these stages that cannot fit where its folder is to be."""
    parent = next(path for path in folder.absolute().parents if path.is_dir())
    base = models["base"]
    require(folder, parent, f"a run with {base.name}", run_bytes(config, base.path, stages))


def check_stage(folder: Path, stage: str, models: Mapping[str, Model], config: RunConfig) -> None:
    """Raise DiskFull for a stage that cannot fit into what is left beside what `folder`, its own,
    has of it already."""
    trained = (folder / RESULT).is_file()
    whole = 0 if trained else stage_bytes(stage, config, models["base"].path)
    need = max(0, whole - used_bytes(folder))
    require(folder.parent, folder.parent, f"stage {stage}", need)


def is_full(folder: Path) -> bool:
    """Whether what failed in a folder may well have failed for want of room."""
    return shutil.disk_usage(folder).free < FULL


def require(folder: Path, place: Path, what: str, n_bytes: int) -> None:
    """Raise DiskFull where there is no room for so much, and for records."""
    need = n_bytes + RECORDS
    free = shutil.disk_usage(place).free
    if free < need:
        raise DiskFull(
            f"{folder}: {free / GIB:.1f} GiB free, {what} takes up to {need / GIB:.1f} GiB; free "
            "some and type the same command again, or give a folder on another disk with --out"
        )
