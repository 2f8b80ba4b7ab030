"""`cai verify`: every changed file of a run is found, and nothing else."""

import json
import shutil
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fake_run import start
from run_folder import generation

from cai.cli import main
from cai.errors import Damaged, RunConflict, RunLocked
from cai.lock import RunLock
from cai.manifest import Manifest, seal
from cai.records import Response
from cai.run import RecordFile, read_json, read_records, write_json
from cai.verify import verify

NOT_VERIFIED = [
    "report.md", "report.html", "plots/*",  # made from the rest
    "manifest.json",  # sealed by its content
    ".lock", "0?-*/log.txt", "0?-*/*.log", "0?-*/.trainer.lock", "0?-*/trainer/*",
]  # fmt: skip
"""What `cai verify --help` excepts, by this test's own words; `*` stands for slashes too."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(tmp_path_factory.mktemp("verify") / "run")


def artefact_files(run: Path) -> list[Path]:
    """Every file that a run must be able to vouch for."""
    files = (path.relative_to(run) for path in sorted(run.rglob("*")) if path.is_file())
    return [
        path
        for path in files
        if not any(fnmatchcase(str(path), pattern) for pattern in NOT_VERIFIED)
    ]


def test_a_run_is_as_it_was_written(whole: Path) -> None:
    assert verify(whole) == []
    names = {path.name for path in artefact_files(whole)}
    assert {"constitution.yaml", "records.jsonl", "done.json", "config.json"} <= names


def test_every_changed_or_missing_file_is_found(whole: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    for name in artefact_files(run):
        path = run / name
        before = path.read_bytes()
        flipped = bytes([before[0] ^ 1]) + before[1:] if before else b"x"
        for data in (flipped, before + b"\n", before[: len(before) // 2] or b"x"):
            path.write_bytes(data)
            assert str(name) in {finding.path for finding in verify(run)}, name
        path.unlink()
        assert (str(name), "missing") in {finding[:2] for finding in verify(run)}, name
        path.write_bytes(before)
    assert verify(run) == []


@pytest.mark.parametrize("change", [("0.1.0", "0.1.1"), ("{", "[")])
def test_a_changed_manifest_is_found(whole: Path, tmp_path: Path, change: tuple[str, str]) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    text = (run / "manifest.json").read_text()
    assert change[0] in text
    (run / "manifest.json").write_text(text.replace(*change, 1))
    assert [finding[:2] for finding in verify(run)] == [("manifest.json", "changed")]


def test_every_flipped_bit_of_a_manifest_is_found(tmp_path: Path) -> None:
    """A byte that is no UTF-8, another key, another number, no JSON: found, and never raised."""
    run = tmp_path / "runs" / "run"
    run.mkdir(parents=True)
    manifest = Manifest.create(run, {}, {"prompts.jsonl": "0"}, {})
    manifest.data |= {"versions": {}, "hardware": {"memory_gib": 0.30000000000000004}}
    manifest.write()
    path = run / "manifest.json"
    data = path.read_bytes()
    for place in range(len(data)):
        for bit in range(8):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            assert [found[:2] for found in verify(run)] == [("manifest.json", "changed")]
    path.write_bytes(data)
    assert [found[:2] for found in verify(run)] == [("inputs/prompts.jsonl", "missing")]


@pytest.mark.parametrize(
    "text",
    ['{"name": Infinity}', '{"format": 9, "cai": "9.0", "sum": "x"}'],
)
def test_a_manifest_of_something_else_is_not_called_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RunConflict):
        verify(tmp_path)


def test_a_manifest_that_lacks_almost_everything_is_not_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 3, "cai": NaN}')
    assert [found[:2] for found in verify(tmp_path)] == [("manifest.json", "changed")]


def test_the_commands_say_that_a_manifest_is_damaged(whole: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run, other = shutil.copytree(whole, runs / "run"), shutil.copytree(whole, runs / "other")
    path = run / "manifest.json"
    data = path.read_bytes()
    for before, after in (
        (b'"format"', b'"\xe6ormat"'),
        (b'"format": 3', b'"format": 2'),
        (b'"models"', b'"mddels"'),
        (b"{", b"["),
    ):
        path.write_bytes(data.replace(before, after, 1))
        result = command(run)
        assert result.exit_code == 5, result.output
        assert "manifest.json: changed" in result.output
        listed = CliRunner().invoke(main, ["runs", "--folder", str(runs), "--json"])
        assert {row["name"]: row["status"] for row in json.loads(listed.output)} == {
            "run": "damaged",
            other.name: "done",
        }
    path.write_bytes(data)
    assert verify(run) == []


def damage(path: Path, index: int) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[index] = lines[index].replace(b'"text":"', b'"text":"!', 1)
    path.write_bytes(b"".join(lines))


def test_damaged_lines_of_an_unfinished_stage_are_asked_again(whole: Path, tmp_path: Path) -> None:
    run = start(tmp_path / "run", until="revise")
    path = run / "01-revise" / "records.jsonl"
    before = sorted(record.id for record in read_records(path))
    (run / "01-revise" / "done.json").unlink()
    damage(path, 3)
    with pytest.raises(Damaged, match=r"records\.jsonl:4: broken record.*cai verify"):
        start(run, until="revise")
    path.write_bytes(path.read_bytes()[:-7])
    manifest = Manifest.load(run)
    manifest.stop("revise", "killed", 0.0)
    name = "01-revise/records.jsonl"
    assert [finding[:2] for finding in verify(run)] == [(name, "torn"), (name, "damaged")]
    assert len(verify(run, repairs=True)) == 2
    assert verify(run) == []
    start(run, until="revise")
    assert sorted(record.id for record in read_records(path)) == before
    assert len(path.with_suffix(".torn").read_bytes().splitlines()) == 2
    assert verify(run) == []


@pytest.mark.parametrize("stage", ["01-revise/records.jsonl", "06-rl/select-sft.jsonl"])
@pytest.mark.parametrize(
    ("before", "after"), [(b"text", b"tezt"), (b"\n", b"\r\n"), (b"\n", b"\x0b")]
)
def test_a_record_file_without_a_whole_line_is_one(
    tmp_path: Path, stage: str, before: bytes, after: bytes
) -> None:
    """One record, one flipped bit of it; line ends that a tool has changed."""
    run = tmp_path / "run"
    path = run / stage
    path.parent.mkdir(parents=True)
    Manifest.create(run, {}, {}, {}).write()
    with RecordFile(path) as file:
        file.append([Response(id="a", prompt_id="p", sample=0, text="t", generation=generation())])
    assert verify(run) == []
    path.write_bytes(path.read_bytes().replace(before, after, 1))
    (found,) = verify(run)
    assert (found.path, found.what) == (stage, "torn" if after == b"\x0b" else "damaged")
    assert len(verify(run, repairs=True)) == 1
    assert verify(run) == []
    assert path.read_bytes() == b""
    assert path.with_suffix(".torn").read_bytes()


def test_a_finished_stage_is_not_repaired(whole: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    path = run / "01-revise" / "records.jsonl"
    damage(path, 0)
    damaged = path.read_bytes()
    assert {finding.what for finding in verify(run, repairs=True)} == {"changed", "damaged"}
    assert path.read_bytes() == damaged


def test_a_run_at_work_is_not_repaired(whole: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    with RunLock(run):
        assert verify(run) == []
        with pytest.raises(RunLocked):
            verify(run, repairs=True)


def test_the_command_says_what_it_does_not_verify() -> None:
    said = " ".join(CliRunner().invoke(main, ["verify", "--help"]).output.split())
    for name in ("report.md", "report.html", "plots/", "logs", "trainer/", "*.torn"):
        assert name in said, name


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


def test_the_command_says_what_is_wrong(whole: Path, tmp_path: Path) -> None:
    result = command(whole)
    assert (result.exit_code, result.output) == (0, f"{whole}: as it was written\n")
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "inputs" / "constitution.yaml").write_text("x")
    (run / "config.json").unlink()
    result = command(run)
    assert result.exit_code == 5
    assert "inputs/constitution.yaml: changed" in result.output
    assert "config.json: missing" in result.output
    result = command(run, "--json")
    assert result.exit_code == 5
    assert {row["what"] for row in json.loads(result.output)} == {"changed", "missing"}
    assert command(tmp_path / "none").exit_code == 2


def test_another_format_is_refused_by_whoever_reads(whole: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    manifest, data = read_json(run / "manifest.json"), tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    for number, way in ((99, "pip install -U cai-toolkit"), (1, "run it again")):
        other = manifest | {"format": number}
        write_json(run / "manifest.json", other | {"sum": seal(other)})
        for reading in (
            ["verify", run], ["show", run], ["export", run, "--format", "trl", "--out", tmp_path / "out"],
            ["compare", run, run], ["score", run, "--data", data], ["judge-test", run, "--data", data],
        ):  # fmt: skip
            result = CliRunner().invoke(main, [str(part) for part in reading])
            assert result.exit_code == 2, reading
            assert f"was written in format {number}" in result.output, reading
            assert way in result.output, reading
