"""Stopping: once is asked, twice is now, and what ends children is never broken off."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fake_run import content
from slow_run import TRAINS, SlowRun
from test_driver import chain, step

from cai import stopping
from cai.driver import Chain, run_chains
from cai.engines.base import Completion, Request
from cai.engines.fake import FakeEngine
from cai.engines.process import EngineProcess, EngineSettings
from cai.records import Response
from cai.run import RecordFile, read_json
from cai.train import launch
from cai.train.jobs import SftJob

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
JOB = SftJob(model="m", lora=None, max_length=8, trainer={}, seed=0)
TWICE = (signal.SIGINT, signal.SIGINT)


@pytest.fixture
def alarms(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The handlers in this process; the alarms that were set, none of which rings."""
    found: list[float] = []
    monkeypatch.setattr(stopping, "set_alarm", found.append)
    before = {number: signal.getsignal(number) for number in NUMBERS}
    stopping.install()
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)
    # not by monkeypatch, which would bring back the stopped state afterwards
    stopping._state = stopping.State()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.usefixtures("alarms")
def test_where_nothing_is_under_way_a_signal_stops_at_once(number: int) -> None:
    with pytest.raises((KeyboardInterrupt, SystemExit)) as caught, stopping.patient(lambda: 0):
        signal.raise_signal(number)
        raise AssertionError("it went on")
    kind = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    assert caught.type is kind
    assert stopping.signalled() + 128 == CODES[signal.Signals(number)]
    assert kind is KeyboardInterrupt or caught.value.code == CODES[signal.Signals(number)]


def test_what_is_under_way_is_finished_first(
    alarms: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyboardInterrupt), stopping.patient(lambda: 3):
        assert not stopping.asked()
        signal.raise_signal(signal.SIGINT)
        assert stopping.asked()
        assert 0 < stopping.left_s() < 10
    assert alarms[0] == stopping.PATIENCE_S
    said = "stopping: 3 requests under way, at most 8 s (Ctrl-C again: now)\n"
    assert capfd.readouterr().err == said


def test_the_second_signal_stops_now(alarms: list[float]) -> None:
    with pytest.raises(KeyboardInterrupt), stopping.patient(lambda: 3):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("it went on")
    assert stopping.left_s() == 0
    assert alarms[-1] == stopping.EXIT_S


def test_when_the_patience_is_over_it_stops(alarms: list[float]) -> None:
    with pytest.raises(SystemExit, match="143"), stopping.patient(lambda: 3):
        signal.raise_signal(signal.SIGTERM)
        stopping.on_alarm(signal.SIGALRM, None)
        raise AssertionError("it went on")
    assert alarms[-1] <= stopping.STOP_S + stopping.EXIT_S


@pytest.mark.usefixtures("alarms")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_what_ends_children_is_not_broken_off(n: int) -> None:
    ended = False
    with pytest.raises(KeyboardInterrupt), stopping.held():
        for _ in range(n):
            signal.raise_signal(signal.SIGINT)
        assert (stopping.left_s() == 0) == (n > 1), "the second hurries"
        ended = True
    assert ended


class Gone(BaseException):
    """The process has ended."""


def test_an_alarm_while_children_are_ended_leaves_them_what_is_left(
    alarms: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(code: int) -> None:
        raise Gone(str(code))

    monkeypatch.setattr(os, "_exit", gone)
    went_on = False
    with pytest.raises(Gone, match="130"), stopping.patient(lambda: 1):
        signal.raise_signal(signal.SIGINT)
        with stopping.held():
            stopping.on_alarm(signal.SIGALRM, None)
            assert stopping.EXIT_S < alarms[-1] <= stopping.STOP_S + stopping.EXIT_S
            went_on = True
            signal.raise_signal(signal.SIGINT)  # now nothing is left
            stopping.on_alarm(signal.SIGALRM, None)
    assert went_on


@pytest.mark.usefixtures("alarms")
def test_nothing_on_the_way_out_is_broken_off() -> None:
    done: list[str] = []
    try:
        with suppress(KeyboardInterrupt):
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                signal.raise_signal(signal.SIGINT)
                done.append("first")
                with stopping.held():
                    signal.raise_signal(signal.SIGTERM)
                    done.append("second")
                done.append("third")
    except SystemExit:
        done.append("broken off")
    assert done == ["first", "second", "third"]


@pytest.mark.parametrize("before", ["", "with stopping.held(): "])
def test_who_swallows_it_ends_nevertheless(before: str) -> None:
    code = (
        "import signal, time\nfrom cai import stopping\nstopping.install()\n"
        "stopping.STOP_S, stopping.EXIT_S = 0.1, 0.1\n"
        f"try:\n    {before}(signal.raise_signal(signal.SIGTERM), time.sleep(60))\n"
        "except SystemExit: pass\ntime.sleep(60)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=50, check=False).returncode == 143


def test_an_ignored_signal_stays_ignored() -> None:
    """`nohup cai run &` outlives its terminal."""
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\nfrom cai import stopping\n"
        "stopping.install(); signal.raise_signal(signal.SIGHUP); print(stopping.asked())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_a_child_is_waited_for_as_long_as_nobody_hurries(alarms: list[float]) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        with pytest.raises(KeyboardInterrupt), stopping.held():
            for number in TWICE:
                signal.raise_signal(number)
            started = time.monotonic()
            stopping.wait(child, 50)
            assert time.monotonic() - started < 20
        assert child.poll() is None
        child.kill()
    assert alarms


@pytest.mark.usefixtures("alarms")
def test_the_driver_begins_nothing_new_and_writes_what_is_in_flight(tmp_path: Path) -> None:
    class Stopped(FakeEngine):
        """Is interrupted when it has answered twelve."""

        def poll(self) -> list[Completion]:
            done = super().poll()
            if self.n_asked == 12:
                signal.raise_signal(signal.SIGINT)
            return done

    engine = Stopped(capacity=4)
    with RecordFile(tmp_path / "r.jsonl") as records:
        with pytest.raises(KeyboardInterrupt):
            run_chains((chain(f"c{i}") for i in range(20)), {"base": engine}, records)
        # 12, and the four besides the last four that had been handed in
        assert len(list(records)) == engine.n_asked == 16
    engine = FakeEngine(capacity=4)
    with RecordFile(tmp_path / "r.jsonl") as records:
        stopping._state = stopping.State()
        run_chains((chain(f"c{i}") for i in range(20)), {"base": engine}, records)
        assert len(list(records)) == 60
    assert engine.n_asked == 44


@pytest.mark.usefixtures("alarms")
def test_an_answer_that_has_come_is_written(tmp_path: Path) -> None:
    def interrupted() -> Chain:
        asked = step("a")

        def read(completion: Completion) -> Response:
            signal.raise_signal(signal.SIGINT)
            return asked.read(completion)

        yield asked._replace(read=read)

    with RecordFile(tmp_path / "r.jsonl") as records:
        with pytest.raises(KeyboardInterrupt):
            run_chains([interrupted()], {"base": FakeEngine()}, records)
        assert len(list(records)) == 1


@pytest.mark.usefixtures("alarms")
def test_nobody_waits_for_a_model_that_is_being_loaded(tmp_path: Path) -> None:
    class Loading(FakeEngine):
        def submit(self, request: Request) -> None:
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("it was loaded")

    with RecordFile(tmp_path / "r.jsonl") as records, pytest.raises(KeyboardInterrupt):
        run_chains([chain("a")], {"base": Loading()}, records)


def start_trainer(folder: Path) -> None:
    launch.run_job(JOB, folder, [], lambda _: None)


def start_engine(folder: Path) -> None:
    settings = {"kind": "transformers", "model": "m", "max_context": 8, "capacity": 1}
    EngineProcess(EngineSettings.model_validate(settings), folder / "log")


@pytest.mark.usefixtures("alarms")
@pytest.mark.parametrize("begin", [start_trainer, start_engine])
def test_a_child_that_has_only_just_begun_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: Callable[[Path], None]
) -> None:
    children: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, _: list[str], **how: Any) -> None:
            super().__init__(["sleep", "600"], **how)
            children.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path)
    assert [child.poll() is None for child in children] == [False]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = SlowRun(tmp_path_factory.mktemp("whole") / "run", "--until", "label")
    assert run.end()[0] == 0
    return run.folder


def n_records(run: SlowRun, stage: str) -> int:
    path = run.folder / stage / "records.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0


@pytest.mark.parametrize(
    ("stage", "numbers", "how"),
    [
        ("01-revise", (signal.SIGINT,), {"ANSWER_S": 0.5}),
        ("04-label", (signal.SIGTERM,), {"ANSWER_S": 0.5}),
        ("04-label", (signal.SIGHUP,), {"ANSWER_S": 0.5}),
        ("01-revise", (signal.SIGINT,), {"ANSWER_S": 2.0, "PATIENCE_S": 0.1}),
        ("01-revise", TWICE, {"ANSWER_S": 2.0}),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_end(
    tmp_path: Path, unbroken: Path, stage: str, numbers: tuple[int, ...], how: dict[str, float]
) -> None:
    run = SlowRun(tmp_path / "run", "--until", "label", **how)
    run.wait_for(lambda: n_records(run, stage) > 0)
    code, said, seconds = run.send(*numbers)
    assert code == CODES[signal.Signals(numbers[0])], said
    assert seconds < 15, "10 s are promised, on a machine that does nothing else"
    assert "\nstopping: " in said
    assert "to go on, type: cai run --constitution harmless.yaml --recipe" in said
    assert f"to read what there is, type: cai show {run.folder} --html" in said.replace("\n", "")
    assert "Traceback" not in said
    assert read_json(run.folder / "manifest.json")["status"] == "stopped"
    n_lost = len(run.asked()) - sum(n_records(run, path.name) for path in run.folder.glob("0*"))
    # all that was in flight is written, but where nobody waited for it
    assert (n_lost == 0) == (how == {"ANSWER_S": 0.5})
    assert not run.left()
    again = SlowRun(run.folder, "--until", "label")
    assert again.end()[0] == 0
    assert content(run.folder) == content(unbroken)


@pytest.mark.parametrize(("numbers", "how"), [((signal.SIGHUP,), {}), (TWICE, {"STUBBORN": 1.0})])
def test_a_stopped_trainer_leaves_nothing_behind(
    tmp_path: Path, numbers: tuple[int, ...], how: dict[str, float]
) -> None:
    """A stubborn one ignores SIGTERM: the second signal kills it at once."""
    run = SlowRun(tmp_path / "run", "--until", "sft", TRAIN_S=600.0, **how)
    run.wait_for((run.folder / "02-sft" / TRAINS).is_file)
    assert len(run.left()) == 3, "the run, the trainer and what that has started"
    code, said, seconds = run.send(*numbers)
    assert code == CODES[signal.Signals(numbers[0])], said
    assert seconds < 50, "nobody waits for a stubborn one when told twice"
    assert not run.left()
    again = SlowRun(run.folder, "--until", "sft", TRAIN_S=0)
    assert again.end()[0] == 0


def test_a_terminal_that_is_closed_stops_in_good_order(tmp_path: Path) -> None:
    """Writing to it is an error from then on."""
    near, far = os.openpty()
    run = SlowRun(tmp_path / "run", "--until", "revise", ANSWER_S=0.5, terminal=far)
    os.close(far)
    os.set_blocking(near, False)

    def half_way() -> bool:
        with suppress(BlockingIOError):
            os.read(near, 65536)
        return n_records(run, "01-revise") > 0

    run.wait_for(half_way)
    os.close(near)
    assert run.end()[0] == 129
    assert read_json(run.folder / "manifest.json")["status"] == "stopped"
    assert n_records(run, "01-revise") == len(run.asked())
