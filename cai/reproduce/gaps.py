"""Score gaps of pairs: what a trained reward model thinks of texts that it has not seen."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from cai.reproduce.options import Work
from cai.run import read_rows
from cai.train.folder import CHECKPOINT, SCORES
from cai.train.jobs import ScoreJob
from cai.train.launch import run_job

Messages = list[dict[str, str]]
BATCH = 16


class Pair(NamedTuple):
    """Two answers to one prompt; `chosen` is the better one with P = `p`."""

    prompt: Messages
    chosen: str
    rejected: str
    p: float


class Gap(NamedTuple):
    """Score of chosen minus that of rejected."""

    value: float | None
    """None where a score is not finite."""
    truncated: bool
    """A side has too many tokens: its score is that of a part."""


def training_row(pair: Pair) -> dict[str, Any]:
    """A row of a RewardJob."""
    chosen, rejected = (
        [*pair.prompt, {"role": "assistant", "content": text}]
        for text in (pair.chosen, pair.rejected)
    )
    return {"chosen": chosen, "rejected": rejected, "p_chosen": pair.p, "heldout": False}


def score_gaps(
    work: Work, names: Sequence[str], pairs: Sequence[Pair], max_length: int
) -> list[Gap]:
    """The gap of each pair, by the reward model trained in the folder `names`."""
    rows = [
        {"id": f"{i}/{side}", "prompt": pair.prompt, "text": text, "ended": True, "policy": None}
        for i, pair in enumerate(pairs)
        for side, text in (("chosen", pair.chosen), ("rejected", pair.rejected))
    ]
    job = ScoreJob(
        reward_model=str(work.folder(*names, CHECKPOINT)),
        base=None,
        max_length=max_length,
        batch_size=BATCH,
    )
    folder = work.folder(*names, "scores")
    run_job(job, folder, rows, work.progress.training)
    scored = list(read_rows(folder / SCORES))
    return [make_gap(*both) for both in zip(scored[::2], scored[1::2], strict=True)]


def make_gap(chosen: dict[str, Any], rejected: dict[str, Any]) -> Gap:
    """The gap of two rows of a ScoreJob."""
    a, b = chosen["reward"], rejected["reward"]
    value = None if a is None or b is None else a - b
    return Gap(value, chosen["truncated"] or rejected["truncated"])


def sigmoid(gap: float) -> float:
    """P(chosen is better) that a score gap says."""
    return 0.5 * (1 + math.tanh(gap / 2))
