"""Rows that a trainer would cut, leave out or mask: seen before a model is loaded."""

from typing import Any

import pytest
from tiny_model import (
    FAST,
    LORA,
    pairs,
    prompts,
    reward_job,
    rl_job,
    sft_job,
    sft_rows,
    train,
    turn,
)

from cai.errors import QualityGate
from cai.train import folder as files
from cai.train import launch
from cai.train.jobs import DpoJob, RatingJob

pytest_plugins = ["tiny_fixtures"]
# torch, transformers, peft and trl warn about themselves
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("quiet")]

WHY = turn("user", "why " * 200)
NO = turn("assistant", "No.")
SHARED: dict[str, Any] = {"lora": LORA, "max_length": 128, "trainer": FAST, "seed": 0}


def a_long(kind: str) -> dict[str, Any]:
    """A row that does not fit."""
    return {
        "sft": {"prompt": [WHY], "completion": [NO]},
        "reward": pairs(0.9, 1)[0] | {"rejected": [WHY, NO]},
        "dpo": pairs(0.9, 1)[0] | {"rejected": [WHY, NO]},
        "rating": {"messages": [WHY, NO], "rating": 1.0, "heldout": False},
        "rl": {"prompt": [WHY]},
    }[kind]


def rows_of(kind: str) -> list[dict[str, Any]]:
    """Three rows that fit."""
    rated = [{"messages": [turn("user", "How?"), NO], "heldout": False}] * 3
    return {
        "sft": sft_rows(3),
        "reward": pairs(0.9, 3),
        "dpo": pairs(0.9, 3),
        "rating": [row | {"rating": float(number)} for number, row in enumerate(rated)],
        "rl": prompts(3),
    }[kind]


def make_job(kind: str, tiny: str) -> Any:
    made = {
        "sft": lambda: sft_job(tiny),
        "reward": lambda: reward_job(tiny),
        "dpo": lambda: DpoJob(model=tiny, n_checkpoints=1, **SHARED),
        "rating": lambda: RatingJob(model=tiny, **SHARED),
        "rl": lambda: rl_job(tiny),
    }
    return made[kind]()


class Loaded(Exception):
    """The trainer went on to load its model."""


@pytest.fixture
def unloadable(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    def refuse(*_: object) -> None:
        raise Loaded

    for kind in ("sft", "reward", "dpo", "rating", "rl"):
        module = importlib.import_module(f"cai.train.{kind}")
        load = "load_classifier" if kind in ("reward", "rating") else "load_policy"
        monkeypatch.setattr(module, load, refuse)


@pytest.mark.usefixtures("unloadable")
@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        ("sft", "sft.max_length"),
        ("reward", "reward.max_length"),
        ("dpo", "reward.max_length"),
        ("rating", "reward.max_length"),
        ("rl", "rl.max_prompt_length"),
    ],
)
def test_too_many_cut_rows_stop_before_the_model_is_loaded(tiny, tmp_path, kind, setting) -> None:
    rows = [*rows_of(kind), a_long(kind)]
    for allowed, stops in ((0.01, True), (0.24, True), (0.25, False), (1.0, False)):
        job = make_job(kind, tiny).model_copy(update={"max_cut": allowed})
        with pytest.raises(QualityGate if stops else Loaded) as caught:
            train(job, tmp_path, rows)
        if stops:
            said = str(caught.value)
            assert said.startswith(f"{tmp_path / 'rows.jsonl'}: 1 of 4 rows ")
            assert f"raise {setting}, or allow it: --set guards.max_cut_rows=null" in said
    job = make_job(kind, tiny).model_copy(update={"max_cut": 0.0})
    with pytest.raises(Loaded):
        train(job, tmp_path, rows_of(kind))


@pytest.mark.usefixtures("unloadable")
def test_pairs_that_hard_labels_leave_out_are_lost_too(tiny, tmp_path) -> None:
    rows = pairs(0.9, 3) + pairs(0.5, 1)
    job = reward_job(tiny).model_copy(update={"max_cut": 0.01, "labels": "hard"})
    with pytest.raises(QualityGate, match=r"1 of 4 rows .* \(1\): set reward.labels=soft"):
        train(job, tmp_path, rows)
    with pytest.raises(Loaded):
        train(job.model_copy(update={"labels": "soft"}), tmp_path, rows)


@pytest.mark.parametrize(
    ("n_prompt", "max_length", "lost"), [(9, 10, False), (9, 9, True), (10, 10, True)]
)
def test_a_row_is_lost_if_it_is_cut_or_carries_no_loss(n_prompt, max_length, lost) -> None:
    from cai.train import sft

    assert sft.is_lost(sft.Encoded(list(range(10)), n_prompt), max_length) == lost


def test_the_bound_reaches_the_child_and_is_no_part_of_its_job(tiny, tmp_path) -> None:
    job = sft_job(tiny, max_steps=1).model_copy(update={"max_cut": 0.01})
    rows = [*rows_of("sft"), a_long("sft")]
    with pytest.raises(QualityGate, match="1 of 4 rows"):
        launch.run_job(job, tmp_path, rows, lambda _: None)
    written = (tmp_path / files.JOB).read_text()
    assert "max_cut" not in written
    assert job.model_copy(update={"max_cut": 0.5}).model_dump_json(indent=1) + "\n" == written
