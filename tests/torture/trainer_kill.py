"""Kill trainers at seeded steps and inside a save, go on until done, compare with unbroken ones.

    PYTHONPATH=tests python tests/torture/trainer_kill.py --seed 0

TRL's trainers on a tiny model, each in a process of its own that ends by SIGKILL. The processes are
forked from one that has imported torch: that alone takes a trainer ten seconds.
"""

import argparse
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

# before torch is imported: its threads would not survive the fork
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

from tiny_fixtures import make_tiny
from tiny_model import (
    classifier,
    distance,
    pairs,
    policy,
    prompts,
    reward_job,
    rl_job,
    sft_job,
    sft_rows,
)
from transformers import Trainer

from cai.environment import TELEMETRY_OFF
from cai.train import child, reward, rl, sft  # noqa: F401
from cai.train import folder as files
from cai.train.jobs import Job

N_STEPS, EVERY = 8, 2
TRAINER = {
    "max_steps": N_STEPS,
    "save_strategy": "steps",
    "save_steps": EVERY,
    "learning_rate": 1e-2,
}
RUNS = ("sft", "sft", "sft", "reward", "reward", "rl", "rl")
SAVED_IN = (2, 4)
"""Runs that die inside a save: one of SFT, one of the reward model."""
LOGGING = ("before", "torn", "after")
"""Beside the line of metrics of a step."""
SAVING = {
    "weights": (Trainer, "_save_optimizer_and_scheduler"),
    "optimizer": (Trainer, "_save_rng_state"),
    "all": (files, "seal"),
    "durable": (files, "write_atomic"),
}
"""By what a checkpoint has on disk: the call that never comes. None of them leaves it its sums."""
LIMIT = 1e-6


class Death(NamedTuple):
    """Where a process ends."""

    place: str
    step: int

    def arm(self) -> None:
        """Have this process end there."""
        if self.place in LOGGING:
            append = files.append_metrics
            files.append_metrics = lambda folder, line: self.log(append, folder, line)
        else:
            owner, name = SAVING[self.place]
            call = getattr(owner, name)

            def dying(*args: Any, **options: Any) -> Any:
                if any(f"checkpoint-{self.step}" in str(arg) for arg in args):
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **options)

            setattr(owner, name, dying)

    def log(self, append: Any, folder: Path, line: dict[str, Any]) -> None:
        if line["step"] != self.step:
            append(folder, line)
            return
        if self.place != "before":
            append(folder, line)
        if self.place == "torn":
            path = folder / files.METRICS
            os.truncate(path, path.stat().st_size - 20)
        os.kill(os.getpid(), signal.SIGKILL)


class Outcome(NamedTuple):
    """What the deaths of one run came to."""

    deaths: list[Death]
    lost: int
    duplicated: int
    differing: bool
    wrong_starts: int
    repeated: int
    distance: float


def in_child(job: Job, folder: Path, death: Death | None) -> int:
    """The trainer's process, forked; its status."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    code = 1
    try:
        log = os.open(folder / files.LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if death:
            death.arm()
        sys.argv = [job.kind, str(folder)]
        code = child.main()
    finally:
        if sys.exc_info()[0]:
            traceback.print_exc()
        os._exit(code)


def run(job: Job, folder: Path, rows: list[dict[str, Any]], deaths: list[Death]) -> list[int]:
    """Train to the end through all of the deaths; the steps that each attempt started from."""
    starts: list[int] = []
    for death in (*deaths, None):
        files.prepare(job, folder, rows)
        starts.append(files.rewind(folder))
        status = in_child(job, folder, death)
        if status != (signal.SIGKILL if death else 0):
            raise SystemExit(
                f"{job.kind}: {death}: status {status}\n{(folder / files.LOG).read_text()}"
            )
        if death and death.place in SAVING:
            unsealed = folder / files.TRAINER / f"checkpoint-{death.step}"
            assert unsealed.is_dir()
            assert not (unsealed / files.SUMS).exists()
    return starts


def draw(number: int, chance: random.Random) -> list[Death]:
    """One death, and in the first run of each kind another while going on."""
    n = 2 if RUNS.index(RUNS[number]) == number else 1
    if number in SAVED_IN:
        return [Death(chance.choice(list(SAVING)), EVERY * chance.randint(1, N_STEPS // EVERY))]
    steps = sorted(chance.sample(range(EVERY + 1, N_STEPS + 1), n))
    return [Death(chance.choice(LOGGING), step) for step in steps]


def last_whole(death: Death) -> int:
    """The checkpoint that there must be after a death: of the step before it, at the latest."""
    return (death.step - 1) // EVERY * EVERY


def compare(job: Job, whole: Path, folder: Path, deaths: list[Death], starts: list[int]) -> Outcome:
    """What the deaths have done to a run."""
    one, other = files.read_metrics(whole), files.read_metrics(folder)
    logged = [line["step"] for line in other]
    load = classifier if job.kind == "reward" else policy
    # new rollouts are drawn after a restart; what was before it stays
    drawn = job.kind == "rl"
    names = [f"{files.CANDIDATES}/step-{n}" for n in range(EVERY, min(starts[1:]) + 1, EVERY)]
    names = names if drawn else [files.CHECKPOINT]
    n_equal = min(starts[1:]) if drawn else N_STEPS
    apart = max((distance(load(whole / n), load(folder / n)) for n in names), default=0.0)
    losses = (abs(a["loss"] - b["loss"]) for a, b in zip(one, other, strict=False))
    apart = max(apart, *list(losses)[:n_equal], 0.0)
    results = [json.loads((path / files.RESULT).read_text()) for path in (whole, folder)]
    same = ("n_steps", "candidates", "n_tokens", "n_train")
    return Outcome(
        deaths,
        lost=len(set(range(1, N_STEPS + 1)) - set(logged)),
        duplicated=len(logged) - len(set(logged)),
        differing=apart >= LIMIT or any(results[0].get(n) != results[1].get(n) for n in same),
        wrong_starts=starts != [0, *map(last_whole, deaths)],
        repeated=max(d.step - start for d, start in zip(deaths, starts[1:], strict=True)),
        distance=apart,
    )


def jobs(scratch: Path, tiny: str) -> dict[str, tuple[Job, list[dict[str, Any]]]]:
    """A job of each kind and its rows; RL's reward model is the one of the unbroken reward job."""
    model = str(scratch / "whole-reward" / files.CHECKPOINT)
    return {
        "sft": (sft_job(tiny, **TRAINER), sft_rows(12)),
        "reward": (reward_job(tiny, lora=None, **TRAINER), pairs(0.8, 12)),
        "rl": (rl_job(tiny, model, n_checkpoints=N_STEPS // EVERY, **TRAINER), prompts(12)),
    }


def torture(seed: int, n: int, scratch: Path) -> dict[str, Any]:
    """The table of the kills in the first `n` of `RUNS`."""
    chance, kinds = random.Random(seed), RUNS[:n]
    tiny = scratch / "tiny"
    make_tiny(tiny)
    table = jobs(scratch, str(tiny))
    for kind, (job, rows) in table.items():
        if kind in kinds:
            run(job, scratch / f"whole-{kind}", rows, [])
    outcomes: list[Outcome] = []
    for number, kind in enumerate(kinds):
        (job, rows), deaths = table[kind], draw(number, chance)
        folder, whole = scratch / f"run-{number}", scratch / f"whole-{kind}"
        starts = run(job, folder, rows, deaths)
        outcomes.append(compare(job, whole, folder, deaths, starts))
        logging.info("%s: %s", kind, outcomes[-1])
    deaths = [death for outcome in outcomes for death in outcome.deaths]
    return {
        "part": "trainer kill",
        "runs": len(kinds),
        "kills": len(deaths),
        "inside_a_save": sum(death.place in SAVING for death in deaths),
        "lost": sum(outcome.lost for outcome in outcomes),
        "duplicated": sum(outcome.duplicated for outcome in outcomes),
        "differing": sum(outcome.differing for outcome in outcomes),
        "wrong_starts": sum(outcome.wrong_starts for outcome in outcomes),
        "repeated_steps_at_most": max(outcome.repeated for outcome in outcomes),
        "steps_between_saves": EVERY,
        "distance_at_most": max(outcome.distance for outcome in outcomes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=len(RUNS))
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING)
    os.environ |= TELEMETRY_OFF
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        result = torture(options.seed, options.runs, Path(scratch))
    print(json.dumps(result | {"seconds": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    main()
