"""What differs between two runs, and why: runs of the fake engine that differ in one thing each."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_run import start
from run_folder import write_lines

from cai.compare import Comparison, PartSummary, compare, compare_runs, find_prompt
from cai.compare_causes import make_pair
from cai.compare_chains import Step, Thread
from cai.compare_deltas import REWARDS, paired, unpaired
from cai.compare_inputs import Run, load_run
from cai.constitution import draw, find_constitution, load_constitution
from cai.errors import ConfigError
from cai.metrics import Estimate, mean, proportion
from cai.run import read_json, read_rows

SHIPPED = yaml.safe_load(find_constitution("harmless.yaml").read_text())
EDITED = "overall-harm"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def revised(folder: Path) -> Path:
    """The run that others are compared with: its chains."""
    return start(folder / "revised", until="revise")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """The same run to its end."""
    return start(folder / "whole")


def constitution(path: Path, change: Callable[[dict[str, Any]], object]) -> str:
    """The shipped constitution after `change`, as a file."""
    content = json.loads(json.dumps(SHIPPED))
    change(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


def edit(content: dict[str, Any], text: str, principle: str = EDITED) -> None:
    found = next(p for p in content["principles"] if p["id"] == principle)
    found[text] += " Be brief."


def rename(content: dict[str, Any]) -> None:
    content["principles"][0]["id"] = "no-harm"


NEW = {"id": "brand-new", "critique": "Too long?", "revision": "Shorten.", "preference": "Which?"}
CONSTITUTIONS: dict[str, Callable[[dict[str, Any]], object]] = {
    "critique": lambda c: edit(c, "critique"),
    "revision": lambda c: edit(c, "revision"),
    "preference": lambda c: edit(c, "preference"),
    "two": lambda c: (edit(c, "critique", "honesty"), edit(c, "critique", "privacy")),
    "added": lambda c: c["principles"].append(NEW),
    "removed": lambda c: c["principles"].pop(0),
    "renamed": rename,
    "weight": lambda c: c["principles"][3].update(weight=4.0),
    "order": lambda c: c["principles"].reverse(),
    "system": lambda c: c.update(system_prompt="Be kind."),
    "tags": lambda c: c["principles"][0].update(tags=["other"]),
}


def part(comparison: Comparison, name: str) -> PartSummary:
    return next(one for one in comparison.parts if one.part == name)


def thread(comparison: Comparison, prompt_id: str, name: str = "chain") -> Thread:
    found = find_prompt(comparison, prompt_id)
    return next(one for one in found.threads if one.part == name)


def first(chain: Thread) -> str | None:
    """The name of the first text that is another record."""
    return next((item.name for item in chain.items if not item.same_record), None)


def edited_copy(run: Path, copy: Path, file: str, change: Callable[[list[Any]], object]) -> Path:
    """A copy of a run with other rows in one of its record files."""
    shutil.copytree(run, copy)
    rows = list(read_rows(copy / file))
    change(rows)
    write_lines(copy / file, rows)
    return copy


def test_the_same_run_twice_has_no_difference(whole: Path, folder: Path) -> None:
    found = compare(whole, start(folder / "again"))
    assert found.inputs.same
    assert (found.n_common, found.n_only_a, found.n_only_b) == (447, 0, 0)
    assert [(p.part, p.n_prompts) for p in found.parts] == [
        ("chain", 28), ("samples", 24), ("labels", 24), ("base", 24), ("sft", 24), ("rl", 24),
    ]  # fmt: skip
    assert all(p.n_same == p.n_prompts and not p.reasons and not p.alone for p in found.parts)
    assert not found.most_changed
    assert not any(row.whys for row in found.prompts)
    assert len(found.deltas) > 30
    for row in found.deltas:
        assert (row.n_changed, row.note, row.paired) == (0, "", True)
        assert row.delta
        assert row.delta[:3] == (0, 0, 0)


@pytest.mark.parametrize(
    ("name", "options", "begins", "reason"),
    [
        ("critique", {}, "critique", f"principle {EDITED}: its critique text was edited"),
        ("revision", {}, "revision", f"principle {EDITED}: its revision text was edited"),
        ("added", {}, "critique", "another principle was drawn (added: brand-new)"),
        ("removed", {}, "critique", f"another principle was drawn (removed: {EDITED})"),
        ("renamed", {}, "critique", f"principle {EDITED} is now called no-harm"),
        ("weight", {}, "critique", "another principle was drawn (other weight: extremism-hate)"),
        ("order", {}, "critique", "another principle was drawn (another order of the principles)"),
        ("system", {}, "response", "the conversation opens otherwise (system prompt)"),
        (None, {"model": "other"}, "response", "another model (smollm2-135m@fake → other@fake)"),
        (None, {"seed": 5, "split": "one"}, "response", "another seed (0 → 5)"),
        ("revise.critique.temperature=0.9", {}, "critique",
         "drawn with other sampling (temperature 0.6 → 0.9)"),
        ("revise.revision={max_tokens: 9, temperature: 0.6}", {}, "revision",
         "drawn with other sampling (max_tokens 80 → 9)"),
        ("models.critic=critic", {}, "critique",
         "another model (smollm2-135m@fake → critic@fake)"),
        ("engine.max_context=1900", {}, "response",
         "another engine (engine.max_context 2048 → 1900)"),
        ("revise.exemplars=on", {}, "response",
         "the conversation opens otherwise (worked examples)"),
        ("revise.rounds=3", {}, "critique", "revise.rounds 2 → 3"),
        ("revise.rounds=1", {}, "critique", "revise.rounds 2 → 1"),
    ],
)  # fmt: skip
def test_one_change_is_the_reason_where_it_enters(
    revised: Path,
    tmp_path: Path,
    name: str | None,
    options: dict[str, Any],
    begins: str,
    reason: str,
) -> None:
    settings = [name] if name and "=" in name else []
    base, shares = revised, options.pop("split", None)
    if shares:  # Another seed deals other splits; with one split every prompt stays in it.
        settings.append("prompts.shares={sft: 1.0, preference: 0.0, rl: 0.0, eval: 0.0}")
        base = start(tmp_path / "base", *settings, "revise.n_prompts=null", until="revise")
        settings.append("revise.n_prompts=null")
    if name and not settings:
        options["constitution"] = constitution(tmp_path / "c.yaml", CONSTITUTIONS[name])
    found = compare(base, start(tmp_path / "run", *settings, until="revise", **options))
    chains = part(found, "chain")
    assert chains.n_changed > 0
    assert {said for said, _ in chains.reasons} == {reason}
    assert sum(n for _, n in chains.reasons) == chains.n_changed
    for row in found.prompts:
        for chain in row.threads:
            assert chain.same_records == (not chain.causes)
            later = [
                c for item in chain.items for c in item.causes if c.kind == "drawn differently"
            ]
            assert all(c.summary == reason or "(another seed (0 → 5))" in c.said for c in later)
            if chain.causes:
                assert (first(chain) or "").startswith(begins)
                assert row.whys["chain"].startswith(f"from {first(chain)} on: ")


@pytest.mark.parametrize("text", ["critique", "revision"])
def test_an_edited_principle_explains_exactly_the_chains_that_drew_it(
    revised: Path, tmp_path: Path, text: str
) -> None:
    file = constitution(tmp_path / "c.yaml", CONSTITUTIONS[text])
    found = compare(revised, start(tmp_path / "run", until="revise", constitution=file))
    principles = load_constitution(Path(file)).for_revision()
    for row in found.prompts:
        chain = thread(found, row.prompt.id)
        rounds = [n for n in (1, 2) if draw(principles, 0, row.prompt.id, n).id == EDITED]
        drew = row.prompt.kind == "red_team" and rounds
        assert first(chain) == (f"{text} {rounds[0]}" if drew else None)
        assert [c.kind for c in chain.causes] == (["principle edited"] if drew else [])
    change = found.inputs.constitution
    assert [(p.id, p.state, [w.name for w in p.texts]) for p in change.principles] == [
        (EDITED, "edited", [text])
    ]
    assert change.principles[0].texts[0].diff[-1][0] == "added"
    assert change.n_same == 15


def test_a_new_principle_shifts_the_draws_and_says_which(revised: Path, tmp_path: Path) -> None:
    file = constitution(tmp_path / "c.yaml", CONSTITUTIONS["added"])
    found = compare(revised, start(tmp_path / "run", until="revise", constitution=file))
    lists = [load_constitution(find_constitution("harmless.yaml")), load_constitution(Path(file))]
    for row in found.prompts:
        if row.prompt.kind != "red_team":
            continue
        drawn = [[draw(c.for_revision(), 0, row.prompt.id, n).id for n in (1, 2)] for c in lists]
        parts = [n for n in (0, 1) if drawn[0][n] != drawn[1][n]]
        chain = thread(found, row.prompt.id)
        assert first(chain) == (f"critique {parts[0] + 1}" if parts else None)
        if parts:
            old, new = drawn[0][parts[0]], drawn[1][parts[0]]
            assert chain.causes[0].said.startswith(f"principle {new} was drawn instead of {old} ")


def test_later_rounds_keep_causes_of_their_own(revised: Path, tmp_path: Path) -> None:
    file = constitution(tmp_path / "c.yaml", CONSTITUTIONS["two"])
    settings = ("revise.revision.temperature=0.9",)
    found = compare(revised, start(tmp_path / "run", *settings, until="revise", constitution=file))
    chains = [row.threads[0] for row in found.prompts if row.prompt.kind == "red_team"]
    for chain in chains:
        for item in chain.items:
            kinds = {cause.kind for cause in item.causes}
            assert ("sampling" in kinds) == item.name.startswith("revision")
            assert isinstance(item, Step)
            assert item.a
            assert item.b
            edited = getattr(item.a, "principle_id", "") in ("honesty", "privacy")
            assert ("principle edited" in kinds) == (edited and item.name.startswith("critique"))


@pytest.mark.parametrize("change", ["tags"])
def test_what_enters_no_record_is_no_difference(revised: Path, tmp_path: Path, change: str) -> None:
    file = constitution(tmp_path / "c.yaml", CONSTITUTIONS[change])
    settings = ("engine.capacity=9", "max_error_rate=0.5")
    found = compare(revised, start(tmp_path / "run", *settings, until="revise", constitution=file))
    assert part(found, "chain").n_same == 28
    assert not found.inputs.constitution.principles
    stages = {setting.key: setting.stages for setting in found.inputs.settings}
    assert stages == {"constitution": (), "engine.capacity": (), "max_error_rate": ()}


def test_an_edited_template_is_named(
    revised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts").mkdir()
    template = Path("prompts/critique.jinja")
    template.write_text("{{ principle.critique }}\n\nWrite the critique only.\n")
    found = compare(revised, start(tmp_path / "run", until="revise"))
    assert part(found, "chain").reasons == [("the template critique.jinja was edited", 16)]
    assert [file.name for file in found.inputs.files] == ["critique.jinja"]


def test_another_file_of_examples_counts_only_where_it_is_shown(
    folder: Path, revised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = start(tmp_path / "shown", "revise.exemplars=on", until="revise")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts" / "exemplars").mkdir(parents=True)
    rows = yaml.safe_load((revised / "inputs" / "exemplars_revision.yaml").read_text())
    rows["exemplars"] = rows["exemplars"][:1]
    Path("prompts/exemplars/critique_revision.yaml").write_text(yaml.safe_dump(rows))
    hidden = compare(revised, start(tmp_path / "hidden", until="revise"))
    assert part(hidden, "chain").n_same == 28
    assert [file.name for file in hidden.inputs.files] == ["exemplars_revision.yaml"]
    other = start(tmp_path / "other", "revise.exemplars=on", until="revise")
    assert part(compare(shown, other), "chain").reasons == [
        ("the conversation opens otherwise (worked examples)", 28)
    ]


def test_only_common_prompts_are_compared(tmp_path: Path) -> None:
    rows = [{"prompt": f"How do I do forbidden thing {i}?"} for i in range(30)]
    files = {"one": rows[:20], "two": rows[10:]}
    shares = "prompts.shares={sft: 1.0, preference: 0.0, rl: 0.0, eval: 0.0}"
    runs = []
    for name, lines in files.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in lines))
        settings = (shares, "revise.n_prompts=null", "prompts.helpful=[]", "prompts.look_alike=[]")
        options = {"prompts": str(path), "until": "revise"}
        runs.append(start(tmp_path / name, *settings, **options))
    found = compare(*runs)
    assert (found.n_common, found.n_only_a, found.n_only_b) == (10, 10, 10)
    assert part(found, "chain").n_same == 10
    assert not found.inputs.same


def test_another_seed_deals_other_splits_which_are_counted(revised: Path, tmp_path: Path) -> None:
    found = compare(revised, start(tmp_path / "run", until="revise", seed=1))
    chains = part(found, "chain")
    alone = dict(chains.alone)
    assert chains.n_prompts + sum(alone.values()) == 2 * 28 - chains.n_prompts
    assert alone["the prompt is in another split of the other run"] > 0
    assert {setting.key: len(setting.stages) for setting in found.inputs.settings} == {"seed": 7}
    length = next(row for row in found.deltas if row.name == "length, tokens")
    assert not length.paired
    assert length.a
    assert length.a.n == 16


def test_a_run_that_stopped_early_is_compared_as_far_as_it_went(
    whole: Path, revised: Path, tmp_path: Path
) -> None:
    found = compare(whole, revised)
    assert part(found, "chain").n_same == 28
    assert part(found, "samples").alone == [("stage sample of B is not begun", 24)]
    assert part(found, "rl").alone == [("stage evaluate of B is not begun", 24)]
    assert not any(row.delta for row in found.deltas if row.part == "rl")
    assert all(row.a and not row.b for row in found.deltas if row.part in ("labels", "rl"))
    torn = shutil.copytree(revised, tmp_path / "torn")
    lines = (torn / "01-revise" / "records.jsonl").read_bytes()
    (torn / "01-revise" / "records.jsonl").write_bytes(lines[: len(lines) // 2])
    manifest = read_json(torn / "manifest.json")
    manifest["stages"][0]["status"] = "stopped"
    (torn / "manifest.json").write_text(json.dumps(manifest))
    chains = part(compare(revised, torn), "chain")
    assert {said for said, _ in (*chains.reasons, *chains.alone)} == {
        "stage revise of B is stopped"
    }
    assert chains.n_prompts + sum(n for _, n in chains.alone) == 28


def break_off(row: dict[str, Any]) -> None:
    row["generation"] |= {"finish": "error", "error": "too long"}
    row["text"] = ""


def fail_revision(rows: list[Any]) -> None:
    """The last revision of a chain failed."""
    break_off(next(row for row in rows if row["type"] == "revision" and row["round"] == 2))


def fail_response(rows: list[Any]) -> None:
    """A chain ended as it began."""
    bad = next(row for row in rows if row["type"] == "response")
    break_off(bad)
    rows[:] = [row for row in rows if row is bad or row["prompt_id"] != bad["prompt_id"]]


def test_what_failed_altogether_is_counted(revised: Path, tmp_path: Path) -> None:
    run = edited_copy(revised, tmp_path / "run", "01-revise/records.jsonl", fail_response)
    for runs, said in (
        ((revised, run), "a generation failed in B"),
        ((run, revised), "a generation failed in A"),
        ((run, run), "a generation failed in both"),
    ):
        chains = part(compare(*runs), "chain")
        assert (chains.n_prompts, chains.alone) == (27, [(said, 1)])


def fail(rows: list[Any]) -> None:
    """The first critique failed, and its chain ended there."""
    bad = next(row for row in rows if row["type"] == "critique" and row["round"] == 1)
    break_off(bad)
    gone = [
        row for row in rows
        if row["prompt_id"] == bad["prompt_id"] and row.get("round") and row is not bad
    ]  # fmt: skip
    for row in gone:
        rows.remove(row)


def say_otherwise(rows: list[Any]) -> None:
    changed = next(row for row in rows if row["type"] == "critique" and row["round"] == 1)
    changed["text"] += " and more"
    for row in rows:
        if row["type"] == "revision" and row["parent_id"] == changed["id"]:
            row["text"] += " and more"


def relabel(rows: list[Any]) -> None:
    """Other ids than any known input makes."""
    next(row for row in rows if row["type"] == "response")["id"] = "0" * 20


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (fail, "from critique 1 on: a generation failed in B: critique 1: too long"),
        (fail_revision, "from revision 2 on: a generation failed in B: revision 2: too long"),
        (say_otherwise, "from critique 1 on: the same request got another answer "
                        "(other versions, hardware or batches)"),
        (relabel, "from response on: nothing that is recorded differs (another version of cai?)"),
    ],
)  # fmt: skip
def test_what_no_input_explains(
    revised: Path, tmp_path: Path, change: Callable[[list[Any]], object], why: str
) -> None:
    run = edited_copy(revised, tmp_path / "run", "01-revise/records.jsonl", change)
    found = compare(revised, run)
    said = [row.whys["chain"] for row in found.prompts if row.whys]
    assert len(said) == 1
    assert said == [why]
    if change in (fail, fail_revision):
        assert not any(row.change for row in found.prompts), "what failed changed no word"
        assert not found.most_changed
        assert all(row.delta and row.delta.value == 0 for row in found.deltas)


def test_what_follows_from_other_revisions(whole: Path, tmp_path: Path) -> None:
    file = constitution(tmp_path / "c.yaml", CONSTITUTIONS["critique"])
    found = compare(whole, start(tmp_path / "run", constitution=file))
    other = [("another sft policy (on other revisions)", 24)]
    assert part(found, "samples").reasons == part(found, "sft").reasons == other
    assert part(found, "labels").reasons == [("other responses were compared", 24)]
    assert part(found, "base").n_same == 24
    assert len(found.most_changed) == 10
    changes = [row.change for row in found.prompts]
    assert changes == sorted(changes, reverse=True)
    base = [row for row in found.deltas if row.part == "base"]
    assert all(row.delta and row.delta[:3] == (0, 0, 0) for row in base)


def test_labels_of_the_same_responses(whole: Path, tmp_path: Path) -> None:
    file = constitution(tmp_path / "c.yaml", CONSTITUTIONS["preference"])
    found = compare(whole, start(tmp_path / "run", until="label", constitution=file))
    labels = part(found, "labels")
    assert part(found, "chain").n_same == 28
    assert part(found, "samples").n_same == 24
    assert labels.n_same + labels.n_changed == 24
    drew = sum(
        any(label.principle_id == EDITED for label in t.labels)
        for t in load_run(whole).transcripts.values()
    )
    said = f"principle {EDITED}: its preference text was edited"
    assert labels.reasons == ([(said, drew)] if drew else [])
    notes = {row.note for row in found.deltas if row.part == "labels"}
    assert notes == {"not judged the same way: other preference principles"}


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("label.mode=cot", "label.mode logprob → cot"),
        ("label.ensemble=2", "label.ensemble 1 → 2"),
        ("models.judge=stranger", "another model (smollm2-135m@fake → stranger@fake)"),
        ("label.exemplars=on", "the worked comparisons before the question differ"),
    ],
)
def test_labels_made_otherwise(whole: Path, tmp_path: Path, setting: str, reason: str) -> None:
    found = compare(whole, start(tmp_path / "run", setting, until="label"))
    assert part(found, "samples").n_same == 24
    assert {said for said, _ in part(found, "labels").reasons} == {reason}


def test_a_trainer_option_makes_another_policy(whole: Path, tmp_path: Path) -> None:
    found = compare(whole, start(tmp_path / "run", "rl.trainer.learning_rate=2e-4"))
    assert part(found, "sft").n_same == 24
    assert part(found, "rl").reasons == [
        ("another rl policy (with rl.trainer.learning_rate 0.0001 → 0.0002)", 24)
    ]


def test_rewards_of_two_reward_models_are_not_subtracted(whole: Path, tmp_path: Path) -> None:
    def shift(rows: list[Any]) -> None:
        for row in rows:
            row["reward"] = 2 * row["reward"] + 1

    other = edited_copy(whole, tmp_path / "run", "07-evaluate/scores.jsonl", shift)
    same = compare(whole, other)
    assert not any(row.note for row in same.deltas)  # The very same weights.
    config = other / "05-reward" / "checkpoint" / "config.json"
    config.write_text('{"fake": "other"}')
    found = [row for row in compare(whole, other).deltas if "reward" in row.name]
    assert found
    assert {(row.note, row.delta) for row in found} == {(REWARDS, None)}
    assert all(row.a and row.b for row in found)


def test_numbers_are_those_of_the_evaluation(whole: Path) -> None:
    """What stands in metrics.json, measured by the same functions over the same prompts."""
    metrics = read_json(whole / "07-evaluate" / "metrics.json")
    rows = {(row.part, row.name): row.a for row in compare(whole, whole).deltas}
    names = {
        "mean reward": "reward",
        "refusal, red-team": "refusal",
        "length, tokens": "length_tokens",
        "KL from base, nats": "kl",
        "reward gain over base": "reward_gain",
    }
    for policy in ("base", "sft", "rl"):
        for name, key in names.items():
            found, expected = rows.get((policy, name)), metrics["policies"][policy][key]
            assert bool(found) == bool(expected)
            if found:
                assert found._asdict() == pytest.approx(expected)
    for row in metrics["win_rates"]:
        if row["against"] == "base":
            found = rows[row["policy"], "win rate against base"]
            assert found
            assert found.value == pytest.approx(row["win_rate"])
            assert found.low == pytest.approx(row["low"])


@pytest.mark.parametrize(
    ("a", "b", "value", "low", "high"),
    [
        ([0, 0, 0, 0], [0, 0, 0, 0], 0.0, -0.327, 0.327),
        ([0] * 10, [1] * 10, 1.0, 0.567, 1.0),
        ([1] * 5 + [0] * 5, [0] * 5 + [1] * 5, 0.0, -0.542, 0.542),
        ([0] * 40, [1] * 8 + [0] * 32, 0.2, 0.063, 0.318),
    ],
)
def test_paired_shares(
    a: Sequence[float], b: Sequence[float], value: float, low: float, high: float
) -> None:
    """Agresti and Min: (c* - b*) / n* with half a prompt added to each of the four outcomes."""
    found = paired(a, b, "share")
    assert (found.value, found.n) == (pytest.approx(value), len(a))
    assert found.low == pytest.approx(low, abs=2e-3)
    assert found.high == pytest.approx(high, abs=2e-3)
    back = paired(b, a, "share")
    assert back[:3] == pytest.approx((-found.value, -found.high, -found.low))


def test_paired_means_lose_the_prompts_own_differences() -> None:
    a, b = [1.0, 5.0, 9.0, 2.0], [1.5, 5.4, 9.6, 2.5]
    found = paired(a, b, "mean")
    assert found.value == pytest.approx(0.5)
    apart = unpaired(mean(a), mean(b))
    assert apart.value == pytest.approx(found.value)
    assert found.low
    assert apart.low
    assert apart.low < 0 < found.low


def test_unpaired_shares_are_newcombes() -> None:
    """Newcombe 1998, table II, method 10: 56/70 against 48/80."""
    found = unpaired(proportion([True] * 48 + [False] * 32), proportion([True] * 56 + [False] * 14))
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0524, abs=5e-4)
    assert found.high == pytest.approx(0.3339, abs=5e-4)
    assert unpaired(mean([1.0]), mean([2.0, 3.0])) == Estimate(1.5, None, None, 1)


def test_swapping_the_runs_swaps_the_sides(whole: Path, tmp_path: Path) -> None:
    file = constitution(tmp_path / "c.yaml", CONSTITUTIONS["added"])
    runs: list[Run] = [load_run(whole), load_run(start(tmp_path / "run", constitution=file))]
    there, back = compare_runs(make_pair(*runs)), compare_runs(make_pair(*reversed(runs)))
    assert [row.prompt.id for row in there.prompts] == [row.prompt.id for row in back.prompts]
    for one, other in zip(there.deltas, back.deltas, strict=True):
        assert (one.a, one.b, one.n_changed) == (other.b, other.a, other.n_changed)
        if one.delta:
            assert other.delta
            assert one.delta.value == pytest.approx(-other.delta.value)
    added, removed = (found.inputs.constitution.principles for found in (there, back))
    assert [(p.id, p.state) for p in added] == [("brand-new", "added")]
    assert [(p.id, p.state) for p in removed] == [("brand-new", "removed")]


def test_prompts_are_found_by_the_beginning_of_their_id(revised: Path) -> None:
    found = compare(revised, revised)
    row = found.prompts[0]
    assert find_prompt(found, row.prompt.id[:12]) == row
    with pytest.raises(ConfigError, match="is no prompt of which both"):
        find_prompt(found, "zzz")
    with pytest.raises(ConfigError, match="is no prompt of which both"):
        find_prompt(found, "")


def test_a_broken_run_is_named(revised: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(revised, tmp_path / "broken")
    (broken / "inputs" / "constitution.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"broken: its Constitution does not fit .*: name: "):
        compare(revised, broken)
