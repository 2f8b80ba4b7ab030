"""Whether the disk has room: for a whole run before it is begun, for a stage before it starts."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from cai.config import RunConfig
from cai.errors import DiskFull
from cai.models import Model

CHECKPOINTS = 3
"""Model-sized folders that a whole run leaves beside RL's: sft, reward, and one being trained."""
RECORDS = 64 << 20
"""Bytes kept free for records, logs and reports."""
FULL = 1 << 20
"""A disk with fewer bytes than this is full: it refuses all but the smallest files."""
GIB = 1 << 30


def weight_bytes(path: Path) -> int:
    """Size of a model's weights on disk."""
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))


def models_of(stage: str, config: RunConfig) -> int:
    """Model-sized folders that a stage adds: what it leaves, and what its trainer resumes from."""
    added = {"sft": 2, "reward": 2, "rl": 2 + config.rl.n_checkpoints}
    return added.get(stage, 0)


def check_run(folder: Path, models: Mapping[str, Model], config: RunConfig) -> None:
    """Raise DiskFull for a run that cannot fit where its folder is to be."""
    parent = next(path for path in folder.absolute().parents if path.is_dir())
    what = f"a run with {models['base'].name}"
    require(folder, parent, what, CHECKPOINTS + config.rl.n_checkpoints, models)


def check_stage(run: Path, stage: str, models: Mapping[str, Model], config: RunConfig) -> None:
    """Raise DiskFull for a stage that cannot fit into what is left."""
    require(run, run, f"stage {stage}", models_of(stage, config), models)


def is_full(folder: Path) -> bool:
    """Whether what failed in a folder may well have failed for want of room."""
    return shutil.disk_usage(folder).free < FULL


def require(
    folder: Path, place: Path, what: str, n_models: int, models: Mapping[str, Model]
) -> None:
    need = n_models * weight_bytes(models["base"].path) + RECORDS
    free = shutil.disk_usage(place).free
    if free < need:
        raise DiskFull(
            f"{folder}: {free / GIB:.1f} GiB free, {what} takes up to {need / GIB:.1f} GiB; free "
            "some and type the same command again, or give a folder on another disk with --out"
        )
