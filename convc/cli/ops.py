"""`convc ops`: which ONNX operators are taken, and the IR's own ops."""

from __future__ import annotations

from convc.cli.parameters import JsonOption, QuietOption, VerboseOption
from convc.cli.render import Column, Output, console, print_json, table

__all__ = ["ops"]


def ops(
    json: JsonOption = False, quiet: QuietOption = False, verbose: VerboseOption = False
) -> None:
    """List the ONNX operators that convc imports, with their versions and limits, and the ops they become."""
    from convc.frontend.onnx.operators import supported_operators
    from convc.ir.ops import OPS

    output = Output(json, quiet, verbose)
    operators = supported_operators()
    if output.json:
        print_json(
            {
                "operators": [o._asdict() for o in operators],
                "ir_ops": [{"name": d.name, "operands": d.arity} for d in OPS.values()],
            }
        )
        return
    columns = (Column("operator"), Column("versions"), Column("note"))
    rows = [(f"{o.domain}::{o.op_type}", ", ".join(map(str, o.since)), o.note) for o in operators]
    screen = console()
    screen.print(table(f"{len(operators)} ONNX operators", columns, rows))
    screen.print(f"{len(OPS)} IR ops: {', '.join(sorted(OPS))}", markup=False)
