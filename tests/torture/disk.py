"""Refuse a run the room it asks for, at every call that needs some; then let it go on.

    PYTHONPATH=tests python tests/torture/disk.py

Each such call in its turn is refused, once; then it and every later one; then those of the other
commands that write. tmpfs.py does it with a real file system.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import suite_rows
from fake_run import content
from full_disk import in_child
from kill import SETTINGS
from tell import tell

import cai.score
from cai.errors import Damaged
from cai.models import model_for
from cai.run import read_rows
from cai.train.fake import run_fake_job
from cai.verify import verify

TORN = Path("torn", "01-revise", "records.jsonl")
"""Of a run whose first stage is not done: a changed line, and a part of one."""


def run_command(folder: Path) -> list[str]:
    """A whole run of the fake engine, as it is typed."""
    sets = [part for text in ("engine.kind=fake", *SETTINGS) for part in ("--set", text)]
    start = ["run", "--constitution", "harmless.yaml", "--recipe", "quickstart"]
    return [*start, *sets, "--out", str(folder)]


def refused(scratch: Path, stays: bool, step: int) -> dict[str, Any]:
    """A run for each `step`-th call that needs room, refused there; then the same command again."""
    end = in_child(run_command(scratch / "whole"), None)
    if end.code:
        raise SystemExit(f"the unbroken run failed: {end.said}")
    whole, sites = content(scratch / "whole"), end.sites
    unclean: Counter[str] = Counter()
    corrupt = stuck = differing = 0
    for at in range(1, len(sites) + 1, step):
        run = scratch / "run"
        end = in_child(run_command(run), at, stays)
        # a refused link is a copy
        if not (end.is_clean or (end.code == 0 and sites[at - 1].startswith("link"))):
            unclean[sites[at - 1]] += 1
            print(f"{at} {sites[at - 1]}: {end.code}\n{end.said}", file=sys.stderr)
        if run.exists():
            corrupt += any(finding.what in ("damaged", "changed") for finding in verify(run))
        again = in_child(run_command(run), None)
        stuck += again.code != 0
        differing += content(run) != whole or bool(verify(run))
        shutil.rmtree(run, ignore_errors=True)
    return {
        "part": "refused for ever" if stays else "refused once",
        "runs": len(range(0, len(sites), step)),
        "calls": len(sites),
        "kinds": dict(Counter(site.split()[0] for site in sites)),
        "unclean": dict(unclean),
        "corrupt": corrupt,
        "stuck": stuck,
        "differing": differing,
    }


def commands() -> list[list[str]]:
    """The other commands that write, as they are typed in a folder that `lay_out` has filled."""
    forms = ("trl", "hh-rlhf", "llm-swarm", "icai")
    fake = ["--set", "engine.kind=fake"]
    suite = ["--suite", "hhh", "--data", ".", "--model", "m", "--engine", "fake"]
    return [
        ["show", "run", "--html", "page.html"],
        ["compare", "run", "run", "--html", "page.html"],
        *(["export", "run", "--format", form, "--out", "out", "--jsonl"] for form in forms),
        ["import", "prompts", "--out", "out"],
        ["judge-test", "run", "--data", "run", "--n", "4", *fake],
        ["score", "reward", "--data", "pairs.jsonl", "--out", "scores.jsonl"],
        ["eval", *suite, "--out", "eval.json"],
        ["annotate", "import", "notes.jsonl", "run"],
        ["verify", "torn", "--repair"],
    ]


def lay_out(folder: Path) -> set[bytes]:
    """What those commands read; the lines of the run "torn" that no repair may lose."""
    os.chdir(fresh(folder))
    sites = in_child(run_command(Path("run")), None).sites
    in_child(["export", "harmless.yaml", "--format", "anthropic", "--out", "prompts"], None)
    prompt = next(read_rows(folder / "run" / "inputs" / "prompts.jsonl"))
    note = {"type": "annotation", "run": "run", "prompt_id": prompt["id"], "star": True}
    note |= {"author": "Ada", "time": "2026-11-25T10:00:00Z"}
    fresh(folder / "reward").joinpath("config.json").write_text("{}")
    (folder / "notes.jsonl").write_text(json.dumps(note) + "\n")
    (folder / "pairs.jsonl").write_text(json.dumps({"prompt": "Hi", "response": "Yes."}) + "\n")
    suite_rows.write(folder, "hhh", suite_rows.hhh_row(1), suite_rows.hhh_row(2))
    in_child(run_command(Path("torn")), sites.index("create records.jsonl") + 12, stays=True)
    path = folder / TORN
    bad, *good = path.read_bytes().splitlines(keepends=True)
    assert good, "nothing of the broken run is whole"
    path.write_bytes(bad.replace(b":", b";", 1) + b"".join(good) + bad[:40])
    return set(good)


def without_a_model() -> None:
    """Have `cai score` take any folder for a reward model, and draw the scores."""
    cai.score.find_reward_model = lambda name: model_for(name, "fake")
    cai.score.run_job = lambda job, folder, rows, _: run_fake_job(job, folder, rows)


def is_harmed(folder: Path, good: set[bytes]) -> bool:
    """Whether a run that a command has touched is not as it was written, or has lost lines."""
    lines = set((folder / TORN).read_bytes().splitlines(keepends=True))
    return bool(verify(folder / "run")) or not good <= lines


def is_torn(folder: Path) -> bool:
    """Whether the broken run is not mended yet."""
    return bool(verify(folder / "torn"))


def names(folder: Path) -> set[Path]:
    """What is there, but for parts of lines that were set aside."""
    return {p.relative_to(folder) for p in folder.rglob("*") if p.suffix != ".torn"}


def refused_commands(scratch: Path, step: int) -> dict[str, Any]:
    """The same for each other command that writes: refused for ever, then typed again."""
    good, n_calls, n = lay_out(scratch / "laid"), 0, 0
    corrupt = stuck = differing = 0
    unclean: Counter[str] = Counter()
    without_a_model()
    for command in commands():
        work = laid(scratch)
        whole = in_child(command, None)
        if whole.code not in (0, Damaged.exit_code) or not whole.sites:
            raise SystemExit(f"{command} does not write: {whole.said}")
        expected, n_calls = names(work), n_calls + len(whole.sites)
        for at in range(1, len(whole.sites) + 1, step):
            work = laid(scratch)
            end = in_child(command, at, stays=True)
            if not end.is_clean:
                unclean[f"{command[0]}: {whole.sites[at - 1]}"] += 1
                print(f"{command} {at} {whole.sites[at - 1]}: {end}", file=sys.stderr)
            corrupt += is_harmed(work, good)
            n += 1
            # a repair that had got as far has nothing left to find
            stuck += in_child(command, None).code not in (0, whole.code)
            corrupt += is_harmed(work, good) or (command[0] == "verify" and is_torn(work))
            differing += names(work) != expected
    os.chdir("/")
    return {
        "part": "refused for ever: other commands",
        "runs": n,
        "calls": n_calls,
        "unclean": dict(unclean),
        "corrupt": corrupt,
        "stuck": stuck,
        "differing": differing,
    }


def laid(scratch: Path) -> Path:
    """A copy of what `lay_out` has made, which is worked in from here on."""
    work = scratch / "work"
    os.chdir(scratch)
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(scratch / "laid", work)
    os.chdir(work)
    return work


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--step", type=int, default=1)
    options = parser.parse_args()
    parts: tuple[Callable[[Path], dict[str, Any]], ...] = (
        lambda scratch: refused(scratch, False, options.step),
        lambda scratch: refused(scratch, True, options.step),
        lambda scratch: refused_commands(scratch, options.step),
    )
    for part in parts:
        with tempfile.TemporaryDirectory() as scratch:
            tell(partial(part, Path(scratch)))


if __name__ == "__main__":
    main()
