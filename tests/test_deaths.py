"""What a child died of, by its exit code, its log and the kernel's count of kills."""

import signal
from pathlib import Path

import pytest
from test_supervise import finish, requests_of

from cai import deaths
from cai.deaths import cause_of, n_oom_kills
from cai.engines.base import Completion
from cai.engines.supervise import Supervised
from cai.errors import Cause, EngineError

SIGKILL = -signal.SIGKILL


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc and a /sys/fs/cgroup without a file."""
    monkeypatch.setattr(deaths, "PROC", tmp_path / "proc")
    monkeypatch.setattr(deaths, "CGROUPS", tmp_path / "cgroup")
    (tmp_path / "proc" / "self").mkdir(parents=True)
    return tmp_path


def count(path: Path, n: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"pgfault 7\noom 9\noom_kill {n}\noom_group_kill 5\n")


@pytest.mark.parametrize(
    ("code", "log", "before", "now", "cause"),
    [
        (SIGKILL, "", 3, 3, "killed"),
        (SIGKILL, "", 3, 4, "memory"),
        (SIGKILL, "", 3, None, "memory"),
        (SIGKILL, "", None, 3, "memory"),
        (SIGKILL, "", None, None, "memory"),
        (137, "", 0, 0, "killed"),
        (137, "", 0, 1, "memory"),
        (SIGKILL, "CUDA out of memory", 3, 3, "memory"),
        (1, "MemoryError", 3, 3, "memory"),
        (-signal.SIGSEGV, "", 3, 4, "crash"),
        (-signal.SIGTERM, "", 3, 3, "crash"),
        (1, "ValueError: no", 3, 4, "crash"),
        (None, "", 3, 4, "crash"),
    ],
)
def test_what_a_child_died_of(
    kernel: Path, code: int | None, log: str, before: int | None, now: int | None, cause: Cause
) -> None:
    if now is not None:
        count(kernel / "proc" / "vmstat", now)
    assert cause_of(code, log, before) == cause


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("0::/user.slice/x", "user.slice/x/memory.events"),
        ("0::/", "memory.events"),
        ("4:memory:/a/b", "memory/a/b/memory.oom_control"),
        ("4:cpu,memory:/a:b", "memory/a:b/memory.oom_control"),
    ],
)
def test_kills_are_counted_by_machine_and_by_group(kernel: Path, line: str, file: str) -> None:
    assert n_oom_kills() is None
    (kernel / "proc" / "self" / "cgroup").write_text(f"9:cpuset:/\n{line}\n")
    assert n_oom_kills() is None, "no file of it tells"
    count(kernel / "cgroup" / file, 2)
    assert n_oom_kills() == 2
    count(kernel / "proc" / "vmstat", 40)
    assert n_oom_kills() == 42
    (kernel / "proc" / "vmstat").write_text("pgfault 7\n")
    assert n_oom_kills() == 2


class Dying:
    """An engine that dies of one cause after the other, with all that it was asked under way."""

    model, capacity = "m", 8

    def __init__(self, causes: list[Cause]) -> None:
        self._causes, self._asked = causes, list[str]()

    def submit(self, request: object) -> None:
        self._asked.append(request.id)  # type: ignore[attr-defined]

    def poll(self) -> list[Completion]:
        if self._causes and self._asked != ["hello"]:
            cause = self._causes.pop(0)
            raise EngineError("it died", cause, f"died of {cause}")
        done, self._asked = self._asked, []
        return [Completion(id_, "x", "stop") for id_ in done]

    def close(self) -> None:
        self._asked = []


@pytest.mark.parametrize(
    ("causes", "outside", "lowered"),
    [
        (["killed"], 1, False),
        (["killed", "killed"], 1, True),
        (["killed", "crash", "killed"], 2, False),
        (["memory"], 0, True),
        (["crash", "crash"], 0, False),
    ],
)
def test_one_kill_from_outside_lowers_nothing_a_second_in_a_row_does(
    causes: list[Cause], outside: int, lowered: bool
) -> None:
    said, left = list[str](), list(causes)
    engine = Supervised(lambda: Dying(left), 20, said.append)  # type: ignore[arg-type]
    for request in requests_of(*(f"text {i}" for i in range(8))):
        engine.submit(request)
    assert len(finish(engine, 8)) == 8
    assert sum("from outside" in line and "earlyoom" in line for line in said) == outside
    assert any("lower engine.capacity" in line for line in said) == lowered
