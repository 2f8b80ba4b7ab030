"""The forecast of a run, as lines."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cai.footprint import Footprint, Need
from cai.forecast import Forecast, StageForecast
from cai.view.terminal import duration, one_line

COLUMNS = ("stage", "kept", "calls", "tokens read", "generated", "trained", "time")


def planned_lines(forecast: Forecast) -> Iterator[str]:
    """What is kept, what is asked for anew and how long it takes, by stage."""
    kept = f"{forecast.n_kept:,} records kept of {forecast.base}, " if forecast.base else ""
    yield one_line(f"plan: {kept}{forecast.n_new:,} calls of a model")
    rows = [COLUMNS, *(stage_cells(stage) for stage in forecast.stages)]
    rows.append(total_cells(forecast))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    notes = ["", *("; ".join(stage.notes) for stage in forecast.stages), ""]
    for row, note in zip(rows, notes, strict=True):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(["", row[0].ljust(widths[0]), *cells[1:], note]).rstrip()
    yield from reservations(forecast)


def stage_cells(stage: StageForecast) -> Sequence[str]:
    if stage.done:
        return (stage.name, number(stage.n_kept), "done", *[""] * 4)
    tokens = stage.tokens
    return (
        stage.name,
        number(stage.n_kept),
        number(stage.n_new),
        number(tokens.prompt - tokens.cached, "~"),
        number(tokens.generated, sign([stage])),
        f"{stage.n_rows:,} rows" if stage.n_rows is not None else "",
        "unknown" if stage.seconds is None else about(stage.seconds),
    )


def total_cells(forecast: Forecast) -> Sequence[str]:
    tokens, time = forecast.tokens, about(forecast.seconds)
    if forecast.untimed:
        known = len(forecast.untimed) < len(forecast.stages)
        time = f"over {time.removeprefix('~')}" if known else "unknown"
    return (
        "in all",
        number(forecast.n_kept),
        number(forecast.n_new),
        number(tokens.prompt - tokens.cached, "~"),
        number(tokens.generated, sign(forecast.stages)),
        "",
        time,
    )


def sign(stages: Iterable[StageForecast]) -> str:
    return "≤ " if any(stage.at_limit for stage in stages) else "~"


def number(n: int, prefix: str = "") -> str:
    return f"{prefix}{n:,}" if n else ""


def about(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"~{duration(seconds)}"
    return f"~{minutes // 60} h {minutes % 60:02} m"


def reservations(forecast: Forecast) -> Iterator[str]:
    """What the numbers rest on."""
    if forecast.n_lengths:
        limited = ", ".join(stage.name for stage in forecast.stages if stage.at_limit)
        rest = f"; it has none for all of {limited}, which are taken at their limit, max_tokens"
        means = f"lengths: the means of {forecast.n_lengths:,} texts of the base run"
        yield means + (rest if limited else "")
    else:
        yield "lengths: every text is taken at its limit, max_tokens: this is the most there can be"
    unknown = f"; unknown: {', '.join(forecast.untimed)}: {forecast.lacks}"
    unknown = unknown if forecast.untimed else ""
    if forecast.pace:
        yield one_line(f"time: by {forecast.pace}{unknown}")
    else:
        yield "time: unknown; cai plan --measure measures it, --rate TOKENS/S takes it as given"


def footprint_lines(found: Footprint) -> Iterator[str]:
    """Disk and memory."""
    yield (
        f"disk: checkpoints up to {gib(found.checkpoint_bytes)}, records about "
        f"{gib(found.record_bytes)}; free: {gib(found.free_bytes)}"
    )
    for need in found.memory:
        yield f"memory: {need_line(need)}"


def need_line(need: Need) -> str:
    parts = ", ".join(f"{name} {gib(size)}" for name, size in need.parts.items() if size)
    return f"{need.what} up to {gib(need.n_bytes)} ({parts})"


def gib(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 / 10 else f"{n_bytes / 2**20:.1f} MiB"


def forecast_json(forecast: Forecast, found: Footprint) -> dict[str, Any]:
    """All of it as JSON values; seconds are none where unknown."""
    stages = [stage._asdict() | {"tokens": stage.tokens._asdict()} for stage in forecast.stages]
    return forecast._asdict() | {
        "stages": stages,
        "n_kept": forecast.n_kept,
        "n_new": forecast.n_new,
        "tokens": forecast.tokens._asdict(),
        "seconds": forecast.seconds,
        "untimed": forecast.untimed,
        "footprint": found._asdict() | {"memory": [need._asdict() for need in found.memory]},
    }
