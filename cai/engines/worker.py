"""The child's side of `EngineProcess`: `python -m cai.engines.worker FD`."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Event, Thread

from cai.engines.base import Request
from cai.engines.process import EngineSettings, Partial, open_engine_in_process
from cai.errors import CaiError

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


def serve(connection: Connection, inbox: Inbox, settings: EngineSettings) -> None:
    """Load the engine, then work. Between two steps every request that has arrived is taken in, so
    that a chain's next request joins the running batch at once."""
    engine = open_engine_in_process(settings)
    connection.send([])
    in_flight = 0
    while True:
        while not in_flight or not inbox.empty():
            request, listened = inbox.get()
            on_text = teller(connection, request.id) if listened else None
            engine.submit(replace(request, on_text=on_text))
            in_flight += 1
        if completions := engine.poll():
            in_flight -= len(completions)
            connection.send(completions)


def teller(connection: Connection, request_id: str) -> Callable[[str], None]:
    """Sends a request's text so far to the parent."""
    return lambda text: connection.send(Partial(request_id, text))


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    settings: EngineSettings = connection.recv()
    inbox, done = Inbox(), Event()
    Thread(target=read_requests, args=(connection, inbox, done), daemon=True).start()
    # A pipe that is closed means that the parent has closed the engine, or is gone.
    with suppress(BrokenPipeError, ConnectionResetError):
        try:
            serve(connection, inbox, settings)
        except CaiError as error:
            connection.send(str(error))
            done.set()


if __name__ == "__main__":
    main()
