"""How a part says what it found: one line of JSON, with its seconds."""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any


def tell(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do a part and print its line."""
    started = time.monotonic()
    result = part()
    print(json.dumps(result | {"seconds": round(time.monotonic() - started, 1)}), flush=True)
    return result


def tell_of(torture: Callable[[int, int], dict[str, Any]], n: int, doc: str | None) -> None:
    """The command line of a part that tries something `--n` times, drawn from `--seed`."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--n", type=int, default=n)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if tell(lambda: torture(options.n, options.seed)).get("failed"):
        raise SystemExit(1)
