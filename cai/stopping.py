"""What stops the program: Ctrl-C, SIGTERM, or a terminal that is closed (SIGHUP).

Where requests are under way the first signal only asks, and they get `PATIENCE_S` to end;
elsewhere it stops the program at once. A second one stops it now. Stopping is an exception that is
raised once: what it passes on its way out ends children, and no later signal breaks that off. If
something swallows it or takes too long, an alarm ends the process; its children die with it.
"""

import atexit
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE_S = 8.0
"""For what is under way."""
STOP_S = 8.5
"""From the first signal until every child is ended, politely or not."""
EXIT_S = 1.4
"""For the rest of the way out."""
OUTPUTS = (1, 2)


@dataclass
class State:
    """How far the stopping is."""

    number: int = 0
    """The first signal; 0: none has come."""
    ends_at: float = math.inf
    """When all must have ended (`time.monotonic`)."""
    raised: bool = False
    held: int = 0
    """How deep in `held`."""
    under_way: Callable[[], int] = int
    """How many requests would be lost."""
    terminals: tuple[int, ...] = ()
    """Which of our outputs were terminals at first."""


_state = State()


def install() -> None:
    """Handle the signals from now on, but for those that our parent wants ignored (`nohup`)."""
    global _state
    _state = State(terminals=tuple(filter(os.isatty, OUTPUTS)))
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, on_signal)
    # what comes after is short, and has no handlers left
    atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)


def on_signal(number: int, _frame: object) -> None:
    """The first signal asks or stops, every later one hurries."""
    if number == signal.SIGHUP:
        mute_closed_terminals()
    hurried = asked()
    _state.number = _state.number or number
    _state.ends_at = time.monotonic() + (0 if hurried else STOP_S)
    if _state.raised or _state.held:
        set_alarm(left_s() + EXIT_S)
        return
    n = _state.under_way()
    if hurried or not n:
        leave()
    set_alarm(PATIENCE_S)
    again = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    tell(f"stopping: {n} requests under way, at most {PATIENCE_S:.0f} s ({again} again: now)")


def set_alarm(seconds: float) -> None:
    """Have `on_alarm` called then, and not when it was to be called before."""
    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def on_alarm(_number: int, _frame: object) -> None:
    """The patience is over, or the way out takes too long."""
    if _state.held and not _state.raised and left_s():
        # it was the patience that ended; `held` leaves by itself
        set_alarm(left_s() + EXIT_S)
        return
    if _state.raised or _state.held:
        os._exit(128 + _state.number)
    leave()


def tell(text: str) -> None:
    """Write a line past Python's buffers, which the signal may have found half written."""
    # a progress bar may stand on the line
    start = "\r\x1b[2K" if os.isatty(2) else ""
    with suppress(OSError):
        os.write(2, f"{start}{text}\n".encode())


def mute_closed_terminals() -> None:
    """Send what is still to be said nowhere: writing to a closed terminal is an error."""
    for output in _state.terminals:
        if not os.isatty(output):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, output)
            os.close(nowhere)


def asked() -> bool:
    """Whether a signal has asked to stop: nothing new is to be begun."""
    return _state.number != 0


def signalled() -> int:
    """The number of the signal that stops the program, 0 if none."""
    return _state.number


def left_s() -> float:
    """Seconds until all must have ended; infinite as long as nothing stops the program."""
    return max(0.0, _state.ends_at - time.monotonic())


def leave() -> NoReturn:
    """Stop the program as the signal asks: KeyboardInterrupt, or SystemExit with its exit code."""
    set_alarm(left_s() + EXIT_S)
    _state.raised = True
    if _state.number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + _state.number)


@contextmanager
def patient(under_way: Callable[[], int]) -> Generator[None]:
    """Work whose requests are worth waiting for; `under_way` counts them.

    The work ends early, and without an error, once `asked()`; the program is then stopped here.
    """
    _state.under_way = under_way
    try:
        yield
    finally:
        _state.under_way = int
    leave_if_asked()


@contextmanager
def held() -> Generator[None]:
    """Work that no signal breaks off: ending children. It must be short; see `wait`."""
    _state.held += 1
    try:
        yield
    finally:
        _state.held -= 1
    leave_if_asked()


def leave_if_asked() -> None:
    """Stop the program if a signal has come that has not stopped it yet."""
    if asked() and not _state.raised and not _state.held:
        leave()


def wait(child: subprocess.Popen[bytes], grace_s: float) -> None:
    """Wait for the child's end, at most `grace_s`, and no longer than the stopping may take."""
    until = time.monotonic() + grace_s
    while child.poll() is None and (rest := min(until - time.monotonic(), left_s())) > 0:
        with suppress(subprocess.TimeoutExpired):
            child.wait(min(rest, 0.1))
