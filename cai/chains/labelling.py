"""Judging pairs under a drawn principle, in both orders (Bai et al. 2022, section 4.1)."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cai.chains.revision import Voice
from cai.constitution import Principle, draw
from cai.driver import Chain, Step, generation
from cai.engines.base import Completion, Request
from cai.prompts import OPTIONS, Pair, Templates
from cai.records import Label, Message, Preference, Prompt, Response, derive_seed, digest


@dataclass(frozen=True)
class LabelSetup:
    """What all labels of a stage share."""

    principles: Sequence[Principle]
    templates: Templates
    exemplars: bool
    seed: int
    judge: Voice


class Candidates(NamedTuple):
    """Two responses to one prompt."""

    prompt: Prompt
    one: Response
    two: Response

    @property
    def key(self) -> str:
        """The same for both orders."""
        return digest("pair", self.prompt.id, *sorted((self.one.id, self.two.id)))

    def swapped(self) -> "Candidates":
        return Candidates(self.prompt, self.two, self.one)


class Verdict(NamedTuple):
    """What one judgement says."""

    p_first: float | None
    """P(first is better), normalised over the two options."""
    p_outside: float | None
    """Probability mass on neither."""
    unscored: str | None


def label_chain(pair: Candidates, setup: LabelSetup) -> Chain:
    """Judge a pair in both orders under one principle."""
    principle = draw(setup.principles, setup.seed, "label", pair.key)
    shots = exemplar_turns(pair, setup)
    for ordered in (pair, pair.swapped()):
        yield ask_label(ordered, principle, shots, setup)


def exemplar_turns(pair: Candidates, setup: LabelSetup) -> tuple[Message, ...]:
    """Worked comparisons, each under its own drawn principle, as in the paper."""
    if not setup.exemplars:
        return ()
    n = len(setup.templates.preference_exemplars)
    drawn = [draw(setup.principles, setup.seed, "shot", pair.key, i) for i in range(n)]
    return setup.templates.preference_shots(drawn)


def ask_label(
    pair: Candidates, principle: Principle, shots: tuple[Message, ...], setup: LabelSetup
) -> Step:
    """Ask which of the two is better: the log-probability of each option's token sequence."""
    template, judge = setup.templates.digests["compare"], setup.judge
    texts = Pair(pair.prompt.messages, pair.one.text, pair.two.text)
    messages = (*shots, *setup.templates.compare(principle, texts))
    said = [message.model_dump() for message in messages]
    request_id = digest("label", pair.one.id, pair.two.id, said, judge.key)
    request = Request(
        request_id, messages, judge.sampling, derive_seed(request_id), OPTIONS, judge.role
    )

    def read(completion: Completion) -> Label:
        verdict = read_verdict(completion)
        return Label(
            id=request_id,
            prompt_id=pair.prompt.id,
            first_id=pair.one.id,
            second_id=pair.two.id,
            principle_id=principle.id,
            p_first=verdict.p_first,
            logprobs=None if verdict.unscored else two(completion.choice_logprobs),
            p_outside=verdict.p_outside,
            unscored=verdict.unscored,
            generation=generation(request, completion, judge.model, template),
        )

    return Step(request, read)


def two(values: Sequence[float]) -> tuple[float, float]:
    first, second = values
    return first, second


def read_verdict(completion: Completion) -> Verdict:
    """Normalise the two options' probabilities. No numbers, no verdict: never a default."""
    if completion.finish == "error":
        return Verdict(None, None, completion.error or "the engine gave no answer")
    logprobs = completion.choice_logprobs
    if len(logprobs) != 2 or not all(map(math.isfinite, logprobs)):
        return Verdict(None, None, f"expected two finite log-probabilities, got {list(logprobs)}")
    first, second = (math.exp(value) for value in logprobs)
    if first + second == 0:
        return Verdict(None, None, "both options have probability zero")
    return Verdict(first / (first + second), max(0.0, 1 - first - second), None)


def combine(pair: Candidates, labels: Sequence[Label]) -> Preference | None:
    """The preference of a pair: P averaged over both orders; none if an order is unscored."""
    there = find_order(labels, pair.one.id, pair.two.id)
    back = find_order(labels, pair.two.id, pair.one.id)
    if there is None or back is None or there.p_first is None or back.p_first is None:
        return None
    p_one = (there.p_first + 1 - back.p_first) / 2
    chosen, rejected = (pair.one, pair.two) if p_one >= 0.5 else (pair.two, pair.one)
    return Preference(
        id=digest("preference", there.id, back.id),
        prompt_id=pair.prompt.id,
        principle_id=there.principle_id,
        chosen_id=chosen.id,
        rejected_id=rejected.id,
        p_chosen=max(p_one, 1 - p_one),
        orders_agree=(there.p_first > 0.5) == (back.p_first < 0.5),
        label_ids=(there.id, back.id),
    )


def find_order(labels: Sequence[Label], first_id: str, second_id: str) -> Label | None:
    for label in labels:
        if (label.first_id, label.second_id) == (first_id, second_id):
            return label
    return None


def pair_up(
    prompts: Mapping[str, Prompt], responses: Iterable[Response], seed: int
) -> tuple[list[Candidates], Counter[str]]:
    """One pair of distinct texts a prompt, drawn by `seed`; what was skipped, by reason."""
    by_prompt: dict[str, list[Response]] = {}
    for response in responses:
        by_prompt.setdefault(response.prompt_id, []).append(response)
    pairs: list[Candidates] = []
    skipped: Counter[str] = Counter()
    for prompt_id, group in by_prompt.items():
        whole = [r for r in group if r.generation.finish != "error"]
        ordered = sorted(whole, key=lambda r: derive_seed("pair", seed, r.id))
        other = next((r for r in ordered[1:] if r.text != ordered[0].text), None)
        if len(whole) < 2:
            skipped["failed_response"] += 1
        elif other is None:
            skipped["identical"] += 1
        else:
            pairs.append(Candidates(prompts[prompt_id], ordered[0], other))
    return pairs, skipped
