"""What RL is rewarded by: a TRL reward function a term, which TRL weighs, sums and logs by name.

A completion that one of the terms cannot score has no reward from any of them, and TRL leaves it
out of its group's baseline: what the others say of it is not comparable with its rivals' sums.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from cai.errors import ConfigError, TrainError
from cai.sections import LengthReward, ModelReward, RewardTerm, RuleReward
from cai.train.jobs import RlJob
from cai.train.reward_model import RewardModel

TRUNCATED = "reward_truncated"
NOT_FINITE = "reward_not_finite"
"""Metrics, the mean over reward models, processes and generations: completions whose score was read
from cut tokens, or that have none."""
GENERATIONS = "generations"
"""A step's batches of completions, each sampled and scored at once; a step may reuse older ones."""
MAX_DEAD = 3
"""Batches without a finite score, one after the other, that end the training."""
TEXT_CHARS = 4000
"""Characters of a completion that rules and health checks read."""

Messages = list[dict[str, str]]
Scores = Sequence[float | None]


class Rollout(NamedTuple):
    """A completion as the health check reads it. `flat`: its group's rewards are all equal."""

    text: str
    n_tokens: int
    """As TRL counts them: with the end token."""
    reward: float | None
    """The weighted sum, before the KL penalty; none if a term has no finite score."""
    flat: bool = False


class Rollouts:
    """The completions since somebody last took them, a list for each batch that was generated."""

    def __init__(self) -> None:
        self.batches: list[list[Rollout]] = []

    def add(
        self, completions: Sequence[Messages], ids: Sequence[Sequence[int]], rewards: Scores
    ) -> None:
        """A new batch."""
        rows = zip(completions, ids, rewards, strict=True)
        self.batches.append([Rollout(text_of(c)[:TEXT_CHARS], len(i), r) for c, i, r in rows])

    def take(self) -> list[list[Rollout]]:
        """All batches, which are gone afterwards."""
        taken, self.batches = self.batches, []
        return taken


class Terms:
    """All terms' scores of the newest batch, which it also notes among the rollouts."""

    def __init__(
        self,
        terms: Sequence[RewardTerm],
        scorers: Sequence[Callable[..., Scores]],
        rollouts: Rollouts,
    ) -> None:
        self.weights = [term.weight for term in terms]
        self.scorers = scorers
        self.rollouts = rollouts
        self.columns: list[list[float | None]] = []
        """Unweighted; a completion has a score in each of them or in none."""

    def score(self, **given: Any) -> None:
        """Score TRL's `prompts`, `completions` and `completion_ids`."""
        columns = [scorer(**given) for scorer in self.scorers]
        rows = [known_or_none(row) for row in zip(*columns, strict=True)]
        self.columns = [
            [None if row is None else row[i] for row in rows] for i in range(len(columns))
        ]
        rewards = [None if row is None else self.total(row) for row in rows]
        self.rollouts.add(given["completions"], given["completion_ids"], rewards)

    def total(self, row: Sequence[float]) -> float:
        """The weighted sum of one completion's scores."""
        return sum(weight * score for weight, score in zip(self.weights, row, strict=True))


def known_or_none(row: Scores) -> list[float] | None:
    """One completion's scores, none where one is missing."""
    known = [score for score in row if score is not None]
    return known if len(known) == len(row) else None


class Term:
    """TRL's reward function of one term; its name is that of the term.

    TRL calls the terms one after the other on the same completions, which the first one scores for
    all.
    """

    def __init__(self, name: str, index: int, terms: Terms) -> None:
        self.__name__ = name
        self.index = index
        self.terms = terms

    def __call__(self, **given: Any) -> Scores:
        """The term's scores of TRL's batch, unweighted."""
        if self.index == 0:
            self.terms.score(**given)
        return self.terms.columns[self.index]


class PolicyReward:
    """A RewardModel's score of each prompt with its completion; none where it is not finite."""

    def __init__(self, model: RewardModel, name: str = "reward_model") -> None:
        self.model = model
        self.__name__ = name
        self.n_dead = 0
        """Batches in a row without a score."""

    def __call__(
        self,
        prompts: list[Messages],
        completions: list[Messages],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float | None]:
        """Score a batch. Raises TrainError after `MAX_DEAD` in a row without a finite score.

        Not after one: a batch may be as small as two completions, of one process of many.
        """
        before = self.model.n_truncated
        both = zip(prompts, completions, strict=True)
        scores = self.model.score([prompt + completion for prompt, completion in both])
        self.n_dead = self.n_dead + 1 if all(score is None for score in scores) else 0
        if self.n_dead == MAX_DEAD:
            raise TrainError(
                f"rl: no reward of {MAX_DEAD} batches in a row is finite; check the reward model "
                f"of {self.__name__} in rl.rewards"
            )
        log_metric(TRUNCATED, self.model.n_truncated - before)
        log_metric(NOT_FINITE, scores.count(None))
        return scores


def reward_functions(job: RlJob, rollouts: Rollouts) -> list[Term]:
    """TRL's `reward_funcs`, in the order of the terms; loads the reward models."""
    terms = Terms(job.rewards, [scorer(term, job) for term in job.rewards], rollouts)
    return [Term(term.name, index, terms) for index, term in enumerate(job.rewards)]


def scorer(term: RewardTerm, job: RlJob) -> Callable[..., Scores]:
    """The scores of one term. Raises ConfigError for a reward model without a folder."""
    if isinstance(term, LengthReward):
        return partial(lengths, term)
    if isinstance(term, RuleReward):
        return partial(matches, term)
    if term.path is None:
        raise ConfigError(f"rl.rewards: {term.name} names no reward model; give its path")
    model = RewardModel(term.path, job.reward_max_length, job.reward_batch_size)
    return PolicyReward(model, term.name)


def lengths(term: LengthReward, completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """Tokens beyond `free`, in units of `per`; TRL's count, with the end token."""
    return [max(0, len(row) - term.free) / term.per for row in completion_ids]


def matches(term: RuleReward, completions: Sequence[Messages], **_: Any) -> list[float]:
    """1 where the pattern is found in the first `TEXT_CHARS` characters, else 0."""
    pattern = re.compile(term.pattern, re.IGNORECASE)
    return [float(bool(pattern.search(text_of(c)[:TEXT_CHARS]))) for c in completions]


def text_of(completion: Messages) -> str:
    """What the assistant said."""
    return completion[-1]["content"] if completion else ""


def count_models(job: RlJob) -> int:
    """How many of the terms are reward models."""
    return sum(isinstance(term, ModelReward) for term in job.rewards)
