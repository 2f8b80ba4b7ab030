"""Reward models from hard labels, margins and ratings, on a tiny random model."""

import json
import math
import random
import shutil

import pytest
from tiny_model import (
    FAST,
    LORA,
    classifier,
    distance,
    pairs,
    policy,
    prompts,
    reward_job,
    train,
    turn,
)

from cai.errors import ConfigError
from cai.train import folder as files
from cai.train.jobs import RatingJob

pytest_plugins = ["tiny_fixtures"]
# torch, transformers, peft and trl warn about themselves
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("quiet")]


def labelled_job(model, labels, margin=0.0, **trainer):
    return reward_job(model, **trainer).model_copy(update={"labels": labels, "margin": margin})


def rating_job(model, lora=LORA, max_length=128, **trainer):
    return RatingJob(model=model, lora=lora, max_length=max_length, trainer=FAST | trainer, seed=0)


def rated(n, heldout=False, scale=1.0, shift=0.0):
    """Rows whose rating is `shift` and `scale` times how often the response says "lock"."""
    draw, rows = random.Random(int(heldout)), []
    for _ in range(n):
        count = draw.randrange(5)
        words = ["lock"] * count + ["rather"] * (6 - count)
        draw.shuffle(words)
        asked = turn("user", f"How? {draw.randrange(1000)}")
        messages = [asked, turn("assistant", " ".join(words))]
        rows.append({"messages": messages, "rating": shift + scale * count, "heldout": heldout})
    return rows


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# --- pairs


@pytest.mark.parametrize("p", [0.6, 0.85])
def test_soft_labels_are_fitted_and_calibrated(tiny, tmp_path, p):
    job = labelled_job(tiny, "soft", max_steps=60, learning_rate=1e-2)
    result = train(job, tmp_path, pairs(p, 16) + pairs(p, 4, heldout=True))
    assert sigmoid(result["margin_train"]) == pytest.approx(p, abs=0.02)
    assert result["ece_heldout"] < 0.02
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert result["loss_heldout"] == pytest.approx(entropy, abs=0.002)


@pytest.mark.parametrize("p", [0.6, 0.85])
def test_hard_labels_are_certain_whatever_the_label(tiny, tmp_path, p):
    job = labelled_job(tiny, "hard", max_steps=60, learning_rate=1e-2)
    result = train(job, tmp_path, pairs(p, 16) + pairs(p, 4, heldout=True))
    fitted = sigmoid(result["margin_train"])
    assert fitted > 0.95
    assert result["accuracy_heldout"] == 1
    assert result["ece_heldout"] == pytest.approx(fitted - p, abs=0.01)


@pytest.mark.parametrize(
    ("labels", "margin", "center"),
    [
        ("soft", 0.0, None),
        ("soft", 0.0, 0.7),
        ("hard", 0.0, None),
        ("hard", 2.0, None),
        ("hard", 2.0, 0.7),
    ],
)
def test_the_loss_is_the_documented_one(tiny, tmp_path, labels, margin, center):
    p, trainer = 0.85, {"max_steps": 2, "learning_rate": 1e-2}
    job = labelled_job(tiny, labels, margin, **trainer, center_rewards_coefficient=center)
    train(job, tmp_path, pairs(p, 4))
    for line in files.read_metrics(tmp_path):
        d, both = line["margin"], 2 * line["mean_reward"]
        soft = -p * math.log(sigmoid(d)) - (1 - p) * math.log(sigmoid(-d))
        hard = -math.log(sigmoid(d - margin * (2 * p - 1)))
        expected = (soft if labels == "soft" else hard) + (center or 0) * both**2
        assert line["loss"] == pytest.approx(expected, abs=1e-4)


def test_a_margin_widens_the_gap_and_centering_pulls_scores_to_zero(tiny, tmp_path):
    steps = {"max_steps": 30, "learning_rate": 1e-2}
    variants = {
        "plain": labelled_job(tiny, "hard", **steps),
        "margin": labelled_job(tiny, "hard", 8.0, **steps),
        "center": labelled_job(tiny, "hard", **steps, center_rewards_coefficient=1.0),
    }
    results = {name: train(job, tmp_path / name, pairs(0.9, 8)) for name, job in variants.items()}
    gaps = {name: result["margin_train"] for name, result in results.items()}
    assert gaps["margin"] > gaps["plain"] + 1
    last = {name: files.read_metrics(tmp_path / name)[-1] for name in variants}
    assert abs(last["center"]["mean_reward"]) < abs(last["plain"]["mean_reward"])


@pytest.mark.parametrize("labels", ["soft", "hard"])
def test_every_pair_is_accounted_for(tiny, tmp_path, labels):
    rows = pairs(0.9, 4) + pairs(0.5, 3) + pairs(0.9, 2, heldout=True) + pairs(0.5, 1, heldout=True)
    rows.append(rows[0] | {"rejected": [turn("user", "why " * 200), turn("assistant", "No.")]})
    result = train(labelled_job(tiny, labels, max_steps=1), tmp_path, rows)
    n_undecided = 3 if labels == "hard" else 0
    assert (result["n_undecided"], result["n_train"]) == (n_undecided, 7 - n_undecided)
    parts = ("n_too_long", "n_undecided", "n_train", "n_heldout", "n_heldout_undecided")
    assert sum(result[name] for name in parts) == result["n_rows"] == 11


def test_hard_labels_need_a_decided_pair(tiny, tmp_path):
    with pytest.raises(ConfigError, match=r"2 have no better side \(reward.labels: hard"):
        train(labelled_job(tiny, "hard"), tmp_path, pairs(0.5, 2))


@pytest.mark.parametrize(
    ("gaps", "targets", "ece", "loss"),
    [
        ([math.log(3)], [0.75], 0, 0.562335),
        # a coin is calibrated over both sides, though it knows nothing
        ([0.0], [1.0], 0, math.log(2)),
        ([0.04, -0.04], [0.8, 0.8], 0.009999, 0.693347),
        # the wrong way round: the mirror image is as wrong
        ([-math.log(3)], [0.75], 0.5, 1.111641),
        ([1000.0], [0.9], 0.1, 100),
        ([-1000.0], [1.0], 1, 1000),
        ([None, 0.0], [0.9, 0.5], 0, math.log(2)),
        ([None], [0.9], None, None),
        ([], [], None, None),
    ],
)
def test_calibration(gaps, targets, ece, loss):
    from cai.train.reward import calibration

    found = calibration(gaps, targets)
    assert found["ece_heldout"] == (ece if ece is None else pytest.approx(ece, abs=1e-6))
    assert found["loss_heldout"] == (loss if loss is None else pytest.approx(loss, abs=1e-5))


# --- ratings


@pytest.mark.parametrize("lora", [None, LORA])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (5.0, 80.0), (0.01, -3.0)])
def test_a_rule_is_recovered_on_the_ratings_own_scale(tiny, tmp_path, lora, scale, shift):
    job = rating_job(tiny, lora, max_steps=100, learning_rate=3e-3 if lora is None else 1e-2)
    rows = rated(64, False, scale, shift) + rated(24, True, scale, shift)
    result = train(job, tmp_path, rows)
    assert (result["n_rows"], result["n_train"], result["n_heldout"]) == (88, 64, 24)
    assert result["mse_heldout"] < 0.3 * result["mse_of_mean_heldout"]
    assert result["mse_train"] < 0.3 * result["rating_std"] ** 2
    assert result["pearson_heldout"] > 0.85
    assert result["spearman_heldout"] > 0.85
    assert result["loss_last"] < result["loss_first"]


def test_the_baseline_says_the_training_mean(tiny, tmp_path):
    rows = rated(8) + rated(4, heldout=True)
    mean = sum(row["rating"] for row in rows[:8]) / 8
    result = train(rating_job(tiny, max_steps=1), tmp_path, rows)
    assert result["rating_mean"] == pytest.approx(mean)
    errors = [(row["rating"] - mean) ** 2 for row in rows[8:]]
    assert result["mse_of_mean_heldout"] == pytest.approx(sum(errors) / 4)


@pytest.fixture(scope="module")
def rating_path(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rating")
    job = rating_job(tiny, max_steps=5, learning_rate=1e-2)
    train(job, folder, rated(16, scale=5.0, shift=80.0))
    return str(folder / "checkpoint")


def test_the_rating_checkpoint_is_a_plain_reward_model(rating_path):
    from cai.train.reward_model import RewardModel

    model = RewardModel(rating_path, 64, 4)
    assert model.model.config.num_labels == 1
    assert model.model.config.problem_type == "regression"
    assert model.model.config.pad_token_id == model.chat.tokenizer.pad_token_id
    assert model.chat.tokenizer.pad_token != model.chat.tokenizer.eos_token
    assert all(60 < score < 110 for score in model.score([rated(1)[0]["messages"]]))


def test_training_scoring_and_rl_read_the_same_tokens_and_scores(tiny, rating_path, tmp_path):
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    from cai.train import rating
    from cai.train.reward_model import RewardModel
    from cai.train.rewards import PolicyReward
    from cai.train.tokens import Chat

    rows, model = rated(3), RewardModel(rating_path, 64, 2)
    conversations = [row["messages"] for row in rows]
    kept = [rating.Rated(Chat(tiny).ids(row["messages"]), row) for row in rows]
    scale = rating.Scale(80.0, 5.0)
    trained = rating.make_trainer(rating_job(rating_path), tmp_path, (model.chat, scale), kept)
    assert trained.train_dataset["input_ids"] == [model.chat.ids(c) for c in conversations]
    rl = RLOOTrainer(
        model=policy(tiny),
        reward_funcs=rating_path,
        args=RLOOConfig(output_dir="/nowhere", use_cpu=True, bf16=False),
        train_dataset=Dataset.from_list(prompts(8)),
        processing_class=Chat(tiny).tokenizer,
    )
    asked, said = [c[:1] for c in conversations], [c[1:] for c in conversations]
    stock = rl._calculate_rewards([{"prompt": p} for p in asked], asked, said, [[1]] * 3)
    ours = PolicyReward(model)(asked, said, lambda name, value: None)
    assert ours == model.score(conversations)
    assert stock[:, 0].tolist() == pytest.approx(ours, abs=1e-3)


def test_what_was_trained_is_what_is_saved(tiny, tmp_path, monkeypatch):
    import torch

    from cai.train import rating
    from cai.train.reward_model import RewardModel

    seen, save, row = {}, rating.save_rescaled, rated(1)[0]

    def look(trainer, chat, folder, std):
        trainer.model.eval()
        with torch.no_grad():
            output = trainer.model(input_ids=torch.tensor([chat.ids(row["messages"])]))
        seen["score"] = output.logits.item() * std
        save(trainer, chat, folder, std)

    monkeypatch.setattr(rating, "save_rescaled", look)
    train(rating_job(tiny, max_steps=10, learning_rate=1e-2), tmp_path, rated(8, scale=3.0))
    score = RewardModel(tmp_path / "checkpoint", 128, 4).score([row["messages"]])[0]
    assert score == pytest.approx(seen["score"], abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_head_starts_at_the_mean(tiny, batch_size):
    import torch

    from cai.train import rating
    from cai.train.reward_model import load_classifier
    from cai.train.tokens import Chat

    chat, model = Chat(tiny), load_classifier(tiny, torch.float32)
    chat.set_distinct_pad(model)
    rows = [chat.ids(row["messages"]) for row in rated(5)]
    rating.centre(model, rows, 16.0, batch_size)
    with torch.no_grad():
        scores = [model(input_ids=torch.tensor([ids])).logits.item() for ids in rows]
    assert sum(scores) / 5 == pytest.approx(16, abs=1e-3)


def test_accumulated_batches_weigh_as_one(tiny, tmp_path):
    whole = rating_job(tiny, max_steps=3, per_device_train_batch_size=8)
    parts = rating_job(tiny, max_steps=3, gradient_accumulation_steps=2)
    lines = []
    for name, job in (("whole", whole), ("parts", parts)):
        train(job, tmp_path / name, rated(8))
        lines.append(files.read_metrics(tmp_path / name))
    for name in ("loss", "grad_norm", "num_tokens"):
        one, other = ([line[name] for line in run] for run in lines)
        assert one == pytest.approx(other, rel=1e-3)


def test_tokens_are_counted_and_long_rows_left_out(tiny, tmp_path):
    from cai.train.tokens import Chat

    rows = rated(4) + rated(2, heldout=True)
    long = rows[0] | {"messages": [turn("user", "why " * 200), turn("assistant", "No.")]}
    result = train(rating_job(tiny, max_steps=2), tmp_path, [*rows, long])
    assert (result["n_rows"], result["n_too_long"], result["n_train"]) == (7, 1, 4)
    n_tokens = sum(len(Chat(tiny).ids(row["messages"])) for row in rows[:4])
    assert [line["num_tokens"] for line in files.read_metrics(tmp_path)] == [n_tokens, 2 * n_tokens]


def test_an_interrupted_rating_job_goes_on(tiny, tmp_path):
    job = rating_job(tiny, max_steps=6, save_strategy="steps", save_steps=2, learning_rate=1e-2)
    train(job, tmp_path, rated(8))
    lines = files.read_metrics(tmp_path)
    newest = tmp_path / "trainer" / "checkpoint-6" / "adapter_model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    whole = (tmp_path / "checkpoint").rename(tmp_path / "whole")
    train(job, tmp_path, rated(8))
    again = files.read_metrics(tmp_path)
    assert [line["num_tokens"] for line in again] == [line["num_tokens"] for line in lines]
    assert again[-1]["loss"] == pytest.approx(lines[-1]["loss"], abs=1e-6)
    assert distance(classifier(whole), classifier(tmp_path / "checkpoint")) < 1e-5


@pytest.mark.parametrize(
    ("rows", "trainer", "message"),
    [
        (
            [row | {"rating": 3.0} for row in rated(4)],
            {},
            r"all 4 training rows are 3.0.*reward.ratings",
        ),
        (rated(3, heldout=True), {}, r"no rating is left .* of 3 rows 0 .* 3 are held out"),
        (
            rated(4),
            {"learning_rte": 1},
            r"reward.trainer.learning_rte: .* did you mean learning_rate\?",
        ),
    ],
)
def test_jobs_that_cannot_be_trained_say_why(tiny, tmp_path, rows, trainer, message):
    with pytest.raises(ConfigError, match=message):
        train(rating_job(tiny, **trainer), tmp_path, rows)


def test_errors_are_over_finite_scores(rating_path):
    from cai.train import rating
    from cai.train.reward_model import RewardModel

    model = RewardModel(rating_path, 64, 4)
    rows = [rating.Rated([], row) for row in rated(3)]
    model.model.score.weight.data.fill_(math.nan)
    found = rating.measure(model, rows[:1], rows[1:], rating.Scale(0.0, 1.0))
    assert found["n_not_finite"] == 3
    assert {found[name] for name in ("mse_train", "mse_heldout", "pearson_heldout")} == {None}


def test_correlations():
    from cai.metrics import pearson, ranks

    assert ranks([3.0, 1.0, 3.0, 2.0]) == [6, 1, 6, 3]
    assert pearson([(1, 1), (2, 2), (3, 9)]) == pytest.approx(0.917663, abs=1e-5)
    assert pearson([(1, 2), (2, 2)]) is None
    assert pearson([(1, 2)]) is None
    assert pearson([]) is None


@pytest.mark.parametrize("pad_id", [None, 7])
def test_a_row_scores_the_same_in_a_batch_whatever_pad_token_the_config_names(
    reward_path, tmp_path, pad_id
):
    from cai.train.reward_model import RewardModel

    folder = shutil.copytree(reward_path, tmp_path / "foreign")
    config = json.loads((folder / "config.json").read_text())
    assert config["pad_token_id"] not in (None, pad_id)
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": pad_id}))
    rows = [row["messages"] for row in rated(3)]
    rows[1] = [*rows[1], turn("user", "How do I pick a lock?"), turn("assistant", "Hello.")]
    model = RewardModel(folder, 128, 3)
    alone = [score for row in rows for score in model.score([row])]
    assert model.score(rows) == pytest.approx(alone, abs=1e-5)
    assert alone == pytest.approx(RewardModel(reward_path, 128, 1).score(rows), abs=1e-5)


def test_of_a_model_that_names_no_padding_the_last_token_is_read(reward_path, tmp_path):
    """Its rows may end in the end token, with which such rows are padded elsewhere."""
    import torch

    from cai.train.reward_model import RewardModel

    folder = shutil.copytree(reward_path, tmp_path / "foreign")
    for name, key in (("config.json", "pad_token_id"), ("tokenizer_config.json", "pad_token")):
        settings = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(settings | {key: None}))
    model = RewardModel(folder, 128, 2)
    assert model.chat.own_pad_id is None
    end = model.chat.tokenizer.eos_token_id
    rows = [[5, 6, end], [0, 6, 7, 8, end], [1], [5, 0]]
    with torch.inference_mode():
        hidden = [model.model.model(torch.tensor([row])).last_hidden_state[0, -1] for row in rows]
        expected = [model.model.score(last).item() for last in hidden]
    assert model.forward(rows).tolist() == pytest.approx(expected, abs=1e-5)
    assert [model.forward([row]).item() for row in rows] == pytest.approx(expected, abs=1e-5)


def test_a_model_without_a_plain_head_is_refused():
    import torch

    from cai.train.reward_model import head_of

    for head in (None, torch.nn.Linear(4, 1, bias=True)):
        model = torch.nn.Module()
        model.score = head
        with pytest.raises(ConfigError, match=r"linear score head .* models.reward"):
            head_of(model)
