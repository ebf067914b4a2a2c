"""`convc tune`: measure settings of a model's layers on this machine and keep the answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convc.cli.exits import INTERRUPTED
from convc.cli.model_options import AS_WRITTEN, ModelOptions, reads_model
from convc.cli.parameters import (
    AreaOption,
    JsonOption,
    McpuOption,
    ModelArgument,
    QuietOption,
    TargetOption,
    ThreadsOption,
    VerboseOption,
    existing_file,
    parse_areas,
    parse_bytes,
    parse_duration,
)
from convc.cli.render import Column, Output, console, print_json, seconds, table
from convc.cli.sources import model_file
from convc.cli.tune_network import (
    FOR_NETWORK,
    TimedNetwork,
    network_document,
    show_network,
    time_networks,
)
from convc.cli.tune_view import TuneView, layer_documents, layer_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convc.target import Target
    from convc.tuning.session import Session
    from convc.tuning.tasks import Task

__all__ = ["tune"]


@reads_model
def tune(
    model: ModelArgument,
    time: Annotated[str, typer.Option("--time", metavar="3m", help="Time for the whole model, as in 90s or 10m; `none`: until nothing is left to try.")] = "3m",
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="Measurements for the whole model.", show_default=False)] = None,
    trials_per_layer: Annotated[int, typer.Option("--trials-per-layer", min=1, help="Measurements of one layer, earlier runs' counted.")] = 28,
    layers: Annotated[str, typer.Option("--layers", metavar="GLOB", help="Only layers whose name matches.")] = "*",
    algos: Annotated[str, typer.Option("--algos", metavar="+A,-B", help="Algorithms to try: `-fft` leaves one out, `direct,winograd` are the only ones.")] = "",
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Processes that build at the same time; measurements are always alone.", show_default=False)] = None,
    runner: Annotated[str, typer.Option("--runner", metavar="local|rpc://HOST:PORT/KEY", help="Where candidates run: here, or on a tracker's servers.")] = "local",
    max_error: Annotated[float | None, typer.Option("--max-error", min=0, help="Greatest |error| / greatest |result| that a winner may have; default 1e-5.", show_default=False)] = None,
    warm_start: Annotated[Path | None, typer.Option("--warm-start", metavar="LOG", help="Try the best settings of another log first.", show_default=False)] = None,
    log: Annotated[Path | None, typer.Option("--log", metavar="FILE.jsonl", help="Where to keep records; default: TARGET/DEVICE.jsonl in ./tuning_logs, or in the folder that CONVC_TUNING_LOGS names.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be measured first, measure nothing.")] = False,
    list_tasks: Annotated[bool, typer.Option("--list-tasks", help="List the distinct layers and what is known of them.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what the log has already.")] = False,
    warm: Annotated[bool, typer.Option("--warm/--cold", help="Time with the weights in cache, or (default) another copy every call, as in a network.")] = False,
    network: Annotated[bool, typer.Option("--network/--no-network", help="Then (default) time the best of every layer in its places in the network, for a third of the time; only what gains there is used. CPUs of this machine.")] = True,
    timeout: Annotated[str, typer.Option("--timeout", metavar="30s", help="For building, and for timing, one setting.")] = "30s",
    memory: Annotated[str, typer.Option("--memory", metavar="4G", help="Of one candidate's process.")] = "4G",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the data that candidates are checked with.")] = 0,
    reading: ModelOptions = AS_WRITTEN,
    area: AreaOption = None,
    target: TargetOption = "llvm",
    mcpu: McpuOption = "host",
    threads: ThreadsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:  # fmt: skip
    """Find the fastest setting of every layer on this machine; compile uses what is found. Stop and go on at any time."""
    from convc.compiler import reduced_graphs
    from convc.runtime.host import usable_threads
    from convc.schedules.policy import Policy
    from convc.schedules.weight_gradient_problem import is_weight_gradient
    from convc.target import parse_target
    from convc.tuning.calibration import calibration
    from convc.tuning.device import log_path
    from convc.tuning.knowledge import own_folder
    from convc.tuning.log import Log
    from convc.tuning.options import Options, default_jobs
    from convc.tuning.rpc import Address
    from convc.tuning.session import Session
    from convc.tuning.tasks import chain_tasks_of, distinct, tasks_of

    network = network and runner == "local" and not target.startswith("cuda")
    output = Output(json, quiet, verbose)
    source = model_file(model)
    if runner != "local":
        runner = str(Address.parse(runner))
    machine = parse_target(target, mcpu, threads or usable_threads())
    graphs = list(reduced_graphs(source, **reading.open_keywords(source), areas=parse_areas(area)).values())  # fmt: skip

    policy = Policy(max_error=max_error).with_algorithms(algos)
    gradients = any(is_weight_gradient(node) for graph in graphs for node in graph.nodes)
    policy.check(_algorithm_names(machine, gradients=gradients))
    tasks = distinct(
        task
        for graph in graphs
        for task in (*tasks_of(graph, layers), *chain_tasks_of(graph, machine, policy, layers))
    )
    path = log or log_path(own_folder(), machine)
    if list_tasks:
        _list_tasks(output, tasks, machine, path)
        return
    view = TuneView(output)
    options = Options(
        seconds=None if time == "none" else parse_duration(time),
        trials=trials,
        trials_per_layer=trials_per_layer,
        jobs=jobs or default_jobs(),
        runner=runner,
        policy=policy,
        warm_start=existing_file(warm_start, "--warm-start") if warm_start else None,
        fresh=fresh,
        seed=seed,
        mode="warm" if warm else "cold",
        timeout=parse_duration(timeout),
        memory_bytes=parse_bytes(memory),
        for_network=FOR_NETWORK if network else 0.0,
    )
    device = "" if runner == "local" else runner.rpartition("/")[2]
    session = Session(tasks, machine, Log(path), calibration(machine, view.note), options, device=device)  # fmt: skip
    for note in session.notes:
        output.warn(note)
    if dry_run:
        _dry_run(output, session)
        return
    interrupted, timed = False, []
    try:
        with view.watching(session):
            session.run(view.changed)
        timed = time_networks(output, session, graphs if network else ())
    except KeyboardInterrupt:
        interrupted = True
    _show(output, session, path, interrupted, timed)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _algorithm_names(machine: Target, *, gradients: bool) -> list[str]:
    from convc.schedules.backend import backend_of
    from convc.schedules.chain_kinds import chain_names

    backend = backend_of(machine)
    names = [*(row.name for row in backend.algorithms), *chain_names(backend)]
    return names + [
        row.NAME for row in backend.weight_gradients if gradients and row.NAME not in names
    ]


def _list_tasks(output: Output, tasks: tuple[Task, ...], machine: Target, path: Path) -> None:
    from convc.tuning.knowledge import knowledge

    known = knowledge(machine, [path]).records
    rows = []
    for task in tasks:
        best = known.get(task.subject.key, ())[:1]
        rows.append(
            {
                "layers": list(task.layers),
                "workload": task.subject.key,
                "flops": task.subject.flops,
                "best_seconds": best[0].seconds if best else None,
                "algorithm": best[0].algorithm if best else None,
            }
        )
    if output.json:
        print_json({"log": str(path), "tasks": rows})
        return
    columns = (Column("layer"), Column("workload"), Column("MFLOP", True), Column("best", True), Column("algorithm"))  # fmt: skip
    cells = [
        (t.name, t.subject.key, f"{t.subject.flops / 1e6:.1f}", seconds(r["best_seconds"]) if r["best_seconds"] else "no record", r["algorithm"] or "")
        for t, r in zip(tasks, rows, strict=True)
    ]  # fmt: skip
    console().print(table(f"{len(tasks)} distinct layers", columns, cells))


def _dry_run(output: Output, session: Session) -> None:
    rows = [
        {
            "layer": layer.task.name,
            "workload": layer.task.subject.key,
            "settings": len(layer.search.settings),
            "known": layer.search.measured,
            "first": [
                {"algorithm": s.algorithm, "knobs": dict(s.knobs), "estimate_seconds": s.seconds}
                for s in layer.search.next()
            ],
        }
        for layer in session.layers
    ]
    if output.json:
        print_json({"log": str(session.log.path), "layers": rows})
        return
    columns = (Column("layer"), Column("settings", True), Column("measured", True), Column("would try first"))  # fmt: skip
    cells = []
    for row in rows:
        names: dict[str, int] = {}
        for setting in row["first"]:
            names[setting["algorithm"]] = names.get(setting["algorithm"], 0) + 1
        first = ", ".join(f"{n} x {name}" for name, n in names.items()) or "nothing: done"
        cells.append((row["layer"], str(row["settings"]), str(row["known"]), first))
    console().print(table(None, columns, cells))


def _show(
    output: Output,
    session: Session,
    path: Path,
    interrupted: bool,
    timed: Sequence[TimedNetwork],
) -> None:
    if output.json:
        print_json(
            {
                "log": str(path),
                "device": session.device,
                "threads": session.target.cores,
                "seconds": session.spent,
                "trials": session.counts,
                "done": all(layer.done for layer in session.layers),
                "interrupted": interrupted,
                "layers": layer_documents(session),
                "networks": [network_document(row) for row in timed],
            }
        )
        return
    if output.quiet:
        return
    columns = (Column("layer"), Column("algorithm"), *(Column(c, True) for c in ("model's choice", "best", "gain", "of roofline", "trials")))  # fmt: skip
    screen = console()
    screen.print(table(None, columns, layer_rows(session)))
    counts = ", ".join(f"{n} {name}" for name, n in session.counts.items()) or "none"
    done = sum(layer.done for layer in session.layers)
    screen.print(
        f"{done} of {len(session.layers)} distinct layers done in {seconds(session.spent)}; trials: {counts}",
        markup=False,
    )
    for row in timed:
        show_network(row)
    if done < len(session.layers) or any(row.outcome is None for row in timed):
        screen.print("the same command goes on from here", markup=False)
    screen.print(f"records are in {path}", markup=False)
