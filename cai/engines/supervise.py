"""An engine that outlives its process: what was under way when it died is asked again.

What kills an engine by itself is found by asking fewer at once, half as many after each death, and
becomes an error of its own; the rest completes.
"""

import sys
from collections import Counter, deque
from collections.abc import Callable

from cai.deaths import OUTSIDE
from cai.engines.base import Completion, Engine, Request
from cai.errors import Cause, EngineError
from cai.records import Message, Sampling

HELLO = Request(
    id="hello",
    messages=(Message(role="user", content="Hello"),),
    sampling=Sampling(temperature=0.0, max_tokens=1),
    seed=0,
    raw=True,
)
"""What an engine that was started again must answer first: one that cannot is broken, whatever it
was asked before."""
ALONE = 2
"""Deaths with nothing else under way that make a poison of a request: one may be an accident."""
ADVICE: dict[Cause, str] = {
    "memory": "; lower engine.max_context or leave its prompt out",
    "killed": "; find out who does that or leave its prompt out",
    "hang": "; raise engine.stall_s or leave its prompt out",
    "crash": "; leave its prompt out or set another engine.kind",
}


class Supervised:
    """Starts its engine again whenever that dies. Raises EngineError where it cannot help.

    It cannot if the engine did not start, if once started again it fails at `HELLO` too, and after
    more than `restarts` deaths between which fewer than `capacity` requests were completed.
    """

    def __init__(
        self, start: Callable[[], Engine], restarts: int, say: Callable[[str], None]
    ) -> None:
        self._start, self._restarts, self._say = start, restarts, say
        self._engine = start()
        self.model, self.capacity = self._engine.model, self._engine.capacity
        self._waiting: deque[Request] = deque()
        self._asked: dict[str, Request] = {}
        self._suspects: set[str] = set()
        """What was under way at the last death and has not been completed since."""
        self._limit = self._most = sys.maxsize
        """Requests asked at once: while there are suspects, and otherwise."""
        self._memory = False
        """Whether memory ran out with as many under way as may be, since the last acquittal."""
        self._was_killed = False
        """Whether the last death was a SIGKILL."""
        self._alone: Counter[str] = Counter()
        self._n_deaths = self._n_since = 0

    def submit(self, request: Request) -> None:
        self._waiting.append(request)
        self._ask()

    def _ask(self) -> None:
        while self._waiting and len(self._asked) < self._limit:
            request = self._waiting.popleft()
            self._asked[request.id] = request
            self._engine.submit(request)

    def poll(self) -> list[Completion]:
        self._ask()
        if not self._asked:
            return []
        try:
            completions = self._engine.poll()
        except EngineError as error:
            return self._bury(error)
        for completion in completions:
            del self._asked[completion.id]
            self._suspects.discard(completion.id)
        self._n_since += len(completions)
        if self._n_since >= self.capacity:
            self._n_deaths = 0
        if not self._suspects:
            self._acquit()
        return completions

    def _bury(self, error: EngineError) -> list[Completion]:
        """Start again, and queue what was under way before anything else; a poison completes."""
        suspects = list(self._asked.values())
        full = len(suspects) >= min(self._limit, self.capacity)
        self._asked.clear()
        self._engine.close()
        self._n_deaths, self._n_since = self._n_deaths + 1, 0
        if self._n_deaths > self._restarts:
            tried = f"{error}\nIt was started again {self._restarts} times (engine.restarts)."
            raise EngineError(tried, error.cause, error.how) from error
        cause = self._cause(error)
        where = f" {OUTSIDE}" if cause == "killed" else ""
        self._say(f"the engine {error.how}{where}, {len(suspects)} under way: it is started again")
        self._restart()
        if len(suspects) == 1 and self._is_poison(suspects[0]):
            self._suspects, self._memory, self._limit = set(), False, self._most
            said = f"the engine {error.how} each time that it was asked this alone"
            return [Completion(suspects[0].id, "", "error", error=said + ADVICE[cause])]
        self._waiting.extendleft(reversed(suspects))
        self._suspects = {request.id for request in suspects}
        self._limit = max(1, min(len(suspects), self.capacity) // 2)
        self._memory |= full and cause == "memory"
        return []

    def _cause(self, error: EngineError) -> Cause:
        """What the engine died of. A second SIGKILL in a row is taken for want of memory.

        For a watcher of memory kills as a person does, and goes on doing so.
        """
        again, self._was_killed = self._was_killed, error.cause == "killed"
        return "memory" if self._was_killed and again else error.cause

    def _is_poison(self, request: Request) -> bool:
        self._alone[request.id] += 1
        return self._alone[request.id] == ALONE

    def _acquit(self) -> None:
        """No suspect killed the engine by itself: if memory ran out, there were too many."""
        if self._memory:
            self._memory, self._most = False, self._limit
            self._say(
                f"memory ran out: no more than {self._most} requests at once from here on; lower "
                f"engine.capacity to {self._most}"
            )
        self._limit = self._most

    def _restart(self) -> None:
        """A start that fails may be an accident too: the second such is the end."""
        try:
            self._engine = self._greeted()
        except EngineError:
            self._engine = self._greeted()

    def _greeted(self) -> Engine:
        """A new engine that has answered `HELLO`."""
        engine = self._start()
        try:
            engine.submit(HELLO)
            while not engine.poll():
                pass
        except BaseException:
            engine.close()
            raise
        return engine

    def close(self) -> None:
        self._engine.close()
