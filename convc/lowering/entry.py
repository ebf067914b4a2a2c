"""The entry function: one PrimFunc that calls every kernel in order, with windows into one arena.

Rewrite:
    program = [k1(x -> a), k2(a -> y)]
    -->
    main(weights, arena, x, y):
        call k1(x, arena + 0);  call k2(arena + 0, y)

    program = [library(x -> y), otherwise k(x -> y)]
    -->
    main(weights, arena, x, y):
        if call library(x, y) != 0:  call k(x, y)

    program = [k1, ..., k1000]
    -->
    main_0(weights, arena, x, y):  call k1 ... k128;  ...        main(weights, arena, x, y):  call main_0 ... main_7

Chosen over the Relax virtual machine by measurement (2 x Zen 4, tvm 0.27): 0.03 us a kernel call against 0.09, no copy of the
weights at load (Relax holds them twice), and one arena whose size is known before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812 (TVM's own name for it)

from convc.ir.types import Shape
from convc.lowering.program import Argument, Buffer, Call, Program
from convc.runtime.manifest import buffer_bytes

__all__ = ["ENTRY", "Offsets", "entry_functions", "offset_of"]

ENTRY = "main"

# Calls of one function: LLVM takes the longer for each the more there are. An LSTM of 800 steps, 4801 calls, took 189 s of a core
# in one function, 66 in parts; one of 50 steps 3 s.
_TOGETHER = 128


# Space ("weights" or "arena") -> buffer name -> bytes from the space's start.
Offsets: TypeAlias = Mapping[str, Mapping[str, int]]


def offset_of(buffer: Buffer, offsets: Offsets) -> int:
    """Return where a buffer begins in its space; inputs and outputs are spaces of their own."""
    return offsets[buffer.space][buffer.name] if buffer.space in offsets else 0


def entry_functions(
    program: Program,
    offsets: Offsets,
    weights_bytes: int,
    arena_bytes: int,
    prefix: str = "",
    kernels: str = "",
    *,
    whole: bool = False,
) -> dict[str, tirx.PrimFunc]:
    """Return `main(weights, arena, inputs..., outputs...)` and the parts that it calls, if it calls too much for one function; by symbol.

    Args:
        program: the calls.
        offsets: of the buffers in the weights and the arena.
        weights_bytes: size of the weights.
        arena_bytes: size of the arena.
        prefix: of these functions' symbols, so that the code of several programs fits into one library.
        kernels: of the kernels' symbols.
        whole: no parts.
    """
    name = prefix + ENTRY
    together = max(1, len(program.calls)) if whole else _TOGETHER
    groups = [program.calls[i : i + together] for i in range(0, len(program.calls), together)]

    def made(symbol: str, body: Callable[[_Memory], list[Any]]) -> tirx.PrimFunc:
        memory = _Memory(program, offsets, buffer_bytes(weights_bytes), buffer_bytes(arena_bytes))
        statements = body(memory) or [
            tirx.Evaluate(tirx.const(0, "int32"))
        ]  # all results are empty
        main = tirx.PrimFunc(memory.parameters, _in_order(statements), None, None)
        return main.with_attr("global_symbol", symbol).with_attr("tirx.noalias", True)

    def calls(group: Sequence[Call]) -> Callable[[_Memory], list[Any]]:
        return lambda memory: [memory.statement(call, kernels) for call in group]

    if len(groups) <= 1:
        return {name: made(name, calls(program.calls))}
    parts = {f"{name}_{i}": made(f"{name}_{i}", calls(group)) for i, group in enumerate(groups)}
    return {**parts, name: made(name, lambda memory: [memory.passed_on(part) for part in parts])}


class _Memory:
    """The parameters of one function, and windows into them."""

    def __init__(self, program: Program, offsets: Offsets, weights: int, arena: int) -> None:
        self.offsets = offsets
        self.weights, self.arena = _bytes("weights", weights), _bytes("arena", arena)
        self.inputs = [
            tirx.decl_buffer(shape, dtype, name=f"input{i}", data_alignment=64)
            for i, (_, shape, dtype) in enumerate(program.inputs)
        ]
        self.outputs = [
            tirx.decl_buffer(shape, dtype, name=f"output{i}", data_alignment=64)
            for i, (_, shape, dtype) in enumerate(program.outputs)
        ]

    @property
    def parameters(self) -> list[Any]:
        """All, in order."""
        return [self.weights, self.arena, *self.inputs, *self.outputs]

    def passed_on(self, symbol: str) -> Any:
        """Return a call of a function with the same parameters."""
        given = (_array(tirx.buffer_data(b), tuple(map(int, b.shape)), (), str(b.dtype)) for b in self.parameters)  # fmt: skip
        return tirx.Evaluate(T.call_cpacked(symbol, *given))

    def statement(self, call: Call, prefix: str) -> Any:
        """Return a call, and what is called where it refuses."""

        def called(call: Call) -> Any:
            return T.call_cpacked(prefix + call.kernel.symbol, *map(self._window, call.arguments))

        if not call.otherwise:
            return tirx.Evaluate(called(call))
        refused = called(call) != tirx.const(0, "int32")
        instead = _in_order([tirx.Evaluate(called(c)) for c in call.otherwise])
        return tirx.IfThenElse(refused, instead, None)

    def _window(self, argument: Argument) -> Any:
        view, buffer = argument.view, argument.buffer
        spaces = {"weights": self.weights, "arena": self.arena}
        ports = self.inputs if buffer.space == "input" else self.outputs
        memory = spaces[buffer.space] if buffer.space in spaces else ports[buffer.index]
        data = tirx.buffer_data(memory)
        offset = offset_of(buffer, self.offsets) + view.offset
        if offset:
            data = T.handle_add_byte_offset(data, offset)
        return _array(data, view.shape, () if view.is_compact else view.strides, view.dtype)


def _array(data: Any, shape: Shape, strides: Shape, dtype: str) -> Any:
    """Return a DLTensor on the stack; its address carries the offset, since kernels take none."""
    extents = T.tvm_stack_make_shape(*shape, dtype="handle")
    steps: Any = T.tvm_stack_make_shape(*strides, dtype="handle") if strides else 0
    return T.tvm_stack_make_array(data, extents, steps, len(shape), tirx.const(0, dtype), 0, dtype="handle")  # fmt: skip


def _in_order(statements: Sequence[Any]) -> Any:
    return tirx.SeqStmt(statements) if len(statements) != 1 else statements[0]


def _bytes(name: str, size: int) -> Any:
    return tirx.decl_buffer((size,), "uint8", name=name, data_alignment=64)
