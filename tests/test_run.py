"""The run folder: what is written is whole or not there, and no process hurts another's run."""

import errno
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from cai import fresh, run
from cai.errors import ConfigError, Damaged, DiskFull
from cai.fresh import new_folder
from cai.lines import read_whole_rows, sealed, unsealed
from cai.records import Generation, Response, Sampling
from cai.run import (
    RecordFile,
    read_records,
    read_rows,
    repair,
    sweep,
    write_atomic,
    write_json,
    write_rows,
)


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
    a, b = (sealed(response(name).model_dump(mode="json")) for name in "ab")
    path.write_bytes(a + b"{broken\n" + b)
    with pytest.raises(Damaged, match=r"r\.jsonl:2: broken record"):
        RecordFile(path)
    with pytest.raises(Damaged, match=r"r\.jsonl:2: broken record"):
        list(read_records(path))
    path.write_bytes(b'{"id": "a"}\n{broken\n')
    with pytest.raises(ConfigError, match=r"r\.jsonl:2"):
        list(read_rows(path))


@pytest.mark.parametrize("seed", range(4))
def test_no_flipped_bit_passes_for_a_record(tmp_path: Path, seed: int) -> None:
    """100 flips of one to four bits each; all 1,000 are in tests/torture."""
    path, chance = tmp_path / "r.jsonl", random.Random(seed)
    with RecordFile(path) as file:
        file.append([response(f"id{i}", chance.choice(HOSTILE) * i) for i in range(20)])
    whole = path.read_bytes()
    records = list(read_records(path))
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        if bytes(data) == whole:
            continue
        try:
            found = list(read_records(path))
        except Damaged:
            continue
        # the end of the last line is gone: a record that was never finished
        assert found == records[:-1]
        assert not data.endswith(b"\n")


def test_a_seal_is_the_last_member_of_a_plain_json_object() -> None:
    line = sealed({"id": "a", "text": "é"})
    assert list(json.loads(line)) == ["id", "text", "sum"]
    assert unsealed(line, "r.jsonl:1") == {"id": "a", "text": "é"}
    with pytest.raises(Damaged, match=r"r\.jsonl:1: broken record.*cai verify"):
        unsealed(line.replace(b'"a"', b'"b"'), "r.jsonl:1")


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


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".a.json.tmp", "a.json"):
        (folder / name).symlink_to(outside)
    write_json(folder / "a.json", {"new": 1})
    assert outside.read_text() == "mine"
    assert not (folder / "a.json").is_symlink()


def test_what_a_killed_writer_left_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        patch.setattr(Path, "replace", lambda *_: None)
        write_json(tmp_path / "a.json", 1)
    (tmp_path / ".b.tmp").write_text("somebody else's")
    assert len(list(tmp_path.iterdir())) == 2
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".b.tmp"]


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    """Each publishes a whole file, and none takes another's temporary one."""
    path, failures = tmp_path / "page.html", list[BaseException]()

    def write(letter: str) -> None:
        try:
            for _ in range(20):
                write_atomic(path, letter * 100_000)
        except OSError as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failures
    assert len(set(path.read_text())) == 1
    assert [child.name for child in tmp_path.iterdir()] == ["page.html"]


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out") as scratch:
        (scratch / "inputs").mkdir()
        (scratch / "inputs" / "a.txt").write_text("a")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "inputs" / "a.txt").read_text() == "a"
    with pytest.raises(KeyError), new_folder(tmp_path / "other") as scratch:
        raise KeyError("stop")
    assert [child.name for child in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_began_is_swept_after_an_hour(tmp_path: Path) -> None:
    old, young, other = (
        tmp_path / name for name in (".new-aaaa.cai-new", ".new-bbbb.cai-new", ".new-cccc")
    )
    for folder in (old, young, other):
        (folder / "inputs").mkdir(parents=True)
        (folder / "inputs" / "a.txt").write_text("a")
    long_ago = time.time() - 2 * 3600
    for path in (*tmp_path.rglob("*"), *(young, other)):
        os.utime(path, (long_ago, long_ago))
    os.utime(young / "inputs" / "a.txt")
    with new_folder(tmp_path / "out"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {young.name, other.name, "out"}


def test_a_folder_that_may_be_lost_loses_its_name_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []

    def sync(path: Path) -> None:
        if path == tmp_path:
            raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fresh, "sync", sync)
    rmtree = shutil.rmtree
    monkeypatch.setattr(
        shutil, "rmtree", lambda path, **how: (removed.append(path.name), rmtree(path, **how))
    )
    with pytest.raises(OSError, match="broken"), new_folder(tmp_path / "out") as scratch:
        (scratch / "file").touch()
    assert removed == [scratch.name]
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_new_file_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(run, "sync", synced.append)
    path = tmp_path / "records.jsonl"
    for n in (1, 1):
        with RecordFile(path) as file:
            file.append([response("a")])
        assert len(synced) == n
    for text in (b"torn", b"again"):
        path.write_bytes(path.read_bytes() + text)
        repair(path)
        assert synced == [tmp_path, tmp_path]


@pytest.mark.parametrize("read", [read_rows, read_whole_rows])
def test_a_line_of_brackets_is_a_broken_line(
    tmp_path: Path, read: Callable[[Path], Iterable[object]]
) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"a": 1}\n' + "[" * 100_000 + "\n")
    with pytest.raises(ConfigError, match=r"r\.jsonl:2: broken record: .*nested too deeply"):
        list(read(path))


def test_repair_leaves_a_whole_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"id": "a"}\n')
    repair(path)
    repair(tmp_path / "none.jsonl")
    assert path.read_bytes() == b'{"id": "a"}\n'
