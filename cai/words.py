"""Words, as changes are counted and marked in them: in numbers, in the terminal and on the page."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

MAX_WORDS = 20_000
# The page gets these ranges from here, so that it marks what is counted.
UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = rf"(?:[{UNSPACED}]|[^\s{UNSPACED}]+)"


def common_rows(one: Sequence[str], other: Sequence[str]) -> list[int]:
    """The longest common subsequence, bit-parallel: row i has a zero bit wherever `other` gains a
    word in common with `one[:i]`. difflib is cubic where a text repeats itself; this is not."""
    full = (1 << len(other)) - 1
    places: dict[str, int] = defaultdict(int)
    for index, word in enumerate(other):
        places[word] |= 1 << index
    rows = [full]
    for word in one:
        hits = rows[-1] & places.get(word, 0)
        rows.append(((rows[-1] + hits) | (rows[-1] - hits)) & full)
    return rows


def split_words(text: str) -> list[str]:
    """What a change is counted in: words, or characters where a script has no spaces."""
    return text.split() if text.isascii() else re.findall(WORD, text)


def word_change(one: str, other: str) -> float:
    """Share of the words of both texts that are in one only: 0 same text, 1 nothing in common.
    Beyond `MAX_WORDS` words the order is ignored."""
    a, b = split_words(one), split_words(other)
    total = len(a) + len(b)
    if total > MAX_WORDS:
        kept = (Counter(a) & Counter(b)).total()
    else:
        kept = len(b) - common_rows(a, b)[-1].bit_count()
    return 1 - 2 * kept / total if total else 0.0
