"""Stop a run by a signal at seeded random moments, go on, and compare it with an unbroken one.

    PYTHONPATH=tests python tests/torture/signals.py --n 5 --seed 0

Processes of their own on a fake engine that takes its time, trainers included. At every fifth
moment the answers would take longer than anybody waits.
"""

import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from fake_run import content
from slow_run import SlowRun
from tell import tell_of

from cai.verify import verify

KINDS = {
    "SIGINT": (signal.SIGINT,),
    "SIGINT twice": (signal.SIGINT, signal.SIGINT),
    "SIGTERM": (signal.SIGTERM,),
    "SIGHUP": (signal.SIGHUP,),
}
SOON = {"ANSWER_S": 0.05, "TRAIN_S": 0.05}
LATE = {"ANSWER_S": 100.0, "TRAIN_S": 100.0}
LIMIT_S = 10.0
Content = dict[str, Counter[bytes]]


class Outcome(NamedTuple):
    """What one stop came to; all but the first three, `unwritten` and `repeated` are mistakes."""

    kind: str
    seconds: float
    too_late: bool
    """It had ended by itself."""
    unwritten: int
    """Requests that the engine had and that are no records, though there was time."""
    repeated: int
    wrong_code: int
    slow: int
    tracebacks: int
    processes_left: int
    findings: int
    lost: int
    duplicated: int
    differing: int


def stop(folder: Path, kind: str, late: bool, chance: random.Random, whole_s: float) -> Outcome:
    """Stop a run at a random moment; see what is left, and go on."""
    run = SlowRun(folder, **(LATE if late else SOON))
    time.sleep(chance.uniform(0, whole_s))
    too_late = run.process.poll() is not None
    code, said, seconds = run.send(*KINDS[kind], pause_s=chance.uniform(0, 0.2))
    first = run.asked()
    written = folder.exists() and b"".join(p.read_bytes() for p in folder.glob("0*/*.jsonl"))
    unwritten = sum(id.encode() not in (written or b"") for id in first)
    left = len(run.left())
    again = SlowRun(folder, ANSWER_S=0, TRAIN_S=0)
    if again.end()[0]:
        raise SystemExit(f"{folder}: it does not go on after {kind}")
    return Outcome(
        kind,
        seconds,
        too_late,
        unwritten=0 if late or len(KINDS[kind]) > 1 else unwritten,
        repeated=len({*first} & {*again.asked()}),
        wrong_code=code != (0 if too_late else 128 + KINDS[kind][0]),
        slow=seconds > LIMIT_S,
        tracebacks="Traceback" in said,
        processes_left=left,
        findings=len(verify(folder)),
        lost=0,
        duplicated=0,
        differing=0,
    )


def compare(outcome: Outcome, found: Content, whole: Content) -> Outcome:
    """The outcome with what differs from the unbroken run."""
    records = [name for name in whole if name.endswith(".jsonl")]
    pairs = [(whole[name], found.get(name, Counter[bytes]())) for name in records]
    return outcome._replace(
        lost=sum((expected - there).total() for expected, there in pairs),
        duplicated=sum(n - a[line] for a, b in pairs for line, n in b.items() if n > a[line] > 0),
        differing=sum(whole.get(name) != found.get(name) for name in {*whole, *found}),
    )


def torture(n: int, seed: int) -> dict[str, Any]:
    """The table of `n` moments for each kind of stop."""
    chance = random.Random(seed)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as scratch:
        started = time.monotonic()
        run = SlowRun(Path(scratch) / "whole", **SOON)
        if run.end()[0]:
            raise SystemExit("the unbroken run failed")
        whole, whole_s = content(run.folder), time.monotonic() - started
        for number in range(n):
            for kind in KINDS:
                folder = Path(scratch) / "run"
                outcome = stop(folder, kind, number % 5 == 4, chance, whole_s)
                outcomes.append(compare(outcome, content(folder), whole))
                shutil.rmtree(folder)
    counted = ("too_late", *Outcome._fields[Outcome._fields.index("unwritten") :])
    most = max(outcome.unwritten for outcome in outcomes)
    return {
        "part": "signals",
        "runs": len(outcomes),
        "seconds_at_most": {
            kind: round(max(o.seconds for o in outcomes if o.kind == kind), 1) for kind in KINDS
        },
        "in_time": {
            kind: sum(o.kind == kind and not o.too_late for o in outcomes) for kind in KINDS
        },
        **{name: sum(getattr(outcome, name) for outcome in outcomes) for name in counted},
        "unwritten_of_a_stop_at_most": most,
    }


if __name__ == "__main__":
    tell_of(torture, 5, __doc__)
