"""`convc log`: what tuning has found, and care of its files."""

from __future__ import annotations

import fnmatch
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from convc.cli.parameters import JsonOption, existing_file
from convc.cli.progress import StageProgress
from convc.cli.render import Column, Output, console, print_json, seconds, table

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Show, merge, prune, export and import tuning logs.")


class ExportForm(StrEnum):
    """What `convc log export` writes."""

    csv = "csv"
    metaschedule = "metaschedule"


LogsArgument = Annotated[Path, typer.Argument(metavar="[LOGS]", help="A log, or a folder of logs.")]
LogArgument = Annotated[Path, typer.Argument(metavar="LOG", help="A .jsonl log.", show_default=False)]  # fmt: skip
WorkloadOption = Annotated[str, typer.Option("--workload", metavar="GLOB", help="Only workloads whose key matches.")]  # fmt: skip


@app.command("ls")
def list_logs(logs: LogsArgument = Path("tuning_logs"), json: JsonOption = False) -> None:
    """List logs: device, workloads, records by outcome."""
    from convc.tuning.care import find_logs, summary

    rows = [summary(path) for path in find_logs(logs)]
    if json:
        print_json({"logs": rows})
        return
    columns = (Column("log"), Column("device"), Column("threads"), *(Column(c, True) for c in ("workloads", "records")), Column("outcomes"), Column("not usable"))  # fmt: skip
    cells = [
        (
            r.path,
            r.device,
            ", ".join(map(str, r.threads)),
            str(r.workloads),
            str(r.records),
            ", ".join(f"{n} {s}" for s, n in r.statuses.items()),
            f"{r.skipped} unreadable, {r.outdated} of other schedules" if r.skipped or r.outdated else "",
        )
        for r in rows
    ]  # fmt: skip
    console().print(table(None, columns, cells))


@app.command("show")
def show(
    log: LogArgument,
    workload: WorkloadOption = "*",
    status: Annotated[str, typer.Option("--status", help="Only records of this outcome: ok, wrong, crash, timeout ...")] = "",
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Show every record of a log."""
    from convc.tuning.log import read_log

    contents = read_log(existing_file(log, "LOG"))
    for note in contents.notes(log):
        Output(json=json).warn(note)
    rows = [
        r
        for r in contents.records
        if fnmatch.fnmatchcase(r.workload, workload) and status in ("", r.status)
    ]
    if json:
        print_json({"log": str(log), "records": rows})
        return
    columns = (Column("workload"), Column("algorithm"), Column("knobs"), Column("outcome"), Column("time", True), Column("error", True), Column(""))  # fmt: skip
    cells = [
        (
            r.workload,
            r.algorithm,
            _knobs(r.knobs),
            r.status,
            seconds(r.seconds) if r.seconds else "",
            f"{r.error:.1e}" if r.error >= 0 else "",
            r.message
            or (f"in {r.in_network.name}" if r.in_network else "final" if r.final else ""),
        )
        for r in rows
    ]
    console().print(table(f"{len(rows)} records", columns, cells))


@app.command("best")
def best(
    logs: LogsArgument = Path("tuning_logs"), workload: WorkloadOption = "*", json: JsonOption = False
) -> None:  # fmt: skip
    """Show the best setting of every workload."""
    from convc.tuning.care import best_of, find_logs
    from convc.tuning.log import read_log

    records = [r for path in find_logs(logs) for r in read_log(path).records]
    rows = [b for b in best_of(records) if fnmatch.fnmatchcase(b.workload, workload)]
    if json:
        print_json({"best": rows})
        return
    columns = (Column("workload"), Column("threads", True), Column("algorithm"), Column("knobs"), Column("time", True), Column("error", True), Column("trials", True), Column("timed in"))  # fmt: skip
    cells = [
        (b.workload, str(b.threads), b.algorithm, _knobs(b.knobs), seconds(b.seconds), f"{b.error:.1e}" if b.error >= 0 else "", str(b.trials), b.in_network)
        for b in rows
    ]  # fmt: skip
    console().print(table(f"{len(rows)} workloads", columns, cells))


@app.command("merge")
def merge(
    into: Annotated[Path, typer.Argument(metavar="INTO", help="The log to append to.", show_default=False)],
    logs: Annotated[list[Path], typer.Argument(metavar="LOG...", help="Logs of the same device.", show_default=False)],
) -> None:  # fmt: skip
    """Append what other logs of the same device have and this one has not."""
    from convc.tuning.care import merge as merge_logs

    added = merge_logs(into, [existing_file(path, "LOG") for path in logs])
    console().print(f"{added} records added to {into}", markup=False)


@app.command("prune")
def prune(
    log: LogArgument,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Settings of a workload to keep.")] = 5,
) -> None:  # fmt: skip
    """Drop what is not among the best, is of other schedules, or cannot be read; failures stay, so that nobody tries them again."""
    from convc.tuning.care import prune as prune_log

    before, after = prune_log(existing_file(log, "LOG"), keep=keep)
    console().print(f"{log}: {before} records before, {after} now", markup=False)


@app.command("export")
def export(
    logs: LogsArgument = Path("tuning_logs"),
    out: Annotated[Path, typer.Option("-o", "--output", metavar="PATH", help="A .csv file, or a folder for a database.")] = Path("best.csv"),
    form: Annotated[ExportForm | None, typer.Option("--format", help="`metaschedule`: TVM's JSON database; default: by the output's name.", show_default=False)] = None,
    workload: WorkloadOption = "*",
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Write the best settings for other programs: as a table, or as the JSON database of TVM's MetaSchedule."""
    from convc.tuning.care import best_of, find_logs, write_csv
    from convc.tuning.log import read_log

    if form is None and out.suffix not in (".csv", ""):
        raise typer.BadParameter(f"-o must end in .csv or be a folder; got '{out}'. --format says it, too.")  # fmt: skip
    form = form or (ExportForm.csv if out.suffix else ExportForm.metaschedule)
    records = [r for path in find_logs(logs) for r in read_log(path).records]
    rows = [b for b in best_of(records) if fnmatch.fnmatchcase(b.workload, workload)]
    if form == ExportForm.csv:
        write_csv(rows, out)
        passed, left_out = f"{len(rows)} settings", {}
        count = len(rows)
    else:
        from convc.tuning.metaschedule import export_database

        with StageProgress(Output(json=json)) as progress:
            done = export_database(rows, out, lambda n, of: progress("writing settings", n, of))
        passed, left_out, count = str(done), dict(done.left_out), done.records
    if json:
        print_json({"output": str(out), "format": form.value, "settings": count, "left_out": left_out})  # fmt: skip
        return
    console().print(f"{out}: {passed}", markup=False)


@app.command("import")
def import_(
    database: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with a JSON database of TVM's MetaSchedule.", show_default=False)],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="LOG", help="The .jsonl log to append to, for `convc tune --warm-start`.")] = Path("imported.jsonl"),
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Read our settings from a database of TVM's MetaSchedule, to try first; none is chosen before this machine has measured it."""
    from convc.tuning.care import append_new
    from convc.tuning.metaschedule import import_database

    records, passed = import_database(database)
    append_new(out, records)
    if json:
        print_json({"output": str(out), "settings": passed.records, "left_out": dict(passed.left_out)})  # fmt: skip
        return
    console().print(f"{out}: {passed}", markup=False)
    if records:
        console().print(f"measure them with `convc tune MODEL --warm-start {out}`", markup=False)


def _knobs(knobs: dict[str, int]) -> str:
    return " ".join(f"{name}={value}" for name, value in knobs.items())
