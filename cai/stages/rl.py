"""Stage rl: the policy is trained against its rewards with a KL penalty, or on the pairs by DPO."""

from collections.abc import Sequence
from typing import Any

from cai.records import Prompt
from cai.sections import ModelReward, RewardTerm, reward_role
from cai.stages.context import Outcome, RunContext, train
from cai.stages.reward import preference_rows
from cai.stages.selection import choose_policy
from cai.train.jobs import DpoJob, RlJob
from cai.view.progress import StageProgress


def run(context: RunContext, progress: StageProgress) -> Outcome:
    """Train, then let the judge choose among the policies kept on the way."""
    config = context.config.rl
    prompts, heldout = split_prompts(context)
    helpful = context.select("helpful", "rl", config.n_helpful)
    if config.method == "dpo":
        job, rows = dpo_job(context), preference_rows(context)
        counts: dict[str, Any] = {"pairs": len(rows)}
    else:
        job, rows = rl_job(context), prompt_rows((*prompts, *helpful))
        counts = {"prompts": len(prompts), "helpful_prompts": len(helpful)}
    progress.doing(f"{config.method} on {len(rows)} {next(iter(counts))}")
    result = train(context, "rl", job, rows, progress)
    chosen = choose_policy(context, result, heldout, progress)
    n_out = len(rows) - int(result.get("n_too_long", 0))
    return Outcome(len(rows), n_out, {**counts, **result, **chosen.counts}, chosen.tokens)


def split_prompts(context: RunContext) -> tuple[list[Prompt], list[Prompt]]:
    """Red-team prompts to train on, and whole dialogues held out for choosing a checkpoint.

    `rl.n_select` prompts are held out, at most a quarter of the share.
    """
    config = context.config.rl
    prompts = context.select("red_team", "rl", None)
    n = min(config.n_select, len(prompts) // 4)
    groups = {prompt.group for prompt in prompts[len(prompts) - n :]}
    kept = [prompt for prompt in prompts if prompt.group not in groups]
    heldout = [prompt for prompt in prompts if prompt.group in groups]
    return kept[: config.n_prompts], heldout[len(heldout) - n :]


def prompt_rows(prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """Rows of an RlJob."""
    return [
        {"id": prompt.id, "prompt": [message.model_dump() for message in prompt.messages]}
        for prompt in prompts
    ]


def rl_job(context: RunContext) -> RlJob:
    """RLOO or GRPO against the configured rewards."""
    config = context.config.rl
    assert config.method != "dpo"
    return RlJob(
        model=str(context.policy().path),
        method=config.method,
        rewards=tuple(with_path(term, context) for term in config.rewards),
        health=config.health,
        n_checkpoints=config.n_checkpoints,
        lora=config.lora,
        max_prompt_length=config.max_prompt_length,
        reward_max_length=context.config.reward.max_length,
        reward_batch_size=config.reward_batch_size,
        trainer=config.trainer,
        seed=context.config.seed,
        max_cut=context.config.guards.allowed_cut,
    )


def with_path(term: RewardTerm, context: RunContext) -> RewardTerm:
    """The term; a reward model has its local folder, this run's if it names none."""
    if not isinstance(term, ModelReward):
        return term
    model = context.models[reward_role(term)] if term.path else context.checkpoint("reward")
    return term.model_copy(update={"path": str(model.path)})


def dpo_job(context: RunContext) -> DpoJob:
    """DPO on the pairs that the reward stage used, the same ones held out."""
    config = context.config.rl
    return DpoJob(
        model=str(context.policy().path),
        lora=config.lora,
        n_checkpoints=config.n_checkpoints,
        max_length=context.config.reward.max_length,
        trainer=config.trainer,
        seed=context.config.seed,
        max_cut=context.config.guards.allowed_cut,
    )
