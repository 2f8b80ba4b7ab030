"""Preferences and ratings from everywhere: forms, counts, mixing, and the stage that uses them."""

import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from run_folder import build_run, write_lines

from cai.config import Prompts, RunConfig
from cai.constitution import find_constitution, load_constitution
from cai.errors import ConfigError
from cai.manifest import run_at
from cai.models import Model
from cai.preferences import (
    Pair,
    draw,
    mix,
    read_foreign,
    read_pairs,
    read_ratings,
    run_pairs,
)
from cai.prompts import Templates
from cai.records import Message, Prompt
from cai.run import read_records, read_rows
from cai.sections import DatasetSource, PreferenceSource
from cai.sources import load_prompts
from cai.splits import group_of
from cai.stages import reward
from cai.stages.context import Outcome, RunContext
from cai.view.progress import StageProgress
from cai.view.transcripts import of_type

FOLDERS = {"revise": "01-revise", "sample": "03-sample", "label": "04-label", "reward": "05-reward"}


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


HOW = group_of([Message(role="user", content="How?")])
ASKED, YES, NO = turn("user", "How?"), turn("assistant", "Yes."), turn("assistant", "No.")
HH = {
    "chosen": "\n\nHuman: How?\n\nAssistant: Yes.",
    "rejected": "\n\nHuman: How?\n\nAssistant: No.",
}
TRL = {"prompt": "How?", "chosen": "Yes.", "rejected": "No."}


def save(path: Path, *rows: Any) -> str:
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in rows))
    return str(path)


def one_pair(folder: Path, row: dict[str, Any], **source: Any) -> Pair:
    path = save(folder / "p.jsonl", row)
    pairs, reading = read_pairs(PreferenceSource(path=path, **source), 0, False)
    assert (reading.n_rows, reading.n_used, len(pairs)) == (1, 1, 1)
    return pairs[0]


# --- pairs


@pytest.mark.parametrize(
    "row",
    [
        HH,
        TRL,
        {"prompt": [ASKED], "chosen": [YES], "rejected": [NO]},
        {"chosen": [ASKED, YES], "rejected": [ASKED, NO]},
        {"prompt": "How?", "chosen": [ASKED, YES], "rejected": [ASKED, NO]},
        {**TRL, "messages": [ASKED, YES], "score_chosen": 1.0, "score_rejected": 9.0},
        {"prompt": "\n\nHuman: How?\n\nAssistant:", "chosen": "Yes.", "rejected": "No."},
    ],
)
def test_every_form_is_the_same_pair(tmp_path: Path, row: dict[str, Any]) -> None:
    pair = one_pair(tmp_path, row)
    assert pair == one_pair(tmp_path, TRL)
    assert pair.messages == (Message(role="user", content="How?"),)
    assert (pair.chosen, pair.rejected, pair.p_chosen) == ("Yes.", "No.", 1.0)
    assert (pair.place, pair.source) == ("p.jsonl:1", str(tmp_path / "p.jsonl"))


def test_the_common_beginning_is_the_prompt(tmp_path: Path) -> None:
    before = [turn("system", "Be."), ASKED, YES, turn("user", "And?")]
    pair = one_pair(tmp_path, {"chosen": [*before, YES], "rejected": [*before, NO]})
    assert [message.model_dump() for message in pair.messages] == before
    assert pair.group == HOW


@pytest.mark.parametrize(
    ("given", "default", "chosen", "p"),
    [
        (None, 1.0, "Yes.", 1.0),
        (None, 0.8, "Yes.", 0.8),
        (0.75, 0.8, "Yes.", 0.75),
        (0.25, 0.8, "No.", 0.75),
        (0, 1.0, "No.", 1.0),
        (1, 0.8, "Yes.", 1.0),
        (0.5, 1.0, "Yes.", 0.5),
    ],
)
def test_p_below_a_half_exchanges_the_sides(
    tmp_path: Path, given: float | None, default: float, chosen: str, p: float
) -> None:
    pair = one_pair(tmp_path, {**TRL, "p_chosen": given}, p_chosen=default)
    assert (pair.chosen, pair.p_chosen) == (chosen, p)
    assert {pair.chosen, pair.rejected} == {"Yes.", "No."}


BROKEN_PAIRS = [
    ("{oops", "not a JSON object"),
    ("[]", "not a JSON object"),
    ({"chosen": "x"}, "expected chosen and rejected, found no rejected"),
    ({"prompt": "How?", "response": "Yes."}, "found no chosen"),
    ({"chosen": "Yes.", "rejected": "No."}, "expected an assistant's turn at the end"),
    ({**TRL, "prompt": 3}, "expected text or a list of turns"),
    ({**TRL, "p_chosen": 1.5}, "p_chosen: expected a probability, not 1.5"),
    ({**TRL, "p_chosen": True}, "p_chosen: expected a finite number, not 'True'"),
    ({**TRL, "p_chosen": "0.9"}, "p_chosen: expected a finite number, not '0.9'"),
    ({**TRL, "p_chosen": float("nan")}, "p_chosen: expected a finite number, not 'nan'"),
    (
        {
            "chosen": [ASKED, YES, turn("system", "Now."), YES],
            "rejected": [ASKED, YES, turn("system", "Now."), NO],
        },
        "expected a user's turn before the answers",
    ),
]


@pytest.mark.parametrize(("row", "message"), BROKEN_PAIRS)
def test_a_broken_row_is_named_or_counted(tmp_path: Path, row: Any, message: str) -> None:
    path = save(tmp_path / "p.jsonl", HH, row)
    with pytest.raises(ConfigError, match=rf"p\.jsonl:2: .*{message}.*--skip-bad"):
        read_pairs(path, 0, False)
    pairs, reading = read_pairs(path, 0, True)
    assert len(pairs) == 1
    assert reading.summary() == {"n_rows": 2, "n_bad": 1, "n_used": 1, "left_out": {}}


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    rows = [{**TRL, "prompt": f"How {i}?"} for i in range(9)]
    other = HH["rejected"].replace("How", "Who")
    same = {"chosen": HH["chosen"], "rejected": HH["chosen"]}
    odd = [rows[0], rows[0], {**HH, "rejected": other}, same, "{oops"]
    path = save(tmp_path / "p.jsonl", *rows, *odd)
    pairs, reading = read_pairs(PreferenceSource(path=path, n=6), 1, True)
    reasons = {"duplicate": 2, "over_n": 3, "prompts_differ": 1, "identical": 1}
    assert reading.left_out == reasons
    assert reading.n_rows == 14 == reading.n_bad + len(pairs) + sum(reasons.values())
    assert pairs == read_pairs(PreferenceSource(path=path, n=6), 1, True)[0]
    assert pairs != read_pairs(PreferenceSource(path=path, n=6), 2, True)[0]
    assert [pair.id for pair in pairs] == sorted(pair.id for pair in pairs)
    path = save(tmp_path / "p.jsonl", same, "{oops")
    with pytest.raises(ConfigError, match=r"nothing to learn from \(2 rows; 1 broken, 1 identical"):
        read_pairs(path, 0, True)


LONG = "x" * 300


@pytest.mark.parametrize(
    "path",
    [
        "no.jsonl",
        "owner/no.jsonl",
        "./no",
        "no",
        "~/no",
        "/no/such",
        LONG,
        f"./{LONG}",
        "a/" * 3000,
    ],
)
def test_a_source_that_is_not_there_is_no_shipped_prompt(path: str) -> None:
    with pytest.raises(ConfigError, match="not there; expected a JSONL"):
        read_pairs(path, 0, False)
    with pytest.raises(ConfigError, match="not there; expected a JSONL"):
        read_ratings(path, False)


def test_a_dataset_is_read_by_split_and_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(path: str, split: str, revision: str | None) -> list[dict[str, Any]]:
        assert (path, split, revision) == ("owner/pairs", "test", "abc")
        return [{**TRL, "p_chosen": None, "score_chosen": 2.0}]

    stub = SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", stub)
    errors = SimpleNamespace(DatasetNotFoundError=OSError)
    monkeypatch.setitem(sys.modules, "datasets.exceptions", errors)
    source = PreferenceSource(path="owner/pairs", split="test", revision="abc")
    pairs, reading = read_pairs(source, 0, False)
    assert (pairs[0].place, reading.n_rows) == ("owner/pairs/test:0", 1)


def test_the_real_file_is_read_whole(shared_data: Path) -> None:
    path = str(shared_data / "hh-rlhf" / "harmless-base.jsonl.gz")
    pairs, reading = read_pairs(path, 0, False)
    with gzip.open(path) as file:
        assert reading.n_rows == sum(1 for _ in file)
    assert reading.n_rows == 1500 == len(pairs) + sum(reading.left_out.values())
    assert reading.n_bad == 0
    assert len(pairs) >= 1490
    assert all(pair.messages[-1].role == "user" for pair in pairs)
    assert all(pair.chosen != pair.rejected for pair in pairs)
    # the dialogues are the ones that prompts of the same file belong to
    source = Prompts(red_team=(path,), helpful=(), look_alike=())
    prompts, _ = load_prompts(source, 0)
    assert {pair.group for pair in pairs} == {prompt.group for prompt in prompts}


# --- a run's own


def test_a_run_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = build_run(tmp_path / "runs" / "mine")
    pairs, reading = read_pairs(str(run), 0, False)
    stored = list(read_rows(run / "04-label" / "preferences.jsonl"))
    stored.sort(key=lambda row: row["id"])
    assert [pair.id for pair in pairs] == [row["id"] for row in stored]
    assert [pair.p_chosen for pair in pairs] == [row["p_chosen"] for row in stored]
    assert reading.n_rows == len(stored)
    texts = {row["id"]: row["text"] for row in read_rows(run / "03-sample" / "records.jsonl")}
    assert [pair.rejected for pair in pairs] == [texts[row["rejected_id"]] for row in stored]
    groups = {row["group"] for row in read_rows(run / "inputs" / "prompts.jsonl")}
    assert {pair.group for pair in pairs} <= groups
    monkeypatch.chdir(tmp_path)
    assert run_at("mine") == Path("runs/mine")
    assert read_pairs("mine", 0, False)[0] == [pair._replace(source="mine") for pair in pairs]


def test_pairs_of_revisions_are_joined_too(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    records = list(read_rows(run / "01-revise" / "records.jsonl"))
    revision = next(row for row in records if row["type"] == "revision")
    response = next(row for row in records if row["prompt_id"] == revision["prompt_id"])
    path = run / "04-label" / "preferences.jsonl"
    assumed = next(iter(read_rows(path))) | {
        "id": "x",
        "prompt_id": revision["prompt_id"],
        "principle_ids": [],
        "chosen_id": revision["id"],
        "rejected_id": response["id"],
        "p_chosen": 1.0,
        "p_orders": None,
        "orders_agree": None,
        "label_ids": [],
        "origin": "revision",
    }
    write_lines(path, [*read_rows(path), assumed])
    pair = run_pairs(run, "ai")[-1]
    assert (pair.id, pair.source) == ("x", "ai")
    assert (pair.chosen, pair.rejected) == (revision["text"], response["text"])
    write_lines(path, [assumed | {"chosen_id": "gone"}])
    with pytest.raises(ConfigError, match=r"preferences.jsonl: the run has no record 'gone'"):
        run_pairs(run, "ai")


def test_a_run_without_labels_is_refused(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", stages=("revise",))
    with pytest.raises(ConfigError, match=r"no preferences in this run .*label is not done"):
        read_pairs(str(run), 0, False)


# --- mixing


def pairs_of(source: str, n: int) -> list[Pair]:
    said = (Message(role="user", content="?"),)
    return [
        Pair(f"{source}{i}", said, "a", "b", 1.0, f"g{i}", source, f"{source}:{i}")
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("n_own", "n_foreign", "ratio", "n_used"),
    [
        (30, 20, None, 20),
        (30, 20, 0.25, 10),
        (30, 20, 0.4, 20),
        (30, 20, 0.9, 20),
        (0, 20, 0.25, 20),
        (30, 0, 0.5, 0),
        (1, 20, 0.1, 0),
    ],
)
def test_the_ratio_is_aimed_at(n_own: int, n_foreign: int, ratio: float, n_used: int) -> None:
    own, foreign = pairs_of("ai", n_own), pairs_of("f", n_foreign)
    mixed, left_out = mix(own, foreign, ratio, 3)
    assert mixed[:n_own] == own
    assert len(mixed) == n_own + n_used
    assert left_out == ({"over_ratio": n_foreign - n_used} if n_foreign > n_used else {})
    assert mixed == mix(own, foreign, ratio, 3)[0]


def test_a_pair_is_learnt_from_once() -> None:
    own, foreign = pairs_of("ai", 2), pairs_of("f", 3)
    mixed, left_out = mix(own, [*foreign, own[0], foreign[1]], None, 0)
    assert mixed == [*own, *foreign]
    assert left_out == {"duplicate": 2}


# --- ratings


@pytest.mark.parametrize(
    ("row", "column", "expected"),
    [
        ({"messages": [ASKED, YES], "rating": 3}, None, 3.0),
        ({"prompt": "How?", "response": "Yes.", "rating": -0.5}, None, -0.5),
        ({"prompt": [ASKED], "completion": [YES], "rating": 0}, None, 0.0),
        ({"transcript": HH["chosen"], "rating": 4.0}, "transcript", 4.0),
    ],
)
def test_ratings_in_every_form(
    tmp_path: Path, row: dict[str, Any], column: str | None, expected: float
) -> None:
    path = save(tmp_path / "r.jsonl", row)
    (found,), reading = read_ratings(DatasetSource(path=path, column=column), False)
    assert [message.model_dump() for message in found.messages] == [ASKED, YES]
    assert (found.rating, found.group) == (expected, HOW)
    assert (found.place, reading.n_used) == ("r.jsonl:1", 1)


RATED = {"prompt": "How?", "response": "Yes."}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (RATED, "rating: expected a finite number, not 'None'"),
        ({**RATED, "rating": "4"}, "not '4'"),
        ({**RATED, "rating": True}, "not 'True'"),
        ({**RATED, "rating": float("nan")}, "not 'nan'"),
        ({**RATED, "rating": float("-inf")}, "not '-inf'"),
        ({**RATED, "rating": 10**400}, "expected a finite number"),
        ({**TRL, "rating": 4}, "a rating is of one conversation, this row has a pair"),
        ({"messages": [ASKED], "rating": 4}, "expected an assistant's turn at the end"),
        ({"rating": 4}, "expected prompt and response"),
    ],
)
def test_a_broken_rating_is_named_or_counted(tmp_path: Path, row: Any, message: str) -> None:
    path = save(tmp_path / "r.jsonl", {**RATED, "rating": 1}, row)
    with pytest.raises(ConfigError, match=rf"r\.jsonl:2: .*{message}.*--skip-bad"):
        read_ratings(path, False)
    found, reading = read_ratings(path, True)
    assert (len(found), reading.n_rows, reading.n_bad) == (1, 2, 1)
    with pytest.raises(ConfigError, match=r"r\.jsonl:1: expected a conversation in column 'text'"):
        read_ratings(DatasetSource(path=path, column="text"), False)


# --- order


def test_the_order_of_a_file_makes_no_difference(tmp_path: Path) -> None:
    """Draws, order and the digest that a resumed run is compared by."""
    rows = [{**TRL, "prompt": f"How {i}?", "response": "So.", "rating": i} for i in range(30)]
    rated = [{k: row[k] for k in ("prompt", "response", "rating")} for row in rows]
    source = PreferenceSource(path=str(tmp_path / "p.jsonl"), n=7)
    found: list[Any] = []
    for ordered in (rows, rows[::-1], rows[11:] + rows[:11]):
        save(tmp_path / "p.jsonl", *ordered)
        pairs, paired = read_pairs(source, 3, False)
        save(tmp_path / "r.jsonl", *(rated[row["rating"]] for row in ordered))
        ratings, read = read_ratings(str(tmp_path / "r.jsonl"), False)
        bare = [[one._replace(place="") for one in ones] for ones in (pairs, ratings)]
        found.append((bare, paired.digest, read.digest))
    assert found[0] == found[1] == found[2]


def test_equal_draws_are_ordered_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cai.preferences.derive_seed", lambda *_: 0)
    pairs = pairs_of("f", 9)
    assert draw(pairs, 4, 0, "n") == draw(pairs[::-1], 4, 0, "n") == pairs[:4]


# --- the stage


def context_of(run: Path, **config: Any) -> RunContext:
    model = Model("fake", Path("fake"), "fake")
    return RunContext(
        run=run,
        config=RunConfig.model_validate(
            {"constitution": "harmless", "engine": {"kind": "fake"}, **config}
        ),
        constitution=load_constitution(find_constitution("harmless")),
        templates=Templates(),
        models={"base": model},
        prompts=of_type(read_records(run / "inputs" / "prompts.jsonl"), Prompt),
        folders=FOLDERS,
    )


def run_stage(context: RunContext) -> Outcome:
    with StageProgress("reward", Console(quiet=True)) as progress:
        return reward.run(context, progress)


def rows_about(groups: list[str], name: str, **extra: Any) -> list[dict[str, Any]]:
    """A row about each dialogue that begins so."""
    rows = [
        {"prompt": group, "chosen": f"{name} yes", "rejected": f"{name} no"} for group in groups
    ]
    return [row | extra for row in rows]


def with_real_groups(run: Path) -> dict[str, list[str]]:
    """The run's prompts, each in the group that its first turn makes; the turns by split."""
    path, turns = run / "inputs" / "prompts.jsonl", {}
    rows = list(read_rows(path))
    for number, row in enumerate(rows):
        text = f"{row['messages'][0]['content']} ({number})"
        row["messages"][0]["content"] = text
        row.pop("sum")
        row["group"] = group_of(Prompt.model_validate(row).messages)
        turns.setdefault(row["split"], []).append(text)
    write_lines(path, rows)
    return turns


def test_the_stage_mixes_and_holds_out_by_dialogue(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    turns = with_real_groups(run)
    rows = rows_about([*turns["preference"], *turns["eval"]], "f", p_chosen=0.25)
    path = save(tmp_path / "f.jsonl", *rows, {**TRL, "rejected": "Yes."})
    context = context_of(run, preferences={"sources": [path]}, reward={"labels": "hard"})
    outcome = run_stage(context)
    used = list(read_rows(run / "05-reward" / "rows.jsonl"))
    n_own = n_foreign = len(turns["preference"])
    n_eval = len(turns["eval"])
    assert outcome.counts["pairs"] == {"ai": n_own, path: n_foreign}
    assert outcome.counts["pairs_left_out"] == {"eval_dialogue": n_eval, "identical": 1}
    assert outcome.counts["foreign_ratio"] == 0.5
    assert outcome.n_in == n_own + len(rows) + 1
    assert outcome.n_out == len(used) == n_own + n_foreign
    assert outcome.counts["heldout"] == sum(row["heldout"] for row in used) > 0
    heldout: dict[str, set[bool]] = {}
    for row in used:
        heldout.setdefault(row["chosen"][0]["content"], set()).add(row["heldout"])
        assert row.keys() == {"id", "chosen", "rejected", "p_chosen", "heldout", "source"}
        assert row["chosen"][:-1] == row["rejected"][:-1]
        assert (row["p_chosen"] == 0.75) or row["source"] == "ai"
    assert all(len(flags) == 1 for flags in heldout.values())
    assert not heldout.keys() & set(turns["eval"])
    assert {row["id"] for row in used} >= {
        row["id"] for row in read_rows(run / "04-label" / "preferences.jsonl")
    }
    assert reward.preference_rows(context) == used
    job = reward.make_job(context)
    assert (job.kind, job.labels) == ("reward", "hard")
    assert read_foreign(context.config).pair_readings[0].n_used == len(rows)
    # the file's order is not that of the training
    save(tmp_path / "f.jsonl", {**TRL, "rejected": "Yes."}, *rows[::-1])
    run_stage(context)
    assert list(read_rows(run / "05-reward" / "rows.jsonl")) == used


def test_foreign_pairs_alone(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", stages=("revise",))
    path = save(tmp_path / "f.jsonl", *rows_about(list("abcdef"), "f"))
    outcome = run_stage(context_of(run, preferences={"ai": False, "sources": [path]}))
    assert outcome.counts["pairs"] == {path: 6}
    assert outcome.counts["foreign_ratio"] == 1.0
    with pytest.raises(ConfigError, match=r"stage reward: 1 pairs, .*'over_n': 5.*sources"):
        few = {"ai": False, "sources": [{"path": path, "n": 1}]}
        run_stage(context_of(run, preferences=few))


def test_ratings_train_and_pairs_measure(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    turns = with_real_groups(run)
    asked = [*turns["preference"], *turns["eval"], *(f"new {i}" for i in range(20))]
    rows = [{"prompt": text, "response": "So.", "rating": i % 5} for i, text in enumerate(asked)]
    path = save(tmp_path / "r.jsonl", *rows)
    settings = {"method": "pointwise", "ratings": [path], "heldout": 0.5}
    context = context_of(run, reward=settings)
    outcome = run_stage(context)
    folder = run / "05-reward"
    rated, pairs = list(read_rows(folder / "rows.jsonl")), reward.preference_rows(context)
    n_eval = len(turns["eval"])
    assert outcome.counts["ratings"] == {path: len(rows) - n_eval}
    assert outcome.counts["ratings_left_out"] == {"eval_dialogue": n_eval}
    assert (outcome.n_in, outcome.n_out) == (len(rows), len(rated))
    assert all(row["messages"][-1]["role"] == "assistant" for row in rated)
    # one dialogue's ratings and pairs are on the same side
    flags = {row["messages"][0]["content"]: row["heldout"] for row in rated}
    assert all(flags[row["chosen"][0]["content"]] == row["heldout"] for row in pairs)
    unseen = [row for row in pairs if row["heldout"]]
    assert 0 < len(unseen) < len(pairs) == len(turns["preference"])
    counts = outcome.counts
    assert counts["n_heldout_pairs"] == len(unseen)
    assert counts["accuracy_heldout_low"] <= counts["accuracy_heldout"]
    assert counts["accuracy_heldout"] < counts["accuracy_heldout_high"]
    scored = {row["id"]: row["reward"] for row in read_rows(folder / "pairs" / "scores.jsonl")}
    right = [scored[f"{i}-0"] > scored[f"{i}-1"] for i in range(len(unseen))]
    assert counts["accuracy_heldout"] == sum(right) / len(right)
    assert (folder / "checkpoint").is_dir()
    assert reward.make_job(context).kind == "rating"
    save(tmp_path / "r.jsonl", *rows[::-1])
    run_stage(context)
    assert list(read_rows(folder / "rows.jsonl")) == rated


def test_ratings_without_pairs_measure_nothing(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", stages=("revise",))
    path = save(tmp_path / "r.jsonl", *({**RATED, "prompt": f"{i}", "rating": i} for i in range(9)))
    settings = {"method": "pointwise", "ratings": [path]}
    outcome = run_stage(context_of(run, reward=settings, preferences={"ai": False}))
    assert outcome.counts["accuracy_heldout"] is None
    assert outcome.counts["n_heldout_pairs"] == 0
    assert not (run / "05-reward" / "pairs").exists()
    assert json.loads(json.dumps(outcome.counts)) == outcome.counts
