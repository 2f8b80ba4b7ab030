"""Scoring continuations exactly: the log-probability of each one's whole token sequence.

The continuations of one prompt form a trie. Each inner node is one question to the model (what is
the log-probability of these next tokens after this prefix?), so options that are one token each
cost a single forward pass, and longer ones share their prefixes.
"""

from collections.abc import Mapping, Sequence

Prefix = tuple[int, ...]


def questions(continuations: Sequence[Sequence[int]]) -> dict[Prefix, set[int]]:
    """The next tokens asked for after each prefix of the continuations."""
    asked: dict[Prefix, set[int]] = {}
    for continuation in continuations:
        for depth, token in enumerate(continuation):
            asked.setdefault(tuple(continuation[:depth]), set()).add(token)
    return asked


def add_up(
    continuations: Sequence[Sequence[int]], answers: Mapping[Prefix, Mapping[int, float]]
) -> tuple[float, ...]:
    """Log-probability (nats) of each continuation from the answers to `questions`."""
    return tuple(
        sum(answers[tuple(ids[:depth])][token] for depth, token in enumerate(ids))
        for ids in continuations
    )
