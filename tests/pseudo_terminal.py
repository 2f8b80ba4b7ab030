"""A program in a terminal of its own: keys for it, and what it writes."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
import unicodedata

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# Cursor, screen and modes, questions to the terminal, the mouse pointer's shape (OSC 22).
CONTROLS = re.compile(r"\x1b(?:\[[<=>?]?[0-9;]*\$?[A-Za-z]|[78=>]|\]22;[a-z]*\x07)")
TIMEOUT_S = 60


class Terminal:
    """Python code that runs in a terminal of 100 columns and 30 lines."""

    def __init__(self, code: str, **environment: str) -> None:
        self.near, far = pty.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        own = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "LESS", "PAGER")}
        own |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=far,
            stdout=far,
            stderr=far,
            env=own | environment,
        )
        os.close(far)
        self.data = b""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.near)

    def read_until(self, wanted: str | None = None) -> str:
        """What it has written by the time that `wanted` is there; without it, until it ends."""
        end = time.monotonic() + TIMEOUT_S
        while wanted is None or wanted not in self.text:
            ready, _, _ = select.select([self.near], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{wanted!r} is not there after {TIMEOUT_S} s: {self.text[-2000:]!r}"
            try:
                self.data += os.read(self.near, 65536)
            except OSError:  # Linux says so when the other side is closed
                break
        return self.text

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")

    def press(self, keys: str) -> None:
        os.write(self.near, keys.encode())


def steering(text: str) -> set[str]:
    """The characters that steer a terminal, besides line ends, colours and plain cursor control."""
    left = CONTROLS.sub("", COLOURS.sub("", text))
    categories = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return {char for char in left if unicodedata.category(char) in categories} - {"\r", "\n"}
