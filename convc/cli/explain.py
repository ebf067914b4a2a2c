"""`convc explain`: per layer every algorithm, with its reason for or against."""

from __future__ import annotations

import fnmatch
from typing import Annotated

import typer

from convc.cli.choice import (
    AlgosOption,
    CudnnOption,
    CudnnUse,
    DeterministicOption,
    FallbackOption,
    LogOption,
    MaxErrorOption,
    PolicyOption,
    PreferOption,
    RequireOption,
    WhenOption,
    WorkspaceOption,
    parse_policy,
)
from convc.cli.model_options import AS_WRITTEN, ModelOptions, reads_model
from convc.cli.parameters import (
    AlgoForOption,
    AlgoOption,
    AreaOption,
    JsonOption,
    McpuOption,
    ModelArgument,
    QuietOption,
    SmOption,
    TargetOption,
    ThreadsOption,
    VerboseOption,
    parse_algo_for,
    parse_areas,
    target_words,
)
from convc.cli.render import Column, Output, console, mebibytes, print_json, seconds, table
from convc.cli.sources import model_file

__all__ = ["explain"]


@reads_model
def explain(
    model: ModelArgument,
    layer: Annotated[
        str, typer.Option("--layer", metavar="GLOB", help="Only layers whose name matches.")
    ] = "*",
    reading: ModelOptions = AS_WRITTEN,
    area: AreaOption = None,
    target: TargetOption = "llvm",
    sm: SmOption = None,
    mcpu: McpuOption = "host",
    threads: ThreadsOption = None,
    algo: AlgoOption = "auto",
    algo_for: AlgoForOption = None,
    algos: AlgosOption = "",
    cudnn: CudnnOption = CudnnUse.AUTO,
    policy: PolicyOption = "time",
    when: WhenOption = "once",
    require: RequireOption = None,
    prefer: PreferOption = None,
    fallback: FallbackOption = True,
    deterministic: DeterministicOption = False,
    workspace_limit: WorkspaceOption = None,
    max_error: MaxErrorOption = None,
    log: LogOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show which algorithm each layer gets (*), what stands beside a library's call (+), and why not the others. Nothing is compiled."""
    from convc.errors import unknown_name
    from convc.explaining import explain as explain_model

    output = Output(json, quiet, verbose)
    reports = explain_model(
        model_file(model),
        target=target_words(target, sm, False, False),
        mcpu=mcpu,
        threads=threads,
        **reading.open_keywords(model),
        areas=parse_areas(area),
        algo=algo,
        algo_for=parse_algo_for(algo_for),
        policy=parse_policy(
            algos,
            policy,
            when,
            require,
            prefer,
            deterministic,
            workspace_limit,
            max_error,
            fallback=fallback,
        ),
        cudnn=cudnn.value,
        logs=log,
    )
    chosen = [r for r in reports if fnmatch.fnmatchcase(r.node, layer)]
    if not chosen and reports:
        raise unknown_name("layer", layer, [r.node for r in reports])
    if output.json:
        print_json({"model": str(model), "layers": chosen})
        return
    screen = console()
    columns = (Column(""), Column("algorithm"), *(Column(c, True) for c in ("estimate", "workspace", "error")), Column("reason"))  # fmt: skip
    for report in chosen:
        place = f"  for {report.area[0]} x {report.area[1]}" if report.area else ""
        screen.print(f"{report.node}  {report.op}  {report.key}{place}", markup=False, style="bold")
        rows = [
            (
                "*" if c.chosen else "+" if c.beside else "",
                c.algorithm,
                "" if c.estimate_seconds is None else seconds(c.estimate_seconds),
                ""
                if c.workspace_bytes is None
                else f"{'at most ' * c.workspace_at_most}{mebibytes(c.workspace_bytes)}",
                "" if c.error is None else f"{c.error:.1e}",
                c.reason,
            )
            for c in report.candidates
        ]
        screen.print(table(None, columns, rows))
    if any(c.beside for r in chosen for c in r.candidates):
        screen.print("+ stands beside the call marked * and runs in its place where a device's library refuses it, which is decided as the module is loaded.", markup=False)  # fmt: skip
    if not reports:
        screen.print(f"{model} has no layer with a choice of algorithms.", markup=False)
