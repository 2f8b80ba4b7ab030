"""Stage sample: k responses per prompt from the policy, to be compared."""

from cai.chains.revision import Voice, response_chain
from cai.stages.context import Generation, Outcome, RunContext
from cai.view.progress import StageProgress


def run(context: RunContext, progress: StageProgress) -> Outcome:
    """Sample the preference split."""
    config, policy = context.config.sample, context.policy()
    # Where no pairs of this run are used, none are made.
    n = config.n_prompts if context.config.preferences.ai else 0
    prompts = context.select("red_team", "preference", n)
    voice = Voice("policy", policy.label, config.sampling, context.config.engine.key)
    chains = [
        response_chain(prompt, sample, (), voice, context.config.seed)
        for prompt in prompts
        for sample in range(config.k)
    ]
    progress.doing(f"{config.k} responses to each of {len(prompts)} prompts", len(chains))
    with Generation(context, "sample", progress) as generation:
        tally = generation.run(chains, {"policy": policy}, len(chains))
    counts = {"prompts": len(prompts), "k": config.k, **generation.counts}
    return Outcome(len(chains), len(chains) - tally.n_errors, counts, generation.tokens)
