"""`convc check`: can this model be compiled? Import only; all problems at once."""

from __future__ import annotations

from collections import Counter

from convc.cli.model_options import AS_WRITTEN, ModelOptions, reads_model
from convc.cli.parameters import (
    JsonOption,
    ModelArgument,
    QuietOption,
    VerboseOption,
)
from convc.cli.render import Output, console, print_json

__all__ = ["check"]


@reads_model
def check(
    model: ModelArgument,
    reading: ModelOptions = AS_WRITTEN,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Import a model and list everything that convc does not take; exit 3 if there is anything."""
    from convc.ir.batch import shown

    output = Output(json, quiet, verbose)
    graph = reading.graph(model)
    ops = dict(Counter(node.op for node in graph.compute_nodes).most_common())
    if output.json:
        print_json(
            {
                "ok": True,
                "model": str(model),
                "graph": graph.name,
                "inputs": {n.name: shown(graph, n.name) for n in graph.inputs},
                "outputs": {o.name: shown(graph, o.value) for o in graph.outputs},
                "ops": ops,
            }
        )
    elif not output.quiet:
        inputs = ", ".join(f"{n.name}: {shown(graph, n.name)}" for n in graph.inputs)
        outputs = ", ".join(f"{o.name}: {shown(graph, o.value)}" for o in graph.outputs)
        console().print(
            f"{model} can be compiled: {sum(ops.values())} nodes, {len(ops)} ops\n  inputs   {inputs}\n  outputs  {outputs}\n"
            f"  ops      {', '.join(f'{n} x {op}' for op, n in ops.items())}",
            markup=False,
        )
