"""A run at a glance, as the page shows it: tables of strings, and the numbers of its plots."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cai.run import read_json
from cai.view.learning import counts_of, heldout_accuracy
from cai.view.plots import PANELS, curves
from cai.view.report import LIMITS, Facts, broken_bounds, doubts, judged
from cai.view.terminal import (
    as_text,
    by_policy,
    duration,
    evaluation_rows,
    measure,
    read_run,
)
from cai.view.transcripts import POLICIES, Transcript, read_object, stage_folder

MAX_POINTS = 400
"""Points of a training curve; of a longer one every n-th."""
Row = dict[str, Any]


def overview(run: Path, transcripts: Sequence[Transcript]) -> Row:
    """Everything about the run as a whole."""
    manifest = read_run(run)
    metrics = manifest["evaluation"] or {}
    heldout = heldout_accuracy(counts_of(manifest, "reward"))
    facts = Facts(run, manifest, metrics, heldout, transcripts)
    return {
        "name": manifest.get("name", run.resolve().name),
        "created": manifest.get("created", ""),
        "status": manifest.get("status", "no manifest yet"),
        "missing": manifest["missing_stages"],
        "made": [[name, as_text(value)] for name, value in made(facts)],
        "stages": [stage_row(stage) for stage in manifest.get("stages", [])],
        "warnings": [*broken_bounds(facts), *doubts(facts)],
        "limits": list(LIMITS),
        "n_heldout": metrics.get("n_prompts"),
        "evaluation": evaluation_rows(metrics) if metrics else [],
        "panels": panels(metrics),
        "rounds": metrics.get("reward_by_round") or [],
        "curves": [curve(*one) for one in curves(run)],
        "selection": selection(run, manifest),
        "judge": [[*row[:3], measure(row[3], 100, 0)] for row in judged(facts)],
        "sources": list(sources(manifest)),
    }


def made(facts: Facts) -> Iterator[tuple[str, object]]:
    """What the run is made of."""
    manifest, config = facts.manifest, read_object(facts.run / "config.json")
    yield "constitution", manifest["constitution"]
    for role, model in manifest.get("models", {}).items():
        yield f"{role} model", f"{model['name']} @ {model['commit']}"
    yield from ((name, config.get(name)) for name in ("recipe", "seed") if name in config)
    yield from ((name, manifest[name]) for name in ("created", "cai") if name in manifest)
    versions = manifest.get("versions", {}) | manifest.get("hardware", {})
    yield "with", ", ".join(f"{name} {version}" for name, version in versions.items())


def stage_row(stage: Mapping[str, Any]) -> Row:
    tokens = stage.get("tokens") or {}
    return {
        "name": stage["name"],
        "status": stage.get("status", ""),
        "seconds": stage.get("seconds"),
        "time": duration(stage.get("seconds")),
        "in": as_text(stage.get("n_in")),
        "out": as_text(stage.get("n_out")),
        "generated": as_text(tokens.get("generated")),
        "counts": list(counted(stage.get("counts") or {})),
        "notes": [*stage.get("notes", []), *filter(None, [stage.get("reason")])],
    }


def counted(counts: Mapping[str, Any], before: str = "") -> Iterator[list[str]]:
    """What a stage counted, by name; a count of counts is taken apart. Nothing that is zero."""
    for name, value in counts.items():
        if isinstance(value, Mapping):
            yield from counted(value, f"{before}{name}: ")
        elif isinstance(value, list):
            yield [before + name, ", ".join(map(as_text, value))]
        elif value:
            yield [before + name, as_text(value)]


def panels(metrics: Mapping[str, Any]) -> list[Row]:
    """The plots of base, SFT and RL: estimates, none where a policy has none."""
    policies = dict(zip(POLICIES, by_policy(metrics), strict=True))
    rows: list[Row] = [
        {
            "title": title,
            "metric": metric,
            "values": {n: p.get(metric) for n, p in policies.items()},
        }
        for metric, title in PANELS
    ]
    return [row for row in rows if any(row["values"].values())]


def curve(title: str, steps: Sequence[float], values: Sequence[float]) -> Row:
    """A training curve; points that are not finite are left out and counted."""
    points = [(x, y) for x, y in zip(steps, values, strict=True) if math.isfinite(y)]
    kept = points[:: 1 + len(points) // MAX_POINTS]
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return {
        "title": title,
        "steps": [x for x, _ in kept],
        "values": [float(f"{y:.5g}") for _, y in kept],
        "n_not_finite": len(values) - len(points),
    }


def selection(run: Path, manifest: Mapping[str, Any]) -> Row | None:
    """The win rates of the policies kept during RL, and the step that was chosen."""
    path = stage_folder(run, "rl") / "selection.json"
    if not path.is_file():
        return None
    return {"rates": read_json(path), "chosen": counts_of(manifest, "rl").get("chosen_step")}


def sources(manifest: Mapping[str, Any]) -> Iterator[list[str]]:
    """Where the preferences come from, and what was left out."""
    label, reward = counts_of(manifest, "label"), counts_of(manifest, "reward")
    rows: dict[str, Any] = {
        "judged pairs": label.get("pairs_of"),
        "assumed pairs": label.get("assumed_pairs"),
        "not judged": label.get("skipped"),
        "learnt from": reward.get("pairs"),
        "left out": reward.get("pairs_left_out"),
        "ratings learnt from": reward.get("ratings"),
        "share of foreign pairs": reward.get("foreign_ratio"),
        "mean P(chosen)": label.get("mean_p_chosen"),
        "both orders agree": label.get("orders_agree"),
        "probability on neither option": label.get("mean_p_outside"),
    }
    yield from counted({name: value for name, value in rows.items() if value})
