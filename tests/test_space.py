"""Room on the disk is looked for before a run, and before each of its stages."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from fake_run import start

from cai.config import RunConfig
from cai.errors import DiskFull
from cai.models import Model
from cai.run import read_json
from cai.space import RECORDS, check_run, check_stage, run_bytes, stage_bytes

MIB = 1 << 20


def make_model(folder: Path, n_mib: int) -> dict[str, Model]:
    """A base model of so many MiB in bfloat16."""
    folder.mkdir()
    (folder / "config.json").write_text('{"dtype": "bfloat16"}')
    (folder / "model.safetensors").write_bytes(bytes(n_mib * MIB))
    return {"base": Model("m", folder, "c")}


def config_of(**sections: object) -> RunConfig:
    return RunConfig.model_validate({"constitution": "c", **sections})


class Usage(NamedTuple):
    free: int


def test_a_run_that_cannot_fit_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(RECORDS - 1))
    with pytest.raises(DiskFull, match=r"a run with smollm2-135m takes up to .* GiB; free some"):
        start(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_stage_that_cannot_fit_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(tmp_path / "run", until="sft")
    with monkeypatch.context() as patch, pytest.raises(DiskFull, match="stage sample takes up to"):
        patch.setattr(shutil, "disk_usage", lambda _: Usage(RECORDS - 1))
        start(run)
    assert [stage["name"] for stage in read_json(run / "manifest.json")["stages"]] == [
        "revise", "sft",
    ]  # fmt: skip
    start(run)
    assert read_json(run / "manifest.json")["status"] == "done"


def test_a_stage_needs_no_room_that_it_has_taken_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of it is there, under two names; then all of it, by its trainer's result."""
    models, folder = make_model(tmp_path / "m", 4), tmp_path / "run" / "02-sft"
    (folder / "trainer").mkdir(parents=True)
    config = config_of()

    def check(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free))
        check_stage(folder, "sft", models, config)

    check(RECORDS + 16 * MIB)
    with pytest.raises(DiskFull):
        check(RECORDS + 13 * MIB)
    (folder / "trainer" / "weights").write_bytes(b"x" * (4 * MIB))
    (folder / "weights").hardlink_to(folder / "trainer" / "weights")
    check(RECORDS + 13 * MIB)
    with pytest.raises(DiskFull, match="stage sft takes up to"):
        check(RECORDS + 11 * MIB)
    (folder / "result.json").write_text("{}")
    check(RECORDS)
    with pytest.raises(DiskFull):
        check(RECORDS - 1)


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_reward_model_is_saved_in_float32_and_so_is_every_policy_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int
) -> None:
    monkeypatch.setattr("cai.space.n_gpus", lambda: gpus)
    path = make_model(tmp_path / "m", 4)["base"].path
    policy, whole = (4 if gpus else 8) * MIB, 8 * MIB
    config = config_of(rl={"n_checkpoints": 4})
    assert stage_bytes("sft", config, path) == policy + policy
    assert stage_bytes("reward", config, path) == whole + whole
    assert stage_bytes("rl", config, path) == 5 * policy + policy
    assert stage_bytes("label", config, path) == 0
    assert run_bytes(config, path) == 6 * policy + whole + whole, "one is merged at a time"
    assert run_bytes(config, path, ["revise", "sft"]) == stage_bytes("sft", config, path)


@pytest.mark.parametrize(
    ("trainer", "n"),
    [
        ({}, 2 + 1),
        ({"save_total_limit": 4}, 4 + 1),
        ({"save_total_limit": None}, 10 + 1),
        ({"save_total_limit": -1}, 10 + 1),
        ({"save_strategy": "no"}, 0),
    ],
)
def test_full_fine_tuning_keeps_weights_and_moments_in_float32(
    tmp_path: Path, trainer: dict[str, object], n: int
) -> None:
    path, whole = make_model(tmp_path / "m", 4)["base"].path, 8 * MIB
    config = config_of(sft={"lora": None, "trainer": trainer}, rl={"n_checkpoints": 4})
    beside = 0 if n else whole
    assert stage_bytes("sft", config, path) == n * 3 * whole + whole + beside
    config = config_of(rl={"lora": None, "trainer": trainer, "n_checkpoints": 4})
    assert stage_bytes("rl", config, path) == n * 3 * whole + 5 * whole + beside


def test_one_trainer_at_a_time_writes_a_checkpoint_beside_those_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, whole = make_model(tmp_path / "m", 4), 8 * MIB
    full = config_of(sft={"lora": None}, rl={"lora": None, "n_checkpoints": 4})
    need = (2 + 2 + 1) * 3 * whole + (1 + 1 + 5) * whole
    assert run_bytes(full, models["base"].path) == need
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(RECORDS + need - 1))
    check_run(tmp_path / "run", models, full, ["revise", "sft"])
    with pytest.raises(DiskFull, match="a run with m takes up to"):
        check_run(
            tmp_path / "run", models, full, ["revise", "sft", "sample", "label", "reward", "rl"]
        )
