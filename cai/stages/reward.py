"""Stage reward: a reward model learns preferences, AI and foreign ones, or ratings.

Preferences as soft labels: Bai et al. 2022, section 4.1.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from cai.conversations import Conversation
from cai.errors import ConfigError
from cai.preferences import Pair, Rating, Reading, mix, read_foreign, run_pairs
from cai.records import conversation, derive_seed
from cai.run import read_rows, write_rows
from cai.score import Item, job_rows, read_scored, summary
from cai.stages.context import Outcome, RunContext, train
from cai.train.folder import CHECKPOINT, ROWS
from cai.train.jobs import RatingJob, RewardJob, ScoreJob
from cai.view.progress import StageProgress

AI = "ai"
"""The source of this run's own pairs."""
PAIRS = "pairs.jsonl"
"""Where the pairs lie if the trainer's rows are ratings."""


class Found(NamedTuple):
    """What there is to learn from; none of it is of a dialogue of the evaluation."""

    pairs: list[Pair]
    ratings: list[Rating]
    heldout: set[str]
    """The dialogues that are not trained on."""
    counts: dict[str, Any]


def run(context: RunContext, progress: StageProgress) -> Outcome:
    """Train on pairs (pointwise: on ratings); a share of the dialogues only measures accuracy."""
    config = context.config.reward
    found = gather(context)
    pairs = [pair_row(pair, found.heldout) for pair in found.pairs]
    pointwise = config.method == "pointwise"
    rows = [rating_row(rating, found.heldout) for rating in found.ratings] if pointwise else pairs
    what = "ratings" if pointwise else "pairs"
    if len(rows) < 2:
        raise ConfigError(
            f"stage reward: {len(rows)} {what}, at least 2 are needed; left out were "
            f"{found.counts[f'{what}_left_out'] or 'none'}: raise sample.n_prompts, or add to "
            f"{'reward.ratings' if pointwise else 'preferences.sources'}"
        )
    n_heldout = sum(row["heldout"] for row in rows)
    progress.doing(f"training on {len(rows) - n_heldout} {what}, {n_heldout} held out")
    result = train(context, "reward", make_job(context), rows, progress)
    if pointwise:
        write_rows(context.folder("reward") / PAIRS, pairs)
        unseen = [pair for pair in found.pairs if pair.group in found.heldout]
        result |= measure_pairs(context, unseen, progress)
    n_in = len(rows) + sum(found.counts[f"{what}_left_out"].values())
    n_out = len(rows) - int(result.get("n_too_long", 0))
    return Outcome(n_in, n_out, {**found.counts, "heldout": n_heldout, **result})


def gather(context: RunContext) -> Found:
    """This run's pairs and those from elsewhere, mixed; ratings; what is held out of both."""
    config = context.config
    evaluated = {prompt.group for prompt in context.prompts if prompt.split == "eval"}
    foreign = read_foreign(config)
    allowed = [pair for pair in foreign.pairs if pair.group not in evaluated]
    ratings = [rating for rating in foreign.ratings if rating.group not in evaluated]
    own = run_pairs(context.run, AI) if config.preferences.ai else []
    pairs, unmixed = mix(own, allowed, config.preferences.ratio, config.seed)
    barred = len(foreign.pairs) - len(allowed), len(foreign.ratings) - len(ratings)
    counts: dict[str, Any] = {
        "pairs": Counter(pair.source for pair in pairs),
        "pairs_left_out": left_out(foreign.pair_readings, barred[0]) + Counter(unmixed),
        "foreign_ratio": round(1 - len(own) / len(pairs), 4) if pairs else None,
        "foreign_ratio_aimed_at": config.preferences.ratio,
    }
    if foreign.ratings:
        counts["ratings"] = Counter(rating.source for rating in ratings)
        counts["ratings_left_out"] = left_out(foreign.rating_readings, barred[1])
    groups = {one.group for one in (*pairs, *ratings)}
    return Found(pairs, ratings, held_out(groups, context), counts)


def left_out(readings: Iterable[Reading], n_evaluated: int) -> Counter[str]:
    """Rows of all sources that are not used, by reason."""
    total = Counter(eval_dialogue=n_evaluated)
    for reading in readings:
        total += Counter(reading.left_out) + Counter(broken=reading.n_bad)
    return +total


def held_out(groups: Iterable[str], context: RunContext) -> set[str]:
    """The dialogues that are not trained on: a fixed share of them, drawn by the seed."""
    seed, share = context.config.seed, context.config.reward.heldout
    order = sorted(groups, key=lambda group: (derive_seed("held", seed, group), group))
    return set(order[: math.ceil(len(order) * share)])


def make_job(context: RunContext) -> RewardJob | RatingJob:
    config = context.config.reward
    shared: dict[str, Any] = {
        "model": str(context.models.get("reward", context.models["base"]).path),
        "lora": config.lora,
        "max_length": config.max_length,
        "trainer": config.trainer,
        "seed": context.config.seed,
        "max_cut": context.config.guards.allowed_cut,
    }
    if config.method == "pointwise":
        return RatingJob(**shared)
    return RewardJob(labels=config.labels, margin=config.margin, **shared)


def pair_row(pair: Pair, heldout: set[str]) -> dict[str, Any]:
    """One row in TRL's conversational implicit-prompt format."""
    chosen, rejected = sides(pair)
    return {
        "id": pair.id,
        "chosen": [message.model_dump() for message in chosen],
        "rejected": [message.model_dump() for message in rejected],
        "p_chosen": pair.p_chosen,
        "heldout": pair.group in heldout,
        "source": pair.source,
    }


def sides(pair: Pair) -> tuple[Conversation, Conversation]:
    """Both whole conversations: chosen, rejected."""
    return conversation(pair.messages, pair.chosen), conversation(pair.messages, pair.rejected)


def rating_row(rating: Rating, heldout: set[str]) -> dict[str, Any]:
    return {
        "id": rating.id,
        "messages": [message.model_dump() for message in rating.messages],
        "rating": rating.rating,
        "heldout": rating.group in heldout,
        "source": rating.source,
    }


def preference_rows(context: RunContext) -> list[dict[str, Any]]:
    """The pairs as the reward stage left them: what DPO learns from (rows of `DpoJob`)."""
    pointwise = context.config.reward.method == "pointwise"
    return list(read_rows(context.folder("reward") / (PAIRS if pointwise else ROWS)))


def measure_pairs(
    context: RunContext, pairs: Sequence[Pair], progress: StageProgress
) -> dict[str, Any]:
    """How often the rated model's score is higher for the better side, in a sub-folder `pairs/`.

    Pairs whose P is exactly 0.5 have no better side. Keys as in `cai.train.reward.measure`.
    """
    decided = [pair for pair in pairs if pair.p_chosen != 0.5]
    items = [Item(number, sides(pair)) for number, pair in enumerate(decided)]
    found = summary([])
    if items:
        progress.doing(f"scores of both sides of {len(items)} held-out pairs")
        job = ScoreJob(
            reward_model=str(context.folder("reward") / CHECKPOINT),
            base=None,
            max_length=context.config.reward.max_length,
            batch_size=context.config.rl.reward_batch_size,
        )
        inside = replace(context, folders={"pairs": f"{context.folders['reward']}/pairs"})
        train(inside, "pairs", job, job_rows(items), progress)
        found = summary(read_scored(inside.folder("pairs"), items))
    measured = found["accuracy"] or dict.fromkeys(("value", "low", "high"))
    return {
        "accuracy_heldout": measured["value"],
        "accuracy_heldout_low": measured["low"],
        "accuracy_heldout_high": measured["high"],
        "n_heldout_pairs": found["n_scored"],
        "n_pairs_not_finite": found["n_not_finite"],
        "n_pairs_truncated": found["n_truncated"],
    }
