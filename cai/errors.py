"""Every error that a user is meant to read.

    CaiError                    exit code 1
    ├── ConfigError             2   constitution, config, recipe, prompts, model, command line
    ├── MissingDependency       2   an extra is not installed
    ├── RunConflict             2   the run folder belongs to something else
    ├── TooManyErrors           3   more rows failed than the config allows
    ├── QualityGate             4   a check of `--strict` or a bound of `guards` is not passed
    ├── Damaged                 5   a file of a run is not as it was written
    └── Resumable               75  stopped with everything on disk; the same command continues
        ├── EngineError             the engine's process died or hangs
        ├── TrainError              a trainer's process failed
        ├── DiskFull                no space left
        └── RunLocked               another process holds the run

The command line prints a `CaiError` as one line and exits with its code; everything else is a bug
and keeps its traceback. Ctrl-C exits with 130, SIGTERM with 143, a closed terminal with 129.
"""

from typing import Literal

Cause = Literal["memory", "killed", "hang", "crash"]
"""What a child's process died of; killed: by somebody else's SIGKILL."""


class CaiError(Exception):
    """Says what is wrong, where, what was expected, and what to type next."""

    exit_code = 1


class ConfigError(CaiError):
    """What the user gave cannot be used."""

    exit_code = 2


class MissingDependency(CaiError):
    """A library of an extra is not installed."""

    exit_code = 2


class RunConflict(CaiError):
    """The output folder is somebody else's run, or no run at all."""

    exit_code = 2


class TooManyErrors(CaiError):
    """A stage finished with more failed rows than `max_error_rate`."""

    exit_code = 3


class QualityGate(CaiError):
    """What was measured is not good enough to go on with (`--strict`, or a bound of `guards`)."""

    exit_code = 4


class Damaged(CaiError):
    """A file of a run is not as it was written."""

    exit_code = 5


class Resumable(CaiError):
    """The run stopped, nothing is lost, and the same command continues it."""

    exit_code = 75


class EngineError(Resumable):
    """The engine's process died, hangs or refused its settings."""

    def __init__(self, message: str, cause: Cause = "crash", how: str = "failed") -> None:
        super().__init__(message)
        self.cause: Cause = cause
        self.how = how
        """What the engine did, to be read after its name."""


class TrainError(Resumable):
    """A trainer's process ended before it had saved its result."""


class DiskFull(Resumable):
    """The file system refused a write."""


class RunLocked(Resumable):
    """Another process works on this run."""
