"""RNN, GRU and LSTM, unrolled: the sequence's length is known, so every step is a dense layer and a few elementwise ops.

What the gates sum of the inputs is one product for all steps, which reads W once: a step alone would run at the speed of memory.

X: input, W: weights, R: recurrence, B: bias, H: hidden, C: cell; i o f c: the LSTM's gates in ONNX's order; z r h: the GRU's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from convc.errors import InvalidModelError
from convc.frontend.onnx.converter import Converter
from convc.frontend.onnx.operator_node import OperatorNode
from convc.frontend.onnx.operators.gather import take
from convc.frontend.onnx.refusal import Unsupported
from convc.ir.ops import Attributes
from convc.ir.ops.elementwise import (
    AlphaAttributes,
    ClipAttributes,
    HardSigmoidAttributes,
    LeakyAttributes,
)
from convc.ir.ops.shape import ConcatAttributes, ReshapeAttributes, TransposeAttributes

__all__ = ["ROWS"]

# ONNX's name -> (IR op, attributes from alpha and beta).
_ACTIVATIONS: Final[dict[str, tuple[str, Callable[[float | None, float | None], Attributes | None]]]] = {
    "sigmoid": ("sigmoid", lambda a, b: None),
    "tanh": ("tanh", lambda a, b: None),
    "relu": ("relu", lambda a, b: None),
    "softplus": ("softplus", lambda a, b: None),
    "elu": ("elu", lambda a, b: AlphaAttributes(1.0 if a is None else a)),
    "leakyrelu": ("leaky_relu", lambda a, b: LeakyAttributes(0.01 if a is None else a)),
    "hardsigmoid": ("hard_sigmoid", lambda a, b: HardSigmoidAttributes(0.2 if a is None else a, 0.5 if b is None else b)),
}  # fmt: skip
_DEFAULTS: Final = {
    "RNN": ("Tanh",),
    "GRU": ("Sigmoid", "Tanh"),
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
}
_GATES: Final = {"RNN": 1, "GRU": 3, "LSTM": 4}
# Unrolled steps times directions; each is some twenty ops.
_LIMIT: Final = 2000


@dataclass(frozen=True, slots=True)
class _Cell:
    """One direction's weights and functions."""

    node: OperatorNode
    hidden: int
    W: str
    R: str
    B: str | None
    P: str | None
    functions: tuple[Callable[[str], str], ...]
    clip: float | None

    @property
    def is_linear(self) -> bool:
        """Whether a GRU resets the recurrent sum, not the state."""
        return bool(self.node.attributes.flag("linear_before_reset", False))

    def gates(self, values: str, names: tuple[int, ...]) -> list[str]:
        """Return the parts (M, H) of (M, gates * H)."""
        return [
            take(self.node, values, np.arange(g * self.hidden, (g + 1) * self.hidden), 1)
            for g in names
        ]

    def activate(self, index: int, x: str) -> str:
        """Return a gate's function of a sum, which `clip` bounds first."""
        if self.clip is not None:
            x = self.node.step("clip", [x], ClipAttributes(-self.clip, self.clip))
        return self.functions[index](x)

    def add(self, *values: str) -> str:
        """Return the sum."""
        total, *rest = values
        for value in rest:
            total = self.node.step("add", [total, value])
        return total

    def mul(self, a: str, b: str) -> str:
        """Return the product."""
        return self.node.step("mul", [a, b])

    def part(self, values: str, index: int, count: int) -> str:
        """Return part `index` of a vector that holds `count` parts, as a row."""
        size = self.node.step_type(values).size // count
        cut = take(self.node, values, np.arange(index * size, (index + 1) * size), 0)
        return self.node.step("reshape", [cut], ReshapeAttributes((1, size)))


def _functions(node: OperatorNode, directions: int) -> list[tuple[Callable[[str], str], ...]]:
    a = node.attributes
    default = _DEFAULTS[node.op_type] * directions
    names: tuple[str, ...] = default
    if "activations" in a:
        names = a.texts("activations")
    alphas = list(a.reals("activation_alpha", ())) if "activation_alpha" in a else []
    betas = list(a.reals("activation_beta", ())) if "activation_beta" in a else []
    if len(names) != len(default):
        raise InvalidModelError(f"{node.op_type} must have {len(default)} activations; got {names}.")  # fmt: skip
    made = []
    for name in names:
        key = name.lower()
        if key not in _ACTIVATIONS:
            raise Unsupported(f"activation {name} (only {', '.join(_ACTIVATIONS)})")
        op, build = _ACTIVATIONS[key]
        takes = {"elu": 1, "leakyrelu": 1, "hardsigmoid": 2}.get(key, 0)
        alpha = alphas.pop(0) if takes and alphas else None
        beta = betas.pop(0) if takes > 1 and betas else None
        attributes = build(alpha, beta)
        made.append(lambda x, op=op, attributes=attributes: node.step(op, [x], attributes))
    each = len(default) // directions
    return [tuple(made[i * each : (i + 1) * each]) for i in range(directions)]


State = dict[str, str]


def _sums_of_inputs(cell: _Cell, X: str) -> str:
    """Return X W and every bias that only adds, (steps, batch, gates * H)."""
    node = cell.node
    columns = node.step("transpose", [cell.W], TransposeAttributes((1, 0)))
    sums = node.step("matmul", [X, columns])
    if cell.B is None:
        return sums
    recurrence = cell.part(cell.B, 1, 2)
    if cell.is_linear:  # h's is scaled by r
        none = node.literal(np.zeros((1, cell.hidden)), node.type().dtype, "none")
        zr = [cell.part(cell.B, 3, 6), cell.part(cell.B, 4, 6)]
        recurrence = node.step("concat", [*zr, none], ConcatAttributes(1))
    bias = cell.add(cell.part(cell.B, 0, 2), recurrence)
    return cell.add(sums, bias)


def _rnn_step(cell: _Cell, gates_x: str, state: State) -> State:
    total = cell.add(gates_x, cell.node.step("dense", [state["H"], cell.R]))
    return {"H": cell.activate(0, total)}


def _gru_step(cell: _Cell, gates_x: str, state: State) -> State:
    """Return z r h: H' = (1 - z) h + z H, with h of (r H) R or, with linear_before_reset, of r (H R + b)."""
    node, H, n = cell.node, state["H"], cell.hidden
    xz, xr, xh = cell.gates(gates_x, (0, 1, 2))
    if cell.is_linear:
        hz, hr, hh = cell.gates(node.step("dense", [H, cell.R]), (0, 1, 2))
        r = cell.activate(0, cell.add(xr, hr))
        inner = cell.mul(r, hh if cell.B is None else cell.add(hh, cell.part(cell.B, 5, 6)))
    else:
        Rzr, Rh = (take(node, cell.R, np.arange(*ends), 0) for ends in ((0, 2 * n), (2 * n, 3 * n)))
        hz, hr = cell.gates(node.step("dense", [H, Rzr]), (0, 1))
        r = cell.activate(0, cell.add(xr, hr))
        inner = node.step("dense", [cell.mul(r, H), Rh])
    z = cell.activate(0, cell.add(xz, hz))
    h = cell.activate(1, cell.add(xh, inner))
    one = node.literal(1.0, node.step_type(h).dtype, "one")
    return {"H": cell.add(cell.mul(node.step("sub", [one, z]), h), cell.mul(z, H))}


def _lstm_step(cell: _Cell, gates_x: str, state: State) -> State:
    """Return i o f c with peepholes P in the order i o f."""
    node, C = cell.node, state["C"]
    total = cell.add(gates_x, node.step("dense", [state["H"], cell.R]))
    i, o, f, c = cell.gates(total, (0, 1, 2, 3))
    peep = [cell.part(cell.P, k, 3) for k in range(3)] if cell.P is not None else []
    if peep:
        i, f = cell.add(i, cell.mul(peep[0], C)), cell.add(f, cell.mul(peep[2], C))
    i = cell.activate(0, i)
    if node.attributes.flag("input_forget", False):
        f = node.step("sub", [node.literal(1.0, node.step_type(i).dtype, "one"), i])
    else:
        f = cell.activate(0, f)
    new = cell.add(cell.mul(f, C), cell.mul(i, cell.activate(1, c)))
    if peep:
        o = cell.add(o, cell.mul(peep[1], new))
    H = cell.mul(cell.activate(0, o), cell.functions[2](new))
    return {"H": H, "C": new}


_STEPS: Final = {"RNN": _rnn_step, "GRU": _gru_step, "LSTM": _lstm_step}


def _flat(node: OperatorNode, operand: int, direction: int) -> str:
    """Return one direction's part of an operand (directions, ...), without that axis."""
    shape = node.type(operand).shape[1:]
    cut = take(node, node.value(operand), np.array([direction]), 0)
    return node.step("reshape", [cut], ReshapeAttributes(shape))


def recurrent(node: OperatorNode) -> tuple[str, ...]:
    """Write RNN, GRU or LSTM: Y, Y_h and (LSTM) Y_c."""
    a = node.attributes
    kind, dtype = node.op_type, node.type().dtype
    layout = a.integer("layout", 0)
    direction = a.text("direction", "forward", ("forward", "reverse", "bidirectional"))
    directions = 2 if direction == "bidirectional" else 1
    hidden = a.integer("hidden_size", node.type(2).shape[-1])
    clip = a.real("clip") if "clip" in a else None
    a.ignore(
        "linear_before_reset",
        "input_forget",
        "activation_alpha",
        "activation_beta",
        "output_sequence",
    )
    X = node.value(0)
    if layout:
        X = node.step("transpose", [X], TransposeAttributes((1, 0, 2)))
    steps, batch, size = node.step_type(X).shape
    if node.type(1).shape != (directions, _GATES[kind] * hidden, size):
        raise InvalidModelError(
            f"{kind} W must be {(directions, _GATES[kind] * hidden, size)}; got {node.type(1)}."
        )
    if steps * directions > _LIMIT:
        raise Unsupported(f"{steps} steps in {directions} directions (at most {_LIMIT} are unrolled)")  # fmt: skip
    functions = _functions(node, directions)
    outputs: list[list[str]] = [[""] * directions for _ in range(steps)]
    last: list[State] = []
    for d in range(directions):
        bias, peep = (_flat(node, i, d) if node.has(i) else None for i in (3, 7))
        W, R = _flat(node, 1, d), _flat(node, 2, d)
        cell = _Cell(node, hidden, W, R, bias, peep, functions[d], clip)
        state = {"H": _initial(node, 5, d, layout, (batch, hidden), dtype)}
        if kind == "LSTM":
            state["C"] = _initial(node, 6, d, layout, (batch, hidden), dtype)
        backwards = direction == "reverse" or d == 1
        sums = _sums_of_inputs(cell, X)
        row = ReshapeAttributes((batch, _GATES[kind] * hidden))
        for t in reversed(range(steps)) if backwards else range(steps):
            gates = node.step("reshape", [take(node, sums, np.array([t]), 0)], row)
            new = _STEPS[kind](cell, gates, state)
            state, outputs[t][d] = _masked(node, new, state, t, batch)
        last.append(state)
    return _results(node, outputs, last, layout, (batch, hidden))


def _initial(
    node: OperatorNode, operand: int, d: int, layout: int, shape: tuple[int, int], dtype: str
) -> str:
    if not node.has(operand):
        return node.literal(np.zeros(shape), dtype, "initial")
    value = node.value(operand)
    if layout:
        value = node.step("transpose", [value], TransposeAttributes((1, 0, 2)))
    return node.step("reshape", [take(node, value, np.array([d]), 0)], ReshapeAttributes(shape))


def _masked(node: OperatorNode, new: State, old: State, t: int, batch: int) -> tuple[State, str]:
    """Return the state and the output after step t: of a sequence that has ended the state stays and the output is 0."""
    if not node.has(4):
        return new, new["H"]
    if node.is_constant(4) and int(node.constant(4).min(initial=0)) > t:
        return new, new["H"]
    lengths = node.step(
        "reshape", [node.cast(node.value(4), "int32")], ReshapeAttributes((batch, 1))
    )
    alive = node.step("greater", [lengths, node.literal(t, "int32", "step")])
    kept = {k: node.step("where", [alive, new[k], old[k]]) for k in new}
    zero = node.literal(0.0, node.step_type(new["H"]).dtype, "zero")
    return kept, node.step("where", [alive, new["H"], zero])


def _stacked(node: OperatorNode, values: list[str], shape: tuple[int, ...]) -> str:
    parts = [node.step("reshape", [v], ReshapeAttributes((1, *shape))) for v in values]
    return node.step("concat", parts, ConcatAttributes(0))


def _results(
    node: OperatorNode,
    outputs: list[list[str]],
    last: list[State],
    layout: int,
    shape: tuple[int, int],
) -> tuple[str, ...]:
    directions = len(last)
    rows = [_stacked(node, row, shape) for row in outputs]
    Y = _stacked(node, rows, (directions, *shape))
    finals = [_stacked(node, [s[k] for s in last], shape) for k in last[0]]
    if layout:
        Y = node.step("transpose", [Y], TransposeAttributes((2, 0, 1, 3)))
        finals = [node.step("transpose", [v], TransposeAttributes((1, 0, 2))) for v in finals]
    return Y, *finals


NOTE: Final = "unrolled"

ROWS: Final = (
    Converter("RNN", (7, 14, 22), recurrent, NOTE),
    Converter("GRU", (7, 14, 22), recurrent, NOTE),
    Converter("LSTM", (7, 14, 22), recurrent, NOTE),
)
