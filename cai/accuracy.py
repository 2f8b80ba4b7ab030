"""How right the answers to a suite's items are. Pure; what failed is counted, never wrong."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from cai.config import Engine
from cai.metrics import ece, wilson
from cai.records import Record
from cai.suites import Asked, Format, SuiteName

SAME = 1e-9
"""Relative difference below which two probabilities count as equal."""


class Outcome(Record):
    """What a model said to one item in one way of asking."""

    row: int
    """The line of the suite's file."""
    format: Format
    order: tuple[int, ...] | None
    """Shuffled: the original index of each option shown; none: as the file has them."""
    options: tuple[str, ...]
    right: int
    """Index of the right option as shown."""
    logprobs: tuple[float, ...] | None
    """Log-probability (nats) of each option's whole text after the prompt."""
    p: tuple[float, ...] | None
    """Probability of each option, normalised over them."""
    p_outside: float | None
    """Probability mass on none of the options."""
    chosen: int | None
    """The likeliest option, the first of equals: `argmax`, as in lm-eval."""
    failed: str | None
    """Why there are no numbers."""


class Scored(Record):
    """A reward model's scores of the answers to one item."""

    row: int
    right: float | None
    wrong: float | None
    """The best of the wrong ones."""
    n_answers: int
    truncated: bool
    """Whether a text was cut at its left to fit."""
    failed: str | None


class Accuracy(Record):
    """The share of right answers among the scored items."""

    n: int
    n_scored: int
    n_failed: int
    n_ties: int
    """Scored items whose two best options are equally likely, or whose two scores are equal."""
    accuracy: float
    stderr: float | None
    """sqrt(p (1 - p) / (n - 1)), as in lm-eval; none for a single item."""
    low: float
    """Lower end of Wilson's 95 % interval."""
    high: float
    p_right: float
    """Mean probability of the right option, normalised over the options; the sigmoid of the gap of
    two scores."""


class Variant(Accuracy):
    """A suite asked in one format, with the options as given or shuffled."""

    format: Format
    shuffled: bool
    accuracy_norm: float | None
    """By log-probability per character (lm-eval's `acc_norm`); none where the options of each item
    are of one length, since it is then the accuracy."""
    chance: float
    p_outside: float
    ece: float
    """Expected calibration error of the chosen option's normalised probability, in 10 bins."""
    chosen: dict[str, float]
    """Share of each option among the answers."""
    correct: dict[str, float]
    """Share of each option among the right answers."""


class RewardAccuracy(Accuracy):
    """How often a reward model scores the right answer highest; a tie is half right."""

    chance: float
    n_truncated: int


class SuiteResult(Record):
    """Everything that was measured, and on what."""

    suite: SuiteName
    file: str
    n_rows: int
    """Usable rows of the file, of which `n_items` were asked."""
    n_bad: int
    """Broken rows left out."""
    n_items: int
    n_not_shuffled: int
    """Items that cannot be taken apart exactly: asked as given only."""
    seed: int
    engine: Engine
    model: str | None
    reward_model: str | None
    variants: tuple[Variant, ...]
    reward: RewardAccuracy | None
    outcomes: tuple[Outcome, ...]
    scores: tuple[Scored, ...]

    @property
    def failures(self) -> Counter[str]:
        """Why items have no numbers, and how many."""
        return Counter(found.failed for found in (*self.outcomes, *self.scores) if found.failed)


def read_outcome(
    asked: Asked, form: Format, logprobs: Sequence[float] | None, failed: str | None
) -> Outcome:
    """An item's outcome from the log-probabilities of its options, or from why there are none."""
    values = tuple(logprobs or ())
    weights = [math.exp(value - max(values)) for value in values]
    mass = math.fsum(map(math.exp, values))
    return Outcome(
        row=asked.item.row,
        format=form,
        order=asked.order,
        options=asked.item.options,
        right=asked.right,
        logprobs=values or None,
        p=tuple(weight / math.fsum(weights) for weight in weights) or None,
        p_outside=max(0.0, 1 - mass) if values else None,
        chosen=best(values) if values else None,
        failed=failed,
    )


def best(values: Sequence[float]) -> int:
    """Index of the largest value, the first of equals."""
    return values.index(max(values))


def make_variants(outcomes: Sequence[Outcome]) -> tuple[Variant, ...]:
    """Each way of asking, as given before shuffled."""
    groups: dict[tuple[Format, bool], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.format, outcome.order is not None), []).append(outcome)
    found = (make_variant(group) for _, group in sorted(groups.items()))
    return tuple(variant for variant in found if variant)


def make_variant(outcomes: Sequence[Outcome]) -> Variant | None:
    """The outcomes of one way of asking, taken together; none if not one is scored."""
    scored = [o for o in outcomes if o.p is not None]
    if not scored:
        return None
    hits = [o.chosen == o.right for o in scored]
    p_chosen = [max(o.p or ()) for o in scored]
    return Variant(
        **accuracy(hits, len(outcomes), sum(map(tied, scored))),
        p_right=fmean((o.p or ())[o.right] for o in scored),
        format=outcomes[0].format,
        shuffled=outcomes[0].order is not None,
        accuracy_norm=accuracy_norm(scored),
        chance=fmean(1 / len(o.options) for o in scored),
        p_outside=fmean(o.p_outside or 0.0 for o in scored),
        ece=ece(p_chosen, [float(hit) for hit in hits]),
        chosen=shares(o.options[best(o.p or ())] for o in scored),
        correct=shares(o.options[o.right] for o in scored),
    )


def accuracy(hits: Sequence[float], n: int, n_ties: int) -> dict[str, Any]:
    """The fields of `Accuracy` but one, from how right each scored item is (0 to 1)."""
    share, low, high, n_scored = wilson(fmean(hits), len(hits))
    stderr = math.sqrt(share * (1 - share) / (n_scored - 1)) if n_scored > 1 else None
    found = {"n": n, "n_scored": n_scored, "n_failed": n - n_scored, "n_ties": n_ties}
    return found | {"accuracy": share, "stderr": stderr, "low": low, "high": high}


def tied(outcome: Outcome) -> bool:
    """Whether which option comes first has decided."""
    first, second = sorted(outcome.p or (), reverse=True)[:2]
    return math.isclose(first, second, rel_tol=SAME)


def accuracy_norm(scored: Sequence[Outcome]) -> float | None:
    """The accuracy by log-probability per character, where options differ in length."""
    if all(len(set(map(len, o.options))) == 1 for o in scored):
        return None
    per_character = (
        [value / len(text) for value, text in zip(o.logprobs or (), o.options, strict=True)]
        for o in scored
    )
    return fmean(best(v) == o.right for v, o in zip(per_character, scored, strict=True))


def shares(options: Iterable[str]) -> dict[str, float]:
    """How often each option occurs, in the order of the letters."""
    counts = Counter(option.strip() for option in options)
    return {option: counts[option] / counts.total() for option in sorted(counts)}


def reward_accuracy(scores: Sequence[Scored]) -> RewardAccuracy | None:
    """How often the right answer is scored highest; none if not one item is scored."""
    known = [s for s in scores if s.right is not None and s.wrong is not None]
    if not known:
        return None
    gaps = [(s.right or 0.0) - (s.wrong or 0.0) for s in known]
    hits = [0.5 if gap == 0 else float(gap > 0) for gap in gaps]
    return RewardAccuracy(
        **accuracy(hits, len(scores), sum(gap == 0 for gap in gaps)),
        p_right=fmean(map(sigmoid, gaps)),
        chance=fmean(1 / score.n_answers for score in known),
        n_truncated=sum(score.truncated for score in scores),
    )


def sigmoid(gap: float) -> float:
    """1 / (1 + exp(-gap)), for gaps of any size."""
    return 0.5 * (1 + math.tanh(gap / 2))
