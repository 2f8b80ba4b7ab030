"""A run of this format version, kept as it was written: what reads runs reads it for ever."""

import asyncio
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from suite_rows import hhh_row, write

from cai import cli
from cai.manifest import FORMAT, Manifest
from cai.run import read_json, write_json, write_rows
from cai.verify import verify
from cai.view.browse import Browser
from cai.view.choosing import Choice, make_chains
from cai.view.transcripts import load_transcripts

GOLDEN = Path(__file__).parent / "golden"
NAME = f"run-{FORMAT}"
PROMPT = "dab35126edc604fae0ba"
FAKE = ("--set", "engine.kind=fake")
READING = (
    ("show", NAME, "--no-pager"),
    ("show", NAME, "--json"),
    ("show", NAME, PROMPT, "--no-pager"),
    ("show", NAME, "--html", "page.html"),
    ("compare", NAME, NAME),
    ("compare", NAME, NAME, PROMPT),
    ("compare", NAME, NAME, "--html", "page.html"),
    *(("export", NAME, "--format", form, "--out", "out", "--jsonl")
      for form in ("trl", "hh-rlhf", "llm-swarm", "icai")),
    ("plan", "--config", "config.yaml", "--base", NAME),
    ("verify", NAME),
    ("judge-test", NAME, "--data", NAME, *FAKE),
    ("run", "--config", "config.yaml", "--base", NAME, "--out", "next"),
    ("run", "--config", "config.yaml", "--out", NAME),
)  # fmt: skip
REFUSING = (
    *READING,
    ("score", NAME, "--data", "pairs.jsonl"),
    ("annotate", "import", "red_team.jsonl", NAME),
    ("eval", "--suite", "hhh", "--data", ".", "--reward-model", NAME),
    ("judge-test", "some-model", "--data", NAME, *FAKE),
)


def cai(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments, catch_exceptions=False)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, beside what it was made from: the templates of its time too."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(GOLDEN / NAME, NAME)
    shutil.copytree(GOLDEN / "own", ".", dirs_exist_ok=True)
    for pattern in ("*.jinja", "exemplars_*.yaml"):
        for path in Path(NAME, "inputs").glob(pattern):
            shutil.copyfile(path, path.name)
    return Path(NAME)


def test_the_golden_run_is_small_and_as_it_was_written() -> None:
    files = [path for path in (GOLDEN / NAME).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000
    assert verify(GOLDEN / NAME) == []


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_every_command_reads_it(run: Path, arguments: tuple[str, ...]) -> None:
    result = cai(*arguments)
    assert result.exit_code == 0, result.output
    assert verify(run) == []


def test_it_is_listed_and_browsed(run: Path) -> None:
    (row,) = json.loads(cai("runs", "--folder", ".", "--json").output)
    assert (row["name"], row["status"], len(row["stages_done"])) == (NAME, "done", 7)
    app = Browser(NAME, make_chains(load_transcripts(run)), Choice())

    async def look() -> None:
        async with app.run_test() as pilot:
            await pilot.pause()

    # in a thread: a browser of other tests may have its own loop here
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(look())).result()
    assert {chain.transcript.prompt.id for chain in app.chains} >= {PROMPT}


def stop(run: Path) -> None:
    """Leave a run as a kill in its label stage does: a line cut, and nothing after it."""
    for folder in ("05-reward", "06-rl", "07-evaluate"):
        shutil.rmtree(run / folder)
    label = run / "04-label"
    (label / "done.json").unlink()
    (label / "preferences.jsonl").unlink()
    records = label / "records.jsonl"
    records.write_bytes(records.read_bytes()[:-1000])
    manifest = Manifest.load(run)
    del manifest.data["stages"][4:]
    manifest.begin("label", "04-label")


def test_a_stopped_one_goes_on_to_the_same_end(run: Path) -> None:
    whole = {path.name: path.read_bytes() for path in (run / "04-label").glob("*.jsonl")}
    rewards = (run / "05-reward" / "rows.jsonl").read_bytes()
    stop(run)
    result = cai("run", "--config", "config.yaml", "--out", NAME)
    assert result.exit_code == 0, result.output
    assert verify(run) == []
    for name, lines in whole.items():
        found = (run / "04-label" / name).read_bytes()
        assert sorted(found.splitlines()) == sorted(lines.splitlines())
    assert (run / "05-reward" / "rows.jsonl").read_bytes() == rewards


@pytest.mark.parametrize("arguments", REFUSING, ids=" ".join)
def test_a_newer_format_is_refused(run: Path, arguments: tuple[str, ...]) -> None:
    newer = {"format": FORMAT + 1, "cai": "9.8.7", "other": "than today"}
    write_json(run / "manifest.json", newer)
    write(run.parent, "hhh", hhh_row(0, "A"))
    write_rows(Path("pairs.jsonl"), [{"prompt": "How?", "chosen": "So.", "rejected": "No."}])
    result = cai(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.output.splitlines() if "rror" in line]
    assert f"{NAME}: was written in format {FORMAT + 1} by cai 9.8.7; this cai reads " in line
    assert line.endswith(f"format {FORMAT}: pip install -U cai-toolkit")
    assert read_json(run / "manifest.json") == newer


def test_a_newer_format_is_listed_as_such(run: Path) -> None:
    newer = {"format": FORMAT + 1, "cai": "9.8.7"}
    Path("newer").mkdir()
    write_json(Path("newer/manifest.json"), newer)
    rows = json.loads(cai("runs", "--folder", ".", "--json").output)
    assert {row["name"]: row["status"] for row in rows} == {
        NAME: "done",
        "newer": f"format {FORMAT + 1}, for cai 9.8.7",
    }
    assert "format" in cai("runs", "--folder", ".").output
