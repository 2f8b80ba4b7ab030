"""The command line: what it prints, and how it refuses."""

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fake_run import start
from run_folder import HOSTILE, write_lines

from cai import opening, prepare
from cai.cli import Group, main
from cai.errors import CaiError, ConfigError
from cai.run import read_json, read_rows, write_json
from cai.view.terminal import clean

FAKE = ["--recipe", "quickstart", "--set", "engine.kind=fake"]


def cai(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder elsewhere than the project."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "done"
    assert cai("run", "--constitution", "harmless.yaml", *FAKE, "--out", str(out)).exit_code == 0
    return out


def test_help_names_every_command_and_the_exit_codes() -> None:
    result = cai("--help")
    for word in ("run", "check", "runs", "show", "model", "completion", "Exit codes: 0 done"):
        assert word in result.output
    assert cai("--version").output.startswith("cai, version ")


def test_check_prints_counts_and_generates_nothing(folder: Path) -> None:
    result = cai("check", "--constitution", "harmless.yaml", "--recipe", "quickstart", "--verbose")
    assert result.exit_code == 0
    assert "16 principles" in result.output
    assert "256 rows, 0 broken" in result.output
    assert '"rounds": 2' in result.output
    assert not list(folder.iterdir())


def test_run_names_its_folder_after_what_it_is(folder: Path) -> None:
    arguments = ["run", "--constitution", "harmless.yaml", *FAKE, "--until", "revise"]
    assert cai(*arguments).exit_code == 0
    assert cai(*arguments, "--seed", "1").exit_code == 0
    again = cai(*arguments)
    assert "nothing to do" in again.output
    names = [path.name for path in (folder / "runs").iterdir()]
    assert len(names) == 2
    assert all(name.startswith("harmless-quickstart-") for name in names)


def test_runs_lists_and_show_shows(finished: Path) -> None:
    listed = json.loads(cai("runs", "--folder", str(finished.parent), "--json").output)
    assert [(row["name"], row["status"]) for row in listed] == [("done", "done")]
    assert "done" in cai("runs", "--folder", str(finished.parent)).output
    summary = json.loads(cai("show", str(finished), "--json").output)
    prompt = next(row for row in summary["prompts"] if row["rounds"] == 2)
    shown = cai("show", str(finished), prompt["id"][:10]).output
    for word in ("response", "critique", "revision"):
        assert word in shown.lower()
    assert len(json.loads(cai("show", str(finished), prompt["id"], "--json").output)["rounds"]) == 2
    assert "evaluate" in cai("show", str(finished)).output


def test_no_runs_is_an_empty_list(folder: Path) -> None:
    assert cai("runs", "--json").output == "[]\n"
    assert cai("runs").exit_code == 0


LINE = '{"prompt": "a"}\n'
HALF = (
    'name: c\nversion: "1"\ndescription: d\nsource: s\nlicense: l\n'
    "principles: [{id: half, critique: c, preference: p}]\n"
)
BAD_INPUT: list[tuple[str, dict[str, str], list[str], int, str]] = [
    ("no constitution", {}, [], 2, "type: cai run --constitution harmless.yaml"),
    ("missing constitution", {}, ["--constitution", "harmles.yaml"], 2, "did you mean harmless.yaml"),
    ("constitution not YAML", {"c.yaml": "a: ["}, ["--constitution", "c.yaml"], 2, "c.yaml:2:1: not YAML"),
    ("constitution of other keys", {"c.yaml": "nam: x"}, ["--constitution", "c.yaml"], 2, "did you mean 'name'"),
    ("constitution is a folder", {"c.yaml/x": ""}, ["--constitution", "c.yaml"], 2, "not a file; expected a YAML file"),
    ("field lacking", {"c.yaml": HALF}, ["--constitution", "c.yaml"], 2, "'half' lacks revision"),
    ("missing config", {}, ["--constitution", "harmless", "--config", "x.yaml"], 2, "x.yaml: cannot be read"),
    ("malformed config", {"x.yaml": "revise: [}"}, ["--constitution", "harmless", "--config", "x.yaml"], 2, "x.yaml:1:"),
    ("unknown recipe", {}, ["--constitution", "harmless", "--recipe", "pape"], 2, "no such recipe"),
    ("unknown setting", {}, ["--constitution", "harmless", "--set", "sfd.use=all"], 2, "did you mean 'sft'"),
    ("unknown stage", {}, ["--constitution", "harmless", "--until", "rlhf"], 2, "the stages are revise"),
    ("missing prompts", {}, ["--constitution", "harmless", "--prompts", "p.jsonl"], 2, "p.jsonl: no such prompt"),
    ("broken line", {"p.jsonl": LINE + "{oops\n"}, ["--constitution", "harmless", "--prompts", "p.jsonl"], 2, "p.jsonl:2: not a JSON object"),
    ("row without prompt", {"p.jsonl": LINE + '{"text": "b"}\n'}, ["--constitution", "harmless", "--prompts", "p.jsonl"], 2, "p.jsonl:2: none of the fields"),
    ("empty prompts", {"p.jsonl": ""}, ["--constitution", "harmless", "--prompts", "p.jsonl"], 2, "no prompts in it"),
    ("bad template", {"prompts/revise.jinja": "{{ nothing }}"}, ["--constitution", "harmless"], 2, "revise.jinja"),
    ("not a run", {"out/notes.txt": "mine"}, ["--constitution", "harmless", "--out", "out"], 2, "is no run of cai"),
    ("newer format", {"out/manifest.json": '{"format": 99, "cai": "9.0"}'}, ["--constitution", "harmless", "--out", "out"], 2, "pip install -U cai-toolkit"),
    ("foreign manifest", {"out/manifest.json": '{"name": "web app"}'}, ["--constitution", "harmless", "--out", "out"], 2, "not one of cai"),
    ("field of cai's own", {}, ["--constitution", "harmless", "--set", "sft.trainer.output_dir=x"], 2, "is set by cai itself; remove it"),
    ("too few prompts", {"p.jsonl": LINE}, ["--constitution", "harmless", "--prompts", "p.jsonl"], 2, "2 are needed"),
    ("base is no run", {}, ["--constitution", "harmless", "--base", "none"], 2, "no run there"),
    ("out cannot be made", {"file": "x"}, ["--constitution", "harmless", "--out", "file/run"], 2, "cannot be made"),
    ("out is a file", {"file": "x"}, ["--constitution", "harmless", "--out", "file"], 2, "is no run of cai"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "arguments", "code", "says"),
    [row[1:] for row in BAD_INPUT],
    ids=[row[0] for row in BAD_INPUT],
)
def test_bad_input_is_one_clear_complaint(
    folder: Path, files: dict[str, str], arguments: list[str], code: int, says: str
) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    before = sorted(str(path) for path in folder.rglob("*"))
    result = cai("run", "--set", "engine.kind=fake", *arguments)
    assert result.exit_code == code
    assert says in result.output
    assert "Traceback" not in result.output
    complaint = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert len(complaint) == 1
    assert sorted(str(path) for path in folder.rglob("*")) == before, "nothing half-written"


REAL_INPUT: list[tuple[str, list[str], int, str]] = [
    ("no such model", ["--model", "./nothing"], 2, "no such model"),
    ("no such hub id", ["--model", "nobody/no-model-of-this-name"], 2, "hub"),
    ("context too long", ["--set", "engine.max_context=100000"], 2, "holds 8192 tokens"),
    ("rows too long", ["--set", "sft.max_length=9000"], 2, "holds 8192 tokens"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [row[1:] for row in REAL_INPUT],
    ids=[row[0] for row in REAL_INPUT],
)
def test_a_model_that_cannot_be_used(
    folder: Path, embedded_model: Path, arguments: list[str], code: int, says: str
) -> None:
    result = cai("run", "--constitution", "harmless.yaml", "--recipe", "quickstart", *arguments)
    assert (result.exit_code, says in result.output) == (code, True), result.output
    assert not list(folder.iterdir())


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "m").mkdir()
    (folder / "m" / "config.json").write_text("{}")
    (folder / "m" / "pytorch_model.bin").write_bytes(b"pickle")
    result = cai("run", "--constitution", "harmless.yaml", "--model", "./m")
    assert result.exit_code == 2
    assert "no *.safetensors" in result.output


def test_a_full_disk_is_found_before_the_run(
    folder: Path, embedded_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(folder)._replace(free=1000)
    monkeypatch.setattr(opening.shutil, "disk_usage", lambda _: usage)
    result = cai("run", "--constitution", "harmless.yaml", "--recipe", "quickstart")
    assert result.exit_code == 75
    assert "GiB free" in result.output
    assert not list(folder.iterdir())


def test_no_vllm_names_the_extra(
    folder: Path, embedded_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        prepare.importlib.util, "find_spec", lambda name: None if name == "vllm" else found(name)
    )
    result = cai("run", "--constitution", "harmless.yaml", "--recipe", "quickstart")
    assert result.exit_code == 2
    assert "cai-toolkit[vllm]" in result.output
    assert "engine.kind=transformers" in result.output
    assert not list(folder.iterdir())


def test_a_constitution_needs_only_what_the_planned_stages_need(folder: Path) -> None:
    (folder / "c.yaml").write_text(HALF.replace("preference: p", "revision: r"))
    arguments = ["run", "--constitution", "c.yaml", *FAKE, "--out", "r"]
    assert cai(*arguments, "--until", "sample").exit_code == 0
    result = cai(*arguments)
    assert result.exit_code == 2
    assert "stage label needs preference" in result.output


def test_a_run_may_be_made_in_the_folder_one_stands_in(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "link").symlink_to(folder / "empty")
    arguments = ["run", "--constitution", "harmless", *FAKE, "--until", "revise", "--out", "link"]
    assert cai(*arguments).exit_code == 0
    assert (folder / "empty" / "manifest.json").is_file()


def test_foreign_manifests_are_no_runs(finished: Path, folder: Path) -> None:
    (folder / "runs" / "app").mkdir(parents=True)
    (folder / "runs" / "app" / "manifest.json").write_text('["web app"]')
    assert cai("runs", "--json").output == "[]\n"


def test_somebody_elses_run_is_refused(finished: Path) -> None:
    before = (finished / "config.json").read_text()
    result = cai("run", "--constitution", "helpful_harmless.yaml", *FAKE, "--out", str(finished))
    assert result.exit_code == 2
    assert "constitution ('harmless.yaml' → 'helpful_harmless.yaml')" in result.output
    assert (finished / "config.json").read_text() == before


def test_skip_bad_counts_broken_lines(folder: Path) -> None:
    rows = "".join(json.dumps({"prompt": f"question {i}"}) + "\n" for i in range(60))
    (folder / "p.jsonl").write_text(rows + "{oops\n")
    arguments = ["run", "--constitution", "harmless", *FAKE, "--prompts", "p.jsonl", "--out", "r"]
    assert cai(*arguments).exit_code == 2
    result = cai(*arguments, "--skip-bad", "--until", "revise")
    assert result.exit_code == 0
    assert "61 rows, 1 broken" in result.output
    sources = read_json(folder / "r" / "manifest.json")["sources"]
    assert {row["source"]: row["n_bad"] for row in sources if row["n_bad"]} == {"p.jsonl": 1}


@pytest.mark.parametrize("arguments", [["show", "none"], ["show", "RUN", "zzzz"]])
def test_show_refuses_what_is_not_there(finished: Path, arguments: list[str]) -> None:
    result = cai(*(str(finished) if word == "RUN" else word for word in arguments))
    assert result.exit_code == 2
    assert "Error: " in result.output


def test_an_error_prints_no_control_character() -> None:
    group = Group()

    @group.command()
    def fail() -> None:
        raise ConfigError(f"{HOSTILE}\n\tsecond line \x85\u2028\u200f\ud800")

    output = CliRunner().invoke(group, ["fail"]).output
    assert r"\x1b]52;c;cm0gLXJm\x07" in output
    assert "\n\tsecond line" in output, "our own line ends stay"
    assert clean(output) == output


def test_names_of_a_run_are_cleaned_in_complaints(tmp_path: Path) -> None:
    run = tmp_path / "run"
    start(run, until="revise")
    prompts = read_rows(run / "inputs" / "prompts.jsonl")
    write_lines(run / "inputs" / "prompts.jsonl", [p | {"id": p["id"] + HOSTILE} for p in prompts])
    rows = read_rows(run / "01-revise" / "records.jsonl")
    rows = [row | {"prompt_id": row["prompt_id"] + HOSTILE} for row in rows]
    write_lines(run / "01-revise" / "records.jsonl", rows)
    for arguments in (["show", str(run), "zzz"], ["compare", str(run), str(run), "zzz"]):
        result = cai(*arguments)
        assert result.exit_code == 2
        assert r"\u202e" in result.output
        assert clean(result.output) == result.output


def test_every_error_has_a_documented_exit_code() -> None:
    def tree(cls: type[CaiError]) -> list[type[CaiError]]:
        return [cls, *(inner for sub in cls.__subclasses__() for inner in tree(sub))]

    documented = " ".join(cai("--help").output.split())
    for cls in tree(CaiError):
        assert f"{cls.exit_code} " in documented
        assert cls.__doc__


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_that_then_goes_on(
    folder: Path, embedded_model: Path, number: int, code: int
) -> None:
    command = [sys.executable, "-m", "cai", "run", "--constitution", "harmless.yaml"]
    command += ["--recipe", "quickstart", "--until", "revise", "--out", "r"]
    command += ["--set", "engine.kind=transformers"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        manifest = folder / "r" / "manifest.json"
        deadline = time.monotonic() + 60
        while not (manifest.is_file() and read_json(manifest)["stages"]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(2)
        child.send_signal(number)
        _, errors = child.communicate(timeout=30)
    assert child.returncode == code
    assert "to go on, type: cai run --constitution" in errors
    assert "Traceback" not in errors
    assert read_json(manifest)["status"] == "stopped"


def loaded_by(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "command", [["--help"], ["check", "--constitution", "harmless.yaml", "--recipe", "quickstart"]]
)
def test_light_commands_import_nothing_heavy(command: list[str]) -> None:
    code = f"from cai.cli import main\nmain({command!r}, standalone_mode=False)"
    heavy = {"torch", "transformers", "trl", "peft", "vllm", "datasets", "matplotlib", "numpy"}
    assert not loaded_by(code) & heavy


def test_completion_scripts() -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_CAI_COMPLETE" in cai("completion", shell).output


def test_a_manifest_that_is_torn_is_named(folder: Path) -> None:
    write_json(folder / "manifest.json", {})
    (folder / "manifest.json").write_text('{"format": ')
    result = cai("show", str(folder))
    assert result.exit_code == 2
    assert "manifest.json" in result.output
