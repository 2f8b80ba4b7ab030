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

    check(RECORDS + 8 * MIB)
    with pytest.raises(DiskFull):
        check(RECORDS + 5 * MIB)
    (folder / "trainer" / "weights").write_bytes(b"x" * (4 * MIB))
    (folder / "weights").hardlink_to(folder / "trainer" / "weights")
    check(RECORDS + 5 * MIB)
    with pytest.raises(DiskFull, match="stage sft takes up to"):
        check(RECORDS + 3 * MIB)
    (folder / "result.json").write_text("{}")
    check(RECORDS)
    with pytest.raises(DiskFull):
        check(RECORDS - 1)


def test_full_fine_tuning_keeps_weights_and_moments_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = make_model(tmp_path / "m", 4)
    path, whole = models["base"].path, 8 * MIB  # in float32
    assert stage_bytes("sft", config_of(), path) == 2 * 4 * MIB
    assert run_bytes(config_of(rl={"n_checkpoints": 4}), path) == 7 * 4 * MIB
    full = config_of(sft={"lora": None}, rl={"lora": None, "n_checkpoints": 4})
    assert stage_bytes("sft", full, path) == (2 + 1) * 3 * whole + whole
    assert stage_bytes("reward", full, path) == 2 * 4 * MIB
    assert stage_bytes("rl", full, path) == (2 + 1) * 3 * whole + 5 * whole
    assert run_bytes(full, path) == 18 * whole + 6 * whole + 4 * MIB
    for trainer, n in (({"save_total_limit": 4}, 5), ({"save_strategy": "no"}, 0)):
        one = config_of(sft={"lora": None, "trainer": trainer})
        assert stage_bytes("sft", one, path) == n * 3 * whole + whole
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(24 * whole))
    with pytest.raises(DiskFull, match="a run with m takes up to"):
        check_run(tmp_path / "run", models, full)
