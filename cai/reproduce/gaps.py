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


def training_row(pair: Pair) -> dict[str, Any]:
    """A row of a RewardJob."""
    chosen, rejected = (
        [*pair.prompt, {"role": "assistant", "content": text}]
        for text in (pair.chosen, pair.rejected)
    )
    return {"chosen": chosen, "rejected": rejected, "p_chosen": pair.p, "heldout": False}


def score_gaps(
    work: Work, names: Sequence[str], pairs: Sequence[Pair], max_length: int
) -> list[float | None]:
    """Score of chosen minus that of rejected, by the reward model trained in the folder `names`.

    None where a side has more than `max_length` tokens or its score is not finite.
    """
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
    scores = [None if row["truncated"] else row["reward"] for row in read_rows(folder / SCORES)]
    both = zip(scores[::2], scores[1::2], strict=True)
    return [None if a is None or b is None else a - b for a, b in both]


def sigmoid(gap: float) -> float:
    """P(chosen is better) that a score gap says."""
    return 0.5 * (1 + math.tanh(gap / 2))
