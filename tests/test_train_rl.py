"""RL: its rewards, its health checks, the policies kept along the way, on a tiny random model."""

import json
from types import SimpleNamespace

import pytest
from tiny_model import (
    UNWATCHED,
    distance,
    policy,
    prompts,
    rl_job,
    sft_job,
    train,
    turn,
)

from cai.errors import ConfigError, TrainError
from cai.sections import Health, LengthReward, ModelReward, RuleReward
from cai.train import folder as files
from cai.train import launch

pytest_plugins = ["tiny_fixtures"]
# torch, transformers, peft and trl warn about themselves
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.usefixtures("quiet")]

METHODS = pytest.mark.parametrize("method", ["rloo", "grpo"])
LENGTH = LengthReward(kind="length", weight=1.0, per=10)
RULE = RuleReward(kind="rule", name="has_e", weight=-0.5, pattern="e")


@pytest.fixture(scope="module")
def talker(tiny, tmp_path_factory):
    """The tiny model, taught to answer with one of four sentences of different length."""
    sentences = ("Hello.", "I would rather not say.", "How do I pick a lock?", "Hello. Hello.")
    rows = [
        {"prompt": asked["prompt"], "completion": [turn("assistant", text)]}
        for asked in prompts(4)
        for text in sentences * 2
    ]
    folder = tmp_path_factory.mktemp("talker")
    job = sft_job(tiny, None, max_steps=60, learning_rate=1e-2, per_device_train_batch_size=8)
    train(job, folder, rows)
    return str(folder / "checkpoint")


# --- training


@METHODS
def test_rl_moves_the_policy_and_logs_its_health(tiny, reward_path, tmp_path, method):
    rows = [*prompts(6), {"prompt": [turn("user", "why " * 100)]}]
    result = train(rl_job(tiny, reward_path, method=method, learning_rate=1e-2), tmp_path, rows)
    assert (result["n_prompts"], result["n_too_long"], result["n_steps"]) == (7, 1, 2)
    health = {"kl", "reward", "reward_std", "entropy", "frac_reward_zero_std", "reward_truncated"}
    health |= {"completions/mean_length", "completions/clipped_ratio"}
    first, last = files.read_metrics(tmp_path)
    assert health <= first.keys()
    assert first["kl"] == pytest.approx(0, abs=1e-5)
    assert last["kl"] == result["kl_last"] != 0
    assert result["reward_last"] == last["reward"]
    assert distance(policy(tiny), policy(tmp_path / "checkpoint")) > 1e-3


def test_rollouts_may_serve_more_than_one_step(tiny, reward_path, tmp_path):
    job = rl_job(tiny, reward_path, generation_batch_size=8, learning_rate=1e-2)
    result = train(job, tmp_path, prompts(8))
    first, last = files.read_metrics(tmp_path)
    assert "reward" not in last
    assert result["reward_last"] == result["reward_first"] == first["reward"]


def test_rl_refuses_what_cannot_work(tiny, reward_path, tmp_path):
    with pytest.raises(ConfigError, match="one step takes 2 prompts and there are 1"):
        train(rl_job(tiny, reward_path), tmp_path / "few", prompts(1))
    with pytest.raises(ConfigError, match=r"rl.trainer.beta: -1.0 is negative"):
        train(rl_job(tiny, reward_path, beta=-1.0), tmp_path / "beta", prompts(4))
    with pytest.raises(ConfigError, match=r"rl.trainer: RLOOConfig refuses it: .*num_generations"):
        train(rl_job(tiny, reward_path, num_generations=3), tmp_path / "n", prompts(4))


def test_kl_is_on_unless_switched_off(tiny, reward_path, tmp_path, caplog):
    from cai.train import rl
    from cai.train.tokens import Chat

    chat, conversations = Chat(tiny), [row["prompt"] for row in prompts(4)]
    for method in ("rloo", "grpo"):
        job = rl_job(tiny, reward_path, method=method)
        trainer, _ = rl.make_trainer(job, tmp_path, chat, conversations)
        assert trainer.beta == 0.05
    assert "no KL penalty" not in caplog.text
    rl.make_trainer(rl_job(tiny, reward_path, beta=0.0), tmp_path, chat, conversations)
    assert "no KL penalty" in caplog.text


def test_rewards_that_are_not_finite_are_counted_or_refused():
    from cai.train.rewards import PolicyReward

    scores, logged = [1.0, None], {}
    model = SimpleNamespace(n_truncated=0, score=lambda _: scores)
    reward = PolicyReward(model, "judged")
    assert reward([[], []], [[], []], logged.__setitem__) == [1.0, None]
    assert logged == {"reward_truncated": 0, "reward_not_finite": 1}
    for seen in ([None, None], [None, None], [None, 1.0], [None, None], [None, None]):
        scores[:] = seen
        assert reward([[], []], [[], []], logged.__setitem__) == seen
    assert logged["reward_not_finite"] == 2
    with pytest.raises(
        TrainError, match=r"no reward of 3 batches in a row is finite; .* of judged"
    ):
        reward([[], []], [[], []], logged.__setitem__)


# --- rewards


@METHODS
def test_rewards_are_weighed_summed_and_logged_by_name(tiny, reward_path, tmp_path, method):
    other = ModelReward(name="other", path=reward_path, weight=0.25)
    terms = (reward_path, other, LENGTH, RULE)
    result = train(rl_job(tiny, *terms, method=method), tmp_path, prompts(6))
    weights = {"reward_model": 1.0, "other": 0.25, "length": 1.0, "has_e": -0.5}
    for line in files.read_metrics(tmp_path):
        means = {name: line[f"rewards/{name}/mean"] for name in weights}
        total = sum(weights[name] * means[name] for name in weights)
        assert line["reward"] == pytest.approx(total, abs=1e-5)
        assert means["other"] == pytest.approx(means["reward_model"], abs=1e-5)
        assert means["length"] == pytest.approx(line["completions/mean_length"] / 10)
    assert result["rewards_last"] == means


def test_cuts_of_all_reward_models_are_counted(tiny, reward_path, tmp_path):
    other = ModelReward(name="other", path=reward_path)
    rows = [{"prompt": [turn("user", "why " * 6)]} for _ in range(4)]
    job = rl_job(tiny, reward_path, other).model_copy(update={"reward_max_length": 8})
    result = train(job, tmp_path, rows)
    # two steps of four completions, each read twice
    assert result["n_reward_truncated"] == 16


@pytest.mark.parametrize(
    ("trainer", "n_cut"),
    [
        ({"gradient_accumulation_steps": 2, "steps_per_generation": 1}, 16),
        # generated at the first, third and fifth of six batches: one step has two, the other one
        ({"gradient_accumulation_steps": 3, "steps_per_generation": 2}, 24),
        ({"gradient_accumulation_steps": 1, "steps_per_generation": 2}, 8),
    ],
)
def test_cuts_of_all_generations_are_counted(tiny, reward_path, tmp_path, trainer, n_cut):
    rows = [{"prompt": [turn("user", "why " * 6)]} for _ in range(16)]
    job = rl_job(tiny, reward_path, **trainer).model_copy(update={"reward_max_length": 8})
    assert train(job, tmp_path, rows)["n_reward_truncated"] == n_cut


@pytest.mark.parametrize(("n_tokens", "reward"), [(0, 0.0), (20, 0.0), (21, 0.02), (120, 2.0)])
def test_length_counts_what_is_not_free(n_tokens, reward):
    from cai.train.rewards import lengths

    term = LengthReward(kind="length", weight=-1.0, free=20, per=50)
    assert lengths(term, [[7] * n_tokens], prompts=[]) == [reward]


@pytest.mark.parametrize(
    ("text", "reward"), [("a SORRY b", 1.0), ("fine", 0.0), ("x" * 5000 + "sorry", 0.0), ("", 0.0)]
)
def test_a_rule_looks_for_its_pattern(text, reward):
    from cai.train.rewards import matches

    term = RuleReward(kind="rule", name="sorry", weight=1.0, pattern="sorry")
    assert matches(term, [[turn("assistant", text)]], prompts=[]) == [reward]


def test_a_reward_model_needs_a_folder(tiny):
    from cai.train.rewards import Rollouts, reward_functions

    with pytest.raises(ConfigError, match="reward_model names no reward model"):
        reward_functions(rl_job(tiny, ModelReward()), Rollouts())


def test_what_one_term_cannot_score_has_no_reward_from_any():
    from cai.train.rewards import Rollouts, Term, Terms

    rollouts, asked = Rollouts(), []
    scores = {"a": [1.0, None, 3.0, None], "b": [10.0, 20.0, None, None]}

    def scorer(name):
        return lambda **_: asked.append(name) or scores[name]

    models = [ModelReward(name="a", weight=2.0), ModelReward(name="b", weight=0.5)]
    together = Terms(models, [scorer("a"), scorer("b")], rollouts)
    terms = [Term(name, i, together) for i, name in enumerate(scores)]
    given = {"completions": [[turn("assistant", t)] for t in "wxyz"], "completion_ids": [[1]] * 4}
    for _ in range(2):
        columns = [term(**given) for term in terms]
        assert columns == [[1.0, None, None, None], [10.0, None, None, None]]
    assert asked == ["a", "b"] * 2
    one, two = rollouts.take()
    assert one == two
    assert [(row.text, row.n_tokens, row.reward) for row in one] == [
        ("w", 1, 7.0),
        ("x", 1, None),
        ("y", 1, None),
        ("z", 1, None),
    ]
    assert rollouts.take() == []


def test_a_training_without_a_finite_reward_is_an_error(tiny, reward_path, tmp_path, monkeypatch):
    from cai.train.reward_model import RewardModel

    monkeypatch.setattr(RewardModel, "score", lambda _, conversations: [None] * len(conversations))
    watched = UNWATCHED.model_copy(update={"window": 8, "patience": 1, "max_zero_std": 0.95})
    with pytest.raises(TrainError, match="no reward was finite; check the reward models"):
        train(rl_job(tiny, reward_path, LENGTH, health=watched), tmp_path, prompts(6))


@METHODS
def test_a_score_that_is_not_finite_is_no_reward_beside_other_terms(
    tiny, reward_path, tmp_path, monkeypatch, method
):
    from cai.train.reward_model import RewardModel

    score = RewardModel.score

    def first_missing(self, conversations):
        return [None, *score(self, conversations)[1:]]

    monkeypatch.setattr(RewardModel, "score", first_missing)
    constant = RuleReward(kind="rule", name="always", weight=100.0, pattern="")
    train(rl_job(tiny, reward_path, constant, method=method), tmp_path, prompts(6))
    for line in files.read_metrics(tmp_path):
        # as 0 the missing score would be in the mean of the sums, which is that of three of four
        assert line["rewards/always/mean"] == 1
        assert line["reward"] == pytest.approx(line["rewards/reward_model/mean"] + 100, abs=1e-4)


# --- health


def rollout(text="a b c", n_tokens=4, reward=0.0, flat=False):
    from cai.train.rewards import Rollout

    return Rollout(text, n_tokens, reward, flat)


def watch(group_size=2, **health):
    from cai.train.health import Watch

    return Watch(UNWATCHED.model_copy(update=health), group_size)


def test_the_window_is_measured():
    from cai.train.health import measure

    window = [
        rollout("one two one two", 2, 1.0, True),
        rollout("one two three", 4, 2.0),
        rollout("one two three", 6, None),
        rollout("", 8, 2.0),
    ]
    found = measure(window, first=2.5)
    assert found.pop("length_correlation") == pytest.approx(0.7559, abs=1e-4)
    # one two, two one, two three: 3 of 7 pairs; two of four texts begin with one two three
    assert found == {
        "distinct_2": pytest.approx(3 / 7),
        "top_opening_share": 0.5,
        "zero_std": 0.25,
        "length_growth": 2.0,
    }


@pytest.mark.parametrize(
    "rows",
    [
        [rollout(n_tokens=3, reward=1.0), rollout(n_tokens=3, reward=2.0)],
        [rollout(n_tokens=3, reward=1.0), rollout(n_tokens=4, reward=1.0)],
        [rollout(n_tokens=3, reward=1.0), rollout(n_tokens=4, reward=None)],
        [rollout(reward=None)],
    ],
)
def test_a_correlation_with_what_is_constant_is_not_known(rows):
    from cai.train.health import measure

    assert measure(rows, first=1.0)["length_correlation"] is None


def test_what_has_no_two_words_has_no_diversity():
    from cai.train.health import measure

    assert measure([rollout("word")], first=1.0)["distinct_2"] is None


@pytest.mark.parametrize(
    ("rewards", "flat"),
    [
        ([1.0, 1.0, 2.0, 3.0], [True, True, False, False]),
        ([None, 1.0, None, None], [True, True, True, True]),
        ([0.0, 1e-12, 0.0, 1e-3], [True, True, False, False]),
    ],
)
def test_groups_without_a_difference_are_marked(rewards, flat):
    from cai.train.health import mark_flat

    assert [row.flat for row in mark_flat([rollout(reward=r) for r in rewards], 2)] == flat


@pytest.mark.parametrize(
    ("bound", "limit", "good", "bad"),
    [
        ("max_kl", 0.5, -0.6, 0.51),
        ("min_entropy", 0.05, 0.05, 0.04),
        ("max_clipped", 0.5, 0.5, 0.6),
        ("max_length_correlation", 0.9, -0.9, 0.95),
        ("max_length_growth", 3.0, 0.1, 3.1),
        ("min_length_growth", 0.25, 3.1, 0.2),
    ],
)
def test_a_bound_broken_often_enough_in_a_row_stops(bound, limit, good, bad):
    from cai.train.health import BOUNDS

    seen = watch(patience=2, **{bound: limit})
    values = [good, bad, good, bad, None, bad]
    for step, value in enumerate(values, 1):
        assert seen.stopped is None
        assert seen.last_healthy(step) == step
        seen.look(step, [[rollout()]], {BOUNDS[bound]: value})
    assert (seen.stopped["step"], seen.stopped["bounds"]) == (6, [bound])
    assert f"rl.health.{bound} {limit:g}" in seen.stopped["why"][0]
    # what step 3 sampled came from the policy of step 2
    assert seen.last_healthy(6) == 2


def test_a_reward_for_saying_less_is_as_suspicious_as_one_for_saying_more():
    seen = watch(patience=1, max_length_correlation=0.9)
    seen.judge(1, {"length_correlation": -0.95})
    assert seen.stopped["why"] == [
        "length_correlation -0.95 < rl.health.max_length_correlation -0.9"
    ]


def test_no_later_check_falls_below_the_floor():
    seen = watch(patience=3, max_kl=0.5, min_entropy=0.1)
    assert seen.floor == 0
    for step, kl, entropy in [(1, 0.0, 1.0), (2, 0.0, 0.0), (3, 1.0, 1.0), (4, 1.0, 1.0)]:
        seen.judge(step, {"kl": kl, "entropy": entropy})
    # the policy of step 1 kept the one bound, that of step 3 the other
    assert (seen.stopped, seen.floor) == (None, 1)
    seen.judge(5, {"kl": 1.0, "entropy": 1.0})
    assert seen.last_healthy(5) >= seen.floor


def test_each_bound_has_its_own_count():
    seen = watch(patience=2, max_kl=0.5, min_entropy=0.1)
    seen.look(1, [[rollout()]], {"kl": 1.0, "entropy": 1.0})
    seen.look(2, [[rollout()]], {"kl": 0.0, "entropy": 0.0})
    assert seen.stopped is None
    seen.look(3, [[rollout()]], {"kl": 1.0, "entropy": 0.0})
    assert (seen.stopped["bounds"], seen.last_healthy(3)) == (["min_entropy"], 0)


def test_checks_come_every_so_many_steps():
    seen = watch(patience=2, every=3, window=8, max_kl=0.5)
    steps = [step for step in range(1, 10) if not seen.look(step, [[rollout()]] * 8, {"kl": 1.0})]
    assert steps == [1, 2, 4, 5, 7, 8]
    assert (seen.stopped["step"], seen.strikes) == (6, {"max_kl": 3})


def test_the_window_counts_from_when_it_is_half_full():
    seen = watch(window=8)
    assert seen.look(1, [[rollout(n_tokens=2)] * 2], {}) == {}
    assert seen.look(2, [[rollout(n_tokens=4)] * 2], {})["length_growth"] == 1.0
    assert seen.look(3, [[rollout(n_tokens=6)] * 8], {})["length_growth"] == 2.0
    assert len(seen.window) == 8


def test_the_state_of_a_watch_survives_json():
    one, other = (watch(window=8, patience=2, max_kl=0.5) for _ in range(2))
    fresh = [[rollout("a b", 3, 1.0), rollout("c d", 5, None)]]
    for step in (1, 2, 3):
        one.look(step, fresh, {"kl": step - 1.5})
    other.restore(json.loads(json.dumps(one.state())))
    assert other.state() == one.state()
    for seen in (one, other):
        assert seen.stopped is None
        seen.look(4, fresh, {"kl": 1.0})
    assert one.stopped == other.stopped is not None
    assert other.last_healthy(4) == 1


def hacked_job(talker, **options):
    """Length alone is rewarded; only the growth of the answers is watched."""
    health = UNWATCHED.model_copy(update={"window": 16, "patience": 2, "max_length_growth": 3.0})
    return rl_job(
        talker,
        LENGTH,
        health=health,
        max_steps=40,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=40,
        learning_rate=1e-2,
        **options,
    )


@METHODS
def test_a_hacked_reward_is_caught(talker, tmp_path, method):
    """Length alone is rewarded: the answers grow until they say nothing but length."""
    from peft import PeftModel

    job = hacked_job(talker, method=method, n_checkpoints=40, save_total_limit=2)
    result = train(job, tmp_path, prompts(8))
    stopped, lines = result["stopped"], files.read_metrics(tmp_path)
    assert stopped["bounds"] == ["max_length_growth"]
    assert stopped["step"] == result["n_steps"] == len(lines) < 40
    assert [line["length_growth"] > 3 for line in lines[-3:]] == [False, True, True]
    healthy = result["last_healthy_step"]
    assert healthy == len(lines) - 3
    assert result["candidates"] == list(range(1, healthy + 1))
    assert result["checkpoint_step"] == healthy
    chosen = policy(tmp_path / "checkpoint")
    assert distance(chosen, policy(tmp_path / "candidates" / f"step-{healthy}")) == 0
    # what it sampled, one step later, was as it should be
    assert lines[healthy]["length_growth"] <= 3 < lines[-1]["length_growth"]
    collapsed = tmp_path / "trainer" / f"checkpoint-{len(lines) - 1}"
    merged = PeftModel.from_pretrained(policy(talker), collapsed).merge_and_unload()
    assert distance(chosen, merged) > 1e-4


def test_an_early_collapse_leaves_the_newest_policy_from_before(talker, tmp_path):
    """Of the evenly spaced steps only the last was to be kept, and it is never reached."""
    saves = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 1}
    result = train(hacked_job(talker, n_checkpoints=1, **saves), tmp_path, prompts(8))
    healthy = result["last_healthy_step"]
    assert 2 <= healthy < result["n_steps"] < 40
    assert result["candidates"] == [result["checkpoint_step"]] == [healthy - healthy % 2]


@pytest.mark.parametrize(
    ("floor", "left"), [(0, [2, 4, 5, 6, 8]), (5, [4, 5, 6, 8]), (7, [4, 6, 8]), (9, [4, 8])]
)
def test_what_is_kept_beside_the_wanted_steps_begins_at_the_floor(tmp_path, floor, left):
    from cai.train.candidates import prune

    for step in (2, 4, 5, 6, 8):
        (tmp_path / "kept" / f"step-{step}").mkdir(parents=True)
    prune(tmp_path, {4, 8}, floor)
    assert [files.step_of(path) for path in files.steps(tmp_path / "kept", "step")] == left


def test_where_no_policy_was_healthy_the_start_is_kept(talker, tmp_path):
    job = rl_job(
        talker,
        LENGTH,
        health=Health(window=8, min_distinct_2=None),
        max_steps=10,
        max_completion_length=40,
        learning_rate=1e-2,
    )
    result = train(job, tmp_path, prompts(8))
    assert result["stopped"]["bounds"] == ["max_length_correlation"]
    # a window is half full after one step
    assert (result["n_steps"], result["stopped"]["step"]) == (3, 3)
    assert (result["last_healthy_step"], result["candidates"]) == (0, [])
    assert result["checkpoint_step"] == 0
    assert distance(policy(talker), policy(tmp_path / "checkpoint")) == 0
    assert list((tmp_path / "candidates").iterdir()) == []


def test_nothing_learnt_is_an_error_unless_health_has_said_so(tiny, tmp_path):
    never = RuleReward(kind="rule", name="never", weight=1.0, pattern="(?!)")
    with pytest.raises(TrainError, match="grad_norm was 0 at each of 2 steps"):
        train(rl_job(tiny, never, beta=0.0), tmp_path / "unwatched", prompts(6))
    watched = UNWATCHED.model_copy(update={"window": 8, "patience": 1, "max_zero_std": 0.95})
    result = train(rl_job(tiny, never, beta=0.0, health=watched), tmp_path / "b", prompts(6))
    assert result["stopped"]["bounds"] == ["max_zero_std"]


# --- candidates


@pytest.mark.parametrize(
    ("max_steps", "n", "steps"),
    [(10, 4, {3, 5, 8, 10}), (8, 4, {2, 4, 6, 8}), (2, 4, {1, 2}), (7, 1, {7}), (1, 1, {1})],
)
def test_the_kept_steps_are_evenly_spaced(max_steps, n, steps):
    from cai.train.candidates import wanted

    assert wanted(max_steps, n) == steps


@pytest.mark.parametrize("whole", [True, False])
def test_kept_policies_outlive_the_rotation(tiny, reward_path, tmp_path, whole):
    from transformers import AutoTokenizer

    lora = {"lora": None} if whole else {}
    job = rl_job(
        tiny,
        reward_path,
        n_checkpoints=3,
        max_steps=6,
        learning_rate=1e-2,
        save_total_limit=1,
        **lora,
    )
    result = train(job, tmp_path, prompts(8))
    assert (result["candidates"], result["last_healthy_step"]) == ([2, 4, 6], 6)
    assert [files.step_of(path) for path in files.checkpoints(tmp_path)] == [6]
    models = [policy(tmp_path / "candidates" / f"step-{step}") for step in (2, 4, 6)]
    assert distance(models[0], models[1]) > 1e-4
    assert distance(models[1], models[2]) > 1e-4
    assert distance(models[2], policy(tmp_path / "checkpoint")) == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "candidates" / "step-4").chat_template
    assert not list(tmp_path.rglob("candidates/*/adapter*"))
    weights = "model.safetensors"
    assert (tmp_path / "checkpoint" / weights).stat().st_nlink == 2
    assert not (tmp_path / "kept").exists()


def test_a_candidate_is_what_the_trainer_saved(tiny, reward_path, tmp_path):
    from peft import PeftModel

    trainer = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 10}
    job = rl_job(tiny, reward_path, n_checkpoints=1, max_steps=6, learning_rate=1e-2, **trainer)
    assert train(job, tmp_path, prompts(8))["candidates"] == [6]
    # the user's own checkpoints are for resuming
    assert [files.step_of(path) for path in files.checkpoints(tmp_path)] == [6, 3]
    saved = PeftModel.from_pretrained(policy(tiny), tmp_path / "trainer" / "checkpoint-6")
    assert distance(saved.merge_and_unload(), policy(tmp_path / "candidates" / "step-6")) < 1e-6


def test_an_interrupted_run_keeps_its_window_and_its_candidates(tiny, reward_path, tmp_path):
    health = UNWATCHED.model_copy(update={"window": 16})
    trainer = {"max_steps": 6, "learning_rate": 1e-2}
    job = rl_job(tiny, reward_path, health=health, n_checkpoints=3, **trainer)
    first = train(job, tmp_path, prompts(8))
    lines = files.read_metrics(tmp_path)
    assert ["distinct_2" in line for line in lines] == [False, True, True, True, True, True]
    old = policy(tmp_path / "candidates" / "step-4")
    # killed while it saved the last checkpoint
    (tmp_path / "trainer" / "checkpoint-6" / "optimizer.pt").unlink()
    again = train(job, tmp_path, prompts(8))
    assert files.read_metrics(tmp_path)[:4] == lines[:4]
    # without the window of before, the fifth step would have nothing to measure
    assert [line["step"] for line in files.read_metrics(tmp_path) if "distinct_2" in line] == [
        *range(2, 7)
    ]
    assert again["candidates"] == first["candidates"] == [2, 4, 6]
    assert distance(old, policy(tmp_path / "candidates" / "step-4")) == 0


def test_a_run_killed_after_its_last_step_takes_no_other(tiny, reward_path, tmp_path):
    job = rl_job(tiny, reward_path, n_checkpoints=2, max_steps=5, learning_rate=1e-2)
    first = train(job, tmp_path, prompts(8))
    lines = files.read_metrics(tmp_path)
    (tmp_path / "candidates" / "step-5").rename(tmp_path / "old")
    assert train(job, tmp_path, prompts(8)) == first
    assert files.read_metrics(tmp_path) == lines
    assert distance(policy(tmp_path / "old"), policy(tmp_path / "checkpoint")) == 0


def test_going_back_drops_what_is_newer(tmp_path):
    for name in ("kept/step-2", "candidates/step-2", "candidates/step-4.tmp"):
        (tmp_path / name).mkdir(parents=True)
    assert files.rewind(tmp_path) == 0
    assert list(tmp_path.glob("*/*")) == []
    (tmp_path / "candidates" / "step-4").mkdir()
    files.clear(tmp_path)
    assert not (tmp_path / "candidates").exists()


@pytest.mark.slow
def test_the_completions_of_all_processes_count(tiny, reward_path, tmp_path, monkeypatch):
    monkeypatch.setenv("CAI_NUM_PROCESSES", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    health = UNWATCHED.model_copy(update={"window": 16})
    job = rl_job(tiny, reward_path, health=health, learning_rate=1e-2)
    result = launch.run_job(job, tmp_path, prompts(8), lambda line: None)
    # each process samples four, and half a window is eight
    assert all("distinct_2" in line for line in files.read_metrics(tmp_path))
    assert result["candidates"] == [1, 2]
