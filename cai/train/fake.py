"""Training without a trainer, for runs of the fake engine: same files, no model."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cai.records import digest
from cai.run import write_json, write_rows
from cai.train.jobs import Job, ScoreJob


def run_fake_job(job: Job, folder: Path, rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Leave what a trainer leaves: rows, metrics, a checkpoint whose content stands for its input.

    Scores are drawn from the text's digest: the same text has the same score.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = list(rows)
    write_rows(folder / "rows.jsonl", kept)
    if isinstance(job, ScoreJob):
        write_rows(folder / "scores.jsonl", [fake_score(row) for row in kept])
        return {"n_rows": len(kept), "n_truncated": 0, "n_not_finite": 0}
    write_rows(
        folder / "metrics.jsonl",
        [{"step": step, "max_steps": 2, "loss": 1 / step} for step in (1, 2)],
    )
    checkpoint = folder / "checkpoint"
    shutil.rmtree(checkpoint, ignore_errors=True)
    checkpoint.mkdir()
    settings = job.model_dump(exclude={"model", "reward_model"})  # folders: not the same anywhere
    write_json(checkpoint / "config.json", {"fake": digest(settings, kept)})
    return {"n_rows": len(kept), "n_steps": 2, "loss_first": 1.0, "loss_last": 0.5}


def fake_score(row: dict[str, Any]) -> dict[str, Any]:
    """A score in [-1, 1) that stands for the text."""
    value = int(digest(row["text"])[:4], 16) / 32768 - 1
    n_tokens = len(str(row["text"]).split())
    kl = abs(value) if row.get("policy") else None
    return {"id": row["id"], "reward": value, "n_tokens": n_tokens, "kl": kl, "truncated": False}
