"""The report: what it says, what it leaves out, and that model text cannot break out of it."""

import re
from pathlib import Path

import pytest
from run_folder import (
    BAD,
    HOSTILE,
    STAGES,
    build_run,
    make_prompts,
    prefer,
    read_json,
    respond,
    write_json,
)

from cai.metrics import Score, evaluation_summary
from cai.view.report import fence, inline, policy_warnings, write_report

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = build_run(tmp_path_factory.mktemp("runs") / "demo")
    write_report(run)
    return run


def report_of(run: Path) -> str:
    return write_report(run).read_text()


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_report_says_how_the_run_was_made(run: Path) -> None:
    made = section((run / "report.md").read_text(), "How it was made")
    assert "* constitution: harmless 1.0" in made
    assert "* base model: smollm2-135m @ bcc81830d10c" in made
    assert "* seed: 7" in made
    assert "| revise | done | 24 | 24 | truncated 1 | 12,000 | 9,000 | 3,400 | 1 m 02 s |" in made


def test_before_and_after_table(run: Path) -> None:
    table = section((run / "report.md").read_text(), "Before and after")
    assert r"12 held-out prompts (4 red\_team, 6 look\_alike, 2 helpful)" in table
    assert r"| refusal, red-team | 0 % \[0, 49\] | 100 % \[51, 100\] | 100 % \[51, 100\] |" in table
    assert r"| win rate against base | – | 65 % \[38, 85\] | 67 % \[39, 86\] |" in table
    assert "| errors | 0 | 0 | 0 |" in table


def test_judge_reward_model_and_rounds(run: Path) -> None:
    text = (run / "report.md").read_text()
    assert r"| label | 6 | 0 | 33 % \[10, 70\] |" in section(text, "The judge")
    assert "on 20 held-out pairs: 60 % [36, 80]" in section(text, "Reward model")
    assert "The same 4 prompts in each round" in section(text, "Reward by revision round")


def test_plots_are_whole_pngs(run: Path) -> None:
    plots = sorted((run / "plots").iterdir())
    assert [path.name for path in plots] == [
        "before_after.png",
        "reward_by_round.png",
        "training.png",
    ]
    assert all(path.read_bytes().startswith(PNG) for path in plots)
    links = re.findall(r"\]\((plots/\w+\.png)\)", (run / "report.md").read_text())
    assert sorted(links) == [f"plots/{path.name}" for path in plots]


def test_nothing_temporary_stays(run: Path) -> None:
    assert not [path for path in run.rglob("*") if "tmp" in path.name]


@pytest.mark.parametrize("n_stages", range(len(STAGES)))
def test_stopped_run_has_a_report_that_names_what_is_missing(tmp_path: Path, n_stages: int) -> None:
    run = build_run(tmp_path / "run", stages=STAGES[:n_stages])
    text = report_of(run)
    missing = [stage for stage in STAGES if not list(run.glob(f"*-{stage}"))]
    assert f"Not there: {', '.join(missing)};" in text
    assert "nothing is known about what training changed" in text
    assert ("No training was logged." in text) == (n_stages < 2)
    assert ("Accuracy: –." in text) == (n_stages < 5)


def test_empty_folder_has_a_report(tmp_path: Path) -> None:
    assert "**no manifest yet**" in report_of(tmp_path)


def recount(run: Path, stage: str, **counts: object) -> None:
    """Give a stage of the run other counts."""
    manifest = read_json(run / "manifest.json")
    entry = next(entry for entry in manifest["stages"] if entry["name"] == stage)
    entry["counts"] |= counts
    write_json(run / "manifest.json", manifest)


@pytest.mark.parametrize("counts", [{"accuracy_heldout": None}, {"n_heldout": 0}])
def test_reward_model_without_held_out_pairs(tmp_path: Path, counts: dict[str, object]) -> None:
    run = build_run(tmp_path / "run")
    recount(run, "reward", **counts)
    assert "Accuracy: –." in report_of(run)


def test_a_model_of_ratings_is_measured_on_pairs_too(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    recount(run, "reward", n_heldout_pairs=7, mse_heldout=0.5)
    text = section(report_of(run), "Reward model")
    assert "on 7 held-out pairs" in text
    assert "mean squared error on held-out ratings: 0.5" in text


def test_sources_of_preferences_and_their_ratio_are_said(run: Path) -> None:
    text = section((run / "report.md").read_text(), "Preferences")
    assert "pairs to learn from, by source: 8 ai, 12 human.jsonl" in text
    assert r"left out of those: 3 prompts\_differ" in text
    assert "share of foreign pairs: 0.6" in text
    assert "not judged: 1 identical" in text
    assert "assumed to be better: 2" in text


def test_rl_says_which_policy_goes_on_and_why(run: Path) -> None:
    text = section((run / "report.md").read_text(), "Reinforcement learning")
    assert "kept at steps 20, 40, 60 the judge likes that of step 40 best: it wins 70 %" in text
    assert r"| reward\_model | 1.3 |" in text
    assert "Stopped" not in text


def test_a_collapse_is_said_with_its_reason(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    stopped = {"step": 12, "why": ["length_growth 4.1 > 3"], "bounds": ["max_length_growth"]}
    recount(run, "rl", stopped=stopped, chosen_step=0, win_rate_over_start=None)
    text = section(report_of(run), "Reinforcement learning")
    assert r"**Stopped as collapsed at step 12**: length\_growth 4.1 \> 3." in text
    assert "the checkpoint is the policy that RL started from" in text


def test_warnings_of_small_and_uncertain_runs(run: Path) -> None:
    warnings = section((run / "report.md").read_text(), "Warnings")
    assert "60 % [36, 80], cannot be told from guessing" in warnings
    assert "Only 12 held-out prompts: even over all of them, a half is 50 % [25, 75]" in warnings


def test_broken_bounds_are_said_and_are_only_text(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    manifest = read_json(run / "manifest.json")
    manifest["stages"][3]["warnings"] = ["label: in 90% of 24 pairs", HOSTILE]
    write_json(run / "manifest.json", manifest)
    warnings = section(report_of(run), "Warnings")
    assert "* label: in 90% of 24 pairs.\n" in warnings
    assert "<img" not in warnings.replace(r"\<img", "")
    assert len(warnings.strip().split("\n")) == 4


def summary(base: str, rl: str, wins: float, **rl_finish: str) -> dict[str, object]:
    """Metrics of 30 red-team and other prompts where RL's reward rose by about one."""
    prompts = make_prompts(30)
    answers = {
        "base": [(p, respond(p, "base", 0, base)) for p in prompts],
        "rl": [(p, respond(p, "rl", 0, rl, **rl_finish)) for p in prompts],
    }
    scores = {
        row.id: Score(index % 3 * 0.1 + (who == "rl"))
        for who, rows in answers.items()
        for index, (_, row) in enumerate(rows)
    }
    pairs = zip(answers["rl"], answers["base"], strict=True)
    labels = [x for (_, one), (_, two) in pairs for x in prefer(one, two, wins, 1 - wins)[0]]
    return evaluation_summary(answers, scores, {("rl", "base"): labels}, [])


@pytest.mark.parametrize(
    ("metrics", "warning"),
    [
        (summary(BAD, BAD, 0.1), "rl: reward rose while the judge prefers base"),
        (summary(BAD, BAD, 0.9, finish="error"), "rl: 30 of 30 answers failed"),
    ],
)
def test_policy_warnings(metrics: dict[str, object], warning: str) -> None:
    assert [text for text in policy_warnings(metrics) if text.startswith(warning)]


def test_healthy_policy_has_no_warning() -> None:
    assert list(policy_warnings(summary(BAD, BAD, 0.9))) == []


def test_limits_name_a_judge_that_judges_itself(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    title = "What these numbers can and cannot say"
    assert "The judge is the very model" in section(report_of(run), title)
    manifest = read_json(run / "manifest.json")
    manifest["models"]["judge"] = {"name": "other", "path": "/x", "commit": "1"}
    write_json(run / "manifest.json", manifest)
    assert "The judge is the very model" not in section(report_of(run), title)


@pytest.mark.parametrize("text", [HOSTILE, "`" * 40, "```\nend", "a ``` b ```` c", "", "x" * 5_000])
def test_fence_cannot_be_closed_by_its_text(text: str) -> None:
    first, *body, last = fence(text).split("\n")
    assert first == f"{last}text"
    assert len(last) >= 3
    assert set(last) == {"`"}
    assert all(last not in line for line in body)
    assert len("\n".join(body)) < 1_500
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", "".join(body))


def test_cut_text_says_so() -> None:
    assert "[…, 300 more characters]" in fence("x" * 1_000)


@pytest.mark.parametrize("text", [HOSTILE, "a | b", "<script>", "![x](http://e)", "*b* _i_ `c` #"])
def test_inline_text_has_no_markdown_left(text: str) -> None:
    found = inline(text)
    assert "\n" not in found
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_\[\]<>|#!]", found)


def test_hostile_names_stay_on_their_line(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    manifest = read_json(run / "manifest.json")
    manifest["name"] = HOSTILE
    manifest["stages"][0]["counts"] = {HOSTILE: 1}
    manifest["models"]["base"]["name"] = HOSTILE
    write_json(run / "manifest.json", manifest)
    outside = re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", report_of(run))
    assert "\n# Heading" not in outside
    assert "<script" not in outside
    assert "<img" not in outside.replace(r"\<img", "")


def test_report_is_replaced_whole(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run")
    first = report_of(run)
    assert report_of(run) == first
