"""Stage label: the judge compares pairs under drawn principles, in both orders."""

from collections import Counter
from collections.abc import Sequence

from cai.chains.labelling import Candidates, LabelSetup, combine, label_chain, pair_up
from cai.chains.revision import Voice
from cai.records import Label, Preference, Response, Sampling
from cai.run import write_rows
from cai.stages.context import Generation, Outcome, RunContext
from cai.view.progress import StageProgress

JUDGE_SAMPLING = Sampling(temperature=0.0, max_tokens=1)
"""The judge generates nothing: its options' log-probabilities are read."""


def run(context: RunContext, progress: StageProgress) -> Outcome:
    """Label one pair per prompt of the sample stage."""
    prompts = {prompt.id: prompt for prompt in context.prompts}
    with context.records("sample") as file:
        responses = [record for record in file if isinstance(record, Response)]
    pairs, skipped = pair_up(prompts, responses, context.config.seed)
    progress.doing(f"{len(pairs)} pairs in both orders", 2 * len(pairs))
    setup = make_setup(context)
    chains = [label_chain(pair, setup) for pair in pairs]
    with Generation(context, "label", progress) as generation:
        generation.run(chains, {"judge": context.models["judge"]}, 2 * len(pairs))
    labels = read_labels(context, "label")
    preferences = combine_all(pairs, labels)
    write_rows(
        context.folder("label") / "preferences.jsonl",
        [preference.model_dump(mode="json") for preference in preferences],
    )
    n_prompts = len({response.prompt_id for response in responses})
    counts = {
        "pairs": len(pairs),
        "skipped": dict(skipped),
        "unscored_pairs": len(pairs) - len(preferences),
        "unscored_reasons": dict(Counter(label.unscored for label in labels if label.unscored)),
        **summary(preferences, labels),
        **generation.counts,
    }
    return Outcome(n_prompts, len(preferences), counts, generation.tokens)


def make_setup(context: RunContext) -> LabelSetup:
    """The judge, its principles and its question."""
    judge = context.models["judge"]
    return LabelSetup(
        principles=context.constitution.for_preference(),
        templates=context.templates,
        exemplars=context.exemplars_on(context.config.label.exemplars, judge),
        seed=context.config.seed,
        judge=Voice("judge", judge.label, JUDGE_SAMPLING, context.config.engine.key),
    )


def read_labels(context: RunContext, stage: str, file: str = "records") -> list[Label]:
    """The labels of a stage's record file."""
    with context.records(stage, file) as records:
        return [record for record in records if isinstance(record, Label)]


def combine_all(pairs: Sequence[Candidates], labels: Sequence[Label]) -> list[Preference]:
    """The preferences of those pairs whose two orders were both scored."""
    by_prompt: dict[str, list[Label]] = {}
    for label in labels:
        by_prompt.setdefault(label.prompt_id, []).append(label)
    combined = (combine(pair, by_prompt.get(pair.prompt.id, [])) for pair in pairs)
    return [preference for preference in combined if preference is not None]


def summary(preferences: Sequence[Preference], labels: Sequence[Label]) -> dict[str, float | None]:
    """How sure and how consistent the judge is; none where there is nothing to say."""
    if not preferences:
        return {"mean_p_chosen": None, "orders_agree": None, "mean_p_outside": None}
    outside = [label.p_outside for label in labels if label.p_outside is not None]
    return {
        "mean_p_chosen": round(sum(p.p_chosen for p in preferences) / len(preferences), 4),
        "orders_agree": round(sum(p.orders_agree for p in preferences) / len(preferences), 4),
        "mean_p_outside": round(sum(outside) / len(outside), 4),
    }
