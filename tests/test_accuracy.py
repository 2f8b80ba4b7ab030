"""What answers to a suite's items are worth."""

import math
from pathlib import Path
from typing import Any

import pytest
from suite_rows import hhh_row, items_of

from cai.accuracy import Scored, make_variant, read_outcome, reward_accuracy
from cai.suites import Asked, Item


def outcome(item: Item, logprobs: tuple[float, ...] | None, right: int = 0) -> Any:
    asked = Asked(item, item.prompt, right)
    return read_outcome(asked, "raw", logprobs, None if logprobs else "too long")


@pytest.fixture
def item(tmp_path: Path) -> Item:
    return items_of(tmp_path, "hhh", hhh_row(1))[0]


def test_an_outcome_normalises_over_the_options(item: Item) -> None:
    found = outcome(item, (math.log(0.3), math.log(0.1)))
    assert found.p == pytest.approx((0.75, 0.25))
    assert found.p_outside == pytest.approx(0.6)
    assert found.chosen == 0
    far = outcome(item, (-2000.0, -2000.0 - math.log(3)))
    assert far.p == pytest.approx((0.75, 0.25))
    assert far.p_outside == 1
    assert outcome(item, (math.log(0.7), math.log(0.300001))).p_outside == 0


def test_failed_items_are_counted_and_never_wrong(item: Item) -> None:
    sure = (math.log(0.8), math.log(0.1))
    found = make_variant([outcome(item, sure), outcome(item, None), outcome(item, sure, right=1)])
    assert found is not None
    assert (found.n, found.n_scored, found.n_failed) == (3, 2, 1)
    assert found.accuracy == 0.5
    assert found.stderr == pytest.approx(0.5)
    assert found.p_right == pytest.approx(0.5)
    assert found.p_outside == pytest.approx(0.1)
    assert found.chance == 0.5
    assert found.ece == pytest.approx(abs(8 / 9 - 0.5))
    assert found.chosen == {"(A)": 1.0}
    assert found.correct == {"(A)": 0.5, "(B)": 0.5}
    assert make_variant([outcome(item, None)]) is None


@pytest.mark.parametrize(("n_right", "n"), [(0, 1), (1, 1), (3, 10), (150, 219), (219, 219)])
def test_errors_and_intervals_of_an_accuracy(item: Item, n_right: int, n: int) -> None:
    found = make_variant([outcome(item, (-0.1, -3.0), right=i >= n_right) for i in range(n)])
    assert found is not None
    p = n_right / n
    assert found.accuracy == pytest.approx(p)
    assert found.stderr == (pytest.approx(math.sqrt(p * (1 - p) / (n - 1))) if n > 1 else None)
    # Wilson's interval is where the score test's statistic is 1.96
    for end in (found.low, found.high):
        assert 0 <= end <= 1
        if 0 < end < 1:
            assert abs(p - end) / math.sqrt(end * (1 - end) / n) == pytest.approx(1.96, abs=1e-3)
    assert found.low <= p <= found.high


def test_calibrated_answers_have_no_calibration_error(item: Item) -> None:
    sure = (math.log(0.75), math.log(0.25))
    found = make_variant([outcome(item, sure, right=i % 4 == 0) for i in range(40)])
    assert found is not None
    assert found.ece == pytest.approx(0)
    assert found.p_right == pytest.approx(0.75 * 0.75 + 0.25 * 0.25)


def test_equal_options_are_ties_and_the_first_is_chosen(item: Item) -> None:
    found = make_variant([outcome(item, (-1.0, -1.0), right=i) for i in (0, 1)])
    assert found is not None
    assert (found.n_ties, found.accuracy, found.chosen) == (2, 0.5, {"(A)": 1.0})


def test_options_of_one_length_need_no_accuracy_per_character(item: Item) -> None:
    same = make_variant([outcome(item, (-1.0, -1.5), right=1)])
    assert same is not None
    assert same.accuracy_norm is None
    longer = item._replace(options=(" no", " certainly"))
    found = make_variant([outcome(longer, (-1.0, -1.5), right=1)])
    assert found is not None
    assert (found.accuracy, found.accuracy_norm) == (0.0, 1.0)


def test_a_reward_models_tie_is_half_right() -> None:
    def pair(right: float | None, wrong: float | None, truncated: bool = False) -> Scored:
        failed = None if right is not None and wrong is not None else "nan"
        both = {"right": right, "wrong": wrong, "n_answers": 4}
        return Scored(row=1, truncated=truncated, failed=failed, **both)

    scores = [pair(1.0, 0.0), pair(2.0, 2.0, True), pair(-1.0, 0.0), pair(800.0, -800.0)]
    found = reward_accuracy([*scores, pair(None, 1.0)])
    assert found is not None
    assert found.accuracy == pytest.approx(2.5 / 4)
    assert (found.n, found.n_scored, found.n_failed) == (5, 4, 1)
    assert (found.n_ties, found.n_truncated) == (1, 1)
    assert found.chance == 0.25
    assert found.p_right == pytest.approx((1 + 0.5 + 1) / 4)
    assert reward_accuracy([pair(None, None)]) is None
    assert reward_accuracy([]) is None
