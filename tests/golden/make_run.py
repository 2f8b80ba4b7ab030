"""Make the golden run of this format version: tests/golden/run-N.

    PYTHONPATH=tests python tests/golden/make_run.py

Only for a new format, or a format that nobody has seen: the folder of a released one is never made
again, since what it proves is that runs of that time are still read.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from cai.cli import main as cai
from cai.manifest import FORMAT
from cai.prompts import Templates

GOLDEN = Path(__file__).parent
RUN = f"run-{FORMAT}"
COMMAND = ("run", "--config", "config.yaml", "--out", RUN)
DERIVED = (".lock", "report.md", "report.html", "plots")
"""Made again from the rest, or of this machine."""


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        shutil.copytree(GOLDEN / "own", ".", dirs_exist_ok=True)
        for name, path in Templates().paths.items():
            shutil.copyfile(path, f"{name}{path.suffix}")
        with contextlib.suppress(SystemExit):
            cai(COMMAND)
        for name in DERIVED:
            shutil.rmtree(Path(RUN, name), ignore_errors=True)
            with contextlib.suppress(FileNotFoundError):
                os.remove(Path(RUN, name))
        shutil.rmtree(GOLDEN / RUN, ignore_errors=True)
        shutil.copytree(RUN, GOLDEN / RUN)


if __name__ == "__main__":
    main()
