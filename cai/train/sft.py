"""Supervised fine-tuning on prompts and completions: TRL's SFTTrainer, loss on the completion only.

Rows are tokenised here, once, so that those that do not fit are counted before training.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from cai.errors import ConfigError, TrainError
from cai.guards import check_cuts
from cai.run import read_rows
from cai.train import folder as files
from cai.train.jobs import SftJob
from cai.train.setup import (
    MetricsCallback,
    fit,
    load_policy,
    lora_config,
    progress,
    save_checkpoint,
    training_arguments,
)
from cai.train.tokens import Chat

MASKED = -100
"""The label of a token that carries no loss."""
N_CHECKED = 8


class Encoded(NamedTuple):
    """A row as token ids. The first `n_prompt` are the prompt's."""

    ids: list[int]
    n_prompt: int


def train(job: SftJob, folder: Path) -> dict[str, Any]:
    """Train on the folder's rows, leave `checkpoint/`, return what `result.json` says.

    Raises ConfigError if no row keeps a token of its completion within `max_length`, QualityGate if
    too many are cut or masked.
    """
    chat = Chat(job.model)
    rows = list(read_rows(folder / files.ROWS))
    encoded = [encode(chat, row) for row in rows]
    kept = [row for row in encoded if row.n_prompt < min(len(row.ids), job.max_length)]
    if not kept:
        raise ConfigError(
            f"sft: none of {len(rows)} rows keeps a token of its completion within "
            f"{job.max_length} tokens; raise sft.max_length"
        )
    n_cut = sum(is_lost(row, job.max_length) for row in encoded)
    why = f"do not fit {job.max_length} tokens or carry no loss: raise sft.max_length"
    share_cut = check_cuts(folder / files.ROWS, (n_cut, len(rows)), job.max_cut, why)
    trainer = make_trainer(job, folder, chat.tokenizer, kept)
    check_masking(trainer, kept)
    metrics = fit(trainer, folder, moves="loss")
    if trainer.accelerator.is_main_process:
        save_checkpoint(trainer, chat.tokenizer, folder)
    return {
        "n_rows": len(rows),
        "n_truncated": sum(len(row.ids) > job.max_length for row in encoded),
        "n_masked": len(rows) - len(kept),
        "share_cut": share_cut,
        **progress(metrics),
        "n_tokens": metrics[-1]["num_tokens"],
    }


def encode(chat: Chat, row: dict[str, Any]) -> Encoded:
    """Tokenise one row as TRL does: the completion starts where prompt and whole row diverge."""
    prompt = chat.prompt_ids(row["prompt"])
    ids = chat.ids(row["prompt"] + row["completion"])
    same = [a == b for a, b in zip(prompt, ids, strict=False)]
    return Encoded(ids, same.index(False) if False in same else len(same))


def is_lost(row: Encoded, max_length: int) -> bool:
    """Whether a row is cut, or carries no loss."""
    return len(row.ids) > max_length or row.n_prompt == len(row.ids)


def labelled(row: Encoded, max_length: int) -> dict[str, list[int]]:
    """The row as the trainer takes it: cut at the right, the prompt's labels masked."""
    labels = [MASKED] * row.n_prompt + row.ids[row.n_prompt :]
    return {"input_ids": row.ids[:max_length], "labels": labels[:max_length]}


def make_trainer(job: SftJob, folder: Path, tokenizer: Any, rows: list[Encoded]) -> SFTTrainer:
    """TRL's trainer over tokenised rows."""
    # max_length=None: rows are cut already, and TRL would drop masked ones without saying so
    fixed: dict[str, Any] = {"max_length": None, "packing": False, "completion_only_loss": True}
    usual = {"learning_rate": 2e-4 if job.lora else 2e-5}
    args = training_arguments(job, folder, SFTConfig, fixed, usual)
    model = load_policy(job.model, job.lora)
    logging.info("loaded %s", job.model)
    return SFTTrainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list([labelled(row, job.max_length) for row in rows]),
        processing_class=tokenizer,
        peft_config=lora_config(job.lora, "CAUSAL_LM"),
        callbacks=[MetricsCallback(folder)],
    )


def check_masking(trainer: Any, rows: list[Encoded]) -> None:
    """Look at a real batch: loss on each token of the completions, on none of the prompts.

    Raises TrainError otherwise: TRL's masking has been wrong before (trl#4147, trl#4201).
    """
    n = min(N_CHECKED, len(rows))
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(n)])
    for row, ids, labels in zip(rows, batch["input_ids"], batch["labels"], strict=False):
        expected = [MASKED] * row.n_prompt + ids.tolist()[row.n_prompt : len(row.ids)]
        expected += [MASKED] * (len(ids) - len(expected))
        if labels.tolist() != expected:
            raise TrainError("the batch carries loss on tokens outside the completion")
