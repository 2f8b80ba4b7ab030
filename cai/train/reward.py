"""A reward model trained on soft labels: P(chosen is better), not just which one was.

Bai et al. 2022 (section 4.1): soft labels "led to much better results". TRL's RewardTrainer knows
hard ones only, so its loss is replaced here; hard labels, with or without a margin, are TRL's own.
"""

import logging
import math
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, cast

import torch
from datasets import Dataset
from torch.nn.functional import logsigmoid
from transformers import set_seed
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from cai.errors import ConfigError
from cai.guards import check_cuts
from cai.metrics import ece, gap_accuracy, known
from cai.run import read_rows
from cai.train import folder as files
from cai.train.jobs import RewardJob
from cai.train.reward_model import RewardModel, load_classifier
from cai.train.setup import (
    MetricsCallback,
    fit,
    free_memory,
    lora_config,
    progress,
    save_checkpoint,
    training_arguments,
)
from cai.train.tokens import Chat

N_SEEN = 256
"""Training pairs that are scored again after training, for `accuracy_train`."""


class Pair(NamedTuple):
    """A preference, tokenised: ids of both conversations, and the row it comes from."""

    chosen_ids: list[int]
    rejected_ids: list[int]
    row: dict[str, Any]


class SoftRewardTrainer(RewardTrainer):
    """TRL's trainer with `-(p·logσ(d) + (1-p)·logσ(-d))`, where d is chosen minus rejected score.

    p = P(chosen is better) travels in the column `margin`, which TRL's collator already carries.
    """

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The soft loss. What TRL logs (accuracy, margin, rewards) stays as it is."""
        p = inputs["margin"]
        stock = {name: value for name, value in inputs.items() if name != "margin"}
        stock_loss: Any = super().compute_loss(model, stock, True, num_items_in_batch)
        outputs = stock_loss[1]
        chosen, rejected = torch.chunk(outputs.logits.squeeze(-1).float(), chunks=2)
        d = chosen - rejected
        loss = -(p * logsigmoid(d) + (1 - p) * logsigmoid(-d)).mean()
        center = cast(RewardConfig, self.args).center_rewards_coefficient
        if center is not None:
            loss = loss + center * ((chosen + rejected) ** 2).mean()
        return (loss, outputs) if return_outputs else loss


def train(job: RewardJob, folder: Path) -> dict[str, Any]:
    """Train on the rows that are not held out, leave `checkpoint/`, return `result.json`'s content.

    Raises ConfigError if no pair is left to train on, QualityGate if too many are left out.
    """
    chat = Chat(job.model)
    pairs = [encode(chat, row) for row in read_rows(folder / files.ROWS)]
    fitting = [pair for pair in pairs if longest(pair) <= job.max_length]
    heldout = [pair for pair in fitting if pair.row["heldout"]]
    usable = [pair for pair in fitting if not pair.row["heldout"]]
    training = [pair for pair in usable if job.labels == "soft" or is_decided(pair)]
    counts = {
        "n_rows": len(pairs),
        "n_too_long": len(pairs) - len(fitting),
        "n_undecided": len(usable) - len(training),
        "n_train": len(training),
        "n_heldout": sum(is_decided(pair) for pair in heldout),
    }
    if not training:
        raise ConfigError(
            f"reward: no pair is left to train on; of {len(pairs)} pairs {counts['n_too_long']} "
            f"exceed {job.max_length} tokens (reward.max_length), {len(heldout)} are held out, "
            f"{counts['n_undecided']} have no better side (reward.labels: hard leaves them out)"
        )
    n_cut = counts["n_too_long"] + counts["n_undecided"]
    why = f"exceed {job.max_length} tokens: raise reward.max_length"
    if counts["n_undecided"]:
        why = f"{why}; or have no better side ({counts['n_undecided']}): set reward.labels=soft"
    share_cut = check_cuts(folder / files.ROWS, (n_cut, len(pairs)), job.max_cut, why)
    trainer = make_trainer(job, folder, chat, training)
    metrics = fit(trainer, folder, moves="loss")
    if not trainer.accelerator.is_main_process:
        return counts
    save_checkpoint(trainer, chat.tokenizer, folder)
    batch_size = 2 * trainer.args.per_device_train_batch_size
    del trainer
    free_memory()
    saved = RewardModel(folder / files.CHECKPOINT, job.max_length, batch_size)
    measured = measure(saved, training[:N_SEEN], heldout)
    return counts | {"share_cut": share_cut} | progress(metrics) | measured


def encode(chat: Chat, row: dict[str, Any]) -> Pair:
    """Tokenise both sides."""
    return Pair(chat.ids(row["chosen"]), chat.ids(row["rejected"]), row)


def longest(pair: Pair) -> int:
    """Tokens of the longer side."""
    return max(len(pair.chosen_ids), len(pair.rejected_ids))


def make_trainer(job: RewardJob, folder: Path, chat: Chat, pairs: list[Pair]) -> RewardTrainer:
    """The trainer over tokenised pairs."""
    set_seed(job.seed)
    # weights in float32: small updates get lost in bfloat16. On a GPU autocast still computes in
    # bfloat16, the head too: scores between 2 and 4 are then 0.016 apart
    model = load_classifier(job.model, torch.float32)
    chat.set_distinct_pad(model)
    logging.info("loaded %s", job.model)
    # max_length=None: longer pairs are counted and left out already, TRL would not say so
    usual = {"learning_rate": 1e-3 if job.lora else 1e-5}
    args = training_arguments(job, folder, RewardConfig, {"max_length": None}, usual)
    columns = {
        "chosen_ids": [pair.chosen_ids for pair in pairs],
        "rejected_ids": [pair.rejected_ids for pair in pairs],
        "margin": [margin(job, float(pair.row["p_chosen"])) for pair in pairs],
    }
    trainer_class = SoftRewardTrainer if job.labels == "soft" else RewardTrainer
    return trainer_class(
        model=model,
        args=args,
        train_dataset=Dataset.from_dict(columns),
        processing_class=chat.tokenizer,
        peft_config=lora_config(job.lora, "SEQ_CLS"),
        callbacks=[MetricsCallback(folder)],
    )


def margin(job: RewardJob, p: float) -> float:
    """What the column `margin` says of a pair with P(chosen is better) = p.

    Soft labels: p itself. Hard ones: the score gap that TRL subtracts, -logσ(d - margin·(2p - 1)).
    """
    return p if job.labels == "soft" else job.margin * (2 * p - 1)


def measure(model: RewardModel, training: list[Pair], heldout: list[Pair]) -> dict[str, Any]:
    """Accuracies and calibration of the saved checkpoint, its mean gap on the training pairs.

    A pair whose label is exactly 0.5 has no right answer and is left out of both accuracies, but
    not out of the calibration.
    """
    unseen_gaps = score_gaps(model, heldout)
    unseen = known(gap_accuracy, decided(unseen_gaps, heldout)) or {}
    gaps = score_gaps(model, training)
    seen = known(gap_accuracy, decided(gaps, training)) or {}
    finite = [gap for gap in gaps if gap is not None]
    return {
        "n_heldout_undecided": len(heldout) - unseen.get("n", 0),
        "accuracy_heldout": unseen.get("value"),
        "accuracy_heldout_low": unseen.get("low"),
        "accuracy_heldout_high": unseen.get("high"),
        **calibration(unseen_gaps, [pair.row["p_chosen"] for pair in heldout]),
        "accuracy_train": seen.get("value"),
        "margin_train": fmean(finite) if finite else None,
        "n_not_finite": model.n_not_finite,
    }


def calibration(gaps: list[float | None], targets: list[float]) -> dict[str, float | None]:
    """How well σ(gap) meets P(chosen), whatever labels it was trained on; none without a pair.

    `ece_heldout`: expected calibration error over each pair and its mirror image, since chosen is
    by definition the likelier side. `loss_heldout`: mean cross-entropy, in nats. Pairs whose score
    is not finite are in neither; `n_not_finite` counts them.
    """
    found = [(gap, p) for gap, p in zip(gaps, targets, strict=True) if gap is not None]
    predictions = [0.5 * (1 + math.tanh(gap / 2)) for gap, _ in found]
    mirrored = [1 - prediction for prediction in predictions]
    both = [p for _, p in found] + [1 - p for _, p in found]
    losses = [cross_entropy(gap, p) for gap, p in found]
    return {
        "ece_heldout": known(ece, predictions + mirrored, both),
        "loss_heldout": fmean(losses) if losses else None,
    }


def cross_entropy(gap: float, p: float) -> float:
    """-(p·logσ(gap) + (1-p)·logσ(-gap)), without overflow."""
    return math.log1p(math.exp(-abs(gap))) + max(-gap, 0.0) + (1 - p) * gap


def is_decided(pair: Pair) -> bool:
    """Whether the label names a better side."""
    return pair.row["p_chosen"] != 0.5


def decided(gaps: list[float | None], pairs: list[Pair]) -> list[float | None]:
    """The gaps of the decided pairs."""
    return [gap for gap, pair in zip(gaps, pairs, strict=True) if is_decided(pair)]


def score_gaps(model: RewardModel, pairs: list[Pair]) -> list[float | None]:
    """Score of chosen minus score of rejected; none where either is not finite."""
    chosen = model.score([pair.row["chosen"] for pair in pairs])
    rejected = model.score([pair.row["rejected"] for pair in pairs])
    both = zip(chosen, rejected, strict=True)
    return [None if a is None or b is None else a - b for a, b in both]
