"""What a judge's answer says of the two responses. No answer, no verdict: never a default."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from cai.engines.base import Completion
from cai.prompts import OPTIONS

VERDICT = re.compile(
    r"(?:(?:[Vv]erdict|(?:[Tt]he |[Ss]o the )?[Aa]nswer(?: is)?):?)?[\s(*_`]*([AB])[\s)*_`.]*"
)
"""A line that is a verdict and nothing else: a letter, alone or behind "Verdict:"."""


class Verdict(NamedTuple):
    """What one judgement says."""

    p_first: float | None
    """P(first is better), normalised over the two options."""
    p_outside: float | None
    """Probability mass on neither."""
    unscored: str | None


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


def read_written(completion: Completion) -> Verdict:
    """The verdict on the last line of a text, 1 or 0; none unless that line says nothing else."""
    if completion.finish == "error":
        return Verdict(None, None, completion.error or "the engine gave no answer")
    lines = [line.strip() for line in completion.text.splitlines() if line.strip()]
    found = VERDICT.fullmatch(lines[-1]) if lines else None
    if found is None:
        return Verdict(None, None, "the last line is no verdict")
    return Verdict(float(found[1] == OPTIONS[0]), None, None)
