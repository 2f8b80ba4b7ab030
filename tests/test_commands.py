"""The commands beside `cai run`, through the command line: what they print and what they refuse."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fake_run import start
from suite_rows import hhh_row, write

from cai.cli import main


def cai(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(tmp_path_factory.mktemp("runs") / "done")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("form", ["trl", "hh-rlhf", "llm-swarm", "icai"])
def test_a_run_is_exported_with_its_counts(finished: Path, folder: Path, form: str) -> None:
    result = cai("export", finished, "--format", form, "--out", "out", "--jsonl")
    assert result.exit_code == 0, result.output
    assert "README.md" in result.output
    assert (folder / "out" / "README.md").is_file()
    assert " rows" in result.output
    again = cai("export", finished, "--format", form, "--out", "out")
    assert again.exit_code == 2
    assert "out: is there and is not empty" in again.output


@pytest.mark.parametrize("form", ["anthropic", "llm-swarm"])
def test_a_shipped_constitution_goes_out_and_comes_back(folder: Path, form: str) -> None:
    result = cai("export", "harmless.yaml", "--format", form, "--out", "out")
    assert result.exit_code == 0, result.output
    assert "16 entries" in result.output
    assert "not held: 16 × tags" in result.output
    back = cai("import", "out", "--out", "back", "--name", "mine", "--license", "MIT")
    assert back.exit_code == 0, back.output
    assert "constitution.yaml" in back.output
    checked = cai("check", "--constitution", "back/constitution.yaml", "--set", "engine.kind=fake")
    needs = "16 for preference" if form == "anthropic" else "lacks preference"
    assert needs in checked.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "nowhere", "--format", "trl", "--out", "o"], "nowhere"),
        (["export", "harmless.yaml", "--format", "icai", "--out", "o"], "icai"),
        (["import", "nowhere.json", "--out", "o"], "nowhere.json"),
        (["score", "nowhere", "--data", "x.jsonl"], "x.jsonl"),
        (["eval", "--suite", "hhh", "--data", "nowhere", "--model", "m"], "nowhere"),
        (["eval", "--suite", "hhh", "--data", "nowhere"], "--model NAME or --reward-model"),
        (["reproduce", "--data", "nowhere.jsonl"], "nowhere.jsonl: not there"),
        (["reproduce", "--data", "x", "--parts", "5"], "--parts 5: expected some of 1, 2, 3, 4"),
        (["reproduce", "--data", "x", "--set", "rl.step=1"], "rl.step"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    folder: Path, arguments: list[str], message: str
) -> None:
    result = cai(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert "Traceback" not in result.output


def test_a_suite_is_asked_and_shown(folder: Path) -> None:
    write(folder, "hhh", *(hhh_row(i, "AB"[i % 2]) for i in range(6)))
    command = ["eval", "--suite", "hhh", "--data", folder, "--model", "m", "--engine", "fake"]
    result = cai(*command, "--out", "result.json")
    assert result.exit_code == 0, result.output
    assert all(way in result.output for way in ("chat, as given  ", "chat, shuffled  "))
    assert "…" not in result.output
    assert len(json.loads(Path("result.json").read_text())["outcomes"]) == 12
    found = json.loads(cai(*command, "--json").stdout)
    assert [variant["shuffled"] for variant in found["variants"]] == [False, True]
    assert "outcomes" not in found
