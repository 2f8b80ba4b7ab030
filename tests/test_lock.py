"""One writer per run folder."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_run import start

from cai import lock
from cai.errors import RunConflict, RunLocked
from cai.lock import RunLock, await_trainer, hold_trainer, is_locked
from cai.verify import verify

TORTURE = Path(__file__).parent / "torture"


def test_one_process_holds_a_run(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cai.lock import RunLock\n"
        "with RunLock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        who = rf"{tmp_path}: process {holder.pid} of .*, since .*, works on this run"
        with pytest.raises(RunLocked, match=who), RunLock(tmp_path):
            pass
        assert is_locked(tmp_path)
        holder.kill()
    assert not is_locked(tmp_path)
    assert not is_locked(tmp_path / "none")
    with RunLock(tmp_path):
        pass


def test_a_lock_is_free_even_where_a_fork_lives_on(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with RunLock(tmp_path):
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    os.close(writing)
    os.waitpid(pid, 0)


def test_what_is_no_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunConflict, match="symbolic link"), RunLock(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "x" / ".lock").mkdir(parents=True)
    with (
        pytest.raises(RunConflict, match="cannot be locked: Is a directory"),
        RunLock(tmp_path / "x"),
    ):
        pass


@pytest.mark.parametrize("name", ["01-revise", "01-revise/records.jsonl", "06-rl/x/log.txt"])
@pytest.mark.parametrize("target", ["folder", "file", "nothing"])
def test_a_link_out_of_the_run_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, target: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine, without a line's end")
    link = tmp_path / "run" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(Path("../" * (len(link.parts) - len(tmp_path.parts) - 1)) / target)
    with (
        pytest.raises(RunConflict, match="a symbolic link out of the run: remove it"),
        RunLock(tmp_path / "run"),
    ):
        pass
    assert (tmp_path / "file").read_text() == "mine, without a line's end"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "run"]
    assert not list((tmp_path / "folder").iterdir())


def test_a_link_that_stays_and_a_linked_run_are_worked_in(tmp_path: Path) -> None:
    (tmp_path / "disk" / "a").mkdir(parents=True)
    (tmp_path / "disk" / "b").symlink_to("a")
    (tmp_path / "disk" / "loop").symlink_to("loop")
    (tmp_path / "run").symlink_to("disk")
    with RunLock(tmp_path / "run"):
        assert is_locked(tmp_path / "disk")


@pytest.mark.parametrize("name", ["01-revise", "01-revise/records.jsonl", "01-revise/log.txt"])
def test_no_command_writes_through_a_link(tmp_path: Path, name: str) -> None:
    """Of a run that somebody else has made: cai run, and verify --repair."""
    run = start(tmp_path / "run", until="revise")
    (run / "01-revise" / "done.json").unlink()
    outside = tmp_path / "outside"
    if (run / name).exists():
        (run / name).rename(outside)
    (run / name).symlink_to(outside)
    before = state(tmp_path)
    with pytest.raises(RunConflict, match=f"{name} is a symbolic link out of the run"):
        start(run, until="revise")
    with pytest.raises(RunConflict, match="symbolic link"):
        verify(run, repairs=True)
    assert state(tmp_path) == before


def state(folder: Path) -> dict[str, bytes]:
    """The files below a folder, but for locks, in which stands who held them last."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path): path.read_bytes() for path in files}


def test_a_trainer_that_outlives_its_run_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await_trainer(tmp_path)
    monkeypatch.setattr(lock, "TRAINER_S", 0.1)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        hold_trainer(tmp_path)
        os.write(writing, b"x")
        signal.pause()
    os.read(reading, 1)
    with pytest.raises(RunLocked, match=f"process {pid} of"):
        await_trainer(tmp_path)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    await_trainer(tmp_path)


@pytest.mark.torture
def test_of_many_processes_one_writes_and_a_killed_one_is_replaced() -> None:
    """`make torture` has 20 processes and 20 kills."""
    command = [sys.executable, str(TORTURE / "lock.py"), "--n", "3"]
    path = os.pathsep.join([str(TORTURE.parents[1]), str(TORTURE.parent)])
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    crowd, killed, orphaned, launched = map(json.loads, done.stdout.splitlines())
    assert (crowd["writers"], crowd["done"], crowd["exit_75"], crowd["say_who"]) == (1, 1, 2, 2)
    assert killed["takeover_s_at_most"] < 5
    assert orphaned["late_writes"] == launched["late_writes"] == 0
