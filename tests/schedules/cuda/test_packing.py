"""Weights known at run time on the emulated device: every packing against its algorithm's own, whole convolutions, a training step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import tvm
from tvm import te

from convc.explaining import explain
from convc.frontend import dsl as cc
from convc.frontend.dsl import grad
from convc.ir import ConvSpec, GraphBuilder, TensorType
from convc.ir.reference import interpret
from convc.ir.types import numpy_dtype
from convc.schedules import packing as run_time
from convc.schedules.algorithm import Problem
from convc.schedules.cuda import compiler, nvcc
from convc.schedules.cuda.backend import BACKEND
from convc.schedules.cuda.packings import PACKINGS
from convc.schedules.dual import dual_weight, posed
from convc.schedules.offers import estimated_seconds
from convc.schedules.plan import Knobs
from convc.schedules.properties import properties_of
from tests.conv_grid import CONV_GRID
from tests.cuda_emulation.emulation import Case, compile_and_run, run_cases
from tests.schedules.cuda.cuda_convolutions import TARGET
from tests.schedules.test_packing import asking_for
from tests.tolerance import INEXACT, assert_bounded, assert_exact, error_bound

# Those with a row of their own, tf32's is tensor_core's; cuDNN's calls are tested with its double (tests/cudnn).
NAMES = [
    n for n, row in PACKINGS.items() if row is not run_time.PLAIN and n not in ("tf32", "cudnn")
]

HALF = ("tensor_core_blocked", "tensor_core_folded", "depthwise_blocked", "cutlass")

# The gradients of depthwise layers' data.
DEPTHWISE = (
    ConvSpec.of((2, 6, 7, 5), (6, 1, 3, 2), pads=(1, 0, 1, 1), group=6, transposed=True),
    ConvSpec.of((1, 4, 9), (4, 2, 3), pads=(1, 1), dilations=(2,), group=4, transposed=True),
)


def taken(name: str, dtype: str) -> list[Problem]:
    """Return the grid's problems with weights of run time as an algorithm solves them, in an order that is always the same."""
    found = []
    for spec in (*DEPTHWISE, *(row.spec for row in CONV_GRID)):
        problem = Problem(replace(spec, dtype=dtype), constant_weight=False)
        answer = posed(problem, BACKEND.algorithm(name), TARGET)
        if isinstance(answer, Problem):
            found.append(answer)
    return sorted(found, key=lambda p: hashlib.sha256(f"packing {p.spec.key}".encode()).digest())


def plain_weight(problem: Problem, rng: np.random.Generator) -> np.ndarray:
    spec = problem.spec
    shape = spec.weight
    if problem.dual:
        shape = (spec.in_channels, spec.out_channels // spec.group, *spec.kernel)
    return rng.integers(-4, 5, shape).astype(numpy_dtype(spec.dtype))


def packing_case(name: str, problem: Problem, w: np.ndarray, knobs) -> Case | None:
    tensors = run_time.compute(name, problem, TARGET, knobs)
    if tensors is None:
        return None
    func = te.create_prim_func(tensors)
    return Case(BACKEND.schedules["packing"](func, knobs, TARGET), (w,))


def trials() -> Iterator[tuple[str, Problem]]:
    """Yield each algorithm with one problem of every kind that it takes: duals, phases, groups, ranks, what fills no tile."""
    for name in NAMES:
        dtype = "float16" if name in HALF else "float32"
        kinds: dict[tuple, Problem] = {}
        for p in taken(name, dtype):
            strided = p.spec.transposed and max(p.spec.strides) > 1
            kinds.setdefault((p.dual, strided, p.spec.group > 1), p)
            kinds.setdefault((p.spec.rank,), p)
        yield from ((name, p) for p in dict.fromkeys(kinds.values()))


def test_tf32_packs_as_the_accurate_products_do():
    assert PACKINGS["tf32"] == PACKINGS["tensor_core"]


def test_packing_at_run_time_equals_packing_at_compile_time():
    rng, cases, expected, labels = np.random.default_rng(0), [], [], []
    for name, problem in trials():
        algorithm = BACKEND.algorithm(name)
        knobs = algorithm.knobs(problem, TARGET)
        w = plain_weight(problem, rng)
        packed = algorithm.pack(dual_weight(w, problem.spec.group) if problem.dual else w, problem, knobs)  # fmt: skip
        case = packing_case(name, problem, w, knobs)
        assert PACKINGS[name].shape(problem, knobs) == (None if case is None else packed.shape)
        if case is None:
            assert name == "depthwise"
            np.testing.assert_array_equal(w, packed)
            continue
        cases.append(case)
        expected.append(packed)
        labels.append((name, problem))
    assert {name for name, _ in labels} == set(NAMES)
    assert {name for name, p in labels if p.dual} >= {"direct", "depthwise", "winograd"}  # fmt: skip
    for outcome, packed, label in zip(run_cases(cases, config=compiler.OPTIONS), expected, labels, strict=True):  # fmt: skip
        assert not outcome.error, (label, outcome.error)
        (found,) = outcome.outputs
        assert found.dtype == packed.dtype
        if label[0] in INEXACT:
            # Two rounded sums of up to 7 products each, or the few roundings of a transform, in float32.
            bound = 16 * np.finfo(np.float32).eps * np.abs(packed).max()
            assert np.abs(found - packed).max() <= bound, label
        else:
            np.testing.assert_array_equal(found, packed, str(label))


# Every kind of tile of `fft` with its transforms' lengths: rows and columns, lines, filters in parts, one tap a row, no power of two of
# filters beside each other, depthwise.
TRANSFORMS = (
    (ConvSpec.of((2, 5, 11, 9), (6, 5, 5, 3), pads=(1, 2, 0, 1)), 12, 8),
    (ConvSpec.of((1, 18, 40), (20, 18, 7), pads=(3, 3)), 1, 16),
    (ConvSpec.of((1, 2, 3, 90), (3, 2, 1, 70), pads=(0, 9, 0, 9)), 1, 64),
    (ConvSpec.of((1, 5, 40, 5), (6, 5, 7, 1), pads=(3, 0, 3, 0)), 16, 2),
    (ConvSpec.of((1, 3, 20, 33), (2, 3, 13, 13), pads=(6, 6, 6, 6)), 32, 20),
    (ConvSpec.of((2, 6, 17, 23), (6, 1, 5, 7), pads=(2, 3, 2, 3), group=6), 12, 16),
    (ConvSpec.of((1, 2, 9, 40), (2, 1, 3, 31), pads=(1, 15, 1, 15), group=2), 8, 48),
    (ConvSpec.of((1, 5, 9), (5, 6, 4), pads=(1, 2), transposed=True), 1, 8),
)  # fmt: skip


def transforms(specs) -> Iterator[tuple[Problem, Knobs]]:
    """Yield each convolution with the lengths beside it: dense, by three and by four products."""
    algorithm = BACKEND.algorithm("fft")
    for spec, t_h, t_w in specs:
        problem = posed(Problem(spec, constant_weight=False), algorithm, TARGET)
        assert isinstance(problem, Problem)
        fitting = [k for k in algorithm.space(problem, TARGET) if (k["t_h"], k["t_w"]) == (t_h, t_w)]  # fmt: skip
        yield from ((problem, k) for k in {k.get("products"): k for k in fitting}.values())


def test_filters_are_transformed_at_run_time_as_at_compile_time():
    rng, algorithm, cases, expected = np.random.default_rng(0), BACKEND.algorithm("fft"), [], []
    tried = list(transforms(TRANSFORMS))
    assert len(tried) == 2 * len(TRANSFORMS) - 2
    for problem, knobs in tried:
        w = rng.normal(size=plain_weight(problem, rng).shape).astype(np.float32)
        case = packing_case("fft", problem, w, knobs)
        assert case is not None
        cases.append(case)
        forward = dual_weight(w, problem.spec.group) if problem.dual else w
        expected.append(algorithm.pack(forward, problem, knobs))
    for outcome, packed, label in zip(run_cases(cases, config=compiler.OPTIONS), expected, tried, strict=True):  # fmt: skip
        assert not outcome.error, (label, outcome.error)
        # 0.4 to 0.9 eps.
        bound = 4 * np.finfo(np.float32).eps * np.abs(packed).max()
        assert np.abs(outcome.outputs[0] - packed).max() <= bound, label
        # Filters beyond the last one, and channels: nothing.
        assert not outcome.outputs[0][packed == 0].any()


def test_transforms_of_filters_are_counted():
    algorithm = BACKEND.algorithm("fft")
    for spec in (TRANSFORMS[0][0], TRANSFORMS[5][0]):
        constant = Problem(spec)
        late = replace(constant, constant_weight=False)
        knobs = algorithm.knobs(late, TARGET)
        more, less = (estimated_seconds(algorithm, p, TARGET, knobs) for p in (late, constant))
        assert more > less > 0
        tensors = run_time.compute("fft", late, TARGET, knobs)
        assert tensors is not None
        nbytes = 4 * np.prod([int(n) for n in tensors[1].shape])
        own, before = (properties_of(algorithm, p, TARGET, knobs).workspace for p in (late, constant))  # fmt: skip
        assert own >= nbytes
        assert own - before == (0 if spec.group == 1 else 4 * np.prod(spec.weight))
    # Where few tiles share a filter, its transform is chosen smaller.
    few = Problem(ConvSpec.of((1, 256, 56, 56), (256, 256, 11, 11), pads=(5, 5, 5, 5)))
    late, constant = (
        algorithm.knobs(replace(few, constant_weight=c), TARGET) for c in (False, True)
    )
    assert late["t_h"] < constant["t_h"]


# Of several tiles and images; a dual; phases; a depthwise layer's gradient; blocks of channels; transforms.
FEW = (
    ("direct", ConvSpec.of((2, 20, 7, 6), (24, 20, 3, 3), pads=(1, 1, 1, 1))),
    ("winograd", ConvSpec.of((2, 16, 6, 5), (16, 20, 3, 3), pads=(1, 1, 1, 1), transposed=True)),
    ("subpixel", ConvSpec.of((1, 24, 4, 4), (24, 16, 3, 3), strides=(2, 2), pads=(1, 1, 1, 1), output_padding=(1, 1), transposed=True)),
    ("depthwise", DEPTHWISE[0]),
    ("tensor_core_blocked", ConvSpec.of((2, 20, 7, 6), (24, 20, 3, 3), pads=(1, 1, 1, 1), dtype="float16")),
    ("fft", ConvSpec.of((2, 5, 9, 7), (6, 5, 5, 5), pads=(2, 2, 2, 2))),
)  # fmt: skip
# The same by others; one group of whole tiles; no dual where a kernel takes transposed layers; nothing to pack.
MORE = (
    ("tensor_core", FEW[0][1]),
    ("winograd", FEW[0][1]),
    ("direct", FEW[1][1]),
    ("tensor_core", FEW[2][1]),
    ("tensor_core", ConvSpec.of((1, 32, 6, 5), (32, 16, 3, 2), group=2)),
    ("depthwise", ConvSpec.of((2, 6, 7, 5), (6, 1, 3, 3), pads=(1, 1, 1, 1), group=6)),
    ("tensor_core_blocked", ConvSpec.of((1, 24, 4, 4), (24, 16, 2, 2), strides=(2, 2), transposed=True, dtype="float16")),
    ("depthwise_blocked", replace(DEPTHWISE[0], dtype="bfloat16")),
    ("fft", ConvSpec.of((2, 6, 7, 9), (6, 5, 3, 5), pads=(1, 2, 1, 2), transposed=True)),
    ("fft", ConvSpec.of((2, 6, 7, 9), (6, 1, 5, 5), pads=(2, 2, 2, 2), group=6)),
    ("fft", ConvSpec.of((1, 2, 90), (3, 2, 70), pads=(9, 9))),
)  # fmt: skip


@pytest.mark.parametrize("layers", [FEW, pytest.param(MORE, marks=pytest.mark.slow)], ids=["few", "more"])  # fmt: skip
def test_convolutions_with_weights_of_run_time(layers):
    """As whole modules: weights are inputs, a kernel packs them each run; exact, but for Winograd."""
    b, outputs, inputs, specs = GraphBuilder("runtime"), {}, {}, {}
    rng = np.random.default_rng(0)
    for i, (name, spec) in enumerate(layers):
        dtype = numpy_dtype(spec.dtype)
        x, w = (b.input(f"{n}{i}", TensorType(s, spec.dtype)) for n, s in (("x", spec.data), ("w", spec.weight)))  # fmt: skip
        for value, shape in ((x, spec.data), (w, spec.weight)):
            # So small that sums in half types are whole numbers, too.
            inputs[value] = rng.integers(-1, 2, shape).astype(dtype)
        node = f"{name}_{i}"
        outputs[node], specs[node] = asking_for(name, b, x, w, spec, node), (i, name, spec)
    graph = b.finish(outputs)
    actual, choices = compile_and_run(graph, inputs, target="cuda -arch=sm_90")
    expected = interpret(graph, inputs)
    assert {node: algorithm for node, (algorithm, _) in choices.items()} == {node: name for node, (_, name, _) in specs.items()}  # fmt: skip
    for node, (i, name, spec) in specs.items():
        if name not in INEXACT:
            assert_exact(actual[node], expected[node])
            continue
        algorithm = BACKEND.algorithm(name)
        problem = posed(Problem(spec, constant_weight=False), algorithm, TARGET)
        assert isinstance(problem, Problem)
        weight = dual_weight(inputs[f"w{i}"], spec.group) if problem.dual else inputs[f"w{i}"]
        knobs = algorithm.knobs(problem, TARGET)
        bound = error_bound(name, inputs[f"x{i}"], weight, problem.spec, knobs)
        assert_bounded(actual[node], expected[node], bound)


def test_a_training_step_packs_its_weights_and_says_so():
    """Forward, the data's gradients and the weights': none of the large layers is left to plain sums."""
    x = cc.input("x", (32, 64, 28, 28))
    shapes = {"w1": (64, 64, 3, 3), "w2": (128, 64, 3, 3), "w3": (128, 1, 3, 3)}
    p = {n: cc.parameter(n, s) for n, s in shapes.items()}
    h = cc.relu(cc.conv2d(x, p["w1"], pads=1))
    h = cc.relu(cc.conv2d(h, p["w2"], strides=2, pads=1))
    h = cc.conv2d(h, p["w3"], pads=1, group=128)
    gradients = grad(cc.mean(h * h), [x, *p.values()])
    graph = cc.graph({f"d{i}": g for i, g in enumerate(gradients)})
    reports = {r.node: r for r in explain(graph, target="cuda -arch=sm_90", threads=1)}
    taken = {n: next(c.algorithm for c in r.candidates if c.chosen) for n, r in reports.items() if r.op != "conv_weight_grad" and "-g128" not in r.key}  # fmt: skip
    assert len(taken) == 4
    assert set(taken.values()) <= {"winograd", "tensor_core", "direct", "subpixel"}
    constant = Problem(ConvSpec.of((32, 64, 28, 28), (64, 64, 3, 3), pads=(1, 1, 1, 1)))
    for problem, more in ((constant, False), (replace(constant, constant_weight=False), True)):
        row = BACKEND.algorithm("direct")
        knobs = row.knobs(problem, TARGET)
        seconds = estimated_seconds(row, problem, TARGET, knobs)
        assert (seconds > row.cycles(problem, TARGET, knobs) / TARGET.gpu.clock_hz) == more


needs_nvcc = pytest.mark.skipif(nvcc.find_nvcc() is None, reason="there is no nvcc")


@needs_nvcc
@pytest.mark.parametrize("sm", [80, pytest.param(90, marks=pytest.mark.slow)])
def test_packing_kernels_spill_nothing(sm):
    functions = {}
    # CUTLASS's whole modules are tested with its double (tests/cutlass).
    halves = ConvSpec.of((1, 20, 7, 6), (28, 20, 3, 3), dtype="float16")
    for i, (name, spec) in enumerate((*FEW, *MORE, ("cutlass", halves))):
        algorithm = BACKEND.algorithm(name)
        problem = posed(Problem(spec, constant_weight=False), algorithm, TARGET)
        assert isinstance(problem, Problem)
        knobs = algorithm.knobs(problem, TARGET)
        tensors = run_time.compute(name, problem, TARGET, knobs)
        if tensors is not None:
            func = BACKEND.schedules["packing"](te.create_prim_func(tensors), knobs, TARGET)
            functions[f"{name}{i}"] = func.with_attr("global_symbol", f"{name}{i}")
    spills_nothing(functions, sm)


def spills_nothing(functions: dict[str, tvm.tirx.PrimFunc], sm: int) -> None:
    source = compiler.source_of(compiler.build(tvm.IRModule(functions), TARGET))
    found = nvcc.resources(source, sm)
    assert len(found) == len(functions)
    assert {k: r for k, r in found.items() if r.spill_bytes or r.stack_bytes} == {}
    assert max(r.shared_bytes for r in found.values()) <= 48 << 10


def large(taps: int, t: int, group: int) -> tuple[ConvSpec, int, int]:
    spec = ConvSpec.of((1, 64, 80, 80), (64, 64 // group, taps, taps), pads=(taps // 2,) * 4, group=group)  # fmt: skip
    return spec, t, t


LONG = (
    *((large(taps, t, 1)) for taps, t in ((5, 16), (7, 20), (11, 32), (31, 40), (3, 48), (31, 64), (60, 64))),
    *((large(taps, t, 64)) for taps, t in ((7, 24), (31, 64), (60, 64))),
)  # fmt: skip


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("sm", [80, 90])
def test_no_transform_of_filters_spills(sm):
    functions = {}
    for i, (problem, knobs) in enumerate(transforms(LONG)):
        tensors = run_time.compute("fft", problem, TARGET, knobs)
        func = BACKEND.schedules["packing"](te.create_prim_func(tensors), knobs, TARGET)
        functions[f"f{i}"] = func.with_attr("global_symbol", f"f{i}")
    assert len(functions) == 17
    spills_nothing(functions, sm)
