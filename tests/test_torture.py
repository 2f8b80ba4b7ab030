"""The runner of `make torture`, and parts in a short form. Some others are beside their modules."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TORTURE = Path(__file__).parent / "torture"
NO_PARTS = {"run.py", "full_disk.py", "points.py", "promised.py", "tell.py"}


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("torture_run", TORTURE / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(TORTURE))  # as the script has it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(TORTURE))
    return module


def test_every_script_is_a_part_and_every_part_is_there(runner: ModuleType) -> None:
    paths = {part.path for part in runner.PARTS}
    assert not [path for path in paths if not path.is_file()]
    assert {path.name for path in TORTURE.glob("*.py")} - NO_PARTS <= {path.name for path in paths}


def test_rows(runner: ModuleType) -> None:
    part = runner.Part("torture/kill.py --n 200")
    line = {"part": "kill", "runs": 1200, "lost": 0, "share": 0.12345, "of": {"a": 1, "b": []}}
    (row,) = runner.rows_of(part, 0, f"a warning\n{json.dumps(line | {'seconds': 7})}\n", 9.0)
    assert row[:4] == (
        "kill",
        "tests/torture/kill.py --n 200",
        "1,200 runs",
        "lost 0, share 0.123, of a 1; b 0",
    )
    assert (row.seconds, row.ok) == (7.0, True)
    (row,) = runner.rows_of(runner.Part("test_verify.py"), 0, "...\n12 passed in 3.1s\n", 4.0)
    assert (row.part, row.count, row.result, row.ok) == (
        "test_verify",
        "12 tests",
        "passed all",
        True,
    )


@pytest.mark.parametrize(
    ("code", "output", "says"),
    [
        (0, json.dumps({"part": "p", "n": 3, "lost": 1}), "lost 1"),
        (0, json.dumps({"part": "p", "n": 3, "differing": {"a": 1}}), "differing a 1"),
        (1, json.dumps({"part": "p", "n": 3, "lost": 1}), "lost 1"),
        (
            0,
            json.dumps({"part": "p", "n": 3, "repeated_per_kill_at_most": 6.5, "window": 6}),
            "repeated per kill at most 6.5, window 6",
        ),
        (1, json.dumps({"part": "p", "n": 3, "lost": 0}) + "\nboom", "failed exit 1: boom"),
        (1, "1 failed, 12 passed in 3.1s", "failed exit 1: 1 failed, 12 passed in 3.1s"),
        (-9, "", "failed exit -9: it printed nothing"),
        (0, "", "failed exit 0: it printed nothing"),
    ],
)
def test_what_went_wrong_is_a_failed_row(
    runner: ModuleType, code: int, output: str, says: str
) -> None:
    bad = [
        row for row in runner.rows_of(runner.Part("torture/kill.py"), code, output, 1) if not row.ok
    ]
    assert [row.result for row in bad] == [says]
    assert f"FAILED {says}" in runner.line(bad[0])
    assert f"**failed**: {says}" in runner.table(bad, "1 minute")


UNHARMED = {"corrupt": 0, "differing": 0}
WATCHED = {"code": 0, "without_a_route": True, "strace": True, "ports_on_all_interfaces": 0}
KEPT: list[dict[str, Any]] = [
    {"part": "kill", "runs": 9, "kills": 9, "repeated_per_kill_at_most": 8.0, "window": 8},
    {
        "part": "trainer kill",
        "runs": 7,
        "kills": 9,
        "inside_a_save": 2,
        "repeated_steps_at_most": 2,
        "steps_between_saves": 2,
    },
    {"part": "kill, vLLM", "kills": 9, "records": 40, "p_first_changed_at_most": 1e-4},
    {
        "part": "signals",
        "runs": 20,
        "in_time": {"SIGINT": 2, "SIGINT twice": 5, "SIGTERM": 2, "SIGHUP": 3},
        "too_late": 10,
        "slow": 0,
        "unwritten_of_a_stop_at_most": 1,
    },
    {"part": "crowd", "processes": 20, "writers": 1, "done": 1, "exit_75": 19, "say_who": 19},
    {"part": "killed", "kills": 20, "takeover_s_at_most": 5.0, "command_goes_on_s_at_most": 5.0},
    {"part": "cut", "cuts": 9, "lost": 0, "set_aside_at_most": 1},
    {"part": "flip", "flips": 9, "refused": 9, "undetected": 0},
    {"part": "engine", "kills": 1, "texts_differing": 0, "errors": 0, "left_running": 0},
    {"part": "refused for ever: other commands", "runs": 9, "calls": 9, "corrupt": 0},
    {"part": "tmpfs: trainer", "sizes": 4, "full": 3, "unclean": [], "steps": 3, **UNHARMED},
    {"part": "tmpfs: run", "sizes": 4, "full": 3, **UNHARMED},
    {"part": "hostile model, vLLM", "templates": 52, "answered": 9, "executions": 0},
    {"part": "YAML, bombs", "count": 9, "crashes": 0, "max_mb": 200},
    {"part": "YAML, random bytes", "inputs": 9, "by": "hypothesis, since", "max_mb_grown": 200.0},
    {"part": "offline, fake", "sockets": 0, **WATCHED},
    {"part": "offline, real", "sockets": 90, **WATCHED},
]
SKIPPED = {"part": "tmpfs: run", "skipped": "needs root and unshare"}


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("kill", {"repeated_per_kill_at_most": 8.5}),
        ("kill", {"kills": 0}),
        ("kill", {"failed": "no kill tore a line"}),
        ("trainer kill", {"kills": 0}),
        ("trainer kill", {"inside_a_save": 0}),
        ("trainer kill", {"repeated_steps_at_most": 3}),
        ("signals", {"unwritten_of_a_stop_at_most": 2}),
        ("kill, vLLM", {"p_first_changed_at_most": 2e-4}),
        ("kill, vLLM", {"p_first_changed_at_most": None}),
        ("kill, vLLM", {"records": 0}),
        ("signals", {"too_late": 20}),
        ("signals", {"in_time": {"SIGINT": 5, "SIGINT twice": 5, "SIGTERM": 5, "SIGHUP": 1}}),
        ("signals", {"in_time": {"SIGINT": 5, "SIGINT twice": 5, "SIGTERM": 5}}),
        ("signals", {"in_time": {}}),
        ("signals", {"slow": 1}),
        ("crowd", {"writers": 3, "exit_75": 0, "say_who": 0}),
        ("crowd", {"writers": 2}),
        ("crowd", {"done": 0}),
        ("crowd", {"exit_75": 18}),
        ("crowd", {"say_who": 18}),
        ("killed", {"takeover_s_at_most": 5.1}),
        ("killed", {"takeover_s_at_most": None}),
        ("killed", {"command_goes_on_s_at_most": 5.1}),
        ("cut", {"set_aside_at_most": 2}),
        ("flip", {"refused": 0}),
        ("engine", {"texts_differing": 1}),
        ("engine", {"errors": 1}),
        ("engine", {"kills": 0}),
        ("tmpfs: trainer", {"full": 0}),
        ("tmpfs: trainer", {"steps": 2}),
        ("tmpfs: trainer", {"corrupt": 1}),
        ("tmpfs: trainer", {"differing": 1}),
        ("tmpfs: trainer", {"differing": None}),
        ("tmpfs: run", {"full": 0}),
        ("refused for ever: other commands", {"corrupt": 1}),
        ("refused for ever: other commands", {"corrupt": None}),
        ("hostile model, vLLM", {"answered": 0}),
        ("YAML, bombs", {"count": 0}),
        ("YAML, bombs", {"max_mb": 201}),
        ("YAML, random bytes", {"inputs": 0}),
        ("YAML, random bytes", {"by": None}),
        ("YAML, random bytes", {"max_mb_grown": 201.0}),
        ("offline, fake", {"code": 1}),
        ("offline, fake", {"ports_on_all_interfaces": 1}),
        ("offline, fake", {"without_a_route": False}),
        ("offline, fake", {"strace": False}),
        ("offline, real", {"without_a_route": False}),
        ("offline, real", {"sockets": 0}),
    ],
)
def test_a_row_that_breaks_a_promise_fails(
    runner: ModuleType, part: str, change: dict[str, Any]
) -> None:
    row = next(row for row in KEPT if row["part"] == part)
    assert runner.wrong(row) == []
    assert runner.wrong(row | change)


def test_a_row_that_was_skipped_says_so(runner: ModuleType) -> None:
    assert [runner.wrong(row) for row in (*KEPT, SKIPPED)] == [[]] * (len(KEPT) + 1)
    assert runner.wrong({"part": "crowd", "processes": 20})


def test_what_else_a_part_prints_is_no_row(runner: ModuleType) -> None:
    """Both streams share a file: a trainer's `{'loss': 1.2}` is no JSON."""
    noise = "{'loss': 1.2}\n{\"loss\": 1.2}\n[1]\n3\n" + "[" * 100_000 + "\n"
    line = json.dumps({"part": "kill", "runs": 2, "lost": 0})
    (row,) = runner.rows_of(runner.Part("torture/kill.py"), 0, noise + line + "\n{", 1.0)
    assert (row.part, row.ok) == ("kill", True)


def test_parts_that_ran_again_take_their_rows_places(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts = (runner.Part("torture/kill.py --n 200"), runner.Part("torture/disk.py"))
    docs, results = tmp_path / "page.md", tmp_path / "build" / "torture.json"
    docs.write_text(f"{runner.BEGIN}\n{runner.END}\n")
    lost = [3, 0]

    def run_part(part: Any) -> list[Any]:
        n = lost.pop(0) if "kill" in part.command else 0
        return [runner.row_of(part, {"part": part.path.stem, "runs": 9, "lost": n}, 60.0)]

    for name, value in (("PARTS", parts), ("DOCS", docs), ("RESULTS", results)):
        monkeypatch.setattr(runner, name, value)
    monkeypatch.setattr(runner, "run_part", run_part)
    assert runner.main(["disk.py"]) == 0
    assert not results.exists()
    assert runner.main([]) == 1
    assert "**failed**: lost 3" in docs.read_text()
    assert runner.main(["kill.py"]) == 0
    assert [row["part"] for row in json.loads(results.read_text())] == ["kill", "disk"]
    assert "failed" not in docs.read_text()
    assert "minutes" not in docs.read_text()
    assert "some parts again by themselves" in docs.read_text()


def test_the_table_is_put_between_its_markers(runner: ModuleType) -> None:
    page = f"before\n{runner.BEGIN}\nold\n{runner.END}\nafter\n"
    new = runner.rewrite(page, "| new |")
    assert new == f"before\n{runner.BEGIN}\n| new |\n{runner.END}\nafter\n"
    assert runner.rewrite(new, "| new |") == new
    runner.rewrite(runner.DOCS.read_text(), "")
    with pytest.raises(ValueError, match="expected the lines"):
        runner.rewrite("before", "x")


def test_a_part_is_named_with_or_without_its_arguments(runner: ModuleType) -> None:
    bombs = runner.Part("torture/yaml_fuzz.py bombs")
    assert bombs.names == {"yaml_fuzz.py", "yaml_fuzz.py bombs"}


def test_parts_that_are_not_there_are_an_error(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match=r"no such part: nothing\.py"):
        runner.main(["nothing.py"])
    monkeypatch.setattr(runner, "PARTS", (runner.Part("torture/gone.py"),))
    with pytest.raises(SystemExit, match=r"no such part: .*gone\.py"):
        runner.main([])


def test_a_part_that_hangs_is_ended(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tests" / "torture").mkdir(parents=True)
    script = tmp_path / "tests" / "torture" / "slow.py"
    script.write_text("import time\nprint('so far', flush=True)\ntime.sleep(600)\n")
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.setattr(runner, "LIMIT_S", 2)
    (row,) = runner.run_part(runner.Part("torture/slow.py"))
    assert (row.ok, row.part) == (False, "slow")


@pytest.mark.torture
@pytest.mark.parametrize(
    ("script", "unasked"),
    [
        ("kill.py --n 3 --seed 5", set()),
        ("trainer_kill.py --runs 3", set()),
        ("tmpfs.py run --step-kib 160", set()),
        ("signals.py --n 1", {"in_time", "too_late"}),
        ("files.py --flips 100 --step 50", set()),
        ("yaml_fuzz.py random 5", set()),
    ],
)
def test_a_part_in_a_short_form(runner: ModuleType, script: str, unasked: set[str]) -> None:
    """Keeps its promises, but for those that a short form says nothing of."""
    path = os.pathsep.join([str(TORTURE.parents[1]), str(TORTURE.parent)])
    command = [sys.executable, *f"{TORTURE}/{script}".split()]
    env = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    found = list(runner.said_in(done.stdout))
    assert done.returncode == 0, done.stderr
    assert found
    assert not [row for row in found if set(runner.wrong(row)) - unasked], found


def test_a_kill_tears_a_batch_or_comes_before_it(tmp_path: Path) -> None:
    """Moments 1 and 2 of a batch: nothing of it is written; a part of its lines."""
    script = """
import sys
from pathlib import Path
from points import Points
from run_folder import generation
from cai.records import Response
from cai.run import RecordFile
record = Response(id="a", prompt_id="p", sample=0, text="text", generation=generation())
with RecordFile(Path(sys.argv[1])) as file:
    Points(int(sys.argv[2])).install()
    file.append([record])
"""
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (TORTURE.parents[1], TORTURE.parent, TORTURE)))
    }
    for at, n_lines, torn in ((1, 0, False), (2, 0, True), (3, 1, False), (4, 1, False)):
        path = tmp_path / str(at) / "records.jsonl"
        command = [sys.executable, "-c", script, str(path), str(at)]
        assert subprocess.run(command, env=env, check=False).returncode == -9
        data = path.read_bytes()
        assert (data.count(b"\n"), not data.endswith(b"\n") and data != b"") == (n_lines, torn)
