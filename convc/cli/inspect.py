"""`convc inspect`: what is in a model or in a compiled module. A module's code is not loaded."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convc.cli.manifest_view import show_manifest, show_memory
from convc.cli.model_options import AS_WRITTEN, ModelOptions, reads_model
from convc.cli.parameters import (
    ChecksumsOption,
    ExpectOption,
    JsonOption,
    QuietOption,
    VerboseOption,
)
from convc.cli.render import Column, Output, console, count, print_json, table
from convc.cli.sources import MODEL_SUFFIXES, module_file

if TYPE_CHECKING:
    from convc.ir import Graph

__all__ = ["inspect"]

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="A compiled module (.so) or a model (.onnx, .cvc).", show_default=False)
]  # fmt: skip


@reads_model
def inspect(
    file: FileArgument,
    layers: Annotated[bool, typer.Option("--layers", help="One row per layer.")] = False,
    text: Annotated[bool, typer.Option("--text", help="Print a model's text form.")] = False,
    memory: Annotated[bool, typer.Option("--memory", help="What a run of a module takes, part by part.")] = False,
    verify_checksums: ChecksumsOption = False,
    expect_sha256: ExpectOption = None,
    public_key: Annotated[Path | None, typer.Option("--public-key", metavar="KEY.pub", help="Refuse a module without a signature by this key (`convc sign`).", show_default=False)] = None,
    reading: ModelOptions = AS_WRITTEN,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:  # fmt: skip
    """Show what a model or a module is: inputs, outputs, layers, cost, target. No code of a module is loaded."""
    output = Output(json, quiet, verbose)
    if file.suffix in MODEL_SUFFIXES:
        if memory or verify_checksums or expect_sha256 or public_key:
            raise typer.BadParameter(
                f"--memory, --verify-checksums, --expect-sha256 and --public-key must be for a module; got '{file}'."
            )
        graph = reading.graph(file)
        if text:
            _print_text(graph, output)
        else:
            _show_graph(file, graph, layers, output)
        return
    if file.suffix != ".so":
        known = ", ".join((".so", *MODEL_SUFFIXES))
        raise typer.BadParameter(f"FILE must end in one of {known}; got '{file}'.")
    reading.refuse(file)
    if text:
        raise typer.BadParameter(f"--text must be for a model; got '{file}'.")
    from convc.runtime import read_manifest

    manifest = read_manifest(
        module_file(file), verify_checksums=verify_checksums, expect_sha256=expect_sha256
    )
    if public_key is not None:
        from convc.signature import check_signature

        check_signature(file, public_key)
    if memory:
        show_memory(file, manifest, output)
    else:
        show_manifest(file, manifest, layers, output)


def _print_text(graph: Graph, output: Output) -> None:
    from convc.ir.text import print_graph

    printed = print_graph(graph)
    if output.json:
        print_json({"graph": graph.name, "text": printed})
    else:
        sys.stdout.write(printed if printed.endswith("\n") else f"{printed}\n")


def _show_graph(file: Path, graph: Graph, layers: bool, output: Output) -> None:
    from convc.ir.batch import shown
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
        screen.print(f"  input   {node.name}: {shown(graph, node.name)}", markup=False)
    for out in graph.outputs:
        screen.print(f"  output  {out.name}: {shown(graph, out.value)}", markup=False)
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
