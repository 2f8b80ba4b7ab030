"""Judging pairs under drawn principles, in both orders (Bai et al. 2022, section 4.1)."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cai.chains.pairing import Candidates
from cai.chains.revision import Voice, make_request
from cai.chains.verdicts import Verdict, read_verdict, read_written, two
from cai.constitution import Principle, draw, draw_distinct
from cai.driver import Chain, Step, generation
from cai.engines.base import Completion, Request
from cai.prompts import CONCLUDES, OPTIONS, QUESTIONS, Pair, Templates, conclusion
from cai.records import Label, LabelMode, Message, Reasoning, Sampling, derive_seed, digest

JUDGE_SAMPLING = Sampling(temperature=0.0, max_tokens=1)
"""Nothing is drawn where the options' log-probabilities are read."""
WRITTEN = Sampling(temperature=0.0, max_tokens=64)
"""How a written verdict is drawn."""

N_IDENTICAL = 8
"""Responses of a run that are judged beside themselves, to see what a slot alone is worth."""


@dataclass(frozen=True)
class LabelSetup:
    """What all labels of a stage share."""

    principles: Sequence[Principle]
    templates: Templates
    exemplars: bool
    seed: int
    judge: Voice
    """Its sampling is that of the reasoning (mode cot)."""
    mode: LabelMode = "logprob"
    ensemble: int = 1
    n_cot: int = 1

    @property
    def n_steps(self) -> int:
        """Requests that a pair takes, if none fails."""
        return 2 * self.ensemble * self.n_asked

    @property
    def n_asked(self) -> int:
        """Requests that a pair takes in one order under one principle."""
        return 2 * self.n_cot if self.mode == "cot" else 1


class Question(NamedTuple):
    """A pair in one order, under one principle, as the judge is asked it."""

    pair: Candidates
    principle: Principle
    messages: tuple[Message, ...]
    """Exemplars and question, the beginning of the judge's answer included."""


def label_chain(pair: Candidates, setup: LabelSetup) -> Chain:
    """Judge a pair in both orders under each drawn principle; the paper draws one."""
    for principle in draw_principles(pair, setup):
        shots = exemplar_turns(pair, principle, setup)
        for ordered in (pair, pair.swapped()):
            yield from judge(ask(ordered, principle, shots, setup), setup)


def identical_chains(pairs: Sequence[Candidates], setup: LabelSetup) -> list[Chain]:
    """Judge the first few responses beside themselves, in one order: neither is better."""
    same = {pair.one.id: pair._replace(two=pair.one) for pair in pairs}
    return [identical_chain(pair, setup) for pair in list(same.values())[:N_IDENTICAL]]


def identical_chain(pair: Candidates, setup: LabelSetup) -> Chain:
    principle = draw_principles(pair, setup)[0]
    shots = exemplar_turns(pair, principle, setup)
    yield from judge(ask(pair, principle, shots, setup), setup)


def draw_principles(pair: Candidates, setup: LabelSetup) -> list[Principle]:
    """The principles that a pair is judged under; no two ask the same question."""
    return draw_distinct(setup.principles, setup.ensemble, setup.seed, "label", pair.key)


def exemplar_turns(
    pair: Candidates, principle: Principle, setup: LabelSetup
) -> tuple[Message, ...]:
    """Worked comparisons, each under its own drawn principle, as in the paper."""
    if not setup.exemplars:
        return ()
    # by what the principle asks: its name may change
    drawn = [
        draw(setup.principles, setup.seed, "shot", pair.key, principle.preference, i)
        for i in range(setup.templates.n_shots(setup.mode))
    ]
    return setup.templates.preference_shots(drawn, setup.mode)


def ask(
    pair: Candidates, principle: Principle, shots: tuple[Message, ...], setup: LabelSetup
) -> Question:
    texts = Pair(pair.prompt.messages, pair.one.text, pair.two.text)
    return Question(
        pair, principle, (*shots, *setup.templates.compare(principle, texts, setup.mode))
    )


def judge(question: Question, setup: LabelSetup) -> Generator[Step, Any, None]:
    """One judgement; in mode cot one after each reasoning. A failed reasoning has none."""
    if setup.mode == "logprob":
        yield score(question, setup, None)
    elif setup.mode == "text":
        yield write(question, setup)
    else:
        for sample in range(setup.n_cot):
            reasoning: Reasoning = yield reason(question, setup, sample)
            if reasoning.generation.finish != "error":
                yield score(question, setup, reasoning)


def reason(question: Question, setup: LabelSetup, sample: int) -> Step:
    """Think about the pair before judging it."""
    pair, template = question.pair, setup.templates.digests["compare_cot"]
    said = [message.model_dump() for message in question.messages]
    sampling = setup.judge.sampling
    judge = setup.judge._replace(
        sampling=sampling.model_copy(update={"stop": (*sampling.stop, CONCLUDES)})
    )
    key = ("reasoning", pair.one.id, pair.two.id, said, judge.key, sample)
    request = make_request(digest(*key), question.messages, judge)

    def read(completion: Completion) -> Reasoning:
        return Reasoning(
            id=request.id,
            prompt_id=pair.prompt.id,
            first_id=pair.one.id,
            second_id=pair.two.id,
            principle_id=question.principle.id,
            sample=sample,
            text=completion.text.strip(),
            generation=generation(request, completion, judge.model, template),
        )

    return Step(request, read, question.principle.id)


def score(question: Question, setup: LabelSetup, reasoning: Reasoning | None) -> Step:
    """The log-probability of each option's token sequence, after the reasoning if there is one."""
    messages = question.messages
    if reasoning:
        concluded = Message(role="assistant", content=conclusion(reasoning.text))
        messages = (*messages[:-1], concluded)
    request = make_label_request(question, messages, setup, JUDGE_SAMPLING, reasoning)

    def read(completion: Completion) -> Label:
        verdict = read_verdict(completion)
        return make_label(question, setup, request, completion, verdict).model_copy(
            update={
                "reasoning_id": reasoning.id if reasoning else None,
                "logprobs": None if verdict.unscored else two(completion.choice_logprobs),
            }
        )

    return Step(request, read, question.principle.id)


def write(question: Question, setup: LabelSetup) -> Step:
    """A verdict in words, for servers without log-probabilities."""
    request = make_label_request(question, question.messages, setup, WRITTEN, None)

    def read(completion: Completion) -> Label:
        verdict = read_written(completion)
        label = make_label(question, setup, request, completion, verdict)
        return label.model_copy(update={"text": completion.text.strip()})

    return Step(request, read, question.principle.id)


def make_label_request(
    question: Question,
    messages: tuple[Message, ...],
    setup: LabelSetup,
    sampling: Sampling,
    reasoning: Reasoning | None,
) -> Request:
    pair, voice = question.pair, setup.judge._replace(sampling=sampling)
    said = [message.model_dump() for message in messages]
    after = reasoning.id if reasoning else None
    id = digest("label", pair.one.id, pair.two.id, said, after, voice.key)
    choices = () if setup.mode == "text" else OPTIONS
    return Request(id, messages, sampling, derive_seed(id), choices, voice.role)


def make_label(
    question: Question,
    setup: LabelSetup,
    request: Request,
    completion: Completion,
    verdict: Verdict,
) -> Label:
    template = setup.templates.digests[QUESTIONS[setup.mode]]
    return Label(
        id=request.id,
        prompt_id=question.pair.prompt.id,
        first_id=question.pair.one.id,
        second_id=question.pair.two.id,
        principle_id=question.principle.id,
        mode=setup.mode,
        p_first=verdict.p_first,
        logprobs=None,
        p_outside=verdict.p_outside,
        unscored=verdict.unscored,
        generation=generation(request, completion, setup.judge.model, template),
    )
