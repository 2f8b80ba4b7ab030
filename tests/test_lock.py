"""One writer per run folder."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cai import lock
from cai.errors import RunConflict, RunLocked
from cai.lock import RunLock, await_trainer, hold_trainer, is_locked

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
