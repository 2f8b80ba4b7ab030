"""A whole run without a network: in a namespace that has only loopback, and nothing asks for more.

    python tests/torture/offline.py fake     the fake engine (seconds)
    python tests/torture/offline.py real     vLLM and TRL at the smallest sizes (minutes)

Three witnesses: the run succeeds where there is no route; an audit hook in every Python process of
it writes down each address that is connected to, bound, sent to or looked up; and strace, where it
is installed, those of all processes, whatever they are written in. The environment is full of
tokens, of which no file of the run and nothing that it prints may hold one.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOOK = """
import os, sys
def audit(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"):
        address = arguments[-1]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        address = arguments[0]
    else:
        return
    with open(os.environ["CAI_SOCKETS"], "a") as file:
        file.write(repr((event, str(sys.argv[:3]), address)) + "\\n")
sys.addaudithook(audit)
"""
LOOPBACK = ("'127.", "'::1'", "'localhost'", "b'localhost'", "('', 0)", "None")
"""What an address begins with that stays on this machine; so do paths of Unix sockets."""
STAYS = re.compile(r'"(127\.[\d.]+|::1|::ffff:127\.[\d.]+)"')
LISTENS = re.compile(r'bind\(.*"(0\.0\.0\.0|::)"')
"""In strace's words: what stays on this machine; a port on all interfaces, which asks nobody."""
STRACE = [
    "strace",
    "-f",
    "-qq",
    "--seccomp-bpf",
    "-e",
    "trace=connect,bind,sendto,sendmsg,sendmmsg",
]
RUN = ["run", "--constitution", "harmless.yaml", "--recipe", "quickstart"]


def settings(kind: str) -> list[str]:
    """The command's settings: tiny for the real engines."""
    if kind == "fake":
        return ["engine.kind=fake", "engine.capacity=4"]
    sys.path.insert(0, str(ROOT / "tests"))
    from test_end_to_end import SETTINGS

    return SETTINGS


def planted() -> tuple[dict[str, str], tuple[str, ...]]:
    """Variables that hold tokens, as tests/test_secrets.py plants them, and what is looked for."""
    sys.path.insert(0, str(ROOT / "tests"))
    from test_secrets import ENVIRONMENT, HF, KEY, SECRETS

    # one that begins with the token is found by it, whichever of them leaks
    return {name: f"{HF}{name}" for name in ENVIRONMENT} | {"NOTES": KEY}, (HF, KEY, *SECRETS)


def holding(folder: Path, tokens: Sequence[str]) -> list[str]:
    """The files of a run, logs and checkpoints included, that hold a token."""
    wanted = [token.encode() for token in tokens]
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [
        str(path.relative_to(folder))
        for path in files
        if any(token in path.read_bytes() for token in wanted)
    ]


def can_unshare() -> bool:
    """Whether this system lets us make a network namespace."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0


def can_trace() -> bool:
    """Whether strace is installed and allowed."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run([*STRACE, "true"], capture_output=True, check=False).returncode == 0


def read_lines(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines() if log.exists() else []


def traced(log: Path) -> tuple[list[str], list[str]]:
    """The calls of the internet's families that strace saw, and those that leave this machine."""
    seen = [line for line in read_lines(log) if "sa_family=AF_INET" in line]
    return seen, [line for line in seen if not STAYS.search(line) and not LISTENS.search(line)]


def escaped(log: Path) -> list[str]:
    """The lines of the hook's log whose address is not this machine."""
    found = []
    for line in read_lines(log):
        _, _, address = eval(line, {"__builtins__": {}})
        shown = repr(address[0] if isinstance(address, tuple) else address)
        is_path = isinstance(address, str | bytes) and os.fsdecode(address)[:1] in ("/", "\0", "")
        if not is_path and not shown.startswith(LOOPBACK):
            found.append(line)
    return found


def check_witness(env: dict[str, str], log: Path, prefix: list[str], trace: Path) -> None:
    """Both must notice what vLLM does to find its address, or they prove nothing."""
    code = "import socket as s; s.socket(s.AF_INET, s.SOCK_DGRAM).connect(('8.8.8.8', 80))"
    command = [*prefix, sys.executable, "-c", code]
    subprocess.run(command, env=env, capture_output=True, check=False)
    assert escaped(log), "the audit hook is blind"
    assert not prefix or traced(trace)[1], "strace is blind"
    log.unlink()


def main(kind: str) -> int:
    """Run, print one JSON line; returns 1 if the run failed or something left this machine."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "sitecustomize.py").write_text(HOOK)
        log, trace = scratch / "sockets.txt", scratch / "trace.txt"
        variables, tokens = planted()
        (scratch / "blind").mkdir()
        (scratch / "blind" / "log.txt").write_text(f"HF_TOKEN={variables['HF_TOKEN']}")
        assert holding(scratch / "blind", tokens), "the search for tokens is blind"
        env = (
            os.environ
            | variables
            | {
                "CAI_SOCKETS": str(log),
                "PYTHONPATH": os.pathsep.join([str(scratch), str(ROOT)]),
                # what a user has set must not hide what cai itself leaves open
                "HF_HUB_OFFLINE": "0",
            }
        )
        prefix = [*STRACE, "-o", str(trace)] if can_trace() else []
        check_witness(env, log, prefix, trace)
        command = [*prefix, sys.executable, "-m", "cai", *RUN, "--out", str(scratch / "run")]
        command += [part for setting in settings(kind) for part in ("--set", setting)]
        isolated = can_unshare()
        if isolated:
            inside = 'ip link set lo up && exec "$@"'
            command = ["unshare", "-n", "sh", "-c", inside, "sh", *command]
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        seen, left = traced(trace)
        found = escaped(log) + left
        leaks = holding(scratch / "run", tokens)
        said = done.stdout + done.stderr
        leaks += ["what it printed"] if any(token in said for token in tokens) else []
        summary = {
            "part": f"offline, {kind}",
            "sockets": len(read_lines(log)) + len(seen),
            "beyond_loopback": len(found),
            "ports_on_all_interfaces": sum(bool(LISTENS.search(x)) for x in seen),
            "without_a_route": isolated,
            "strace": bool(prefix),
            "code": done.returncode,
            "tokens_planted": len(variables),
            "files_searched": sum(path.is_file() for path in (scratch / "run").rglob("*")),
            "secrets": len(leaks),
        }
        failed = bool(found or leaks or done.returncode)
        if failed:
            summary |= {
                "which": [*leaks, *found][:10],
                "last": done.stderr.strip().splitlines()[-1:],
            }
    sys.stdout.write(json.dumps(summary) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "fake"))
