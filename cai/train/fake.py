"""Training without a trainer, for runs of the fake engine: same files, no model."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cai.guards import check_cuts
from cai.models import folder_digest
from cai.records import digest
from cai.run import write_json, write_rows
from cai.sections import ModelReward
from cai.train import folder as files
from cai.train.jobs import DpoJob, Job, RlJob, ScoreJob

N_STEPS = 2


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
    limit = job.max_prompt_length if isinstance(job, RlJob) else job.max_length
    n_cut = sum(n_words(row) > limit for row in kept)
    why = f"exceed {limit} words: raise max_length"
    share_cut = check_cuts(folder / files.ROWS, (n_cut, len(kept)), job.max_cut, why)
    write_rows(
        folder / "metrics.jsonl",
        [{"step": step, "max_steps": N_STEPS, "loss": 1 / step} for step in range(1, N_STEPS + 1)],
    )
    result: dict[str, Any] = {
        "n_rows": len(kept),
        "share_cut": share_cut,
        "n_steps": N_STEPS,
        "loss_first": 1.0,
        "loss_last": 1 / N_STEPS,
    }
    if isinstance(job, RlJob | DpoJob):
        steps = list(range(1, min(N_STEPS, job.n_checkpoints) + 1))
        for step in steps:
            fake_checkpoint(job, folder / files.CANDIDATES / f"step-{step}", [step, kept])
        files.choose(folder / files.CANDIDATES / f"step-{steps[-1]}", folder / files.CHECKPOINT)
        return result | {"stopped": None, "candidates": steps, "checkpoint_step": steps[-1]}
    fake_checkpoint(job, folder / files.CHECKPOINT, kept)
    return result


def n_words(row: dict[str, Any]) -> int:
    """Words of a row: the fake engine's tokens. Of a pair the chosen side counts."""
    parts = (row.get(name, ()) for name in ("prompt", "completion", "messages", "chosen"))
    return sum(len(message["content"].split()) for part in parts for message in part)


def fake_checkpoint(job: Job, folder: Path, content: Any) -> None:
    """A folder whose digest stands for the job and `content`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # Folders of models are not the same anywhere; what is in them is.
    folders = {"model", "reward_model", "rewards"}
    terms = [term.path for term in getattr(job, "rewards", ()) if isinstance(term, ModelReward)]
    # Without a reward model nothing is cut to its length.
    settings = job.model_dump(exclude=folders | (set() if terms else {"reward_max_length"}))
    models = [folder_digest(Path(path)) for path in (getattr(job, "model", ""), *terms) if path]
    write_json(folder / "config.json", {"fake": digest(settings, models, content)})


def fake_score(row: dict[str, Any]) -> dict[str, Any]:
    """A score in [-1, 1) that stands for the text."""
    value = int(digest(row["text"])[:4], 16) / 32768 - 1
    n_tokens = len(str(row["text"]).split())
    kl = abs(value) if row.get("policy") else None
    return {"id": row["id"], "reward": value, "n_tokens": n_tokens, "kl": kl, "truncated": False}
