"""How good a judge is on pairs whose better side is known. Pure functions over its labels."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from cai.chains.judging import Trial
from cai.chains.pairing import Candidates
from cai.judgements import Judged, label_pairs
from cai.metrics import ece, is_refusal, known, mean, proportion, same_position_rate, wilson
from cai.records import Label, Reasoning
from cai.run import StoredRecord

BINS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Ends of the bins of `reliability`: how sure the judge is of the side it prefers."""
EVEN = 0.01
"""How far from 0.5 identical responses may be, both orders averaged."""
Known = Sequence[tuple[Candidates, Judged]]


def measure(trial: Trial, records: Sequence[StoredRecord]) -> dict[str, Any]:
    """Everything that the answers say of the judge, as JSON; none where there is nothing to say.

    `accuracy`: share of pairs with the better response preferred, both orders averaged, a tie being
    half. `p_right`: mean P of the better one. `same_slot`: share of pairs where the same slot won
    in both orders. `p_first`: mean P of the first slot. `ece` and `reliability`: how often the
    preferred side is the better one, by how sure the judge is of it.
    """
    # A verdict asked for beside the labels is none of them.
    written = {label.id for label in verdicts(records)} if trial.written else set[str]()
    labels = [r for r in records if isinstance(r, Label) and r.id not in written]
    judged = judged_pairs(trial.pairs, labels)
    p_right = [p_better(pair, found) for pair, found in judged]
    sure, hit = [max(p, 1 - p) for p in p_right], [hits(p) for p in p_right]
    return {
        "n_pairs": len(trial.pairs),
        "n_unscored": len(trial.pairs) - len(judged),
        "unscored_reasons": dict(Counter(x.unscored for x in labels if x.unscored).most_common(3)),
        "accuracy": share(hit),
        "p_right": known(mean, p_right),
        "ece": known(ece, sure, hit),
        "reliability": reliability(sure, hit),
        "same_slot": known(same_position_rate, [found.orders for _, found in judged]),
        "p_first": known(mean, [p for _, found in judged for p in found.orders]),
        "p_outside": known(mean, [x.p_outside for x in labels if x.p_outside is not None]),
        "identical": identical(trial.identical, labels),
        "refusals": refusals(records),
        "by_principle": by_principle(judged),
    }


def verdicts(records: Iterable[StoredRecord]) -> list[Label]:
    """The labels that were written in words."""
    return [record for record in records if isinstance(record, Label) and record.mode == "text"]


def judged_pairs(pairs: Iterable[Candidates], labels: Iterable[Label]) -> Known:
    """The pairs that were scored in both orders, with their judgement."""
    found = {frozenset((j.first_id, j.second_id)): j for j in label_pairs(labels)[0]}
    ids = ((pair, frozenset((pair.one.id, pair.two.id))) for pair in pairs)
    return [(pair, found[key]) for pair, key in ids if key in found]


def p_better(pair: Candidates, judged: Judged) -> float:
    """P of the better response, which is the pair's first."""
    return judged.p_first if judged.first_id == pair.one.id else 1 - judged.p_first


def hits(p: float) -> float:
    """1 where the better response is preferred, half for a tie."""
    return 0.5 if p == 0.5 else float(p > 0.5)


def share(outcomes: Sequence[float]) -> dict[str, Any] | None:
    """Their mean with Wilson's interval."""
    return wilson(fmean(outcomes), len(outcomes))._asdict() if outcomes else None


def reliability(sure: Sequence[float], hit: Sequence[float]) -> list[dict[str, Any]]:
    """By how sure the judge is: the mean of that, and how often it is right; bins with pairs."""
    rows: list[dict[str, Any]] = []
    for low, high in pairwise(BINS):
        last = high == BINS[-1]
        inside = [i for i, p in enumerate(sure) if low <= p < high or (last and p == high)]
        if inside:
            right = share([hit[i] for i in inside]) or {}
            rows.append({"from": low, "to": high, "p": fmean(sure[i] for i in inside)} | right)
    return rows


def identical(pairs: Sequence[Candidates], labels: Iterable[Label]) -> dict[str, Any] | None:
    """P(first) of a response beside itself: as shown (a liking for a slot), and averaged."""
    judged = [found for _, found in judged_pairs(pairs, labels)]
    if not judged:
        return None
    averaged = [pair.p_first for pair in judged]
    return {
        "n": len(judged),
        "p_first": fmean(p for pair in judged for p in pair.orders),
        "p_first_averaged": fmean(averaged),
        "largest_deviation": max(abs(p - 0.5) for p in averaged),
    }


def refusals(records: Sequence[StoredRecord]) -> dict[str, Any]:
    """What became of the answers in words: verdicts, and reasonings before a judgement."""
    asked = verdicts(records)
    reasoned = [record for record in records if isinstance(record, Reasoning)]
    texts = [label.text or "" for label in asked] + [reasoning.text for reasoning in reasoned]
    return {
        "n_verdicts": len(asked),
        "n_without_verdict": sum(label.p_first is None for label in asked),
        "n_reasonings": len(reasoned),
        "refused": known(proportion, [is_refusal(text) for text in texts]),
    }


def by_principle(judged: Known) -> list[dict[str, Any]]:
    """Accuracy under each principle that was drawn, the most drawn first."""
    found: dict[str, list[float]] = defaultdict(list)
    for pair, judgement in judged:
        for id in dict.fromkeys(label.principle_id for label in judgement.labels):
            alone, _ = label_pairs(x for x in judgement.labels if x.principle_id == id)
            found[id].append(hits(p_better(pair, alone[0])))
    rows = [{"principle": id, **(share(hit) or {})} for id, hit in found.items()]
    return sorted(rows, key=lambda row: (-row["n"], row["principle"]))


def is_chance(result: Mapping[str, Any]) -> bool:
    """Whether the judge is no better than a coin: its interval is not above a half."""
    return result["accuracy"]["low"] <= 0.5


def chance(result: Mapping[str, Any]) -> str:
    """The same in words."""
    found = result["accuracy"]
    return (
        f"right on {found['value']:.0%} of {found['n']} pairs, 95 % interval "
        f"[{found['low']:.0%}, {found['high']:.0%}]: not better than chance. Its labels would "
        "teach noise; name another judge (models.judge), or try label.mode=cot or exemplars"
    )
