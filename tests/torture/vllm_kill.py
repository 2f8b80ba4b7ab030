"""Kill a run with the real vLLM engine while it generates; go on, and compare with an unbroken run.

    PYTHONPATH=tests python tests/torture/vllm_kill.py --n 10 --seed 0

The embedded model answers, criticises, revises, samples and labels a few prompts. The sft stage
between is not trained (trainer_kill.py has that). Moments are counted from the first completion on:
an engine is loaded at each. A run is killed until it is done, about three times.
"""

import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from fake_run import start
from kill import in_child
from points import Points, torn_files
from tell import tell_of

import cai.stages.context
from cai.engines.base import Completion
from cai.engines.process import EngineProcess
from cai.run import read_rows
from cai.train.fake import run_fake_job
from cai.verify import verify

CAPACITY = 4
WINDOW = 2 * CAPACITY
"""Requests that the driver has under way at once."""
SETTINGS = (
    "engine.kind=vllm",
    f"engine.capacity={CAPACITY}",
    "engine.max_context=1024",
    "models.policy=smollm2-135m",
    "revise.n_prompts=5",
    "revise.n_helpful=2",
    "revise.rounds=1",
    "revise.response.max_tokens=24",
    "revise.critique.max_tokens=24",
    "revise.revision.max_tokens=24",
    "sample.n_prompts=6",
    "sample.sampling.max_tokens=24",
)
SCORES = {"sum", "p_first", "p_outside", "logprobs"}
"""What another batch changes in the last digits, and the checksum over it."""
FILES = ("01-revise/records.jsonl", "03-sample/records.jsonl", "04-label/records.jsonl")


class Difference(NamedTuple):
    """What a killed run holds beside an unbroken one."""

    lost: int
    duplicated: int
    differing: int
    """Records in which anything but scores is different."""
    p_first: float
    """The largest change of a label's P(first): sums of float32 in another order."""
    repeated: int
    findings: int


def begin(folder: Path, points: Points) -> None:
    """Stages revise to label; each completion's id goes into a file, the first starts the count."""
    poll = EngineProcess.poll
    asked = os.open(folder.with_suffix(".asked"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def noted(self: EngineProcess) -> list[Completion]:
        done = poll(self)
        os.write(asked, "".join(f"{completion.id}\n" for completion in done).encode())
        if done and not points.n:
            points.install()
            points.pass_()
        return done

    EngineProcess.poll = noted
    cai.stages.context.run_job = lambda job, folder, rows, _: run_fake_job(job, folder, rows)
    start(folder, *SETTINGS, until="label")


def records(run: Path) -> dict[str, list[dict[str, Any]]]:
    """The records of the three files by their ids."""
    found = dict[str, list[dict[str, Any]]]()
    for name in FILES:
        for row in read_rows(run / name):
            found.setdefault(row["id"], []).append(row)
    return found


def said(row: dict[str, Any]) -> dict[str, Any]:
    """What must be the same: all but `SCORES` and what the prefix cache held."""
    kept = {name: value for name, value in row.items() if name not in SCORES}
    made = {k: v for k, v in row["generation"].items() if k != "n_cached_tokens"}
    return kept | {"generation": made}


def compare(run: Path, whole: Path) -> Difference:
    """A killed run beside the unbroken one."""
    ours, theirs = records(run), records(whole)
    both = [(ours[id_][0], theirs[id_][0]) for id_ in ours.keys() & theirs.keys()]
    scores = [(a["p_first"], b["p_first"]) for a, b in both if a["type"] == "label"]
    unscored = sum((a is None) != (b is None) for a, b in scores)
    answered = Counter(run.with_suffix(".asked").read_text().split())
    return Difference(
        lost=len(theirs.keys() - ours.keys()),
        duplicated=sum(len(rows) - 1 for rows in ours.values()),
        differing=len(ours.keys() - theirs.keys())
        + sum(said(a) != said(b) for a, b in both)
        + unscored,
        p_first=max(abs(a - b) for a, b in scores if None not in (a, b)),
        repeated=sum(n - 1 for n in answered.values()),
        findings=len(verify(run)),
    )


def killed(folder: Path, n: int, n_moments: int, chance: random.Random) -> tuple[int, int]:
    """Run and go on, killed at most `n` times, until it is done; the kills, and how many tore."""
    torn = 0
    for n_kills in range(n + 1):
        at = chance.randint(1, max(1, n_moments // 3)) if n_kills < n else None
        status, _ = in_child(folder, at, begin)
        if status == 0:
            return n_kills, torn
        if os.WIFEXITED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            raise SystemExit(f"{folder}: the run failed after {n_kills} kills")
        torn += bool(torn_files(folder))
    raise AssertionError("the last attempt is not killed")


def torture(n: int, seed: int) -> dict[str, Any]:
    """The result of `n` kills."""
    chance, kills, torn, outcomes = random.Random(seed), list[int](), 0, list[Difference]()
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        status, n_moments = in_child(whole, None, begin)
        if status:
            raise SystemExit("the unbroken run failed")
        while sum(kills) < n:
            run = Path(scratch) / "run"
            n_kills, n_torn = killed(run, n - sum(kills), n_moments, chance)
            kills.append(n_kills)
            torn += n_torn
            outcomes.append(compare(run, whole))
            shutil.rmtree(run)
            run.with_suffix(".asked").unlink()
        n_records = len(records(whole))
    return {
        "part": "kill, vLLM",
        "kills": sum(kills),
        "runs": len(kills),
        "moments": n_moments,
        "records": n_records,
        "kills_that_left_a_torn_line": torn,
        "lost": sum(o.lost for o in outcomes),
        "duplicated": sum(o.duplicated for o in outcomes),
        "differing": sum(o.differing for o in outcomes),
        "p_first_changed_at_most": max(o.p_first for o in outcomes),
        "findings": sum(o.findings for o in outcomes),
        "completions_received_again": sum(o.repeated for o in outcomes),
        "repeated_per_kill_at_most": max(
            o.repeated / max(1, k) for o, k in zip(outcomes, kills, strict=True)
        ),
        "window": WINDOW,
    }


if __name__ == "__main__":
    tell_of(torture, 10, __doc__)
