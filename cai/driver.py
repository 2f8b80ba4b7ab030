"""The one loop between chains and engines.

A chain is a generator: it yields a `Step`, and is sent the record that the step's completion
became. A finished completion resumes its own chain at once: there is no barrier between
respond, critique and revise. A step whose record is on disk already is answered from there: resume
is replay.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from cai import stopping
from cai.engines.base import Completion, Engine, Request
from cai.records import Generation
from cai.run import RecordFile, StoredRecord

R = TypeVar("R", bound=StoredRecord)


class Step(NamedTuple):
    """A request, and what its completion becomes."""

    request: Request
    read: Callable[[Completion], StoredRecord]
    principle_id: str | None = None
    """Where the request's id stands for the principle's text alone: the name that it has now."""


Chain = Generator[Step, Any, None]


@dataclass
class Tally:
    """What a stage's generation did; tokens are those of this process, not of replayed records."""

    n_chains: int = 0
    n_finished: int = 0
    n_replayed: int = 0
    """Steps answered from disk."""
    n_generated: int = 0
    """Steps answered by an engine."""
    n_errors: int = 0
    """Steps whose generation failed, replayed ones included."""
    n_tokens: int = 0
    n_prompt_tokens: int = 0
    n_cached_tokens: int = 0
    """Prompt tokens found in the engine's prefix cache."""
    finishes: dict[str, int] = field(default_factory=dict[str, int])


def run_chains(
    chains: Iterable[Chain],
    engines: Mapping[str, Engine],
    records: RecordFile,
    on_progress: Callable[[Tally], None] = lambda _: None,
) -> Tally:
    """Drive `chains` to their ends; each new record is on disk before its chain goes on.

    `engines` maps model roles to engines (the same one may serve several). Only so many chains are
    begun as keep the engines full: of many more the cached prefixes would be evicted before their
    next step. Memory does not grow with the number of chains. Asked to stop, what the engines work
    on is still written, and then the program stopped.
    """
    driver = Driver(engines, records, on_progress)
    with stopping.patient(driver.n_in_flight):
        return driver.run(chains)


class Driver:
    """The state of one `run_chains`."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        records: RecordFile,
        on_progress: Callable[[Tally], None],
    ) -> None:
        self._engines = engines
        self._distinct = {id(engine): engine for engine in engines.values()}
        self._records = records
        self._on_progress = on_progress
        self._waiting: dict[str, tuple[Chain, Step]] = {}
        self._in_flight: dict[int, int] = dict.fromkeys(self._distinct, 0)
        self.tally = Tally()
        # As many again as the engines hold: a slot that falls free is filled in that step, and the
        # last chains begin early enough not to run alone at the end (bench/turnaround.py).
        self._window = 2 * sum(engine.capacity for engine in self._distinct.values())

    def run(self, chains: Iterable[Chain]) -> Tally:
        """Until all have ended or, asked to stop, until nothing is in flight."""
        pending = iter(chains)
        exhausted = False
        while self._waiting or not (exhausted or stopping.asked()):
            while not (exhausted or stopping.asked()) and len(self._waiting) < self._window:
                chain = next(pending, None)
                if chain is None:
                    exhausted = True
                else:
                    self.tally.n_chains += 1
                    self._advance(chain, None)
            self._collect()
            self._on_progress(self.tally)
        return self.tally

    def n_in_flight(self) -> int:
        """Requests that engines have and whose records are not written."""
        return sum(self._in_flight.values())

    def _advance(self, chain: Chain, record: StoredRecord | None) -> None:
        """Send `record` into the chain; answer its steps from disk as long as that has them."""
        while True:
            try:
                step = chain.send(record)
            except StopIteration:
                self.tally.n_finished += 1
                return
            record = self._records.get(step.request.id, step.principle_id)
            if record is None:
                self._ask(chain, step)
                return
            self.tally.n_replayed += 1
            self._count_end(record)

    def _ask(self, chain: Chain, step: Step) -> None:
        request = step.request
        if request.id in self._waiting:
            raise ValueError(
                f"two chains make the same request {request.id}: deduplicate the input"
            )
        self._waiting[request.id] = (chain, step)
        engine = self._engines[request.role]
        # counted afterwards: an engine may load its model first, and nothing is lost by then
        engine.submit(request)
        self._in_flight[id(engine)] += 1

    def _collect(self) -> None:
        """Take what the engines have completed, write it, then let its chains go on."""
        for key, engine in self._distinct.items():
            if not self._in_flight[key]:
                continue
            completions = engine.poll()
            done = [(*self._waiting.pop(c.id), c) for c in completions]
            finished = [(chain, step.read(completion)) for chain, step, completion in done]
            self._records.append([record for _, record in finished])
            self._in_flight[key] -= len(completions)
            for (chain, record), completion in zip(finished, completions, strict=True):
                self._count(completion)
                self._count_end(record)
                if not stopping.asked():
                    self._advance(chain, record)

    def _count(self, completion: Completion) -> None:
        tally = self.tally
        tally.n_generated += 1
        tally.n_tokens += completion.n_tokens
        tally.n_prompt_tokens += completion.n_prompt_tokens
        tally.n_cached_tokens += completion.n_cached_tokens

    def _count_end(self, record: StoredRecord) -> None:
        finish = record.generation.finish
        self.tally.finishes[finish] = self.tally.finishes.get(finish, 0) + 1
        self.tally.n_errors += finish == "error"


def generation(
    request: Request, completion: Completion, model: str, template: str | None
) -> Generation:
    """The provenance of a record made from `completion`."""
    return Generation(
        model=model,
        template=template,
        sampling=request.sampling,
        seed=request.seed,
        finish=completion.finish,
        error=completion.error,
        n_prompt_tokens=completion.n_prompt_tokens,
        n_tokens=completion.n_tokens,
        n_cached_tokens=completion.n_cached_tokens,
    )
