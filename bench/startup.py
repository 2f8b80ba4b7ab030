"""How long the light commands take: the best of five, each its own process."""

import subprocess
import sys
import time

COMMANDS = (
    ("cai --help", ["--help"], 0.5),
    ("cai check", ["check", "--constitution", "harmless.yaml", "--recipe", "quickstart"], 1.0),
)


def best_of(n: int, arguments: list[str]) -> float:
    seconds: list[float] = []
    for _ in range(n):
        started = time.perf_counter()
        command = [sys.executable, "-m", "cai", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def main() -> None:
    for name, arguments, aim in COMMANDS:
        print(f"{name}: {best_of(5, arguments):.2f} s (aim: under {aim} s)")


if __name__ == "__main__":
    main()
