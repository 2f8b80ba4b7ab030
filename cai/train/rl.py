"""Reinforcement learning against the rewards: TRL's RLOOTrainer or GRPOTrainer, KL on.

Under LoRA the KL reference is the model that the job starts from: its SFT adapter is merged, so
switching the new adapter off gives the SFT policy back.
"""

import importlib.util
import logging
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_config import RLOOConfig
from trl.trainer.rloo_trainer import RLOOTrainer

from cai.errors import ConfigError, TrainError
from cai.guards import check_cuts
from cai.run import read_rows
from cai.train import folder as files
from cai.train.candidates import KeepCallback, export
from cai.train.health import HealthCallback, Watch
from cai.train.jobs import RlJob
from cai.train.rewards import (
    GENERATIONS,
    NOT_FINITE,
    TRUNCATED,
    Rollouts,
    count_models,
    reward_functions,
)
from cai.train.setup import (
    MetricsCallback,
    advance,
    check_moved,
    free_memory,
    load_policy,
    lora_config,
    on_gpu,
    training_arguments,
)
from cai.train.tokens import Chat

TRAINERS: dict[str, tuple[Any, Any]] = {
    "rloo": (RLOOTrainer, RLOOConfig),
    "grpo": (GRPOTrainer, GRPOConfig),
}
BETA = 0.05


def train(job: RlJob, folder: Path) -> dict[str, Any]:
    """Train on the folder's prompts, leave `checkpoint/` and `candidates/`, return `result.json`.

    `stopped` says at which step and why a collapse ended the training, none if it went to its end.
    Raises ConfigError if no prompt fits, or too few for one step, QualityGate if too many do not.
    """
    chat = Chat(job.model)
    prompts = [chat.messages(row["prompt"]) for row in read_rows(folder / files.ROWS)]
    kept = [p for p in prompts if len(chat.prompt_ids(p)) <= job.max_prompt_length]
    if not kept:
        raise ConfigError(
            f"rl: none of {len(prompts)} prompts has at most {job.max_prompt_length} tokens; "
            "raise rl.max_prompt_length"
        )
    counts = {"n_prompts": len(prompts), "n_too_long": len(prompts) - len(kept)}
    why = f"exceed {job.max_prompt_length} tokens: raise rl.max_prompt_length"
    cut = (counts["n_too_long"], len(prompts))
    share_cut = check_cuts(folder / files.ROWS, cut, job.max_cut, why)
    trainer, watch = make_trainer(job, folder, chat, kept)
    metrics = advance(trainer, folder)
    if not trainer.accelerator.is_main_process:
        return counts
    if watch.stopped is None:
        # a group whose rewards are all equal moves nothing, and the loss is 0 by construction
        check_moved(metrics, "grad_norm")
    n_calls = count_models(job) * trainer.accelerator.num_processes
    counts["n_reward_truncated"] = total(metrics, TRUNCATED, n_calls)
    counts["n_not_finite"] = total(metrics, NOT_FINITE, n_calls)
    moved = progressed(job, metrics)
    del trainer
    free_memory()
    kept_policies = export(job, folder, chat.tokenizer, watch.last_healthy(metrics[-1]["step"]))
    counted = counts | {"share_cut": share_cut}
    return counted | moved | {"stopped": watch.stopped} | kept_policies


def progressed(job: RlJob, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """How the rewards moved; `rewards_last` is each term's mean, unweighted, by its name.

    Raises TrainError if there was none.
    """
    # a step that reuses the rollouts of an earlier one logs no reward
    fresh = [line for line in metrics if "reward" in line]
    if not fresh:
        raise TrainError("rl: no reward was finite; check the reward models in rl.rewards")
    last = {term.name: fresh[-1].get(f"rewards/{term.name}/mean") for term in job.rewards}
    return {
        "n_steps": metrics[-1]["step"],
        "reward_first": fresh[0]["reward"],
        "reward_last": fresh[-1]["reward"],
        "rewards_last": last,
        "kl_last": fresh[-1].get("kl"),
        "train_seconds": metrics[-1]["time_s"],
    }


def total(metrics: list[dict[str, Any]], name: str, n: int) -> int:
    """The sum of a count over all steps, of which TRL logs the mean over `n` calls a generation."""
    return round(sum(line.get(name, 0) * line.get(GENERATIONS, 1) for line in metrics) * n)


def make_trainer(
    job: RlJob, folder: Path, chat: Chat, prompts: list[list[dict[str, str]]]
) -> tuple[Any, Watch]:
    """TRL's trainer and what watches it. Raises ConfigError if the prompts fill no batch."""
    trainer_class, config_class = TRAINERS[job.method]
    fixed = {
        "remove_unused_columns": False,
        "reward_weights": [term.weight for term in job.rewards],
        # HealthCallback takes its state itself; the Trainer would build another one
        "restore_callback_states_from_checkpoint": False,
    }
    args = training_arguments(job, folder, config_class, fixed, usual(job))
    check_beta(args.beta)
    n_needed = args.generation_batch_size // args.num_generations
    if len(prompts) < n_needed:
        raise ConfigError(
            f"rl: one step takes {n_needed} prompts and there are {len(prompts)}; give more, or "
            "lower rl.trainer.per_device_train_batch_size or gradient_accumulation_steps"
        )
    model = load_policy(job.model, job.lora)
    rollouts, watch = Rollouts(), Watch(job.health, args.num_generations)
    # functions, never paths: TRL would load them with the policy's settings, in one batch, uncut
    functions = reward_functions(job, rollouts)
    logging.info("loaded %s and its rewards: %s", job.model, [f.__name__ for f in functions])
    trainer = trainer_class(
        model=model,
        reward_funcs=functions,
        args=args,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=chat.tokenizer,
        peft_config=lora_config(job.lora, "CAUSAL_LM"),
        callbacks=[
            HealthCallback(watch, rollouts),
            MetricsCallback(folder),
            KeepCallback(folder, job.n_checkpoints, watch),
        ],
    )
    return trainer, watch


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
