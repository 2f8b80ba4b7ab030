"""Direct preference optimisation with soft labels: P(chosen is better), not just which one was.

TRL's DPOTrainer knows hard labels only: its loss is -logσ(x), where x = β·(log-ratio of chosen to
reference - log-ratio of rejected). Cross-entropy with the label p is
-(p·logσ(x) + (1-p)·logσ(-x)) = -logσ(x) + (1-p)·x, so a term is added to TRL's.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

from cai.engines.encode import shared_prefix
from cai.errors import ConfigError
from cai.guards import check_cuts
from cai.metrics import Estimate, accuracy, ece, known
from cai.run import read_rows
from cai.train import folder as files
from cai.train.candidates import KeepCallback, export
from cai.train.jobs import DpoJob
from cai.train.score import Span, log_probabilities
from cai.train.setup import (
    MetricsCallback,
    fit,
    free_memory,
    load_policy,
    lora_config,
    progress,
    training_arguments,
)
from cai.train.tokens import Chat

P_CHOSEN = "p_chosen"


class Pair(NamedTuple):
    """A preference as token ids: what both conversations begin with, and how each goes on."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    p_chosen: float
    heldout: bool


@dataclass
class SoftCollator(DataCollatorForPreference):
    """TRL's collator, which also carries each row's P(chosen)."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch: TRL's tensors and `p_chosen`, [batch]."""
        batch = super().torch_call(examples)
        return batch | {P_CHOSEN: torch.tensor([example[P_CHOSEN] for example in examples])}


class Overheard:
    """A model that remembers the log-probabilities of its last call."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.log_probs: Any = None

    def __call__(self, **given: Any) -> Any:
        outputs = self.model(**given)
        self.log_probs = outputs.log_probs
        return outputs


class SoftDPOTrainer(DPOTrainer):
    """TRL's trainer with soft labels on tokenised rows. What it logs stays as it is."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        # TRL takes the reference's log-probabilities from the batch, where compute_loss puts them
        self.precompute_ref_logps = True

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, dataset_name: Any
    ) -> Any:
        """Nothing to tokenise."""
        return dataset

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The soft loss, a mean over the batch."""
        batch = dict(inputs)
        p = batch.pop(P_CHOSEN)
        trainer: Any = self
        reference = trainer.compute_ref_log_probs(trainer.ref_model or trainer.model, batch)
        batch["ref_chosen_logps"], batch["ref_rejected_logps"] = reference
        overheard: Any = Overheard(model)
        hard: Any = super().compute_loss(overheard, batch, False, num_items_in_batch)
        chosen, rejected = overheard.log_probs.sum(1).chunk(2)
        gap = (chosen - reference[0]) - (rejected - reference[1])
        return hard + trainer.beta * ((1 - p) * gap).mean()


def train(job: DpoJob, folder: Path) -> dict[str, Any]:
    """Train on the pairs that are not held out, leave `checkpoint/` and `candidates/`.

    Returns what `result.json` says. Raises ConfigError if no pair is left to train on, QualityGate
    if too many are left out.
    """
    chat = Chat(job.model)
    pairs = [encode(chat, row) for row in read_rows(folder / files.ROWS)]
    fitting = [pair for pair in pairs if longest(pair) <= job.max_length]
    training = [pair for pair in fitting if not pair.heldout]
    heldout = [pair for pair in fitting if pair.heldout]
    counts = {
        "n_rows": len(pairs),
        "n_too_long": len(pairs) - len(fitting),
        "n_train": len(training),
        "n_heldout": sum(pair.p_chosen != 0.5 for pair in heldout),
    }
    if not training:
        raise ConfigError(
            f"dpo: no pair is left to train on; of {len(pairs)} pairs {counts['n_too_long']} "
            f"exceed {job.max_length} tokens (reward.max_length), {len(heldout)} are held out"
        )
    why = f"exceed {job.max_length} tokens: raise reward.max_length"
    cut = (counts["n_too_long"], len(pairs))
    share_cut = check_cuts(folder / files.ROWS, cut, job.max_cut, why)
    trainer = make_trainer(job, folder, chat.tokenizer, training)
    metrics = fit(trainer, folder, moves="loss")
    if not trainer.accelerator.is_main_process:
        return counts
    beta, batch_size = trainer.beta, 2 * trainer.args.per_device_train_batch_size
    del trainer
    free_memory()
    kept = export(job, folder, chat.tokenizer, metrics[-1]["step"])
    gaps = reward_gaps(job, folder, chat, heldout, batch_size)
    measured = measure([beta * gap for gap in gaps], heldout)
    counted = counts | {"share_cut": share_cut}
    return counted | progress(metrics) | {"stopped": None} | kept | measured


def encode(chat: Chat, row: dict[str, Any]) -> Pair:
    """Tokenise as TRL does: the completions start where either diverges from the prompt."""
    chosen, rejected = chat.ids(row["chosen"]), chat.ids(row["rejected"])
    prompt = shared_prefix([chat.prompt_ids(row["chosen"][:-1]), chosen, rejected])
    n = len(prompt)
    return Pair(chosen[:n], chosen[n:], rejected[n:], float(row["p_chosen"]), row["heldout"])


def longest(pair: Pair) -> int:
    """Tokens of the prompt and the longer completion."""
    return len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids))


def make_trainer(job: DpoJob, folder: Path, tokenizer: Any, pairs: list[Pair]) -> SoftDPOTrainer:
    """The trainer over tokenised pairs. Raises ConfigError for a β that is not above 0."""
    fixed: dict[str, Any] = {
        # longer pairs are counted and left out already, TRL would cut them
        "max_length": None,
        # what the soft loss is derived from
        "loss_type": ["sigmoid"],
        "loss_weights": None,
        "label_smoothing": 0.0,
        "f_divergence_type": "reverse_kl",
        "ld_alpha": None,
        "use_weighting": False,
        "precompute_ref_log_probs": False,
        "sync_ref_model": False,
        "remove_unused_columns": False,
    }
    usual = {"learning_rate": 1e-5 if job.lora else 1e-6}
    args = training_arguments(job, folder, DPOConfig, fixed, usual)
    if args.beta <= 0:
        raise ConfigError(f"rl.trainer.beta: {args.beta} is not above 0; expected 0.1, say")
    model = load_policy(job.model, job.lora)
    logging.info("loaded %s", job.model)
    return SoftDPOTrainer(
        model=model,
        # under LoRA the reference is the same model with its adapter off
        ref_model=None if job.lora else load_policy(job.model, None),
        args=args,
        data_collator=SoftCollator(pad_token_id=tokenizer.pad_token_id),
        train_dataset=Dataset.from_list([columns(pair) for pair in pairs]),
        processing_class=tokenizer,
        peft_config=lora_config(job.lora, "CAUSAL_LM"),
        callbacks=[MetricsCallback(folder), KeepCallback(folder, job.n_checkpoints)],
    )


def columns(pair: Pair) -> dict[str, Any]:
    """The row as the collator takes it."""
    return {name: value for name, value in pair._asdict().items() if name != "heldout"}


def reward_gaps(
    job: DpoJob, folder: Path, chat: Chat, pairs: list[Pair], batch_size: int
) -> list[float]:
    """By how many nats `checkpoint/` prefers chosen to rejected more than the reference does."""
    sides = [side for pair in pairs for side in (pair.chosen_ids, pair.rejected_ids)]
    prompts = [pair.prompt_ids for pair in pairs for _ in range(2)]
    spans = [Span(a + b, len(b), False) for a, b in zip(prompts, sides, strict=True)]
    reference = log_probabilities(job.model, spans, batch_size, chat)
    policy = log_probabilities(str(folder / files.CHECKPOINT), spans, batch_size, chat)
    ratios = [a - b for a, b in zip(policy, reference, strict=True)]
    return [ratios[i] - ratios[i + 1] for i in range(0, len(ratios), 2)]


def measure(margins: Sequence[float], heldout: list[Pair]) -> dict[str, Any]:
    """How well the implicit reward margins predict the labels of held-out pairs.

    A pair whose label is exactly 0.5 has no right answer and is left out of the accuracy; a margin
    that is not finite is wrong, and left out of the calibration error.
    """
    finite = [math.isfinite(margin) for margin in margins]
    predictions = [sigmoid(m) if ok else 0.5 for m, ok in zip(margins, finite, strict=True)]
    targets = [pair.p_chosen for pair in heldout]
    found: Estimate | None = None
    if any(target != 0.5 for target in targets):
        found = accuracy(predictions, targets)
    usable = [i for i, ok in enumerate(finite) if ok]
    return {
        "n_heldout_undecided": len(heldout) - (found.n if found else 0),
        "accuracy_heldout": found.value if found else None,
        "accuracy_heldout_low": found.low if found else None,
        "accuracy_heldout_high": found.high if found else None,
        "ece": known(ece, [predictions[i] for i in usable], [targets[i] for i in usable]),
        "n_not_finite": finite.count(False),
    }


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), without overflow."""
    return 0.5 * (1 + math.tanh(x / 2))
