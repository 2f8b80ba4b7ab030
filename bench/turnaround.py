"""What chains lose between two steps of a fast engine: a child that steps like vLLM on a GPU.

    python bench/turnaround.py --chains 110 --batch 64

A step takes `--step` ms, of which Python holds the interpreter's lock for `--held` ms: a thread of
the same process that reads requests has to wait for it. Every running request gets one token a
step, so an engine whose slots stay full is as fast as can be. Chains of 5 requests, through the
driver (a) and stage by stage with barriers (b).
"""

import argparse
import random
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

from chains import make_prompt
from driver import Recorded, through_driver, with_barriers

from cai.chains.revision import RevisionSetup, Voice, revision_chain
from cai.constitution import find_constitution, load_constitution
from cai.driver import Chain
from cai.engines import fake, worker
from cai.engines.base import Completion, Request
from cai.engines.process import EngineProcess, EngineSettings
from cai.prompts import Templates
from cai.records import Sampling


class Stepping(EngineProcess):
    """The child is this file."""

    module = "turnaround"


class SteppingEngine:
    """`capacity` requests run; each ends after a number of steps that its own seed draws."""

    def __init__(self, settings: EngineSettings) -> None:
        self.model, self.capacity = settings.model, settings.capacity
        self._step_s, self._held_s = settings.options["step_s"], settings.options["held_s"]
        self._waiting: deque[Request] = deque()
        self._running: dict[str, tuple[Request, int]] = {}
        self.on_step = lambda: None

    def submit(self, request: Request) -> None:
        self._waiting.append(request)

    def poll(self) -> list[Completion]:
        started = time.perf_counter()
        while self._waiting and len(self._running) < self.capacity:
            request = self._waiting.popleft()
            n_steps = random.Random(request.seed).randint(20, 80)
            self._running[request.id] = (request, n_steps)
        while time.perf_counter() - started < self._held_s:
            pass
        time.sleep(max(0.0, self._step_s - self._held_s))
        self.on_step()
        left = {name: (request, n - 1) for name, (request, n) in self._running.items()}
        self._running = {name: pair for name, pair in left.items() if pair[1]}
        return [fake.answer(request) for request, n in left.values() if not n]


def make_chains(n: int) -> list[Chain]:
    principles = load_constitution(find_constitution("harmless.yaml")).for_revision()
    voice = Voice("base", "fake", Sampling())
    setup = RevisionSetup((), principles, Templates(), 2, 0, voice, voice, voice)
    return [revision_chain(make_prompt(i), setup) for i in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chains", type=int, default=110)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--step", type=float, default=20.0, help="ms")
    parser.add_argument("--held", type=float, default=10.0, help="ms")
    arguments = parser.parse_args()
    options = {"step_s": arguments.step / 1000, "held_s": arguments.held / 1000}
    settings = EngineSettings(
        kind="fake", model="fake", max_context=4096, capacity=arguments.batch, options=options
    )
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, way in (("a", through_driver), ("b", with_barriers)):
            engine = Recorded(Stepping(settings, folder / f"{name}.log"))
            engine.warm_up()
            seconds[name] = way(engine, make_chains(arguments.chains), folder)
            engine.close()
            print(f"({name}) {len(engine.requests)} requests in {seconds[name]:.1f} s")
    print(f"(a)/(b) {seconds['b'] / seconds['a']:.2f} times as fast")


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].isdigit():
        worker.main(SteppingEngine)
    else:
        main()
