"""`cai reproduce`: levels and splits, what is done twice and what is not, what is shown."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console
from tiny_model import train

from cai.config import Engine
from cai.errors import ConfigError, RunConflict, TrainError
from cai.metrics import gap_accuracy
from cai.preferences import Pair as HumanPair
from cai.records import Message
from cai.reproduce import dialogues, gaps, human, judging, labels, policy, run
from cai.reproduce.options import (
    HumanSizes,
    LabelSizes,
    ReproduceOptions,
    RlSizes,
    Sizes,
    Work,
    make_sizes,
)
from cai.sections import Lora, RuleReward
from cai.view.progress import RunProgress, StageProgress
from cai.view.reproduced import human_section, markdown, show_reproduced

pytest_plugins = ["tiny_fixtures"]

TINY = Lora(r=2, alpha=4)
RULE = RuleReward(kind="rule", name="has_e", weight=1.0, pattern="e")
SIZES = Sizes(
    labels=LabelSizes(n_train=2, n_unseen=1, steps=2, batch_size=4, lora=TINY),
    human=HumanSizes(shares=(0.5, 1.0), test=0.25, batch_size=4, lora=TINY, learning_rate=1e-2),
    rl=RlSizes(
        steps=2, planted_steps=2, n_unseen=4, max_tokens=12, batch_size=8, n_generations=4,
        max_chars=40, lora=TINY, learning_rate=1e-2,
    ),
)  # fmt: skip


def human_pair(number, group=None, extra=""):
    asked = Message(role="user", content=f"How {number}?{extra}")
    texts = (f"No {number}.", f"Yes {number}!!")
    return HumanPair(str(number), (asked,), *texts, 1.0, group or str(number), "f", f"f:{number}")


def data_file(folder, n=40):
    path = folder / "pairs.jsonl"
    dialogue = "\n\nHuman: How {0}?\n\nAssistant: {1}"
    rows = (
        {"chosen": dialogue.format(i, f"No {i}."), "rejected": dialogue.format(i, f"Yes {i}!")}
        for i in range(n)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def options_for(tmp_path, model="no-model", **given):
    data = str(data_file(tmp_path))
    engine = Engine(kind="fake")
    usual = {"out": tmp_path / "out", "sizes": SIZES, "engine": engine, "parts": run.PARTS[:3]}
    return ReproduceOptions(data=data, model=str(model), **(usual | given))


def silent():
    return RunProgress(quiet=True)


# --- sizes


@pytest.mark.parametrize(
    ("scale", "settings", "expected"),
    [
        (1.0, [], Sizes()),
        (1e-9, [], {"rl.steps": 2, "judge.n_pairs": 2}),
        (2.0, [], {"rl.steps": 2 * RlSizes().steps, "human.shares": HumanSizes().shares}),
        (0.5, ["rl.steps=7"], {"rl.steps": 7, "human.shares": (0.125, 0.25, 0.5)}),
        (1.0, ["human.lora.r=3"], {"human.lora": Lora(r=3, alpha=HumanSizes().lora.alpha)}),
    ],
)
def test_sizes_are_scaled_then_set(scale, settings, expected):
    sizes = make_sizes(scale, settings)
    if isinstance(expected, Sizes):
        assert sizes == expected
        return
    for key, value in expected.items():
        part, name = key.split(".")
        assert getattr(getattr(sizes, part), name) == value


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rl.step=3", "--set rl.step: unknown key 'rl.step'; did you mean 'steps'?"),
        ("rl.steps=0", "--set rl.steps: rl.steps: Input should be greater than or equal to 1"),
        ("rl.steps", "expected key=value"),
    ],
)
def test_a_wrong_size_is_named(setting, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_sizes(1.0, [setting])


# --- levels and splits


@pytest.mark.parametrize(("n_train", "n_unseen"), [(1, 1), (24, 8), (500, 1000)])
def test_a_pair_says_nothing_but_its_level(n_train, n_unseen):
    training, unseen = labels.make_pairs(LabelSizes(n_train=n_train, n_unseen=n_unseen), 0)
    assert Counter(pair.p for pair in training) == dict.fromkeys(labels.LEVELS, n_train)
    assert len({pair.p for pair in unseen}) == len(labels.LEVELS)
    texts = {(pair.p, pair.chosen, pair.rejected) for pair in (*training, *unseen)}
    assert len(texts) == len(labels.LEVELS)
    asked = [{pair.prompt[0]["content"] for pair in part} for part in (training, unseen)]
    assert not asked[0] & asked[1]


def test_levels_are_averaged_and_a_missing_score_is_none():
    pairs = [pair for _ in range(2) for pair in labels.at_levels("Where?")]
    values = [0.0] * len(labels.LEVELS) + [None, *[2.0] * (len(labels.LEVELS) - 1)]
    found = [gaps.Gap(value, False) for value in values]
    assert labels.fitted_levels(pairs, found) == pytest.approx([0.5, *[0.690399] * 5], abs=1e-6)
    with pytest.raises(TrainError, match=r"no finite score .* P = 0.5"):
        labels.fitted_levels(pairs, [gaps.Gap(None, False), *found[1:]])


@pytest.mark.parametrize("n_groups", [10, 97, 400])
def test_no_dialogue_serves_two_purposes(n_groups):
    pairs = [human_pair(i, str(i % n_groups)) for i in range(n_groups + n_groups // 3)]
    split = dialogues.split_pairs(pairs, HumanSizes(test=0.3, tuning=0.2), 1)
    groups = [{pair.group for pair in part} for part in split]
    assert [len(part) for part in groups] == [
        round(0.3 * n_groups), round(0.2 * n_groups), n_groups - round(0.3 * n_groups) - round(0.2 * n_groups),
    ]  # fmt: skip
    assert len(set.union(*groups)) == n_groups
    assert sorted(pair.id for part in split for pair in part) == sorted(pair.id for pair in pairs)
    assert split != dialogues.split_pairs(pairs, HumanSizes(test=0.3, tuning=0.2), 2)


def test_a_smaller_share_is_a_part_of_a_larger_one():
    pairs = [human_pair(i) for i in range(9)]
    parts = [human.part(pairs, share) for share in (0.125, 0.25, 0.5, 1.0)]
    assert [len(part) for part in parts] == [2, 3, 5, 9]
    assert all(
        larger[: len(part)] == part for part in parts for larger in parts[parts.index(part) :]
    )


def work_for(tmp_path, **given):
    return Work(options_for(tmp_path, **given), None, StageProgress("x", Console(quiet=True)))


def test_prompts_of_one_dialogue_train_or_measure(tmp_path):
    pairs = [human_pair(i, str(i % 15)) for i in range(30)] + [human_pair(99, extra=" x" * 50)]
    found = dialogues.make_prompts([*pairs, *pairs], work_for(tmp_path))
    assert (len(found.unseen), found.n_long) == (SIZES.rl.n_unseen, 1)
    groups = [{prompt.group for prompt in part} for part in (found.training, found.unseen)]
    assert not groups[0] & groups[1]
    assert len({prompt.id for prompt in found.training}) == len(found.training) == 16
    with pytest.raises(ConfigError, match="1 prompts of at most 40 characters"):
        dialogues.make_prompts(pairs[:1], work_for(tmp_path))


def test_every_human_turn_starts_a_prompt():
    turns = [("user", "A?"), ("assistant", "B."), ("user", "C?")]
    messages = tuple(Message(role=role, content=text) for role, text in turns)
    found = dialogues.prompts_of(human_pair(1)._replace(messages=messages))
    assert [[m.content for m in prompt.messages] for prompt in found] == [
        ["A?"],
        ["A?", "B.", "C?"],
    ]


def test_the_rule_counts_characters():
    pairs = [human_pair(1), human_pair(2)._replace(chosen="Much longer than that.")]
    assert human.rule_accuracy(pairs).value == 0.5


def test_an_interval_counts_dialogues_where_their_pairs_agree():
    gaps = [1.0, 1.0, 1.0, -1.0, None, 0.0] * 8
    apart = [(human_pair(i), gap) for i, gap in enumerate(gaps)]
    assert human.accuracy(apart) == gap_accuracy(gaps)
    # every pair is there twice: the interval is that of half of them
    twice = [(human_pair(i, str(i % 48)), gap) for i, gap in enumerate(gaps * 2)]
    assert human.accuracy(twice) == gap_accuracy(gaps)._replace(n=96)
    # pairs that contradict each other make it no narrower
    both = [(human_pair(i, str(i // 2)), (-1.0) ** i) for i in range(96)]
    assert human.accuracy(both) == gap_accuracy([gap for _, gap in both])
    assert human.accuracy([(human_pair(1, "g"), 1.0)] * 9) == gap_accuracy([1.0] * 9)


def test_step_means_leave_out_what_was_not_logged():
    found = policy.means([{"reward": 1.0, "kl": None}, {"reward": 2.0}])
    assert (found["reward"], found["kl"], found["distinct_2"]) == (1.5, None, None)


def test_only_what_was_asked_for_answers(tmp_path):
    asked = {"model": MODEL, "progress": StageProgress("x", Console(quiet=True))}
    works = [
        Work(options_for(tmp_path, sizes=SIZES.model_copy(update={"rl": sizes})), **asked)
        for sizes in (SIZES.rl, SIZES.rl.model_copy(update={"max_tokens": 13}))
    ]
    prompts = [one for i in range(4) for one in dialogues.prompts_of(human_pair(i))]
    for work in (*works, works[0]):
        answers = policy.answer("before", MODEL, prompts, work)
        assert sorted(prompt.id for prompt, _ in answers) == sorted(one.id for one in prompts)
        limits = {response.generation.sampling.max_tokens for _, response in answers}
        assert limits == {work.options.sizes.rl.max_tokens}


# --- the whole


@pytest.fixture
def here(monkeypatch):
    """Jobs run in this process; the list of those that ran."""
    ran = []

    def run_here(job, folder, rows, on_metrics):
        ran.append(job)
        result = train(job, folder, rows)
        (folder / "result.json").write_text(json.dumps(result))
        return result

    for module in (gaps, labels, human, policy):
        monkeypatch.setattr(module, "run_job", run_here)
    return ran


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("quiet")
def test_the_parts_are_measured_once(tiny, tmp_path, here, monkeypatch):
    options = options_for(tmp_path, tiny)
    # every text of a random model is cut at the limit: equal lengths teach nothing
    monkeypatch.setattr(policy, "SHORTER", RULE)
    broken = pytest.raises(KeyboardInterrupt)
    with monkeypatch.context() as patch, broken:
        patch.setattr(policy, "before_and_after", interrupt)
        run.reproduce(options, silent())
    done = json.loads((options.out / "results.json").read_text())
    assert list(done["parts"]) == ["labels", "human"]
    assert list(done["spent_s"]) == ["labels", "human", "rl"]
    n_before = len(here)
    results = run.reproduce(options, silent())
    assert {job.kind for job in here[n_before:]} == {"rl", "score"}
    assert results["parts"]["human"] == done["parts"]["human"]
    assert results["spent_s"]["rl"] > done["spent_s"]["rl"]
    assert results == json.loads((options.out / "results.json").read_text())
    check_results(results)
    n_before = len(here)
    assert run.reproduce(options, silent()) == results
    assert len(here) == n_before
    other = options.sizes.model_copy(update={"rl": RlSizes()})
    with pytest.raises(RunConflict, match=r"part 3 \(rl\) .*rl.steps: 2 then, "):
        run.reproduce(options._replace(sizes=other), silent())


@pytest.mark.parametrize(
    ("low", "verdict"),
    [
        (0.54, "it beats chance:"),
        (0.5004, "it barely beats chance:"),
        (0.49, "does NOT beat chance"),
    ],
)
def test_what_is_nearly_chance_is_said_to_be(low, verdict):
    accuracy = {"value": 0.563, "low": low, "high": 0.623, "n": 247}
    measured = {
        "n_train": 9,
        "n_steps": 3,
        "accuracy": accuracy,
        "accuracy_train": 0.8,
        "loss": 0.7,
    }
    measured |= {"length_correlation": 0.1, "seconds": 9, "n_too_long": 0, "n_not_finite": 0}
    counts = {"n_test": 247, "n_tuning": 9, "n_training": 9, "n_long": 0, "n_bad": 0}
    found = {
        "growth": [measured],
        "data": counts | {"left_out": {}},
        "shorter": accuracy,
        "beats_chance": low > 0.5,
    }
    assert verdict in human_section(found).verdict


def interrupt(*_):
    raise KeyboardInterrupt


def check_results(results):
    """What each part has to say."""
    found = {part: entry["result"] for part, entry in results["parts"].items()}
    soft, hard, clamped = found["labels"]["variants"].values()
    assert (soft["n_train"], hard["n_train"], clamped["n_train"]) == (12, 10, 12)
    assert len(soft["fitted"]) == len(labels.LEVELS)
    assert [one["n_train"] for one in found["human"]["growth"]] == [12, 24]
    assert found["human"]["accuracy"]["n"] == found["human"]["data"]["n_test"] == 10
    assert found["rl"]["n_unseen"] == found["rl"]["after"]["reward_gain"]["n"] == 3
    assert found["rl"]["before"]["kl"] is None
    assert found["rl"]["training"]["n_steps"] == 2
    text = markdown(results)
    for words in ("Soft labels are fitted", "it has not seen it", "unseen prompts", "judge."):
        assert words in text
    show_reproduced(results, Console(quiet=True))


# --- settings


def results_of(options, *parts):
    settings = {part: run.settings_of(part, options, MODEL) for part in parts}
    return {"parts": {part: {"settings": settings[part]} for part in parts}}


MODEL = run.Model("no-model", Path("no-model"), "abc")


@pytest.mark.parametrize(
    ("change", "conflicts"),
    [
        ({}, set()),
        ({"seed": 1}, {"labels", "human", "rl", "judge"}),
        ({"skip_bad": True}, {"human", "rl", "judge"}),
        ({"engine": Engine(kind="fake", max_context=99)}, {"rl", "judge"}),
        ({"engine": Engine(kind="fake", capacity=3)}, set()),
        ({"sizes": SIZES.model_copy(update={"labels": LabelSizes()})}, {"labels"}),
        ({"sizes": SIZES.model_copy(update={"human": HumanSizes()})}, {"human", "rl"}),
        ({"parts": ("labels",)}, set()),
    ],
)
def test_a_part_conflicts_with_what_decides_it(tmp_path, change, conflicts):
    options = options_for(tmp_path, parts=run.PARTS)
    changed = options._replace(**change)
    settings = {part: run.settings_of(part, changed, MODEL) for part in run.PARTS}
    for part in run.PARTS:
        wanted = changed._replace(parts=(part,) if part != "rl" else ("human", "rl"))
        if part in conflicts:
            with pytest.raises(RunConflict, match="was measured under other settings"):
                run.check_done(results_of(options, part), settings, wanted)
        else:
            run.check_done(results_of(options, part), settings, wanted)


def test_other_data_is_a_conflict(tmp_path):
    options = options_for(tmp_path)
    results = results_of(options, "human")
    data_file(tmp_path, 41)
    settings = {part: run.settings_of(part, options, MODEL) for part in run.PARTS}
    with pytest.raises(RunConflict, match="data: "):
        run.check_done(results, settings, options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parts": ("rl",)}, r"part 3 \(rl\) uses part 2 \(human\), .* add 2 to --parts"),
        ({"parts": ()}, "expected some of 1, 2, 3, 4"),
        ({"parts": ("nothing",)}, "expected some of 1, 2, 3, 4"),
        ({"data": "nowhere.jsonl"}, "nowhere.jsonl: not there"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(run, "resolve_model", lambda _: MODEL)
    with pytest.raises(ConfigError, match=message):
        run.reproduce(options_for(tmp_path)._replace(**change), silent())


def test_another_programs_results_are_not_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "resolve_model", lambda _: MODEL)
    options = options_for(tmp_path)
    options.out.mkdir()
    (options.out / "results.json").write_text('{"accuracy": 1}')
    with pytest.raises(RunConflict, match="not written by"):
        run.reproduce(options, silent())


def test_the_judge_is_tested_as_it_is(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(judging, "judge_test", lambda options, progress: asked.append(options))
    engine = Engine(kind="transformers", capacity=8, options={"a": "b"})
    judging.run(options_for(tmp_path, engine=engine, seed=3), silent())
    assert (asked[0].judge, asked[0].options.seed, asked[0].n) == ("no-model", 3, 100)
    given = ['engine.kind="transformers"', "engine.capacity=8", 'engine.options={"a": "b"}']
    assert asked[0].options.settings == given
