"""Kill a run at seeded random moments, go on until it is done, and compare it with an unbroken one.

    PYTHONPATH=tests python tests/torture/kill.py --n 200 --seed 0

A killed process is a real one, ended by SIGKILL. Going on is killed too, one time in five.
"""

import collections
import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fake_run import content, start
from matplotlib.figure import Figure
from points import Points, torn_files
from tell import tell_of

from cai.engines.fake import FakeEngine
from cai.verify import verify

CAPACITY = 4
WINDOW = 2 * CAPACITY
"""Requests that the driver has under way at once: the batch whose work may be repeated."""
ENOUGH = 100
"""Of so many kills one has torn a line, or the moments are not where they should be."""
SETTINGS = ("revise.n_prompts=6", "sample.n_prompts=8", "evaluate.n_prompts=4")


class Outcome(NamedTuple):
    """What one kill came to."""

    moments: tuple[int, ...]
    torn: int
    """Deaths that left a part of a line."""
    lost: int
    duplicated: int
    differing: tuple[str, ...]
    repeated: int
    findings: int


def begin(folder: Path, points: Points) -> None:
    """The run: the fake engine, every stage, pictures that take no time to draw."""
    Figure.savefig = lambda self, file, **_: file.write(b"a picture")
    note_answers(folder.with_suffix(".asked"))
    points.install()
    start(folder, *SETTINGS)


def in_child(
    folder: Path, at: int | None, begin: Callable[[Path, Points], None] = begin
) -> tuple[int, int]:
    """A run in a process of its own, killed at moment `at`; its status and its moments."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            points = Points(at)
            begin(folder, points)
            os.write(writing, str(points.n).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    return status, int(said or 0)


def note_answers(path: Path) -> None:
    """Have the engine write the id of each request that it answers to `path`."""
    answer = FakeEngine._answer  # pyright: ignore[reportPrivateUsage]
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def noted(self: FakeEngine, request: Any) -> Any:
        os.write(handle, f"{request.id}\n".encode())
        return answer(self, request)

    FakeEngine._answer = noted  # pyright: ignore[reportPrivateUsage]


def killed(folder: Path, at: int, n_moments: int, chance: random.Random) -> tuple[list[int], int]:
    """Run, die at moment `at`, go on until done; the moments of all deaths, and how many tore."""
    moments, torn = list[int](), 0
    while True:
        status, _ = in_child(folder, at)
        if status == 0:
            return moments, torn
        if os.WIFEXITED(status):
            raise SystemExit(f"{folder}: the run failed after the kills at {moments}")
        assert os.WTERMSIG(status) == signal.SIGKILL
        moments.append(at)
        torn += bool(torn_files(folder))
        at = chance.randint(1, n_moments) if chance.random() < 0.2 else 0


def compare(run: Path, whole: dict[str, Counter[bytes]], moments: list[int], torn: int) -> Outcome:
    """What the deaths have done to a run."""
    found = content(run)
    asked = Counter(run.with_suffix(".asked").read_text().split())
    records = [name for name in whole if name.endswith(".jsonl")]
    return Outcome(
        tuple(moments),
        torn,
        lost=sum((whole[name] - found.get(name, Counter())).total() for name in records),
        duplicated=sum(
            n - whole[name][line]
            for name in records
            for line, n in found.get(name, Counter()).items()
            if n > whole[name][line] > 0
        ),
        differing=tuple(name for name in {*whole, *found} if whole.get(name) != found.get(name)),
        repeated=sum(n - 1 for n in asked.values()),
        findings=len(verify(run)),
    )


def torture(n: int, seed: int) -> dict[str, Any]:
    """The table of `n` kills."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        status, n_moments = in_child(folder / "whole", None)
        if status:
            raise SystemExit("the unbroken run failed")
        whole = content(folder / "whole")
        outcomes: list[Outcome] = []
        for number in range(n):
            run = folder / f"run-{number}"
            moments, torn = killed(run, chance.randint(1, n_moments), n_moments, chance)
            outcomes.append(compare(run, whole, moments, torn))
            shutil.rmtree(run)
    worst = max(outcome.repeated / max(1, len(outcome.moments)) for outcome in outcomes)
    kills = sum(len(outcome.moments) for outcome in outcomes)
    torn = sum(outcome.torn for outcome in outcomes)
    found = {
        "part": "kill",
        "runs": n,
        "moments": n_moments,
        "kills": kills,
        "kills_that_left_a_torn_line": torn,
        "lost": sum(outcome.lost for outcome in outcomes),
        "duplicated": sum(outcome.duplicated for outcome in outcomes),
        "differing": dict(collections.Counter(name for o in outcomes for name in o.differing)),
        "findings": sum(outcome.findings for outcome in outcomes),
        "requests_asked_again": sum(outcome.repeated for outcome in outcomes),
        "repeated_per_kill_at_most": worst,
        "window": WINDOW,
    }
    return found if torn or kills < ENOUGH else found | {"failed": "no kill tore a line"}


if __name__ == "__main__":
    tell_of(torture, 200, __doc__)
