"""Stage reward: a reward model learns the soft labels (Bai et al. 2022, section 4.1)."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from cai.errors import ConfigError
from cai.records import Preference, Prompt, Response, derive_seed
from cai.run import read_rows
from cai.stages.context import Outcome, RunContext, train
from cai.train.jobs import RewardJob
from cai.view.progress import StageProgress


def run(context: RunContext, progress: StageProgress) -> Outcome:
    """Train on the label stage's preferences; a share of the prompts only measures accuracy."""
    config = context.config.reward
    rows = preference_rows(context)
    if len(rows) < 2:
        raise ConfigError(
            f"stage reward: {len(rows)} labelled pairs; a reward model needs at least 2: raise "
            "sample.n_prompts, or read 04-label/done.json for why pairs were left out"
        )
    n_heldout = sum(row["heldout"] for row in rows)
    progress.doing(f"training on {len(rows) - n_heldout} pairs, {n_heldout} held out")
    model = context.models.get("reward", context.models["base"])
    job = RewardJob(
        model=str(model.path),
        lora=config.lora,
        max_length=config.max_length,
        trainer=config.trainer,
        seed=context.config.seed,
    )
    result = train(context, "reward", job, rows, progress)
    n_out = len(rows) - int(result.get("n_too_long", 0))
    return Outcome(len(rows), n_out, {"heldout": n_heldout, **result})


def preference_rows(context: RunContext) -> list[dict[str, Any]]:
    """Pairs as whole conversations with P(chosen is better)."""
    prompts = {prompt.id: prompt for prompt in context.prompts}
    with context.records("sample") as file:
        texts = {r.id: r.text for r in file if isinstance(r, Response)}
    stored = read_rows(context.folder("label") / "preferences.jsonl")
    preferences = [Preference.model_validate(row) for row in stored]
    heldout = held_out((prompts[p.prompt_id] for p in preferences), context)
    return [pair_row(preference, prompts, texts, heldout) for preference in preferences]


def held_out(prompts: Iterable[Prompt], context: RunContext) -> set[str]:
    """The dialogues whose pairs are not trained on: a fixed share of them, drawn by the seed."""
    seed, share = context.config.seed, context.config.reward.heldout
    groups = sorted(
        {prompt.group for prompt in prompts}, key=lambda g: derive_seed("held", seed, g)
    )
    return set(groups[: math.ceil(len(groups) * share)])


def pair_row(
    preference: Preference,
    prompts: Mapping[str, Prompt],
    texts: Mapping[str, str],
    heldout: set[str],
) -> dict[str, Any]:
    """One row in TRL's conversational implicit-prompt format."""
    prompt = prompts[preference.prompt_id]
    before = [message.model_dump() for message in prompt.messages]

    def side(response_id: str) -> list[dict[str, str]]:
        return [*before, {"role": "assistant", "content": texts[response_id]}]

    return {
        "id": preference.id,
        "chosen": side(preference.chosen_id),
        "rejected": side(preference.rejected_id),
        "p_chosen": preference.p_chosen,
        "heldout": prompt.group in heldout,
    }
