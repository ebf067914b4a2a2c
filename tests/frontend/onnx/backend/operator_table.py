"""docs/ops.md: every operator with its versions, limits and counts of ONNX's backend suite. `python -m <this module>` writes it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx

from convc.frontend.onnx.narrow import NARROW
from convc.frontend.onnx.operators import supported_operators
from convc.ir.ops import OPS
from tests.frontend.onnx.backend.exclusions import EXCLUSIONS, excluded
from tests.frontend.onnx.backend.suite import KINDS, cases, out_of_scope

__all__ = ["DOCUMENT", "operator_table"]

DOCUMENT = Path(__file__).parents[4] / "docs" / "ops.md"

_HEAD = """# Operators

Written by `python -m tests.frontend.onnx.backend.operator_table`; a test compares it with the code (onnx {onnx}).

A version is the opset in which the operator last changed its meaning (`since_version`); opsets 1 to 6 are raised by onnx before
import. An operator without a row here is still taken where ONNX defines it by others (Attention, CenterCropPad, GroupNormalization ...).
`convc ops` prints the same; `convc check MODEL` lists everything in a model that is not taken, at once.

## ONNX's backend suite

Cases within scope: tensors of numbers, ai.onnx, inference. Every case counted as passed is compiled and run by
`pytest -m slow tests/frontend/onnx/backend`, within the case's own tolerance, or, as what is expected, within one rounding of its type of the exact result;
a sample runs with every `make test`, where each excluded case must fail, too. The last whole run, on 2026-11-26: 1907 passed, none failed, in
20 min 47 s on a shared core.

| kind | cases | in scope | pass | of the scope |
|---|---:|---:|---:|---:|
"""

_NARROW = """
Types of 8 bits and less travel in 8-bit integers, floats as their bits: {types}. Casts, QuantizeLinear, DequantizeLinear and operators
that only move elements take them.
"""

_OPERATORS = """
## ONNX operators

Cases are those whose model is one node of that operator.

| operator | versions | limits | cases passed |
|---|---|---|---:|
"""


def _single(name: str) -> str:
    """Return the operator of a case of one node, else ""."""
    nodes = cases()[name].model.graph.node
    domain = nodes[0].domain or "ai.onnx" if nodes else ""
    return f"{domain}::{nodes[0].op_type}" if len(nodes) == 1 else ""


def operator_table() -> str:
    """Return the document."""
    scope = [name for name, case in cases().items() if not out_of_scope(case)]
    lines = [_HEAD.format(onnx=onnx.__version__).rstrip()]
    for kind in KINDS:
        total = sum(case.kind == kind for case in cases().values())
        within = [n for n in scope if cases()[n].kind == kind]
        passed = sum(not excluded(n) for n in within)
        lines.append(
            f"| {kind} | {total} | {len(within)} | {passed} | {100 * passed / len(within):.1f} % |"
        )
    lines += ["", "Excluded:", ""]
    for pattern, reason in EXCLUSIONS:
        count = sum(excluded(n) == reason for n in scope)
        lines.append(f"- `{pattern}` ({count}): {reason}")
    lines.append(_NARROW.format(types=", ".join(NARROW)).rstrip())
    lines.append(_OPERATORS.rstrip())
    passed = Counter(_single(n) for n in scope if not excluded(n))
    every = Counter(_single(n) for n in scope)
    for row in supported_operators():
        name = f"{row.domain}::{row.op_type}"
        shown = row.op_type if row.domain == "ai.onnx" else name
        count = f"{passed[name]} of {every[name]}" if every[name] else ""
        lines.append(
            f"| {shown} | {', '.join(map(str, row.since))} | {row.note.replace('|', '/')} | {count} |"
        )
    names = ", ".join(f"`{name}`" for name in sorted(OPS))
    lines += ["", "## Ops of the IR", "", f"What they become: {names}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    DOCUMENT.write_text(operator_table(), encoding="utf-8")
