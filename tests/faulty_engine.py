"""An engine's child without a model, whose faults are planted: `python -m faulty_engine FD`.

A request's text plants one ("die", "raise", "memory", "hang", "slow", "refuse"), and so do the
engine's options: see `FaultyEngine`.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from cai.engines import worker
from cai.engines.base import Completion, Request
from cai.engines.fake import FakeEngine
from cai.engines.process import EngineProcess, EngineSettings


class Faulty(EngineProcess):
    module = "faulty_engine"


class FaultyEngine(FakeEngine):
    """Answers a request a poll. Options: `starts` and `helper`, files to be written to; `broken`,
    dies whatever it is asked; `refuses`, whatever it is asked; `holds`, so many fit its memory; `deaths`, so many starts of it die
    after a seeded number of answers; `kills`, before the first that is not a greeting."""

    on_step = staticmethod(lambda: None)

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings.model, capacity=settings.capacity)
        self._options = settings.options
        starts = Path(settings.options["starts"])
        with starts.open("a") as file:
            file.write(f"{os.getpid()}\n")
        number = len(starts.read_text().splitlines())
        self._lives = float("inf")
        if number <= settings.options.get("deaths", 0):
            self._lives = random.Random(number).randint(3, 12)
        if number <= settings.options.get("kills", 0):
            self._lives = int(number > 1)
        if "start" in settings.options:
            raise RuntimeError("these are no weights")
        if "helper" in settings.options:
            helper = subprocess.Popen(["sleep", "600"])
            Path(settings.options["helper"]).write_text(str(helper.pid))

    def submit(self, request: Request) -> None:
        if request.messages[0].content == "refuse" or self._options.get("refuses"):
            raise ValueError("roles must alternate")
        super().submit(request)

    def poll(self) -> list[Completion]:
        if not self._waiting:
            return []
        for request in self._waiting:
            self._suffer(request.messages[0].content)
        if self._options.get("broken") or self.n_asked == self._lives:
            os.kill(os.getpid(), signal.SIGKILL)
        if len(self._waiting) > self._options.get("holds", float("inf")):
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
        self.n_asked += 1
        return [self._answer(self._waiting.popleft())]

    def _suffer(self, text: str) -> None:
        if text == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if text == "raise":
            raise RuntimeError("illegal \x1b[31m instruction")
        if text == "memory":
            raise MemoryError
        if text == "hang":
            time.sleep(600)
        if text == "slow":
            for _ in range(32):
                time.sleep(0.25)
                self.on_step()


if __name__ == "__main__":
    sys.exit(worker.main(FaultyEngine))
