"""Engines that die, hang and run out of memory: the rest completes, a poison is an error."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
from faulty_engine import Faulty

from cai.driver import Chain, run_chains
from cai.engines.base import Completion, Engine, Request
from cai.engines.fake import answer
from cai.engines.process import EngineSettings
from cai.engines.supervise import Supervised
from cai.errors import ConfigError, EngineError
from cai.records import Message, Sampling
from cai.run import RecordFile

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The children find `faulty_engine`."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))


class Bench:
    """An engine whose child is faulty, and what it has said."""

    def __init__(self, folder: Path) -> None:
        self.log, self.starts = folder / "log", folder / "starts"
        self.said: list[str] = []
        self.opened: list[Engine] = []

    def process(self, capacity: int = 8, stall_s: float = 60, **options: object) -> Faulty:
        options["starts"] = str(self.starts)
        settings = EngineSettings(
            kind="transformers",
            model="faulty",
            max_context=4096,
            capacity=capacity,
            stall_s=stall_s,
            options=options,
        )
        engine = Faulty(settings, self.log)
        self.opened.append(engine)
        return engine

    def supervised(self, restarts: int = 20, **settings: object) -> Supervised:
        start = partial(self.process, **settings)  # type: ignore[arg-type]
        engine = Supervised(start, restarts, self.said.append)
        self.opened.append(engine)
        return engine

    @property
    def n_starts(self) -> int:
        return len(self.starts.read_text().splitlines())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for engine in made.opened:
        engine.close()


def ask(number: int, text: str) -> Request:
    return Request(f"r{number}", (Message(role="user", content=text),), Sampling(), number)


def requests_of(*texts: str) -> list[Request]:
    return [ask(number, text) for number, text in enumerate(texts)]


def collect(engine: Engine, requests: Sequence[Request]) -> dict[str, Completion]:
    """Everybody's completion, each once."""
    for request in requests:
        engine.submit(request)
    done: dict[str, Completion] = {}
    while len(done) < len(requests):
        for completion in engine.poll():
            assert completion.id not in done
            done[completion.id] = completion
    assert engine.poll() == []
    return done


def poisons(requests: Sequence[Request], done: dict[str, Completion]) -> dict[str, str]:
    """The error of each request that has one; the others got what they get in a healthy engine."""
    errors: dict[str, str] = {}
    for request in requests:
        completion = done[request.id]
        if completion.finish == "error":
            assert completion.text == ""
            errors[request.messages[0].content] = completion.error or ""
        else:
            assert completion == answer(request)
    return errors


@pytest.mark.parametrize(
    ("poison", "says"),
    [
        ("die", "was killed by SIGKILL each time that it was asked this alone; lower engine.max"),
        ("memory", r"ended with code 1 \(MemoryError\) each .* lower engine.max_context"),
        ("raise", r"RuntimeError: illegal  \[31m instruction\).* set another engine.kind"),
    ],
)
def test_a_poison_is_an_error_and_the_rest_completes(bench: Bench, poison: str, says: str) -> None:
    texts = [f"text {i}" for i in range(63)]
    requests = requests_of(*texts[:40], poison, *texts[40:])
    errors = poisons(requests, collect(bench.supervised(capacity=64), requests))
    assert list(errors) == [poison]
    pytest.fail(errors[poison]) if not __import__("re").search(says, errors[poison]) else None
    assert bench.n_starts == 9  # 64 under way, 32, 16, 8, 4, 2, 1, 1
    assert not any("engine.capacity" in line for line in bench.said), "it was not their number"


def test_two_poisons(bench: Bench) -> None:
    texts = [f"text {i}" for i in range(30)]
    requests = requests_of("die", *texts[:20], "raise", *texts[20:])
    errors = poisons(requests, collect(bench.supervised(capacity=32), requests))
    assert sorted(errors) == ["die", "raise"]


def test_too_many_at_once_are_asked_fewer_at_once(bench: Bench) -> None:
    requests = requests_of(*(f"text {i}" for i in range(60)))
    engine = bench.supervised(capacity=20, holds=5)
    assert poisons(requests, collect(engine, requests)) == {}
    assert bench.n_starts == 4  # 60 under way, 10, 5 fit
    told = [line for line in bench.said if "engine.capacity" in line]
    assert told == ["memory ran out: no more than 5 requests at once from here on; lower "
                    "engine.capacity to 5"]
    more = [ask(100 + i, f"more {i}") for i in range(20)]
    assert poisons(more, collect(engine, more)) == {}
    assert bench.n_starts == 4, "the number stays"
