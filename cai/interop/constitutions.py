"""`cai import` and `cai export` of constitutions and exemplars in other projects' formats.

An import is a folder of our YAML files. They are what counts: an export writes what they say now,
in their order, and looks into `original/` only for the form of an entry that still says the same.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from cai.constitution import Principle, Text
from cai.errors import ConfigError
from cai.fresh import new_folder
from cai.interop.anthropic import ANTHROPIC
from cai.interop.datasets import check_new
from cai.interop.entries import (
    Entry,
    Format,
    Kind,
    Part,
    Sheet,
    Sourced,
    can_say,
    load_json,
    read_kind,
    restored,
)
from cai.interop.folder import FILES, ORIGINAL, About, Parts, documents, read_folder
from cai.interop.llm_swarm import LLM_SWARM
from cai.interop.salmon import SALMON
from cai.run import write_atomic, write_json

FORMATS: dict[str, Format] = {"anthropic": ANTHROPIC, "llm-swarm": LLM_SWARM, "salmon": SALMON}
ExportForm = Literal["anthropic", "llm-swarm"]
EXPORTS: tuple[ExportForm, ...] = get_args(ExportForm)
TEXTS: tuple[Text, ...] = get_args(Text)


class Told(NamedTuple):
    """What the user says of an import; none: the folder's name, and what the project says."""

    name: str | None = None
    source: str | None = None
    license: str | None = None


class ImportResult(NamedTuple):
    """What was written."""

    form: str
    files: tuple[Path, ...]
    counts: dict[str, int]
    """Entries by file name."""
    not_held: dict[str, int]
    """What the sources have and our files have no place for, with how often."""
    notes: tuple[str, ...]


class ExportedFiles(NamedTuple):
    """What was written."""

    files: tuple[Path, ...]
    counts: dict[str, int]
    """Entries by file name, or file name and key."""
    not_held: dict[str, int]
    """What our files have and the format has no place for, with how often."""


class Found(NamedTuple):
    """A source file, recognised."""

    path: Path
    form: str
    kind: Kind
    data: Any


def import_constitution(
    paths: Sequence[Path], out: Path, form: str | None = None, told: Told | None = None
) -> ImportResult:
    """Write the new folder `out` from files, or folders of files, of one project.

    Raises ConfigError for a file in no known format (or not in `form`) or with a mistake in it, for
    an `out` that is not empty, and where there is nothing to write; DiskFull.
    """
    check_new(out)
    told = told or Told()
    found = recognised(paths, form)
    parts, not_held = read_sources(found)
    project, names = FORMATS[found[0].form], ", ".join(file.path.name for file in found)
    if not any(parts.values()):
        raise ConfigError(f"{names}: nothing in it to import")
    about = About(
        name=told.name or out.resolve().name,
        description=f"Imported from {names}.",
        source=told.source or project.source,
        license=told.license or project.license,
    )
    texts = documents(parts, about)
    with new_folder(out) as scratch:
        (scratch / ORIGINAL).mkdir()
        for file in found:
            write_json(scratch / ORIGINAL / file.kind.file, file.data)
        for name, text in texts.items():
            write_atomic(scratch / name, text)
    files = tuple(out / name for name in texts)
    counts = {FILES[part]: len(entries) for part, entries in parts.items() if entries}
    notes = () if told.source and told.license else (origin_note(project),)
    return ImportResult(found[0].form, files, counts, not_held, notes)


def read_sources(found: Sequence[Found]) -> tuple[Parts, dict[str, int]]:
    """All entries, and how often there is what our model has no place for."""
    parts: dict[Part, list[Entry]] = {part: [] for part in FILES}
    not_held = Counter[str]()
    for file in found:
        sheets = read_kind(file.kind, file.data, str(file.path))
        for sheet, sourced in zip(file.kind.sheets, sheets, strict=True):
            parts[sheet.part] += [entry for entry, _ in sourced]
        not_held.update(file.kind.lost(file.data))
    return parts, {name: n for name, n in not_held.items() if n}


def origin_note(project: Format) -> str:
    return (
        f"source and license are written down as those of {project.source} ({project.license}); if "
        "the texts are somebody else's, say so with --source and --license"
    )


def recognised(paths: Sequence[Path], form: str | None) -> list[Found]:
    """The files in the order of their format's kinds: one project's, at most one of a kind."""
    if form is not None and form not in FORMATS:
        raise ConfigError(f"--format {form}: no such format; there are {', '.join(FORMATS)}")
    found = [recognise(path, form) for path in source_files(paths)]
    seen: dict[str, Found] = {}
    for file in found:
        other = seen.setdefault(file.kind.file, file)
        if file.form != found[0].form or other is not file:
            first = other if other is not file else found[0]
            raise ConfigError(
                f"{first.path} and {file.path}: two of one kind, or of two formats ({first.form}, "
                f"{file.form}); import them one by one"
            )
    return [seen[kind.file] for kind in FORMATS[found[0].form].kinds if kind.file in seen]


def source_files(paths: Sequence[Path]) -> list[Path]:
    """The files as given, and every JSON file of the folders."""
    files: list[Path] = []
    for path in paths:
        files += sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"{', '.join(map(str, paths))}: no *.json files to import")
    return files


def recognise(path: Path, form: str | None) -> Found:
    """What a file is: by its content, else by its name, else as the format forced."""
    data = load_json(path)
    names = [form] if form else [*FORMATS]
    kinds = [Found(path, name, kind, data) for name in names for kind in FORMATS[name].kinds]
    by_content = [found for found in kinds if found.kind.fits(data)]
    by_name = [found for found in kinds if found.kind.file == path.name]
    for found in (*by_content, *by_name, *(kinds if len(kinds) == 1 else ())):
        return found
    known = ", ".join(f"{found.kind.file} of {found.form}" for found in kinds)
    raise ConfigError(f"{path}: looks like none of the files that can be imported: {known}")


def is_constitution(path: Path) -> bool:
    """Whether `cai export` is given a constitution or a folder of one; else it is a run."""
    if path.is_dir():
        return any((path / name).is_file() for name in FILES.values())
    return path.suffix in (".yaml", ".yml")


def export_constitution(path: Path, form: str, out: Path) -> ExportedFiles:
    """Write a constitution and the exemplar files beside it to the new folder `out` as `form`.

    `path`: a constitution file, or a folder that `import_constitution` made. Raises ConfigError for
    a format that nothing is exported in, for an `out` that is not empty, and where the format has
    no place for anything; DiskFull.
    """
    if form not in EXPORTS:
        raise ConfigError(f"--format {form}: constitutions are exported as {', '.join(EXPORTS)}")
    check_new(out)
    parts, extra = read_folder(path)
    folder, kinds = path if path.is_dir() else path.parent, FORMATS[form].kinds
    contents = {kind.file: content(kind, parts, folder) for kind in kinds}
    written = {name: lists for name, lists in contents.items() if any(lists.values())}
    not_held = extra | lost(parts, [sheet for kind in kinds for sheet in kind.sheets])
    if not written:
        reasons = ", ".join(f"{n} × {name}" for name, n in not_held.items())
        raise ConfigError(f"{path}: {form} has no place for anything in it ({reasons})")
    with new_folder(out) as scratch:
        for name, lists in written.items():
            write_json(scratch / name, lists.get(None, lists))
    counts = {
        f"{name}: {key}" if key else name: len(entries)
        for name, lists in written.items()
        for key, entries in lists.items()
    }
    return ExportedFiles(tuple(out / name for name in written), counts, not_held)


def content(kind: Kind, parts: Parts, folder: Path) -> dict[str | None, Any]:
    """What a file is to hold, by key; by none where one sheet is the whole file."""
    path = folder / ORIGINAL / kind.file
    old = [list[Sourced]() for _ in kind.sheets]
    if path.is_file():
        old = read_kind(kind, load_json(path), str(path))
    return {
        sheet.under: restored(sheet, [e for e in parts[sheet.part] if takes(sheet, e)], sourced)
        for sheet, sourced in zip(kind.sheets, old, strict=True)
    }


def takes(sheet: Sheet, entry: Entry) -> bool:
    """Whether a sheet has a place for an entry of its part."""
    if isinstance(entry, Principle):
        return all(getattr(entry, text) for text in sheet.texts)
    return can_say(sheet, entry)


def lost(parts: Parts, sheets: Sequence[Sheet]) -> dict[str, int]:
    """What no sheet has a place for."""
    found = Counter[str]()
    for principle in parts["principles"]:
        assert isinstance(principle, Principle)
        written = {text for s in sheets if s.texts and takes(s, principle) for text in s.texts}
        keyed = any(s.keyed and takes(s, principle) for s in sheets)
        found["id"] += bool(written) and not keyed
        for text in TEXTS:
            if getattr(principle, text) and text not in written:
                partners = {p for s in sheets if text in s.texts for p in s.texts} - {text}
                found[f"{text}{' without ' if partners else ''}{''.join(partners)}"] += 1
    for part in FILES:
        own = [sheet for sheet in sheets if sheet.part == part]
        if part != "principles" and not own:
            found[f"{FILES[part]}: exemplars"] = len(parts[part])
        elif part != "principles":
            unsayable = sum(not takes(own[0], shot) for shot in parts[part])
            found[f"{FILES[part]}: exemplars whose turns the format cannot tell apart"] = unsayable
    return {name: n for name, n in found.items() if n}
