"""When RL has collapsed: bounds on what the last completions look like, and on the step's numbers.

A bound that is broken at `patience` checks in a row stops the training. Each bound has its own
count; a check at which its number is not known changes nothing. Completions of all processes count.

TRL's numbers of the step are checked from the first step on, those of the window from when it is
half full. That first half is what `length_growth` compares with.
"""

import itertools
import logging
import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from cai.metrics import distinct_n, known, pearson, top_opening_share
from cai.sections import Health
from cai.train.rewards import GENERATIONS, Rollout, Rollouts

BOUNDS = {
    "max_kl": "kl",
    "min_entropy": "entropy",
    "min_distinct_2": "distinct_2",
    "max_top_opening": "top_opening_share",
    "max_clipped": "completions/clipped_ratio",
    "max_zero_std": "zero_std",
    "max_length_correlation": "length_correlation",
    "max_length_growth": "length_growth",
    "min_length_growth": "length_growth",
}
"""Fields of Health and the metric that each is about, by its name in `metrics.jsonl`.

TRL's, of the step alone: `kl` and `entropy` are means over the step's completion tokens, in nats,
at the sampling temperature. RLOO's `kl` is the mean log-ratio to the start, of the policy that
sampled, and may be negative; GRPO's is Schulman's estimate, which cannot. Without a KL penalty
(`beta` 0) there is none. `completions/clipped_ratio` is TRL's too.

Ours, of the window: see `measure`. TRL's `frac_reward_zero_std` will not do for `max_zero_std`:
RLOO takes it after the KL penalty, which differs even where all rewards are equal.
"""


class Watch:
    """Follows the window and counts how long each bound has been broken."""

    def __init__(self, health: Health, group_size: int) -> None:
        self.health = health
        self.group_size = group_size
        self.window: deque[Rollout] = deque(maxlen=health.window)
        self.first_length: float | None = None
        self.last_check = 0
        self.strikes: dict[str, int] = {}
        """By bound: checks in a row at which it was broken."""
        self.clean: dict[str, int] = {}
        """By bound: the newest step whose policy was seen to keep it."""
        self.stopped: dict[str, Any] | None = None
        """`{"step", "why": [text…], "bounds": [name…]}` once a bound has used up its patience."""

    def look(
        self, step: int, fresh: Iterable[Sequence[Rollout]], logged: Mapping[str, Any]
    ) -> dict[str, float]:
        """Take in the batches that step sampled; the window's numbers if a check is due, else {}.

        `logged`: TRL's numbers of the step.
        """
        for batch in fresh:
            self.window.extend(mark_flat(batch, self.group_size))
        if step - self.last_check < self.health.every:
            return {}
        self.last_check = step
        found = self.measured()
        self.judge(step, {**logged, **found})
        return {name: value for name, value in found.items() if value is not None}

    def measured(self) -> dict[str, float | None]:
        """The window's numbers; none while it is less than half full."""
        if 2 * len(self.window) < self.health.window:
            return {}
        if self.first_length is None:
            self.first_length = fmean(row.n_tokens for row in self.window)
        return measure(self.window, self.first_length)

    def judge(self, step: int, values: Mapping[str, Any]) -> None:
        """Count what is broken; a step's completions are those of the policy of the step before."""
        for bound, metric in BOUNDS.items():
            limit, value = getattr(self.health, bound), values.get(metric)
            if limit is None or value is None:
                continue
            if is_broken(bound, limit, value):
                self.strikes[bound] = self.strikes.get(bound, 0) + 1
            else:
                self.strikes[bound], self.clean[bound] = 0, step - 1
        over = [bound for bound, n in self.strikes.items() if n >= self.health.patience]
        if over and self.stopped is None:
            why = [said(b, getattr(self.health, b), values[BOUNDS[b]]) for b in over]
            self.stopped = {"step": step, "why": why, "bounds": over}

    def last_healthy(self, n_steps: int) -> int:
        """The newest step whose policy kept every bound that stopped the training.

        `n_steps` if nothing did; 0, the policy that RL started from, if none was seen to keep them.
        """
        if self.stopped is None:
            return n_steps
        return min(self.clean.get(bound, 0) for bound in self.stopped["bounds"])

    @property
    def floor(self) -> int:
        """A step that `last_healthy` cannot fall below, whatever comes."""
        return min((self.clean.get(bound, 0) for bound in self.strikes), default=0)

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to carry, as JSON."""
        return {
            "window": [list(row) for row in self.window],
            "first_length": self.first_length,
            "last_check": self.last_check,
            "strikes": self.strikes,
            "clean": self.clean,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.window.extend(Rollout(*row) for row in state["window"])
        self.first_length = state["first_length"]
        self.last_check = state["last_check"]
        self.strikes = dict(state["strikes"])
        self.clean = dict(state["clean"])


class HealthCallback(TrainerCallback, ExportableState):
    """Writes the window's numbers into the metrics line; stops a training that has collapsed.

    Comes before MetricsCallback. Its state is in each checkpoint's `trainer_state.json`, so resume
    goes on with the same window and counts.
    """

    def __init__(self, watch: Watch, rollouts: Rollouts) -> None:
        self.watch = watch
        self.rollouts = rollouts

    def state(self) -> dict[str, Any]:
        """What the Trainer saves."""
        return {"args": {}, "attributes": self.watch.state()}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take over what the checkpoint carries."""
        saved = state.stateful_callbacks.get(type(self).__name__)
        if saved:
            self.watch.restore(saved["attributes"])

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Check the step; one that reused the completions of an earlier one says nothing new."""
        logs = given["logs"]
        if "loss" not in logs:
            return
        fresh = gathered(self.rollouts.take())
        if not fresh:
            return
        logs[GENERATIONS] = len(fresh)
        logs.update(self.watch.look(state.global_step, fresh, logs))
        if self.watch.stopped:
            logging.warning("stopped at step %s: %s", state.global_step, self.watch.stopped["why"])
            control.should_training_stop = True
            control.should_save = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """No checkpoint of a collapsed policy: resume would go on from it."""
        if self.watch.stopped:
            control.should_save = False


def gathered(batches: list[list[Rollout]]) -> list[list[Rollout]]:
    """The same batches with the completions of all processes, in TRL's order."""
    # two levels, because gathering joins the outermost lists of the processes
    shares: list[list[list[Rollout]]] = gather_object([batches])
    return [list(itertools.chain(*parts)) for parts in zip(*shares, strict=True)]


def measure(window: Collection[Rollout], first: float) -> dict[str, float | None]:
    """What the completions look like, at least one of them; none where it cannot be said.

    `first`: mean tokens of the first window. `distinct_2`: different word pairs over all;
    `top_opening_share`: completions that begin with the commonest three words; `zero_std`: those in
    a group whose rewards are all equal; `length_correlation`: Pearson's, of reward and tokens;
    `length_growth`: mean tokens over `first`.
    """
    texts = [row.text for row in window]
    length = fmean(row.n_tokens for row in window)
    scored = [(row.reward, float(row.n_tokens)) for row in window if row.reward is not None]
    return {
        "distinct_2": known(distinct_n, texts, 2),
        "top_opening_share": known(top_opening_share, texts),
        "zero_std": fmean(row.flat for row in window),
        "length_correlation": pearson(scored),
        "length_growth": length / first if first else None,
    }


def mark_flat(batch: Sequence[Rollout], group_size: int) -> list[Rollout]:
    """The batch with `flat` set; each `group_size` rollouts in a row answer one prompt."""
    marked: list[Rollout] = []
    for start in range(0, len(batch), group_size):
        group = batch[start : start + group_size]
        rewards = [row.reward for row in group if row.reward is not None]
        equal = not rewards or math.isclose(min(rewards), max(rewards), rel_tol=1e-6, abs_tol=1e-8)
        marked += [row._replace(flat=equal) for row in group]
    return marked


def is_broken(bound: str, limit: float, value: float) -> bool:
    """Whether the value lies beyond the bound; a correlation does on either side of 0."""
    if bound.startswith("min_"):
        return value < limit
    return (abs(value) if bound == "max_length_correlation" else value) > limit


def said(bound: str, limit: float, value: float) -> str:
    """A broken bound in words."""
    sign = "<" if bound.startswith("min_") or value < 0 else ">"
    limit = -limit if bound.startswith("max_") and value < 0 else limit
    return f"{BOUNDS[bound]} {value:.3g} {sign} rl.health.{bound} {limit:g}"
