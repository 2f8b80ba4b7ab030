"""Stage label: the judge compares pairs under drawn principles, in both orders."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from cai.chains.labelling import LabelSetup, identical_chains, label_chain
from cai.chains.pairing import Candidates, assumed, combine, extremes, pair_up, revision_pairs
from cai.chains.revision import Voice
from cai.config import RunConfig
from cai.constitution import Constitution
from cai.judgements import Judged, label_pairs
from cai.metrics import is_refusal, known, same_position_rate, spearman
from cai.models import Model
from cai.prompts import Templates
from cai.records import Label, Preference, Reasoning, Response, Revision
from cai.run import write_records
from cai.stages.context import Generation, Outcome, RunContext, exemplars_on
from cai.view.progress import StageProgress

IDENTICAL = "identical"
"""The file of the labels of responses beside themselves: no preference is made of them."""


def run(context: RunContext, progress: StageProgress) -> Outcome:
    """Label pairs of the sample stage's responses and, where asked, of revisions."""
    sampled, revised, skipped = make_pairs(context)
    unasked = revised if context.config.label.revision_pairs == "assumed" else []
    asked = sampled if unasked else sampled + revised
    setup = make_setup(context)
    progress.doing(f"{len(asked)} pairs in both orders", setup.n_steps * len(asked))
    chains = [label_chain(pair, setup) for pair in asked]
    with Generation(context, "label", progress) as generation:
        judge = {"judge": context.models["judge"]}
        generation.run(chains, judge, setup.n_steps * len(asked))
        beside = identical_chains(asked, setup)
        generation.run(beside, judge, setup.n_asked * len(beside), IDENTICAL)
    labels = read_labels(context, "label")
    scored = combine_all(asked, labels, context.config.label.bounds)
    kept = extremes(asked, labels) if context.config.label.pairing == "extremes" else asked
    wanted = {frozenset((pair.one.id, pair.two.id)) for pair in kept}
    preferences = [p for p in scored if frozenset((p.chosen_id, p.rejected_id)) in wanted]
    taken = [assumed(pair) for pair in unasked]
    write_records(context.folder("label") / "preferences.jsonl", [*preferences, *taken])
    counts = {
        "pairs": len(asked),
        "pairs_of": dict(Counter(pair.origin for pair in asked)),
        "assumed_pairs": len(taken),
        "skipped": dict(skipped),
        "not_extreme": len(scored) - len(preferences),
        "unscored_pairs": len(asked) - len(scored),
        "unscored_reasons": dict(Counter(label.unscored for label in labels if label.unscored)),
        **reasoning_counts(context),
        **summary(preferences, labels),
        **biases(asked, labels, read_labels(context, "label", IDENTICAL)),
        **generation.counts,
    }
    n_in = len(sampled) + len(revised) + skipped.total()
    return Outcome(n_in, len(preferences) + len(taken), counts, generation.tokens)


def make_pairs(
    context: RunContext,
) -> tuple[list[Candidates], list[Candidates], Counter[str]]:
    """Pairs of samples, pairs with a revision, and what was skipped of both, by reason."""
    config = context.config.label
    if not context.config.preferences.ai:
        return [], [], Counter()
    prompts = {prompt.id: prompt for prompt in context.prompts}
    with context.records("sample") as file:
        responses = [record for record in file if isinstance(record, Response)]
    sampled, skipped = pair_up(prompts, responses, config.pairing, context.config.seed)
    if config.revision_pairs == "off":
        return sampled, [], skipped
    with context.records("revise") as file:
        records = [record for record in file if isinstance(record, Response | Revision)]
    revised, more_skipped = revision_pairs(prompts, records)
    return sampled, revised, skipped + more_skipped


def make_setup(context: RunContext) -> LabelSetup:
    """The run's judge, its principles and its question."""
    judge = context.models["judge"]
    return label_setup(context.config, context.constitution, context.templates, judge)


def label_setup(
    config: RunConfig, constitution: Constitution, templates: Templates, judge: Model
) -> LabelSetup:
    """How the judge labels under this config."""
    label = config.label
    return LabelSetup(
        principles=constitution.for_preference(),
        templates=templates,
        exemplars=exemplars_on(label.exemplars, config, judge),
        seed=config.seed,
        judge=Voice("judge", judge.label, label.reasoning, config.engine.key),
        mode=label.mode,
        ensemble=label.ensemble,
        n_cot=label.n_cot,
    )


def read_labels(context: RunContext, stage: str, file: str = "records") -> list[Label]:
    """The labels of a stage's record file, by id: its own order is that in which a judge was done.

    What is made of labels keeps their order, and a reward model learns what is made in its order.
    """
    with context.records(stage, file) as records:
        labels = [record for record in records if isinstance(record, Label)]
    return sorted(labels, key=lambda label: label.id)


def reasoning_counts(context: RunContext) -> dict[str, int]:
    """How many reasonings there are and what is wrong with them; empty without any (mode cot)."""
    with context.records("label") as records:
        found = [record for record in records if isinstance(record, Reasoning)]
    if not found:
        return {}
    return {
        "reasonings": len(found),
        "failed_reasonings": sum(r.generation.finish == "error" for r in found),
        "refused_reasonings": sum(is_refusal(r.text) for r in found),
    }


def combine_all(
    pairs: Sequence[Candidates],
    labels: Iterable[Label],
    bounds: tuple[float, float] | None = None,
) -> list[Preference]:
    """The preferences of those pairs that were scored in both orders."""
    by_prompt: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        by_prompt[label.prompt_id].append(label)
    combined = (combine(pair, by_prompt[pair.prompt.id], bounds) for pair in pairs)
    return [preference for preference in combined if preference is not None]


def summary(preferences: Sequence[Preference], labels: Sequence[Label]) -> dict[str, Any]:
    """How sure and how consistent the judge is; none where there is nothing to say."""
    if not preferences:
        return {"mean_p_chosen": None, "orders_agree": None, "mean_p_outside": None}
    outside = [label.p_outside for label in labels if label.p_outside is not None]
    agree = [bool(preference.orders_agree) for preference in preferences]
    return {
        "mean_p_chosen": round(sum(p.p_chosen for p in preferences) / len(preferences), 4),
        "orders_agree": round(sum(agree) / len(agree), 4),
        "mean_p_outside": round(sum(outside) / len(outside), 4) if outside else None,
    }


def biases(
    pairs: Sequence[Candidates], labels: Sequence[Label], identical: Sequence[Label]
) -> dict[str, Any]:
    """What the judge goes by beside the content; none where there is nothing to say.

    `same_slot`: share of pairs where the same slot won in both orders. `length_correlation`:
    Spearman's of P and the difference in tokens, each pair seen from both sides.
    `identical_p_first`: mean P(first) of a response beside itself.
    """
    judged, _ = label_pairs(labels)
    sizes = {r.id: r.generation.n_tokens for pair in pairs for r in (pair.one, pair.two)}
    gaps = [(pair.p_first - 0.5, sizes[pair.first_id] - sizes[pair.second_id]) for pair in judged]
    same = [label.p_first for label in identical if label.p_first is not None]
    rho = spearman([*gaps, *((-p, -n) for p, n in gaps)])
    return {
        "same_slot": same_slot(judged),
        "length_correlation": None if rho is None else round(rho, 4),
        "identical_p_first": round(sum(same) / len(same), 4) if same else None,
    }


def same_slot(judged: Sequence[Judged]) -> float | None:
    """Share of pairs where the same slot won in both orders; none of no pair."""
    found = known(same_position_rate, [pair.orders for pair in judged])
    return round(found["value"], 4) if found else None
