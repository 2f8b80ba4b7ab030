"""A folder that is there whole, or not at all."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

from cai.errors import ConfigError
from cai.run import disk_errors, sync, sync_tree

NEW = (".new-", ".cai-new")
"""How the name of a folder that is being made begins and ends."""
LEFT_S = 3600


@contextlib.contextmanager
def new_folder(out: Path) -> Generator[Path]:
    """A folder to write to, which becomes `out` at the end, or nothing at all.

    Raises ConfigError where `out` cannot be made, OSError where another has taken its place.
    """
    try:
        with disk_errors(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            sweep_new(out.parent)
            scratch = Path(tempfile.mkdtemp(NEW[1], NEW[0], out.parent))
    except OSError as error:
        raise ConfigError(f"{out}: cannot be made: {error.strerror}") from error
    try:
        with disk_errors(out):
            yield scratch
            scratch.chmod(0o755)
            sync_tree(scratch)
            scratch.replace(out)
            try:
                sync(out.parent)
            except OSError:
                # the same command is to find nothing in its way, and nobody half of it
                try:
                    out.replace(scratch)
                except OSError:
                    shutil.rmtree(out, ignore_errors=True)
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def sweep_new(parent: Path) -> None:
    """Remove what `new_folder` has begun here and, an hour after its last change, not ended."""
    for path in parent.glob(f"{NEW[0]}*{NEW[1]}"):
        # another process may be about to name it, or to remove it
        with contextlib.suppress(OSError):
            changed = max(inner.lstat().st_mtime for inner in (path, *path.rglob("*")))
            if not path.is_symlink() and time.time() - changed > LEFT_S:
                shutil.rmtree(path, ignore_errors=True)
