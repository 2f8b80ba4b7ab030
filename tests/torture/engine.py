"""Kill a real vLLM child in the middle of its batch: every request completes, once.

    python tests/torture/engine.py --n 48 --kills 1

The texts are compared with those of a child that nobody kills. A single kill must not be taken for
want of memory: it lowers nothing, unless the kernel has killed for memory meanwhile.
"""

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from cai.config import Engine as EngineConfig
from cai.deaths import n_oom_kills
from cai.engines.base import Completion, Engine, Request
from cai.engines.open import open_engine
from cai.models import EMBEDDED, resolve_model
from cai.records import Message, Sampling

CAPACITY = 16


def make_requests(n: int) -> list[Request]:
    """Seeded requests of unequal length."""
    return [
        Request(
            id=f"r{i}",
            messages=(Message(role="user", content=f"Write {i + 2} words about rain."),),
            sampling=Sampling(max_tokens=16 + 8 * (i % 5)),
            seed=i,
        )
        for i in range(n)
    ]


def children() -> list[int]:
    """The processes that this one has started."""
    tasks = Path("/proc/self/task")
    return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]


def answer(engine: Engine, n: int, on_done: Callable[[int], None]) -> list[Completion]:
    """All completions; `on_done` is told their number as it grows."""
    for request in make_requests(n):
        engine.submit(request)
    done: list[Completion] = []
    while len(done) < n:
        if found := engine.poll():
            done += found
            on_done(len(done))
    return done


def torture(folder: Path, n: int, kills: int) -> dict[str, Any]:
    """`kills` SIGKILLs, spread over the batch, and what came of them."""
    config = EngineConfig(kind="vllm", max_context=512, capacity=CAPACITY)
    model, said = resolve_model(EMBEDDED), list[str]()
    moments = [n * (i + 1) // (kills + 1) for i in range(kills)]

    def kill(n_done: int) -> None:
        if moments and n_done >= moments[0]:
            moments.pop(0)
            for child in children():
                os.kill(child, signal.SIGKILL)

    with closing(open_engine(config, model, folder / "whole.log")) as engine:
        whole = {c.id: c.text for c in answer(engine, n, lambda _: None)}
    started, before = time.monotonic(), n_oom_kills()
    with closing(open_engine(config, model, folder / "killed.log", say=said.append)) as engine:
        done = answer(engine, n, kill)
    found = {completion.id: completion for completion in done}
    return {
        "part": "engine",
        "kills": kills - len(moments),
        "requests": n,
        "lost": n - len(found),
        "duplicated": len(done) - len(found),
        "errors": sum(c.finish == "error" for c in done),
        "texts_differing": sum(c.text != whole[c.id] for c in done),
        "left_running": len(children()),
        "kernel_can_tell": before is not None and before == n_oom_kills(),
        "lowered": sum("lower engine.capacity to" in line for line in said),
        "seconds": round(time.monotonic() - started, 1),
        "said": said,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=48)
    parser.add_argument("--kills", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = torture(Path(folder), options.n, options.kills)
    print(json.dumps(result))
    bad = any(result[key] for key in ("lost", "duplicated", "errors", "left_running"))
    mistaken = result["kernel_can_tell"] and result["kills"] == 1 and result["lowered"]
    raise SystemExit(int(bad or bool(mistaken)))


if __name__ == "__main__":
    main()
