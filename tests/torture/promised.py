"""What the row of a part must say, so that it can fail."""

from collections.abc import Callable, Mapping
from typing import Any

Row = Mapping[str, Any]

ZERO = {
    *("lost", "duplicated", "differing", "undetected", "corrupt", "findings", "overlaps", "stuck"),
    *("beyond_loopback", "executions", "leaks", "crashes", "bad", "failed", "unclean", "slow"),
    *("wrong_starts", "wrong_code", "tracebacks", "processes_left", "late_writes"),
    *("texts_differing", "errors", "left_running", "secrets"),
}
"""What must have come of no part."""
SOME = {"runs", "kills", "cuts", "flips", "processes", "sizes", "calls", "templates", "tests"}
"""What must have been tried at all."""


def was_watched(row: Row) -> bool:
    """Whether there was no way out, and whoever had tried one would have been seen."""
    return row["without_a_route"] and row["strace"]


PROMISED: Mapping[str, Mapping[str, Callable[[Row], bool]]] = {
    "trainer kill": {
        "inside_a_save": lambda row: row["inside_a_save"] > 0,
        "repeated_steps_at_most": lambda row: (
            row["repeated_steps_at_most"] <= row["steps_between_saves"]
        ),
    },
    "signals": {
        "too_late": lambda row: row["too_late"] <= row["runs"] / 2,
        # one that the engine has been given and that is not counted yet: Driver._ask
        "unwritten_of_a_stop_at_most": lambda row: row["unwritten_of_a_stop_at_most"] <= 1,
    },
    "crowd": {
        "writers": lambda row: row["writers"] == row["done"] == 1,
        "exit_75": lambda row: row["exit_75"] == row["processes"] - 1,
        "say_who": lambda row: row["say_who"] == row["processes"] - 1,
    },
    "killed": {"takeover_s_at_most": lambda row: row["takeover_s_at_most"] <= 5},
    "cut": {"set_aside_at_most": lambda row: row["set_aside_at_most"] <= 1},
    "flip": {"refused": lambda row: row["refused"] > 0},
    "tmpfs: trainer": {"full": lambda row: row["full"] > 0, "steps": lambda row: row["steps"] == 3},
    "offline, fake": {"without_a_route": was_watched},
    "offline, real": {
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
    except (KeyError, TypeError):
        return False
