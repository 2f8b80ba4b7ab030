"""A full disk, in a short form: `make torture` refuses every call, and fills a real file system."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cai import embedded, fresh
from cai.errors import DiskFull, TrainError
from cai.fresh import new_folder
from cai.models import resolve_model
from cai.run import disk_errors
from cai.sources import SourceCount, read_dataset
from cai.train import child, launch
from cai.train.folder import link_tree
from cai.train.jobs import SftJob

TORTURE = Path(__file__).parent / "torture"
JOB = SftJob(model="m", lora=None, max_length=8, trainer={}, seed=0)


def refuse(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def torture(script: str, *arguments: str) -> list[dict[str, Any]]:
    path = os.pathsep.join([str(TORTURE.parents[1]), str(TORTURE.parent)])
    command = [sys.executable, str(TORTURE / script), *arguments]
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.torture
def test_a_full_disk_stops_a_run_which_then_goes_on() -> None:
    once, for_ever, commands = torture("disk.py", "--step", "150")
    assert once["runs"] == for_ever["runs"] == 3
    for found in (once, for_ever, commands):
        assert (found["unclean"], found["corrupt"], found["stuck"]) == ({}, 0, 0)
        assert found["differing"] == 0


def start(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> DiskFull | TrainError:
    """What a job raises whose trainer is a line of Python."""
    monkeypatch.setattr(launch, "command", lambda *_: [sys.executable, "-c", script])
    with pytest.raises((DiskFull, TrainError)) as caught:
        launch.run_job(JOB, folder, [], lambda _: None)
    return caught.value


def test_a_trainer_that_found_no_room_for_a_word_had_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(start(tmp_path, "raise SystemExit(1)", monkeypatch), TrainError)
    assert isinstance(start(tmp_path, "raise SystemExit(75)", monkeypatch), DiskFull)
    monkeypatch.setattr(launch, "is_full", lambda folder: folder == tmp_path)
    error = start(tmp_path, "raise SystemExit(1)", monkeypatch)
    assert isinstance(error, DiskFull)
    assert "it printed nothing (exit code 1" in str(error)
    assert "free some space and run the same command again" in str(error)


@pytest.mark.parametrize("has_room", [True, False])
def test_a_trainers_full_disk_is_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_room: bool
) -> None:
    (tmp_path / "job.json").write_text(JOB.model_dump_json())
    monkeypatch.setattr(sys, "argv", ["child", str(tmp_path)])
    monkeypatch.setattr(child.importlib, "import_module", lambda _: SimpleNamespace(train=refuse))
    with monkeypatch.context() as patch:
        if not has_room:
            patch.setattr(os, "fsync", refuse)
        assert child.main() == DiskFull.exit_code
    assert (tmp_path / "error.json").is_file() == has_room
    assert not (tmp_path / "result.json").exists()


def test_a_full_disk_is_not_taken_for_a_hub_that_lacks_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = SimpleNamespace(snapshot_download=refuse)
    gone = SimpleNamespace(HfHubHTTPError=ValueError, LocalEntryNotFoundError=ValueError)
    datasets = SimpleNamespace(load_dataset=refuse)
    for name, module in (
        ("huggingface_hub", hub),
        ("huggingface_hub.errors", gone),
        ("datasets", datasets),
        ("datasets.exceptions", SimpleNamespace(DatasetNotFoundError=ValueError)),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(DiskFull, match="some/model: no space left"):
        resolve_model("some/model")
    with pytest.raises(DiskFull, match="some/rows: no space left"):
        list(read_dataset("some/rows", SourceCount("some/rows", "red_team")))
    monkeypatch.setenv("CAI_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "ROOM", 1 << 60)
    with pytest.raises(DiskFull, match="smollm2-135m: no space left"):
        resolve_model("smollm2-135m")


@pytest.mark.parametrize("for_ever", [False, True])
def test_a_folder_that_may_be_lost_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, for_ever: bool
) -> None:
    def sync(path: Path) -> None:
        if path == tmp_path:
            if for_ever:
                monkeypatch.setattr(Path, "replace", refuse)
            refuse()

    monkeypatch.setattr(fresh, "sync", sync)
    with pytest.raises(DiskFull), new_folder(tmp_path / "out") as scratch:
        (scratch / "file").touch()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_links_says_that_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one" / "deep").mkdir(parents=True)
    (tmp_path / "one" / "deep" / "file").write_text("x")
    link_tree(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "two" / "deep" / "file").samefile(tmp_path / "one" / "deep" / "file")
    monkeypatch.setattr(os, "link", refuse)
    link_tree(tmp_path / "one", tmp_path / "three")
    assert (tmp_path / "three" / "deep" / "file").read_text() == "x"
    monkeypatch.setattr(shutil, "copyfile", refuse)
    with pytest.raises(DiskFull), disk_errors(tmp_path):
        link_tree(tmp_path / "one", tmp_path / "four")
