"""The same seed makes the same run: in shards, from shuffled input, whenever what is done, resumed."""

import itertools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from canned import PROMPT, response
from fake_run import start

from cai.driver import Tally, run_chains
from cai.engines.base import Completion
from cai.engines.fake import FakeEngine
from cai.run import RecordFile, read_rows
from cai.stages.sft import helpful_rows

LEARNT = (
    "02-sft/rows.jsonl",
    "04-label/preferences.jsonl",
    "05-reward/rows.jsonl",
    "06-rl/rows.jsonl",
)
"""What is trained on: another order of it is another model."""
SETTINGS = ("label.pairing=all", "sample.k=3", "label.revision_pairs=judged", "label.ensemble=2")
KINDS = ("red_team", "helpful", "look_alike")


def learnt(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in LEARNT}


def records(run: Path) -> dict[str, list[str]]:
    """The lines of all record files: their order is that in which the engine was done."""
    files = [path for path in run.rglob("*.jsonl") if path.parent.name != "inputs"]
    return {
        str(path.relative_to(run)): sorted(path.read_text().replace(str(run), "RUN").splitlines())
        for path in files
    }


def begin(out: Path, *settings: str, **options: Any) -> Path:
    return start(out, *SETTINGS, *settings, **options)


def out_of_order(monkeypatch: pytest.MonkeyPatch, seed: int, fail_after: int | None = None) -> None:
    """Engines that answer any of the requests that wait; after so many polls they are killed."""
    chance, polls = random.Random(seed), itertools.count()

    def poll(self: FakeEngine) -> list[Completion]:
        if next(polls) == fail_after:
            raise Killed
        chance.shuffle(self._waiting)
        n = min(chance.randint(0, self.capacity), len(self._waiting))
        return [self._answer(self._waiting.popleft()) for _ in range(n)]

    monkeypatch.setattr(FakeEngine, "poll", poll)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return begin(tmp_path_factory.mktemp("runs") / "whole")


def test_pairs_of_both_kinds_are_learnt_from(whole: Path) -> None:
    origins = {row["origin"] for row in read_rows(whole / "04-label" / "preferences.jsonl")}
    assert origins == {"sampled", "revision"}
    assert all((whole / name).read_bytes().count(b"\n") > 9 for name in LEARNT)


def test_whenever_what_is_done(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_of_order(monkeypatch, 1)
    run = begin(tmp_path / "run", "engine.capacity=11")
    assert learnt(run) == learnt(whole)
    assert records(run) == records(whole)


@pytest.mark.parametrize("after", [5, 90, 150])
def test_resumed(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        out_of_order(patch, after, fail_after=after)
        begin(tmp_path / "run")
    out_of_order(monkeypatch, after + 1)
    run = begin(tmp_path / "run")
    assert learnt(run) == learnt(whole)
    assert records(run) == records(whole)


def sharded(n: int, folder: Path) -> Callable[..., Tally]:
    """`run_chains` on `n` shards, each with a record file of its own, put together at the end."""
    numbers = itertools.count()

    def run(chains: Sequence[Any], engines: Any, stored: RecordFile, _: Any = None) -> Tally:
        total = Tally()
        for i in reversed(range(n)):
            with RecordFile(folder / f"{next(numbers)}.jsonl") as shard:
                done = run_chains(chains[i::n], engines, shard)
                stored.append(list(shard))
            for name in ("n_chains", "n_finished", "n_generated", "n_errors"):
                setattr(total, name, getattr(total, name) + getattr(done, name))
        return total

    return run


@pytest.mark.parametrize("n", [1, 2, 7])
def test_in_shards(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    out_of_order(monkeypatch, n)
    monkeypatch.setattr("cai.stages.context.run_chains", sharded(n, tmp_path / "shards"))
    run = begin(tmp_path / "run")
    assert len(list((tmp_path / "shards").iterdir())) % n == 0
    assert learnt(run) == learnt(whole)
    assert records(run) == records(whole)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_from_shuffled_files(whole: Path, tmp_path: Path, n: int) -> None:
    """The prompts of a run, some of them twice, in any order and in so many files."""
    rows = list(read_rows(whole / "inputs" / "prompts.jsonl"))
    chance, settings = random.Random(n), []
    for kind in KINDS:
        mine = [{k: r[k] for k in ("messages", "area")} for r in rows if r["kind"] == kind]
        mine += chance.sample(mine, 9)
        chance.shuffle(mine)
        files = [tmp_path / f"{kind}-{i}.jsonl" for i in range(n)]
        for i, file in enumerate(files):
            file.write_text("".join(json.dumps(row) + "\n" for row in mine[i::n]))
        settings.append(f"prompts.{kind}=[{', '.join(map(str, files))}]")
    run = begin(tmp_path / "run", *settings)
    assert learnt(run) == learnt(whole)
    assert records(run) == records(whole)
    assert sorted(prompts(run)) == sorted(prompts(whole))


def prompts(run: Path) -> Iterator[tuple[str, ...]]:
    for row in read_rows(run / "inputs" / "prompts.jsonl"):
        yield tuple(row[name] for name in ("id", "kind", "area", "group", "split"))


def test_another_seed_is_another_run(whole: Path, tmp_path: Path) -> None:
    run = begin(tmp_path / "run", "seed=1")
    other = learnt(run)
    assert all(other[name] != content for name, content in learnt(whole).items())


def test_equal_draws_of_helpful_rows_are_ordered_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cai.stages.sft.derive_seed", lambda *_: 0)
    prompts = {"p": PROMPT.model_copy(update={"kind": "helpful"})}
    answers = [response(name, "x") for name in "cab"]
    assert [row["id"] for row in helpful_rows(prompts, answers, 0)] == ["a", "b", "c"]
