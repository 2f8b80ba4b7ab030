"""What the labels of one pair say together: both orders averaged, principle by principle."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from cai.records import Label


class Judged(NamedTuple):
    """A pair that was judged in both orders, under one principle or several."""

    first_id: str
    second_id: str
    orders: tuple[float, float]
    """P(the text shown first is better): with first_id there, and with second_id there."""
    labels: tuple[Label, ...]
    """The labels that count: those of principles with a judgement in both orders."""

    @property
    def p_first(self) -> float:
        """P(first_id's text is better), averaged over both orders."""
        # Exactly 0.5 where both orders say the same of the first slot.
        return 0.5 + (self.orders[0] - self.orders[1]) / 2


def label_pairs(labels: Iterable[Label]) -> tuple[list[Judged], int]:
    """The pairs judged in both orders, and how many have no principle with both.

    Several judgements of one order under one principle (mode cot) are averaged first, then the
    principles: each counts the same.
    """
    groups: dict[tuple[str, ...], list[Label]] = defaultdict(list)
    for label in labels:
        groups[tuple(sorted((label.first_id, label.second_id)))].append(label)
    found = [judge_pair(group) for group in groups.values()]
    judged = [pair for pair in found if pair]
    return judged, len(found) - len(judged)


def judge_pair(labels: Sequence[Label]) -> Judged | None:
    """The labels of one pair taken together; none if no principle has both orders."""
    first_id, second_id = labels[0].first_id, labels[0].second_id
    by_principle: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        if label.p_first is not None:
            by_principle[label.principle_id].append(label)
    used: list[Label] = []
    there: list[float] = []
    back: list[float] = []
    for group in by_principle.values():
        shown = [label.p_first for label in group if label.first_id == first_id]
        swapped = [label.p_first for label in group if label.first_id == second_id]
        if shown and swapped:
            there.append(fmean(p for p in shown if p is not None))
            back.append(fmean(p for p in swapped if p is not None))
            used += group
    if not used:
        return None
    return Judged(first_id, second_id, (fmean(there), fmean(back)), tuple(used))
