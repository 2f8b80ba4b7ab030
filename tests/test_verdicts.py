"""Reading a judge's answer: a verdict or none, never a default."""

import math

import pytest

from cai.chains.verdicts import Verdict, read_verdict, read_written
from cai.engines.base import Completion


@pytest.mark.parametrize(
    ("text", "p_first"),
    [
        ("B", 0.0),
        ("(A)", 1.0),
        ("**A**", 1.0),
        ("`B`", 0.0),
        ("A.", 1.0),
        ("Reasons…\nVerdict: B", 0.0),
        ("Verdict: **A**", 1.0),
        ("The answer is: (B)", 0.0),
        ("A is kinder than B.\n\nB", 0.0),
        ("Verdict: A\nVerdict: B", 0.0),
        ("Verdict: A\n  \n", 1.0),
        ("I can't help with that, but here is a summary.", None),
        ("Neither is clearly better; it is a tie.", None),
        ("A or B", None),
        ("A and B", None),
        ("AB", None),
        ("a", None),
        ("", None),
        ("\n", None),
        ("Verdict: C", None),
        ("Verdict:", None),
        ("A\nbut on reflection I am unsure", None),
        ("Response A", None),
        ("Not A", None),
        ("Verdict: not A", None),
    ],
)
def test_a_written_verdict_stands_alone_on_the_last_line(text: str, p_first: float | None) -> None:
    verdict = read_written(Completion("", text, "stop"))
    assert verdict.p_first == p_first
    assert (verdict.unscored is None) == (p_first is not None)


def test_a_failed_generation_is_no_verdict() -> None:
    failed = Completion("", "Verdict: A", "error", error="too long")
    assert read_written(failed) == Verdict(None, None, "too long")
    assert read_verdict(failed) == Verdict(None, None, "too long")


def test_probabilities_are_normalised_and_what_is_on_neither_is_kept() -> None:
    completion = Completion("", "", "stop", choice_logprobs=(math.log(0.3), math.log(0.1)))
    assert read_verdict(completion) == Verdict(pytest.approx(0.75), pytest.approx(0.6), None)
