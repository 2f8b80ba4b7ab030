"""DPO on soft labels: what is fitted, counted, kept and measured, on a tiny random model."""

import math

import pytest
from tiny_model import FAST, LORA, distance, pairs, policy, train, turn

from cai.errors import ConfigError
from cai.train import folder as files
from cai.train.jobs import DpoJob

pytest_plugins = ["tiny_fixtures"]
# torch, transformers, peft and trl warn about themselves
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("quiet")]

LONG = [turn("user", "why " * 200), turn("assistant", "No.")]


def dpo_job(model, lora=LORA, n_checkpoints=2, **trainer):
    return DpoJob(
        model=model,
        lora=lora,
        n_checkpoints=n_checkpoints,
        max_length=128,
        trainer=FAST | trainer,
        seed=0,
    )


def implicit_p(reference, path, row, beta=0.1):
    """σ(β·gap) of a row, from the logits themselves."""
    import torch

    from cai.train.tokens import Chat

    chat, total = Chat(reference), {}
    for name, where in (("start", reference), ("end", path)):
        model = policy(where)
        for side in ("chosen", "rejected"):
            ids = chat.ids(row[side])
            n = len(chat.prompt_ids(row[side][:-1]))
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            total[name, side] = sum(logits[i - 1, ids[i]].item() for i in range(n, len(ids)))
    gain = {side: total["end", side] - total["start", side] for side in ("chosen", "rejected")}
    return 1 / (1 + math.exp(-beta * (gain["chosen"] - gain["rejected"])))


def mixed_pairs():
    """Two preferences of different length, one surer than the other, four times each."""
    sure = pairs(0.85, 4)
    other = {
        "chosen": [turn("user", "Why? Tell me."), turn("assistant", "Hello. Hello. Hello.")],
        "rejected": [turn("user", "Why? Tell me."), turn("assistant", "user")],
        "p_chosen": 0.6,
        "heldout": False,
    }
    return [row for both in zip(sure, [other] * 4, strict=True) for row in both]


@pytest.mark.parametrize("lora", [None, LORA])
@pytest.mark.parametrize(("p", "low", "high"), [(0.7, 0.67, 0.73), (1.0, 0.95, 1.0)])
def test_soft_labels_are_fitted(tiny, tmp_path, lora, p, low, high):
    job = dpo_job(tiny, lora, n_checkpoints=1, max_steps=80, learning_rate=1e-2)
    result = train(job, tmp_path, pairs(p, 8))
    assert low <= implicit_p(tiny, tmp_path / "checkpoint", pairs(p, 1)[0]) <= high
    assert result["loss_first"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize(
    "batch", [{}, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}]
)
def test_each_row_has_its_own_label(tiny, tmp_path, batch):
    job = dpo_job(tiny, n_checkpoints=1, max_steps=100, learning_rate=1e-2, **batch)
    rows = mixed_pairs()
    train(job, tmp_path, rows)
    for row in rows[:2]:
        found = implicit_p(tiny, tmp_path / "checkpoint", row)
        assert found == pytest.approx(row["p_chosen"], abs=0.03)


def test_the_loss_is_the_cross_entropy_of_the_labels(tiny, tmp_path):
    job = dpo_job(tiny, max_steps=6, save_steps=1, save_strategy="steps", learning_rate=1e-2)
    train(job, tmp_path, pairs(0.8, 4))
    lines = files.read_metrics(tmp_path)
    for line in lines:
        q = 1 / (1 + math.exp(-line["rewards/margins"]))
        expected = -0.8 * math.log(q) - 0.2 * math.log(1 - q)
        assert line["loss"] == pytest.approx(expected, abs=1e-4)
    assert lines[-1]["rewards/margins"] > 0.1


def test_rows_are_counted_and_held_out_ones_only_measured(tiny, tmp_path):
    rows = pairs(0.9, 8) + pairs(0.9, 3, heldout=True) + pairs(0.5, 1, heldout=True)
    rows += [rows[0] | {"chosen": LONG}]
    job = dpo_job(tiny, max_steps=20, learning_rate=1e-2)
    result = train(job, tmp_path, rows)
    assert (result["n_rows"], result["n_too_long"]) == (13, 1)
    assert (result["n_train"], result["n_heldout"], result["n_heldout_undecided"]) == (8, 3, 1)
    assert (result["accuracy_heldout"], result["n_not_finite"]) == (1.0, 0)
    assert result["accuracy_heldout_low"] == pytest.approx(0.44, abs=0.01)
    p = implicit_p(tiny, tmp_path / "checkpoint", rows[0])
    # all four predict p; their labels are 0.9 three times and 0.5
    assert result["ece"] == pytest.approx(abs(p - 0.8), abs=1e-3)


def test_candidates_are_plain_folders_and_the_last_is_the_checkpoint(tiny, tmp_path):
    from transformers import AutoTokenizer

    job = dpo_job(tiny, n_checkpoints=3, max_steps=6, learning_rate=1e-2)
    result = train(job, tmp_path, pairs(0.9, 8))
    assert result["candidates"] == [2, 4, 6]
    assert (result["checkpoint_step"], result["stopped"]) == (6, None)
    kept = [policy(tmp_path / "candidates" / f"step-{step}") for step in result["candidates"]]
    assert distance(kept[0], kept[1]) > 1e-4
    assert distance(kept[2], policy(tmp_path / "checkpoint")) == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "candidates" / "step-2")
    assert "im_start" in tokenizer.chat_template
    assert not list(tmp_path.glob("candidates/*/adapter*"))
    assert not (tmp_path / "kept").exists()


def test_tokens_are_those_of_trl(tiny):
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from cai.train import dpo
    from cai.train.tokens import Chat

    chat, rows = Chat(tiny), mixed_pairs()[:2]
    stock = DPOTrainer(
        model=policy(tiny),
        args=DPOConfig(output_dir="/nowhere", use_cpu=True, bf16=False),
        train_dataset=Dataset.from_list([{k: r[k] for k in ("chosen", "rejected")} for r in rows]),
        processing_class=chat.tokenizer,
    )
    for theirs, row in zip(stock.train_dataset, rows, strict=True):
        ours = dpo.columns(dpo.encode(chat, row))
        assert ours.pop("p_chosen") == row["p_chosen"]
        assert ours == {name: theirs[name] for name in ours}


def test_an_interrupted_job_goes_on_and_keeps_its_candidates(tiny, tmp_path):
    import shutil

    trainer = {"save_strategy": "steps", "save_steps": 3, "learning_rate": 1e-2}
    job = dpo_job(tiny, n_checkpoints=2, max_steps=6, **trainer)
    whole = train(job, tmp_path, pairs(0.8, 8))
    lines = files.read_metrics(tmp_path)
    first = (tmp_path / "checkpoint").rename(tmp_path / "whole")
    # killed while it saved the last checkpoint
    (tmp_path / "trainer" / "checkpoint-6" / "trainer_state.json").unlink()
    shutil.rmtree(tmp_path / "candidates" / "step-6")
    again = train(job, tmp_path, pairs(0.8, 8))
    assert [line["step"] for line in files.read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert files.read_metrics(tmp_path)[:3] == lines[:3]
    assert again["candidates"] == whole["candidates"] == [3, 6]
    assert distance(policy(first), policy(tmp_path / "checkpoint")) < 1e-6


def test_dpo_refuses_what_cannot_work(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"dpo: no pair is left .* 1 exceed 128 tokens"):
        train(dpo_job(tiny), tmp_path / "long", [pairs(0.9, 1)[0] | {"chosen": LONG}])
    for beta in (0.0, -1.0):
        with pytest.raises(ConfigError, match=r"rl.trainer.beta: .* is not above 0"):
            train(dpo_job(tiny, beta=beta), tmp_path / "beta", pairs(0.9, 8))
    with pytest.raises(ConfigError, match=r"rl.trainer.loss_type: cai sets this itself"):
        train(dpo_job(tiny, loss_type="ipo"), tmp_path / "loss", pairs(0.9, 8))


def test_a_margin_that_is_not_finite_is_wrong_and_not_calibrated():
    from cai.train.dpo import Pair, measure

    heldout = [Pair([1], [2], [3], p, True) for p in (0.9, 0.9, 0.5)]
    found = measure([2.0, math.nan, 1000.0], heldout)
    assert (found["accuracy_heldout"], found["n_not_finite"]) == (0.5, 1)
    assert found["ece"] == pytest.approx((abs(1 / (1 + math.exp(-2)) - 0.9) + 0.5) / 2)
    assert measure([], [])["accuracy_heldout"] is None
    assert measure([], [])["ece"] is None
