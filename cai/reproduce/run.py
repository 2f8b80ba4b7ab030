"""`cai reproduce`: the parts in order; each one's result is on disk as soon as it is known."""

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cai
from cai.errors import ConfigError, RunConflict
from cai.lock import RunLock
from cai.manifest import hardware, now, sha256, versions
from cai.models import Model, resolve_model
from cai.reproduce import human, judging, labels, policy
from cai.reproduce.options import PARTS, ReproduceOptions, Result, Work
from cai.run import read_json, write_json
from cai.view.progress import RunProgress

RESULTS = "results.json"
FORMAT = 1
MEASURES = {"labels": labels.run, "human": human.run, "rl": policy.run}
NEEDS = {"labels": (), "human": (), "rl": ("human",), "judge": ()}
"""Parts whose outcome a part uses."""


def reproduce(options: ReproduceOptions, progress: RunProgress | None = None) -> dict[str, Any]:
    """Measure the wanted parts that are not done yet; returns what `results.json` holds.

    Raises ConfigError for what cannot be used, RunConflict where a part was measured under other
    settings. Stopped, the same command goes on.
    """
    progress = progress or RunProgress()
    check_options(options)
    model = resolve_model(options.model)
    options.out.mkdir(parents=True, exist_ok=True)
    with RunLock(options.out):
        results = open_results(options.out)
        settings = {part: settings_of(part, options, model) for part in PARTS}
        check_done(results, settings, options)
        for part in (one for one in PARTS if one in options.parts):
            if part in results["parts"]:
                progress.say(f"{part}: done already")
                continue
            with timed(part, results, options.out):
                result = measure(part, options, model, progress)
            finish(part, results, settings[part], result)
            write_json(options.out / RESULTS, results)
    return results


def check_options(options: ReproduceOptions) -> None:
    """Raises ConfigError for parts that are not there and data that is no file."""
    unknown = set(options.parts) - set(PARTS)
    if unknown or not options.parts:
        raise ConfigError(f"--parts {sorted(unknown)}: expected some of 1, 2, 3, 4")
    if not Path(options.data).is_file():
        raise ConfigError(
            f"{options.data}: not there; expected a file of human preference pairs, such as "
            "harmless-base/train.jsonl.gz of github.com/anthropics/hh-rlhf"
        )


def open_results(out: Path) -> dict[str, Any]:
    """What the folder's `results.json` holds, or an empty one. Raises RunConflict for a file that
    is somebody else's."""
    path = out / RESULTS
    if not path.exists():
        return {"format": FORMAT, "cai": cai.__version__, "spent_s": {}, "parts": {}}
    found = read_json(path)
    if not isinstance(found, dict) or "parts" not in found or found.get("format") != FORMAT:
        raise RunConflict(
            f"{path}: not written by this version of cai reproduce; give another --out"
        )
    return found


def settings_of(part: str, options: ReproduceOptions, model: Model) -> dict[str, Any]:
    """Everything that decides a part's result."""
    sizes = options.sizes.model_dump(mode="json")
    found: dict[str, Any] = {"model": model.label, "seed": options.seed}
    for name in (*NEEDS[part], part):
        found |= {f"{name}.{key}": value for key, value in sizes[name].items()}
    if part != "labels":
        found |= {"data": sha256(Path(options.data)), "skip_bad": options.skip_bad}
    if part in ("rl", "judge"):
        pace = {"capacity", "stall_s", "restarts"}
        found["engine"] = options.engine.model_dump(mode="json", exclude=pace)
    return found


def check_done(
    results: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]], options: ReproduceOptions
) -> None:
    """Raises RunConflict if a part that is wanted or needed was measured under other settings,
    ConfigError if a needed one is neither done nor wanted."""
    done = results["parts"]
    for part in options.parts:
        for name in (*NEEDS[part], part):
            if name in done:
                refuse_changes(options.out, name, done[name]["settings"], settings[name])
            elif name not in options.parts:
                number = PARTS.index(name) + 1
                raise ConfigError(
                    f"part {PARTS.index(part) + 1} ({part}) uses part {number} ({name}), which is "
                    f"not done in {options.out}; add {number} to --parts"
                )


def refuse_changes(out: Path, part: str, then: Mapping[str, Any], now_: Mapping[str, Any]) -> None:
    """Raises RunConflict that names what has changed."""
    changed = [key for key in {**then, **now_} if then.get(key) != now_.get(key)]
    if changed:
        said = "; ".join(f"{key}: {then.get(key)} then, {now_.get(key)} now" for key in changed)
        raise RunConflict(
            f"{out}: part {PARTS.index(part) + 1} ({part}) was measured under other settings "
            f"({said}); give another folder: --out, or the settings of then"
        )


@contextmanager
def timed(part: str, results: dict[str, Any], out: Path) -> Generator[None]:
    """Add up the seconds of a part over all attempts at it."""
    start = time.monotonic()
    try:
        yield
    finally:
        spent = results["spent_s"].get(part, 0.0) + time.monotonic() - start
        results["spent_s"][part] = round(spent, 1)
        write_json(out / RESULTS, results)


def measure(part: str, options: ReproduceOptions, model: Model, progress: RunProgress) -> Result:
    """One part's result."""
    if part == "judge":
        # it has a stage of its own
        return judging.run(options, progress)
    with progress.stage(part) as stage:
        return MEASURES[part](Work(options, model, stage))


def finish(part: str, results: dict[str, Any], settings: dict[str, Any], result: Result) -> None:
    """Note what a part has found, and on what machine."""
    results["parts"][part] = {
        "settings": settings,
        "finished": now(),
        "versions": versions(),
        "hardware": hardware(),
        "result": result,
    }
