"""Reinforcement learning against the reward model: TRL's RLOOTrainer or GRPOTrainer, KL on.

Under LoRA the KL reference is the model that the job starts from: its SFT adapter is merged, so
switching the new adapter off gives the SFT policy back.
"""

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from cai.errors import ConfigError, TrainError
from cai.run import read_rows
from cai.train import folder as files
from cai.train.jobs import RlJob
from cai.train.reward_model import RewardModel
from cai.train.setup import (
    MetricsCallback,
    fit,
    load_policy,
    lora_config,
    on_gpu,
    save_checkpoint,
    training_arguments,
)
from cai.train.tokens import Chat

TRAINERS: dict[str, tuple[Any, Any]] = {
    "rloo": (RLOOTrainer, RLOOConfig),
    "grpo": (GRPOTrainer, GRPOConfig),
}
BETA = 0.05
TRUNCATED = "reward_truncated"
NOT_FINITE = "reward_not_finite"
"""Metrics: completions in a step whose score was read from cut tokens, or that have none."""


class PolicyReward:
    """TRL's reward function around a RewardModel; a score that is not finite is none.

    TRL leaves a completion without a reward out of its group's baseline.
    """

    __name__ = "reward_model"

    def __init__(self, model: RewardModel) -> None:
        self.model = model

    def __call__(
        self,
        prompts: list[list[dict[str, str]]],
        completions: list[list[dict[str, str]]],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float | None]:
        """Score each prompt with its completion. Raises TrainError if no score is finite."""
        before = self.model.n_truncated
        both = zip(prompts, completions, strict=True)
        scores = self.model.score([prompt + completion for prompt, completion in both])
        if all(score is None for score in scores):
            raise TrainError(f"rl: none of {len(scores)} rewards is finite; check the reward model")
        log_metric(TRUNCATED, self.model.n_truncated - before)
        log_metric(NOT_FINITE, scores.count(None))
        return scores


def train(job: RlJob, folder: Path) -> dict[str, Any]:
    """Train on the folder's prompts, leave `checkpoint/`, return what `result.json` says.

    Raises ConfigError if no prompt fits, or too few for one step.
    """
    chat = Chat(job.model)
    prompts = [chat.messages(row["prompt"]) for row in read_rows(folder / files.ROWS)]
    kept = [p for p in prompts if len(chat.prompt_ids(p)) <= job.max_prompt_length]
    if not kept:
        raise ConfigError(
            f"rl: none of {len(prompts)} prompts has at most {job.max_prompt_length} tokens; "
            "raise rl.max_prompt_length"
        )
    trainer = make_trainer(job, folder, chat, kept)
    # a group whose rewards are all equal moves nothing, and the loss is 0 by construction
    metrics = fit(trainer, folder, moves="grad_norm")
    if trainer.accelerator.is_main_process:
        save_checkpoint(trainer, chat.tokenizer, folder)
    # a step that reuses the rollouts of an earlier one logs no reward
    fresh = [line for line in metrics if "reward" in line]
    return {
        "n_prompts": len(prompts),
        "n_too_long": len(prompts) - len(kept),
        "n_steps": metrics[-1]["step"],
        "reward_first": fresh[0]["reward"],
        "reward_last": fresh[-1]["reward"],
        "kl_last": fresh[-1].get("kl"),
        "n_reward_truncated": total(trainer, metrics, TRUNCATED),
        "n_not_finite": total(trainer, metrics, NOT_FINITE),
        "train_seconds": metrics[-1]["time_s"],
    }


def total(trainer: Any, metrics: list[dict[str, Any]], name: str) -> int:
    """The sum of a count over all steps, of which TRL logs the mean over processes."""
    return round(sum(line.get(name, 0) for line in metrics) * trainer.accelerator.num_processes)


def make_trainer(job: RlJob, folder: Path, chat: Chat, prompts: list[list[dict[str, str]]]) -> Any:
    """TRL's trainer of the job's method. Raises ConfigError if the prompts fill no batch."""
    trainer_class, config_class = TRAINERS[job.method]
    fixed = {"remove_unused_columns": False}
    args = training_arguments(job, folder, config_class, fixed, usual(job))
    check_beta(args.beta)
    n_needed = args.generation_batch_size // args.num_generations
    if len(prompts) < n_needed:
        raise ConfigError(
            f"rl: one step takes {n_needed} prompts and there are {len(prompts)}; give more, or "
            "lower rl.trainer.per_device_train_batch_size or gradient_accumulation_steps"
        )
    model = load_policy(job.model, job.lora)
    reward = RewardModel(job.reward_model, job.reward_max_length, job.reward_batch_size)
    logging.info("loaded %s and %s", job.model, job.reward_model)
    return trainer_class(
        model=model,
        # never a path: TRL would load it with the policy's settings, in one batch, uncut
        reward_funcs=PolicyReward(reward),
        args=args,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=chat.tokenizer,
        peft_config=lora_config(job.lora, "CAUSAL_LM"),
        callbacks=[MetricsCallback(folder)],
    )


def usual(job: RlJob) -> dict[str, Any]:
    """Our defaults: KL on (GRPO's own default is off), vLLM in the same process on a GPU."""
    fields: dict[str, Any] = {"beta": BETA, "learning_rate": 1e-5 if job.lora else 1e-6}
    if on_gpu() and importlib.util.find_spec("vllm"):
        length = job.max_prompt_length + job.trainer.get("max_completion_length", 512)
        fields |= {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": length}
    return fields


def check_beta(beta: float) -> None:
    """Raise ConfigError for a KL penalty that rewards distance; warn where there is none."""
    if beta < 0:
        raise ConfigError(f"rl.trainer.beta: {beta} is negative; expected 0.05, say")
    if beta == 0:
        logging.warning("rl.trainer.beta is 0: no KL penalty keeps the policy near the SFT model")
