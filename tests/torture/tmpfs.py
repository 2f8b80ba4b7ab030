"""A run, and a real trainer, on a file system that is full, until it has grown enough.

    PYTHONPATH=tests python tests/torture/tmpfs.py run
    PYTHONPATH=tests python tests/torture/tmpfs.py trainer

Needs root: the file system is a tmpfs in a mount namespace of its own.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from disk import run_command
from fake_run import content
from full_disk import in_child

from cai import space
from cai.errors import CaiError, DiskFull
from cai.train import folder as files
from cai.train.launch import run_job
from cai.verify import verify

INSIDE = "CAI_TMPFS"
KIB = 1 << 10
N_STEPS = 3
LIMIT = 1e-6
"""Between the weights of two equal trainings, as in trainer_kill.py."""


def can_mount() -> bool:
    """Whether this process may make a mount namespace and mount into it."""
    test = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /mnt"]
    return (
        bool(shutil.which("unshare")) and not subprocess.run(test, capture_output=True).returncode
    )


def resize(folder: Path, size: int) -> None:
    """Mount a tmpfs of `size` bytes at `folder`, or let the one there grow."""
    how = f"remount,size={size}" if os.path.ismount(folder) else f"size={size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", how, "none", str(folder)], check=True)


def grown_run(disk: Path, whole: Path, step: int) -> dict[str, Any]:
    """The same command each time the disk has grown by `step` bytes, until it is done."""
    end = in_child(run_command(whole), None)
    if end.code:
        raise SystemExit(f"the unbroken run failed: {end.said}")
    # the look for free space before a run would refuse each of these sizes
    space.RECORDS = 0
    run, size, codes, unclean, corrupt = disk / "run", 0, list[int](), list[str](), 0
    while not codes or codes[-1]:
        size += step
        resize(disk, size)
        end = in_child(run_command(run), None)
        codes.append(end.code)
        if end.code and not end.is_clean:
            unclean.append(end.said[-500:])
        if run.exists():
            corrupt += any(finding.what in ("damaged", "changed") for finding in verify(run))
        if len(codes) > 400:
            break
    return {
        "part": "tmpfs: run",
        "sizes": len(codes),
        "needs_kib": size // KIB,
        "full": codes.count(DiskFull.exit_code),
        "unclean": unclean,
        "corrupt": corrupt,
        "differing": int(content(run) != content(whole) or bool(verify(run))),
    }


def grown_trainer(disk: Path, scratch: Path, factor: float) -> dict[str, Any]:
    """A real SFT job of a tiny model, each time with `factor` times the room."""
    from tiny_fixtures import make_tiny
    from tiny_model import distance, policy, sft_job, sft_rows

    tiny, whole, run = scratch / "tiny", scratch / "whole", disk / "sft"
    make_tiny(tiny)
    job = sft_job(str(tiny), None, max_steps=N_STEPS, save_strategy="steps", save_steps=1)
    unbroken = run_job(job, whole, sft_rows(12), lambda _: None)
    size, full, corrupt, other = 8 * KIB, 0, 0, list[str]()
    while True:
        resize(disk, size)
        try:
            result = run_job(job, run, sft_rows(12), lambda _: None)
            break
        except DiskFull as error:
            full += 1
            print(error, file=sys.stderr)
        except (CaiError, OSError) as error:
            other.append(repr(error)[:500])
        corrupt += is_corrupt(run)
        size = int(size * factor)
        if size > 64 << 20:
            raise SystemExit(f"it never fits: {other}")
    one, two = policy(whole / files.CHECKPOINT), policy(run / files.CHECKPOINT)
    apart = distance(one, two)
    logged = [line["step"] for line in files.read_metrics(run)]
    same = logged == [*range(1, N_STEPS + 1)] and result["n_steps"] == unbroken["n_steps"]
    return {
        "part": "tmpfs: trainer",
        "sizes": full + len(other) + 1,
        "needs_kib": size // KIB,
        "full": full,
        "unclean": other,
        "corrupt": corrupt,
        "steps": result["n_steps"],
        "differing": int(apart >= LIMIT or not same),
        "distance": apart,
    }


def is_corrupt(run: Path) -> bool:
    """Whether what a refused training left says that it is whole, and is not."""
    result = run / files.RESULT
    sealed = [path for path in files.checkpoints(run) if (path / files.SUMS).exists()]
    torn = result.exists() and files.read_json(result) is None
    return torn or not all(map(files.is_complete, sealed))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", choices=["run", "trainer"])
    parser.add_argument("--factor", type=float, default=2.0)
    parser.add_argument("--step-kib", type=int, default=16)
    options = parser.parse_args()
    part: str = options.part
    if not os.environ.get(INSIDE):
        if not can_mount():
            print(json.dumps({"part": f"tmpfs: {part}", "skipped": "needs root and unshare"}))
            return
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "-m", sys.executable, *sys.argv])
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        disk, beside = Path(scratch, "disk"), Path(scratch, "beside")
        disk.mkdir()
        if part == "run":
            result = grown_run(disk, beside, options.step_kib * KIB)
        else:
            result = grown_trainer(disk, beside, options.factor)
        print(json.dumps(result | {"seconds": round(time.monotonic() - started, 1)}))
        subprocess.run(["umount", str(disk)], check=True)


if __name__ == "__main__":
    main()
