"""One writer per run folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from cai.errors import RunConflict, RunLocked
from cai.lock import RunLock, is_locked


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
        with pytest.raises(RunLocked, match="another process"), RunLock(tmp_path):
            pass
        assert is_locked(tmp_path)
        holder.kill()
    assert not is_locked(tmp_path)
    assert not is_locked(tmp_path / "none")
    with RunLock(tmp_path):
        pass


def test_a_link_at_the_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunConflict, match="symbolic link"):
        RunLock(tmp_path)
