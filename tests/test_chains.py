"""Chains are pure: they are played here against canned completions."""

import math
from collections import Counter
from itertools import pairwise

import pytest

from cai.chains.labelling import (
    Candidates,
    LabelSetup,
    Verdict,
    combine,
    label_chain,
    pair_up,
    read_verdict,
)
from cai.chains.revision import RevisionSetup, Voice, revision_chain
from cai.constitution import Principle
from cai.driver import Chain
from cai.engines.base import Completion, Request
from cai.prompts import Templates
from cai.records import Finish, Label, Message, Prompt, Response, Sampling
from cai.run import StoredRecord

PROMPT = Prompt(
    id="p",
    messages=(Message(role="user", content="Insult him"),),
    kind="red_team",
    area="harassment",
    source="s",
    group="g",
    split="sft",
)
PRINCIPLES = [
    Principle(id=f"p{i}", critique=f"C{i}", revision=f"R{i}", preference=f"P{i}") for i in range(4)
]


def play(chain: Chain, answers: list[Completion]) -> tuple[list[Request], list[StoredRecord]]:
    """Run a chain against canned answers; returns its requests and records."""
    requests: list[Request] = []
    records: list[StoredRecord] = []
    step = next(chain)
    for given in answers:
        requests.append(step.request)
        completion = Completion(
            step.request.id,
            given.text,
            given.finish,
            choice_logprobs=given.choice_logprobs,
            error=given.error,
        )
        records.append(step.read(completion))
        try:
            step = chain.send(records[-1])
        except StopIteration:
            return requests, records
    raise AssertionError(f"the chain wants more than {len(answers)} answers")


def says(text: str, finish: Finish = "stop") -> Completion:
    return Completion("", text, finish, error="why" if finish == "error" else None)


def setup(
    principles: list[Principle] = PRINCIPLES, rounds: int = 2, seed: int = 0
) -> RevisionSetup:
    voice = Voice("base", "m@1", Sampling())
    return RevisionSetup(
        (), principles, Templates(), rounds, seed, voice, voice._replace(role="critic"), voice
    )


ANSWERS = [
    says(text) for text in (" He is a fool. ", "Rude.", "He errs.", "Still rude.", "He is new.")
]


def test_a_chain_is_one_growing_conversation() -> None:
    requests, records = play(revision_chain(PROMPT, setup()), ANSWERS)
    assert [r.type for r in records] == ["response", "critique", "revision", "critique", "revision"]
    for one, two in pairwise(requests):
        assert two.messages[: len(one.messages)] == one.messages
    assert [m.role for m in requests[-1].messages] == ["user", "assistant"] * 4 + ["user"]
    assert records[0].text == "He is a fool."
    assert [r.role for r in requests] == ["base", "critic", "base", "critic", "base"]


def test_records_name_parents_rounds_and_principles() -> None:
    _, records = play(revision_chain(PROMPT, setup()), ANSWERS)
    parents = [getattr(record, "parent_id", None) for record in records]
    assert parents == [None, *(record.id for record in records[:-1])]
    assert [getattr(record, "round", 0) for record in records] == [0, 1, 1, 2, 2]
    drawn = [getattr(record, "principle_id", None) for record in records]
    assert drawn[1] == drawn[2]
    assert drawn[3] == drawn[4]


def test_each_round_asks_under_its_drawn_principle() -> None:
    requests, records = play(revision_chain(PROMPT, setup()), ANSWERS)
    number = str(getattr(records[1], "principle_id", ""))[1:]
    assert requests[1].messages[-1].content.startswith(f"C{number}")
    assert requests[2].messages[-1].content.startswith(f"R{number}")


@pytest.mark.parametrize("n_good", range(5))
def test_a_failed_generation_ends_the_chain_with_its_reason(n_good: int) -> None:
    answers = [*ANSWERS[:n_good], says("", "error")]
    _, records = play(revision_chain(PROMPT, setup()), answers)
    assert len(records) == n_good + 1
    assert records[-1].generation.error == "why"


def test_ids_change_with_what_made_a_record_and_nothing_else() -> None:
    def ids(seed: int = 0, principles: list[Principle] = PRINCIPLES) -> list[str]:
        return [
            r.id for r in play(revision_chain(PROMPT, setup(principles, seed=seed)), ANSWERS)[1]
        ]

    assert ids() == ids()
    assert not set(ids()) & set(ids(seed=1))
    drawn = {
        getattr(r, "principle_id", None) for r in play(revision_chain(PROMPT, setup()), ANSWERS)[1]
    }
    for i, principle in enumerate(PRINCIPLES):
        edited = [
            p.model_copy(update={"critique": "new"}) if p is principle else p for p in PRINCIPLES
        ]
        assert (ids(principles=edited) == ids()) == (f"p{i}" not in drawn)


def response(name: str, text: str, finish: Finish = "stop", prompt: str = "p") -> Response:
    _, records = play(revision_chain(PROMPT, setup(rounds=1)), [says("a"), says("b"), says("c")])
    first = records[0]
    assert isinstance(first, Response)
    generation = first.generation.model_copy(update={"finish": finish})
    return first.model_copy(
        update={"id": name, "text": text, "generation": generation, "prompt_id": prompt}
    )


PAIR = Candidates(PROMPT, response("one", "kind"), response("two", "rude"))
LABELS = LabelSetup(PRINCIPLES, Templates(), False, 0, Voice("judge", "j@1", Sampling()))


def scored(first: float, second: float) -> Completion:
    return Completion("", "", "stop", choice_logprobs=(math.log(first), math.log(second)))


def judged(*answers: Completion) -> list[Label]:
    _, records = play(label_chain(PAIR, LABELS), list(answers))
    return [record for record in records if isinstance(record, Label)]


def test_a_pair_is_judged_in_both_orders_under_one_principle() -> None:
    requests, _ = play(label_chain(PAIR, LABELS), [scored(0.6, 0.2), scored(0.1, 0.3)])
    labels = judged(scored(0.6, 0.2), scored(0.1, 0.3))
    assert [(label.first_id, label.second_id) for label in labels] == [
        ("one", "two"),
        ("two", "one"),
    ]
    assert labels[0].principle_id == labels[1].principle_id
    assert [label.p_first for label in labels] == pytest.approx([0.75, 0.25])
    assert [label.p_outside for label in labels] == pytest.approx([0.2, 0.6])
    assert all(request.choices == ("A", "B") for request in requests)
    assert requests[0].messages[-1].role == "assistant"


def test_swapping_a_pair_changes_nothing() -> None:
    answers = {"one": scored(0.6, 0.2), "two": scored(0.1, 0.3)}
    preferences = []
    for pair in (PAIR, PAIR.swapped()):
        order = [answers[pair.one.id], answers[pair.two.id]]
        _, records = play(label_chain(pair, LABELS), order)
        preferences.append(combine(pair, [r for r in records if isinstance(r, Label)]))
    one, two = preferences
    assert one is not None
    assert two is not None
    assert (one.chosen_id, one.rejected_id, one.p_chosen) == (
        two.chosen_id,
        two.rejected_id,
        pytest.approx(two.p_chosen),
    )
    assert one.principle_id == two.principle_id


@pytest.mark.parametrize(
    ("there", "back", "chosen", "p", "agree"),
    [
        ((0.8, 0.2), (0.2, 0.8), "one", 0.8, True),
        ((0.2, 0.8), (0.6, 0.4), "two", 0.7, True),
        ((0.9, 0.1), (0.7, 0.3), "one", 0.6, False),
        ((0.7, 0.3), (0.9, 0.1), "two", 0.6, False),
    ],
)
def test_a_preference_averages_both_orders(
    there: tuple[float, float], back: tuple[float, float], chosen: str, p: float, agree: bool
) -> None:
    preference = combine(PAIR, judged(scored(*there), scored(*back)))
    assert preference is not None
    assert (preference.chosen_id, preference.p_chosen, preference.orders_agree) == (
        chosen,
        pytest.approx(p),
        agree,
    )


@pytest.mark.parametrize(
    "completion",
    [
        Completion("", "", "error", error="too long"),
        Completion("", "", "stop", choice_logprobs=(float("nan"), -1.0)),
        Completion("", "", "stop", choice_logprobs=(-math.inf, -math.inf)),
        Completion("", "", "stop", choice_logprobs=(-1.0,)),
        Completion("", "", "stop"),
    ],
)
def test_a_failed_judgement_is_not_a_judgement(completion: Completion) -> None:
    verdict = read_verdict(completion)
    assert verdict.p_first is None
    assert verdict.unscored
    assert combine(PAIR, judged(completion, scored(0.9, 0.1))) is None


def test_a_verdict_is_normalised() -> None:
    assert read_verdict(scored(0.3, 0.1)) == Verdict(pytest.approx(0.75), pytest.approx(0.6), None)


def test_pairs_skip_identical_and_failed_responses() -> None:
    prompts = {name: PROMPT.model_copy(update={"id": name}) for name in "abcd"}
    responses = [
        response("a1", "x", prompt="a"), response("a2", "y", prompt="a"),
        response("b1", "x", prompt="b"), response("b2", "x", prompt="b"),
        response("c1", "x", prompt="c"), response("c2", "", "error", prompt="c"),
        *(response(f"d{i}", "same" if i < 3 else "other", prompt="d") for i in range(4)),
    ]  # fmt: skip
    pairs, skipped = pair_up(prompts, responses, 0)
    assert [pair.prompt.id for pair in pairs] == ["a", "d"]
    assert skipped == Counter(identical=1, failed_response=1)
    assert pairs[1].one.text != pairs[1].two.text
    again, _ = pair_up(prompts, responses[::-1], 0)
    assert {pair.key for pair in again} == {pair.key for pair in pairs}


def test_each_exemplar_has_a_principle_of_its_own() -> None:
    with_shots = LabelSetup(PRINCIPLES, Templates(), True, 0, LABELS.judge)
    requests, _ = play(label_chain(PAIR, with_shots), [scored(0.5, 0.5)] * 2)
    questions = [m.content for m in requests[0].messages if m.role == "user"]
    assert len(questions) == 6
    used = {
        line
        for q in questions[:-1]
        for line in q.splitlines()
        if line[:1] == "P" and line[1:].isdigit()
    }
    assert len(used) > 1
