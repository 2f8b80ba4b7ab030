"""`cai score`: rows in every form, broken lines, the summary, and a real child process."""

import gzip
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from tiny_model import turn

from cai.conversations import conversations
from cai.errors import ConfigError, TrainError
from cai.manifest import FORMAT
from cai.records import Message
from cai.run import read_rows
from cai.score import (
    Scored,
    ScoreOptions,
    check_out,
    find_reward_model,
    output_row,
    print_score,
    read_items,
    score_file,
    summary,
)
from cai.sources import Row, SourceCount

pytest_plugins = ["tiny_fixtures"]
# torch, transformers, peft and trl warn about themselves
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("quiet")]

ASKED, YES, NO = turn("user", "How?"), turn("assistant", "Yes."), turn("assistant", "No.")
DIALOGUE = "\n\nHuman: How?\n\nAssistant: Yes."


# --- rows


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "How?", "response": "Yes."}, [[ASKED, YES]]),
        ({"prompt": [ASKED], "response": "Yes."}, [[ASKED, YES]]),
        ({"prompt": [ASKED], "response": [YES]}, [[ASKED, YES]]),
        ({"prompt": "\n\nHuman: How?\n\nAssistant:", "response": "Yes."}, [[ASKED, YES]]),
        (
            {"prompt": [turn("system", "Be."), ASKED], "response": ""},
            [[turn("system", "Be."), ASKED, turn("assistant", "")]],
        ),
        ({"messages": [ASKED, NO, ASKED, YES]}, [[ASKED, NO, ASKED, YES]]),
        ({"messages": DIALOGUE}, [[ASKED, YES]]),
        (
            {"chosen": DIALOGUE, "rejected": DIALOGUE.replace("Yes", "No")},
            [[ASKED, YES], [ASKED, NO]],
        ),
        ({"chosen": [ASKED, YES], "rejected": [ASKED, NO]}, [[ASKED, YES], [ASKED, NO]]),
        ({"prompt": "How?", "chosen": "Yes.", "rejected": "No."}, [[ASKED, YES], [ASKED, NO]]),
        ({"prompt": [ASKED], "chosen": [YES], "rejected": [NO]}, [[ASKED, YES], [ASKED, NO]]),
        # whole dialogues beside a prompt that they repeat
        (
            {"prompt": "How?", "chosen": [ASKED, YES], "rejected": DIALOGUE},
            [[ASKED, YES], [ASKED, YES]],
        ),
        (
            {
                "prompt": "\n\nHuman: How?\n\nAssistant:",
                "chosen": DIALOGUE,
                "rejected": [ASKED, NO],
            },
            [[ASKED, YES], [ASKED, NO]],
        ),
        (
            {
                "prompt": " How? ",
                "chosen": [turn("system", "Be."), ASKED, YES],
                "rejected": DIALOGUE,
            },
            [[turn("system", "Be."), ASKED, YES], [ASKED, YES]],
        ),
        ({"prompt": "", "chosen": [ASKED, YES], "rejected": DIALOGUE}, [[ASKED, YES]] * 2),
        # what follows a prompt, though it looks like a dialogue
        (
            {"prompt": [turn("system", "Be.")], "chosen": [ASKED, YES], "rejected": DIALOGUE},
            [[turn("system", "Be."), ASKED, YES]] * 2,
        ),
        (
            {"prompt": [ASKED, NO], "chosen": [ASKED, YES], "rejected": [turn("user", "And?"), NO]},
            [[ASKED, NO, ASKED, YES], [ASKED, NO, turn("user", "And?"), NO]],
        ),
        (
            {
                "prompt": "Hm?",
                "chosen": f"\n\nAssistant: No.{DIALOGUE}",
                "rejected": [NO, ASKED, YES],
            },
            [[turn("user", "Hm?"), NO, ASKED, YES]] * 2,
        ),
        ({"prompt": "How?", "response": None, "messages": [ASKED, YES]}, [[ASKED, YES]]),
    ],
)
def test_rows_in_every_form(row, expected):
    found = conversations(Row("f:1", row))
    assert found == tuple(tuple(map(Message.model_validate, turns)) for turns in expected)


BROKEN = [
    ({"prompt": "How?"}, r"f:1: expected prompt and response, .* \(it has: prompt\)"),
    ({"chosen": DIALOGUE}, r"it has: chosen"),
    ({}, r"it has: nothing"),
    ({"messages": [ASKED]}, r"f:1: messages: expected an assistant's turn at the end"),
    ({"messages": 3}, r"f:1: messages: expected text or a list of turns"),
    ({"messages": []}, r"no turn of a human's"),
    ({"chosen": "Yes.", "rejected": "No."}, r"f:1: chosen: expected an assistant's turn"),
    ({"chosen": DIALOGUE, "rejected": [ASKED]}, r"f:1: rejected: expected an assistant's turn"),
    ({"prompt": [ASKED, NO], "response": "Yes."}, r"the prompt ends with an assistant's turn"),
    (
        {"prompt": "Hm?", "chosen": DIALOGUE, "rejected": "No."},
        r"f:1: chosen: begins with the user's turn and the row's prompt ends with the user's",
    ),
    (
        {"prompt": [ASKED, NO], "chosen": "Yes.", "rejected": [YES]},
        r"f:1: chosen: the prompt ends with an assistant's turn",
    ),
    (
        {"prompt": [ASKED, NO], "chosen": [YES], "rejected": [NO]},
        r"f:1: chosen: begins with the assistant's turn",
    ),
    (
        {"prompt": "Hm?", "chosen": [turn("system", "Be."), ASKED, YES], "rejected": [NO]},
        r"f:1: chosen: begins with the system's turn",
    ),
    ({"prompt": "How?", "chosen": [], "rejected": [NO]}, r"an assistant's turn at the end"),
    ({"prompt": "How?", "response": 3}, r"expected text or a list of turns"),
    ({"prompt": "How?", "response": []}, r"expected an assistant's turn at the end"),
    ({"prompt": "How?", "response": [{"role": "judge"}]}, r"a turn needs role"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "message"), BROKEN)
def test_a_broken_row_says_what_was_expected(row, message):
    with pytest.raises(ConfigError, match=message):
        conversations(Row("f:1", row))


def write_lines(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_broken_lines_are_named_or_counted(tmp_path):
    good = json.dumps({"prompt": "How?", "response": "Yes."})
    lines = [good, "{oops", json.dumps({"prompt": "How?"}), "", good]
    path = write_lines(tmp_path / "rows.jsonl", *lines)
    with pytest.raises(ConfigError, match=r"rows.jsonl:2: not a JSON object .*--skip-bad"):
        read_items(path, SourceCount("", "red_team"), False)
    count = SourceCount("", "red_team")
    assert [item.line for item in read_items(path, count, True)] == [1, 5]
    assert (count.n_rows, count.n_bad) == (5, 3)
    path = write_lines(tmp_path / "one.jsonl", good, lines[2])
    with pytest.raises(ConfigError, match=r"one.jsonl:2: expected prompt .*--skip-bad"):
        read_items(path, SourceCount("", "red_team"), False)


@pytest.mark.parametrize("line", ["{oops", ""])
def test_a_file_without_rows_is_refused(tmp_path, line):
    path = write_lines(tmp_path / "rows.jsonl", line) if line else tmp_path / "rows.jsonl"
    path.touch()
    with pytest.raises(ConfigError, match=r"rows.jsonl: nothing to score"):
        read_items(path, SourceCount("", "red_team"), True)
    with pytest.raises(ConfigError, match=r"no.jsonl: cannot be read"):
        read_items(tmp_path / "no.jsonl", SourceCount("", "red_team"), True)


def test_real_dialogues_are_read_whole(shared_data):
    path, count = shared_data / "hh-rlhf" / "harmless-base.jsonl.gz", SourceCount("", "red_team")
    items = read_items(path, count, True)
    assert len(items) + count.n_bad == count.n_rows > 1000
    assert count.n_bad <= 0.01 * count.n_rows
    assert all(len(item.conversations) == 2 for item in items)


# --- the summary


def test_the_summary_counts_and_estimates():
    scored = [
        Scored(1, (1.0,), False),
        Scored(2, (3.0,), True),
        Scored(3, (None,), False),
        Scored(4, (2.0, 1.0), False),
        Scored(5, (1.0, 1.0), True),
        Scored(6, (0.0, 3.0), False),
        Scored(7, (9.0, None), False),
    ]
    found = summary(scored)
    assert (found["n_scored"], found["n_not_finite"], found["n_truncated"]) == (5, 2, 2)
    assert (found["reward"]["value"], found["reward"]["n"]) == (2, 2)
    assert found["reward"]["high"] == pytest.approx(2 + 12.7062)
    assert found["accuracy"]["value"] == 0.5
    assert (found["accuracy"]["low"], found["accuracy"]["high"]) == pytest.approx(
        (0.12, 0.88), abs=0.01
    )
    assert found["gap"]["value"] == pytest.approx(-2 / 3)
    means = found["reward_chosen"]["value"], found["reward_rejected"]["value"]
    assert means == pytest.approx((1, 5 / 3))
    assert summary(scored[2:3])["reward"] is summary(scored[:1])["accuracy"] is None


def test_an_output_row_is_named_by_what_it_holds():
    assert output_row(Scored(3, (0.5,), True)) == {"line": 3, "reward": 0.5, "truncated": True}
    pair = {"line": 4, "reward_chosen": 1.0, "reward_rejected": None, "truncated": False}
    assert output_row(Scored(4, (1.0, None), False)) == pair


def test_the_summary_is_printed_without_markup():
    place = {"model": "/m", "data": "[red]x\x1b.jsonl", "out": None, "max_length": 64, "n_bad": 1}
    found = place | {"n_rows": 1200} | summary([Scored(1, (1.0, 0.0), True)])
    file = io.StringIO()
    print_score(found, Console(file=file, width=40))
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("[red]x\\x1b.jsonl: 1,200 rows, 1 scored, 1 broken, 0 without")
    assert lines[2:] == [
        "reward of chosen: 1.00 (n = 1)",
        "reward of rejected: 0.00 (n = 1)",
        "gap: 1.00 (n = 1)",
        "accuracy: 100 % [21, 100] of 1",
    ]


# --- model and output


def test_a_language_model_is_no_reward_model(tiny):
    with pytest.raises(ConfigError, match=r"is not a reward model; expected"):
        find_reward_model(tiny)


def test_the_reward_model_of_a_run(reward_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "manifest.json").write_text(json.dumps({"format": FORMAT, "cai": "0"}))
    with pytest.raises(ConfigError, match=r"no reward model in this run"):
        find_reward_model("mine")
    checkpoint = run / "05-reward" / "checkpoint"
    shutil.copytree(reward_path, checkpoint)
    assert find_reward_model("mine").path == find_reward_model(str(run)).path == checkpoint
    assert find_reward_model(reward_path).path == Path(reward_path)


def test_the_output_is_neither_a_folder_nor_the_input(tmp_path):
    rows = write_lines(tmp_path / "rows.jsonl")
    with pytest.raises(ConfigError, match="a folder; expected a file"):
        check_out(tmp_path, str(rows))
    with pytest.raises(ConfigError, match="is the file to be scored"):
        check_out(rows, str(rows))
    check_out(tmp_path / "new" / "scores.jsonl", str(rows))
    assert (tmp_path / "new").is_dir()


# --- the child process

SCRIPT = """
import json, sys
from pathlib import Path
from cai.score import ScoreOptions, score_file
options = ScoreOptions(max_length=64, batch_size=2, skip_bad=True)
found = score_file(sys.argv[1], sys.argv[2], Path(sys.argv[3]), options)
heavy = [name for name in ("torch", "transformers", "peft", "trl") if name in sys.modules]
print(json.dumps({"summary": found, "heavy": heavy}))
"""


@pytest.mark.slow
def test_a_file_is_scored_as_the_model_scores(reward_path, tmp_path):
    from cai.train.reward_model import RewardModel

    texts = ["Yes.", "no " * 60, "I would rather not say.", "Hello."]
    rows = [
        {"prompt": "How?", "response": texts[0]},
        {"messages": [ASKED, turn("assistant", texts[1])]},
        {"prompt": "How?"},
        {"prompt": "How?", "chosen": texts[2], "rejected": texts[3]},
    ]
    data, out = tmp_path / "rows.jsonl.gz", tmp_path / "new" / "scores.jsonl"
    with gzip.open(data, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    command = [sys.executable, "-c", SCRIPT, reward_path, str(data), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "score: 4/4" in done.stderr
    found = json.loads(done.stdout)
    assert found["heavy"] == []
    expected = RewardModel(reward_path, 64, 1).score([[ASKED, turn("assistant", t)] for t in texts])
    lines = list(read_rows(out))
    assert [line["line"] for line in lines] == [1, 2, 4]
    assert [line["truncated"] for line in lines] == [False, True, False]
    rewards = [value for line in lines for name, value in line.items() if "reward" in name]
    assert rewards == pytest.approx(expected, abs=1e-5)
    made = found["summary"]
    counts = {name: value for name, value in made.items() if name.startswith("n_")}
    assert counts == {"n_rows": 4, "n_bad": 1, "n_scored": 3, "n_not_finite": 0, "n_truncated": 1}
    assert made["gap"]["value"] == pytest.approx(expected[2] - expected[3], abs=1e-5)
    assert [path.name for path in out.parent.iterdir()] == ["scores.jsonl"]


@pytest.mark.slow
def test_a_failed_child_leaves_its_log_and_no_scores(reward_path, tmp_path):
    model, out = tmp_path / "model", tmp_path / "scores.jsonl"
    shutil.copytree(reward_path, model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    row = json.dumps({"prompt": "How?", "response": "Yes."})
    data = write_lines(tmp_path / "rows.jsonl", row)
    with pytest.raises(TrainError, match=r"score: .*log: .*log.txt") as caught:
        score_file(str(model), str(data), out, ScoreOptions())
    log = str(caught.value).split("log: ")[1].split(")")[0]
    assert Path(log).is_file()
    assert not out.exists()
