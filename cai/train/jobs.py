"""What the orchestrator hands to a trainer's process, as `job.json` in the trainer's folder.

The process reads `job.json` and `rows.jsonl` and leaves `metrics.jsonl` (a line per logging step),
`checkpoint/` (a plain Hugging Face folder: safetensors, tokenizer, chat template; LoRA merged) and,
last, `result.json`.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from cai.records import Record
from cai.sections import Health, Lora, RewardTerm

FIXED_EVERYWHERE = (
    "output_dir",
    "seed",
    "use_cpu",
    "disable_tqdm",
    "logging_strategy",
    "logging_steps",
    "logging_nan_inf_filter",
    "save_only_model",
)
"""Trainer fields that the run folder, resume and the NaN guard rely on: cai sets them."""
FIXED = {
    "sft": (*FIXED_EVERYWHERE, "max_length", "packing", "completion_only_loss"),
    "reward": (*FIXED_EVERYWHERE, "max_length"),
    "rating": FIXED_EVERYWHERE,
    "rl": (
        *FIXED_EVERYWHERE,
        "remove_unused_columns",
        "reward_weights",
        "restore_callback_states_from_checkpoint",
    ),
    "dpo": (
        *FIXED_EVERYWHERE,
        "max_length",
        "label_smoothing",
        "loss_type",
        "loss_weights",
        "f_divergence_type",
        "ld_alpha",
        "use_weighting",
        "precompute_ref_log_probs",
        "sync_ref_model",
        "remove_unused_columns",
    ),
}
"""By stage: what cai sets because it counts and cuts the rows itself, or a loss depends on it."""

MaxCut = Annotated[float, Field(ge=0, le=1, exclude=True)]
"""Share of the rows that may be cut, left out or without loss; beyond it QualityGate is raised
before a model is loaded. It is no part of `job.json`: another bound is no other training."""


class SftJob(Record):
    """Rows: `{"prompt": [message…], "completion": [message]}`."""

    kind: Literal["sft"] = "sft"
    model: str
    lora: Lora | None
    max_length: int
    """Tokens per row; a longer row is counted as truncated."""
    trainer: dict[str, Any]
    """Fields of `trl.SFTConfig`."""
    seed: int
    max_cut: MaxCut = 1.0


class RewardJob(Record):
    """Rows: `{"chosen": [message…], "rejected": [message…], "p_chosen", "heldout": bool}`.

    p_chosen ≥ 0.5. Other fields of a row are its own.
    """

    kind: Literal["reward"] = "reward"
    model: str
    lora: Lora | None
    labels: Literal["soft", "hard"] = "soft"
    margin: float = 0.0
    """Score gap asked of a certain pair; hard labels only."""
    max_length: int
    trainer: dict[str, Any]
    """Fields of `trl.RewardConfig`."""
    seed: int
    max_cut: MaxCut = 1.0


class RatingJob(Record):
    """Rows: `{"messages": [message…], "rating": float, "heldout": bool}`.

    Leaves a checkpoint of the same form as RewardJob's: regression on the ratings (MSE).
    """

    kind: Literal["rating"] = "rating"
    model: str
    lora: Lora | None
    max_length: int
    trainer: dict[str, Any]
    """Fields of `transformers.TrainingArguments`."""
    seed: int
    max_cut: MaxCut = 1.0


class RlJob(Record):
    """Rows: `{"prompt": [message…]}`.

    Leaves, beside `checkpoint/` (the last healthy policy), `candidates/step-N/`: the policies kept
    along the way, in the same form.
    """

    kind: Literal["rl"] = "rl"
    model: str
    method: Literal["rloo", "grpo"]
    rewards: tuple[RewardTerm, ...]
    """Every ModelReward with its `path`."""
    health: Health
    n_checkpoints: int
    lora: Lora | None
    max_prompt_length: int
    """Tokens; a longer prompt is left out and counted."""
    reward_max_length: int
    """Tokens of prompt and completion that the reward model reads; longer ones are cut at the left
    and counted."""
    reward_batch_size: int
    trainer: dict[str, Any]
    """Fields of `trl.RLOOConfig` or `trl.GRPOConfig`; `beta` is the weight of the KL penalty."""
    seed: int
    max_cut: MaxCut = 1.0


class DpoJob(Record):
    """Rows as in RewardJob. Leaves `checkpoint/` and `candidates/step-N/` as RlJob does."""

    kind: Literal["dpo"] = "dpo"
    model: str
    lora: Lora | None
    n_checkpoints: int
    max_length: int
    """Tokens of prompt and completion; a longer pair is left out and counted."""
    trainer: dict[str, Any]
    """Fields of `trl.DPOConfig`."""
    seed: int
    max_cut: MaxCut = 1.0


class ScoreJob(Record):
    """Rows: `{"id", "prompt": [message…], "text", "ended": bool, "policy": folder or none}`.

    `ended`: the text ended by itself, not at a limit of tokens, so that its end token counts too.
    Leaves `scores.jsonl`: `{"id", "reward", "n_tokens", "kl", "truncated"}` a row, where `reward`
    is the reward model's scalar (none without a reward model, or where it is not finite) and `kl` =
    log P_policy(text|prompt) - log P_base(text|prompt) in nats, summed over its tokens: the mean
    over samples of the policy estimates KL(policy || base). None where `policy` is none.
    """

    kind: Literal["score"] = "score"
    reward_model: str | None
    base: str | None
    max_length: int
    batch_size: int
    seed: int = 0


Job = SftJob | RewardJob | RatingJob | RlJob | DpoJob | ScoreJob
