"""Stage revise: chains of response, critique, revision; plain responses to helpful prompts."""

from cai.chains.revision import RevisionSetup, Voice, response_chain, revision_chain
from cai.driver import Chain
from cai.prompts import opening
from cai.records import Prompt, Sampling
from cai.stages.context import Generation, Outcome, RunContext, exemplars_on
from cai.view.progress import StageProgress


def run(context: RunContext, progress: StageProgress) -> Outcome:
    """Generate every chain of the sft split."""
    config = context.config.revise
    prompts = context.select("red_team", "sft", config.n_prompts)
    helpful = context.select("helpful", "sft", config.n_helpful)
    setup = make_setup(context)
    chains = [revision_chain(prompt, setup) for prompt in prompts]
    chains += [answer(prompt, setup) for prompt in helpful]
    n_steps = len(prompts) * (1 + 2 * config.rounds) + len(helpful)
    progress.doing("responses, critiques, revisions", n_steps)
    roles = {role: context.models[role] for role in ("base", "critic")}
    with Generation(context, "revise", progress) as generation:
        generation.run(chains, roles, n_steps)
    n_whole = count_whole(context, prompts, helpful)
    counts = {
        "prompts": len(prompts),
        "helpful_prompts": len(helpful),
        "rounds": config.rounds,
        "broken_off": len(chains) - n_whole,
        **generation.counts,
    }
    return Outcome(len(chains), n_whole, counts, generation.tokens)


def make_setup(context: RunContext) -> RevisionSetup:
    """What the chains share."""
    config, base = context.config.revise, context.models["base"]
    prefix = opening(context.constitution)
    if exemplars_on(config.exemplars, context.config, base):
        prefix += context.templates.revision_shots()

    def voice(role: str, sampling: Sampling) -> Voice:
        return Voice(role, context.models[role].label, sampling, context.config.engine.key)

    return RevisionSetup(
        opening=prefix,
        principles=context.constitution.for_revision(),
        templates=context.templates,
        rounds=config.rounds,
        seed=context.config.seed,
        responder=voice("base", config.response),
        critic=voice("critic", config.critique),
        reviser=voice("critic", config.revision),
        delimiters=config.delimiters,
    )


def answer(prompt: Prompt, setup: RevisionSetup) -> Chain:
    """A helpful prompt is answered once and not revised."""
    return response_chain(prompt, 0, setup.opening, setup.responder, setup.seed)


def count_whole(context: RunContext, prompts: list[Prompt], helpful: list[Prompt]) -> int:
    """Chains that came to their end: no generation of theirs failed."""
    last_round = context.config.revise.rounds
    red_team = {prompt.id for prompt in prompts}
    ended: set[str] = set()
    with context.records("revise") as records:
        for record in records:
            last = record.type == "revision" and record.round == last_round
            only = record.type == "response" and record.prompt_id not in red_team
            if (last or only) and record.generation.finish != "error":
                ended.add(record.prompt_id)
    return len(ended & (red_team | {prompt.id for prompt in helpful}))
