"""The child's side of `EngineProcess`: `python -m cai.engines.worker FD`."""

import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from cai.engines.process import open_engine_in_process
from cai.errors import CaiError


def serve(connection: Connection) -> None:
    """Load the engine, then work until the parent closes the connection.

    Between two steps every request that has arrived is taken in, so that a chain's next request
    joins the running batch at once.
    """
    engine = open_engine_in_process(connection.recv())
    connection.send([])
    in_flight = 0
    while True:
        while connection.poll(0 if in_flight else None):
            engine.submit(connection.recv())
            in_flight += 1
        if completions := engine.poll():
            in_flight -= len(completions)
            connection.send(completions)


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    # Each of these means that the parent has closed the engine, or is gone.
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            serve(connection)
        except CaiError as error:
            connection.send(str(error))


if __name__ == "__main__":
    main()
