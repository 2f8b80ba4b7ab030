"""What `cai eval` prints: the accuracy of each way of asking, and what qualifies it."""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from cai.accuracy import RewardAccuracy, SuiteResult, Variant
from cai.view.terminal import heading, make_table, measure, one_line

COLUMNS = ("asked", "accuracy ± s.e.>", "95 %>", "chance>", "P(right)>", "P(none)>", "ECE>")


def show_suite(result: SuiteResult, console: Console) -> None:
    """Print the accuracy of each way of asking, the share of each option, what was left out."""
    models = (result.model, result.reward_model and f"reward model {result.reward_model}")
    console.print(heading(result.suite, f"{result.n_items} of {result.n_rows} items", *models))
    console.print(make_table(COLUMNS, rows(result)))
    if result.variants:
        names = (f"{name_of(variant)}>" for variant in result.variants)
        columns = ("chosen (right)", *names)
        console.print(Text(), make_table(columns, option_rows(result.variants)), sep="\n")
    for line in notes(result):
        console.print(Text(one_line(line), "dim"))


def ways(result: SuiteResult) -> Iterator[tuple[str, Variant | RewardAccuracy]]:
    """What was measured, by name: each variant, then the reward model."""
    yield from ((name_of(variant), variant) for variant in result.variants)
    if result.reward:
        yield "reward model", result.reward


def rows(result: SuiteResult) -> Iterator[list[object]]:
    """The cells under `COLUMNS`."""
    for name, found in ways(result):
        p_outside, ece = getattr(found, "p_outside", None), getattr(found, "ece", None)
        spread = "" if found.stderr is None else f" ± {found.stderr * 100:.1f}"
        yield [
            name,
            f"{found.accuracy * 100:.1f}{spread} %",
            f"[{found.low * 100:.1f}, {found.high * 100:.1f}]",
            measure(found.chance, 100, 1),
            *(measure(value, 1, 3) for value in (found.p_right, p_outside, ece)),
        ]


def name_of(variant: Variant) -> str:
    return f"{variant.format}, {'shuffled' if variant.shuffled else 'as given'}"


def option_rows(variants: Sequence[Variant]) -> Iterator[list[object]]:
    """How often each option was chosen and, in brackets, right: a judge's liking for a position."""
    options = sorted(
        {option for variant in variants for option in (*variant.chosen, *variant.correct)}
    )
    for option in options:
        yield [option, *(shares(variant, option) for variant in variants)]


def shares(variant: Variant, option: str) -> str:
    chosen, right = variant.chosen.get(option, 0.0), variant.correct.get(option, 0.0)
    return f"{measure(chosen, 100, 0)} ({measure(right, 100, 0)})"


def notes(result: SuiteResult) -> Iterator[str]:
    """What the tables leave out."""
    for name, found in ways(result):
        if found.n_failed:
            yield f"{name}: {found.n_scored} of {found.n} scored"
        if found.n_ties:
            yield f"{name}: {found.n_ties} ties"
    for variant in result.variants:
        if variant.accuracy_norm is not None:
            norm = measure(variant.accuracy_norm, 100, 1)
            yield f"{name_of(variant)}: accuracy by log-probability per character {norm}"
    if result.n_not_shuffled:
        yield f"{result.n_not_shuffled} items cannot be taken apart exactly: not shuffled"
    if result.n_bad:
        yield f"{result.n_bad} broken rows left out"
    if result.reward and result.reward.n_truncated:
        yield f"{result.reward.n_truncated} items had a text cut at its left for the reward model"
    for reason, n in result.failures.most_common(3):
        yield f"{n} without a result: {reason}"
