"""Hostile YAML: the corpus of bombs, each in a process of its own, then random bytes.

    python tests/torture/yaml_fuzz.py bombs              time and memory of every bomb
    python tests/torture/yaml_fuzz.py random [SECONDS]   600 s, coverage-guided

Whatever stands in a file, `fuzz` must return: a ConfigError is the only error.
"""

import contextlib
import importlib.util
import itertools
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bombs.corpus import BOMBS
from promised import MAX_MB

from cai.constitution import load_constitution
from cai.errors import ConfigError
from cai.exemplars import PreferenceExemplars, RevisionExemplars, load_exemplars
from cai.reproduce.options import make_sizes
from cai.resolve import Options, resolve_config
from cai.strict_yaml import load_yaml

MAX_S = 0.5
"""CPU seconds for one reading of one file: wall time says more about the machine's other work."""
FUZZED = """
import atheris
with atheris.instrument_imports(include=["cai", "yaml"]):
    import yaml_fuzz
yaml_fuzz.libfuzzer()
"""
"""The fuzzed process: what guides it must be there before what it guides is loaded."""
ADDRESS_SPACE = 4 << 30
"""What a reader may ever ask for: a true bomb dies here and not the machine."""


def readers(path: Path) -> list[Callable[[], object]]:
    """Every way in which cai reads a YAML file that somebody else may have written."""
    return [
        lambda: load_yaml(path),
        lambda: load_constitution(path),
        lambda: load_exemplars(path, RevisionExemplars),
        lambda: load_exemplars(path, PreferenceExemplars),
        lambda: resolve_config(Options(constitution="c", config=str(path))),
    ]


def fuzz(path: Path) -> float:
    """Read the file in every way; the CPU seconds of the slowest. Raises nothing."""
    slowest = 0.0
    for reader in readers(path):
        start = time.process_time()
        with contextlib.suppress(ConfigError):
            reader()
        slowest = max(slowest, time.process_time() - start)
    return slowest


def max_mb() -> float:
    """The largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Worst:
    """The slowest reading, and how far this process has grown since the first."""

    def __init__(self) -> None:
        self._first_mb = max_mb()
        self.numbers = {"max_cpu_s": 0.0, "max_mb_grown": 0.0}

    def note(self, cpu_s: float) -> bool:
        """Take in one reading; whether something has become worse."""
        grown = round(max_mb() - self._first_mb, 1)
        found = {"max_cpu_s": round(cpu_s, 3), "max_mb_grown": grown}
        before = self.numbers
        self.numbers = {name: max(before[name], found[name]) for name in before}
        return self.numbers != before


def measure(path: Path) -> dict[str, float]:
    """`fuzz` in a forked child: its exit code, CPU seconds and largest memory in MB."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        os.write(write, repr(fuzz(path)).encode())
        os._exit(0)
    os.close(write)
    _, status, usage = os.wait4(child, 0)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "cpu_s": float(said or "inf"), "mb": usage.ru_maxrss / 1024}


def say(summary: dict[str, object]) -> None:
    """One JSON line for whoever runs this."""
    sys.stdout.write(json.dumps(summary) + "\n")


def bombs() -> int:
    """Measure the corpus; prints one JSON line. Returns 1 if any bomb went off."""
    # what the first reading imports and caches is no part of a bomb
    make_sizes()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bomb.yaml"
        path.write_bytes(b"sft: {trainer: {max_steps: 1}}\nengine: {options: {seed: 1}}")
        fuzz(path)
        for name, (data, _) in BOMBS.items():
            path.write_bytes(data)
            results[name] = measure(path)
    bad = {
        name: found
        for name, found in results.items()
        if found["code"] or found["cpu_s"] > MAX_S or found["mb"] > MAX_MB
    }
    summary = {
        "part": "YAML, bombs",
        "count": len(results),
        "crashes": sum(found["code"] != 0 for found in results.values()),
        "max_cpu_s": round(max(found["cpu_s"] for found in results.values()), 3),
        "max_mb": round(max(found["mb"] for found in results.values())),
        "bad": bad,
    }
    say(summary)
    return int(bool(bad))


def random_bytes(seconds: int) -> int:
    """Guided by coverage; by hypothesis, with the reason, where atheris is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        if importlib.util.find_spec("atheris"):
            summary = by_atheris(seconds, Path(folder))
        else:
            summary = by_hypothesis(seconds, Path(folder) / "fuzz.yaml")
    say({"part": "YAML, random bytes"} | summary | {"seconds": seconds})
    slow, large = summary["max_cpu_s"] > MAX_S, summary["max_mb_grown"] > MAX_MB
    return int(bool(summary["crashes"] or slow or large))


def by_atheris(seconds: int, folder: Path) -> dict[str, Any]:
    """libFuzzer stops at a crash, at MAX_S × 20 or at MAX_MB × 4 (its instruments are in both)."""
    seeds, noted = folder / "seeds", folder / "worst"
    seeds.mkdir()
    for i, (data, _) in enumerate(BOMBS.values()):
        (seeds / str(i)).write_bytes(data[:4096])
    options = [f"-max_total_time={seconds}", f"-rss_limit_mb={MAX_MB * 4}", "-max_len=8192"]
    options += [f"-timeout={int(MAX_S * 20)}", f"-artifact_prefix={folder}/", str(seeds)]
    path = [str(Path(__file__).parent), *filter(None, sys.path)]
    done = subprocess.run(
        [sys.executable, "-c", FUZZED, *options],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path), "CAI_WORST": str(noted)},
        capture_output=True,
        text=True,
        check=False,
    )
    numbers = re.findall(r"^#(\d+)\s", done.stderr, re.MULTILINE)
    found = [path.read_bytes().hex() for path in folder.glob("*-*")]
    summary: dict[str, Any] = {
        "inputs": int((numbers or [0])[-1]),
        "by": f"atheris {version('atheris')}",
        "crashes": max(len(found), int(done.returncode != 0)),
        **(json.loads(noted.read_text()) if noted.exists() else Worst().numbers),
    }
    if summary["crashes"]:
        summary |= {"which": found, "last": done.stderr.strip().splitlines()[-1:]}
    return summary


def libfuzzer() -> None:
    """In the fuzzed process: libFuzzer's own options are on its command line."""
    import atheris

    path, worst = Path(tempfile.mkdtemp()) / "fuzz.yaml", Worst()

    def once(data: bytes) -> None:
        path.write_bytes(data)
        if worst.note(fuzz(path)):
            Path(os.environ["CAI_WORST"]).write_text(json.dumps(worst.numbers))

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


def by_hypothesis(seconds: int, path: Path) -> dict[str, Any]:
    """Bombs with holes and additions, until the time is over. A crash is raised with its input."""
    from hypothesis import HealthCheck, given, seed, settings
    from hypothesis import strategies as st

    small, n, worst = [d for d, _ in BOMBS.values() if len(d) < 5000], 0, Worst()
    rounds, end = itertools.count(), time.monotonic() + seconds

    def once(data: bytes, at: int, cut: int, put: bytes) -> None:
        nonlocal n
        path.write_bytes(data[:at] + put + data[at + cut :])
        n += 1
        worst.note(fuzz(path))

    drawn = given(st.sampled_from(small), st.integers(0, 5000), st.integers(0, 99), st.binary())
    free = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
    while time.monotonic() < end:
        seed(next(rounds))(free(drawn(once)))()
    reason = "hypothesis, since atheris is not installed (pip install atheris)"
    return {"inputs": n, "by": reason, "crashes": 0, **worst.numbers}


if __name__ == "__main__":
    part = sys.argv[1] if len(sys.argv) > 1 else "bombs"
    sys.exit(bombs() if part == "bombs" else random_bytes(int((sys.argv[2:] or ["600"])[0])))
