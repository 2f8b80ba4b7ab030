"""Joining a run's records by prompt, whole or stopped early."""

import gc
from pathlib import Path

import pytest
from run_folder import BAD, GOOD, POLISHED, STAGES, build_run, make_prompts, respond, write_lines

from cai.errors import ConfigError, Damaged
from cai.lines import read_whole_rows
from cai.view import transcripts
from cai.view.badges import badges
from cai.view.diff import word_diff
from cai.view.transcripts import (
    Transcript,
    find_transcript,
    load_transcripts,
)
from cai.words import split_words


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_run(tmp_path_factory.mktemp("runs") / "demo")


def test_revised_prompt_has_its_whole_chain(run: Path) -> None:
    transcript = load_transcripts(run)[0]
    assert transcript.response is not None
    assert transcript.response.text == BAD
    assert [round.number for round in transcript.rounds] == [1, 2]
    first = transcript.rounds[0]
    assert first.critique is not None
    assert first.revision is not None
    assert first.critique.parent_id == transcript.response.id
    assert first.revision.parent_id == first.critique.id
    assert first.principle is not None
    assert first.principle.id == first.principle_id == "illegal-acts"
    assert first.revision.id in transcript.rewards
    assert transcript.used
    assert not transcript.samples


def test_labelled_prompt_has_samples_both_orders_and_preference(run: Path) -> None:
    transcript = load_transcripts(run)[4]
    one, other = transcript.samples
    assert [(label.first_id, label.second_id) for label in transcript.labels] == [
        (one.id, other.id),
        (other.id, one.id),
    ]
    (preference,) = transcript.preferences
    assert (preference.chosen_id, preference.rejected_id) == (one.id, other.id)


def test_held_out_prompt_has_every_policys_answer_with_reward(run: Path) -> None:
    transcript = load_transcripts(run)[3]
    assert [answer.policy for answer in transcript.answers] == ["base", "sft", "rl"]
    assert set(transcript.rewards) == {answer.response.id for answer in transcript.answers}
    assert len(transcript.comparisons) == 4


@pytest.mark.parametrize("n_stages", range(len(STAGES) + 1))
def test_run_that_stopped_early_loads(tmp_path: Path, n_stages: int) -> None:
    stopped = build_run(tmp_path / "run", stages=STAGES[:n_stages])
    transcripts = load_transcripts(stopped)
    assert len(transcripts) == 24
    assert any(transcript.used for transcript in transcripts) == (n_stages > 0)
    assert any(transcript.answers for transcript in transcripts) == (n_stages == len(STAGES))


def test_empty_folder_has_no_transcripts(tmp_path: Path) -> None:
    assert load_transcripts(tmp_path) == []


def test_missing_folder_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such run folder; `cai runs`"):
        load_transcripts(tmp_path / "nothing")


def test_half_written_last_line_is_left_out(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    path = run / "01-revise" / "records.jsonl"
    whole = len(read_whole_rows(path))
    path.write_bytes(path.read_bytes()[:-30])
    assert len(read_whole_rows(path)) == whole - 1
    load_transcripts(run)


def test_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    path = run / "01-revise" / "records.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:-5], *lines[2:]]) + "\n")
    with pytest.raises(Damaged, match=r"records\.jsonl:2: broken record"):
        load_transcripts(run)


def test_record_of_another_version_is_named(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    path = run / "03-sample" / "records.jsonl"
    first, *rest = read_whole_rows(path)
    write_lines(path, [first | {"mood": "good"}, *rest])
    with pytest.raises(Damaged, match=r"records\.jsonl:1: not a record: response\.mood"):
        load_transcripts(run)


def test_record_of_no_prompt_is_an_error(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    stranger = respond(make_prompts(30)[29], "sample", 0, BAD)
    write_lines(run / "03-sample" / "records.jsonl", [stranger])
    with pytest.raises(ConfigError, match="belongs to no prompt of this run"):
        load_transcripts(run)


def test_unknown_principle_is_none(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    (run / "inputs" / "constitution.json").unlink()
    assert load_transcripts(run)[0].rounds[0].principle is None


def test_chain_that_failed_after_its_critique(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    path = run / "01-revise" / "records.jsonl"
    rows = [row for row in read_whole_rows(path) if row["type"] != "revision"]
    write_lines(path, rows)
    transcript = load_transcripts(run)[0]
    assert transcript.rounds[0].revision is None
    assert transcript.versions() == [transcript.response]


def test_transcript_is_found_by_id_or_prefix(run: Path) -> None:
    wanted = make_prompts(24)[5].id
    for given in (wanted, wanted[:8]):
        assert find_transcript(run, given).prompt.id == wanted


def test_ambiguous_prefix_names_the_candidates(tmp_path: Path) -> None:
    prompts = [p.model_copy(update={"id": f"abc{i}"}) for i, p in enumerate(make_prompts(8))]
    write_lines(tmp_path / "inputs" / "prompts.jsonl", prompts)
    with pytest.raises(
        ConfigError, match=r"'abc' fits 8 prompts of .*: abc0, abc1, .*…; type more"
    ):
        find_transcript(tmp_path, "abc")
    write_lines(
        tmp_path / "inputs" / "prompts.jsonl",
        [prompts[0].model_copy(update={"id": "abc"}), *prompts],
    )
    assert find_transcript(tmp_path, "abc").prompt.id == "abc"


@pytest.mark.parametrize("given", ["zzz", "", "\x1b]52;c;x\x07"])
def test_unknown_id_names_near_ones_and_prints_nothing_raw(run: Path, given: str) -> None:
    with pytest.raises(ConfigError, match=r"has no prompt .*did you mean") as caught:
        find_transcript(run, given)
    assert str(caught.value).isprintable()


def test_run_without_prompts_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the run has no prompts yet"):
        find_transcript(tmp_path, "abc")


def test_badges(run: Path) -> None:
    found = [badges(transcript) for transcript in load_transcripts(run)]
    assert found[0] == ["no-op revision", "refusal"]
    assert found[1] == ["truncated", "refusal"]
    assert found[2] == []
    assert found[4] == ["orders disagree"]


def test_badge_of_a_failed_response() -> None:
    prompt = make_prompts(1)[0]
    failed = Transcript(prompt, response=respond(prompt, "revise", 0, "", "error"))
    assert badges(failed) == ["error"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (GOOD, POLISHED),
        ("a b c", "a x c"),
        ("", "new words"),
        ("old words", ""),
        ("the a the a the", "a the a the a a"),
        ("line one\nline two", "line one\nline 2\n"),
        ("私は犬が好き。", "私は猫がPython3で好き。 "),
    ],
)
def test_diff_holds_both_texts(one: str, other: str) -> None:
    parts = word_diff(one, other)
    old = " ".join(text for change, text in parts if change != "added")
    assert split_words(old) == split_words(one)
    assert "".join(text for change, text in parts if change != "removed") == other


def test_diff_of_a_replaced_word() -> None:
    assert word_diff("a b c", "a x c") == [
        ("same", "a "),
        ("removed", "b "),
        ("added", "x "),
        ("same", "c"),
    ]


def test_diff_of_a_script_without_spaces_is_of_characters() -> None:
    assert word_diff("私は犬が", "私は猫が") == [
        ("same", "私は"),
        ("removed", "犬"),
        ("added", "猫"),
        ("same", "が"),
    ]


def test_diff_of_repeated_words_ends() -> None:
    """difflib is cubic here: the second of these would take it hours."""
    assert len(word_diff("the a " * 1_000, "a the x " * 600)) > 600
    assert len(word_diff("the a " * 50_000, "a the " * 50_000)) == 2


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_rests_while_a_run_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was_on: bool
) -> None:
    seen = list[bool]()
    monkeypatch.setattr(transcripts, "read_principles", lambda _: seen.append(gc.isenabled()) or {})
    run = build_run(tmp_path / "run", 4)
    (gc.enable if was_on else gc.disable)()
    try:
        load_transcripts(run)
        with pytest.raises(ConfigError):
            load_transcripts(tmp_path / "none")
        after = gc.isenabled()
    finally:
        gc.enable()
    assert (seen, after) == ([False], was_on)


def test_ten_thousand_prompts_load(tmp_path: Path) -> None:
    prompts = make_prompts(10_000)
    write_lines(tmp_path / "inputs" / "prompts.jsonl", prompts)
    write_lines(
        tmp_path / "03-sample" / "records.jsonl", [respond(p, "x", 0, BAD) for p in prompts]
    )
    assert len(load_transcripts(tmp_path)) == 10_000
