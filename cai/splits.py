"""Which purpose a dialogue's prompts serve: no dialogue serves two."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from cai.config import Shares
from cai.records import Kind, Message, Prompt, Split, derive_seed, digest

MARKS = re.compile(r"[^\w\s!-~]{30}")
"""Thirty characters in a row that may all be combining marks."""


def group_of(dialogue: Sequence[Message]) -> str:
    """What dialogues that begin alike share: a digest of their first human turn.

    Case, white space and Unicode's forms make no difference, nor does a system turn, which may be
    the same in all.
    """
    text = next(message.content for message in dialogue if message.role == "user")
    # Sorting a run of combining marks is quadratic: cut as in Unicode's stream-safe text format.
    text = MARKS.sub("\\g<0>\u034f", text)
    folded = unicodedata.normalize("NFKC", text).casefold()
    return digest("group", " ".join(unicodedata.normalize("NFKC", folded).split()))


def split_of(group: str, seed: int, shares: Shares) -> Split:
    """The one purpose that a dialogue's prompts serve, drawn by the run's seed."""
    left = derive_seed("split", seed, group) / 2**31
    purposes: tuple[tuple[Split, float], ...] = (
        ("sft", shares.sft),
        ("preference", shares.preference),
        ("rl", shares.rl),
    )
    for split, share in purposes:
        left -= share
        if left < 0:
            return split
    return "eval"


def select(
    prompts: Iterable[Prompt], kind: Kind, split: Split, n: int | None, seed: int
) -> list[Prompt]:
    """The first `n` prompts (all: none) of a kind and split in an order drawn by `seed`."""
    matching = [p for p in prompts if p.kind == kind and p.split == split]
    return sorted(matching, key=lambda p: (derive_seed("order", seed, p.id), p.id))[:n]
