"""A whole run without a network: in a namespace that has only loopback, and nothing asks for more.

    python tests/torture/offline.py fake     the fake engine (seconds)
    python tests/torture/offline.py real     vLLM and TRL at the smallest sizes (minutes)

Two witnesses: the run succeeds where there is no route, and an audit hook in every Python process
of it writes down each address that is connected to, bound, sent to or looked up.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
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
RUN = ["run", "--constitution", "harmless.yaml", "--recipe", "quickstart"]


def settings(kind: str) -> list[str]:
    """The command's settings: tiny for the real engines."""
    if kind == "fake":
        return ["engine.kind=fake", "engine.capacity=4"]
    sys.path.insert(0, str(ROOT / "tests"))
    from test_end_to_end import SETTINGS

    return SETTINGS


def can_unshare() -> bool:
    """Whether this system lets us make a network namespace."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    return subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0


def escaped(log: Path) -> list[str]:
    """The lines of the log whose address is not this machine."""
    lines = log.read_text().splitlines() if log.exists() else []
    found = []
    for line in lines:
        _, _, address = eval(line, {"__builtins__": {}})
        shown = repr(address[0] if isinstance(address, tuple) else address)
        is_path = isinstance(address, str | bytes) and os.fsdecode(address)[:1] in ("/", "\0", "")
        if not is_path and not shown.startswith(LOOPBACK):
            found.append(line)
    return found


def check_witness(env: dict[str, str], log: Path) -> None:
    """The hook must notice what vLLM does to find its address, or it proves nothing."""
    code = "import socket as s; s.socket(s.AF_INET, s.SOCK_DGRAM).connect(('8.8.8.8', 80))"
    subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False)
    assert escaped(log), "the audit hook is blind"
    log.unlink()


def main(kind: str) -> int:
    """Run, print one JSON line; returns 1 if the run failed or something left this machine."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "sitecustomize.py").write_text(HOOK)
        log = scratch / "sockets.txt"
        env = os.environ | {
            "CAI_SOCKETS": str(log),
            "PYTHONPATH": os.pathsep.join([str(scratch), str(ROOT)]),
            # what a user has set must not hide what cai itself leaves open
            "HF_HUB_OFFLINE": "0",
        }
        check_witness(env, log)
        command = [sys.executable, "-m", "cai", *RUN, "--out", str(scratch / "run")]
        command += [part for setting in settings(kind) for part in ("--set", setting)]
        isolated = can_unshare()
        if isolated:
            inside = 'ip link set lo up && exec "$@"'
            command = ["unshare", "-n", "sh", "-c", inside, "sh", *command]
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        found = escaped(log)
        n_sockets = len(log.read_text().splitlines()) if log.exists() else 0
        summary = {
            "part": f"offline {kind}",
            "without_a_route": isolated,
            "code": done.returncode,
            "n_sockets": n_sockets,
            "beyond_loopback": len(found),
            "which": found[:10],
            "last": done.stderr.strip().splitlines()[-1:] if done.returncode else [],
        }
    sys.stdout.write(json.dumps(summary) + "\n")
    return int(bool(found or done.returncode))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "fake"))
