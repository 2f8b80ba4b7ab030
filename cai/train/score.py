"""Scores responses: the reward model's scalar, and how far a policy has moved from the base."""

import gc
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cai.train import folder as files
from cai.train.jobs import ScoreJob
from cai.train.reward_model import RewardModel, by_length, padded
from cai.train.setup import load_policy, on_gpu
from cai.train.tokens import Chat


class Span(NamedTuple):
    """Ids of a prompt and its text, the last `n_text` of them the text's; `cut` if not all fit."""

    ids: list[int]
    n_text: int
    cut: bool


def train(job: ScoreJob, folder: Path) -> dict[str, Any]:
    """Score the folder's rows, leave `scores.jsonl`, return what `result.json` says."""
    start = time.monotonic()
    rows = files.read_rows(folder)
    scores: list[dict[str, Any]] = [{"id": row["id"], "reward": None, "kl": None} for row in rows]
    chat_path = job.base or job.reward_model
    spans = [span(Chat(chat_path), row, job.max_length) for row in rows] if chat_path else []
    return {}
