"""What `cai judge-test` shows: how often the judge is right, and what it leans on instead."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from cai.judge_metrics import EVEN, chance, is_chance
from cai.preferences import in_words
from cai.view.plots import plot
from cai.view.terminal import heading, make_table, measure, one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show_judge_test(result: Mapping[str, Any], console: Console) -> None:
    """Print the result, draw `reliability.png` in its folder, and warn loudly where it must be."""
    label = result["label"]
    mode = f"{label['mode']}, {label['ensemble']} principle(s) a pair"
    console.print(heading(result["judge"], result["constitution"], mode))
    console.print(Text(one_line(f"{result['data']}: {in_words(result['rows'])}")))
    console.print(Text(), make_table(("", "", "ideal"), rows(result)), sep="\n")
    console.print(
        Text(), make_table(("principle", "pairs>", "right"), principles(result)), sep="\n"
    )
    folder = Path(result["folder"])
    plot(folder, "reliability", draw_reliability, result)
    console.print(Text(f"\n{one_line(folder)}: result.json, plots/reliability.png", "dim"))
    for line in warnings(result):
        console.print(Text(f"WARNING: {one_line(line)}", "bold red"), soft_wrap=True)


def rows(result: Mapping[str, Any]) -> Iterator[list[object]]:
    """A line for each measure."""
    yield ["right (accuracy)", measure(result["accuracy"], 100, 1), "100 %"]
    yield ["mean P of the better response", measure(result["p_right"], 1, 3), "1"]
    yield ["calibration error (ECE)", measure(result["ece"], 1, 3), "0"]
    yield ["same slot preferred in both orders", measure(result["same_slot"], 100, 1), "0 %"]
    yield ["mean P of the first slot", measure(result["p_first"], 1, 3), "0.5"]
    if same := result["identical"]:
        yield ["P(first) of identical responses", measure(same["p_first"], 1, 3), "0.5"]
        yield ["the same, both orders averaged", measure(same["p_first_averaged"], 1, 3), "0.5"]
    yield ["probability on neither option", measure(result["p_outside"], 1, 3), "0"]
    words = result["refusals"]
    yield ["refusals among answers in words", measure(words["refused"], 100, 0), "0 %"]
    if words["n_verdicts"]:
        missing = f"{words['n_without_verdict']} of {words['n_verdicts']}"
        yield ["answers in words without a verdict", missing, "0"]
    yield ["pairs without a judgement", f"{result['n_unscored']} of {result['n_pairs']}", "0"]


def principles(result: Mapping[str, Any]) -> Iterator[list[object]]:
    for row in result["by_principle"]:
        yield [row["principle"], row["n"], measure(row, 100, 0)]


def warnings(result: Mapping[str, Any]) -> Iterator[str]:
    """What a user must know before spending money on this judge's labels."""
    if is_chance(result):
        yield f"{result['judge']} is {chance(result)}"
    same = result["identical"]
    if same and same["largest_deviation"] > EVEN:
        reason = (
            "each order has reasonings of its own, drawn at a temperature; label.n_cot averages "
            "over more of them"
            if result["label"]["mode"] == "cot"
            else "the engine does not give the same question the same answer"
        )
        yield (
            f"identical responses are up to {same['largest_deviation']:.3f} from P = 0.5 after "
            f"averaging: {reason}"
        )
    if result["n_unscored"]:
        yield f"{result['n_unscored']} pairs have no judgement: {result['unscored_reasons']}"


def draw_reliability(figure: "Figure", result: Mapping[str, Any]) -> None:
    """How often the judge is right, by how sure it is; the diagonal is perfect calibration."""
    figure.set_size_inches(5, 4.4)
    axes, found = figure.add_subplot(), result["reliability"]
    axes.plot([0.5, 1], [0.5, 1], color="#888888", linestyle=":")
    reach = [
        [row["value"] - row["low"] for row in found],
        [row["high"] - row["value"] for row in found],
    ]
    axes.errorbar(
        [row["p"] for row in found], [row["value"] for row in found], yerr=reach, fmt="o", capsize=5
    )
    for row in found:
        axes.annotate(f" n={row['n']}", (row["p"], row["value"]))
    axes.set(
        xlabel="P of the preferred response", ylabel="how often it is the better one",
        xlim=(0.49, 1.01), ylim=(-0.05, 1.05),
    )  # fmt: skip
    axes.grid(alpha=0.3)
