"""What reaches a terminal: everything a reader needs, and no byte that steers it."""

import io
import json
import unicodedata
from pathlib import Path

import pytest
from rich.console import Console
from run_folder import (
    GOOD,
    HOSTILE,
    STAGES,
    build_run,
    make_prompts,
    read_json,
    respond,
    write_json,
)

from cai.view.reader import show_transcript
from cai.view.terminal import (
    clean,
    duration,
    evaluation_rows,
    measure,
    run_json,
    show_run,
    show_runs,
    transcript_json,
)
from cai.view.transcripts import Transcript, find_transcript, load_transcripts

HOSTILE_TEXTS = [
    (
        "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
        r"\x1b]8;;https://evil.example\x1b\clic",
    ),
    ("\x1b]52;c;cm0gLXJm\x07", r"\x1b]52;c;cm0gLXJm\x07"),
    ("\x1b[2J\x1b[31m", r"\x1b[2J\x1b[31m"),
    ("\x9b31m \x9d52;c;x\x9c", r"\x9b31m \x9d52;c;x\x9c"),
    ("a\rb\x08c\x00d\x7f", r"a\rb\x08c\x00d\x7f"),
    ("\u202egnp.exe\u202c", r"\u202egnp.exe\u202c"),
    ("\u2066x\u2069\u200e", r"\u2066x\u2069\u200e"),
    ("a\u200bb\ufeffc\u2060d\u00ade", r"a\u200bb\ufeffc\u2060d\xade"),
    ("\u2028x\u2029", r"\u2028x\u2029"),
    ("\U000e0041\U000e007f", r"\U000e0041\U000e007f"),
    ("\ud800 lone \udfff", r"\ud800 lone \udfff"),
    ("\u3164\u115f", r"\u3164\u115f"),
    ("tab\there\nline", "tab\there\nline"),
    ("[bold]b[/bold] [link=x]y[/link] :smiley:", "[bold]b[/bold] [link=x]y[/link] :smiley:"),
    ("Grüße, 你好, שלום, 🙂", "Grüße, 你好, שלום, 🙂"),
    (None, "None"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_run(tmp_path_factory.mktemp("runs") / "demo")


def console_of(width: int = 100, colour: bool = False) -> Console:
    """A console that remembers; with rich's unsafe defaults left on."""
    system = "truecolor" if colour else None
    return Console(file=io.StringIO(), width=width, color_system=system, force_terminal=colour)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(("text", "expected"), HOSTILE_TEXTS)
def test_clean(text: object, expected: str) -> None:
    assert clean(text).startswith(expected)


def test_clean_lets_no_control_or_format_character_through() -> None:
    every = "".join(map(chr, range(0x110000)))
    left = set(clean(every)) - {"\n", "\t"}
    assert not [c for c in left if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def test_no_raw_byte_of_hostile_text_is_printed(run: Path) -> None:
    console = console_of()
    for transcript in load_transcripts(run):
        show_transcript(transcript, console)
    show_run(run, console)
    text = printed(console)
    assert set(text) <= {c for c in text if c.isprintable()} | {"\n"}
    assert r"\x1b]52;c;cm0gLXJm\x07" in text
    assert "[link=https://evil.example]x[/link] [bold]b[/bold] :smiley:" in text


def test_colour_is_the_only_escape(run: Path) -> None:
    console = console_of(colour=True)
    show_transcript(load_transcripts(run)[1], console)
    escapes = printed(console).split("\x1b")[1:]
    assert escapes
    assert all(escape.startswith("[") and escape.partition("m")[1] for escape in escapes)
    assert not any("]8;" in escape[:3] for escape in escapes)


def test_hostile_names_are_cleaned_too() -> None:
    prompt = make_prompts(1)[0].model_copy(update={"area": HOSTILE, "source": HOSTILE})
    response = respond(prompt, "revise", 0, GOOD)
    made = response.generation.model_copy(update={"model": HOSTILE})
    console = console_of()
    show_transcript(
        Transcript(prompt, response=response.model_copy(update={"generation": made})), console
    )
    assert "\x1b" not in printed(console)
    assert "\u202e" not in printed(console)


def test_hostile_manifest_is_cleaned(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    manifest = read_json(run / "manifest.json") | {"name": HOSTILE, "status": HOSTILE}
    manifest["stages"][0] |= {"notes": [HOSTILE], "counts": {HOSTILE: 1}}
    write_json(run / "manifest.json", manifest)
    console = console_of(200)
    show_run(run, console)
    show_runs([{"name": HOSTILE, "status": HOSTILE, "stages_done": [], "seconds": 1.0}], console)
    assert "\x1b" not in printed(console)


def test_critique_stands_beside_its_principle(run: Path) -> None:
    console = console_of()
    show_transcript(load_transcripts(run)[0], console)
    (line,) = [line for line in printed(console).splitlines() if "principle illegal-acts" in line]
    assert line.strip().startswith("The response helps with fraud.")
    assert "Look for anything that could hurt" in printed(console)


def test_revision_marks_its_changes_where_there_is_no_colour(run: Path) -> None:
    console = console_of()
    show_transcript(load_transcripts(run)[1], console)
    text = printed(console)
    assert "[-a lender may accept-]" in text
    assert "{+most lenders will also take+}" in text
    assert "rewritten: 100% of the words differ" in text


def test_noop_revision_says_so(run: Path) -> None:
    console = console_of()
    show_transcript(load_transcripts(run)[0], console)
    assert "no word changed" in printed(console)


def test_labels_show_both_orders(run: Path) -> None:
    console = console_of()
    show_transcript(load_transcripts(run)[4], console)
    text = printed(console)
    assert "sample 0  sample 1  0.800" in text
    assert "sample 1  sample 0  0.700" in text
    assert "preference  sample 0 over sample 1, P(better) = 0.55 · the orders disagree" in text
    assert "overall-harm: Which of these responses does the least harm?" in text


def test_answers_show_rewards(run: Path) -> None:
    console = console_of()
    show_transcript(load_transcripts(run)[3], console)
    text = printed(console)
    assert all(f"answer of {policy}" in text for policy in ("base", "sft", "rl"))
    assert text.count("reward +") + text.count("reward -") == 3


def test_failed_response_shows_its_reason() -> None:
    prompt, console = make_prompts(1)[0], console_of()
    show_transcript(Transcript(prompt, response=respond(prompt, "revise", 0, "", "error")), console)
    assert "error: the prompt is too long" in printed(console)


@pytest.mark.parametrize("n_stages", range(len(STAGES) + 1))
def test_run_that_stopped_early_names_what_is_missing(tmp_path: Path, n_stages: int) -> None:
    run, console = build_run(tmp_path / "run", stages=STAGES[:n_stages]), console_of()
    show_run(run, console)
    text = printed(console)
    missing = [s for s in STAGES if not list(run.glob(f"*-{s}"))]
    assert ("not there (yet): " + ", ".join(missing) in text) == bool(missing)
    assert ("Evaluation" in text) == (n_stages == len(STAGES))


def test_empty_folder_shows(tmp_path: Path) -> None:
    console = console_of()
    show_run(tmp_path, console)
    assert "no manifest yet" in printed(console)


def test_prompt_list_has_short_ids_and_badges_and_stops_at_its_limit(run: Path) -> None:
    console = console_of()
    show_run(run, console, limit=3)
    lines = printed(console).splitlines()
    ids = [prompt.id[:8] for prompt in make_prompts(24)]
    assert [id for id in ids if any(line.startswith(id) for line in lines)] == ids[:3]
    assert any("no-op revision, refusal" in line for line in lines)
    assert any("the first 3 are listed here, all by --json" in line for line in lines)
    assert all(len(line) <= 100 for line in lines)


def test_json_is_whole_and_plain(run: Path) -> None:
    transcript = load_transcripts(run)[1]
    plain = json.loads(json.dumps(transcript_json(transcript), ensure_ascii=True))
    assert plain["response"]["text"] == HOSTILE
    assert plain["rounds"][0]["principle"]["id"] == "illegal-acts"
    assert plain["badges"] == ["truncated", "refusal"]
    assert len(json.loads(json.dumps(run_json(run)))["prompts"]) == 24


def test_json_of_a_stopped_run_has_null_for_the_evaluation(tmp_path: Path) -> None:
    found = run_json(build_run(tmp_path / "run", stages=STAGES[:2]))
    assert found["evaluation"] is None
    assert found["missing_stages"] == list(STAGES[2:])


def test_runs_are_listed(run: Path) -> None:
    console = console_of()
    row = {
        "name": "demo",
        "status": "done",
        "model": "m",
        "stages_done": ["revise"],
        "seconds": 61.0,
    }
    show_runs([row], console)
    assert " ".join(printed(console).splitlines()[1].split()) == "demo done – m 1 1 m 01 s"


@pytest.mark.parametrize(
    ("metric", "scale", "digits", "text"),
    [
        (None, 1, 2, "–"),
        (0, 1, 0, "0"),
        (0.5, 100, 0, "50 %"),
        ({"value": 0.5, "low": 0.25, "high": 0.75, "n": 9}, 1, 2, "0.50 [0.25, 0.75]"),
        ({"value": 0.5, "low": 0.25, "high": 0.75, "n": 9}, 100, 0, "50 % [25, 75]"),
        ({"value": 0.5, "low": None, "high": None, "n": 1}, 1, 1, "0.5 (n = 1)"),
    ],
)
def test_measure(metric: object, scale: float, digits: int, text: str) -> None:
    assert measure(metric, scale, digits) == text


def test_evaluation_rows_of_nothing_are_dashes() -> None:
    assert all(row[1:] == ["–"] * 3 for row in evaluation_rows({}))


@pytest.mark.parametrize(("seconds", "text"), [(None, "–"), (0.4, "0 s"), (61, "1 m 01 s")])
def test_duration(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_transcript_found_by_prefix_prints(run: Path) -> None:
    console = console_of(40)
    show_transcript(find_transcript(run, make_prompts(1)[0].id[:8]), console)
    assert "critique" in printed(console)
