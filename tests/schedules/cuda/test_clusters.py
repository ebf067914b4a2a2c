"""Parts of sums that meet in the shared memory of a cluster: right in every kind, taken by records alone, early as others are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import tvm

from convc.ir import ConvSpec, Step
from convc.schedules.algorithm import Problem
from convc.schedules.cuda import compiler, nvcc
from convc.schedules.cuda.backend import BACKEND
from convc.schedules.cuda.cluster import ClusterSum
from convc.schedules.offers import offers_of
from convc.schedules.policy import Policy
from convc.schedules.tuned import Measurement
from convc.target import parse_target
from tests.cuda_emulation.emulation import EmulationError, conv_results, launch
from tests.cuda_emulation.test_engine import ALL_ORDERS, kernel
from tests.schedules.conv_module import Case
from tests.schedules.cuda.cuda_convolutions import TARGET, Trial, check, scheduled, wgmma_resources
from tests.tolerance import assert_exact

ALGORITHM = BACKEND.algorithm("tensor_core_blocked")
EPILOGUE = (Step("bias"), Step("add"), Step("relu"))
# Of ResNet-50 at batch 32, in whose like maps sums are long and tiles few.
SMALL_MAP = ConvSpec.of((32, 2048, 7, 7), (512, 2048, 1, 1), dtype="float16")

needs_nvcc = pytest.mark.skipif(nvcc.find_nvcc() is None, reason="there is no nvcc")


def settings(spec: ConvSpec, **asked: int) -> list[dict[str, int]]:
    """Return the settings that have the asked-for knobs; `cluster` 0: none."""
    space = ALGORITHM.space(Problem(spec), TARGET)
    return [dict(k) for k in space if all(k.get(name, 0) == value for name, value in asked.items())]


def setting(spec: ConvSpec, **asked: int) -> dict[str, int]:
    return settings(spec, **asked)[0]


# ---- the function itself ------------------------------------------------------------------------------------------

THREADS = 128


def adding(made: ClusterSum) -> str:
    """Return a kernel of one cluster whose threads hold `made.sums` numbers and return their block's share of all."""
    own = made.sums // made.blocks
    body = f"""extern __shared__ float4 room[];
    const int t = blockIdx.z * {THREADS} + threadIdx.x;
    float sums[{made.sums}], met[{own}];
    for (int i = 0; i < {made.sums}; ++i) sums[i] = x[t * {made.sums} + i];
    {made.name}(met, sums, room);
    for (int i = 0; i < {own}; ++i) y[t * {own} + i] = met[i];"""
    head = kernel(body, "const float* x, float* y")
    return made.source + head.replace("__launch", f"__cluster_dims__(1, 1, {made.blocks}) __launch")


def added(made: ClusterSum, source: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the shares of all blocks by each order, and what they are to be."""
    x = np.random.default_rng(1).integers(-8, 9, (made.blocks, THREADS, made.sums)).astype(np.float32)  # fmt: skip
    y = np.zeros((made.blocks, THREADS, made.sums // made.blocks), np.float32)
    done = launch(source, x, y, grid=(1, 1, made.blocks), block=(THREADS, 1, 1), dynamic_shared=made.room_bytes, orders=ALL_ORDERS)  # fmt: skip
    shares = x.sum(axis=0).reshape(THREADS, 2, made.blocks, -1)
    return [y for _, y in done], shares.transpose(2, 0, 1, 3).reshape(y.shape)


@pytest.mark.parametrize(("blocks", "sums"), [(2, 8), (2, 64), (4, 32)])
def test_each_block_has_its_share_of_all_sums(blocks, sums):
    made = ClusterSum(blocks, THREADS, sums)
    found, expected = added(made, adding(made))
    for shares in found:
        np.testing.assert_array_equal(shares, expected)


@pytest.mark.parametrize("which", [0, 1])
def test_both_of_its_barriers_are_needed(which):
    made = ClusterSum(2, THREADS, 8)
    first, *others = re.split(r"(?<=\n)  convc_cluster_barrier\(\);\n", adding(made))
    assert len(others) == 2
    source = first + others[0] + "  convc_cluster_barrier();\n" + others[1]
    if which:
        source = first + "  convc_cluster_barrier();\n" + others[0] + others[1]
    message = ("may not have begun", "has left|without a cluster's barrier")[which]
    with pytest.raises(EmulationError, match=message):
        added(made, source)


# ---- convolutions -------------------------------------------------------------------------------------------------


def trials() -> list[Trial]:
    """Return small layers whose tiles reach beyond pixels, channels and the sum, by clusters of 2 and 4."""
    layers = (
        (ConvSpec.of((1, 384, 7, 7), (40, 384, 1, 1), dtype="float16"), EPILOGUE, {"cluster": 2, "stages": 3, "step": 64}),
        (ConvSpec.of((1, 520, 6, 6), (64, 520, 1, 1), dtype="bfloat16"), (Step("bias"),), {"cluster": 4, "stages": 2, "step": 64, "channels": 64}),
        (ConvSpec.of((2, 64, 9, 9), (32, 64, 3, 3), pads=(1, 1, 1, 1), strides=(2, 2), dtype="float16"), EPILOGUE, {"cluster": 2, "stages": 4, "cached": 1}),
        (ConvSpec.of((1, 128, 40), (128, 128, 5), pads=(2, 2), dtype="float16"), (), {"cluster": 4, "stages": 2, "channels": 128}),
        (ConvSpec.of((3, 256, 7, 7), (24, 256, 1, 1), dtype="float16"), (Step("relu"),), {"cluster": 2, "pixels": 128, "stages": 2}),
    )  # fmt: skip
    return [Trial("tensor_core_blocked", spec, steps, setting(spec, **asked)) for spec, steps, asked in layers]  # fmt: skip


@pytest.mark.parametrize("exact", [True, False])
def test_convolutions_whose_parts_meet_in_a_cluster(exact):
    # The bound is of the sums alone.
    check(trials() if exact else [replace(t, epilogue=()) for t in trials()], exact=exact)


def test_a_packaged_module_launches_clusters():
    cases = [Case(t.algorithm, t.spec, t.epilogue, tuple(t.setting.items())) for t in trials()[:2]]
    for result in conv_results(cases, TARGET, exact=True):
        assert_exact(result.actual, result.expected.astype(result.actual.dtype).astype(np.float64))


def source(spec: ConvSpec, clusters: Sequence[int]) -> str:
    """Return CUDA C of a module of kernels of such clusters, 0: of none."""
    asked = {"pixels": 64, "channels": 64, "stages": 3, "step": 64, "group": 4}
    functions = {}
    for i, cluster in enumerate(clusters):
        knobs = setting(spec, **asked, cluster=cluster)
        made = scheduled(Trial("tensor_core_blocked", spec, EPILOGUE, knobs))
        functions[f"k{i}"] = made.with_attr("global_symbol", f"k{i}")
    return compiler.source_of(compiler.build(tvm.IRModule(functions), TARGET))


def test_kernels_say_how_many_blocks_are_a_cluster():
    """Each by itself: those beside it may have another number, or none."""
    found = re.findall(r"__global__ void (.*?)(k\d)_kernel\(", source(SMALL_MAP, (0, 2, 4, 0)))
    heads = {"k0": "", "k1": "__cluster_dims__(1, 1, 2) ", "k2": "__cluster_dims__(1, 1, 4) ", "k3": ""}  # fmt: skip
    # Declared once, and once with its body.
    assert sorted(found) == sorted([(f"{dims}__launch_bounds__(128) ", k) for k, dims in heads.items()] * 2)  # fmt: skip


def test_early_kernels_of_clusters_wait_first():
    text = source(SMALL_MAP.with_batch(1), (2,) * 8)
    bodies = re.findall(r"__global__ void [^;{]*\{(.*?)\n\}\n", text, re.DOTALL)
    assert len(bodies) == 8
    for body in bodies:
        assert body.index("convc_wait_for_grids();") < body.index("convc_cluster_sum_2")


# ---- who takes them -----------------------------------------------------------------------------------------------


def test_no_estimate_takes_what_no_device_ran_and_a_record_does():
    problem = Problem(SMALL_MAP)
    assert "cluster" not in ALGORITHM.knobs(problem, TARGET)
    knobs = setting(SMALL_MAP, cluster=2, pixels=128, channels=128, stages=3)
    record = Measurement("tensor_core_blocked", knobs, 1e-6, 0.0)
    made = offers_of(problem, TARGET, Policy(), {problem.key: (record,)})
    (found,) = made.by("tensor_core_blocked")
    assert (found.source, found.knobs["cluster"]) == ("record", 2)
    other = parse_target("cuda -arch=sm_90 -ptx")
    (found,) = offers_of(problem, other, Policy(), {problem.key: (record,)}).by("tensor_core_blocked")  # fmt: skip
    assert (found.source, "cluster" in found.knobs) == ("estimate", False)


def test_clusters_are_of_wgmma_and_of_split_sums_alone():
    found = [k for k in settings(SMALL_MAP) if "cluster" in k]
    assert {k["cluster"] for k in found} == {2, 4}
    assert all(k["cluster"] == k["split"] and k["group"] == 4 for k in found)
    assert all(k["channels"] % (8 * k["cluster"]) == 0 for k in found)
    stem = ConvSpec.of((32, 3, 224, 224), (64, 3, 7, 7), strides=(2, 2), pads=(3,) * 4, dtype="float16")  # fmt: skip
    folded = BACKEND.algorithm("tensor_core_folded").space(Problem(stem), TARGET)
    assert all("cluster" not in k for k in folded)
    for target in ("cuda -arch=sm_90,sm_80", "cuda -arch=sm_80", "cuda -arch=sm_90 -ptx"):
        space = ALGORITHM.space(Problem(SMALL_MAP), parse_target(target))
        assert all("cluster" not in k for k in space)


def test_parts_that_meet_take_no_memory():
    problem, knobs = Problem(SMALL_MAP), setting(SMALL_MAP, cluster=2)
    apart = {name: value for name, value in knobs.items() if name != "cluster"}
    assert ALGORITHM.properties(problem, TARGET, knobs).workspace == 0
    assert ALGORITHM.properties(problem, TARGET, apart).workspace > 0


def test_the_estimate_is_of_a_launch_less_and_of_what_is_handed_around():
    problem = Problem(SMALL_MAP)
    knobs = setting(SMALL_MAP, cluster=2, pixels=128, channels=128, step=64, stages=4)
    apart = {name: value for name, value in knobs.items() if name != "cluster"}
    whole = {**apart, "split": 1}
    meeting, adding_up, alone = (ALGORITHM.cycles(problem, TARGET, k) for k in (knobs, apart, whole))  # fmt: skip
    assert meeting < adding_up
    assert meeting < alone


# ---- what nvcc makes of them --------------------------------------------------------------------------------------


@needs_nvcc
def test_no_setting_of_clusters_spills():
    """The largest of each number of channels and each cluster: registers depend on little else."""
    spec = replace(SMALL_MAP, data=(32, 2048, 7, 7))
    kinds = {}
    for knobs in settings(spec):
        if "cluster" in knobs:
            kinds[knobs["channels"], knobs["cluster"], knobs["stages"] > 2] = knobs
    made = [Trial("tensor_core_blocked", spec, EPILOGUE, k) for k in kinds.values()]
    found = wgmma_resources(made)
    assert all(r.spill_bytes == r.stack_bytes == 0 for r in found.values())
