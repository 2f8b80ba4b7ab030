"""What changed between two texts, word by word (see `cai.words.split_words`)."""

import itertools
import re
from collections.abc import Callable
from operator import itemgetter
from typing import Literal

from cai.words import WORD, common_rows

Change = Literal["same", "removed", "added"]
MAX_DIFF_WORDS = 4_000


def word_diff(one: str, other: str) -> list[tuple[Change, str]]:
    """Runs of words kept, removed from `one` and added by `other`, in reading order.

    Beyond `MAX_DIFF_WORDS` words all of `one` is removed and all of `other` added."""
    a, b = (re.findall(rf"{WORD}\s*", text) for text in (one, other))
    if len(a) + len(b) > MAX_DIFF_WORDS:
        return [("removed", one), ("added", other)]
    rows = common_rows([word.rstrip() for word in a], [word.rstrip() for word in b])
    steps: list[tuple[Change, str]] = []
    while a or b:
        bit = max(0, len(b) - 1)
        if b and rows[len(a)] >> bit & 1:
            steps.append(("added", b.pop()))
        elif b and rows[len(a) - 1] >> bit & 1:
            a.pop()
            steps.append(("same", b.pop()))
        else:
            steps.append(("removed", a.pop()))
    key: Callable[[tuple[Change, str]], Change] = itemgetter(0)
    runs = itertools.groupby(reversed(steps), key)
    return [(change, "".join(word for _, word in run)) for change, run in runs]
