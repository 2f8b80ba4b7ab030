"""The run folder: what is written is whole or not there, and no process hurts another's run."""

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cai import run
from cai.errors import ConfigError, DiskFull, RunConflict, RunLocked
from cai.records import Generation, Response, Sampling
from cai.run import RecordFile, RunLock, read_rows, repair, write_atomic, write_json, write_rows


def response(name: str, text: str = "text") -> Response:
    generation = Generation(model="m", template=None, sampling=Sampling(), seed=0, finish="stop")
    return Response(id=name, prompt_id="p", sample=0, text=text, generation=generation)


HOSTILE = [
    "\u2028\u2029\x85 line separators",
    "\x00\x1b[31m",
    '"}\n{"',
    "é🦊",
]


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    records = [response(str(i), text) for i, text in enumerate(HOSTILE)]
    with RecordFile(tmp_path / "r.jsonl") as file:
        file.append(records)
    with RecordFile(tmp_path / "r.jsonl") as file:
        assert list(file) == records
        assert file.get("1") == records[1]
        assert file.get("none") is None


def test_a_file_cut_at_any_byte_keeps_every_whole_record(tmp_path: Path) -> None:
    whole = tmp_path / "r.jsonl"
    with RecordFile(whole) as file:
        file.append([response(f"id{i}", "é\n" * i) for i in range(4)])
    data = whole.read_bytes()
    for cut in range(len(data)):
        path = tmp_path / "cut.jsonl"
        path.write_bytes(data[:cut])
        path.with_suffix(".torn").unlink(missing_ok=True)
        with RecordFile(path) as file:
            assert len(list(file)) == data[:cut].count(b"\n")
            file.append([response("new")])
            assert [record.id for record in file][-1] == "new"
        torn = path.with_suffix(".torn")
        assert torn.exists() == (cut > 0 and data[cut - 1 : cut] != b"\n")


def test_a_broken_record_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"id": "a"}\n{broken\n{"id": "b"}\n')
    with pytest.raises(ConfigError, match=r"r\.jsonl:2"):
        RecordFile(path)
    with pytest.raises(ConfigError, match=r"r\.jsonl:2"):
        list(read_rows(path))


def test_an_earlier_runs_record_is_copied(tmp_path: Path) -> None:
    with RecordFile(tmp_path / "old.jsonl") as old:
        old.append([response("a"), response("b")])
    with RecordFile(tmp_path / "new.jsonl", [tmp_path / "old.jsonl", tmp_path / "none"]) as new:
        assert new.get("b") == response("b")
        assert new.n_reused == 1
    with RecordFile(tmp_path / "new.jsonl") as new:
        assert [record.id for record in new] == ["b"]


def refuse_writes(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_a_resumable_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "kept.json", {"old": 1})
    with RecordFile(tmp_path / "r.jsonl") as file:
        file.append([response("a")])
        monkeypatch.setattr(run.os, "fsync", refuse_writes)
        with pytest.raises(DiskFull, match="free some"):
            file.append([response("b")])
        with pytest.raises(DiskFull) as caught:
            write_json(tmp_path / "kept.json", {"new": 2})
    assert caught.value.exit_code == 75
    assert (tmp_path / "kept.json").read_text() == '{\n "old": 1\n}\n'
    assert not list(tmp_path.glob("*.tmp"))


def test_small_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_text() == "two"
    assert [child.name for child in tmp_path.iterdir()] == ["a.txt"]
    assert write_rows(tmp_path / "rows", ({"i": i} for i in range(3))) == 3
    assert list(read_rows(tmp_path / "rows")) == [{"i": 0}, {"i": 1}, {"i": 2}]
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, float("nan"))


def test_repair_leaves_a_whole_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"id": "a"}\n')
    repair(path)
    repair(tmp_path / "none.jsonl")
    assert path.read_bytes() == b'{"id": "a"}\n'


def test_one_process_holds_a_run(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cai.run import RunLock\n"
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
        holder.kill()
    with RunLock(tmp_path):
        pass


def test_a_link_at_the_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunConflict, match="symbolic link"):
        RunLock(tmp_path)
