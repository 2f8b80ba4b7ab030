"""The driver: every chain to its end, nothing asked twice, nothing lost."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from cai.driver import Chain, Step, generation, run_chains
from cai.engines.base import Completion, Request
from cai.engines.fake import FakeEngine, answer
from cai.records import Message, Response, Sampling, digest
from cai.run import RecordFile

SAMPLING = Sampling(max_tokens=8)


def step(name: str, role: str = "base") -> Step:
    request = Request(digest(name), (Message(role="user", content=name),), SAMPLING, 0, (), role)

    def read(completion: Completion) -> Response:
        return Response(
            id=request.id,
            prompt_id=name,
            sample=0,
            text=completion.text,
            generation=generation(request, completion, "m", None),
        )

    return Step(request, read)


def chain(name: str, n: int = 3, seen: list[str] | None = None) -> Chain:
    for number in range(n):
        record: Response = yield step(f"{name}/{number}")
        assert record.prompt_id == f"{name}/{number}"
        if seen is not None:
            seen.append(record.text)


def counting(function: Callable[[Request], Completion] = answer) -> FakeEngine:
    return FakeEngine(function=function, capacity=4)


def test_every_chain_comes_to_its_end(tmp_path: Path) -> None:
    engine = counting()
    with RecordFile(tmp_path / "r.jsonl") as records:
        tally = run_chains((chain(f"c{i}") for i in range(20)), {"base": engine}, records)
    assert (tally.n_chains, tally.n_finished, tally.n_generated) == (20, 20, 60)
    assert engine.n_asked == 60
    with RecordFile(tmp_path / "r.jsonl") as records:
        assert len({record.id for record in records}) == 60


def test_what_is_on_disk_is_not_asked_again(tmp_path: Path) -> None:
    with RecordFile(tmp_path / "r.jsonl") as records:
        run_chains([chain(f"c{i}", n=2) for i in range(10)], {"base": counting()}, records)
    engine, seen = counting(), list[str]()
    with RecordFile(tmp_path / "r.jsonl") as records:
        tally = run_chains([chain(f"c{i}", 3, seen) for i in range(10)], {"base": engine}, records)
    assert engine.n_asked == 10
    assert (tally.n_replayed, tally.n_generated) == (20, 10)
    fresh = list[str]()
    with RecordFile(tmp_path / "other.jsonl") as records:
        run_chains([chain(f"c{i}", 3, fresh) for i in range(10)], {"base": counting()}, records)
    assert sorted(seen) == sorted(fresh)


def test_a_chain_is_resumed_without_waiting_for_the_others(tmp_path: Path) -> None:
    """One slow first step holds up nobody: the others reach their last step before it ends."""
    order: list[str] = []

    class OneSlow(FakeEngine):
        def poll(self) -> list[Completion]:
            slow = [r for r in self._waiting if r.messages[0].content == "slow/0"]
            if slow and len(self._waiting) > 1:
                self._waiting.remove(slow[0])
                self._waiting.append(slow[0])
            done = [self._answer(self._waiting.popleft())]
            order.extend(completion.id for completion in done)
            return done

    with RecordFile(tmp_path / "r.jsonl") as records:
        chains = [chain("slow"), *(chain(f"c{i}") for i in range(3))]
        run_chains(chains, {"base": OneSlow(capacity=4)}, records)
    assert order.index(digest("slow/0")) > order.index(digest("c2/2"))


def test_no_more_chains_are_begun_than_keep_the_engine_full(tmp_path: Path) -> None:
    begun: list[int] = []

    def tracked(i: int) -> Chain:
        begun.append(i)
        yield step(f"x{i}")

    class Watching(FakeEngine):
        most = 0

        def poll(self) -> list[Completion]:
            self.most = max(self.most, len(self._waiting))
            return super().poll()

    engine = Watching(capacity=8)
    with RecordFile(tmp_path / "r.jsonl") as records:
        run_chains((tracked(i) for i in range(100)), {"base": engine}, records)
    assert engine.most == 16
    assert len(begun) == 100


def test_roles_find_their_engines(tmp_path: Path) -> None:
    def mixed() -> Chain:
        yield step("a", "base")
        yield step("b", "critic")

    base, critic = counting(), counting()
    with RecordFile(tmp_path / "r.jsonl") as records:
        run_chains([mixed()], {"base": base, "critic": critic}, records)
    assert (base.n_asked, critic.n_asked) == (1, 1)


def test_failures_are_counted_and_are_records(tmp_path: Path) -> None:
    def failing(request: Request) -> Completion:
        return Completion(request.id, "", "error", error="too long")

    with RecordFile(tmp_path / "r.jsonl") as records:
        tally = run_chains([chain("a", 1), chain("b", 1)], {"base": counting(failing)}, records)
        stored = list(records)
    assert tally.n_errors == 2
    assert tally.finishes == {"error": 2}
    assert {record.generation.error for record in stored} == {"too long"}


def test_two_chains_with_one_request_are_refused(tmp_path: Path) -> None:
    with (
        RecordFile(tmp_path / "r.jsonl") as records,
        pytest.raises(ValueError, match="deduplicate"),
    ):
        run_chains([chain("a", 1), chain("a", 1)], {"base": counting()}, records)


def test_memory_does_not_grow_with_the_number_of_chains(tmp_path: Path) -> None:
    def peak(n: int, name: str) -> int:
        tracemalloc.start()
        with RecordFile(tmp_path / name) as records:
            run_chains((chain(f"{name}{i}", 2) for i in range(n)), {"base": counting()}, records)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(20, "warm")
    assert peak(2000, "many") < peak(200, "few") + 200_000
