"""Which licence each package of a lock is under: writes `requirements/licenses-cpu.txt` (or -gpu).

    python requirements/licenses.py cpu
    python requirements/licenses.py gpu build/gpu.json

Licences are read from what the installed packages say of themselves, or what those of a report of
`pip install --dry-run` do: with `--use-feature=fast-deps` pip reads a wheel's metadata out of it
and downloads no wheel. Exit code 1 names packages whose licence is neither allowed nor excepted
here.
"""

import json
import re
import sys
from collections.abc import Callable
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ALLOWED = frozenset(
    (
        "0BSD",
        "Apache-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "BSD",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSL-1.0",
        "CC0-1.0",
        "CNRI-Python",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "MPL-2.0",
        "PSF-2.0",
        "Unlicense",
    )
)
"""SPDX names; MPL-2.0's copyleft is by file, and none of those files are ours. BSD: no clauses
named."""
VENDORS = frozenset(
    (
        "Intel End User License Agreement for Developer Tools",
        "LicenseRef-NVIDIA-Proprietary",
        "NVIDIA Proprietary Software",
    )
)
"""Terms of those who make the hardware: their binaries are installed for it and not passed on."""
CUTLASS = "NVIDIA's own terms, named in no metadata: binaries that are installed and not passed on"
EXCEPTIONS = {
    "cuda-toolkit": "names no licence; holds nothing but the names of other packages",
    "nvidia-cutlass-dsl": CUTLASS,
    "nvidia-cutlass-dsl-libs-base": CUTLASS,
    "nvidia-cutlass-dsl-libs-core": CUTLASS,
    "nvidia-cutlass-dsl-libs-cu12": CUTLASS,
    "nvidia-cutlass-dsl-libs-cu13": CUTLASS,
    "oss-harmony": "names no licence; the file it ships is Apache-2.0",
    "pycountry": "LGPL: imported as it is, unchanged and not passed on",
    "quack-kernels": "names no licence; its repository's is Apache-2.0",
    "supervisor": "a BSD text of its own (repoze), which SPDX has no name for",
    "torchcodec": "names no licence; its repository's is BSD-3-Clause",
}
"""Packages that may stay all the same, and why."""
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD License": "BSD",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
"""What packages write instead of an SPDX name."""
UNNAMED = "none named"


Describe = Callable[[str], Message]
"""The metadata of a package. Raises PackageNotFoundError where it is not known."""


class Locked(NamedTuple):
    """A package of a lock; no licence: it is not known here."""

    name: str
    version: str
    licence: str | None


def read_report(path: Path) -> Describe:
    """What a report of pip says of the packages that it would install."""
    found: dict[str, Message] = {}
    for entry in json.loads(path.read_text())["install"]:
        given, data = entry["metadata"], Message()
        for field in ("license_expression", "license", "classifier"):
            values = given.get(field, [])
            for value in [values] if isinstance(values, str) else values:
                # another of the same name, not instead of it
                data[field.replace("_", "-")] = value
        found[plain(given["name"])] = data

    def describe(name: str) -> Message:
        if plain(name) not in found:
            raise PackageNotFoundError(name)
        return found[plain(name)]

    return describe


def plain(name: str) -> str:
    """A package's name as an index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(path: Path, describe: Describe | None = None) -> list[Locked]:
    """The packages that a lock names, by what is installed here unless somebody else describes."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", path.read_text(), re.MULTILINE)
    return [Locked(name, version, licence_of(name, describe)) for name, version in found]


def licence_of(name: str, describe: Describe | None = None) -> str | None:
    """The licence of a package, an SPDX expression where it can be told."""
    try:
        data = (describe or metadata)(name)
    except PackageNotFoundError:
        return None
    if expression := data.get("License-Expression"):
        return expression
    first, *more = (data.get("License") or "").strip().splitlines() or [""]
    # A single line names a licence; a whole text only where it begins with the name.
    if first and (not more or first in SPDX):
        return SPDX.get(first, first)
    classifiers = [c for c in data.get_all("Classifier") or [] if c.startswith("License ::")]
    names = [c.split(" :: ")[-1] for c in classifiers]
    return " AND ".join(SPDX.get(name, name) for name in names) or UNNAMED


def is_allowed(expression: str) -> bool:
    """Whether an SPDX expression without brackets asks for nothing but what is allowed."""
    return all(
        any(name in ALLOWED for name in each.split(" OR ")) for each in expression.split(" AND ")
    )


def refused(packages: list[Locked]) -> list[Locked]:
    """Installed packages whose licence is neither allowed nor excepted."""
    asked = [one for one in packages if one.licence and one.name not in EXCEPTIONS]
    return [one for one in asked if one.licence not in VENDORS and not is_allowed(one.licence)]


def table(packages: list[Locked]) -> str:
    """The list as text, a package a line."""
    rows = [
        f"{one.name}=={one.version}: {one.licence or 'not installed where this was written'}"
        + (f" ({EXCEPTIONS[one.name]})" if one.name in EXCEPTIONS else "")
        for one in packages
    ]
    return "\n".join(
        ("# Written by requirements/licenses.py; make audit writes it anew.", *rows, "")
    )


def main(device: str, report: str | None = None) -> int:
    packages = read_lock(HERE / f"{device}.txt", read_report(Path(report)) if report else None)
    (HERE / f"licenses-{device}.txt").write_text(table(packages))
    for one in refused(packages):
        sys.stderr.write(
            f"{one.name}=={one.version}: {one.licence}: not an allowed licence; take the package "
            "out of the lock, or say in requirements/licenses.py why it may stay\n"
        )
    known = sum(one.licence is not None for one in packages)
    sys.stdout.write(
        f"{device}.txt: {len(packages)} packages, {known} with metadata, "
        f"{len(refused(packages))} refused\n"
    )
    return 1 if refused(packages) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
