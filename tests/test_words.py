"""What counts as a word, and how much of two texts differs."""

import time

import pytest

from cai.words import word_change


@pytest.mark.parametrize(
    ("one", "other", "change"),
    [
        ("", "", 0.0),
        ("", "a", 1.0),
        ("a b c", "a  b\nc", 0.0),
        ("a b c", "d e f", 1.0),
        ("a b c d", "a x c d", 0.25),
        ("a b", "b a", 0.5),
        ("a b c", "a b c d e", 0.25),
        ("私は犬が好き", "私は猫が好き", 1 / 6),
        ("我喜欢狗。", "我 喜欢\n猫。", 0.2),
        ("カイ runs", "カイ walks", 1 / 3),
        ("ça va", "ça  va", 0.0),
    ],
)
def test_word_change(one: str, other: str, change: float) -> None:
    assert word_change(one, other) == pytest.approx(change)
    assert word_change(other, one) == pytest.approx(change)


@pytest.mark.parametrize("n", [2_000, 40_000])
def test_word_change_of_repeated_words_is_fast(n: int) -> None:
    started = time.perf_counter()
    word_change("the a " * (n // 2), "a the x " * (n // 2))
    assert time.perf_counter() - started < 0.05
