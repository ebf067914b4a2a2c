"""`convc verify`: does a module compute what its model says?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convc.cli.exits import error_document, exit_code
from convc.cli.parameters import (
    DequantizeOption,
    JsonOption,
    ModelArgument,
    QuietOption,
    SeedOption,
    ShapeOption,
    ThreadsOption,
    ValuesOption,
    VerboseOption,
    existing_file,
)
from convc.cli.render import Column, Output, console, print_json, seconds, table
from convc.cli.run import ModuleArgument
from convc.cli.sources import model_file, module_file, open_graph, values_of
from convc.errors import AccuracyError

if TYPE_CHECKING:
    from rich.table import Table

    from convc.ir import Graph
    from convc.runtime import Module
    from convc.verify import VerifyReport

__all__ = ["verify"]


def verify(
    module: ModuleArgument,
    model: ModelArgument,
    tolerance: Annotated[float, typer.Option("--tolerance", min=0, help="Greatest max |error| / max |reference| that passes.")] = 1e-4,
    reference: Annotated[str, typer.Option("--reference", help="auto, float64 (NumPy in double precision) or onnxruntime.")] = "auto",
    n: Annotated[int, typer.Option("-n", min=1, help="How many random inputs.")] = 3,
    seed: SeedOption = 0,
    inputs: Annotated[Path | None, typer.Option("--inputs", metavar="IN.npz", help="These inputs instead of random ones.", show_default=False)] = None,
    save_failing: Annotated[Path | None, typer.Option("--save-failing", metavar="DIR", help="Where to write the inputs that fail.", show_default=False)] = None,
    shape: ShapeOption = None,
    values: ValuesOption = None,
    dequantize: DequantizeOption = False,
    threads: ThreadsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:  # fmt: skip
    """Compare a module's outputs with a reference's, for every CPU it has code for that this machine can run; exit 4 if they differ."""
    from convc.npz import load_npz
    from convc.runtime import load_each
    from convc.verify import verify_each

    output = Output(json, quiet, verbose)
    loaded = load_each(module_file(module), threads)
    reports = verify_each(
        loaded,
        _graph(model, shape, values, dequantize, next(iter(loaded.values()))),
        reference=reference,
        model_path=model,
        inputs=load_npz(existing_file(inputs, "--inputs")) if inputs is not None else None,
        n=n,
        seed=seed,
        tolerance=tolerance,
    )
    failed = next((r for r in reports.values() if not r.ok), None)
    saved = failed.save_failing(save_failing) if failed and save_failing is not None else None
    _answer(output, module, model, reports, saved)


def _graph(
    model: Path, shape: list[str] | None, values: Path | None, dequantize: bool, loaded: Module
) -> Graph:
    """Import the model; one with symbolic dimensions takes them from the module unless told otherwise."""
    if shape or model.suffix != ".onnx":
        return open_graph(model, shape, values, dequantize)
    from convc.source import load_graph

    return load_graph(
        model_file(model),
        shapes={t.name: t.shape for t in loaded.inputs},
        values=values_of(model, values),
        dequantize=dequantize,
    )


def _answer(
    output: Output, module: Path, model: Path, reports: dict[str, VerifyReport], saved: Path | None
) -> None:
    failure: AccuracyError | None = None
    for mcpu, report in reports.items():
        try:
            report.raise_if_failed()
        except AccuracyError as error:
            failure = error
            if len(reports) > 1:
                failure.add_note(f"That is the module's code for {mcpu}.")
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
