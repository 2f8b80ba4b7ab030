"""`make torture`: every part at full length, the table of docs/reliability.md, build/torture.json.

    PYTHONPATH=tests python tests/torture/run.py [PART ...]

A part prints a JSON line for each thing that it tried: what it is ("part"), then how often, then
what came of it. What loads real models is bound by the memory's speed, the rest by one core: the
two run side by side. Single parts, named by their files, take their rows' places in a whole run's.
"""

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from threading import Event, Lock
from typing import Any, NamedTuple

from promised import ZERO, wrong

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "build" / "torture.json"
BEGIN, END = "<!-- make torture: begin -->", "<!-- make torture: end -->"
MEMORY = Path("/dev/shm")
"""Where parts write that run no real model: a kill or a refused call is one there as on a disk, and
nothing waits for the disk's flushes."""
LIMIT_S = 2400
"""A part that takes longer hangs."""


class Part(NamedTuple):
    """A script of this folder, or a file of tests, with its arguments."""

    command: str
    real: bool = False
    """It loads vLLM or trains."""

    @property
    def path(self) -> Path:
        return ROOT / "tests" / self.command.split()[0]

    @property
    def names(self) -> set[str]:
        return {self.path.name, self.command.removeprefix("torture/")}

    @property
    def argv(self) -> list[str]:
        first, *more = self.command.split()
        runner = (
            [] if first.startswith("torture/") else ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
        )
        return [sys.executable, *runner, f"tests/{first}", *more]


PARTS = (
    Part("torture/vllm_kill.py --n 10", real=True),
    Part("torture/trainer_kill.py", real=True),
    Part("torture/tmpfs.py trainer", real=True),
    Part("torture/offline.py real", real=True),
    Part("torture/hostile_model.py", real=True),
    Part("test_folder.py", real=True),
    # the longest first: started last it would run alone
    Part("torture/disk.py"),
    Part("torture/yaml_fuzz.py random 600"),
    Part("torture/kill.py --n 200"),
    Part("torture/signals.py"),
    Part("torture/engine.py"),
    Part("torture/tmpfs.py run"),
    Part("torture/lock.py"),
    Part("torture/files.py --flips 1000"),
    Part("torture/yaml_fuzz.py bombs"),
    Part("torture/offline.py fake"),
    Part("test_verify.py"),
    Part("test_determinism.py"),
    Part("test_injection.py"),
    Part("test_hostile_folders.py"),
    Part("test_secrets.py"),
    Part("test_supervise.py"),
    Part("test_strict_yaml.py"),
    Part("test_lock.py"),
    Part("test_golden_run.py"),
    Part("test_guards.py"),
    Part("test_cut_rows.py"),
)


class Row(NamedTuple):
    """A row of the table."""

    part: str
    command: str
    count: str
    result: str
    seconds: float
    ok: bool


def rows_of(part: Part, code: int, output: str, seconds: float) -> list[Row]:
    """The rows of a part that has ended; one row says why where it gave none."""
    found = list(said_in(output))
    if code == 0 and (passed := re.search(r"(\d+) passed", output)):
        found = [{"part": part.path.stem, "tests": int(passed[1]), "passed": "all"}]
    if not found or (code and not any(map(wrong, found))):
        last = (output.strip().splitlines() or ["it printed nothing"])[-1]
        found = [*found, {"part": part.path.stem, "failed": f"exit {code}: {last[:200]}"}]
    return [row_of(part, values, seconds) for values in found]


def said_in(output: str) -> Iterator[dict[str, Any]]:
    """The lines in which a part says something, among all that it has printed."""
    for line in output.splitlines():
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(values, dict) and "part" in values:
            yield values


def row_of(part: Part, values: Mapping[str, Any], seconds: float) -> Row:
    """A JSON line as a row: its first value is the part, its first number the count."""
    name, *others = values
    count = next((key for key in others if type(values[key]) is int and key not in ZERO), None)
    told = [key for key in others if key not in (count, "seconds")]
    return Row(
        str(values[name]),
        f"tests/{part.command}",
        f"{values[count]:,} {words(count)}" if count else "",
        ", ".join(f"{words(key)} {shown(values[key])}" for key in told),
        float(values.get("seconds", seconds)),
        not wrong(values),
    )


def words(key: str) -> str:
    return key.replace("_", " ").removeprefix("n ")


def shown(value: Any) -> str:
    """A JSON value in a cell of a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return "; ".join(f"{key} {shown(inner)}" for key, inner in value.items()) or "0"
    if isinstance(value, list):
        return "; ".join(map(shown, value)) or "0"
    return re.sub(r"[|\s]+", " ", str(value))


def run_part(part: Part) -> list[Row]:
    """Run a part to its end, or to `LIMIT_S`."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, search_path()))}
    if not part.real:
        env["OMP_NUM_THREADS"] = "1"
        env |= {"TMPDIR": str(MEMORY)} if os.access(MEMORY, os.W_OK) else {}
    start = time.monotonic()
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(part.argv, cwd=ROOT, env=env, stdout=said, stderr=said)
        try:
            code = child.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
        said.seek(0)
        output = said.read().decode(errors="replace")
    return rows_of(part, code, output, round(time.monotonic() - start, 1))


def search_path() -> Iterator[Path]:
    """Where a part finds cai, what tests share, and atheris, which `make torture` puts there."""
    yield from (ROOT, ROOT / "tests", ROOT / "build" / "atheris")


def run_all(parts: Sequence[Part]) -> list[Row]:
    """All parts, real models beside the rest, then the rest in both; rows are printed as they come."""
    lock, stopped, found = Lock(), Event(), dict[Part, list[Row]]()
    real, rest = (deque(part for part in parts if part.real == kind) for kind in (True, False))

    def next_part(first: bool) -> Part | None:
        with lock:
            if stopped.is_set():
                return None
            if first and real:
                return real.popleft()
            # the other lane's next ones are at the front
            return (rest.pop() if first else rest.popleft()) if rest else None

    def lane(first: bool) -> None:
        while part := next_part(first):
            found[part] = run_part(part)
            with lock:
                for row in found[part]:
                    print(line(row), flush=True)

    with ThreadPoolExecutor(2) as lanes:
        try:
            list(lanes.map(lane, (True, False)))
        except KeyboardInterrupt:
            # a terminal's Ctrl-C has ended the parts; no other is to begin
            stopped.set()
            raise
    return [row for part in parts for row in found[part]]


def line(row: Row) -> str:
    """A row as a line for a terminal."""
    verdict = "" if row.ok else "FAILED "
    return f"{row.seconds:7.1f} s  {row.part}, {row.command}, {row.count}, {verdict}{row.result}"


def table(rows: Sequence[Row], took: str) -> str:
    """The rows in Markdown, under the machine that they were measured on."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    cores = len(os.sched_getaffinity(0))
    lines = [
        f"`make torture` of {date.today()}, on {cores} cores of {cpu[1] if cpu else 'a CPU'}, Python "
        f"{platform.python_version()}, {took}:",
        "",
        "| part | command | count | result | s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        result = row.result if row.ok else f"**failed**: {row.result}"
        cells = (row.part, f"`{row.command}`", row.count, result, f"{row.seconds:.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def rewrite(text: str, inner: str) -> str:
    """The page with `inner` between its two markers. Raises ValueError where they are not."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected the lines {BEGIN} and {END}")
    return f"{before}{begin}\n{inner}\n{end}{after}"


def merged(parts: Sequence[Part], rows: Sequence[Row]) -> list[Row]:
    """A whole run's rows with those of `parts` in their places; none where it is not there."""
    old = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    again = {f"tests/{part.command}" for part in parts}
    known = [*(Row(**row) for row in old if row["command"] not in again), *rows]
    order = [f"tests/{part.command}" for part in PARTS]
    if {row.command for row in known} != set(order):
        return []
    return sorted(known, key=lambda row: order.index(row.command))


def main(names: Sequence[str]) -> int:
    """Run the parts named by their files, or with their arguments; or all. 1 if any failed."""
    parts = [part for part in PARTS if not names or not part.names.isdisjoint(names)]
    missing = [str(part.path) for part in parts if not part.path.is_file()]
    unknown = set(names).difference(*(part.names for part in parts))
    if missing or unknown:
        raise SystemExit(f"no such part: {', '.join([*missing, *sorted(unknown)])}")
    start = time.monotonic()
    rows = run_all(parts)
    seconds = time.monotonic() - start
    whole, took = rows, f"{seconds / 60:.0f} minutes"
    if names:
        whole, took = merged(parts, rows), "some parts again by themselves"
    if whole:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps([row._asdict() for row in whole], indent=2) + "\n")
        DOCS.write_text(rewrite(DOCS.read_text(), table(whole, took)))
    failed = [row.part for row in rows if not row.ok]
    print(f"{seconds / 60:.1f} minutes, {len(rows)} rows, failed: {', '.join(failed) or 'none'}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
