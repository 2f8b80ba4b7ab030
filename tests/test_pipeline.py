"""Whole runs with the fake engine: same files, same rules, no model."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_run import start

from cai.engines.fake import FakeEngine
from cai.errors import ConfigError, Damaged, DiskFull, RunConflict, TooManyErrors
from cai.pipeline import STAGES, plan
from cai.resolve import Options
from cai.run import read_json, read_rows, write_json


def content(run: Path) -> dict[str, Any]:
    """Every file that must be the same in two equal runs."""
    skipped = {"manifest.json", "done.json", "report.md", ".lock"}
    return {
        str(path.relative_to(run)): sorted(path.read_text().replace(str(run), "RUN").splitlines())
        for path in run.rglob("*.json*")
        if path.name not in skipped
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return start(tmp_path_factory.mktemp("runs") / "whole")


def test_a_run_leaves_every_stage_done(whole: Path) -> None:
    manifest = read_json(whole / "manifest.json")
    assert manifest["status"] == "done"
    assert [stage["name"] for stage in manifest["stages"]] == [stage.name for stage in STAGES]
    for stage in manifest["stages"]:
        assert stage["status"] == "done"
        assert stage["n_in"] >= stage["n_out"] > 0
        assert stage["seconds"] >= 0
    assert (whole / "report.md").is_file()
    assert not list(whole.parent.glob(".new-*"))


def test_counts_in_are_counts_out(whole: Path) -> None:
    stages = {stage["name"]: stage for stage in read_json(whole / "manifest.json")["stages"]}
    records = list(read_rows(whole / "01-revise" / "records.jsonl"))
    assert len(records) == 16 * 5 + 12
    assert len(list(read_rows(whole / "03-sample" / "records.jsonl"))) == stages["sample"]["n_in"]
    label = stages["label"]
    skipped = sum(label["counts"]["skipped"].values())
    assert label["n_in"] == label["n_out"] + skipped + label["counts"]["unscored_pairs"]
    assert label["counts"]["pairs"] * 2 == len(
        list(read_rows(whole / "04-label" / "records.jsonl"))
    )


def test_prompts_serve_one_purpose_each(whole: Path) -> None:
    split = {row["id"]: row["split"] for row in read_rows(whole / "inputs" / "prompts.jsonl")}
    for folder, wanted in (
        ("01-revise", "sft"),
        ("03-sample", "preference"),
        ("07-evaluate", "eval"),
    ):
        for file in (whole / folder).glob("*.jsonl"):
            for row in read_rows(file):
                if "prompt_id" in row:
                    assert split[row["prompt_id"]] == wanted
    assert {split[row["id"]] for row in read_rows(whole / "06-rl" / "rows.jsonl")} == {"rl"}


def test_sft_rows_are_prompts_and_revisions(whole: Path) -> None:
    records = {row["id"]: row for row in read_rows(whole / "01-revise" / "records.jsonl")}
    rows = list(read_rows(whole / "02-sft" / "rows.jsonl"))
    assert {records[row["id"]]["type"] for row in rows} == {"revision", "response"}
    for row in rows:
        assert row["completion"] == [{"role": "assistant", "content": records[row["id"]]["text"]}]
        assert row["prompt"][-1]["role"] == "user"
    counts = read_json(whole / "02-sft" / "done.json")["counts"]
    assert counts["revision_rows"] == 32
    assert counts["helpful_ratio"] == pytest.approx(12 / 44, abs=1e-4)


def test_only_the_last_revisions_if_so_configured(tmp_path: Path) -> None:
    run = start(tmp_path / "last", "sft.use=last", until="sft")
    assert read_json(run / "02-sft" / "done.json")["counts"]["revision_rows"] == 16


def test_reward_rows_carry_soft_labels_and_held_out_prompts(whole: Path) -> None:
    rows = list(read_rows(whole / "05-reward" / "rows.jsonl"))
    assert all(0.5 <= row["p_chosen"] < 1 for row in rows)
    held = [row for row in rows if row["heldout"]]
    assert 0 < len(held) < len(rows)
    prompts = {json.dumps(row["chosen"][:-1]) for row in held}
    assert not prompts & {json.dumps(row["chosen"][:-1]) for row in rows if not row["heldout"]}
    assert all(row["chosen"][:-1] == row["rejected"][:-1] for row in rows)


def test_the_same_command_again_does_nothing(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(whole)

    def refuse(*_: object) -> None:
        raise AssertionError("asked again")

    monkeypatch.setattr(FakeEngine, "submit", refuse)
    start(whole)
    assert content(whole) == before


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.mark.parametrize("after", [0, 1, 7, 40, 100, 150, 200, 260])
def test_a_run_that_was_killed_goes_on_where_it_was(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Killed after so many answers and gone on with, a run has the same records as an unbroken one."""
    asked: list[str] = []
    answered = FakeEngine._answer

    def counted(self: FakeEngine, request: Any) -> Any:
        if len(asked) == after:
            raise Killed
        asked.append(request.id)
        return answered(self, request)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(FakeEngine, "_answer", counted)
        start(tmp_path / "run")
    again: list[str] = []

    def noted(self: FakeEngine, request: Any) -> Any:
        again.append(request.id)
        return answered(self, request)

    monkeypatch.setattr(FakeEngine, "_answer", noted)
    run = start(tmp_path / "run")
    stored = content(run)
    for name, rows in content(whole).items():
        assert rows == stored[name], name
    assert len(again) == len(set(again))
    assert len(set(asked) & set(again)) <= 4, "at most the batch that was being answered"


def test_another_order_of_prompts_makes_the_same_run(whole: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    rows = [
        row for row in read_rows(whole / "inputs" / "prompts.jsonl") if row["kind"] == "red_team"
    ]
    file.write_text("".join(json.dumps({"messages": row["messages"]}) + "\n" for row in rows[::-1]))
    run = start(tmp_path / "run", f"prompts.red_team=[{file}]", until="label")
    one, two = (
        {r["id"] for r in read_rows(p / "04-label" / "preferences.jsonl")} for p in (whole, run)
    )
    assert one == two


@pytest.mark.parametrize(
    ("settings", "names"),
    [(["revise.rounds=3"], "revise.rounds (2 → 3)"), (["seed=1"], "seed (0 → 1)")],
)
def test_a_changed_config_is_refused_by_name(whole: Path, settings: list[str], names: str) -> None:
    before = content(whole)
    with pytest.raises(RunConflict) as caught:
        start(whole, *settings)
    assert names in str(caught.value)
    assert f"--base {whole}" in str(caught.value)
    assert content(whole) == before


def edited_constitution(folder: Path, old: str, new: str) -> str:
    text = Path("constitutions/harmless.yaml").read_text()
    assert old in text
    (folder / "edited.yaml").write_text(text.replace(old, new, 1))
    return str(folder / "edited.yaml")


def test_a_comment_is_no_change_and_a_principle_is(whole: Path, tmp_path: Path) -> None:
    commented = edited_constitution(tmp_path, "name: harmless", "# a comment\nname: harmless")
    Options(constitution=commented)
    edited = edited_constitution(tmp_path, "Look for anything", "Look closely for anything")
    with pytest.raises(RunConflict, match=r"inputs/constitution\.json"):
        start(whole, constitution=edited)


def test_base_reuses_the_records_that_an_edit_leaves_alone(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Editing one principle asks anew only for what drew it and what follows from that."""
    edited = edited_constitution(tmp_path, "Look for anything", "Look closely for anything")
    records = list(read_rows(whole / "01-revise" / "records.jsonl"))
    stale: set[str] = set()
    for row in records:
        drew = row["type"] == "critique" and row["principle_id"] == "overall-harm"
        if drew or row.get("parent_id") in stale:
            stale.add(row["id"])
    asked: list[str] = []
    answered = FakeEngine._answer

    def noted(self: FakeEngine, request: Any) -> Any:
        asked.append(request.id)
        return answered(self, request)

    monkeypatch.setattr(FakeEngine, "_answer", noted)
    run = start(tmp_path / "edited", until="revise", constitution=edited, base=whole)
    new = {row["id"] for row in read_rows(run / "01-revise" / "records.jsonl")}
    assert len(asked) == len(stale)
    assert new & {row["id"] for row in records} == {row["id"] for row in records} - stale


def test_another_fingerprint_is_refused(tmp_path: Path) -> None:
    run = start(tmp_path / "run", until="revise")
    marker = read_json(run / "01-revise" / "done.json")
    write_json(run / "01-revise" / "done.json", marker | {"fingerprint": "other"})
    with pytest.raises(ConfigError, match="made from other settings"):
        start(tmp_path / "run", until="revise")


def test_a_run_stops_at_a_stage_and_goes_on(tmp_path: Path) -> None:
    run = start(tmp_path / "run", until="sample")
    assert read_json(run / "manifest.json")["status"] == "stopped"
    assert not (run / "04-label").exists()
    start(tmp_path / "run")
    assert read_json(run / "manifest.json")["status"] == "done"


def test_too_many_failures_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(TooManyErrors, match="max_error_rate") as caught:
        start(tmp_path / "run", "engine.max_context=64")
    assert caught.value.exit_code == 3
    manifest = read_json(tmp_path / "run" / "manifest.json")
    assert (manifest["status"], manifest["stages"][0]["reason"]) == ("stopped", "TooManyErrors")
    assert (tmp_path / "run" / "report.html").is_file(), "what failed can be read"


def test_a_report_that_fails_hides_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(run: Path) -> None:
        raise Damaged(f"{run}: no report of this")

    monkeypatch.setattr("cai.conduct.write_report", fail)
    with pytest.raises(TooManyErrors, match="max_error_rate"):
        start(tmp_path / "run", "engine.max_context=64")


def test_on_a_full_disk_no_report_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise DiskFull("no room")

    monkeypatch.setattr("cai.pipeline.check_stage", full)
    with pytest.raises(DiskFull):
        start(tmp_path / "run")
    assert not (tmp_path / "run" / "report.html").exists()


def test_failures_below_the_limit_are_counted(tmp_path: Path) -> None:
    run = start(tmp_path / "run", "engine.max_context=200", "max_error_rate=1.0", until="sft")
    counts = read_json(run / "01-revise" / "done.json")
    assert counts["counts"]["failed"] > 0
    assert counts["n_in"] - counts["n_out"] == counts["counts"]["broken_off"]


def test_plan_is_the_stages_in_order() -> None:
    assert [stage.name for stage in plan("label")] == ["revise", "sft", "sample", "label"]
    assert plan(None) == STAGES
    with pytest.raises(ConfigError, match="the stages are revise, sft"):
        plan("labels")


def test_every_need_is_an_earlier_stage() -> None:
    names = [stage.name for stage in STAGES]
    for index, stage in enumerate(STAGES):
        assert set(stage.needs) <= set(names[:index])


def test_critic_and_judge_may_be_other_models(tmp_path: Path) -> None:
    run = start(tmp_path / "run", "models.critic=other", "models.judge=third", until="label")
    models = {row["generation"]["model"] for row in read_rows(run / "01-revise" / "records.jsonl")}
    assert models == {"smollm2-135m@fake", "other@fake"}
    labels = {row["generation"]["model"] for row in read_rows(run / "04-label" / "records.jsonl")}
    assert labels == {"third@fake"}


def test_base_asks_again_what_failed(tmp_path: Path) -> None:
    with pytest.raises(TooManyErrors):
        start(tmp_path / "short", "engine.max_context=64", until="revise")
    run = start(
        tmp_path / "long", "engine.max_context=4096", until="revise", base=tmp_path / "short"
    )
    assert read_json(run / "01-revise" / "done.json")["counts"]["failed"] == 0


def test_base_may_be_a_run_that_was_killed_while_writing(whole: Path, tmp_path: Path) -> None:
    import shutil

    torn = tmp_path / "torn"
    shutil.copytree(whole, torn)
    with (torn / "01-revise" / "records.jsonl").open("ab") as file:
        file.write(b'{"id": "ha')
    run = start(tmp_path / "new", "sft.use=last", until="revise", base=torn)
    assert read_json(run / "01-revise" / "done.json")["counts"]["generated"] == 0


def test_settings_of_how_to_work_may_change_on_the_way(tmp_path: Path) -> None:
    start(tmp_path / "run", until="revise")
    start(
        tmp_path / "run", "engine.capacity=9", "engine.stall_s=5", "max_error_rate=1.0", until="sft"
    )


def test_another_model_under_the_same_name_is_refused(tmp_path: Path) -> None:
    run = start(tmp_path / "run", until="revise")
    manifest = read_json(run / "manifest.json")
    manifest["models"]["critic"]["commit"] = "older"
    write_json(run / "manifest.json", manifest)
    with pytest.raises(RunConflict, match=r"the critic model \(older → fake\)"):
        start(tmp_path / "run")


def test_an_edited_exemplar_is_a_change(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path("prompts/exemplars/preference.yaml").read_text()
    constitution = str(Path("constitutions/harmless.yaml").resolve())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts" / "exemplars").mkdir(parents=True)
    (tmp_path / "prompts" / "exemplars" / "preference.yaml").write_text(text.replace("the", "a", 1))
    with pytest.raises(RunConflict, match=r"inputs/exemplars_preference\.yaml"):
        start(whole, constitution=constitution)
