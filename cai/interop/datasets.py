"""`cai export`: a run's data as datasets that others can load.

The folder is made beside its place and moved there whole: a full disk leaves nothing half done.
"""

import importlib.util
import io
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pydantic import ValidationError

from cai.config import RunConfig
from cai.errors import ConfigError, MissingDependency
from cai.fresh import new_folder
from cai.interop.cards import NO_PREFERENCES, CardFile, dataset_card
from cai.interop.icai import annotated_pairs, annotated_pairs_table
from cai.interop.rows import hh_table, preference_table, prompts_table, sft_table, swarm_table
from cai.interop.tables import Row, RunData, Table
from cai.lines import json_line, read_whole_rows
from cai.records import derive_seed
from cai.run import write_atomic, write_json
from cai.view.transcripts import (
    Transcript,
    load_transcripts,
    read_object,
    stage_folder,
)

Form = Literal["trl", "hh-rlhf", "llm-swarm", "icai"]
FORMS: tuple[Form, ...] = get_args(Form)
Builder = Callable[[RunData], Table]
PARTS: dict[str, tuple[tuple[str, Builder], ...]] = {
    "trl": (("revise", sft_table), ("label", preference_table), ("revise", prompts_table)),
    "hh-rlhf": (("label", hh_table),),
    "llm-swarm": (("revise", swarm_table),),
    "icai": (("label", annotated_pairs_table),),
}
"""By format: its tables, each with the stage that it is made from."""


class ExportResult(NamedTuple):
    """What was written."""

    files: tuple[Path, ...]
    counts: dict[str, int]
    """Rows by file name, without its ending: `sft-train`, `train`, `train_prefs`."""
    left_out: dict[str, int]
    """Rows that were not written, by table and reason."""
    notes: tuple[str, ...]
    """What the card says of the rows, such as on how many pairs the judge's orders disagree."""


def export_run(run: Path, form: str, out: Path, parquet: bool | None = None) -> ExportResult:
    """Write a finished stage's data to the new folder `out`, with a dataset card.

    `parquet`: none means Parquet where pyarrow is installed, else JSONL; icai is always JSON.
    Raises ConfigError for an unknown format, a stage that is not done, an `out` that is not empty,
    and where nothing is left to write; MissingDependency for Parquet without pyarrow; DiskFull.
    """
    check_request(form, out, parquet)
    ending = "parquet" if parquet is not False and has_pyarrow() else "jsonl"
    data = read_run_data(run)
    tables = [build(data) for build in builders(data, form)]
    if not any(table.items for table in tables):
        reasons = "; ".join(f"{n} {reason}" for reason, n in left_out(tables).items())
        raise ConfigError(f"{run}: nothing to export as {form} ({reasons or 'no records'})")
    with new_folder(out) as scratch:
        files = write_tables(scratch, form, tables, ending, data)
        write_atomic(scratch / "README.md", dataset_card(form, data, tables, files))
    written = tuple(out / file.path for file in files)
    counts = {file.name: file.n_rows for file in files}
    notes = [note for table in tables for note in table.notes]
    notes += [NO_PREFERENCES] if len(tables) < len(PARTS[form]) else []
    return ExportResult((*written, out / "README.md"), counts, left_out(tables), tuple(notes))


def check_request(form: str, out: Path, parquet: bool | None) -> None:
    """Refuse what cannot be done before anything is read."""
    if form not in FORMS:
        raise ConfigError(f"--format {form}: no such format; there are {', '.join(FORMS)}")
    if parquet and form == "icai":
        raise ConfigError("--format icai is one JSON file; leave --parquet out")
    if parquet and not has_pyarrow():
        raise MissingDependency("Parquet needs pyarrow: pip install 'cai-toolkit[train]'")
    check_new(out)


def check_new(out: Path) -> None:
    """Refuse a place that holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: is there and is not empty; give a new folder with --out")


def has_pyarrow() -> bool:
    return importlib.util.find_spec("pyarrow") is not None


def builders(data: RunData, form: str) -> list[Builder]:
    """What makes the format's tables from the stages that are done. Raises ConfigError if none is:
    a run that stopped after its first stages still has a part of what TRL can use."""
    done = {stage["name"] for stage in data.manifest["stages"] if stage["status"] == "done"}
    usable = [build for stage, build in PARTS[form] if stage in done]
    if not usable:
        stage = PARTS[form][0][0]
        raise ConfigError(
            f"{data.run}: --format {form} is made from stage {stage}, which is not done; type: "
            f"cai run --config {data.run / 'config.json'} --out {data.run} --until {stage}"
        )
    return usable


def read_run_data(run: Path) -> RunData:
    """Everything that tables and card are made from. Raises ConfigError for a damaged run."""
    transcripts = load_transcripts(run)
    manifest = read_object(run / "manifest.json")
    if not {"stages", "models"} <= manifest.keys():
        raise ConfigError(f"{run}: no run of cai (no manifest.json with stages); see: cai runs")
    try:
        config = RunConfig.model_validate(read_object(run / "config.json"))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ConfigError(
            f"{run / 'config.json'}: {where}: {error.errors()[0]['msg']}; the run was made by cai "
            f"{manifest.get('cai')}, export it with that version"
        ) from error
    flags = reward_flags(run, transcripts)
    return RunData(
        run=run,
        config=config,
        manifest=manifest,
        constitution=read_object(run / "inputs" / "constitution.json"),
        transcripts=transcripts,
        heldout=heldout_groups(transcripts, flags, config),
        as_rewarded=bool(flags),
    )


def reward_flags(run: Path, transcripts: Iterable[Transcript]) -> dict[str, bool]:
    """Of each dialogue whose pairs the reward stage used: whether it held one of them out."""
    folder = stage_folder(run, "reward")
    # Of a reward model trained on ratings, the rows are ratings and the pairs lie beside them.
    name = "pairs.jsonl" if (folder / "pairs.jsonl").is_file() else "rows.jsonl"
    rows = read_whole_rows(folder / name)
    flags = {row["id"]: bool(row["heldout"]) for row in rows if {"id", "heldout"} <= row.keys()}
    found: dict[str, bool] = {}
    for transcript in transcripts:
        group = transcript.prompt.group
        for preference in transcript.preferences:
            if preference.id in flags:
                found[group] = found.get(group, False) or flags[preference.id]
    return found


def heldout_groups(
    transcripts: Sequence[Transcript], flags: dict[str, bool], config: RunConfig
) -> frozenset[str]:
    """The dialogues of the test splits, the same ones in every table of an export.

    As the reward stage held them out; of the others the same share, drawn in the same way."""
    decided, held = set(flags), {group for group, out in flags.items() if out}
    labelled = {t.prompt.group for t in transcripts if t.preferences}
    revised = {t.prompt.group for t in transcripts if t.response}
    for groups in (labelled, revised):
        left = groups - decided
        order = sorted(left, key=lambda group: derive_seed("held", config.seed, group))
        # Of a single dialogue, or a large share of few, one is left to train on.
        held |= set(
            order[: max(0, min(math.ceil(len(left) * config.reward.heldout), len(left) - 1))]
        )
        decided |= left
    return frozenset(held)


def left_out(tables: Iterable[Table]) -> dict[str, int]:
    """Rows left out, by table and reason; reasons that did not occur are not there."""
    return {
        f"{table.name}: {reason}": n
        for table in tables
        for reason, n in sorted(table.left_out.items())
        if n
    }


def write_tables(
    folder: Path, form: str, tables: Sequence[Table], ending: str, data: RunData
) -> list[CardFile]:
    """Write every split; returns what the card says of the files."""
    if form == "icai":
        return [write_icai(folder, tables[0], data)]
    files: list[CardFile] = []
    for table in tables:
        for split, rows in table.splits().items():
            name = split if table.name == "default" else f"{table.name}-{split}"
            path = f"data/{name}-00000-of-00001" if form == "llm-swarm" else name
            files.append(CardFile(table.name, split, name, f"{path}.{ending}", len(rows)))
            write_split(folder / files[-1].path, rows)
    return files


def write_icai(folder: Path, table: Table, data: RunData) -> CardFile:
    rows = [row for split in table.splits().values() for row in split]
    name = table.name
    write_json(folder / f"{name}.json", annotated_pairs(data, rows))
    return CardFile(name, "all", name, f"{name}.json", len(rows))


def write_split(path: Path, rows: Sequence[Row]) -> None:
    """A JSONL or Parquet file, by the path's ending."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".parquet":
        write_atomic(path, parquet_bytes(rows))
    else:
        write_atomic(path, b"".join(map(json_line, rows)))


def parquet_bytes(rows: Sequence[Row]) -> bytes:
    """The rows as a Parquet file. Column types are set: an empty list has no type of its own."""
    import pyarrow
    import pyarrow.parquet

    schema: Any = pyarrow.schema([(name, arrow_type(value)) for name, value in rows[0].items()])
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows), schema=schema), buffer)
    return buffer.getvalue()


def arrow_type(value: Any) -> Any:
    """The Arrow type of a column that holds values such as `value`."""
    import pyarrow

    if isinstance(value, float):
        return pyarrow.float64()
    if isinstance(value, str):
        return pyarrow.string()
    turn = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])
    return pyarrow.list_(turn if value and isinstance(value[0], dict) else pyarrow.string())
