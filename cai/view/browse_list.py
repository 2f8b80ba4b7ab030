"""The left of `cai browse`: every chain that fits, of which only the visible ones are drawn."""

from collections.abc import Iterable
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from cai.view.choosing import Chain
from cai.view.terminal import one_line

ROW = 2  # lines of each row
SHORT_ID = 8
FIRST_WORDS = 200  # characters, more than any list is wide


class ChainList(ScrollView, can_focus=True, inherit_bindings=False):
    """Rows of one height, so that ten thousand of them need no layout."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"chain-list--current"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1)", show=False),
        Binding("k,up", "move(-1)", show=False),
        Binding("g,home", "end(-1)", show=False),
        Binding("G,end", "end(1)", show=False),
        Binding("ctrl+d", "page(1)", show=False),
        Binding("ctrl+u", "page(-1)", show=False),
    ]

    class Moved(Message):
        """Another chain is the current one, or none is."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = list[Chain]()
        self.cursor = 0
        self.kept: Chain | None = None

    @property
    def current(self) -> Chain | None:
        return self.rows[self.cursor] if self.rows else None

    def clear(self, keep: bool = True) -> None:
        """Empty it. The current chain becomes current again if it is put back, unless not kept."""
        self.kept = (self.current or self.kept) if keep else None
        self.rows, self.cursor = [], 0

    def extend(self, chains: Iterable[Chain]) -> None:
        """Put chains at the end."""
        moved = not self.rows
        for chain in chains:
            if chain is self.kept:
                self.cursor, moved = len(self.rows), True
            self.rows.append(chain)
        self.virtual_size = Size(1, ROW * len(self.rows))
        if moved:
            self.go_to(self.cursor)
        self.refresh()

    def go_to(self, index: int) -> bool:
        """Make the chain at `index` current, or the nearest one; whether that is another one."""
        before, self.cursor = self.cursor, max(0, min(index, len(self.rows) - 1))
        region = Region(0, ROW * self.cursor, 1, ROW)
        self.scroll_to_region(region, animate=False, force=True, immediate=True)
        self.refresh()
        self.post_message(self.Moved())
        return self.cursor != before

    def action_move(self, by: int) -> bool:
        self.kept = None
        return self.go_to(self.cursor + by)

    def action_end(self, side: int) -> None:
        self.action_move(side * len(self.rows))

    def action_page(self, by: int) -> None:
        self.action_move(by * max(1, self.size.height // ROW))

    def on_click(self, event: events.Click) -> None:
        self.kept = None
        self.go_to((event.y + self.scroll_offset.y) // ROW)

    def render_line(self, y: int) -> Strip:
        """A line of what is visible: of each row the prompt's first words, then facts."""
        index, line = divmod(y + self.scroll_offset.y, ROW)
        width = self.scrollable_content_region.width
        if index >= len(self.rows):
            return Strip.blank(width, self.rich_style)
        text = row_lines(self.rows[index])[line]
        text.truncate(width, overflow="ellipsis", pad=True)
        strip = Strip(text.render(self.app.console), width)
        current = index == self.cursor
        below = self.get_component_rich_style("chain-list--current") if current else self.rich_style
        return strip.apply_style(below)


def row_lines(chain: Chain) -> tuple[Text, Text]:
    """The prompt's first words; id, number of rounds, reward of the last text, badges and area.

    Whatever a model wrote is cleaned text here, never markup."""
    prompt = chain.transcript.prompt
    words = one_line(prompt.messages[-1].content[:FIRST_WORDS])
    n, reward = len(chain.transcript.rounds), chain.reward
    rounds, score = f" {n}r" if n else "", "" if reward is None else f" {reward:+.2f}"
    shown = f"{one_line(prompt.id[:SHORT_ID])}{rounds}{score}"
    facts = Text(f"  {shown} ", "dim")
    facts.append(", ".join(chain.badges), "not dim yellow").append(f" {one_line(prompt.area)}")
    return Text(f" {words}"), facts
