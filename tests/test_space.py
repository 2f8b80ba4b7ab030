"""Room on the disk is looked for before a run, and before each of its stages."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from fake_run import start

from cai.errors import DiskFull
from cai.run import read_json
from cai.space import RECORDS


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
