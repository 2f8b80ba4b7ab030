"""A reward model by regression: mean squared error against ratings, one a conversation.

So Bai et al. 2022 (section 4.5) learn absolute harmfulness from 0 to 4. For training, ratings are
divided by their standard deviation; the head is multiplied by it before it is saved, so that the
checkpoint predicts ratings as they were given. Their mean is not subtracted: the head has no bias
that could hold it afterwards. Instead the head starts where its mean prediction is that mean.
"""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from transformers import Trainer, TrainingArguments, set_seed

from cai.errors import ConfigError
from cai.guards import check_cuts
from cai.metrics import pearson, spearman
from cai.run import read_rows
from cai.train import folder as files
from cai.train.jobs import RatingJob
from cai.train.reward_model import RewardModel, by_length, head_of, load_classifier, padded
from cai.train.setup import (
    MetricsCallback,
    fit,
    free_memory,
    lora_config,
    progress,
    save_model,
    training_arguments,
)
from cai.train.tokens import Chat

N_SEEN = 256
"""Training rows that are scored again after training, for `mse_train`."""
N_CENTRED = 256
"""Training rows, spread evenly, whose mean prediction the head starts from."""


class Rated(NamedTuple):
    """A conversation, tokenised, and the row it comes from."""

    ids: list[int]
    row: dict[str, Any]


class Scale(NamedTuple):
    """Mean and standard deviation of the training rows' ratings, as they were given."""

    mean: float
    std: float


class RatingTrainer(Trainer):
    """transformers' trainer, which leaves the mean squared error to the model itself."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        # the loss is a micro-batch's mean, whatever the forward's signature promises: without this
        # gradients would be summed, not averaged, over accumulated micro-batches
        self.model_accepts_loss_kwargs = False

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the count of tokens under TRL's name."""
        super().log(logs | {"num_tokens": self.state.num_input_tokens_seen}, start_time)


def train(job: RatingJob, folder: Path) -> dict[str, Any]:
    """Train on the rows that are not held out, leave `checkpoint/`, return `result.json`'s content.

    Raises ConfigError if no row is left to train on, or if all of them have one rating, QualityGate
    if too many are left out.
    """
    chat = Chat(job.model)
    rows = [Rated(chat.ids(row["messages"]), row) for row in read_rows(folder / files.ROWS)]
    fitting = [rated for rated in rows if len(rated.ids) <= job.max_length]
    training = [rated for rated in fitting if not rated.row["heldout"]]
    heldout = [rated for rated in fitting if rated.row["heldout"]]
    counts = {
        "n_rows": len(rows),
        "n_too_long": len(rows) - len(fitting),
        "n_train": len(training),
        "n_heldout": len(heldout),
    }
    if not training:
        raise ConfigError(
            f"reward: no rating is left to train on; of {len(rows)} rows {counts['n_too_long']} "
            f"exceed {job.max_length} tokens (raise reward.max_length), {len(heldout)} are held "
            "out (lower reward.heldout)"
        )
    scale = scale_of([rated.row["rating"] for rated in training])
    why = f"exceed {job.max_length} tokens: raise reward.max_length"
    cut = (counts["n_too_long"], len(rows))
    share_cut = check_cuts(folder / files.ROWS, cut, job.max_cut, why)
    trainer = make_trainer(job, folder, (chat, scale), training)
    metrics = fit(trainer, folder, moves="loss")
    if not trainer.accelerator.is_main_process:
        return counts
    save_rescaled(trainer, chat, folder, scale.std)
    batch_size = 2 * trainer.args.per_device_train_batch_size
    del trainer
    free_memory()
    saved = RewardModel(folder / files.CHECKPOINT, job.max_length, batch_size)
    measured = measure(saved, training[:N_SEEN], heldout, scale)
    return counts | {"share_cut": share_cut} | progress(metrics) | measured


def scale_of(ratings: Sequence[float]) -> Scale:
    """Their mean and standard deviation. Raises ConfigError where they are all equal."""
    if min(ratings) == max(ratings):
        raise ConfigError(
            f"reward: the ratings of all {len(ratings)} training rows are {ratings[0]}, so there "
            "is nothing to tell apart; give rows with different ratings: reward.ratings"
        )
    return Scale(fmean(ratings), pstdev(ratings))


def make_trainer(
    job: RatingJob, folder: Path, prepared: tuple[Chat, Scale], rows: list[Rated]
) -> RatingTrainer:
    """The trainer over tokenised rows, whose model predicts ratings divided by `scale.std`."""
    chat, scale = prepared
    usual = {
        "learning_rate": 1e-3 if job.lora else 1e-5,
        "label_names": ["labels"],
        "include_num_input_tokens_seen": "non_padding",
    }
    args = training_arguments(job, folder, TrainingArguments, {}, usual)
    set_seed(job.seed)
    # weights in float32, as for pairs
    model = load_classifier(job.model, torch.float32)
    model.config.problem_type = "regression"
    chat.set_distinct_pad(model)
    logging.info("loaded %s", job.model)
    model.to(args.device)
    step = -(-len(rows) // N_CENTRED)
    some = [rated.ids for rated in rows[::step]]
    centre(model, some, scale.mean / scale.std, args.per_device_train_batch_size)
    columns = {
        "input_ids": [rated.ids for rated in rows],
        "labels": [rated.row["rating"] / scale.std for rated in rows],
    }
    return RatingTrainer(
        model=with_lora(model, job, args.gradient_checkpointing),
        args=args,
        data_collator=partial(collate, chat.tokenizer.pad_token_id),
        train_dataset=Dataset.from_dict(columns),
        processing_class=chat.tokenizer,
        callbacks=[MetricsCallback(folder)],
    )


def with_lora(model: Any, job: RatingJob, checkpointing: bool) -> Any:
    """The model, wrapped if the job says so."""
    config = lora_config(job.lora, "SEQ_CLS")
    if config is None:
        return model
    wrapped: Any = get_peft_model(model, config)
    if checkpointing:
        # recomputed activations carry gradients only if the frozen embeddings' output does
        wrapped.enable_input_require_grads()
    return wrapped


def collate(pad_id: int, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch: ids and mask [batch, longest], padded as in scoring; float labels [batch]."""
    ids, mask = padded([example["input_ids"] for example in examples], pad_id)
    labels = torch.tensor([example["labels"] for example in examples], dtype=torch.float32)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


@torch.no_grad()
def centre(model: Any, rows: Sequence[list[int]], mean: float, batch_size: int) -> None:
    """Shift the head along the mean hidden state so that its mean score over `rows` is `mean`.

    Last hidden states have much in common, so this does what a bias would do: training starts
    near the error of the mean, however far from 0 the ratings are.
    """
    head = head_of(model).weight
    state = mean_state(model.eval(), rows, batch_size)
    head += (mean - head[0] @ state) * state / (state @ state)


def mean_state(model: Any, rows: Sequence[list[int]], batch_size: int) -> torch.Tensor:
    """The mean over `rows` of the hidden state [hidden] that the head reads."""
    total = torch.zeros_like(head_of(model).weight[0])
    for batch in by_length(rows, batch_size):
        ids, mask = padded([rows[i] for i in batch], model.config.get_text_config().pad_token_id)
        ids, mask = ids.to(model.device), mask.to(model.device)
        states = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        total += states[torch.arange(len(batch)), mask.sum(1) - 1].sum(0)
    return total / len(rows)


def save_rescaled(trainer: RatingTrainer, chat: Chat, folder: Path, std: float) -> None:
    """Leave `checkpoint/`, its head multiplied by `std`."""
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        # safe_merge: refuses weights that are not finite
        model = model.merge_and_unload(safe_merge=True)  # pyright: ignore[reportCallIssue]
    with torch.no_grad():
        head_of(model).weight *= std
    save_model(model, chat.tokenizer, folder / files.CHECKPOINT)


def measure(
    model: RewardModel, training: list[Rated], heldout: list[Rated], scale: Scale
) -> dict[str, Any]:
    """Errors of the saved checkpoint, on the ratings' own scale; none without a row.

    `mse_of_mean_heldout` is the error of always saying the training rows' mean. Rows whose score is
    not finite are in no error; `n_not_finite` counts them.
    """
    seen, unseen = predicted(model, training), predicted(model, heldout)
    by_mean = [(scale.mean, rating) for _, rating in unseen]
    return {
        "rating_mean": scale.mean,
        "rating_std": scale.std,
        "mse_train": mse(seen),
        "mse_heldout": mse(unseen),
        "mse_of_mean_heldout": mse(by_mean),
        "pearson_heldout": pearson(unseen),
        "spearman_heldout": spearman(unseen),
        "n_not_finite": model.n_not_finite,
    }


Pairs = Sequence[tuple[float, float]]


def predicted(model: RewardModel, rows: list[Rated]) -> list[tuple[float, float]]:
    """Score and rating of each row with a finite score."""
    scores = model.score([rated.row["messages"] for rated in rows])
    both = zip(scores, rows, strict=True)
    return [(score, rated.row["rating"]) for score, rated in both if score is not None]


def mse(pairs: Pairs) -> float | None:
    """Mean squared difference."""
    return fmean((one - other) ** 2 for one, other in pairs) if pairs else None
