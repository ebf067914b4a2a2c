"""`convc verify`: does a module compute what its model says?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convc.cli.exits import error_document, exit_code
from convc.cli.model_options import AS_WRITTEN, ModelOptions, reads_model
from convc.cli.parameters import (
    JsonOption,
    ModelArgument,
    QuietOption,
    SeedOption,
    ThreadsOption,
    VerboseOption,
    existing_file,
)
from convc.cli.progress import StageProgress
from convc.cli.render import Column, Output, console, print_json, seconds, table
from convc.cli.run import ModuleArgument
from convc.cli.sources import model_file, module_file, values_of
from convc.errors import AccuracyError

if TYPE_CHECKING:
    from rich.table import Table

    from convc.ir import Graph
    from convc.runtime import Module
    from convc.runtime.manifest import Tensor
    from convc.verify import VerifyReport

__all__ = ["verify"]


@reads_model
def verify(
    module: ModuleArgument,
    model: ModelArgument,
    tolerance: Annotated[float | None, typer.Option("--tolerance", min=0, help="Greatest max |error| / max |reference| that passes; default: 1e-4, for half types four times what their rounding alone costs.", show_default=False)] = None,
    reference: Annotated[str, typer.Option("--reference", help="auto, float64 (NumPy in double precision) or onnxruntime.")] = "auto",
    n: Annotated[int, typer.Option("-n", min=1, help="How many random inputs.")] = 3,
    seed: SeedOption = 0,
    inputs: Annotated[Path | None, typer.Option("--inputs", metavar="IN.npz", help="These inputs instead of random ones.", show_default=False)] = None,
    save_failing: Annotated[Path | None, typer.Option("--save-failing", metavar="DIR", help="Where to write the inputs that fail.", show_default=False)] = None,
    per_layer: Annotated[bool, typer.Option("--per-layer", help="If it fails, find the first layer that goes wrong (each is compiled again and compared with float64), and save the inputs, beside the module unless --save-failing names a folder.")] = False,
    reading: ModelOptions = AS_WRITTEN,
    threads: ThreadsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:  # fmt: skip
    """Compare a module's outputs with a reference's, for every CPU it has code for that this machine can run; exit 4 if they differ."""
    from convc.npz import load_npz
    from convc.open_areas import between
    from convc.runtime import load_each
    from convc.verify import verify_areas, verify_each

    output = Output(json, quiet, verbose)
    loaded = load_each(module_file(module), threads)
    first = next(iter(loaded.values()))
    fed = load_npz(existing_file(inputs, "--inputs")) if inputs is not None else None
    if first.manifest.areas and fed is not None and not reading.shape:
        raise typer.BadParameter("--inputs must be with --shape for a module with an open height and width; got none.")  # fmt: skip
    words, saved = "", None
    with StageProgress(output) as progress:
        progress("import", 0, 1)
        graph = _graph(model, reading, first)
        options: dict[str, Any] = {
            "reference": reference,
            "model_path": model,
            "n": n,
            "seed": seed,
            "tolerance": tolerance,
            "dtype": _dtype(reading, first),
            "inputs": fed,
            "progress": progress,
        }
        sizes: tuple[Graph, ...] = (graph,)
        if first.manifest.areas:
            size = between(first.manifest.least, first.manifest.areas[0].size)
            sizes = sizes if reading.shape else (graph, _graph(model, reading, first, size))
            reports = verify_areas(loaded, sizes, **options)
        else:
            reports = verify_each(loaded, graph, **options)
        failed = next((r for r in reports.values() if not r.ok), None)
        if per_layer and save_failing is None:
            save_failing = module.with_name(f"{module.stem}-failing")
        if failed and save_failing is not None:
            saved = failed.save_failing(save_failing)
        if per_layer and failed is not None and failed.failing_inputs is not None:
            mcpu = next(key for key, report in reports.items() if report is failed)
            if first.manifest.areas:  # the graph of the size that failed
                shapes = {name: array.shape for name, array in failed.failing_inputs.items()}
                graph = next(g for g in sizes if all(n.type.shape == shapes[n.name] for n in g.inputs))  # fmt: skip
            words = _first_wrong(graph, loaded[mcpu], failed, mcpu, progress)
    _answer(output, module, model, reports, saved, words)


def _graph(
    model: Path, reading: ModelOptions, loaded: Module, size: tuple[int, int] | None = None
) -> Graph:
    """Import the model; one with symbolic dimensions takes them from the module unless told otherwise, or an open height and width."""
    if reading.shape or model.suffix != ".onnx":
        return reading.graph(model)
    from convc.source import load_graph

    return load_graph(
        model_file(model),
        shapes={
            t.name: _shape(t, size if t.name in loaded.manifest.open else None)
            for t in loaded.inputs
        },
        values=values_of(model, reading.values),
        dequantize=reading.dequantize,
    )


def _shape(tensor: Tensor, size: tuple[int, int] | None) -> tuple[int | str, ...]:
    if not tensor.shape:
        return ()
    leading = "N" if tensor.rows else tensor.shape[0]
    return (leading, *(tensor.shape[1:] if size is None else (tensor.shape[1], *size)))


def _dtype(reading: ModelOptions, module: Module) -> str | None:
    """Return the element type that the module was compiled for, as it says itself; another one asked for is refused."""
    made = module.manifest.options.get("dtype")
    if reading.dtype is not None and reading.dtype != made:
        raise typer.BadParameter(
            f"--dtype must be what the module was compiled with, {made or 'which is none'}; got {reading.dtype}."
        )
    return made


def _first_wrong(
    graph: Graph, module: Module, report: VerifyReport, mcpu: str, progress: StageProgress
) -> str:
    """Return which layer goes wrong first, in words."""
    from convc.first_wrong_layer import first_wrong_layer
    from convc.schedules.table import ALGORITHMS

    target = module.manifest.target
    if target.device:
        raise typer.BadParameter(
            f"--per-layer must be given for a module of a CPU; got one for {target.kind} ({', '.join(target.device)})."
        )

    names = {row.name for row in ALGORITHMS}
    steps = module.manifest.steps
    algorithms = {
        s.node: s.algorithm for s in steps if s.op.startswith("conv") and s.algorithm in names
    }
    assert report.failing_inputs is not None, "the report failed"
    wrong = first_wrong_layer(
        graph,
        report.failing_inputs,
        tolerance=report.tolerance,
        algorithms=algorithms,
        mcpu=mcpu,
        dtype=module.manifest.options.get("dtype"),
        progress=progress,
    )
    if wrong is None:
        return (
            "No layer goes wrong when it is compiled now: the module is of another model or version, "
            "or the error comes with fusing layers."
        )
    used = algorithms.get(wrong.node)
    before = (
        f"{wrong.before.max_relative_error:.3g} before it" if wrong.before else "it is the first"
    )
    return (
        f"The first layer that goes wrong is '{wrong.node}' ({wrong.op}{f', {used}' if used else ''}): "
        f"error {wrong.error.max_relative_error:.3g}, {before}."
    )


def _answer(
    output: Output,
    module: Path,
    model: Path,
    reports: dict[str, VerifyReport],
    saved: Path | None,
    layer: str = "",
) -> None:
    failure: AccuracyError | None = None
    for mcpu, report in reports.items():
        try:
            report.raise_if_failed()
        except AccuracyError as error:
            failure = error
            if len(reports) > 1:
                failure.add_note(f"That is the module's code for {mcpu}.")
            if layer:
                failure.add_note(layer)
            if saved is not None:
                failure.add_note(f"The inputs are in '{saved}'; try them with --inputs.")
            break
    # Everything but the errors is the same for all of them.
    report = next(iter(reports.values()))
    if output.json:
        print_json(
            {
                "ok": failure is None,
                "module": str(module),
                "model": str(model),
                "reference": report.reference,
                "tolerance": report.tolerance,
                "runs": report.runs,
                "seconds": report.seconds,
                "outputs": report.outputs,
                "variants": [{"mcpu": k, "ok": r.ok, "outputs": r.outputs} for k, r in reports.items()],
                "failing_inputs": str(saved) if saved else None,
                "first_wrong_layer": layer or None,
                **({"error": error_document(failure)} if failure else {}),
            }
        )  # fmt: skip
    elif not output.quiet:
        for mcpu, each in reports.items():
            which = f", code for {mcpu}" if len(reports) > 1 else ""
            title = f"{module}{which} against {each.reference}, {each.runs} runs, {seconds(each.seconds)}"
            console().print(_table(title, each))
        if failure is None:
            console().print(f"ok: within {report.tolerance:g}", markup=False)
    if failure is not None:
        if output.json:
            raise typer.Exit(exit_code(failure))
        raise failure


def _table(title: str, report: VerifyReport) -> Table:
    columns = (
        Column("output"),
        Column("max |error|", True),
        Column("/ max |reference|", True),
        Column("mismatches", True),
        Column("NaN", True),
        Column("infinite", True),
    )
    rows = [
        (o.name, f"{o.max_absolute_error:.3g}", f"{o.max_relative_error:.3g}", f"{o.mismatches} of {o.elements}", str(o.nan), str(o.infinite))
        for o in report.outputs
    ]  # fmt: skip
    return table(title, columns, rows)
