"""Labelling chains, played against canned completions: modes, orders, principles, failures."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from canned import PRINCIPLES, PROMPT, play, response, says

from cai.chains.labelling import LabelSetup, label_chain
from cai.chains.pairing import Candidates, combine
from cai.chains.revision import Voice
from cai.engines.base import Completion, Request
from cai.judgements import label_pairs
from cai.prompts import CONCLUSION, OPTIONS, REASONING_PREFIX, Templates
from cai.records import Label, Reasoning, Sampling
from cai.run import StoredRecord

PAIR = Candidates(PROMPT, response("one", "kind"), response("two", "rude"))
JUDGE = Voice("judge", "j@1", Sampling(max_tokens=99, stop=("###",)))
LABELS = LabelSetup(PRINCIPLES, Templates(), False, 0, JUDGE)
COT = replace(LABELS, mode="cot")
TEXT = replace(LABELS, mode="text")


def scored(first: float, second: float) -> Completion:
    return Completion("", "", "stop", choice_logprobs=(math.log(first), math.log(second)))


def labels_of(records: list[StoredRecord]) -> list[Label]:
    return [record for record in records if isinstance(record, Label)]


def judged(*answers: Completion, setup: LabelSetup = LABELS) -> list[Label]:
    return labels_of(play(label_chain(PAIR, setup), list(answers))[1])


def test_a_pair_is_judged_in_both_orders_under_one_principle() -> None:
    answers = [scored(0.6, 0.2), scored(0.1, 0.3)]
    requests, records = play(label_chain(PAIR, LABELS), answers)
    labels = labels_of(records)
    assert [(x.first_id, x.second_id) for x in labels] == [("one", "two"), ("two", "one")]
    assert labels[0].principle_id == labels[1].principle_id
    assert [label.p_first for label in labels] == pytest.approx([0.75, 0.25])
    assert [label.p_outside for label in labels] == pytest.approx([0.2, 0.6])
    assert all(request.choices == OPTIONS for request in requests)
    assert all(label.mode == "logprob" for label in labels)
    assert requests[0].messages[-1].role == "assistant"


def test_what_the_judge_reasons_comes_before_what_it_judges() -> None:
    answers = [says(" (A) is rude. "), scored(0.2, 0.6), says("No."), scored(0.9, 0.1)]
    requests, records = play(label_chain(PAIR, COT), answers)
    assert [record.type for record in records] == ["reasoning", "label"] * 2
    thinking, judging = requests[:2]
    assert thinking.messages[-1].content == REASONING_PREFIX
    assert thinking.choices == ()
    assert thinking.sampling.max_tokens == 99
    assert thinking.sampling.stop == ("###", "So the answer is")
    assert judging.messages[:-1] == thinking.messages[:-1]
    assert judging.messages[-1].content.startswith(f"{REASONING_PREFIX} (A) is rude.")
    assert judging.messages[-1].content.endswith(CONCLUSION)
    assert judging.choices == OPTIONS
    reasoning, label = records[0], records[1]
    assert isinstance(label, Label)
    assert label.reasoning_id == reasoning.id
    assert label.mode == "cot"
    assert label.p_first == pytest.approx(0.25)


def test_several_reasonings_are_averaged_in_each_order() -> None:
    setup = replace(COT, n_cot=2)
    there = [says("x"), scored(0.6, 0.4), says("y"), scored(0.8, 0.2)]
    back = [says("x"), scored(0.3, 0.7), says("x"), scored(0.5, 0.5)]
    _, records = play(label_chain(PAIR, setup), there + back)
    assert len({record.id for record in records}) == setup.n_steps == 8
    preference = combine(PAIR, labels_of(records))
    assert preference is not None
    assert preference.p_orders == pytest.approx((0.7, 0.6))
    assert preference.p_chosen == pytest.approx(0.65)
    assert len(preference.label_ids) == 4


def test_a_failed_reasoning_has_no_judgement() -> None:
    answers = [says("", "error"), says("fine"), scored(0.9, 0.1)]
    _, records = play(label_chain(PAIR, COT), answers)
    assert [record.type for record in records] == ["reasoning", "reasoning", "label"]
    failed = records[0]
    assert isinstance(failed, Reasoning)
    assert failed.generation.error == "why"
    assert combine(PAIR, labels_of(records)) is None


def test_a_written_verdict_is_certain_or_missing() -> None:
    requests, records = play(label_chain(PAIR, TEXT), [says("Verdict: A"), says("Both are fine.")])
    one, two = labels_of(records)
    assert (one.p_first, one.text, one.logprobs, one.unscored) == (1.0, "Verdict: A", None, None)
    assert (two.p_first, two.text) == (None, "Both are fine.")
    assert two.unscored == "the last line is no verdict"
    assert not any(request.choices for request in requests)
    assert requests[0].messages[-1].role == "user"
    assert combine(PAIR, [one, two]) is None


def test_an_ensemble_takes_distinct_principles_and_averages_them() -> None:
    setup = replace(LABELS, ensemble=3)
    answers = [scored(p, 1 - p) for p in (0.9, 0.1, 0.6, 0.4, 0.3, 0.7)]
    _, records = play(label_chain(PAIR, setup), answers)
    labels = labels_of(records)
    assert len({label.principle_id for label in labels}) == 3
    preference = combine(PAIR, labels)
    assert preference is not None
    assert preference.principle_ids == tuple(dict.fromkeys(x.principle_id for x in labels))
    assert preference.p_chosen == pytest.approx((0.9 + 0.6 + 0.3) / 3)
    first = play(label_chain(PAIR, LABELS), answers[:2])[1]
    assert [x.id for x in labels_of(first)] == [x.id for x in labels[:2]]


def test_an_ensemble_asks_no_question_twice() -> None:
    same = [principle.model_copy(update={"preference": "P0"}) for principle in PRINCIPLES[:3]]
    setup = replace(LABELS, principles=[*same, PRINCIPLES[3]], ensemble=2)
    for seed in range(9):
        chain = label_chain(PAIR, replace(setup, seed=seed))
        requests, records = play(chain, [scored(0.5, 0.5)] * 4)
        assert len({request.id for request in requests}) == 4
        assert "p3" in {label.principle_id for label in labels_of(records)}
    with pytest.raises(ValueError, match="3 distinct principles wanted, there are 2"):
        next(label_chain(PAIR, replace(setup, ensemble=3)))


def test_a_principle_without_both_orders_does_not_count() -> None:
    setup = replace(LABELS, ensemble=2)
    failed = Completion("", "", "error", error="too long")
    labels = judged(scored(0.9, 0.1), failed, scored(0.4, 0.6), scored(0.8, 0.2), setup=setup)
    preference = combine(PAIR, labels)
    assert preference is not None
    assert preference.principle_ids == (labels[2].principle_id,)
    assert preference.chosen_id == "two"
    assert preference.p_orders == pytest.approx((0.8, 0.6))


def test_swapping_a_pair_changes_nothing() -> None:
    answers = {"one": scored(0.6, 0.2), "two": scored(0.1, 0.3)}
    found = []
    for pair in (PAIR, PAIR.swapped()):
        order = [answers[pair.one.id], answers[pair.two.id]]
        found.append(combine(pair, labels_of(play(label_chain(pair, LABELS), order)[1])))
    one, two = found
    assert one is not None
    assert two is not None
    assert one.model_copy(update={"label_ids": ()}) == two.model_copy(
        update={"label_ids": (), "p_chosen": pytest.approx(two.p_chosen)}
    )


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
    found = (preference.chosen_id, preference.p_chosen, preference.orders_agree)
    assert found == (chosen, pytest.approx(p), agree)
    assert sum(preference.p_orders or ()) / 2 == pytest.approx(p)


def test_a_clamp_bounds_the_label_and_not_what_the_orders_said() -> None:
    preference = combine(PAIR, judged(scored(0.9, 0.1), scored(0.2, 0.8)), (0.4, 0.6))
    assert preference is not None
    assert preference.p_chosen == 0.6
    assert preference.p_orders == pytest.approx((0.9, 0.8))
    weak = combine(PAIR, judged(scored(0.5, 0.5), scored(0.48, 0.52)), (0.4, 0.6))
    assert weak is not None
    assert weak.p_chosen == pytest.approx(0.51)


FAILURES = [
    Completion("", "", "error", error="too long"),
    Completion("", "", "stop", choice_logprobs=(float("nan"), -1.0)),
    Completion("", "", "stop", choice_logprobs=(-math.inf, -math.inf)),
    Completion("", "", "stop", choice_logprobs=(-1.0,)),
    Completion("", "", "stop"),
]


@pytest.mark.parametrize("completion", FAILURES)
def test_a_failed_judgement_is_not_a_judgement(completion: Completion) -> None:
    labels = judged(completion, scored(0.9, 0.1))
    assert labels[0].p_first is None
    assert labels[0].logprobs is None
    assert labels[0].unscored
    assert combine(PAIR, labels) is None
    assert label_pairs(labels) == ([], 1)


@pytest.mark.parametrize("setup", [LABELS, COT, TEXT], ids=["logprob", "cot", "text"])
def test_each_exemplar_has_a_principle_of_its_own_and_both_orders_share_them(
    setup: LabelSetup,
) -> None:
    setup = replace(setup, exemplars=True)
    answers: list[Any] = [scored(0.5, 0.5)] * 2
    if setup.mode == "cot":
        answers = [says("x"), answers[0]] * 2
    requests, _ = play(label_chain(PAIR, setup), answers)
    n = setup.templates.n_shots(setup.mode)
    shots = requests[0].messages[: 2 * n]
    assert [message.role for message in shots] == ["user", "assistant"] * n
    assert all(request.messages[: 2 * n] == shots for request in requests)
    used = {line for message in shots for line in message.content.splitlines() if is_question(line)}
    assert len(used) > 1


def is_question(line: str) -> bool:
    return line[:1] == "P" and line[1:].isdigit()


def test_both_orders_begin_alike() -> None:
    """What comes before the first response is the engine's cached prefix in the second order."""
    requests, _ = play(label_chain(PAIR, LABELS), [scored(0.5, 0.5)] * 2)
    one, two = (question(request) for request in requests)
    assert one.partition("[response A")[0] == two.partition("[response A")[0]
    assert one != two


def question(request: Request) -> str:
    return request.messages[0].content


def test_ids_stand_for_principle_texts_modes_and_reasonings() -> None:
    def ids(setup: LabelSetup) -> list[str]:
        answers = [says("A")] * setup.n_steps
        return [record.id for record in play(label_chain(PAIR, setup), answers)[1]]

    edited = [p.model_copy(update={"preference": "new"}) for p in PRINCIPLES]
    setups = [LABELS, COT, TEXT, replace(COT, n_cot=2), replace(LABELS, principles=edited)]
    for one, two in pairwise(map(set, map(ids, setups))):
        assert one <= two or two <= one or not one & two
    assert set(ids(COT)) < set(ids(replace(COT, n_cot=2)))
    assert ids(LABELS) == ids(LABELS)
    assert not set(ids(LABELS)) & set(ids(setups[-1]))
