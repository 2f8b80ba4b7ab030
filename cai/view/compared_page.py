"""The page of `cai compare --html`: one self-contained file, read from disk."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cai.compare import Comparison, PromptComparison, Side
from cai.compare_chains import Judgement, Step
from cai.compare_chains import Text as Generated
from cai.compare_deltas import Delta
from cai.compare_inputs import Words
from cai.records import Response
from cai.run import write_atomic
from cai.view.compared import PARTS, clear, enters, prompts_line, short, signed
from cai.view.compared_prompt import figure_rows, judged
from cai.view.page import as_json, assemble, asset, group, pack
from cai.view.page_chain import text_row
from cai.view.page_index import HEAD, shorten
from cai.view.terminal import measure
from cai.words import UNSPACED

STYLES = ("base.css", "page.css", "chain.css", "overview.css", "compare.css")
SCRIPTS = (
    "base.js",
    "settings.js",
    "text.js",
    "diff.js",
    "compare_list.js",
    "compare_chain.js",
    "compare.js",
)
Row = dict[str, Any]


def write_page(comparison: Comparison, path: Path) -> None:
    """Write the page. Raises DiskFull where it cannot be written."""
    groups = list(group(as_json(prompt_row(comparison, row)) for row in comparison.prompts))
    data = {
        "overview": overview(comparison),
        "principles": [principles(side) for side in (comparison.a, comparison.b)],
        "prompts": index(comparison),
        "chunks": [len(rows) for rows in groups],
        "parts": PARTS,
    }
    packed = {f"chunk-{n}": pack(f"[{','.join(rows)}]") for n, rows in enumerate(groups)}
    title = f"{comparison.a.folder} and {comparison.b.folder}"
    body = asset("compare.html", "settings.html")
    blocks = {"comparison": data, "unspaced": UNSPACED, **packed}
    page = assemble(title, asset(*STYLES), asset(*SCRIPTS), blocks, body)
    write_atomic(path, page.encode(errors="replace"))


def overview(comparison: Comparison) -> Row:
    """What differs between the runs as wholes."""
    inputs = comparison.inputs
    change = inputs.constitution
    changed = [p._asdict() | {"texts": [words(w) for w in p.texts]} for p in change.principles]
    return {
        "a": comparison.a.folder,
        "b": comparison.b.folder,
        "same": inputs.same,
        "constitution": change._asdict()
        | {
            "system_prompt": change.system_prompt and words(change.system_prompt),
            "principles": changed,
        },
        "settings": [[s.key, short(s.a), short(s.b), enters(s)] for s in inputs.settings],
        "models": inputs.models,
        "versions": inputs.versions,
        "files": [words(file) for file in inputs.files],
        "prompts": prompts_line(comparison),
        "parts": [part._asdict() for part in comparison.parts if part.n_prompts or part.alone],
        "deltas": [delta_row(row) for row in comparison.deltas],
        "most_changed": len(comparison.most_changed),
    }


def words(found: Words) -> Row:
    return {"name": found.name, "diff": found.diff}


def delta_row(row: Delta) -> Row:
    """The numbers as they are read; `bar` is the interval in units of `scale`, for a drawing."""
    form = (row.scale, row.digits)
    return {
        "part": row.part,
        "name": row.name,
        "a": row.a and measure(row.a.value, *form),
        "b": row.b and measure(row.b.value, *form),
        "delta": row.delta and signed(row.delta, *form),
        "clear": bool(row.delta and clear(row.delta)),
        "n": [row.a.n if row.a else 0, row.b.n if row.b else 0],
        "paired": row.paired,
        "n_changed": row.n_changed,
        "note": row.note,
    }


def principles(side: Side) -> Mapping[str, Row]:
    fields = {"critique", "revision", "preference"}
    return {id: principle.model_dump(include=fields) for id, principle in side.principles.items()}


def index(comparison: Comparison) -> Row:
    """What the list knows of each prompt, as columns; reasons are places in `reasons`."""
    reasons: dict[str, int] = {}
    compared = {(row.part, row.name) for row in comparison.deltas if row.delta}
    columns: Row = {
        name: [] for name in ("id", "head", "kind", "area", "change", "reward", "length", "parts")
    }
    for row in comparison.prompts:
        text = row.prompt.messages[-1].content
        values = {
            "id": row.prompt.id,
            "head": " ".join(text[: 4 * HEAD].split())[:HEAD],
            "kind": row.prompt.kind,
            "area": row.prompt.area,
            "change": shorten(row.change),
            "reward": gained(row, "mean reward", compared),
            "length": gained(row, "length, tokens", compared),
            "parts": [
                [t.part, t.differs, reasons.setdefault(t.reason, len(reasons))] for t in row.threads
            ],
        }
        for name, value in values.items():
            columns[name].append(value)
    return columns | {"reasons": list(reasons)}


def gained(row: PromptComparison, name: str, compared: set[tuple[str, str]]) -> float | None:
    """B's figure minus A's, of the last text that has one and that both runs measure alike."""
    found = [
        figure.b - figure.a
        for figure in row.figures
        if figure.name == name and (figure.part, name) in compared
        if figure.a is not None and figure.b is not None
    ]
    return shorten(found[-1]) if found else None


def prompt_row(comparison: Comparison, row: PromptComparison) -> Row:
    """Everything that both runs made of a prompt, in reading order."""
    sides = (comparison.a, comparison.b)
    return {
        "messages": [[message.role, message.content] for message in row.prompt.messages],
        "source": row.prompt.source,
        "threads": [
            {
                "part": thread.part,
                "differs": thread.differs,
                "why": row.whys.get(thread.part, ""),
                "items": [
                    step_row(item, sides) if isinstance(item, Step) else judgement_row(item)
                    for item in thread.items
                ],
            }
            for thread in row.threads
        ],
        "figures": list(figure_rows(row)),
    }


def step_row(step: Step, sides: Sequence[Side]) -> Row:
    """`b` is left out where it is A's very record."""
    a, b = (made(text, side) for text, side in zip((step.a, step.b), sides, strict=True))
    row: Row = {"name": step.name, "change": shorten(step.change), "a": a}
    return row if step.same_record and not step.differs else row | {"b": b}


def made(text: Generated | None, side: Side) -> Row | None:
    row = text_row(text, side.rewards)
    if row is None or text is None or isinstance(text, Response):
        return row
    return row | {"principle": text.principle_id, "asks": text.type}


def judgement_row(judgement: Judgement) -> Row:
    return {
        "pair": judgement.name,
        "a": judged(judgement.a, judgement.p_a),
        "b": judged(judgement.b, judgement.p_b),
    }
