"""Part 1: soft, hard and clamped labels on pairs whose true P(chosen is better) is known.

Each level of P has a response pair of its own, asked in many ways, so that all that can be learnt
of a pair is its level. A reward model is right where σ(score gap) on prompts it has not seen is P.
"""

import random
from collections.abc import Sequence
from statistics import fmean
from typing import Any, Literal, NamedTuple

from cai.errors import TrainError
from cai.records import derive_seed
from cai.reproduce.gaps import Gap, Pair, score_gaps, sigmoid, training_row
from cai.reproduce.options import LabelSizes, Result, Work
from cai.train.jobs import RewardJob
from cai.train.launch import run_job

LEVELS = {0.5: "amber", 0.6: "birch", 0.7: "coral", 0.8: "denim", 0.9: "ember", 0.95: "fern"}
"""True P, and the word by which a model can tell that level."""
WITHIN = 0.02
"""What the soft labels' fit has to keep to."""
CLAMP = 0.6
"""Upper bound of P(chosen), as for reasoned labels (Bai et al. 2022, section 4.1)."""
MAX_LENGTH = 128
PLACES = ("bridge", "harbour", "library", "market", "museum", "orchard", "station", "tower")
OPENINGS = ("How do I get to", "Which way is", "Can you show me", "Is it far to", "Where is")
ENDINGS = ("", ", please", " from here", " on foot", " before noon", " with a heavy bag")


class Variant(NamedTuple):
    """A way of labelling."""

    name: str
    labels: Literal["soft", "hard"]
    bound: float = 1.0
    """What P is clamped to."""


VARIANTS = (Variant("soft", "soft"), Variant("hard", "hard"), Variant("clamped", "soft", CLAMP))


def run(work: Work) -> Result:
    """Train a reward model on each variant's labels, compare what it fits with the true P."""
    sizes = work.options.sizes.labels
    training, unseen = make_pairs(sizes, work.options.seed)
    found = {one.name: fit(one, work, training, unseen) for one in VARIANTS}
    return {
        "levels": list(LEVELS),
        "n_train": len(training),
        "n_unseen": len(unseen),
        "variants": found,
        "within": WITHIN,
        "held": found["soft"]["largest_deviation"] <= WITHIN,
    }


def make_pairs(sizes: LabelSizes, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on and pairs on other prompts, the levels in turn.

    With more pairs than there are ways of asking, some are the same.
    """
    asked = [f"{o} the {p}{e}?" for o in OPENINGS for p in PLACES for e in ENDINGS]
    random.Random(derive_seed("reproduce labels", seed)).shuffle(asked)
    n_unseen = min(sizes.n_unseen, len(asked) // 2)
    unseen, training = asked[:n_unseen], asked[n_unseen:]
    return (
        [one for i in range(sizes.n_train) for one in at_levels(training[i % len(training)])],
        [one for question in unseen for one in at_levels(question)],
    )


def at_levels(question: str) -> list[Pair]:
    """The pairs of all levels on one question."""
    prompt = [{"role": "user", "content": question}]
    return [
        Pair(prompt, f"Take the {word} road.", f"Leave the {word} road.", p)
        for p, word in LEVELS.items()
    ]


def fit(
    variant: Variant, work: Work, training: Sequence[Pair], unseen: Sequence[Pair]
) -> dict[str, Any]:
    """Train on the variant's labels; the mean σ(gap) of each level on unseen pairs."""
    sizes, names = work.options.sizes.labels, ("1-labels", variant.name)
    work.progress.doing(f"{variant.name} labels, {len(training)} pairs")
    job = RewardJob(
        model=str(work.model.path),
        lora=sizes.lora,
        labels=variant.labels,
        max_length=MAX_LENGTH,
        trainer={
            # the levels come in turn: six pairs a batch are one of each
            "train_sampling_strategy": "sequential",
            "max_steps": sizes.steps,
            "per_device_train_batch_size": sizes.batch_size,
            "learning_rate": sizes.learning_rate,
        },
        seed=work.options.seed,
    )
    rows = (training_row(pair._replace(p=min(pair.p, variant.bound))) for pair in training)
    result = run_job(job, work.folder(*names), rows, work.progress.training)
    gaps = score_gaps(work, names, unseen, MAX_LENGTH)
    fitted = fitted_levels(unseen, gaps)
    return {
        "fitted": fitted,
        "largest_deviation": max(abs(p - q) for p, q in zip(LEVELS, fitted, strict=True)),
        "n_train": result["n_train"],
        "n_steps": result["n_steps"],
        "seconds": result["train_seconds"],
    }


def fitted_levels(pairs: Sequence[Pair], gaps: Sequence[Gap]) -> list[float]:
    """Mean σ(gap) at each level, whatever label was trained on. Raises TrainError if one has no
    finite score."""
    both = list(zip(pairs, gaps, strict=True))
    fitted: list[float] = []
    for p in LEVELS:
        found = [sigmoid(gap.value) for pair, gap in both if pair.p == p and gap.value is not None]
        if not found:
            raise TrainError(f"part 1: no finite score among the unseen pairs of P = {p:g}")
        fitted.append(fmean(found))
    return fitted
