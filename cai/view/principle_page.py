"""What each principle did in a run: pure functions over transcripts."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cai.constitution import Principle
from cai.judgements import label_pairs
from cai.metrics import known, mean, proportion
from cai.records import Label, Response, Revision
from cai.view.transcripts import Round, Transcript
from cai.words import word_change


class Drawn(NamedTuple):
    """One round in which a principle was drawn."""

    principle_id: str
    change: float | None
    """Share of words that the revision changed; none where none came of it."""
    before: float | None
    """Reward of what was revised."""
    after: float | None
    """Reward of the revision."""


class Agreement(NamedTuple):
    """One pair judged in both orders under a principle."""

    principle_id: str
    agrees: bool
    """Whether both orders prefer the same text."""


def drawn(transcript: Transcript) -> list[Drawn]:
    """The rounds of a transcript."""
    before: Response | Revision | None = transcript.response
    rounds: list[Drawn] = []
    for round in transcript.rounds:
        rounds.append(draw_of(round, before, transcript.rewards))
        before = round.revision or before
    return rounds


def draw_of(
    round: Round, before: Response | Revision | None, rewards: Mapping[str, float]
) -> Drawn:
    """A round, of which `before` was revised. A revision that failed changed nothing."""
    after = round.revision
    if not before or not after or after.generation.finish == "error":
        return Drawn(round.principle_id, None, None, None)
    change = word_change(before.text, after.text)
    return Drawn(round.principle_id, change, rewards.get(before.id), rewards.get(after.id))


def chain_change(transcript: Transcript) -> float | None:
    """Share of words that differ between the response and the last revision; none without one."""
    versions = transcript.versions()
    if not isinstance(versions[-1] if versions else None, Revision):
        return None
    return word_change(versions[0].text, versions[-1].text)


def agreements(transcript: Transcript) -> list[Agreement]:
    """The pairs of a transcript, those of the evaluation too, once for each principle."""
    groups: dict[str, list[Label]] = defaultdict(list)
    for label in (*transcript.labels, *transcript.comparisons):
        groups[label.principle_id].append(label)
    return [
        Agreement(id, (pair.orders[0] - 0.5) * (0.5 - pair.orders[1]) > 0)
        for id, labels in groups.items()
        for pair in label_pairs(labels)[0]
    ]


def principle_rows(
    ids: Iterable[str],
    constitution: Mapping[str, Principle],
    rounds: Iterable[Drawn],
    judged: Iterable[Agreement],
) -> list[dict[str, Any]]:
    """One row for each of `ids`, which may name a principle that the constitution lacks.

    Metrics are estimates with their intervals, none where there is nothing to measure. `changed`:
    share of revisions that changed a word. `change`: mean share of words changed. `gain`: mean of
    reward after minus before. `agree`: share of pairs for which both orders agree.
    """
    by_round: dict[str, list[Drawn]] = defaultdict(list)
    by_pair: dict[str, list[bool]] = defaultdict(list)
    for one in rounds:
        by_round[one.principle_id].append(one)
    for id, agrees in judged:
        by_pair[id].append(agrees)
    return [principle_row(id, constitution.get(id), by_round[id], by_pair[id]) for id in ids]


def principle_row(
    id: str, principle: Principle | None, rounds: Sequence[Drawn], agree: Sequence[bool]
) -> dict[str, Any]:
    changed = [one.change for one in rounds if one.change is not None]
    rewards = [
        (one.before, one.after)
        for one in rounds
        if one.before is not None and one.after is not None
    ]
    shown = {"critique", "revision", "preference", "tags", "weight"}
    texts = principle.model_dump(include=shown) if principle else {}
    return {
        "id": id,
        "known": principle is not None,
        "n_drawn": len(rounds),
        "n_without_revision": len(rounds) - len(changed),
        "changed": known(proportion, [change > 0 for change in changed]),
        "change": known(mean, changed),
        "before": known(mean, [before for before, _ in rewards]),
        "after": known(mean, [after for _, after in rewards]),
        "gain": known(mean, [after - before for before, after in rewards]),
        "n_pairs": len(agree),
        "agree": known(proportion, agree),
        **texts,
    }
