"""Hostile YAML: the corpus of bombs, each in a process of its own, then random bytes by atheris.

    python tests/torture/yaml_fuzz.py bombs              time and memory of every bomb
    python tests/torture/yaml_fuzz.py atheris [SECONDS]  coverage-guided, 600 s; skipped without it

Whatever stands in a file, `fuzz` must return: a ConfigError is the only error.
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bombs.corpus import BOMBS

from cai.constitution import load_constitution
from cai.errors import ConfigError
from cai.exemplars import PreferenceExemplars, RevisionExemplars, load_exemplars
from cai.reproduce.options import make_sizes
from cai.resolve import Options, resolve_config
from cai.strict_yaml import load_yaml

MAX_S = 0.5
"""CPU seconds for one reading of one file: wall time says more about the machine's other work."""
MAX_MB = 200
"""Of the whole process, Python and pydantic included (about 60)."""
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
        "part": "yaml bombs",
        "count": len(results),
        "crashes": sum(found["code"] != 0 for found in results.values()),
        "max_cpu_s": round(max(found["cpu_s"] for found in results.values()), 3),
        "max_mb": round(max(found["mb"] for found in results.values())),
        "bad": bad,
    }
    say(summary)
    return int(bool(bad))


def atheris(seconds: int) -> int:
    """Random bytes, guided by coverage. libFuzzer stops at a crash, at MAX_S × 20 or at MAX_MB × 4
    (its instruments are in both)."""
    try:
        import atheris as fuzzer
    except ImportError:
        say({"part": "yaml atheris", "skipped": "atheris is not installed"})
        return 0
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder) / "seeds"
        seeds.mkdir()
        for i, (data, _) in enumerate(BOMBS.values()):
            (seeds / str(i)).write_bytes(data[:4096])
        options = [f"-max_total_time={seconds}", f"-rss_limit_mb={MAX_MB * 4}", "-max_len=8192"]
        options += [f"-timeout={int(MAX_S * 20)}", f"-artifact_prefix={folder}/", str(seeds)]
        command = [sys.executable, __file__, "libfuzzer", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        last = done.stderr.strip().splitlines()[-1:]
        found = [p.read_bytes().hex() for p in Path(folder).glob("*-*") if p.is_file()]
    version = getattr(fuzzer, "__version__", "unknown")
    summary = {"part": "yaml atheris", "version": version, "seconds": seconds, "last": last}
    say(summary | {"crashes": len(found), "inputs": found})
    return int(bool(done.returncode))


def libfuzzer() -> None:
    """The fuzzed process: libFuzzer's own options are on its command line."""
    import atheris as fuzzer

    path = Path(tempfile.mkdtemp()) / "fuzz.yaml"

    def once(data: bytes) -> None:
        path.write_bytes(data)
        fuzz(path)

    fuzzer.instrument_all()
    fuzzer.Setup([sys.argv[0], *sys.argv[2:]], once)
    fuzzer.Fuzz()


if __name__ == "__main__":
    part = sys.argv[1] if len(sys.argv) > 1 else "bombs"
    if part == "libfuzzer":
        libfuzzer()
    sys.exit(bombs() if part == "bombs" else atheris(int((sys.argv[2:] or ["600"])[0])))
