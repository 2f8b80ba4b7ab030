"""Exporting a run: what others' loaders and trainers find, what is left out, what is said of it."""

import gzip
import itertools
import json
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_folder import BAD, GOOD, HOSTILE, STAGES, build_run, read_json, write_json, write_lines

from cai.errors import ConfigError, DiskFull
from cai.interop.datasets import FORMS, ExportResult, export_run
from cai.interop.icai import mean_p, public_name, vote
from cai.interop.rows import dialogue_text, unsayable
from cai.lines import read_whole_rows
from cai.records import Message, Preference, digest
from cai.resolve import Options, resolve_config
from cai.sources import one_dialogue
from cai.view.transcripts import Transcript, load_transcripts

pytest_plugins = ["tiny_fixtures"]

SECRET = "sk-do-not-tell"


def edit_rows(path: Path, change: Any) -> None:
    """Apply `change(index, row)` to each row of a file."""
    rows = read_whole_rows(path)
    for index, row in enumerate(rows):
        change(index, row)
    write_lines(path, rows)


def rich_run(folder: Path, n_prompts: int = 48, **config: Any) -> Path:
    """A whole run with dialogues of two human turns, an rl share and revision pairs."""
    run = build_run(folder, n_prompts)
    settings = {"revise": {"rounds": 2}, "models": {"base": SECRET}} | config
    write_json(run / "config.json", read_json(run / "config.json") | settings)
    rows = read_whole_rows(run / "inputs" / "prompts.jsonl")
    by_split: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_split.setdefault(row["split"], []).append(row)
    rl = [row | {"id": digest("rl", i), "split": "rl"} for i, row in enumerate(rows[:8])]
    for split, found in (by_split | {"rl": rl}).items():
        for index, row in enumerate(found):
            row["group"] = f"{split}-{index // 2}"
            if index % 2:
                said = {"role": "assistant", "content": f"And then? {index}"}
                row["messages"] = [*found[index - 1]["messages"], said, *row["messages"]]
    write_lines(run / "inputs" / "prompts.jsonl", [*rows, *rl])
    add_revision_pairs(run, 3)
    return run


def add_revision_pairs(run: Path, n: int) -> None:
    """Preferences for a revision over its response that nobody judged."""
    revised = [t for t in load_transcripts(run) if t.rounds][:n]
    path = run / "04-label" / "preferences.jsonl"
    assumed = [
        Preference(
            id=digest("assumed", t.prompt.id),
            prompt_id=t.prompt.id,
            principle_ids=(),
            chosen_id=t.versions()[-1].id,
            rejected_id=t.versions()[0].id,
            p_chosen=1.0,
            p_orders=None,
            orders_agree=None,
            label_ids=(),
            origin="revision",
        )
        for t in revised
    ]
    write_lines(path, [*read_whole_rows(path), *assumed])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rich_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "exported"


def load(out: Path, cache: Path, *name: str, split: str) -> list[dict[str, Any]]:
    """Rows as `datasets` finds them, by the card's header."""
    from datasets import load_dataset

    return load_dataset(str(out), *name, split=split, cache_dir=str(cache)).to_list()


def written(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of the JSONL files, by file name."""
    return {path.stem: read_whole_rows(path) for path in sorted(out.rglob("*.jsonl"))}


def strings(value: Any) -> list[str]:
    """Every text in a JSON value."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [text for one in inner for text in strings(one)]
    return [value] if isinstance(value, str) else []


def groups(transcripts: Iterable[Transcript], rows: Iterable[dict[str, Any]]) -> set[str]:
    """The dialogues whose prompts the rows hold: prompts are made unlike each other first."""
    by_tag = {digest("tag", t.prompt.id)[:8]: t.prompt.group for t in transcripts}
    found = [json.dumps(row) for row in rows]
    return {group for tag, group in by_tag.items() if any(f"[{tag}]" in text for text in found)}


def tag_prompts(run: Path) -> None:
    """Make every prompt's last turn unlike all others'."""

    def tag(_: int, row: dict[str, Any]) -> None:
        row["messages"][-1]["content"] += f" [{digest('tag', row['id'])[:8]}]"

    edit_rows(run / "inputs" / "prompts.jsonl", tag)


def test_every_preference_and_revision_is_written_or_counted(run: Path, tmp_path: Path) -> None:
    transcripts = load_transcripts(run)
    n_preferences = sum(len(t.preferences) for t in transcripts)
    n_revisions = sum(len(t.rounds) for t in transcripts)
    n_helpful = sum(t.prompt.kind == "helpful" and t.response is not None for t in transcripts)
    n_responses = sum(t.response is not None for t in transcripts)
    expected = {
        ("trl", "sft"): n_revisions + n_helpful,
        ("trl", "preference"): n_preferences,
        ("trl", "prompts"): sum(t.prompt.split in ("rl", "eval") for t in transcripts),
        ("hh-rlhf", ""): n_preferences,
        ("llm-swarm", ""): n_responses,
        ("icai", ""): n_preferences,
    }
    for form in FORMS:
        result = export_run(run, form, tmp_path / form)
        for (name, table), n_in in expected.items():
            if name == form:
                n_rows = sum(n for file, n in result.counts.items() if file.startswith(table))
                lost = [n for what, n in result.left_out.items() if what.startswith(table)]
                assert n_rows + sum(lost) == n_in, (form, table, result)
        assert all(path.is_file() for path in result.files)


@pytest.mark.parametrize("form", ["trl", "hh-rlhf", "llm-swarm"])
def test_parquet_and_jsonl_hold_the_same_rows(run: Path, tmp_path: Path, form: str) -> None:
    results = [export_run(run, form, tmp_path / str(kind), kind) for kind in (True, False)]
    assert results[0].counts == results[1].counts
    plain = written(tmp_path / "False")
    import pyarrow.parquet

    files = sorted((tmp_path / "True").rglob("*.parquet"))
    assert [path.stem for path in files] == sorted(plain)
    for path in files:
        assert pyarrow.parquet.read_table(path).to_pylist() == plain[path.stem]
    # The hostile text is a first response: only where revisions are compared or shown is it in.
    assert any(HOSTILE in text for text in strings(list(plain.values())))


def test_an_export_is_the_same_every_time(run: Path, tmp_path: Path) -> None:
    for form in FORMS:
        for name in ("one", "two"):
            export_run(run, form, tmp_path / form / name)
        one, two = (
            {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
            for folder in (tmp_path / form / "one", tmp_path / form / "two")
        )
        assert one == two


@pytest.mark.parametrize("seed", range(4))
def test_no_dialogue_is_in_train_and_test_nor_the_evaluations_in_train(
    tmp_path: Path, seed: int
) -> None:
    run = rich_run(tmp_path / "run", seed=seed)
    tag_prompts(run)
    transcripts = load_transcripts(run)
    evaluated = {t.prompt.group for t in transcripts if t.prompt.split == "eval"}
    sides: dict[str, set[str]] = {"train": set(), "test": set()}
    for form in ("trl", "hh-rlhf", "llm-swarm"):
        export_run(run, form, tmp_path / form, parquet=False)
        for name, rows in written(tmp_path / form).items():
            found = groups(transcripts, rows)
            assert found, name
            sides["train" if "train" in name else "test"] |= found
    export_run(run, "icai", tmp_path / "icai")
    for row in read_json(tmp_path / "icai" / "annotated_pairs.json")["comparisons"]:
        sides[row["metadata"]["split"]] |= groups(transcripts, [row])
    assert not sides["train"] & sides["test"]
    assert not sides["train"] & evaluated
    assert len(sides["train"]) > len(sides["test"] - evaluated) > 0


def test_swarm_halves_share_no_dialogue(tmp_path: Path) -> None:
    run = rich_run(tmp_path / "run", 120)
    tag_prompts(run)
    export_run(run, "llm-swarm", tmp_path / "out", parquet=False)
    transcripts = load_transcripts(run)
    found = [groups(transcripts, rows) for rows in written(tmp_path / "out").values()]
    assert len(found) == 4
    assert sum(map(len, found)) == len(set().union(*found))


def test_test_pairs_are_those_that_the_reward_model_did_not_train_on(
    run: Path, tmp_path: Path
) -> None:
    copy = rich_run(tmp_path / "run")
    chosen = [p for t in load_transcripts(copy) for p in t.preferences]
    held = {p.id for t in load_transcripts(copy)[:20] for p in t.preferences if not p.label_ids}
    held |= {
        t.preferences[0].id for t in load_transcripts(copy) if t.prompt.group == "preference-3"
    }
    rows = [{"id": p.id, "heldout": p.id in held} for p in chosen]
    write_lines(copy / "05-reward" / "rows.jsonl", rows)
    export_run(copy, "icai", tmp_path / "out")
    pairs = read_json(tmp_path / "out" / "annotated_pairs.json")["comparisons"]
    assert {row["id"] for row in pairs if row["metadata"]["split"] == "test"} == held & {
        row["id"] for row in pairs
    }
    said = "those that the run's own reward model was not trained on"
    assert said in (tmp_path / "out" / "README.md").read_text()
    export_run(run, "icai", tmp_path / "other")
    assert said not in (tmp_path / "other" / "README.md").read_text()


def test_a_dialogue_of_the_evaluation_stays_out_of_train_even_if_a_stage_used_it(
    tmp_path: Path, out: Path
) -> None:
    run = rich_run(tmp_path / "run")

    def move(_: int, row: dict[str, Any]) -> None:
        if row["group"].startswith("preference") or row["group"].startswith("rl"):
            row["group"] = "eval-0"

    edit_rows(run / "inputs" / "prompts.jsonl", move)
    result = export_run(run, "trl", out)
    assert "prompts-train" not in result.counts
    assert result.left_out["prompts: dialogue of the evaluation"] == 8
    n_rows = result.counts.get("preference-train", 0) + result.counts.get("preference-test", 0)
    lost = result.left_out.get("preference: dialogue of the evaluation", 0)
    assert n_rows + lost == sum(len(t.preferences) for t in load_transcripts(run))


def test_trl_columns(run: Path, out: Path) -> None:
    export_run(run, "trl", out, parquet=False)
    files = written(out)
    for row in files["sft-train"] + files["sft-test"]:
        assert list(row) == ["prompt", "completion"]
        assert [turn["role"] for turn in row["completion"]] == ["assistant"]
    pairs = files["preference-train"] + files["preference-test"]
    for row in pairs:
        assert list(row)[:3] == ["prompt", "chosen", "rejected"]
        assert row["prompt"][-1]["role"] == "user"
        assert 0.5 <= row["p_chosen"] <= 1
        assert bool(row["principle_ids"]) == (row["origin"] == "sampled")
    assert {len(row["prompt"]) for row in pairs} == {1, 3}
    assert sum(row["origin"] == "revision" for row in pairs) == 3
    assert {tuple(row) for row in files["prompts-train"]} == {("prompt",)}
    assert len(files["prompts-train"]) == 8


@pytest.mark.parametrize(("use", "n_rounds"), [("all", 2), ("last", 1)])
def test_sft_rows_are_those_that_the_stage_would_train_on(
    tmp_path: Path, out: Path, use: str, n_rounds: int
) -> None:
    run = rich_run(tmp_path / "run", sft={"use": use, "helpful_ratio": 0.2})
    result = export_run(run, "trl", out, parquet=False)
    n = result.counts["sft-train"] + result.counts["sft-test"]
    n_revised = 8 * n_rounds
    assert n == n_revised + round(n_revised * 0.2 / 0.8)
    earlier = "sft: revision of an earlier round (sft.use: last)"
    assert result.left_out.get(earlier, 0) == 16 - n_revised
    beyond = "sft: helpful response beyond sft.helpful_ratio"
    assert result.left_out.get(beyond, 0) == 4 - (n - n_revised)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("parquet", [True, False])
def test_trls_trainers_take_the_files_without_a_map(
    run: Path, out: Path, tmp_path: Path, tiny: str, parquet: bool
) -> None:
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

    export_run(run, "trl", out, parquet)
    kind = "parquet" if parquet else "json"
    ending = "parquet" if parquet else "jsonl"

    def rows(name: str) -> Any:
        path = str(out / f"{name}-train.{ending}")
        cache = str(tmp_path / "cache")
        return load_dataset(kind, data_files=path, split="train", cache_dir=cache)

    shared: dict[str, Any] = {
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 1,
        "max_length": 1024,
    }
    classifier = AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1)
    trainers = (
        (SFTTrainer, SFTConfig, "sft", AutoModelForCausalLM.from_pretrained(tiny)),
        (RewardTrainer, RewardConfig, "preference", classifier),
        (DPOTrainer, DPOConfig, "preference", AutoModelForCausalLM.from_pretrained(tiny)),
    )
    for trainer_class, config_class, name, model in trainers:
        tokenizer = AutoTokenizer.from_pretrained(tiny, pad_token="<|endoftext|>")
        model.config.pad_token_id = tokenizer.pad_token_id
        trainer = trainer_class(
            model=model,
            args=config_class(output_dir=str(tmp_path / trainer_class.__name__), **shared),
            train_dataset=rows(name),
            processing_class=tokenizer,
        )
        assert len(trainer.train_dataset) == len(rows(name)) > 2
        trainer.train()
        assert trainer.state.global_step == 1
        assert trainer.state.log_history[0]["loss"] > 0
    assert rows("prompts").column_names == ["prompt"]


def test_load_dataset_finds_the_splits_by_the_card(run: Path, tmp_path: Path) -> None:
    for form in ("trl", "hh-rlhf", "llm-swarm"):
        for parquet in (True, False):
            out = tmp_path / f"{form}-{parquet}"
            result = export_run(run, form, out, parquet)
            for name, n in result.counts.items():
                config, _, split = name.rpartition("-")
                args = (config,) if form == "trl" else ()
                assert len(load(out, tmp_path / "cache", *args, split=split)) == n, name


def test_swarm_columns_and_turns(tmp_path: Path, out: Path) -> None:
    run = rich_run(tmp_path / "run", 120)
    result = export_run(run, "llm-swarm", out, parquet=True)
    assert list(result.counts) == ["train_prefs", "train_sft", "test_prefs", "test_sft"]
    assert (out / "data" / "train_sft-00000-of-00001.parquet").is_file()
    principles = {p["id"]: p for p in read_json(run / "inputs" / "constitution.json")["principles"]}
    turns: set[int] = set()
    for split, n in result.counts.items():
        rows = load(out, tmp_path / "cache", split=split)
        assert len(rows) == n
        for row in rows:
            assert list(row) == [
                "init_prompt",
                "init_response",
                "critic_prompt",
                "critic_response",
                "revision_prompt",
                "revision_response",
                "prompt",
                "messages",
                "chosen",
                "rejected",
            ]
            assert row["critic_prompt"] == principles["overall-harm"]["critique"]
            assert row["chosen"] == row["messages"]
            assert row["chosen"][:-1] == row["rejected"][:-1]
            assert row["chosen"][-1] == {"role": "assistant", "content": row["revision_response"]}
            assert row["rejected"][-1] == {"role": "assistant", "content": row["init_response"]}
            assert row["messages"][-2] == {"role": "user", "content": row["prompt"]}
            turns.add(len(row["messages"]))
    assert turns == {2, 4}


def test_swarm_counts_what_cannot_teach(tmp_path: Path, out: Path) -> None:
    run = rich_run(tmp_path / "run")
    failed = {t.prompt.id for t in load_transcripts(run) if t.rounds and t.prompt.group == "sft-0"}

    def spoil(_: int, row: dict[str, Any]) -> None:
        if row["type"] == "revision" and row["prompt_id"] in failed:
            row["text"], row["generation"]["finish"] = "", "error"
        elif row["type"] == "revision":
            row["text"] = BAD

    edit_rows(run / "01-revise" / "records.jsonl", spoil)
    result = export_run(run, "llm-swarm", out, parquet=False)
    assert result.left_out["default: no whole revision"] == len(failed) > 0
    same = result.left_out["default: revision equals the response (preference splits)"]
    prefs = [row for name, rows in written(out).items() if "prefs" in name for row in rows]
    assert same > 0
    assert all(row["init_response"] != row["revision_response"] for row in prefs)


def test_hh_rows_read_back_as_the_dialogues_they_are(run: Path, out: Path) -> None:
    export_run(run, "hh-rlhf", out, parquet=False)
    meant = set()
    for transcript in load_transcripts(run):
        texts = {t.id: t.text for t in (*transcript.versions(), *transcript.samples)}
        before = tuple((m.role, m.content) for m in transcript.prompt.messages)
        for p in transcript.preferences:
            sides = [(*before, ("assistant", texts[id])) for id in (p.chosen_id, p.rejected_id)]
            meant.add(tuple(sides))
    read = set()
    for rows in written(out).values():
        for row in rows:
            assert list(row) == ["chosen", "rejected"]
            dialogues = [one_dialogue(row[side], "here") for side in row]
            read.add(tuple(tuple((m.role, m.content) for m in d) for d in dialogues))
    assert read == meant


MARKER = "turn marker (Human: or Assistant: after a blank line) inside a text"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("plain", None),
        ("", None),
        ("Human: at the start", None),
        ("one line\nHuman: two", None),
        ("a\n\nHuman is a word\n\nassistant: lower case", None),
        ("ends with the marker\n\nHuman", None),
        (" space around \n", None),
        ("line\u2028separator \x85 \x1b[31m \x00", None),
        ("\n\nHuman: and then?", MARKER),
        ("Sure.\n\nHuman: thanks\n\nAssistant: welcome", MARKER),
        ("Sure.\n\n\nAssistant:", MARKER),
        ("half \ud800 a pair", "half a surrogate pair in a text"),
    ],
)
def test_what_hh_rlhfs_format_can_say(text: str, reason: str | None) -> None:
    asked = [Message(role="user", content="Why?")]
    for dialogue in (
        [*asked, Message(role="assistant", content=text)],
        [Message(role="user", content=text or "x"), Message(role="assistant", content="Because.")],
    ):
        assert unsayable([dialogue]) == reason
        if reason is None:
            read = one_dialogue(dialogue_text(dialogue), "here")
            assert [m.content for m in read] == [m.content.strip() for m in dialogue]


def test_hh_rlhfs_own_dialogues_can_all_be_said(shared_data: Path) -> None:
    n_rows = 0
    with gzip.open(shared_data / "hh-rlhf" / "harmless-base.jsonl.gz") as file:
        for line in itertools.islice(file, 500):
            sides = json.loads(line)
            dialogues = [one_dialogue(sides[side], "there") for side in ("chosen", "rejected")]
            assert unsayable(dialogues) is None
            assert [one_dialogue(dialogue_text(d), "here") for d in dialogues] == dialogues
            n_rows += 1
    assert n_rows == 500


def test_hh_leaves_out_and_counts_what_it_cannot_say(tmp_path: Path, out: Path) -> None:
    run = rich_run(tmp_path / "run")
    texts = {0: "a\n\nHuman: b", 3: "\n\nAssistant: c", 4: "lone \udc80", 6: f" {GOOD}\n"}

    def spoil(index: int, row: dict[str, Any]) -> None:
        row["text"] = texts.get(index, row["text"])

    edit_rows(run / "03-sample" / "records.jsonl", spoil)

    def system(index: int, row: dict[str, Any]) -> None:
        if row["group"] == "preference-5":
            row["messages"].insert(0, {"role": "system", "content": "Be kind."})

    edit_rows(run / "inputs" / "prompts.jsonl", system)

    def tie(index: int, row: dict[str, Any]) -> None:
        row["p_chosen"] = 0.5 if index == 4 else row["p_chosen"]

    edit_rows(run / "04-label" / "preferences.jsonl", tie)
    result = export_run(run, "hh-rlhf", out, parquet=False)
    assert result.left_out == {
        f"default: {MARKER}": 2,
        "default: half a surrogate pair in a text": 1,
        "default: P is exactly 0.5: neither response is better": 1,
        "default: system turn, which the format does not have": 2,
    }
    assert sum(result.counts.values()) == 12 + 3 - 6
    assert any(note.startswith("In 1 rows a turn begins or ends with") for note in result.notes)
    card = (out / "README.md").read_text()
    assert f"- default: 2 × {MARKER}" in card
    for form in ("trl", "icai"):
        other = export_run(run, form, tmp_path / form)
        lost = [n for reason, n in other.left_out.items() if "surrogate" in reason]
        assert lost == [1]


def test_icai_votes(run: Path, out: Path) -> None:
    export_run(run, "icai", out)
    content = read_json(out / "annotated_pairs.json")
    assert content["metadata"]["version"] == "2.0"
    default = content["metadata"]["default_annotator"]
    labels = {label.id: label for t in load_transcripts(run) for label in t.labels}
    preferences = {p.id: p for t in load_transcripts(run) for p in t.preferences}
    texts = {x.id: x.text for t in load_transcripts(run) for x in t.texts()}
    for row in content["comparisons"]:
        preference = preferences[row["id"]]
        vote = row["annotations"][default]["pref"]
        assert row[f"response_{vote}"]["text"] == texts[preference.chosen_id]
        own = row["annotations"]["principle-overall-harm"]
        chosen = [
            x.p_first if x.first_id == preference.chosen_id else 1 - x.p_first
            for x in (labels[id] for id in preference.label_ids)
        ]
        p_vote = own["p_a"] if own["pref"] == "a" else 1 - own["p_a"]
        assert p_vote == pytest.approx(sum(chosen) / 2)
    assert {row["annotations"][default]["pref"] for row in content["comparisons"]} == {"a", "b"}


def test_icai_file_has_what_its_viewer_asks_for(run: Path, out: Path) -> None:
    result = export_run(run, "icai", out)
    content = read_json(out / "annotated_pairs.json")
    voted = {id for row in content["comparisons"] for id in row["annotations"]}
    assert voted == set(content["annotators"])
    assert {a["type"] for a in content["annotators"].values()} == {"unknown", "principle"}
    keys = {key for row in content["comparisons"] for key in row["metadata"]}
    assert keys == set(content["metadata"]["available_metadata_keys_per_comparison"])
    columns = {"comparison_id", "prompt", "text_a", "text_b", "model_a", "model_b", "weight"}
    assert not (keys | columns) & voted
    assert not keys & columns
    assert len({row["id"] for row in content["comparisons"]}) == result.counts["annotated_pairs"]
    reason = "annotated_pairs: revision assumed to be better: nobody voted"
    assert result.left_out == {reason: 3}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([("a", 0.8), ("b", 0.4)], 0.7),
        ([("a", 0.8), ("a", 0.6), ("b", 0.4)], 0.65),
        ([("a", 0.9), ("b", 0.9)], 0.5),
        ([("a", 0.9)], None),
        ([("a", 0.9), ("b", None)], None),
        ([("b", 0.25), ("a", 0.75), ("b", None)], 0.75),
        ([], None),
    ],
)
def test_a_principles_vote_needs_both_orders(
    run: Path, given: list[tuple[str, float | None]], expected: float | None
) -> None:
    label = next(label for t in load_transcripts(run) for label in t.labels)
    labels = [label.model_copy(update={"first_id": first, "p_first": p}) for first, p in given]
    p_a = mean_p(labels, "a")
    assert p_a == (None if expected is None else pytest.approx(expected))
    prefs = {None: None, 0.5: None}
    said = vote(p_a)
    assert said["pref"] == prefs.get(expected, "a")
    assert ("no_pref_reason" in said) == (said["pref"] is None)


@pytest.mark.parametrize("form", FORMS)
def test_the_card_says_what_is_there_and_nothing_that_is_private(
    tmp_path: Path, out: Path, form: str
) -> None:
    run = rich_run(tmp_path / "run")
    manifest = read_json(run / "manifest.json")
    manifest["models"]["judge"] = {"name": "/home/me@x/`judge`", "path": "/home/x", "commit": "c1"}
    write_json(run / "manifest.json", manifest)
    law = read_json(run / "inputs" / "constitution.json") | {
        "license": "CC0-1.0 `\n# x",
        "system_prompt": "Hidden words.",
    }
    write_json(run / "inputs" / "constitution.json", law)

    def hide(_: int, row: dict[str, Any]) -> None:
        row["generation"]["model"] = "/home/me/models/mine@abc123"

    for stage in ("01-revise", "03-sample"):
        edit_rows(run / stage / "records.jsonl", hide)

    def place(_: int, row: dict[str, Any]) -> None:
        row["source"] = "/home/me/data/" + row["source"]

    edit_rows(run / "inputs" / "prompts.jsonl", place)
    result = export_run(run, form, out)
    card = (out / "README.md").read_text()
    assert SECRET not in card
    assert "/home" not in card + "".join(p.read_text() for p in out.glob("*.json"))
    assert str(tmp_path) not in card
    assert "`mine@abc123`" in card
    assert "`'judge'`, commit `c1`" in card
    assert "`CC0-1.0 ' # x`" in card
    assert "Hidden words" not in card
    assert "system prompt was shown while generating" in card
    assert "harmless 1.0, 2 principles" in card
    assert "Seed: 7" in card
    for text in (
        BAD,
        GOOD,
        HOSTILE,
        *(t.prompt.messages[-1].content for t in load_transcripts(run)),
    ):
        assert text[:30] not in card
    for name, n in result.counts.items():
        assert f"{name}" in card
        assert f"| {n} |" in card
    assert all(
        f" {n} × {reason.split(': ', 1)[1]}" in card for reason, n in result.left_out.items()
    )
    head = yaml.safe_load(card.split("---\n")[1])
    paths = [file["path"] for c in head.get("configs", []) for file in c["data_files"]]
    data_files = [str(p.relative_to(out)) for p in result.files if p.suffix == ".parquet"]
    assert sorted(paths) == sorted(data_files)


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("smollm2-135m@bcc81830d10c", "smollm2-135m@bcc81830d10c"),
        ("HuggingFaceTB/SmolLM2-360M-Instruct@main@c0ffee", None),
        ("/home/me/ckpt@abc", "ckpt@abc"),
        ("/home/a@b/ckpt/@abc", "ckpt@abc"),
        ("~/ckpt@abc", "ckpt@abc"),
        ("./ckpt@abc", "ckpt@abc"),
        ("runs/mine/02-sft/checkpoint@abc", "checkpoint@abc"),
        ("C:\\models\\ckpt@abc", "ckpt@abc"),
        ("fake", "fake"),
    ],
)
def test_model_names_lose_their_folders(label: str, shown: str | None) -> None:
    assert public_name(label) == (shown or label)


@pytest.mark.parametrize(
    ("form", "n_stages", "stage"),
    [
        ("trl", 0, "revise"),
        ("llm-swarm", 0, "revise"),
        ("hh-rlhf", 3, "label"),
        ("icai", 3, "label"),
    ],
)
def test_a_stage_that_is_not_done_is_named_with_a_command_that_continues(
    tmp_path: Path, out: Path, form: str, n_stages: int, stage: str
) -> None:
    run = build_run(tmp_path / "run", stages=STAGES[:n_stages])
    with pytest.raises(ConfigError, match=f"made from stage {stage}, which is not done") as caught:
        export_run(run, form, out)
    command = str(caught.value).rpartition("type: ")[2]
    assert command == f"cai run --config {run}/config.json --out {run} --until {stage}"
    before = resolve_config(Options(constitution="harmless.yaml", recipe="quickstart"))
    write_json(run / "config.json", before.model_dump(mode="json"))
    assert resolve_config(Options(config=command.split()[3])) == before
    assert not out.exists()


def test_a_run_that_stopped_early_gives_what_it_has(tmp_path: Path, out: Path) -> None:
    run = build_run(tmp_path / "run", stages=STAGES[:1])
    result = export_run(run, "trl", out)
    assert {name.split("-")[0] for name in result.counts} == {"sft", "prompts"}
    card = (out / "README.md").read_text()
    assert "Stage label is not done" in result.notes[-1]
    assert result.notes[-1] in card
    assert "Judge" not in card


def no_folder(run: Path, out: Path) -> tuple[Path, str, Path, bool | None]:
    return run.parent / "nothing", "trl", out, None


def empty_folder(run: Path, out: Path) -> tuple[Path, str, Path, bool | None]:
    (run.parent / "empty").mkdir()
    return run.parent / "empty", "trl", out, None


def full_out(run: Path, out: Path) -> tuple[Path, str, Path, bool | None]:
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    return run, "trl", out, None


def file_out(run: Path, out: Path) -> tuple[Path, str, Path, bool | None]:
    out.write_text("kept")
    return run, "trl", out, None


def below_a_file(run: Path, out: Path) -> tuple[Path, str, Path, bool | None]:
    out.write_text("kept")
    return run, "trl", out / "deep" / "er", None


def unknown_form(run: Path, out: Path) -> tuple[Path, str, Path, bool | None]:
    return run, "csv", out, None


def icai_parquet(run: Path, out: Path) -> tuple[Path, str, Path, bool | None]:
    return run, "icai", out, True


def old_config(run: Path, out: Path) -> tuple[Path, str, Path, bool | None]:
    write_json(run / "config.json", {"constitution": "x", "sft": {"was": 1}})
    return run, "trl", out, None


def orphan(run: Path, out: Path) -> tuple[Path, str, Path, bool | None]:
    edit_rows(run / "04-label" / "preferences.jsonl", lambda _, row: row.update(chosen_id="gone"))
    return run, "hh-rlhf", out, None


def only_ties(run: Path, out: Path) -> tuple[Path, str, Path, bool | None]:
    edit_rows(run / "04-label" / "preferences.jsonl", lambda _, row: row.update(p_chosen=0.5))
    return run, "hh-rlhf", out, None


@pytest.mark.parametrize(
    ("request_of", "message"),
    [
        (no_folder, "no such run folder"),
        (empty_folder, "no run of cai"),
        (full_out, "is not empty; give a new folder"),
        (file_out, "is not empty; give a new folder"),
        (below_a_file, "cannot be made"),
        (unknown_form, "there are trl, hh-rlhf, llm-swarm, icai"),
        (icai_parquet, "one JSON file"),
        (old_config, "sft.was: .* export it with that version"),
        (orphan, "neither a sample nor a revision of this run"),
        (only_ties, r"nothing to export as hh-rlhf \(6 default: P is exactly 0.5"),
    ],
)
def test_errors_say_what_to_do(tmp_path: Path, out: Path, request_of: Any, message: str) -> None:
    arguments = request_of(build_run(tmp_path / "run"), out)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=message):
        export_run(*arguments)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_may_be_given(run: Path, out: Path) -> None:
    out.mkdir()
    assert isinstance(export_run(run, "trl", out), ExportResult)
    assert (out / "README.md").is_file()
    assert out.stat().st_mode & 0o777 == 0o755


def test_a_full_disk_leaves_nothing_behind(run: Path, out: Path) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, old[1]))
    try:
        with pytest.raises(DiskFull, match="same command again"):
            export_run(run, "trl", out, parquet=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list(out.parent.iterdir()) == []
