"""Which responses are compared, and what the labels of a pair make of it."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from cai.judgements import label_pairs
from cai.records import (
    Label,
    Origin,
    Preference,
    Prompt,
    Response,
    Revision,
    derive_seed,
    digest,
)

Pairing = Literal["random", "all", "extremes"]


class Candidates(NamedTuple):
    """Two responses to one prompt."""

    prompt: Prompt
    one: Response | Revision
    two: Response | Revision
    origin: Origin = "sampled"

    @property
    def key(self) -> str:
        """The same for both orders."""
        return digest("pair", self.prompt.id, *sorted((self.one.id, self.two.id)))

    def swapped(self) -> "Candidates":
        return self._replace(one=self.two, two=self.one)


def pair_up(
    prompts: Mapping[str, Prompt], responses: Iterable[Response], pairing: Pairing, seed: int
) -> tuple[list[Candidates], Counter[str]]:
    """Pairs of distinct texts, one a prompt (random) or every two; what was skipped, by reason.

    Skipped are prompts: `failed_response` has fewer than two whole responses, `identical` no two
    that differ. Of several responses with one text the first drawn is compared, the others are
    counted as `same_text`. The pairs are in the order of their prompts' ids: that of `responses`
    is the one in which an engine was done with them.
    """
    by_prompt: dict[str, list[Response]] = defaultdict(list)
    for response in responses:
        by_prompt[response.prompt_id].append(response)
    pairs: list[Candidates] = []
    skipped: Counter[str] = Counter()
    for prompt_id, group in sorted(by_prompt.items()):
        whole = [r for r in group if r.generation.finish != "error"]
        drawn = sorted(whole, key=lambda r: (derive_seed("pair", seed, r.id), r.id))
        distinct = first_of_each_text(drawn)
        if len(whole) < 2:
            skipped["failed_response"] += 1
        elif len(distinct) < 2:
            skipped["identical"] += 1
        else:
            n = 2 if pairing == "random" else len(distinct)
            skipped["same_text"] += len(whole) - len(distinct) if pairing != "random" else 0
            both = itertools.combinations(distinct[:n], 2)
            pairs += [Candidates(prompts[prompt_id], one, other) for one, other in both]
    return pairs, +skipped


def first_of_each_text(responses: Iterable[Response]) -> list[Response]:
    """The first response of every text, in order."""
    found: dict[str, Response] = {}
    for response in responses:
        found.setdefault(response.text, response)
    return [*found.values()]


def revision_pairs(
    prompts: Mapping[str, Prompt], records: Iterable[Response | Revision]
) -> tuple[list[Candidates], Counter[str]]:
    """Each revised response: its last whole revision first, then what the model first said."""
    responses: dict[str, Response] = {}
    revisions: dict[str, Revision] = {}
    for record in records:
        if record.generation.finish == "error" or not record.text:
            continue
        if isinstance(record, Response):
            responses[record.prompt_id] = record
        elif record.round > getattr(revisions.get(record.prompt_id), "round", 0):
            revisions[record.prompt_id] = record
    skipped: Counter[str] = Counter()
    pairs: list[Candidates] = []
    for prompt_id, revision in sorted(revisions.items()):
        response = responses.get(prompt_id)
        if response is None:
            skipped["failed_response"] += 1
        elif response.text == revision.text:
            skipped["identical_revision"] += 1
        else:
            pairs.append(Candidates(prompts[prompt_id], revision, response, "revision"))
    return pairs, skipped


def combine(
    pair: Candidates, labels: Sequence[Label], bounds: tuple[float, float] | None = None
) -> Preference | None:
    """The preference of a pair from its labels: P averaged over both orders, then clamped.

    None if there is no principle with a judgement in both orders.
    """
    judged, _ = label_pairs(label for label in labels if concerns(label, pair))
    if not judged:
        return None
    first_id, second_id, orders, used = judged[0]
    p_first = judged[0].p_first
    # A tie is the same in both orders.
    better = p_first > 0.5 or (p_first == 0.5 and first_id < second_id)
    chosen, rejected = (first_id, second_id) if better else (second_id, first_id)
    p_orders = (orders[0], 1 - orders[1]) if better else (orders[1], 1 - orders[0])
    p_chosen = sum(p_orders) / 2
    return Preference(
        id=digest("preference", *sorted(label.id for label in used), bounds),
        prompt_id=pair.prompt.id,
        principle_ids=tuple(dict.fromkeys(label.principle_id for label in used)),
        chosen_id=chosen,
        rejected_id=rejected,
        p_chosen=min(p_chosen, bounds[1]) if bounds else p_chosen,
        p_orders=p_orders,
        orders_agree=(p_orders[0] - 0.5) * (p_orders[1] - 0.5) > 0,
        label_ids=tuple(label.id for label in used),
        origin=pair.origin,
    )


def concerns(label: Label, pair: Candidates) -> bool:
    """Whether a label is about this pair."""
    return {label.first_id, label.second_id} == {pair.one.id, pair.two.id}


def assumed(pair: Candidates) -> Preference:
    """The revision taken as better without asking anybody: no AI feedback."""
    return Preference(
        id=digest("preference", "assumed", pair.one.id, pair.two.id),
        prompt_id=pair.prompt.id,
        principle_ids=(),
        chosen_id=pair.one.id,
        rejected_id=pair.two.id,
        p_chosen=1.0,
        p_orders=None,
        orders_agree=None,
        label_ids=(),
        origin="revision",
    )


def extremes(pairs: Sequence[Candidates], labels: Iterable[Label]) -> list[Candidates]:
    """Of each prompt's pairs the one of its best and its worst response.

    Responses are ranked by their mean P(better) over all comparisons that were scored. Only a pair
    that was scored itself can become a preference; a prompt without one keeps none. Revision pairs
    are kept as they are.
    """
    judged, _ = label_pairs(labels)
    wins: dict[str, list[float]] = defaultdict(list)
    for pair in judged:
        wins[pair.first_id].append(pair.p_first)
        wins[pair.second_id].append(1 - pair.p_first)
    rank = {id: sum(found) / len(found) for id, found in wins.items()}
    scored = {frozenset((pair.first_id, pair.second_id)) for pair in judged}
    kept: dict[str, Candidates] = {}
    for pair in pairs:
        if pair.origin == "sampled" and frozenset((pair.one.id, pair.two.id)) in scored:
            best = kept.setdefault(pair.prompt.id, pair)
            if spread(pair, rank) > spread(best, rank):
                kept[pair.prompt.id] = pair
    return [*kept.values(), *(pair for pair in pairs if pair.origin == "revision")]


def spread(pair: Candidates, rank: Mapping[str, float]) -> float:
    """How far apart the two responses of a pair are ranked."""
    return abs(rank[pair.one.id] - rank[pair.two.id])
