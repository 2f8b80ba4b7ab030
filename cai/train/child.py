"""The trainer's process: `python -m cai.train.child FOLDER`.

Reads `job.json`, calls `train(job, folder)` of the module named after the job's kind, and writes
`result.json` last. A CaiError goes back to the parent as `error.json`.
"""

import importlib
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from cai.errors import CaiError, DiskFull
from cai.lock import hold_trainer
from cai.orphans import die_with_parent
from cai.run import disk_errors, write_json
from cai.train import folder as files
from cai.train.jobs import Job, ScoreJob


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
    job = adapter.validate_json((folder / files.JOB).read_bytes())
    if isinstance(job, ScoreJob):
        return job
    return job.model_copy(update={"max_cut": float(os.environ.get("CAI_MAX_CUT", "1"))})


if __name__ == "__main__":
    sys.exit(main())
