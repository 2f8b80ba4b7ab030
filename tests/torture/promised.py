"""What the row of a part must say, so that it can fail."""

from collections.abc import Callable, Mapping
from typing import Any

Row = Mapping[str, Any]

ZERO = {
    *("lost", "duplicated", "differing", "undetected", "corrupt", "findings", "overlaps", "stuck"),
    *("beyond_loopback", "executions", "leaks", "crashes", "bad", "failed", "unclean", "slow"),
    *("wrong_starts", "wrong_code", "tracebacks", "processes_left", "late_writes"),
    *("texts_differing", "errors", "left_running", "ports_on_all_interfaces", "secrets"),
}
"""What must have come of no part."""
SOME = {
    *("runs", "kills", "cuts", "flips", "processes", "sizes", "calls", "templates", "tests"),
    *("records", "inputs", "count"),
}
"""What must have been tried at all."""
STOPS = 2
"""Stops of each kind that must not have come too late."""
P_FIRST = 1e-4
"""How far a label's P(first) may move in another batch: float32 sums in another order."""
MAX_MB = 200
"""What a process that reads a bomb may take, Python and pydantic included (about 60); and how far
one that is fuzzed may grow: atheris and what it has loaded are larger before the first input."""


def was_watched(row: Row) -> bool:
    """Whether there was no way out, and whoever had tried one would have been seen."""
    return row["without_a_route"] and row["strace"]


def each_was_stopped(row: Row) -> bool:
    """Whether stops of every kind came in time: one that never did is not tried."""
    return len(row["in_time"]) == 4 and min(row["in_time"].values()) >= STOPS


PROMISED: Mapping[str, Mapping[str, Callable[[Row], bool]]] = {
    "trainer kill": {
        "inside_a_save": lambda row: row["inside_a_save"] > 0,
        "repeated_steps_at_most": lambda row: (
            row["repeated_steps_at_most"] <= row["steps_between_saves"]
        ),
    },
    "kill, vLLM": {
        "p_first_changed_at_most": lambda row: row["p_first_changed_at_most"] <= P_FIRST,
    },
    "signals": {
        "in_time": each_was_stopped,
        "too_late": lambda row: row["too_late"] <= row["runs"] / 2,
        # one that the engine has been given and that is not counted yet: Driver._ask
        "unwritten_of_a_stop_at_most": lambda row: row["unwritten_of_a_stop_at_most"] <= 1,
    },
    "crowd": {
        "writers": lambda row: row["writers"] == row["done"] == 1,
        "exit_75": lambda row: row["exit_75"] == row["processes"] - 1,
        "say_who": lambda row: row["say_who"] == row["processes"] - 1,
    },
    "killed": {
        "takeover_s_at_most": lambda row: row["takeover_s_at_most"] <= 5,
        "command_goes_on_s_at_most": lambda row: row["command_goes_on_s_at_most"] <= 5,
    },
    "cut": {"set_aside_at_most": lambda row: row["set_aside_at_most"] <= 1},
    "flip": {"refused": lambda row: row["refused"] > 0},
    "refused for ever: other commands": {"corrupt": lambda row: row["corrupt"] == 0},
    "tmpfs: run": {"full": lambda row: row["full"] > 0},
    "tmpfs: trainer": {
        "full": lambda row: row["full"] > 0,
        "steps": lambda row: row["steps"] == 3,
        "corrupt": lambda row: row["corrupt"] == 0,
        "differing": lambda row: row["differing"] == 0,
    },
    "hostile model, vLLM": {"answered": lambda row: row["answered"] > 0},
    "YAML, bombs": {"max_mb": lambda row: row["max_mb"] <= MAX_MB},
    "YAML, random bytes": {
        "by": lambda row: row["by"].startswith(("atheris", "hypothesis")),
        "max_mb_grown": lambda row: row["max_mb_grown"] <= MAX_MB,
    },
    "offline, fake": {"code": lambda row: row["code"] == 0, "without_a_route": was_watched},
    "offline, real": {
        "code": lambda row: row["code"] == 0,
        "without_a_route": was_watched,
        # vLLM and torch talk to themselves: who sees nothing of it is blind
        "sockets": lambda row: row["sockets"] > 0,
    },
}
"""By part, more of what its row must say, under the key that it is about."""


def wrong(row: Row) -> list[str]:
    """The keys of a part's row that do not say what is promised."""
    if "skipped" in row or row.get("failed"):
        return [key for key in ("failed",) if row.get(key)]
    repeated = row.get("repeated_per_kill_at_most", 0)
    return [
        *(key for key in row if key in ZERO and row[key]),
        *(key for key in row if key in SOME and not row[key]),
        *(["repeated_per_kill_at_most"] if repeated > row.get("window", repeated) else []),
        *(key for key, holds in PROMISED.get(row["part"], {}).items() if not kept(holds, row)),
    ]


def kept(holds: Callable[[Row], bool], row: Row) -> bool:
    """Whether a promise is kept; a row that does not speak of it keeps none."""
    try:
        return holds(row)
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
