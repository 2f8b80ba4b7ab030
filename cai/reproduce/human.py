"""Part 2: a reward model trained on human pairs, measured on dialogues that it has not seen."""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from cai.metrics import Estimate, gap_accuracy, pearson, wilson
from cai.preferences import Pair as HumanPair
from cai.reproduce.dialogues import as_pair, in_batches, load_split
from cai.reproduce.gaps import score_gaps, training_row
from cai.reproduce.options import Result, Work
from cai.train.folder import CHECKPOINT
from cai.train.jobs import RewardJob
from cai.train.launch import run_job

FOLDER = "2-human"


def run(work: Work) -> Result:
    """Train on growing shares of the training dialogues, each time on the same test pairs."""
    split, counts = load_split(work)
    shares = work.options.sizes.human.shares
    growth = [measure(share, part(split.training, share), split.test, work) for share in shares]
    return {
        "data": counts,
        "growth": growth,
        "shorter": rule_accuracy(split.test)._asdict(),
        "accuracy": growth[-1]["accuracy"],
        "beats_chance": growth[-1]["accuracy"]["low"] > 0.5,
    }


def part(pairs: Sequence[HumanPair], share: float) -> list[HumanPair]:
    """The first of the pairs: a smaller share is a part of a larger one."""
    return list(pairs[: math.ceil(share * len(pairs))])


def measure(
    share: float, training: Sequence[HumanPair], test: Sequence[HumanPair], work: Work
) -> dict[str, Any]:
    """Train on `training` and compare the two scores of each test pair."""
    names = (FOLDER, folder_of(share))
    work.progress.doing(f"reward model on {len(training)} pairs")
    batches = in_batches(training, work.options.sizes.human.batch_size, work.options.seed)
    rows = (training_row(as_pair(pair)) for pair in batches)
    result = run_job(make_job(work), work.folder(*names), rows, work.progress.training)
    work.progress.doing(f"scores of {len(test)} unseen pairs")
    gaps = score_gaps(work, names, [as_pair(pair) for pair in test], max_length(work))
    fitting = [(pair, gap) for pair, gap in zip(test, gaps, strict=True) if not gap.truncated]
    known = [(pair, gap.value) for pair, gap in fitting if gap.value is not None]
    longer = [float(len(pair.chosen) - len(pair.rejected)) for pair, _ in known]
    values = [gap for _, gap in known]
    return {
        "share": share,
        "n_train": result["n_train"],
        "n_steps": result["n_steps"],
        "n_too_long": result["n_too_long"] + len(test) - len(fitting),
        "n_not_finite": len(fitting) - len(known),
        "accuracy": accuracy([(pair, gap.value) for pair, gap in fitting])._asdict(),
        "accuracy_train": result["accuracy_train"],
        "loss": fmean(math.log1p(math.exp(-abs(gap))) + max(-gap, 0.0) for gap in values),
        "length_correlation": pearson(list(zip(values, longer, strict=True))),
        "seconds": result["train_seconds"],
    }


def folder_of(share: float) -> str:
    """The name of the folder of one reward model."""
    return f"share-{share:g}"


def checkpoint(work: Work) -> Path:
    """The reward model that was trained on the largest share."""
    share = work.options.sizes.human.shares[-1]
    return work.folder(FOLDER, folder_of(share), CHECKPOINT)


def make_job(work: Work) -> RewardJob:
    """The reward model's job."""
    sizes = work.options.sizes.human
    return RewardJob(
        model=str(work.model.path),
        lora=sizes.lora,
        max_length=max_length(work),
        trainer={
            "train_sampling_strategy": "sequential",  # see `in_batches`
            "num_train_epochs": sizes.epochs,
            "per_device_train_batch_size": sizes.batch_size,
            "learning_rate": sizes.learning_rate,
        },
        seed=work.options.seed,
    )


def max_length(work: Work) -> int:
    """Tokens of a side. English has four characters a token: hardly a side is longer."""
    return max(64, work.options.sizes.human.max_chars // 2)


def rule_accuracy(pairs: Sequence[HumanPair]) -> Estimate:
    """How often the shorter answer (in characters) is the better one: what a rule gets."""
    return accuracy([(pair, float(len(pair.rejected) - len(pair.chosen))) for pair in pairs])


def accuracy(gaps: Sequence[tuple[HumanPair, float | None]]) -> Estimate:
    """`gap_accuracy`, with an interval for pairs of which some share a dialogue; `n` is pairs.

    Such pairs are not independent. Wilson's interval is that of as many independent pairs as have
    the cluster-robust variance over dialogues, of all of them at most.
    """
    found = gap_accuracy([gap for _, gap in gaps])
    errors = [gap_accuracy([gap]).value - found.value for _, gap in gaps]
    by_dialogue: dict[str, float] = defaultdict(float)
    for (pair, _), error in zip(gaps, errors, strict=True):
        by_dialogue[pair.group] += error
    independent = sum(error * error for error in errors)
    clustered = sum(total * total for total in by_dialogue.values())
    n = round(found.n * independent / clustered) if clustered > independent else found.n
    return wilson(found.value, n)._replace(n=found.n)
