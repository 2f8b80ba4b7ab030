"""The right of `cai browse`: one chain, rendered when it is looked at."""

import io
from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar

from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from cai.view.choosing import Chain
from cai.view.reader import Look, transcript_parts

CURRENT = Style.parse("bold not reverse white on dark_magenta")


Hit = Sequence[tuple[int, int]]
"""Where a text that is searched for stands: line and place of each of its segments."""


class ChainView(ScrollView, can_focus=True, inherit_bindings=False):
    """A transcript as `cai show` prints it, with one of its hits as the current one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "scroll_down", show=False),
        Binding("k,up", "scroll_up", show=False),
        Binding("g,home", "scroll_home", show=False),
        Binding("G,end", "scroll_end", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.shown: tuple[Chain, Look] | None = None
        self.lines = list[list[Segment]]()
        self.hits = list[Hit]()
        self.hit = 0

    def show(self, chain: Chain | None, look: Look, hit: int = 0) -> None:
        """Show a chain from its top, or from its hit of this number; -1 is the last."""
        before, self.shown = self.shown, (chain, look) if chain else None
        if self.shown == before:
            return
        self.draw()
        last, old = before or (None, None)
        if last is not chain:
            self.scroll_to(y=0, animate=False)
        if last is not chain or (old and old.search) != look.search:
            self.hit = hit
        self.show_hit()

    def draw(self) -> None:
        """Render the chain for the width that there is."""
        width = self.scrollable_content_region.width
        self.lines = render_lines(*self.shown, width - 1) if self.shown and width else []
        self.hits = find_hits(self.lines)
        self.virtual_size = Size(width, len(self.lines))
        self.refresh()

    def on_resize(self) -> None:
        self.draw()
        self.show_hit()

    def step(self, by: int) -> bool:
        """Go to the next hit, or to the one before (`by` -1); whether there is one."""
        if not 0 <= self.hit + by < len(self.hits):
            return False
        self.hit += by
        self.show_hit()
        return True

    def show_hit(self) -> None:
        """Bring the current hit into view, with what stands around it."""
        self.refresh()
        last = len(self.hits) - 1
        self.hit = max(0, last if self.hit < 0 else min(self.hit, last))
        if not self.hits:
            return
        (line, _), height = self.hits[self.hit][0], self.size.height
        if not 0 <= line - self.scroll_offset.y < height - 1:
            self.scroll_to(y=line - height // 3, animate=False)

    def render_line(self, y: int) -> Strip:
        line, width = y + self.scroll_offset.y, self.scrollable_content_region.width
        if line >= len(self.lines):
            return Strip.blank(width, self.rich_style)
        segments = list(self.lines[line])
        for place in (x for y, x in self.hits[self.hit] if y == line) if self.hits else ():
            segments[place : place + 1] = Segment.apply_style(
                segments[place : place + 1], post_style=CURRENT
            )
        return Strip(segments).adjust_cell_length(width).apply_style(self.rich_style)


def render_lines(chain: Chain, look: Look, width: int) -> list[list[Segment]]:
    """The chain's lines of at most `width` columns. What a model wrote is text in them, no more."""
    console = Console(
        file=io.StringIO(), width=width, color_system="truecolor", force_terminal=True,
        legacy_windows=False, markup=False, highlight=False, emoji=False,
    )  # fmt: skip
    parts = transcript_parts(chain.transcript, look)
    return [line for part in parts for line in console.render_lines(part, pad=False)]


def find_hits(lines: Sequence[Sequence[Segment]]) -> list[Hit]:
    """The hits that `cai.view.reader.highlight` has numbered, in reading order."""
    found = defaultdict[int, list[tuple[int, int]]](list)
    for y, line in enumerate(lines):
        for x, segment in enumerate(line):
            if segment.style and "hit" in segment.style.meta:
                found[segment.style.meta["hit"]].append((y, x))
    return list(found.values())
