"""The stages, in order: load -> passes -> select -> emit -> build. The only file that sees every layer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from convc.compiled_model import CompiledModel
from convc.errors import InputError
from convc.ir import text
from convc.ir.batch import per_sample, with_batch
from convc.ir.graph import Graph
from convc.ir.passes import PIPELINE, run_passes
from convc.ir.passes.convert_floats import convert_floats
from convc.lowering.build import Batch, build_variants
from convc.lowering.emit import emit
from convc.open_areas import Areas, areas_of, with_areas
from convc.open_areas import opened as open_areas
from convc.planning import Wishes, locked_sizes, plan_module
from convc.runtime.host import usable_threads
from convc.schedules.cudnn_use import CudnnUse
from convc.schedules.policy import Policy
from convc.schedules.quantized_use import quantized_notes
from convc.schedules.select import AUTO
from convc.source import Source, load_graph
from convc.target import Target, parse_targets
from convc.toolchain import check_toolchain
from convc.version import VERSION

__all__ = [
    "CompiledModel",
    "Progress",
    "compile",
    "load_graph",
    "reduced_graph",
    "reduced_graphs",
]

# One sample at a time, and enough of them to use a weight often; each size more is the whole model once more to compile.
BATCH_SIZES: Final = (8, 1)

Progress: TypeAlias = Callable[[str, int, int], None]


def _silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""


def compile(
    source: Source,
    *,
    target: str | Target = "llvm",
    mcpu: str = "host",
    mtriple: str | None = None,
    threads: int | None = None,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    values: Mapping[str, np.ndarray] | None = None,
    dequantize: bool = False,
    dtype: str | None = None,
    algo: str = AUTO,
    algo_for: Mapping[str, str] | None = None,
    policy: Policy | None = None,
    cudnn: CudnnUse = "auto",
    logs: Sequence[str | os.PathLike[str]] | None = None,
    require_tuned: bool = False,
    locked: str | os.PathLike[str] | None = None,
    batch_sizes: Sequence[int] | None = None,
    areas: Sequence[tuple[int, int]] | None = None,
    dump: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> CompiledModel:
    """Compile a model for one machine.

    Args:
        source: as `load_graph`.
        target: "llvm".
        mcpu: the CPU, "host" is this machine's; or several, joined by commas: the module has code for each, and the loader
            takes the best that its machine can run.
        mtriple: LLVM's triple of another kind of machine, "aarch64-linux-gnu". Default: this machine's.
        threads: how many threads to plan for; the module runs with any number. Default: the cores this process may use.
        shapes: as `load_graph`.
        values: as `load_graph`.
        dequantize: as `load_graph`.
        dtype: "fp64", "fp32", "fp16" or "bf16": the float type of weights and activations; sums, norms and functions stay in float32
            at least, inputs and outputs in the model's type. None: the model's. See `ir.passes.convert_floats`.
        algo: one algorithm for every convolution that it applies to; "auto" chooses per layer.
        algo_for: node name pattern -> algorithm that must be used there.
        policy: by what, and among which algorithms; see `Policy`.
        cudnn: on CUDA targets "off" nowhere, "prefer" wherever it applies, "require" for every convolution that no pin takes; "auto" where
            a tuned record, a pin or the policy asks for it.
        logs: tuning logs to choose by; None: this device's, in ./tuning_logs and among the shipped ones.
        require_tuned: refuse a layer without a tuned record.
        locked: a lock file whose plan is used as it is.
        batch_sizes: numbers of samples to make code for, where the model has a symbolic batch; a run of any number is split into
            these. Default: the lock file's, else 8 and 1.
        areas: largest heights and widths to make code for, where `shapes` leave them open, ("H=64..512"); a run of any size takes the
            smallest that holds it. Default: the largest, and one of half its height and width.
        dump: folder to write the graph into after each pass, as text.
        progress: called with (stage, done, total); behind a colon the stage "build" names what another compiler takes long for.

    Raises:
        FrontendError, ShapeError, DTypeError, TextError: if the model is not one that convc takes, or a weight is too large for `dtype`.
        ScheduleError: for an algorithm that does not exist or does not apply.
        TuningError: if a layer must have a record and has none (UntunedError), or the lock file does not fit.
        ToolchainError: if TVM is not the pinned one, or the CPU is unknown.
        InputError: for a use of cuDNN that the target has not, for batch sizes that are not positive, or given for a model of fixed shapes.

    Example:
        >>> from convc.ir.text import parse
        >>> graph = parse("graph @g { %x = input : f32[1,4]  %y = relu(%x) : f32[1,4]  return %y }")
        >>> compile(graph)(np.array([[-1, 2, -3, 4]], np.float32))
        array([[0., 2., 0., 4.]], dtype=float32)
    """
    check_toolchain()
    report = progress or _silent
    report("import", 0, 1)
    opened = _opened(source, shapes, values, dequantize, areas, report)
    graph = opened.sources[0] if opened else load_graph(source, shapes=shapes, values=values, dequantize=dequantize)  # fmt: skip
    machines = parse_targets(target, mcpu, threads or usable_threads(), mtriple=mtriple)
    if opened and (len(machines) > 1 or any(m.device is not None for m in machines)):
        raise InputError("an open height and width must be compiled for one CPU; got several targets, or a device.")  # fmt: skip
    report("passes", 0, 1)
    wishes = Wishes.of(algo, algo_for, policy, logs, require_tuned, locked, cudnn)
    batch = _batch(graph, locked_sizes(wishes) if batch_sizes is None else batch_sizes)
    sizes = batch.sizes if batch else (0,)
    fixed = [a.graph for a in opened.graphs] if opened else [with_batch(graph, n) for n in sizes]
    dumper = _dumper(dump)
    graphs = [convert_floats(run_passes(g, PIPELINE, dump=dumper), dtype) for g in fixed]
    report("choose", 0, 1)
    digest = _graph_hash(graph, dtype)
    parts = [(reduced, machine) for machine in machines for reduced in graphs]
    planned = list(plan_module(parts, wishes, digest, sizes))
    if not dequantize:
        # Each CPU once; sizes of one graph have the same layers.
        said = dict.fromkeys(
            note for g, m in parts[:: len(graphs)] for note in quantized_notes(g, m)
        )
        planned[0] = replace(planned[0], notes=(*planned[0].notes, *said))
    programs = [emit(reduced, p.plan, m) for p, (reduced, m) in zip(planned, parts, strict=True)]
    built = build_variants(
        [(program, m) for program, (_, m) in zip(programs, parts, strict=True)],
        batch=batch,
        graph_sha256=digest,
        options={**planned[0].options, **({} if dtype is None else {"dtype": dtype})},
        convc_version=VERSION,
        progress=lambda done, total, what: report(
            f"build: {what}" if what else "build", done, total
        ),
    )
    if opened:
        built = with_areas(built, programs, opened)
    sources = opened.sources if opened else (graph,)
    return CompiledModel(graph, graphs[0], planned[0].plan, planned[0], built, sources)


def _opened(
    source: Source,
    shapes: Mapping[str, Sequence[int | str]] | None,
    values: Mapping[str, np.ndarray] | None,
    dequantize: bool,
    areas: Sequence[tuple[int, int]] | None,
    progress: Progress = _silent,
) -> Areas | None:
    """Return the model for each area if its height and width are open, else None."""
    wanted = areas_of(shapes)
    if shapes is None or wanted is None:
        if areas:
            raise InputError(f"areas must be given for an open height and width; got {list(areas)} for shapes that are fixed. Open them: --shape NAME:1x3xH=64..512xW=64..512.")  # fmt: skip
        return None
    return open_areas(lambda fixed: load_graph(source, shapes=fixed, values=values, dequantize=dequantize, is_open=True), shapes, wanted, areas, progress)  # fmt: skip


def _batch(graph: Graph, wanted: Sequence[int] | None) -> Batch | None:
    """Return the sizes and ports of the graph's symbolic batch; None if its shapes are fixed."""
    if not graph.batch:
        if wanted:
            raise InputError(
                f"batch_sizes must be given for a model with a symbolic batch; got {tuple(wanted)} for '{graph.name}', "
                "whose shapes are fixed."
            )
        return None
    sizes = sorted({*map(int, BATCH_SIZES if wanted is None else wanted)}, reverse=True)
    if not sizes or sizes[-1] < 1:
        raise InputError(f"batch_sizes must be positive numbers; got {wanted}.")
    batched = per_sample(graph)
    return Batch(
        tuple(sizes),
        {n.name: n.type.shape[0] for n in graph.inputs if n.name in batched},
        {o.name: graph[o.value].type.shape[0] for o in graph.outputs},
    )


def reduced_graphs(
    source: Source,
    *,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    values: Mapping[str, np.ndarray] | None = None,
    dequantize: bool = False,
    dtype: str | None = None,
    areas: Sequence[tuple[int, int]] | None = None,
) -> dict[tuple[int, int] | None, Graph]:
    """Return the graphs that choosing and tuning see: imported, all passes run; a symbolic batch is the greatest usual size.

    One for each area, by its height and width, if those are open; else one, by None. Arguments as `compile`.
    """
    check_toolchain()
    opened = _opened(source, shapes, values, dequantize, areas)
    if opened:
        graphs = {a.graph[opened.inputs[0]].type.shape[2:]: a.graph for a in opened.graphs}
    else:
        graph = load_graph(source, shapes=shapes, values=values, dequantize=dequantize)
        graphs = {None: with_batch(graph, max(BATCH_SIZES))}
    return {k: convert_floats(run_passes(g, PIPELINE), dtype) for k, g in graphs.items()}  # type: ignore[misc]


def reduced_graph(source: Source, **options: Any) -> Graph:
    """Return the one graph of a model whose height and width are not open; arguments as `reduced_graphs`."""
    (graph,) = reduced_graphs(source, **options).values()
    return graph


def _dumper(folder: str | os.PathLike[str] | None) -> Callable[[str, Graph], None] | None:
    if folder is None:
        return None
    directory = Path(folder)
    directory.mkdir(parents=True, exist_ok=True)
    count = iter(range(1000))

    def write(name: str, graph: Graph) -> None:
        file = directory / f"{next(count):02d}_{name}.cvc"
        file.write_text(text.print_graph(graph))

    return write


def _graph_hash(graph: Graph, dtype: str | None) -> str:
    """Return a hash of structure, constants and the element type asked for: the same on every machine."""
    digest = hashlib.sha256((text.print_graph(graph) + (dtype or "")).encode())
    for node in graph.constants:
        value = node.value
        # A splat is hashed as its one element: a light model's splats would be hundreds of megabytes.
        flat = value.reshape(-1)[:1] if node.attributes.is_splat else np.ascontiguousarray(value)  # type: ignore[attr-defined]
        digest.update(flat.view(np.uint8).data)
    return digest.hexdigest()
