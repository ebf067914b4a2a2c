"""`convc bench`: how fast is a module, against the machine and against ONNX Runtime; where its time goes."""

from __future__ import annotations

import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convc.cli.layer_table import LayerTime, layer_rows, layer_table
from convc.cli.model_options import AS_WRITTEN, ModelOptions, reads_model
from convc.cli.parameters import (
    AlgoForOption,
    AlgoOption,
    ExpectOption,
    JsonOption,
    McpuOption,
    QuietOption,
    SeedOption,
    TargetOption,
    ThreadsOption,
    TraceOption,
    VerboseOption,
    parse_algo_for,
    parse_duration,
)
from convc.cli.progress import StageProgress
from convc.cli.render import Column, Output, console, print_json, seconds, table
from convc.cli.sources import MODEL_SUFFIXES, model_file, module_file

if TYPE_CHECKING:
    from convc.bench import BenchReport, Latency
    from convc.runtime import Module
    from convc.runtime.library_plans import Preparation

__all__ = ["bench"]


class Peer(StrEnum):
    """Who else can be timed."""

    ONNXRUNTIME = "onnxruntime"


class Order(StrEnum):
    """How a profile is sorted."""

    EXECUTION = "execution"
    TIME = "time"


@reads_model
def bench(
    file: Annotated[Path, typer.Argument(metavar="MODULE|MODEL", help="A compiled module (.so), or a model to compile first.", show_default=False)],
    warmup: Annotated[str, typer.Option("--warmup", metavar="TIME", help="Runs that do not count.")] = "1s",
    duration: Annotated[str, typer.Option("--duration", metavar="TIME", help="How long to measure.")] = "5s",
    iterations: Annotated[int | None, typer.Option("--iterations", min=1, help="How many runs, instead of --duration.", show_default=False)] = None,
    vs: Annotated[Peer | None, typer.Option("--vs", help="Time it too, in alternating blocks on the same inputs.", show_default=False)] = None,
    model: Annotated[Path | None, typer.Option("--model", metavar="MODEL.onnx", help="What --vs runs, if a module is timed.", show_default=False)] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Time every layer by itself.")] = False,
    sort: Annotated[Order, typer.Option("--sort", help="Order of the profile's rows.")] = Order.EXECUTION,
    trace: TraceOption = None,
    expect_sha256: ExpectOption = None,
    peak: Annotated[bool, typer.Option("--peak/--no-peak", help="Measure the machine's float32 peak.")] = True,
    reading: ModelOptions = AS_WRITTEN,
    target: TargetOption = "llvm",
    mcpu: McpuOption = "host",
    threads: ThreadsOption = None,
    algo: AlgoOption = "auto",
    algo_for: AlgoForOption = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:  # fmt: skip
    """Measure latency: median, p90, p99; GFLOP/s and percent of the machine's peak; layer by layer; against a peer."""
    from convc.bench import bench as bench_module
    from convc.inputs import random_inputs
    from convc.runtime.trace import write_trace

    output = Output(json, quiet, verbose)
    warmup_seconds, duration_seconds = parse_duration(warmup), parse_duration(duration)
    rival = _rival(file, model) if vs else None
    with (
        StageProgress(output, animate=False) as progress,
        tempfile.TemporaryDirectory(prefix="convc-") as folder,
    ):
        if file.suffix in MODEL_SUFFIXES:
            if expect_sha256:
                raise typer.BadParameter(f"--expect-sha256 must be for a module; got '{file}'.")
            from convc.compiler import compile as compile_model

            compiled = compile_model(
                model_file(file),
                target=target,
                mcpu=mcpu,
                threads=threads,
                **reading.compile_keywords(file),
                algo=algo,
                algo_for=parse_algo_for(algo_for),
                progress=progress,
            )
            module_path = compiled.export(Path(folder) / f"{file.stem}.so")
        else:
            reading.refuse(file)
            if algo_for or algo != "auto":
                raise typer.BadParameter(
                    f"--algo and --algo-for must be for a model; got '{file}'."
                )
            module_path = module_file(file)
        module, load_seconds = _load(module_path, threads, expect_sha256)
        fed = random_inputs(module.inputs, seed)
        report = bench_module(
            module,
            warmup_seconds=warmup_seconds,
            duration_seconds=duration_seconds,
            iterations=iterations,
            inputs=fed,
            flops=sum(step.flops for step in module.manifest.steps),
            with_peak=peak,
            vs=rival,
            progress=progress,
        )
        layers: tuple[LayerTime, ...] = ()
        if profile or trace:
            progress("profile", 0, 1)
            times = module.profile(fed)
            layers = layer_rows(times, report.peak) if profile else ()
            if trace:
                rate = report.peak.gflops_per_second if report.peak else None
                write_trace(trace, module.manifest, times, rate)
            progress("profile", 1, 1)
    if sort is Order.TIME:
        layers = tuple(sorted(layers, key=lambda row: -row.seconds))
    if output.json:
        print_json(_document(file, report, load_seconds, module.preparation, layers))
    else:
        _show(output, file, report, load_seconds, module.preparation, layers)


def _rival(file: Path, model: Path | None) -> Path:
    chosen = model or file
    if chosen.suffix != ".onnx":
        raise typer.BadParameter(f"--vs onnxruntime must have --model MODEL.onnx; got '{chosen}'.")
    return model_file(chosen)


def _load(path: Path, threads: int | None, expect_sha256: str | None) -> tuple[Module, float]:
    from convc.runtime import load

    began = time.perf_counter()
    module = load(path, threads=threads, expect_sha256=expect_sha256)
    return module, time.perf_counter() - began


def _document(
    file: Path,
    report: BenchReport,
    load_seconds: float,
    preparation: Preparation | None,
    layers: tuple[LayerTime, ...],
) -> dict[str, object]:
    peer = report.peer
    return {
        "file": str(file),
        "threads": report.threads,
        "latency_seconds": report.latency,
        "load_seconds": load_seconds,
        "preparation": preparation,
        "first_run_seconds": report.first_run_seconds,
        "flops": report.flops,
        "gflops_per_second": report.gflops_per_second,
        "peak_gflops_per_second": report.peak.gflops_per_second if report.peak else None,
        "percent_of_peak": report.percent_of_peak,
        "peer": {
            "name": peer.name,
            "version": peer.version,
            "latency_seconds": peer.latency,
            "first_run_seconds": peer.first_run_seconds,
            "ratio": peer.ratio,
        }
        if peer
        else None,
        "layers": layers,
        "warnings": report.warnings,
    }


def _show(
    output: Output,
    file: Path,
    report: BenchReport,
    load_seconds: float,
    preparation: Preparation | None,
    layers: tuple[LayerTime, ...],
) -> None:
    screen = console()
    if layers:
        screen.print(layer_table(layers, report.peak))
    columns = (Column(""), *(Column(c, True) for c in ("median", "p90", "p99", "min", "mean", "CV", "runs", "GFLOP/s", "% of peak")))  # fmt: skip
    rows = [_row("convc", report.latency, report)]
    if report.peer:
        rows.append(_row(f"{report.peer.name} {report.peer.version}", report.peer.latency, report))
    plural = "s" if report.threads > 1 else ""
    screen.print(table(f"{file}, {report.threads} thread{plural}", columns, rows))
    if report.peer:
        ratio = report.peer.ratio
        verdict = f"{1 / ratio:.2f} x faster" if ratio <= 1 else f"{ratio:.2f} x slower"
        screen.print(
            f"convc is {verdict} than {report.peer.name} (medians, same run)", markup=False
        )
    prepared = (
        f" (of these {seconds(preparation.seconds)} cuDNN's {len(preparation.plans)} plans and a run)"
        if preparation
        else ""
    )
    if report.peak and not output.quiet:
        screen.print(
            f"peak {report.peak.gflops_per_second:.0f} GFLOP/s, measured; load {seconds(load_seconds)}{prepared}, "
            f"first run {seconds(report.first_run_seconds)}",
            markup=False,
        )
    for warning in report.warnings:
        output.warn(warning)


def _row(name: str, latency: Latency, report: BenchReport) -> tuple[str, ...]:
    rate = report.flops / latency.median / 1e9
    percent = (
        f"{100 * rate / report.peak.gflops_per_second:.0f}" if report.peak and report.flops else ""
    )
    return (
        name,
        *(
            seconds(s)
            for s in (latency.median, latency.p90, latency.p99, latency.min, latency.mean)
        ),
        f"{100 * latency.cv:.1f} %",
        str(latency.iterations),
        f"{rate:.1f}" if report.flops else "",
        percent,
    )
