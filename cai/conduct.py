"""`cai run` from its options to its last line."""

from contextlib import suppress
from pathlib import Path

from cai.earlier import find_base
from cai.errors import CaiError, DiskFull
from cai.forecasting import forecast
from cai.lock import RunLock
from cai.manifest import Manifest
from cai.opening import make_run, open_run, run_folder
from cai.pipeline import STAGES, plan, run_stages
from cai.prepare import check_installed, prepare, resolve_models
from cai.resolve import Options
from cai.stages.context import RunContext
from cai.view.checked import checked_lines
from cai.view.page import write_page
from cai.view.planned import planned_lines
from cai.view.progress import RunProgress
from cai.view.report import write_report


def conduct(
    options: Options,
    out: str | None,
    until: str | None,
    base: str | None,
    progress: RunProgress | None = None,
) -> Path:
    """Check everything, open the run folder, run the stages, write the report."""
    progress = progress or RunProgress()
    stages = plan(until)
    prepared = prepare(options, stages)
    base_run = find_base(base) if base else None
    for line in checked_lines(prepared):
        progress.say(line)
    folder = run_folder(prepared, out)
    check_installed(prepared.config, stages)
    models = resolve_models(prepared.config)
    make_run(prepared, folder, models, stages)
    with RunLock(folder):
        context, manifest = open_run(prepared, folder, models, base_run)
        progress.say(f"run folder: {folder}")
        if base_run:
            for line in planned_lines(forecast(context, stages)):
                progress.say(line)
        n_run = finish(context, manifest, len(stages), progress)
    if not n_run:
        progress.say(f"{folder}: nothing to do, every stage is done")
    progress.say(f"read it: cai browse {folder}, or open {folder}/report.html (report.md: text)")
    return folder


def finish(context: RunContext, manifest: Manifest, n_stages: int, progress: RunProgress) -> int:
    """Run what is left of the first `n_stages`; returns how many stages were run. A run that breaks
    off has its reports too, unless the disk is full or a signal has come."""
    try:
        n_run = run_stages(context, STAGES[:n_stages], manifest, progress)
    except DiskFull:
        raise
    except CaiError:
        # what is wrong with the report is less than what has stopped the run
        with suppress(CaiError, OSError):
            report(context.run, manifest, "stopped")
        raise
    except (KeyboardInterrupt, SystemExit):
        # there is no time to write it
        progress.say(f"to read what there is, type: cai show {context.run} --html")
        raise
    complete = all((context.folder(stage.name) / "done.json").is_file() for stage in STAGES)
    status = "done" if complete else "stopped"
    if n_run or manifest.data["status"] != status or not has_reports(context.run):
        report(context.run, manifest, status)
    return n_run


def report(run: Path, manifest: Manifest, status: str) -> None:
    """The command is at its end: say so, and write what there is to read."""
    manifest.end(status)
    write_report(run)
    write_page(run)


def has_reports(run: Path) -> bool:
    """Whether the reports are there and were written after the manifest's last change."""
    reports = (run / "report.md", run / "report.html")
    then = (run / "manifest.json").stat().st_mtime_ns
    return all(path.is_file() and path.stat().st_mtime_ns >= then for path in reports)
