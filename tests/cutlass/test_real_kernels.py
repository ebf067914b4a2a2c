"""The real templates, where CUTLASS is installed: each tile compiled by nvcc, registers and spills read. Minutes each; nothing runs."""

from __future__ import annotations

import pytest

from convc.ir import ConvSpec
from convc.runtime.libraries.cutlass import NATIVE, Kernel, find_cutlass
from convc.schedules.algorithm import Problem, knob_space
from convc.schedules.cuda import nvcc
from convc.schedules.cuda.cutlass import ALGORITHM
from convc.schedules.cuda.cutlass_objects import OPTIONS
from convc.schedules.cuda.cutlass_tiles import kernel_of
from convc.target import parse_target

pytestmark = pytest.mark.slow


def every_kernel() -> list[Kernel]:
    """Return each tile of each template once; types and ranks by turns."""
    target = parse_target("cuda -arch=sm_90")
    large = ConvSpec.of((32, 512, 16, 16), (512, 512, 1, 1), dtype="float16")
    whole = [
        kernel_of((2, 3)[i % 2], ("float16", "bfloat16")[i // 2 % 2], k).with_bias(("", "float32")[i % 3 == 1])
        for i, k in enumerate(knob_space(ALGORITHM, Problem(large), target))
    ]  # fmt: skip
    small = ConvSpec.of((1, 2048, 7, 7), (512, 2048, 1, 1), dtype="float16")
    parts = {
        kernel_of(rank, dtype, k)
        for k in knob_space(ALGORITHM, Problem(small), target)
        for rank, dtype in ((2, "float16"), (3, "bfloat16"))
        if k["split"] > 1
    }
    return [*whole, *sorted(parts, key=lambda k: k.name)]


def test_there_is_one_of_each_tile():
    assert len(every_kernel()) == 14 + 4


@pytest.mark.parametrize("kernel", every_kernel(), ids=lambda k: k.name)
def test_a_kernel_compiles_and_spills_nothing(kernel):
    """Skipped where the optional headers or nvcc are not: all else of `cutlass` is tested with a double, which needs neither."""
    found = find_cutlass()
    if found is None:
        pytest.skip("needs the optional headers of CUTLASS: `pip install 'convc[cutlass]'`")
    if nvcc.find_nvcc() is None:
        pytest.skip("needs nvcc: `pip install nvidia-cuda-nvcc`")
    code = "80" if kernel.form == "ampere" else "90a"
    includes = [f"-I{folder}" for folder in (NATIVE, *found.folders)]
    words = nvcc.ptxas_words(kernel.source, code, ("-std=c++17", *OPTIONS, *includes))
    (took,) = nvcc.parse_resources(words).values()
    assert took.spill_bytes == took.stack_bytes == 0
    # ptxas says so where it waits after each wgmma, which costs most of the speed.
    assert "wgmma.mma_async instructions are serialized" not in words
