"""The report's sections about what was learnt from: preferences, reward model, RL."""

from collections.abc import Iterator, Mapping
from typing import Any

from cai.view.markdown import bullets, grid, inline
from cai.view.terminal import as_text, measure

Manifest = Mapping[str, Any]


def counts_of(manifest: Manifest, stage: str) -> Mapping[str, Any]:
    """What a finished stage counted; empty for any other."""
    for entry in manifest.get("stages", []):
        if entry["name"] == stage and entry["status"] == "done":
            return entry.get("counts") or {}
    return {}


def heldout_accuracy(reward: Manifest) -> dict[str, Any] | None:
    """The reward model's accuracy on held-out pairs, from what its stage counted."""
    # Of a model trained on ratings, `n_heldout` counts ratings.
    n = reward.get("n_heldout_pairs", reward.get("n_heldout"))
    if reward.get("accuracy_heldout") is None or not n:
        return None
    ends = {end: reward[f"accuracy_heldout_{end}"] for end in ("low", "high")}
    return {"value": reward["accuracy_heldout"], **ends, "n": n}


def said(value: object) -> str:
    """A count, or several by name."""
    if isinstance(value, Mapping):
        found = [f"{as_text(n)} {name}" for name, n in value.items() if n]
        return inline(", ".join(found) or "none")
    return inline(as_text(value))


def preferences(manifest: Manifest) -> Iterator[str]:
    """Where the pairs come from, and what was left out on the way."""
    label, reward = counts_of(manifest, "label"), counts_of(manifest, "reward")
    if not (label or reward):
        return
    yield "## Preferences"
    rows = {
        "judged pairs": label.get("pairs_of"),
        "pairs whose revision is assumed to be better": label.get("assumed_pairs"),
        "not judged": label.get("skipped"),
        "judged, not best against worst": label.get("not_extreme"),
        "without a judgement": label.get("unscored_pairs"),
        "mean P(chosen)": label.get("mean_p_chosen"),
        "both orders agree": label.get("orders_agree"),
        "probability on neither option": label.get("mean_p_outside"),
        "reasonings that refuse": label.get("refused_reasonings"),
        "pairs to learn from, by source": reward.get("pairs"),
        "left out of those": reward.get("pairs_left_out"),
        "share of foreign pairs": reward.get("foreign_ratio"),
        "share of foreign pairs aimed at": reward.get("foreign_ratio_aimed_at"),
        "ratings to learn from, by source": reward.get("ratings"),
        "ratings left out": reward.get("ratings_left_out"),
    }
    yield bullets(
        f"{inline(name)}: {said(n)}" for name, n in rows.items() if n not in (None, {}, 0)
    )


def reward_model(manifest: Manifest, heldout: Mapping[str, Any] | None) -> Iterator[str]:
    """How well it predicts labels that it was not trained on."""
    yield "## Reward model"
    n = f" on {heldout['n']:,} held-out pairs" if heldout else ""
    yield f"Accuracy{n}: {measure(heldout, 100, 0)}. 50 % is guessing."
    counts = counts_of(manifest, "reward")
    rows = {
        "calibration error (ECE) of the held-out pairs": counts.get("ece_heldout"),
        "their cross-entropy with the labels, nats": counts.get("loss_heldout"),
        "accuracy on pairs it was trained on": counts.get("accuracy_train"),
        "pairs longer than reward.max_length, left out": counts.get("n_too_long"),
        "mean squared error on held-out ratings": counts.get("mse_heldout"),
        "the same of always saying their mean": counts.get("mse_of_mean_heldout"),
    }
    if found := [f"{inline(name)}: {said(value)}" for name, value in rows.items() if value]:
        yield bullets(found)


def reinforcement(manifest: Manifest) -> Iterator[str]:
    """What RL did, whether it was stopped, and which of its policies goes on."""
    counts = counts_of(manifest, "rl")
    if not counts:
        return
    yield "## Reinforcement learning"
    rows: dict[str, object] = {
        "steps": counts.get("n_steps"),
        "mean reward, first step": counts.get("reward_first"),
        "mean reward, last step": counts.get("reward_last"),
        "KL from the start at the last step, nats": counts.get("kl_last"),
        "completions that the reward model read cut": counts.get("n_reward_truncated"),
    }
    yield bullets(f"{inline(name)}: {said(n)}" for name, n in rows.items() if n is not None)
    if terms := counts.get("rewards_last"):
        yield grid(("Reward", "Mean at the last step, unweighted"), terms.items())
    if stopped := counts.get("stopped"):
        why = "; ".join(map(str, stopped["why"]))
        yield f"**Stopped as collapsed at step {stopped['step']}**: {inline(why)}."
    yield chosen(counts)


def chosen(counts: Mapping[str, Any]) -> str:
    """Which kept policy became the checkpoint, and why."""
    step, rate = counts.get("chosen_step"), counts.get("win_rate_over_start")
    if step == 0:
        last = counts.get("last_healthy_step") or 0
        found = f"up to step {last}, before one was kept" if last else "at no step"
        return (
            f"The policy was seen to be healthy {found}: the checkpoint is the policy that RL "
            "started from."
        )
    if not rate:
        return f"The checkpoint is that of step {step}, the last healthy one that was kept."
    found = measure(rate | {"value": rate["win_rate"]}, 100, 0)
    kept = ", ".join(map(str, counts.get("candidates", [])))
    return (
        f"Of the policies kept at steps {kept} the judge likes that of step {step} best: it wins "
        f"{found} of {rate['n']} held-out prompts against the policy that RL started from."
    )
