"""The commands that measure: judges, models, reward models, the method itself."""

import json
from pathlib import Path
from typing import Any

import click

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
SKIP_BAD = click.option("--skip-bad", is_flag=True, help="Leave broken lines out and count them.")
SETTINGS = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a setting of a run."
)
SEED = click.option("--seed", type=click.IntRange(0), default=0, help="Decides every draw.")


@click.command("judge-test")
@click.argument("judge", metavar="RUN|MODEL")
@click.option("--data", required=True, help="Preferences: JSONL(.gz) file, run, or dataset id.")
@click.option("--constitution", help="For a model: whose principles it judges by [harmless].")
@SETTINGS
@click.option("--n", type=click.IntRange(1), default=200, help="Pairs drawn from the data [200].")
@click.option("--strict", is_flag=True, help="Fail (exit 4) unless it is better than chance.")
@click.option("--seed", type=click.IntRange(0), help="Decides every draw [0, or the run's].")
@SKIP_BAD
@AS_JSON
def judge_test(judge: str, data: str, n: int, strict: bool, as_json: bool, **values: Any) -> None:
    """Test a judge on pairs whose better side is known, before its labels are used.

    Accuracy, calibration, liking for a slot, refusals, by principle. RUN: its judge with its
    principles and label settings.
    """
    from cai.judge_test import JudgeTestOptions, refuse_chance
    from cai.judge_test import judge_test as test
    from cai.resolve import Options
    from cai.view.judged import show_judge_test
    from cai.view.terminal import standard_console

    result = test(JudgeTestOptions(judge, data, Options(**values), n))
    if as_json:
        click.echo(json.dumps(result, indent=1))
    else:
        show_judge_test(result, standard_console())
    if strict:
        refuse_chance(result)


@click.command("score")
@click.argument("model", metavar="MODEL|RUN")
@click.option("--data", required=True, help="Conversations or pairs: a JSONL(.gz) file.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the scores go (JSONL).")
@click.option("--max-length", type=click.IntRange(1), default=2048, help="Tokens read [2048].")
@click.option("--batch-size", type=click.IntRange(1), default=16, help="Conversations at once.")
@SKIP_BAD
@AS_JSON
def score(model: str, data: str, out: Path | None, as_json: bool, **values: Any) -> None:
    """Score each conversation of a file with a reward model, or both sides of each pair."""
    from cai.score import ScoreOptions, print_score, score_file
    from cai.view.terminal import standard_console

    found = score_file(model, data, out, ScoreOptions(**values))
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        print_score(found, standard_console())


SUITES = ("hhh", "harmful-vs-ethical", "harm-classification")


@click.command("eval")
@click.option("--suite", required=True, type=click.Choice(SUITES), help="What is asked.")
@click.option("--data", required=True, help="The published files: their folder, or the file.")
@click.option("--model", help="Answers by the log-probability of its options.")
@click.option("--reward-model", help="Scores the answers: a folder, a run, an id.")
@click.option("--format", type=click.Choice(["auto", "raw", "chat", "both"]), default="auto")
@click.option("--engine", type=click.Choice(["vllm", "transformers", "fake"]), default="vllm")
@click.option("--max-context", type=click.IntRange(16), help="Tokens that a prompt may have.")
@click.option("--n", type=click.IntRange(1), help="Items drawn from the suite [all].")
@click.option("--out", type=click.Path(path_type=Path), help="JSON with every item's outcome.")
@SEED
@SKIP_BAD
@AS_JSON
def eval_(engine: str, max_context: int | None, as_json: bool, **values: Any) -> None:
    """Ask a model the evaluations published with the paper; each also with shuffled options."""
    from cai.config import Engine
    from cai.evaluation import SuiteOptions, evaluate_suite
    from cai.view.suites import show_suite
    from cai.view.terminal import standard_console

    chosen = Engine.model_validate({"kind": engine, "max_context": max_context})
    result = evaluate_suite(SuiteOptions(engine=chosen, **values))
    if as_json:
        click.echo(result.model_dump_json(indent=1, exclude={"outcomes", "scores"}))
    else:
        show_suite(result, standard_console())


@click.command("reproduce")
@click.option("--data", required=True, help="Human preference pairs: hh-rlhf's JSONL(.gz) file.")
@click.option("--model", help="What is trained and tested [the embedded model].")
@click.option("--out", type=click.Path(path_type=Path), help="[runs/reproduce]")
@click.option("--parts", default="1,2,3,4", show_default=True, help="Labels, pairs, RL, judge.")
@click.option("--scale", default=1.0, show_default=True, help="How much larger or smaller.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Such as rl.steps=80.")
@click.option("--engine", type=click.Choice(["vllm", "transformers"]), help="[transformers]")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the numbers as a page.")
@SEED
@SKIP_BAD
@AS_JSON
def reproduce(parts: str, scale: float, settings: tuple[str, ...], **values: Any) -> None:
    """Measure what the method rests on: soft labels, a human reward model, RL, a judge.

    Every part is on disk when it ends; the same command continues.
    """
    from cai.reproduce.options import make_options
    from cai.reproduce.run import reproduce as measure
    from cai.run import write_atomic
    from cai.view.reproduced import markdown, show_reproduced
    from cai.view.terminal import standard_console

    page, as_json = values.pop("markdown"), values.pop("as_json")
    results = measure(make_options(parts, scale, settings, values))
    if page:
        write_atomic(page, markdown(results))
    if as_json:
        click.echo(json.dumps(results, indent=1))
    else:
        show_reproduced(results, standard_console())
