"""Every locked package is under a licence that is allowed, or says why it may stay."""

import importlib.util
import json
from email.message import Message
from pathlib import Path
from types import ModuleType

import pytest

REQUIREMENTS = Path(__file__).parents[1] / "requirements"


@pytest.fixture(scope="module")
def licenses() -> ModuleType:
    spec = importlib.util.spec_from_file_location("licenses", REQUIREMENTS / "licenses.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_installed_packages_of_a_lock_are_allowed(licenses: ModuleType, device: str) -> None:
    packages = licenses.read_lock(REQUIREMENTS / f"{device}.txt")
    assert len(packages) > 150
    assert any(package.licence for package in packages)
    assert licenses.refused(packages) == []


def test_no_exception_is_left_over(licenses: ModuleType) -> None:
    locks = [licenses.read_lock(REQUIREMENTS / f"{device}.txt") for device in ("cpu", "gpu")]
    assert licenses.EXCEPTIONS.keys() <= {package.name for lock in locks for package in lock}


def test_the_list_is_that_of_the_lock(licenses: ModuleType) -> None:
    """`make audit DEVICE=cpu` writes it."""
    packages = licenses.read_lock(REQUIREMENTS / "cpu.txt")
    if missing := [package.name for package in packages if package.licence is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    assert (REQUIREMENTS / "licenses-cpu.txt").read_text() == licenses.table(packages)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_each_list_names_every_package_of_its_lock_with_a_licence(
    licenses: ModuleType, device: str
) -> None:
    rows = (REQUIREMENTS / f"licenses-{device}.txt").read_text().splitlines()[1:]
    packages = licenses.read_lock(REQUIREMENTS / f"{device}.txt")
    assert [row.split(": ")[0] for row in rows] == [f"{p.name}=={p.version}" for p in packages]
    assert not [row for row in rows if "not installed" in row]


def test_a_report_of_pip_describes_what_is_not_installed(
    licenses: ModuleType, tmp_path: Path
) -> None:
    named = {"name": "Not.There", "license": "MIT License\n\nCopyright"}
    classified = {"name": "other", "classifier": ["License :: OSI Approved :: ISC License (ISCL)"]}
    rows = [{"metadata": metadata} for metadata in (named, classified)]
    (tmp_path / "report.json").write_text(json.dumps({"install": rows}))
    (tmp_path / "lock.txt").write_text("not-there==1\nother==2\nclick==8.5.1\n")
    describe = licenses.read_report(tmp_path / "report.json")
    found = licenses.read_lock(tmp_path / "lock.txt", describe)
    assert [one.licence for one in found] == ["MIT", "ISC", None]


@pytest.mark.parametrize(
    ("fields", "licence", "allowed"),
    [
        ({"License-Expression": "MIT"}, "MIT", True),
        ({"License-Expression": "GPL-3.0-only", "License": "MIT"}, "GPL-3.0-only", False),
        ({"License-Expression": "MIT AND GPL-2.0-only"}, "MIT AND GPL-2.0-only", False),
        ({"License-Expression": "MIT OR GPL-2.0-only"}, "MIT OR GPL-2.0-only", True),
        ({"License-Expression": "(MIT OR GPL-2.0-only)"}, "(MIT OR GPL-2.0-only)", False),
        ({"License": "Apache 2.0"}, "Apache-2.0", True),
        ({"License": "Own terms", "Classifier": "License :: MIT License"}, "Own terms", False),
        ({"License": "MIT License\n\nCopyright"}, "MIT", True),
        ({"License": "Copyright\nAll rights", "Classifier": "License :: OSI Approved :: BSD License"}, "BSD", True),
        ({"Classifier": "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"}, "GNU General Public License v3 (GPLv3)", False),
        ({"Classifier": "Topic :: Security"}, "none named", False),
        ({"License-Expression": "LicenseRef-NVIDIA-Proprietary"}, "LicenseRef-NVIDIA-Proprietary", True),
        ({"License": "Apache License\n  Version 2.0"}, "Apache-2.0", True),
    ],
)  # fmt: skip
def test_what_a_package_says_of_itself(
    licenses: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, str],
    licence: str,
    allowed: bool,
) -> None:
    data = Message()
    for name, value in fields.items():
        data[name] = value
    monkeypatch.setattr(licenses, "metadata", lambda _: data)
    assert licenses.licence_of("x") == licence
    assert (licenses.refused([licenses.Locked("x", "1", licence)]) == []) is allowed


def test_a_refused_licence_is_named_and_fails(
    licenses: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(licenses, "HERE", tmp_path)
    (tmp_path / "cpu.txt").write_text(
        "# a lock\nclick==8.5.1\nnot-there==1.0 ; python_version > '3'\n"
    )
    assert licenses.main("cpu") == 0
    assert "not-there==1.0: not installed" in (tmp_path / "licenses-cpu.txt").read_text()
    monkeypatch.setattr(licenses, "ALLOWED", frozenset())
    assert licenses.main("cpu") == 1
    assert "click==8.5.1: BSD-3-Clause: not an allowed licence" in capsys.readouterr().err
