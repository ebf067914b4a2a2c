"""Dense layers' kernels on the emulated device."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import te

from convc.ir import Step
from convc.schedules.cuda import dense
from convc.target import parse_target
from tests.cuda_emulation.emulation import run

TARGET = parse_target("cuda -arch=sm_90")


@pytest.mark.parametrize(
    ("rows", "terms", "outputs"),
    # One warp and four for a sum, one row and eight that share a load, rows that no power of two divides.
    [(1, 96, 5), (1, 2048, 3), (8, 64, 5), (16, 2048, 2), (3, 100, 7)],
)
def test_dense_layers_are_exact_on_whole_numbers(rows, terms, outputs):
    epilogue = (Step("bias"), Step("relu"))
    knobs = dense.knobs((rows, terms), outputs, TARGET)
    tensors = dense.compute((rows, terms), outputs, "float32", epilogue, knobs)
    func = dense.schedule(te.create_prim_func(tensors), knobs, TARGET)
    rng = np.random.default_rng(rows + terms)
    x, w, b = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((rows, terms), (outputs, terms), (outputs,)))  # fmt: skip
    (y,) = run(func, x, w, b)
    np.testing.assert_array_equal(y, np.maximum(x @ w.T + b, 0))
