"""The plots of a report, as PNG files."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cai.lines import read_whole_rows
from cai.run import write_atomic
from cai.view.transcripts import POLICIES, stage_folder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Data = TypeVar("Data")
Curve = tuple[str, list[float], list[float]]
"""Title, steps, values."""
COLOURS = {"base": "#888888", "sft": "#0072b2", "rl": "#d55e00"}
CURVES = (
    ("sft", "loss", "SFT: loss"),
    ("reward", "loss", "Reward model: loss"),
    ("rl", "reward", "RL: mean reward"),
    ("rl", "kl", "RL: KL from its start, nats"),
)
PANELS = (
    ("reward", "Mean reward"),
    ("win_rate", "Win rate against base"),
    ("refusal", "Refusal, red-team"),
    ("over_refusal", "Over-refusal, look-alikes"),
)


def plot(run: Path, name: str, draw: Callable[["Figure", Data], None], data: Data) -> str:
    """Draw `data` into `plots/NAME.png`, and return the picture's link."""
    from matplotlib.figure import Figure

    figure, content = Figure(dpi=120, layout="constrained"), io.BytesIO()
    draw(figure, data)
    figure.savefig(content, format="png")
    (run / "plots").mkdir(exist_ok=True)
    write_atomic(run / "plots" / f"{name}.png", content.getvalue())
    return f"![{name.replace('_', ' ')}](plots/{name}.png)"


def curves(run: Path) -> Iterator[Curve]:
    """Each training curve that was logged."""
    for stage, metric, title in CURVES:
        rows = read_whole_rows(stage_folder(run, stage) / "metrics.jsonl")
        points = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
        if points:
            yield title, [step for step, _ in points], [value for _, value in points]


def draw_training(figure: "Figure", found: Sequence[Curve]) -> None:
    n_columns, n_rows = min(2, len(found)), (len(found) + 1) // 2
    figure.set_size_inches(5 * n_columns, 3 * n_rows)
    for index, (title, steps, values) in enumerate(found, 1):
        axes = figure.add_subplot(n_rows, n_columns, index)
        axes.plot(steps, values, color=COLOURS["sft"], marker="." if len(steps) < 20 else "")
        axes.set(title=title, xlabel="step")
        axes.locator_params(axis="x", integer=True)
        axes.grid(alpha=0.3)


def draw_rounds(figure: "Figure", rows: Sequence[Mapping[str, Any]]) -> None:
    figure.set_size_inches(6, 3.6)
    axes, numbers = figure.add_subplot(), [row["round"] for row in rows]
    draw_points(axes, numbers, rows, COLOURS["sft"])
    axes.set(xlabel="revision round (0 is the response)", ylabel="mean reward", xticks=numbers)


def draw_before_after(figure: "Figure", policies: Sequence[Mapping[str, Any]]) -> None:
    panels = [panel for panel in PANELS if any(policy.get(panel[0]) for policy in policies)]
    n_rows = max(1, (len(panels) + 1) // 2)
    figure.set_size_inches(8, 3 * n_rows)
    for index, (metric, title) in enumerate(panels, 1):
        axes = figure.add_subplot(n_rows, 2, index)
        for x, (name, policy) in enumerate(zip(POLICIES, policies, strict=True)):
            if estimate := policy.get(metric):
                draw_points(axes, [x], [estimate], COLOURS[name])
        axes.set(title=title, xlim=(-0.5, 2.5), xticks=range(3), xticklabels=POLICIES)
        if metric != "reward":
            axes.set_ylim(-0.05, 1.05)
        if metric == "win_rate":
            axes.axhline(0.5, color=COLOURS["base"], linestyle=":")


def draw_points(
    axes: "Axes", xs: Sequence[int], rows: Sequence[Mapping[str, Any]], colour: str
) -> None:
    """Points with their 95 % intervals, joined by a line."""
    values = [row["value"] for row in rows]
    reach = [
        [abs(row["value"] - (row["value"] if row[end] is None else row[end])) for row in rows]
        for end in ("low", "high")
    ]
    axes.errorbar(xs, values, yerr=reach, fmt="o-", color=colour, capsize=5)
    axes.grid(axis="y", alpha=0.3)
