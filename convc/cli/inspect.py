"""`convc inspect`: what is in a model or in a compiled module. A module's code is not loaded."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convc.cli.parameters import JsonOption, QuietOption, ShapeOption, VerboseOption
from convc.cli.render import Column, Output, console, count, mebibytes, print_json, table
from convc.cli.sources import MODEL_SUFFIXES, module_file, open_graph

if TYPE_CHECKING:
    from convc.ir import Graph
    from convc.runtime.manifest import Manifest

__all__ = ["inspect"]

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="A compiled module (.so) or a model (.onnx, .cvc).", show_default=False)
]  # fmt: skip


def inspect(
    file: FileArgument,
    layers: Annotated[bool, typer.Option("--layers", help="One row per layer.")] = False,
    text: Annotated[bool, typer.Option("--text", help="Print a model's text form.")] = False,
    shape: ShapeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show what a model or a module is: inputs, outputs, layers, cost, target. No code of a module is loaded."""
    output = Output(json, quiet, verbose)
    if file.suffix in MODEL_SUFFIXES:
        graph = open_graph(file, shape)
        if text:
            _print_text(graph, output)
        else:
            _show_graph(file, graph, layers, output)
        return
    if file.suffix != ".so":
        known = ", ".join((".so", *MODEL_SUFFIXES))
        raise typer.BadParameter(f"FILE must end in one of {known}; got '{file}'.")
    if text or shape:
        raise typer.BadParameter(f"--text and --shape must be for a model; got '{file}'.")
    from convc.runtime import read_manifest

    _show_manifest(file, read_manifest(module_file(file)), layers, output)


def _print_text(graph: Graph, output: Output) -> None:
    from convc.ir.text import print_graph

    printed = print_graph(graph)
    if output.json:
        print_json({"graph": graph.name, "text": printed})
    else:
        sys.stdout.write(printed if printed.endswith("\n") else f"{printed}\n")


def _show_graph(file: Path, graph: Graph, layers: bool, output: Output) -> None:
    from convc.ir.cost import flops, graph_flops, parameters

    nodes = graph.compute_nodes
    ops = dict(Counter(n.op for n in nodes).most_common())
    total, held = graph_flops(graph), parameters(graph)
    if output.json:
        document: dict[str, object] = {
            "kind": "model",
            "file": str(file),
            "graph": graph.name,
            "inputs": [{"name": n.name, "shape": n.type.shape, "dtype": n.type.dtype} for n in graph.inputs],
            "outputs": [
                {"name": o.name, "shape": graph[o.value].type.shape, "dtype": graph[o.value].type.dtype}
                for o in graph.outputs
            ],
            "ops": ops,
            "flops": total,
            "parameters": held,
        }  # fmt: skip
        if layers:
            document["layers"] = [
                {"name": n.name, "op": n.op, "shape": n.type.shape, "dtype": n.type.dtype, "flops": flops(graph, n), "parameters": parameters(graph, n)}
                for n in nodes
            ]  # fmt: skip
        print_json(document)
        return
    screen = console()
    screen.print(
        f"{file}: graph {graph.name}, {len(nodes)} nodes, {count(total)}FLOP, {count(held)} parameters",
        markup=False,
    )
    for node in graph.inputs:
        screen.print(f"  input   {node.name}: {node.type}", markup=False)
    for out in graph.outputs:
        screen.print(f"  output  {out.name}: {graph[out.value].type}", markup=False)
    if layers:
        columns = (
            Column("layer"),
            Column("op"),
            Column("result"),
            Column("FLOP", True),
            Column("parameters", True),
        )
        rows = [
            (n.name, n.op, str(n.type), count(flops(graph, n)), count(parameters(graph, n)))
            for n in nodes
        ]
        screen.print(table(None, columns, rows))
    else:
        columns = (Column("op"), Column("nodes", True), Column("FLOP", True))
        by_op = {op: sum(flops(graph, n) for n in nodes if n.op == op) for op in ops}
        screen.print(
            table(None, columns, [(op, str(n), count(by_op[op])) for op, n in ops.items()])
        )


def _show_manifest(file: Path, manifest: Manifest, layers: bool, output: Output) -> None:
    total = sum(step.flops for step in manifest.steps)
    algorithms = dict(Counter(s.algorithm for s in manifest.steps if s.algorithm).most_common())
    if output.json:
        import msgspec

        document = msgspec.to_builtins(manifest)
        if not layers:
            document["steps"] = len(manifest.steps)
        print_json(
            {
                "kind": "module",
                "file": str(file),
                "flops": total,
                "algorithms": algorithms,
                **document,
            }
        )
        return
    screen = console()
    target = manifest.target
    rows = (
        ("module", f"{manifest.name} ({file}, {mebibytes(file.stat().st_size)})"),
        ("target", f"{target.kind} {target.mcpu}, {target.triple}; needs {', '.join(target.features) or 'nothing special'}"),
        ("made by", f"convc {manifest.convc}, apache-tvm {manifest.tvm}, apache-tvm-ffi {manifest.tvm_ffi}"),
        *(("input", f"{t.name}: {t.dtype} {'x'.join(map(str, t.shape))}") for t in manifest.inputs),
        *(("output", f"{t.name}: {t.dtype} {'x'.join(map(str, t.shape))}") for t in manifest.outputs),
        ("steps", f"{len(manifest.steps)}: {', '.join(f'{n} x {a}' for a, n in algorithms.items())}"),
        ("cost", f"{count(total)}FLOP a run"),
        ("memory", f"weights {mebibytes(manifest.weights_bytes)}, arena {mebibytes(manifest.arena_bytes)}"),
        ("threads", f"planned for {manifest.threads}"),
        *(("option", f"{name} = {value}") for name, value in manifest.options.items()),
        ("graph", f"sha256 {manifest.graph_sha256}"),
        ("weights", f"sha256 {manifest.weights_sha256}"),
    )  # fmt: skip
    for name, value in rows:
        screen.print(f"{name:<8} {value}", markup=False)
    if layers:
        columns = (
            Column("step"),
            Column("op"),
            Column("algorithm"),
            Column("FLOP", True),
            Column("knobs"),
            Column("reason"),
        )
        screen.print(
            table(
                None,
                columns,
                [
                    (s.node, s.op, s.algorithm, count(s.flops), " ".join(f"{k}={v}" for k, v in s.knobs.items()), s.reason)
                    for s in manifest.steps
                ],
            )
        )  # fmt: skip
