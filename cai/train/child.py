"""The trainer's process: `python -m cai.train.child FOLDER`.

Reads `job.json`, calls `train(job, folder)` of the module named after the job's kind, and writes
`result.json` last. A CaiError goes back to the parent as `error.json`.
"""

import ctypes
import importlib
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from cai.errors import CaiError, DiskFull
from cai.lock import hold_trainer
from cai.run import disk_errors, write_json
from cai.train import folder as files
from cai.train.jobs import Job

PR_SET_PDEATHSIG = 1
WATCH_S = 1.0


def main() -> int:
    """Run the job of the folder named on the command line; returns the exit code."""
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder = Path(sys.argv[1])
    hold_trainer(folder)
    job = read_job(folder)
    logging.info("%s: importing", job.kind)
    module = importlib.import_module(f"cai.train.{job.kind}")
    try:
        with disk_errors(folder):
            result = module.train(job, folder)
            if os.environ.get("RANK", "0") == "0":
                write_json(folder / files.RESULT, result)
    except CaiError as error:
        logging.error("%s", error)
        report = {"type": type(error).__name__, "message": str(error)}
        # a full disk has no room for this either: the exit code says it
        with suppress(DiskFull):
            write_json(folder / files.ERROR, report)
        return error.exit_code
    logging.info("%s: done", job.kind)
    return 0


def read_job(folder: Path) -> Job:
    """The job of the folder."""
    adapter: TypeAdapter[Job] = TypeAdapter(Annotated[Job, Field(discriminator="kind")])
    return adapter.validate_json((folder / files.JOB).read_bytes())


def die_with_parent() -> None:
    """End this process when the one that asked for it ends, however that ends.

    The kernel does it at once for a direct child on Linux; a thread that looks once a second does
    it elsewhere, and under torchrun, which stands between.
    """
    asked_by = int(os.environ.get("CAI_PARENT_PID", "0"))
    if not asked_by:
        return
    parent = os.getppid()
    if sys.platform == "linux" and parent == asked_by:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != asked_by:
            os._exit(1)
        return
    threading.Thread(target=watch, args=(asked_by, parent), daemon=True).start()


def watch(*pids: int) -> None:
    """Kill this process as soon as one of `pids` is gone."""
    while all(map(is_alive, pids)):
        time.sleep(WATCH_S)
    os.kill(os.getpid(), signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    sys.exit(main())
