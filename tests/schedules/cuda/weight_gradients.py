"""Weight gradients' CUDA kernels on the emulated device, compared with the float64 reference."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tvm
from tvm import te

from convc.ir import ConvSpec, GraphBuilder, TensorType
from convc.ir.ops.conv_weight_grad import ConvWeightGradAttributes, convolve_weight_grad
from convc.ir.types import numpy_dtype
from convc.schedules.cuda import compiler, nvcc
from convc.schedules.cuda.wgmma import ARCHITECTURE
from convc.schedules.error_bound import product_error, result_rounding
from convc.target import parse_target
from convc.tuning.subjects.subject import in_blocks, shaped
from tests.conv_grid import CONV_GRID
from tests.cuda_emulation.emulation import OWN_PASSES, Case, compile_and_run, run_cases
from tests.tolerance import assert_bounded, assert_exact

TARGET = parse_target("cuda -arch=sm_90")

# A sum in several parts, the last one shorter; tiles over both edges; groups whose channels are no whole tile.
LONG = ConvSpec.of((4, 5, 13, 12), (20, 5, 3, 3), strides=(1, 2), pads=(1, 0, 1, 2))
GROUPS = ConvSpec.of((2, 24, 12, 11), (40, 12, 3, 2), dilations=(2, 1), pads=(2, 0, 2, 1), group=2)
# As in a network: 64 results of a thread, a sum in parts of whole steps.
DEEP = ConvSpec.of((2, 64, 14, 14), (64, 64, 1, 1))
# One channel of the result, of the data; one tap of both; in padded tiles.
ONE = (
    ConvSpec.of((1, 4, 6, 6), (1, 4, 3, 3)),
    ConvSpec.of((1, 1, 6, 6), (8, 1, 1, 1)),
    ConvSpec.of((1, 1, 5), (1, 1, 1)),
)

# The grid in parts, each less than a minute of one core.
PARTS = 6
# A row of the backend's, a module; the forward convolution; knobs.
Trial = tuple[Any, ConvSpec, Mapping[str, int]]


def grid(dtype: str) -> list[ConvSpec]:
    """Return the grid's convolutions in the order of a hash, always the same."""
    specs = [replace(r.spec, dtype=dtype) for r in CONV_GRID if not r.spec.transposed]
    return sorted(specs, key=lambda s: hashlib.sha256(f"weight gradient {s.key}".encode()).digest())


def sample(types: Sequence[str], half: int) -> list[ConvSpec]:
    """Return one convolution of every other kind in the grid, the types by turns; both halves are all kinds."""
    kinds: dict[tuple, ConvSpec] = {}
    for s in grid("float32"):
        uneven = s.pads[: s.rank] != s.pads[s.rank :]
        kind = (s.rank, s.group > 1, max(s.dilations) > 1, max(s.strides) > 1, uneven)
        kinds.setdefault(kind, s)
    chosen = [s for _, s in sorted(kinds.items())][half::2]
    return [replace(s, dtype=types[i % len(types)]) for i, s in enumerate(chosen)]


def scheduled(row: Any, spec: ConvSpec, knobs: Mapping[str, int]):
    return row.schedule(te.create_prim_func(row.compute(spec, knobs)), knobs, TARGET)


def by_default(row: Any, specs: Sequence[ConvSpec]) -> list[Trial]:
    return [(row, s, row.knobs(s, TARGET)) for s in specs]


def _source(trials: Sequence[Trial]) -> str:
    functions = {
        f"k{i}": scheduled(*t).with_attr("global_symbol", f"k{i}") for i, t in enumerate(trials)
    }
    return compiler.source_of(compiler.build(tvm.IRModule(functions), TARGET))


def ptxas_words(trials: Sequence[Trial]) -> str:
    """Return what ptxas says of the kernels, built for 9.0 alone."""
    return nvcc.ptxas_words(_source(trials), ARCHITECTURE, ("-O3",))


def without_spills(row: Any, specs: Sequence[ConvSpec], sm: int) -> dict[str, nvcc.Resources]:
    """Return what nvcc says of a row's default kernels, none of which keeps anything in local memory."""
    found = resources(by_default(row, specs), sm)
    assert {k: r for k, r in found.items() if r.spill_bytes or r.stack_bytes} == {}
    return found


def resources(trials: Sequence[Trial], sm: int) -> dict[str, nvcc.Resources]:
    """Return what nvcc says of the kernels: two where sums lie in memory before they come to their places."""
    found = nvcc.resources(_source(trials), sm)
    assert len(found) == sum(2 if row.properties(s, k).workspace else 1 for row, s, k in trials)
    return found


def _laid_out(
    row: Any, spec: ConvSpec, knobs: Mapping[str, int], x: np.ndarray, dy: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return both operands as the row's kernel reads them."""
    blocks = row.operands(spec, knobs).data.block, row.gradient_layout(knobs).block
    shapes = [tuple(int(n) for n in t.shape) for t in row.compute(spec, knobs)]
    return tuple(
        shaped([in_blocks(a, b) for a, b in zip((x, dy), blocks, strict=True)], shapes[:2])
    )


def check(trials: Sequence[Trial], *, exact: bool) -> None:
    """Run the trials on the emulated device, in two orders that must agree bit for bit, and compare each result with the oracle."""
    operands = []
    for index, (_, spec, _) in enumerate(trials):
        rng = np.random.default_rng(index)
        pair = []
        for shape in (spec.data, spec.output):
            values = rng.integers(-4, 5, shape) if exact else rng.normal(size=shape)
            pair.append(values.astype(numpy_dtype(spec.dtype)))
        operands.append(pair)
    cases = [
        Case(scheduled(*t), _laid_out(*t, *pair)) for t, pair in zip(trials, operands, strict=True)
    ]
    outcomes = run_cases(cases, config=compiler.OPTIONS, build=OWN_PASSES)
    wrong = []
    for (row, spec, knobs), (x, dy), outcome in zip(trials, operands, outcomes, strict=True):
        if outcome.error:
            wrong.append(f"{row.NAME} {spec.key} {dict(knobs)}: {outcome.error[:600]}")
            continue
        wide_x, wide_dy = x.astype(np.float64), dy.astype(np.float64)
        expected = convolve_weight_grad(wide_x, wide_dy, spec)
        try:
            if exact:
                # Sums are exact in float32; a narrower result is rounded once.
                assert_exact(outcome.outputs[0], expected.astype(x.dtype).astype(np.float64))
            else:
                terms = -(-spec.data[0] * math.prod(spec.output[2:]) // knobs["split"])
                bound = product_error(row.NAME, terms, knobs) * convolve_weight_grad(np.abs(wide_x), np.abs(wide_dy), spec)  # fmt: skip
                rounding = result_rounding(spec.dtype) * np.abs(expected)
                assert_bounded(outcome.outputs[0], expected, bound + rounding)
        except AssertionError as error:
            wrong.append(f"{row.NAME} {spec.key} {dict(knobs)}: {error}")
    assert not wrong, "\n".join(wrong)


def check_compiled(spec: ConvSpec, algorithm: str) -> None:
    """Compile a graph of one float16 gradient by an algorithm, whose plain inputs are brought into blocks first, and run it."""
    half = replace(spec, dtype="float16")
    b = GraphBuilder("gradients")
    shapes = {"x": half.data, "dy": half.output}
    x, dy = (b.input(name, TensorType(shape, "float16")) for name, shape in shapes.items())
    attributes = ConvWeightGradAttributes(half.kernel, half.strides, half.pads, group=half.group)
    graph = b.finish({"dw": b.add("conv_weight_grad", [x, dy], attributes, "dw")})
    rng = np.random.default_rng(0)
    data = {name: rng.integers(-1, 2, shape).astype(np.float16) for name, shape in shapes.items()}
    outputs, _ = compile_and_run(graph, data, target="cuda -arch=sm_90", algo_for={"dw": algorithm})  # fmt: skip
    wide = (data[name].astype(np.float64) for name in shapes)
    assert_exact(outputs["dw"], convolve_weight_grad(*wide, half))
