"""The child's side of `EngineProcess`: `python -m cai.engines.worker FD`."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from cai.engines.base import Completion, Request
from cai.engines.process import EngineSettings, Partial, open_engine_in_process
from cai.engines.supervise import HELLO
from cai.errors import CaiError, ConfigError
from cai.orphans import die_with_parent
from cai.stopping import SIGNALS

BEAT_S = 5.0
"""Seconds between two signs of life."""

Inbox = SimpleQueue[tuple[Request, bool]]
"""Requests, each with whether the parent listens to its text as it grows."""


def read_requests(connection: Connection, inbox: Inbox, done: Event) -> None:
    """Take in whatever the parent sends, at any time: it must never wait for a busy engine.

    If both sides were writing and none reading, both would wait for ever. The parent's end of the
    connection closes when it has had enough or is gone: then this process ends, loading or not.
    """
    while True:
        try:
            inbox.put(connection.recv())
        except (EOFError, OSError):
            if not done.is_set():
                os._exit(0)
            return


def serve(connection: Connection, inbox: Inbox, engine: Any) -> None:
    """Work. Between two steps every request that has arrived is taken in, so that a chain's next
    request joins the running batch at once."""
    in_flight, accepted = 0, False
    while True:
        while not in_flight or not inbox.empty():
            request, listened = inbox.get()
            on_text = teller(connection, request.id) if listened else None
            try:
                engine.submit(replace(request, on_text=on_text))
            except (CaiError, ValueError) as error:
                traceback.print_exc()
                if not accepted:
                    say_hello(engine, request, error)
                    accepted = True
                refused = f"the engine refuses the request: {error}"
                connection.send([Completion(request.id, "", "error", error=refused)])
                continue
            accepted = True
            in_flight += 1
        if completions := engine.poll():
            in_flight -= len(completions)
            connection.send(completions)


def say_hello(engine: Any, request: Request, error: Exception) -> None:
    """Find out of an idle engine that refuses `request` whether it refuses every one: a wrong
    template, say. Raises ConfigError if it does."""
    try:
        engine.submit(replace(HELLO, raw=request.raw))
    except (CaiError, ValueError):
        raise ConfigError(str(error)) from error
    while not engine.poll():
        pass


def beats(connection: Connection, every_s: float) -> Callable[[], None]:
    """A function to be called after each step: says so to the parent, at most every `every_s`."""
    last = time.monotonic()

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last >= every_s:
            last = time.monotonic()
            connection.send([])

    return beat


def teller(connection: Connection, request_id: str) -> Callable[[str], None]:
    """Sends a request's text so far to the parent."""
    return lambda text: connection.send(Partial(request_id, text))


def main(load: Callable[[EngineSettings], Any] = open_engine_in_process) -> None:
    die_with_parent()
    for number in SIGNALS:
        # A cluster's scheduler signals every process of a job: the parent decides what ends.
        signal.signal(number, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    settings: EngineSettings = connection.recv()
    inbox, done = Inbox(), Event()
    Thread(target=read_requests, args=(connection, inbox, done), daemon=True).start()
    # A pipe that is closed means that the parent has closed the engine, or is gone.
    with suppress(BrokenPipeError, ConnectionResetError):
        try:
            engine = load(settings)
            engine.on_step = beats(connection, min(BEAT_S, settings.stall_s / 4))
            connection.send([])
            serve(connection, inbox, engine)
        except CaiError as error:
            connection.send(str(error))
            done.set()


if __name__ == "__main__":
    main()
