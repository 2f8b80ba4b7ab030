"""What a long stage shows: a live bar in a terminal, plain lines everywhere else."""

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cai.driver import Tally

LINE_EVERY_S = 10.0
"""Seconds between two plain lines."""


class StageProgress:
    """Progress of one stage: counts, tokens/s, time left."""

    def __init__(self, name: str, console: Console) -> None:
        self.name = name
        self._console = console
        self._live = console.is_terminal
        self._started = self._last_line = time.monotonic()
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self._live,
        )
        self._task = self._bar.add_task(name, total=None, rate="")

    def __enter__(self) -> "StageProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def doing(self, what: str, total: int | None = None) -> None:
        """Begin a part of the stage with `total` things to do."""
        self._started = time.monotonic()
        self._last_line = 0.0
        self._bar.reset(self._task, description=f"{self.name}: {what}", rate="")
        self._bar.tasks[0].total = total  # `reset` takes none for "as before"
        if not self._live:
            self.note(f"{what} ({total})" if total else what)

    def steps(self, total: int, tally: Tally) -> None:
        """What the driver has done so far of `total` steps."""
        seconds = max(time.monotonic() - self._started, 1e-3)
        rate = f"{tally.n_tokens / seconds:.0f} tokens/s" if tally.n_tokens else ""
        self._show(tally.n_replayed + tally.n_generated, total, rate, seconds)

    def training(self, metrics: Mapping[str, Any]) -> None:
        """One logging step of a trainer."""
        step, steps = metrics.get("step"), metrics.get("max_steps")
        if not isinstance(step, int) or not isinstance(steps, int):
            return
        shown = ("loss", "reward", "kl", "accuracy")
        values = [f"{k} {metrics[k]:.4g}" for k in shown if isinstance(metrics.get(k), int | float)]
        tokens, seconds = metrics.get("num_tokens"), metrics.get("time_s")
        if tokens and seconds:
            values.append(f"{tokens / seconds:.0f} tokens/s")
        self._show(step, steps, ", ".join(values), max(time.monotonic() - self._started, 1e-3))

    def _show(self, done: int, total: int, rate: str, seconds: float) -> None:
        self._bar.update(self._task, completed=done, total=total, rate=rate)
        now = time.monotonic()
        finished = done >= total
        if self._live or not (finished or now - self._last_line >= LINE_EVERY_S):
            return
        if finished and self._last_line == float("inf"):
            return
        self._last_line = float("inf") if finished else now
        left = f", {seconds / done * (total - done):.0f} s left" if done and not finished else ""
        self.note(f"{done}/{total}{', ' + rate if rate else ''}{left}")

    def note(self, text: str) -> None:
        """One line that stays."""
        self._console.print(Text(f"{self.name}: {text}"), soft_wrap=True)


class RunProgress:
    """Progress of a run; `quiet` for tests and machines."""

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True, quiet=quiet, highlight=False)

    @contextmanager
    def stage(self, name: str) -> Generator[StageProgress]:
        with StageProgress(name, self.console) as progress:
            yield progress

    def say(self, text: str) -> None:
        """A line about the whole run."""
        self.console.print(Text(text), soft_wrap=True)
