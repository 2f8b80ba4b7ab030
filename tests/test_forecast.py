"""The forecast is what happens: played against whole runs of the fake engine."""

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from canned import PRINCIPLES, PROMPT
from click.testing import CliRunner
from fake_run import SETTINGS, start

from cai.chains.revision import RevisionSetup, Voice, revision_chain
from cai.cli_plan import plan as plan_command
from cai.config import RunConfig
from cai.driver import Chain
from cai.earlier import find_base
from cai.engines.base import Request
from cai.engines.fake import FakeEngine
from cai.errors import CaiError, ConfigError, RunConflict
from cai.footprint import Shape, adapter_parameters, engine_need, read_shape, training_needs
from cai.forecast import Call, Forecast, Lengths, Play, StageForecast, Tokens, count, shared
from cai.forecasting import forecast
from cai.manifest import hardware
from cai.models import Model, find_model, folder_digest, resolve_model
from cai.pace import Pace, Training, pace_of_run
from cai.pipeline import FOLDERS, plan
from cai.planning import PlanOptions, plan_run
from cai.prepare import prepare, resolve_models
from cai.prompts import Templates
from cai.records import Message, Sampling
from cai.resolve import Options, resolve_config
from cai.run import StoredRecord, read_json, read_rows, write_json
from cai.sections import Lora
from cai.stages.context import RunContext
from cai.view.planned import about, planned_lines

HARMLESS = Path("constitutions/harmless.yaml").resolve()


@pytest.fixture(scope="module", autouse=True)
def without_plots() -> Iterator[None]:
    """They take longer than the runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cai.conduct.write_report", lambda _: None)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(tmp_path_factory.mktemp("runs") / "base")


def planned(out: Path, base: Path | None, *settings: str, **options: Any) -> Forecast:
    chosen = Options(str(HARMLESS), "quickstart", settings=[*SETTINGS, *settings])
    prepared = prepare(chosen._replace(**options))
    context = RunContext(
        run=out,
        config=prepared.config,
        constitution=prepared.constitution,
        templates=prepared.templates,
        models=resolve_models(prepared.config),
        prompts=prepared.prompts,
        folders=FOLDERS,
        base_run=base,
    )
    return forecast(context, plan(None))


def happened(run: Path) -> dict[str, tuple[int, int]]:
    """By stage: records found on disk, calls of a model."""
    return {
        stage["name"]: (stage["counts"].get("from_disk", 0), stage["counts"].get("generated", 0))
        for stage in read_json(run / "manifest.json")["stages"]
    }


def foreseen(found: Forecast) -> dict[str, tuple[int, int]]:
    return {stage.name: (stage.n_kept, stage.n_new) for stage in found.stages}


def edited(folder: Path, old: str, new: str) -> str:
    text = HARMLESS.read_text()
    assert text.count(old) == 1
    (folder / "edited.yaml").write_text(text.replace(old, new))
    return str(folder / "edited.yaml")


CRITIQUE = ("Look for anything in the assistant", "Look closely for anything in the assistant")
PREFERENCE = ("would do the least harm to the", "would surely do the least harm to the")
CHANGES: list[tuple[str, tuple[str, ...], tuple[str, str] | None]] = [
    ("nothing", (), None),
    ("a critique", (), CRITIQUE),
    ("a preference", (), PREFERENCE),
    ("the seed", ("seed=5",), None),
    ("rounds", ("revise.rounds=3",), None),
    ("only the last revisions", ("sft.use=last",), None),
    ("fewer helpful rows", ("revise.n_helpful=3",), None),
    ("another critic", ("models.critic=other",), None),
    ("another judge", ("models.judge=other",), None),
    ("a named policy", ("models.policy=other",), None),
    ("more samples in more pairs", ("sample.k=3", "label.pairing=all"), None),
    ("best against worst", ("sample.k=3", "label.pairing=extremes"), None),
    ("two principles a label", ("label.ensemble=2",), PREFERENCE),
    ("reasoning", ("label.mode=cot", "label.n_cot=2"), None),
    ("revisions in pairs", ("label.revision_pairs=judged",), CRITIQUE),
    ("revisions assumed", ("label.revision_pairs=assumed",), None),
    ("reward", ("reward.trainer.learning_rate=1e-4",), None),
    ("RL prompts", ("rl.n_prompts=6",), None),
    ("one policy kept", ("rl.n_checkpoints=1",), None),
    ("DPO", ("rl.method=dpo", "rl.trainer={max_steps: 3}"), None),
    ("evaluation", ("evaluate.n_prompts=9",), None),
]


@pytest.mark.parametrize(
    ("settings", "edit"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES]
)
def test_every_stage_does_what_was_planned(
    base: Path, tmp_path: Path, settings: tuple[str, ...], edit: tuple[str, str] | None
) -> None:
    constitution = edited(tmp_path, *edit) if edit else str(HARMLESS)
    out = tmp_path / "run"
    found = planned(out, base, *settings, constitution=constitution)
    assert not out.exists(), "planning writes nothing"
    start(out, *settings, constitution=constitution, base=base)
    assert foreseen(found) == happened(out)
    rows = {stage.name: stage.n_rows for stage in found.stages if stage.n_rows is not None}
    n_in = {stage["name"]: stage["n_in"] for stage in read_json(out / "manifest.json")["stages"]}
    assert rows == {name: n_in[name] for name in ("sft", "reward", "rl")}


DPO = ("rl.method=dpo", "rl.trainer={max_steps: 3}")
BY_LENGTH = ("rl.rewards=[{kind: length, weight: -1}]",)
BY_ANOTHER = ("rl.rewards=[{kind: reward_model, path: OTHER}]",)
LEARNT = "reward.trainer.learning_rate=1e-4"
RETRAINED = "retrain OTHER"
RL_CHANGES: list[tuple[tuple[str, ...], str, bool]] = [
    (DPO, LEARNT, True),
    (DPO, "reward.max_length=999", False),
    (DPO, "reward.heldout=0.4", False),
    (DPO, "label.pairing=all", False),
    (BY_LENGTH, LEARNT, True),
    (BY_LENGTH, "reward.max_length=999", True),
    (BY_ANOTHER, LEARNT, True),
    (BY_ANOTHER, "reward.max_length=999", False),
    (BY_ANOTHER, RETRAINED, False),
    ((), "reward.max_length=999", False),
]


@pytest.mark.parametrize(("before", "change", "same"), RL_CHANGES)
def test_rl_is_judged_by_what_it_learns_from(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: tuple[str, ...],
    change: str,
    same: bool,
) -> None:
    other = tmp_path / "other" / "checkpoint"
    other.mkdir(parents=True)
    write_json(other / "config.json", {"weights": 1})

    def stamped(name: str, engine: str) -> Model:
        return Model(name, Path(name), folder_digest(Path(name)))

    monkeypatch.setattr("cai.prepare.model_for", stamped)
    settings = ["sample.k=3", *(setting.replace("OTHER", str(other)) for setting in before)]
    old = start(tmp_path / "old", *settings)
    if change == RETRAINED:
        write_json(other / "config.json", {"weights": 2})
    else:
        settings.append(change)
    found = planned(tmp_path / "new", old, *settings)
    note = {stage.name: stage.notes[0] for stage in found.stages if stage.notes}["rl"]
    assert (note == "trained again on the same") is same
    assert foreseen(found) == happened(start(tmp_path / "new", *settings, base=old))


@pytest.mark.parametrize("setting", ["label.mode=logprob", "label.mode=cot", "label.exemplars=on"])
def test_a_judgement_is_kept_under_the_name_that_its_principle_has_now(
    tmp_path: Path, setting: str
) -> None:
    settings = ("models.policy=other", setting)
    old = start(tmp_path / "old", *settings, until="label")
    constitution = edited(tmp_path, "id: overall-harm", "id: harm-in-all")
    found = planned(tmp_path / "new", old, *settings, constitution=constitution)
    new = start(tmp_path / "new", *settings, constitution=constitution, base=old, until="label")
    assert {"label": foreseen(found)["label"]} == {"label": happened(new)["label"]}
    assert foreseen(found)["label"][1] == 0, "a name is no question"
    before, now = (list(read_rows(run / "04-label" / "records.jsonl")) for run in (old, new))
    assert {row["principle_id"] for row in before} - {row["principle_id"] for row in now} == {
        "overall-harm"
    }
    names = {row["id"]: row["principle_id"].replace("harm-in-all", "overall-harm") for row in now}
    assert names == {row["id"]: row["principle_id"] for row in before}


def test_preferences_from_elsewhere_are_compared_too(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    row = '{"prompt": "Which one, number %d?", "chosen": "This.", "rejected": "That."}\n'
    file.write_text("".join(row % number for number in range(6)))
    setting = f"preferences.sources=[{file}]"
    old = start(tmp_path / "old", setting)
    same = planned(tmp_path / "new", old, setting)
    assert same.n_new == 0
    with file.open("a") as more:
        more.write(row % 6)
    found = planned(tmp_path / "new", old, setting)
    new = start(tmp_path / "new", setting, base=old)
    assert foreseen(found) == happened(new)
    assert found.stages[4].n_rows == read_json(new / "05-reward" / "done.json")["n_in"] == 24 + 7


def test_a_fresh_run_is_foreseen_too(base: Path, tmp_path: Path) -> None:
    found = planned(tmp_path / "run", None)
    assert foreseen(found) == happened(base)
    for stage, done in zip(found.stages, read_json(base / "manifest.json")["stages"], strict=True):
        assert stage.tokens.generated >= done["tokens"].get("generated", 0), "a limit is a limit"


def test_editing_one_of_sixteen_principles_over_500_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly the records that drew it, and what follows from them, are asked for anew."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        "".join(json.dumps({"prompt": f"How do I do {i}?"}) + "\n" for i in range(800))
    )
    settings = (f"prompts.red_team=[{prompts}]", "revise.n_prompts=500", "engine.capacity=64")
    shares = "prompts.shares={sft: 0.7, preference: 0.1, rl: 0.1, eval: 0.1}"
    old = start(tmp_path / "old", *settings, shares)
    records = list(read_rows(old / "01-revise" / "records.jsonl"))
    assert sum(row["type"] == "response" for row in records) == 500 + 12
    stale: set[str] = set()
    for row in records:
        drew = row["type"] == "critique" and row["principle_id"] == "overall-harm"
        if drew or row.get("parent_id") in stale:
            stale.add(row["id"])
    constitution = edited(tmp_path, *CRITIQUE)
    found = planned(tmp_path / "new", old, *settings, shares, constitution=constitution)
    assert foreseen(found)["revise"] == (len(records) - len(stale), len(stale))
    asked: list[str] = []
    answered = FakeEngine._answer

    def noted(self: FakeEngine, request: Request) -> Any:
        asked.append(request.id)
        return answered(self, request)

    monkeypatch.setattr(FakeEngine, "_answer", noted)
    new = start(tmp_path / "new", *settings, shares, constitution=constitution, base=old)
    assert len(asked) == len(set(asked)) == found.n_new
    assert foreseen(found) == happened(new)
    kept = {row["id"] for row in read_rows(new / "01-revise" / "records.jsonl")}
    assert kept & {row["id"] for row in records} == {row["id"] for row in records} - stale
    tokens = read_json(new / "01-revise" / "done.json")["tokens"]["generated"]
    rest = sum(r["generation"]["n_tokens"] for r in records if r["id"] not in stale)
    assert found.stages[0].tokens.generated == pytest.approx(tokens - rest, rel=0.1)


def test_what_the_new_run_has_done_already_counts_as_done(base: Path, tmp_path: Path) -> None:
    constitution, out = edited(tmp_path, *CRITIQUE), tmp_path / "run"
    start(out, constitution=constitution, base=base, until="sample")
    found = planned(out, base, constitution=constitution)
    assert [stage.done for stage in found.stages] == [True] * 3 + [False] * 4
    assert [stage.n_new for stage in found.stages[:3]] == [0, 0, 0]
    start(out, constitution=constitution, base=base)
    assert {k: v for k, v in foreseen(found).items() if k not in ("revise", "sft", "sample")} == {
        k: v for k, v in happened(out).items() if k not in ("revise", "sft", "sample")
    }


def test_a_base_that_was_killed_while_writing(base: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    shutil.copytree(base, torn)
    file = torn / "01-revise" / "records.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    for folder in FOLDERS.values():
        (torn / folder / "done.json").unlink()
    found = planned(tmp_path / "run", torn)
    assert foreseen(found)["revise"] == (91, 1)
    assert foreseen(found)["sample"] == (0, 48)


def test_what_failed_in_the_base_is_asked_again(tmp_path: Path) -> None:
    short = ("engine.max_context=200", "max_error_rate=1.0")
    start(tmp_path / "base", *short, until="revise")
    found = planned(tmp_path / "run", tmp_path / "base", *short)
    assert found.stages[0].n_new > 0


@pytest.mark.parametrize(
    ("edit", "stage", "note"),
    [
        (None, "sft", "trained again on the same"),
        (None, "sample", "kept if training sft again gives the same weights; else new"),
        (None, "evaluate", "kept if training sft and rl again gives the same weights; else new"),
        (CRITIQUE, "sft", "what it learns from has changed"),
        (CRITIQUE, "sample", "sft changes, so its responses are new"),
        (CRITIQUE, "label", "at most: equal responses are not compared"),
        (PREFERENCE, "sft", "trained again on the same"),
        (PREFERENCE, "reward", "what it learns from has changed"),
        (PREFERENCE, "evaluate", "rl changes, so its responses are new"),
    ],
)  # fmt: skip
def test_the_plan_says_why(
    base: Path, tmp_path: Path, edit: tuple[str, str] | None, stage: str, note: str
) -> None:
    constitution = edited(tmp_path, *edit) if edit else str(HARMLESS)
    found = planned(tmp_path / "run", base, constitution=constitution)
    assert note in {stage.name: stage.notes for stage in found.stages}[stage]


SETUP = RevisionSetup(
    opening=(Message(role="system", content="Be kind."),),
    principles=PRINCIPLES,
    templates=Templates(),
    rounds=2,
    seed=0,
    responder=Voice("base", "m@1", Sampling(max_tokens=10)),
    critic=Voice("critic", "m@1", Sampling(max_tokens=20)),
    reviser=Voice("critic", "m@1", Sampling(max_tokens=30)),
)


def chain() -> Chain:
    return revision_chain(PROMPT, SETUP)


def nothing(_: str) -> None:
    return None


def test_a_chain_is_played_to_its_end_without_a_model() -> None:
    calls = Play("revise", nothing, Lengths()).all([chain()])
    assert [call.record.type for call in calls] == ["response", *["critique", "revision"] * 2]
    assert [call.tokens.generated for call in calls] == [10, 20, 30, 20, 30]
    for call, later in pairwise(calls):
        assert later.tokens.prompt > call.tokens.prompt
        assert later.tokens.cached >= call.tokens.prompt - 1, "a conversation goes on"


def test_what_is_kept_costs_nothing_and_leaves_nothing_in_the_cache() -> None:
    whole = Play("revise", nothing, Lengths()).all([chain()])
    shelf: dict[str, StoredRecord] = {call.record.id: call.record for call in whole[:3]}
    calls = Play("revise", shelf.get, Lengths()).all([chain()])
    assert [call.kept for call in calls] == [True, True, True, False, False]
    assert [call.record for call in calls] == [call.record for call in whole]
    assert calls[2].tokens == Tokens()
    assert calls[3].tokens.cached == 0
    assert calls[4].tokens.cached > 0


def test_lengths_are_means_where_there_are_any_and_never_above_the_limit() -> None:
    lengths = Lengths({("revise", "critique"): 7.6, ("revise", "revision"): 99})
    calls = Play("revise", nothing, lengths).all([chain()])
    assert [call.tokens.generated for call in calls] == [10, 8, 30, 8, 30]


def said(*contents: str) -> tuple[Message, ...]:
    roles = ("user", "assistant")
    return tuple(Message(role=roles[i % 2], content=text) for i, text in enumerate(contents))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (said("a"), said("a", "b"), said("a")),
        (said("a", "b"), said("a", "c"), said("a")),
        (said("abc"), said("abd"), said("ab")),
        (said("a"), (), ()),
    ],
)
def test_how_conversations_begin_alike(
    one: tuple[Message, ...], other: tuple[Message, ...], same: tuple[Message, ...]
) -> None:
    assert tuple(shared(one, other)) == same


def test_counting_calls() -> None:
    new, kept = (Play("revise", nothing, Lengths()).all([chain()])[0] for _ in range(2))
    calls = [new, Call(kept.record, True, Tokens())]
    found = count("revise", calls, "", "why")
    assert (found.n_kept, found.n_new, found.n_loads, found.notes) == (1, 1, 1, ("why",))
    assert found.tokens == new.tokens
    assert count("sft", []) == StageForecast("sft")


PACE = Pace("x", 10.0, 5.0, {"label": 2.0}, {"sft": Training(60, 30), "rl": Training(80, None)})
MEASURED = Pace("x", 10.0, 5.0, {}, {"rl": Training(80, None, with_calls=False)})
WORK = Tokens(prompt=100, cached=20, generated=90)  # 90 + 80/8 = 100


@pytest.mark.parametrize(
    ("stage", "seconds"),
    [
        (StageForecast("revise", n_new=1, tokens=WORK, n_loads=2), 20.0),
        (StageForecast("label", n_new=1, tokens=WORK), 50.0),
        (StageForecast("sample", n_kept=9, tokens=Tokens()), 0.0),
        (StageForecast("sft", n_rows=15), 30.0),
        (StageForecast("rl", n_rows=15), 80.0),
        (StageForecast("reward", n_rows=15), None),
        (StageForecast("reward", n_rows=15, done=True), 0.0),
    ],
)
def test_seconds(stage: StageForecast, seconds: float | None) -> None:
    assert PACE.seconds(stage) == seconds


def test_the_calls_that_choose_a_policy_are_counted_once() -> None:
    stage = StageForecast("rl", n_rows=15, n_new=1, tokens=WORK, n_loads=2)
    assert (PACE.seconds(stage), MEASURED.seconds(stage)) == (80.0, 80.0 + 20.0)


def test_without_a_rate_the_time_is_unknown() -> None:
    assert Pace("x").seconds(StageForecast("revise", n_new=1, tokens=WORK)) is None


def test_a_stage_that_found_records_says_nothing_of_the_pace() -> None:
    tokens = {"prompt": 100, "cached": 20, "generated": 90}
    done = {"status": "done", "seconds": 50.0, "tokens": tokens, "n_in": 8}
    stages = [
        {"name": "revise", **done, "counts": {"from_disk": 0}},
        {"name": "sample", **done, "counts": {"from_disk": 3}},
        {"name": "sft", **done, "counts": {}},
        {"name": "rl", **done, "counts": {}},
        {"name": "label", "status": "stopped", "seconds": 9.0},
    ]
    config: dict[str, Any] = {name: {"trainer": {}} for name in ("sft", "reward", "rl")}
    config["rl"]["trainer"]["max_steps"] = 4
    found = pace_of_run("old", {"stages": stages, "hardware": hardware()}, config)
    assert found == Pace(
        "the seconds of old",
        2.0,
        0.0,
        {"revise": 2.0},
        {"sft": Training(50, 8), "rl": Training(50, None)},
        "old has not done them",
    )
    assert "other hardware" in pace_of_run("old", {"stages": [], "hardware": {}}, config).origin


@pytest.mark.parametrize(
    ("settings", "scale", "why"),
    [
        (["sft.trainer.max_steps=40"], 10, ""),
        (["sft.trainer.max_steps=40", "sft.use=last"], 10, ""),
        (["sft.trainer.max_steps=-1"], None, "sft with another sft.trainer.max_steps"),
        (["sft.trainer.per_device_train_batch_size=2"], None, "batch_size"),
        (["sft.max_length=99", "sft.lora=null"], None, "sft with another sft.lora, sft.max_length"),
        (["models.base=other"], None, "sft with another model; reward with another model; rl with"),
        (["models.policy=other"], 1, "or rl with another model"),
        (["engine.dtype=bfloat16"], None, "sft with another engine"),
        (["engine.restarts=3"], 1, ""),
    ],
)
def test_training_takes_as_long_as_it_did_only_with_the_same_settings(
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: list[str],
    scale: float | None,
    why: str,
) -> None:
    old = tmp_path / "old"
    shutil.copytree(base, old)
    manifest = read_json(old / "manifest.json")
    for stage in manifest["stages"]:
        stage["seconds"] = 44.0
    for model in manifest["models"].values():
        model["commit"] = model["name"]
    write_json(old / "manifest.json", manifest)
    monkeypatch.setattr("cai.prepare.model_for", lambda name, _: Model(name, Path(name), name))
    found = planned(tmp_path / "run", old, *settings)
    seconds = {stage.name: stage.seconds for stage in found.stages}["sft"]
    assert seconds == (44.0 * scale if scale else None)
    assert why in found.lacks
    assert ("sft" in found.untimed) is (scale is None)
    assert all(why in line for line in planned_lines(found) if line.startswith("time: by"))


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "~0 s"), (75, "~1 m 15 s"), (3 * 3600 + 125, "~3 h 02 m")]
)
def test_times_are_about(seconds: float, shown: str) -> None:
    assert about(seconds) == shown


def test_disk_is_for_what_is_left_to_do(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = 4
    monkeypatch.setattr("cai.space.weight_bytes", lambda _: model)
    monkeypatch.setattr("cai.space.n_gpus", lambda: 0)
    options, out = Options(str(HARMLESS), "quickstart", settings=SETTINGS), tmp_path / "run"

    def disk(**asked: Any) -> tuple[int, int]:
        return plan_run(options, PlanOptions(**asked)).footprint[:2]

    n, whole = resolve_config(options).rl.n_checkpoints, disk()[1]
    assert [disk(until=name)[0] for name in ("revise", "sft", "label", "reward", "rl")] == [
        0, 2 * model, 2 * model, 3 * model, (4 + n) * model,
    ]  # fmt: skip
    assert disk(until="revise")[1] < disk(until="sample")[1] < whole
    start(out, constitution=str(HARMLESS))
    assert disk(out=str(out)) == (0, 0)
    shutil.rmtree(out)
    assert disk(base=str(base))[1] == pytest.approx(whole, rel=0.5), "what is kept is copied"
    start(out, until="label", constitution=str(HARMLESS))
    assert disk(out=str(out))[0] == (n + 3) * model
    assert disk(out=str(out))[1] < whole / 2
    (out / "04-label" / "done.json").unlink()
    assert disk(out=str(out), until="label") == (0, 0)


SHAPE = Shape(n_parameters=1000, layers=2, hidden=8, inner=16, kv=4, vocabulary=100)


def test_memory_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig(constitution="c").engine
    small = {"dtype": "bfloat16", "kind": "transformers", "capacity": 3}
    run = RunConfig(constitution="c", engine=config.model_copy(update=small))
    need = engine_need(run, SHAPE, context=10)
    assert need.parts == {"weights": 2000, "KV cache": 2 * 2 * 4 * 2 * 10 * 3}
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")
    monkeypatch.setattr("cai.footprint.n_gpus", lambda: 0)
    assert engine_need(RunConfig(constitution="c"), SHAPE, 10).parts["KV cache"] == 2 * 2**30


def test_memory_of_the_trainers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cai.footprint.n_gpus", lambda: 0)
    trainer = {"per_device_train_batch_size": 2}
    config = RunConfig.model_validate(
        {
            "constitution": "c",
            "sft": {"lora": None, "max_length": 16, "trainer": trainer},
            "reward": {"max_length": 16, "trainer": trainer},
            "rl": {"max_prompt_length": 8, "trainer": {**trainer, "max_completion_length": 4}},
        }
    )
    sft, reward, rl = training_needs(config, SHAPE)
    assert sft.parts == {
        "weights": 16_000,
        "activations": 2 * 16 * 2 * 8 * 68,
        "logits": 2 * 16 * 100 * 4 * 3,
    }
    adapters = adapter_parameters(Lora(), SHAPE)
    assert adapters == 16 * (9 * 8 + 2 * 4 + 3 * 16) * 2
    assert reward.parts["weights"] == 4000 + 16 * adapters
    assert reward.parts["logits"] == 2 * 2 * 16 * 1 * 4 * 3
    assert rl.parts["other models"] == 4000
    assert rl.parts["logits"] == 2 * 12 * 100 * 4 * 3


def test_the_shape_of_the_embedded_model(embedded_model: Path, tmp_path: Path) -> None:
    shape = read_shape(embedded_model)
    assert shape
    assert shape.n_parameters == pytest.approx(135e6, rel=0.25)
    assert shape[1:] == (30, 576, 1536, 192, 49152)
    assert read_shape(tmp_path) is None


def test_lines_name_what_is_kept_and_what_it_rests_on(base: Path, tmp_path: Path) -> None:
    found = planned(tmp_path / "run", base, constitution=edited(tmp_path, *CRITIQUE))
    lines = list(planned_lines(found))
    assert (
        lines[0] == f"plan: {found.n_kept} records kept of {base}, {found.n_new} calls of a model"
    )
    assert any(line.split()[:2] == ["revise", str(found.stages[0].n_kept)] for line in lines)
    assert any("sft changes, so its responses are new" in line for line in lines)
    assert any(line.startswith("lengths: the means of ") for line in lines)
    assert any(line.startswith(f"time: by the seconds of {base.name}") for line in lines)
    fresh = "\n".join(planned_lines(planned(tmp_path / "run", None)))
    assert "≤ 6,848" in fresh
    assert "time: unknown" in fresh


def test_a_base_that_stopped_half_way_has_no_means_for_the_rest(base: Path, tmp_path: Path) -> None:
    half = start(tmp_path / "half", until="sft")
    found = planned(tmp_path / "run", half, "seed=5")
    marked = {stage.name: stage.at_limit for stage in found.stages if stage.tokens.generated}
    assert marked == {"revise": False, "sample": True, "rl": True, "evaluate": True}
    lines = list(planned_lines(found))
    signs = {line.split()[0]: "≤" in line for line in lines if line.split()[0] in marked}
    assert signs == marked
    assert any("in all" in line and "≤" in line for line in lines)
    assert any("it has none for all of sample, rl, evaluate, which are taken" in x for x in lines)
    whole = list(planned_lines(planned(tmp_path / "run", base, "seed=5")))
    assert not any("≤" in line or "it has none" in line for line in whole)


FAKE = ["--recipe", "quickstart", "--set", "engine.kind=fake", "--constitution", "harmless"]


def test_the_command_prints_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(plan_command, [*FAKE, "--rate", "100"], catch_exceptions=False)
    assert result.exit_code == 0
    for word in (
        "revise",
        "evaluate",
        "in all",
        "by --rate 100",
        " over ",
        "disk: ",
        "unknown: sft, reward, rl: a rate of generating tells nothing of training, --measure",
    ):
        assert word in result.output
    found = json.loads(CliRunner().invoke(plan_command, [*FAKE, "--json"]).output)
    assert found["n_new"] == sum(stage["n_new"] for stage in found["stages"]) == 382
    assert found["untimed"] == [stage["name"] for stage in found["stages"]]
    until = CliRunner().invoke(plan_command, [*FAKE, "--until", "sft", "--json"]).output
    assert [stage["name"] for stage in json.loads(until)["stages"]] == ["revise", "sft"]
    assert not list(tmp_path.iterdir())


def test_measuring_says_what_it_does_beside_what_is_asked_for() -> None:
    result = CliRunner().invoke(
        plan_command, [*FAKE, "--measure", "--json"], catch_exceptions=False
    )
    assert result.stderr == "measuring: smollm2-135m generates a batch\n"
    assert json.loads(result.stdout)["untimed"] == []


def test_measuring_times_every_stage() -> None:
    options = Options("harmless", "quickstart", settings=SETTINGS)
    found = plan_run(options, PlanOptions(measure=True)).forecast
    assert found.untimed == []
    assert "generated just now and the first steps of sft, reward, rl" in (found.pace or "")


def test_a_model_that_is_not_here_is_not_pulled() -> None:
    options = Options("harmless", "quickstart", model="nobody/no-model-of-this-name")
    found = plan_run(options, PlanOptions())
    assert found.missing == ["nobody/no-model-of-this-name"]
    assert (found.forecast.n_new, found.footprint.memory) == (382, ())
    with pytest.raises(ConfigError, match="cai model pull nobody"):
        plan_run(options, PlanOptions(measure=True))


def test_no_reward_model_of_rl_is_pulled_either(embedded_model: Path) -> None:
    reward = "rl.rewards=[{kind: reward_model, path: nobody/no-reward-of-this-name}]"
    options = Options("harmless", "quickstart", model=str(embedded_model), settings=[reward])
    assert plan_run(options, PlanOptions()).missing == ["nobody/no-reward-of-this-name"]


def test_what_is_here_is_found_without_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a pull that broke off left no model."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("cai.models.pull_from_hub", lambda name: pytest.fail(f"pulled {name}"))
    cached = tmp_path / "models--nobody--half"
    snapshot = cached / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("a" * 40)
    (snapshot / "config.json").write_text("{}")
    assert find_model("nobody/half") is None
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    write_json(snapshot / "model.safetensors.index.json", index)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    assert find_model("nobody/half") is None
    (snapshot / "model-2.safetensors").write_bytes(b"weights")
    assert find_model("nobody/half") == Model("nobody/half", snapshot, "a" * 12)
    options = Options("harmless", "quickstart", model="nobody/half")
    assert plan_run(options, PlanOptions()).missing == []


@pytest.mark.parametrize("name", ["models/x", "x" * 300])
def test_what_is_no_model_is_so_in_the_plan_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    Path("models/x").write_text("a file")
    options = Options("harmless", "quickstart", model=name)
    for resolve in (lambda: plan_run(options, PlanOptions()), lambda: resolve_model(name)):
        with pytest.raises(ConfigError, match=r"no such model|not a folder here"):
            resolve()


def old_format(folder: Path) -> None:
    write_json(folder / "manifest.json", {"format": 1, "cai": "0.0.1"})


def foreign(folder: Path) -> None:
    write_json(folder / "manifest.json", {"name": "web app"})


@pytest.mark.parametrize(
    ("prepare_folder", "says"),
    [
        (shutil.rmtree, "no run there"),
        (lambda _: None, "no run there"),
        (foreign, "not one of cai"),
        (old_format, r"format 1 by cai 0\.0\.1"),
    ],
)
def test_a_base_of_no_use_is_named(tmp_path: Path, prepare_folder: Any, says: str) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    prepare_folder(folder)
    with pytest.raises(RunConflict, match=says) as caught:
        find_base(str(folder))
    assert str(folder) in str(caught.value)


def test_a_base_is_found_by_its_name(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(base)
    assert find_base("mine") == Path("runs/mine")


def test_refusals(base: Path, tmp_path: Path) -> None:
    options = Options("harmless", "quickstart", settings=SETTINGS)
    with pytest.raises(ConfigError, match="exclude each other"):
        plan_run(options, PlanOptions(rate=5, measure=True))
    with pytest.raises(ConfigError, match="the stages are revise"):
        plan_run(options, PlanOptions(until="rlhf"))
    with pytest.raises(RunConflict, match=r"seed \(0 → 3\)"):
        plan_run(options._replace(seed=3), PlanOptions(out=str(base)))
    with pytest.raises(CaiError, match="is no run of cai"):
        (tmp_path / "notes").write_text("mine")
        plan_run(options, PlanOptions(out=str(tmp_path)))
