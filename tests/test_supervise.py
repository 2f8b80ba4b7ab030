"""Engines that die, hang and run out of memory: the rest completes, a poison is an error."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Thread
from unittest.mock import Mock

import pytest
from faulty_engine import Faulty
from test_driver import step

from cai import deaths
from cai.driver import Chain, run_chains
from cai.engines import process
from cai.engines.base import Completion, Engine, Request
from cai.engines.fake import answer
from cai.engines.process import EngineSettings
from cai.engines.supervise import Supervised
from cai.errors import ConfigError, DiskFull, EngineError
from cai.records import Message, Response, Sampling
from cai.run import RecordFile

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The children find `faulty_engine`, and may take their time to start."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setattr(process, "STARTING", 60)


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
    return finish(engine, len(requests))


def finish(engine: Engine, n: int) -> dict[str, Completion]:
    done: dict[str, Completion] = {}
    while len(done) < n:
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


def test_a_poison_among_64_is_an_error_and_the_rest_completes(bench: Bench) -> None:
    texts = [f"text {i}" for i in range(63)]
    requests = requests_of(*texts[:40], "die", *texts[40:])
    errors = poisons(requests, collect(bench.supervised(capacity=64), requests))
    said = "the engine was killed by SIGKILL each time that it was asked this alone"
    assert errors == {"die": f"{said}; lower engine.max_context or leave its prompt out"}
    assert 3 <= bench.n_starts <= 9, "64 under way, 32, 16, 8, 4, 2, 1, 1"
    assert not any("engine.capacity" in line for line in bench.said), "it was not their number"


@pytest.mark.parametrize(
    ("poison", "says"),
    [
        ("memory", r"ended with code 1 \(MemoryError\) each .* lower engine.max_context"),
        ("raise", r"RuntimeError: illegal  \[31m instruction\).* set another engine.kind"),
        ("hang", r"made no step within 3 s each .* raise engine.stall_s"),
    ],
)
def test_the_error_says_what_happened_and_what_to_change(
    bench: Bench, poison: str, says: str
) -> None:
    requests = requests_of("one", poison)
    errors = poisons(requests, collect(bench.supervised(stall_s=3), requests))
    assert list(errors) == [poison]
    assert re.search(says, errors[poison])


def test_two_poisons(bench: Bench) -> None:
    requests = requests_of("die", *(f"text {i}" for i in range(14)), "raise")
    errors = poisons(requests, collect(bench.supervised(capacity=16), requests))
    assert sorted(errors) == ["die", "raise"]


def test_too_many_at_once_are_asked_fewer_at_once(bench: Bench) -> None:
    requests = requests_of(*(f"text {i}" for i in range(60)))
    engine = bench.supervised(capacity=20, holds=5)
    assert poisons(requests, collect(engine, requests)) == {}
    assert bench.n_starts == 3, "60 under way, 10, 5"
    told = [line for line in bench.said if "engine.capacity" in line]
    assert len(told) == 1
    assert told[0].endswith("lower engine.capacity to 5")
    more = [ask(100 + i, f"more {i}") for i in range(20)]
    assert poisons(more, collect(engine, more)) == {}
    assert bench.n_starts == 3, "the number stays"


def test_thirty_deaths_at_random(bench: Bench) -> None:
    requests = requests_of(*(f"text {i}" for i in range(400)))
    assert poisons(requests, collect(bench.supervised(deaths=30), requests)) == {}
    assert bench.n_starts == 31


@pytest.mark.parametrize("n", [1, 2])
def test_one_death_of_few_is_an_accident(bench: Bench, n: int) -> None:
    """It makes no poison, and says nothing about how many the engine can take."""
    engine, child = bench.supervised(), int(bench.starts.read_text())
    os.kill(child, signal.SIGSTOP)
    requests = requests_of(*(f"text {i}" for i in range(n)))
    for request in requests:
        engine.submit(request)
    os.kill(child, signal.SIGKILL)
    assert poisons(requests, finish(engine, n)) == {}
    assert len(bench.said) == 1


@pytest.mark.parametrize(("n_kills", "lowered"), [(1, False), (2, True)])
def test_kill_minus_9_of_a_full_engine_is_no_want_of_memory(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_kills: int, lowered: bool
) -> None:
    """Another SIGKILL after it is taken for one, though the kernel counts none."""
    (tmp_path / "vmstat").write_text("oom_kill 3\n")
    monkeypatch.setattr(deaths, "PROC", tmp_path)
    requests = requests_of(*(f"text {i}" for i in range(20)))
    engine = bench.supervised(capacity=8, kills=n_kills)
    assert poisons(requests, collect(engine, requests)) == {}
    assert "the engine was killed by SIGKILL from outside" in bench.said[0]
    assert "earlyoom" in bench.said[0]
    assert any("lower engine.capacity" in line for line in bench.said) == lowered


def test_a_poison_becomes_a_record_and_its_chain_goes_on(bench: Bench, tmp_path: Path) -> None:
    def chain(text: str) -> Chain:
        record: Response = yield step(text)
        yield step(f"after {record.prompt_id}: {record.generation.finish}")

    engine = bench.supervised(capacity=4)
    with RecordFile(tmp_path / "r.jsonl") as records:
        tally = run_chains(map(chain, ("a", "die", "b")), {"base": engine}, records)
        ends = {record.prompt_id: record.generation.finish for record in records}
    assert (tally.n_finished, tally.n_generated, tally.n_errors) == (3, 6, 1)
    assert ends.pop("die") == "error"
    assert "after die: error" in ends
    assert "error" not in ends.values()


def test_an_engine_that_does_not_start_is_the_end(bench: Bench) -> None:
    bench.log.write_text("of an earlier attempt\n")
    with pytest.raises(EngineError, match="ended with code 1") as caught:
        bench.supervised(start=True)
    assert "these are no weights" in str(caught.value)
    assert "earlier attempt" not in str(caught.value)
    assert bench.n_starts == 1


def test_an_engine_that_can_do_nothing_is_the_end(bench: Bench) -> None:
    """It is no request's fault: none becomes an error, and the same command asks them again."""
    engine = bench.supervised(broken=True)
    with pytest.raises(EngineError, match="same command continues"):
        collect(engine, requests_of("one", "two"))
    assert bench.n_starts == 3, "started again, it could not even say hello, nor at the second try"


def test_restarts_are_bounded(bench: Bench) -> None:
    engine = bench.supervised(restarts=1)
    with pytest.raises(EngineError, match=r"started again 1 times \(engine.restarts\)"):
        collect(engine, requests_of("one", "die"))


@pytest.mark.parametrize("texts", [("one", "refuse", "two"), ("refuse", "one"), ("refuse",)])
def test_a_request_that_is_refused_is_an_error(bench: Bench, texts: tuple[str, ...]) -> None:
    """Whether or not another was accepted before it."""
    requests = requests_of(*texts)
    errors = poisons(requests, collect(bench.supervised(), requests))
    assert errors == {"refuse": "the engine refuses the request: roles must alternate"}
    assert bench.n_starts == 1
    assert "ValueError: roles must alternate" in bench.log.read_text()


def test_an_engine_that_refuses_everything_stops_the_run(bench: Bench) -> None:
    with pytest.raises(ConfigError, match="roles must alternate"):
        collect(bench.supervised(refuses=True), requests_of("one", "two"))


def test_slow_is_not_hanging(bench: Bench) -> None:
    """Eight seconds for a request, in steps: a step in three seconds is enough."""
    requests = requests_of("slow")
    assert poisons(requests, collect(bench.process(stall_s=3), requests)) == {}


def test_submitting_does_not_wait_for_a_child_that_does_not_read(bench: Bench) -> None:
    engine = bench.process(stall_s=3)
    os.kill(engine._child.pid, signal.SIGSTOP)
    large = "x" * 10_000
    sender = Thread(target=lambda: [engine.submit(ask(i, large)) for i in range(200)], daemon=True)
    sender.start()
    sender.join(30)
    assert not sender.is_alive()
    with pytest.raises(EngineError, match="made no step") as caught:
        finish(engine, 200)
    assert caught.value.cause == "hang"


def test_the_parent_decides_when_the_child_ends(bench: Bench) -> None:
    """A scheduler signals each process of a job: the batch under way is not lost by it."""
    engine = bench.process()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(engine._child.pid, number)
    requests = requests_of("one", "two")
    assert poisons(requests, collect(engine, requests)) == {}


def test_what_the_child_has_started_ends_with_it(bench: Bench, tmp_path: Path) -> None:
    engine = bench.process(helper=str(tmp_path / "helper"))
    helper = int((tmp_path / "helper").read_text())
    assert running(helper)
    engine.close()
    assert engine._child.returncode == 0, "it left by itself"
    wait_for(lambda: not running(helper))


def test_a_stopped_child_dies_with_its_parent(bench: Bench) -> None:
    code = (
        "import os, signal, sys, time; from pathlib import Path; from test_supervise import Bench;"
        "engine = Bench(Path(sys.argv[1])).process(); os.kill(engine._child.pid, signal.SIGSTOP);"
        "print(engine._child.pid, flush=True); time.sleep(600)"
    )
    env = os.environ | {"PYTHONPATH": f"{HERE.parent}:{HERE}"}
    command = [sys.executable, "-c", code, str(bench.log.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert running(child)
        parent.kill()
    wait_for(lambda: not running(child))


def running(pid: int) -> bool:
    """Alive, and not a zombie that nobody has asked after."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_for(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("error", [EngineError("gone"), DiskFull("full")])
def test_what_came_before_an_engine_died_is_handed_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    engine = bench.process()
    came = Completion("r0", "Hello.", "stop", 3)
    monkeypatch.setattr(engine, "_has_news", lambda _: True)
    monkeypatch.setattr(engine, "_connection", Mock(poll=lambda _: True))
    monkeypatch.setattr(engine, "_receive", Mock(side_effect=[[came], error, error]))
    assert engine.poll() == [came]
    with pytest.raises(type(error)):
        engine.poll()
    monkeypatch.undo()


def test_for_want_of_room_it_is_not_started_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "is_full", lambda folder: folder == bench.log.parent)
    with pytest.raises(DiskFull, match="free some space and run the same command again"):
        collect(bench.supervised(), requests_of("fine", "raise"))
    assert bench.n_starts == 1
