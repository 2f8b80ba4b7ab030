"""Markdown in which text of a model or a user is only text."""

import re
from collections.abc import Iterable, Sequence

from cai.view.terminal import as_text, clean, one_line

EXCERPT = 700
"""Characters of a text shown in an example."""


def inline(text: object) -> str:
    """Text of one line with nothing in it that Markdown would interpret."""
    return re.sub(r"([\\`*_\[\]<>|#~$&!])", r"\\\1", one_line(text))


def fence(text: str) -> str:
    """A code fence longer than any run of backticks in `text`, which is cut to `EXCERPT`."""
    left = len(text) - EXCERPT
    shown = clean(text[:EXCERPT] + (f" […, {left:,} more characters]" if left > 0 else ""))
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{ticks}text\n{shown}\n{ticks}"


def grid(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    cells = [[inline(as_text(cell)) for cell in row] for row in rows]
    lines = [columns, ["---"] * len(columns), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"* {line}" for line in lines)
