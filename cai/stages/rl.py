"""Stage rl: the policy is trained against the reward model, with a KL penalty."""

from cai.stages.context import Outcome, RunContext, train
from cai.train.jobs import RlJob
from cai.view.progress import StageProgress


def run(context: RunContext, progress: StageProgress) -> Outcome:
    """Train on the rl split's prompts, red-team and helpful (paper section 4.2)."""
    config = context.config.rl
    prompts = context.select("red_team", "rl", config.n_prompts)
    helpful = context.select("helpful", "rl", config.n_helpful)
    rows = [
        {"id": prompt.id, "prompt": [message.model_dump() for message in prompt.messages]}
        for prompt in (*prompts, *helpful)
    ]
    progress.doing(f"{config.method} on {len(rows)} prompts")
    job = RlJob(
        model=str(context.policy().path),
        reward_model=str(context.checkpoint("reward").path),
        method=config.method,
        lora=config.lora,
        max_prompt_length=config.max_prompt_length,
        reward_max_length=context.config.reward.max_length,
        reward_batch_size=config.reward_batch_size,
        trainer=config.trainer,
        seed=context.config.seed,
    )
    result = train(context, "rl", job, rows, progress)
    n_out = len(rows) - int(result.get("n_too_long", 0))
    counts = {"prompts": len(prompts), "helpful_prompts": len(helpful), **result}
    return Outcome(len(rows), n_out, counts)
