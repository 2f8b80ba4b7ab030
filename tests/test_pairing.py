"""Which responses are compared."""

from collections import Counter

import pytest
from canned import PROMPT, made, response, revision
from hypothesis import given
from hypothesis import strategies as st

from cai.chains.pairing import Candidates, assumed, combine, extremes, pair_up, revision_pairs
from cai.records import Label, Response

PROMPTS = {name: PROMPT.model_copy(update={"id": name}) for name in "abcd"}
RESPONSES = [
    response("a1", "x", prompt="a"), response("a2", "y", prompt="a"),
    response("b1", "x", prompt="b"), response("b2", "x", prompt="b"),
    response("c1", "x", prompt="c"), response("c2", "", "error", prompt="c"),
    *(response(f"d{i}", "same" if i < 3 else "other", prompt="d") for i in range(4)),
]  # fmt: skip


def label(first: Response, second: Response, p_first: float) -> Label:
    return Label(
        id=f"{first.id}-{second.id}",
        prompt_id=first.prompt_id,
        first_id=first.id,
        second_id=second.id,
        principle_id="p0",
        p_first=p_first,
        logprobs=None,
        p_outside=None,
        unscored=None,
        generation=made(),
    )


def test_pairs_skip_identical_and_failed_responses() -> None:
    pairs, skipped = pair_up(PROMPTS, RESPONSES, "random", 0)
    assert [pair.prompt.id for pair in pairs] == ["a", "d"]
    assert skipped == Counter(identical=1, failed_response=1)
    assert pairs[1].one.text != pairs[1].two.text


@pytest.mark.parametrize("pairing", ["all", "extremes"])
def test_every_two_distinct_texts_are_paired(pairing: str) -> None:
    five = [response(f"a{i}", text, prompt="a") for i, text in enumerate("vwxyy")]
    pairs, skipped = pair_up(PROMPTS, five, pairing, 0)
    assert len(pairs) == 6
    assert skipped == Counter(same_text=1)
    texts = {frozenset((pair.one.text, pair.two.text)) for pair in pairs}
    assert len(texts) == 6
    assert all(len(both) == 2 for both in texts)


@given(st.permutations(RESPONSES), st.sampled_from(["random", "all"]), st.booleans())
def test_the_order_of_responses_makes_no_difference(
    shuffled: list[Response], pairing: str, tied: bool
) -> None:
    """They come as an engine was done with them; equal draws are ordered by id."""
    with pytest.MonkeyPatch.context() as patch:
        if tied:
            patch.setattr("cai.chains.pairing.derive_seed", lambda *_: 0)
        assert pair_up(PROMPTS, shuffled, pairing, 0) == pair_up(PROMPTS, RESPONSES, pairing, 0)


def test_which_two_are_drawn_depends_on_the_seed() -> None:
    many = [response(f"a{i}", str(i), prompt="a") for i in range(8)]
    keys = {pair_up(PROMPTS, many, "random", seed)[0][0].key for seed in range(20)}
    assert len(keys) > 5


def test_a_text_is_compared_as_often_as_it_is_drawn_first_or_second() -> None:
    drawn = [response(f"a{i}", text, prompt="a") for i, text in enumerate("xxyz")]
    n, found = 3000, Counter[str]()
    for seed in range(n):
        ((pair,), _) = pair_up(PROMPTS, drawn, "random", seed)
        found["".join(sorted((pair.one.text, pair.two.text)))] += 1
    # y and z are compared where both come before either x: in 4 of 24 orders
    shares = {texts: count / n for texts, count in found.items()}
    assert shares == pytest.approx({"xy": 5 / 12, "xz": 5 / 12, "yz": 1 / 6}, abs=0.04)


def test_of_every_two_best_against_worst_is_kept() -> None:
    three = [response(name, name, prompt="a") for name in ("low", "mid", "top")]
    rank = {"low": 0.1, "mid": 0.5, "top": 0.8}
    pairs, _ = pair_up(PROMPTS, three, "extremes", 0)
    labels = [
        label(one, two, 0.5 + (rank[one.id] - rank[two.id]) / 2)
        for one in three for two in three if one is not two
    ]  # fmt: skip
    (kept,) = extremes(pairs, labels)
    assert {kept.one.id, kept.two.id} == {"low", "top"}
    preference = combine(kept, labels)
    assert preference is not None
    assert (preference.chosen_id, preference.p_chosen) == ("top", pytest.approx(0.85))
    assert extremes(pairs, []) == []


def test_a_pair_without_a_judgement_of_its_own_is_no_extreme() -> None:
    low, mid, top = (response(name, name, prompt="a") for name in ("low", "mid", "top"))
    pairs, _ = pair_up(PROMPTS, [low, mid, top], "extremes", 0)
    labels = [
        label(low, mid, 0.1), label(mid, low, 0.9),
        label(top, mid, 0.7), label(mid, top, 0.3),
        label(top, low, 0.9),
    ]  # fmt: skip
    (kept,) = extremes(pairs, labels)
    assert {kept.one.id, kept.two.id} == {"low", "mid"}
    assert combine(kept, labels) is not None


def test_a_revision_is_paired_with_what_it_revises() -> None:
    records = [
        response("a0", "bad", prompt="a"), revision("a1", "better", 1, prompt="a"),
        revision("a2", "best", 2, prompt="a"), revision("a3", "", 3, prompt="a"),
        revision("a4", "lost", 4, "error", prompt="a"),
        response("b0", "fine", prompt="b"), revision("b1", "fine", 1, prompt="b"),
        response("c0", "never revised", prompt="c"),
        response("d0", "", "error", prompt="d"), revision("d1", "odd", 1, prompt="d"),
    ]  # fmt: skip
    (pair,), skipped = revision_pairs(PROMPTS, records)
    assert (pair.one.id, pair.two.id, pair.origin) == ("a2", "a0", "revision")
    assert skipped == Counter(identical_revision=1, failed_response=1)
    preference = assumed(pair)
    assert (preference.chosen_id, preference.p_chosen) == ("a2", 1.0)
    assert preference.origin == "revision"
    assert preference.label_ids == preference.principle_ids == ()
    assert preference.p_orders is preference.orders_agree is None


def test_a_revision_pair_survives_the_choice_of_extremes() -> None:
    pair = Candidates(PROMPT, revision("r", "x", 1), response("o", "y"), "revision")
    assert extremes([pair], []) == [pair]


def test_a_tie_is_the_same_from_both_sides() -> None:
    one, two = response("one", "x"), response("two", "y")
    labels = [label(one, two, 0.7), label(two, one, 0.7)]
    found = [
        combine(Candidates(PROMPT, a, b), each)
        for a, b, each in ((one, two, labels), (two, one, labels[::-1]))
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].chosen_id == found[1].chosen_id == "one"
    assert found[0].p_chosen == pytest.approx(0.5)
