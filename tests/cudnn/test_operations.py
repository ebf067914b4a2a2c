"""Pooling and softmax through the shim, on the emulated device with the double, against NumPy; their gradients against differences."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from convc.runtime.libraries.cudnn import Pooling, Softmax
from tests.cuda_emulation.emulation import EmulationError, worker

# Windows that overlap, leave a rest, and reach over the edge.
POOLS = {
    1: ((2, 3, 11), (3,), (2,), (1,)),
    2: ((2, 3, 8, 7), (3, 2), (2, 1), (1, 1)),
    3: ((1, 2, 5, 6, 4), (2, 3, 2), (1, 2, 2), (0, 1, 1)),
}
MODES = ("max", "max_deterministic", "average", "average_exclude_padding")


def call(description: object, *arrays: np.ndarray, **options: Any) -> tuple[np.ndarray, str]:
    out, story, _ = worker().call(
        "tests.cudnn.in_child:run_with", str(description), list(arrays), options
    )
    return out, story


def numbers(shape: tuple[int, ...], seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    """Whole numbers, no two of them equal: a maximum is in one place."""
    size = int(np.prod(shape))
    return np.random.default_rng(seed).permutation(size).reshape(shape).astype(dtype) - size // 2


def pooled(x: np.ndarray, mode: str, window: Any, strides: Any, pads: Any) -> np.ndarray:
    spatial = x.shape[2:]
    extents = [(e + 2 * p - w) // s + 1 for e, w, s, p in zip(spatial, window, strides, pads, strict=True)]  # fmt: skip
    out = np.zeros((*x.shape[:2], *extents))
    for place in itertools.product(*map(range, extents)):
        slices = [
            slice(max(0, i * s - p), max(0, i * s - p + w))
            for i, s, p, w in zip(place, strides, pads, window, strict=True)
        ]
        under = x[(slice(None), slice(None), *slices)]
        axes = tuple(range(2, x.ndim))
        if mode.startswith("max"):
            out[(slice(None), slice(None), *place)] = under.max(axes)
        else:
            count = np.prod(window) if mode == "average" else np.prod(under.shape[2:])
            out[(slice(None), slice(None), *place)] = under.sum(axes) / count
    return out


@pytest.mark.parametrize("rank", POOLS)
@pytest.mark.parametrize("mode", MODES)
def test_pooling(rank: int, mode: str) -> None:
    shape, *geometry = POOLS[rank]
    x = numbers(shape)
    wanted = pooled(x, mode, *geometry)
    out, story = call(Pooling("pool_forward", mode, *geometry), x, np.full(wanted.shape, np.nan))
    np.testing.assert_array_equal(out, wanted)
    assert story.endswith(f"pool {[0, 3, 1, 2][MODES.index(mode)]};")


@pytest.mark.parametrize("rank", POOLS)
@pytest.mark.parametrize("mode", MODES)
def test_the_gradient_of_a_pooling(rank: int, mode: str) -> None:
    shape, *geometry = POOLS[rank]
    x = numbers(shape)
    y = pooled(x, mode, *geometry)
    dy = numbers(y.shape, 1)
    dx, _ = call(Pooling("pool_backward", mode, *geometry), y, dy, x, np.full(shape, np.nan))
    # All poolings are linear between two equal values: a difference of a tenth is exact but for rounding.
    rng = np.random.default_rng(2)
    for _ in range(12):
        place = tuple(rng.integers(0, e) for e in shape)
        moved = x.copy()
        moved[place] += 0.1
        difference = np.sum((pooled(moved, mode, *geometry) - y) * dy) / 0.1
        assert dx[place] == pytest.approx(difference, rel=1e-9, abs=1e-9)


def softmax(x: np.ndarray, algorithm: str, mode: str) -> np.ndarray:
    axes = (1,) if mode == "channel" else tuple(range(1, x.ndim))
    shifted = x - x.max(axes, keepdims=True)
    log = shifted - np.log(np.exp(shifted).sum(axes, keepdims=True))
    return log if algorithm == "log" else np.exp(log)


@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 3), (2, 3, 2, 4)])
@pytest.mark.parametrize("algorithm", ["accurate", "log", "fast"])
@pytest.mark.parametrize("mode", ["channel", "instance"])
def test_softmax_and_its_gradient(shape: tuple[int, ...], algorithm: str, mode: str) -> None:
    x = numbers(shape) / 4
    y = softmax(x, algorithm, mode)
    out, _ = call(Softmax("softmax_forward", algorithm, mode), x, np.full(shape, np.nan))
    np.testing.assert_allclose(out, y, rtol=1e-13)
    dy = numbers(shape, 1)
    dx, _ = call(Softmax("softmax_backward", algorithm, mode), y, dy, np.full(shape, np.nan))
    place, step = (1, 2, *(0 for _ in shape[2:])), 1e-6
    moved = [x.copy(), x.copy()]
    moved[0][place] += step
    moved[1][place] -= step
    up, down = (np.sum(softmax(m, algorithm, mode) * dy) for m in moved)
    assert dx[place] == pytest.approx((up - down) / (2 * step), rel=1e-6, abs=1e-6)


def test_channels_last_narrow_types_alpha_and_beta() -> None:
    shape, *geometry = POOLS[2]
    x = numbers(shape, dtype=np.float32)
    wanted = pooled(x, "max", *geometry)
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    room = np.zeros(np.moveaxis(wanted, 1, -1).shape, np.float32)
    out, _ = call(Pooling("pool_forward", "max", *geometry, channels_last=True), last, room)
    np.testing.assert_array_equal(np.moveaxis(out, -1, 1), wanted)
    half, _ = call(Pooling("pool_forward", "max", *geometry), x.astype(np.float16), np.zeros(wanted.shape, np.float16))  # fmt: skip
    np.testing.assert_array_equal(half, wanted.astype(np.float16))
    before = numbers(wanted.shape, 3, np.float32)
    both, _ = call(Pooling("pool_forward", "max", *geometry, alpha=2.0, beta=-3.0), x, before)
    np.testing.assert_array_equal(both, 2 * wanted - 3 * before)


@pytest.mark.parametrize(
    ("description", "count", "message"),
    [
        ("kind=pool_sideways;layout=NCHW;spec=s", 2, "kind must be pool_forward, pool_backward"),
        (Pooling("pool_forward", "median", (2, 2), (1, 1), (0, 0)), 2, "mode must be one of max, average, average_exclude_padding, max_deterministic; got 'median'"),
        (Softmax("softmax_forward", "slow"), 2, "algorithm must be one of accurate, log, fast; got 'slow'"),
        (Softmax("softmax_forward"), 3, "softmax_forward must have 2 tensors; got 3"),
        (Softmax("softmax_forward"), 1, "must have a description and two tensors at least"),
        (Pooling("pool_forward", "max", (9, 9), (1, 1), (0, 0), spec="wide"), 2, "cuDNN's cudnnPoolingForward must succeed for wide; got CUDNN_STATUS_BAD_PARAM: the double: pooling wants the pooling's extents"),
    ],
)  # fmt: skip
def test_calls_that_make_no_sense(description: object, count: int, message: str) -> None:
    arrays = [np.zeros((1, 2, 4, 4), np.float32) for _ in range(count)]
    with pytest.raises(EmulationError, match="Error") as caught:
        call(description, *arrays)
    assert message in str(caught.value)


def test_a_failure_leaves_nothing_behind_and_the_next_call_works() -> None:
    x = numbers((1, 2, 4, 4), dtype=np.float32)
    description = Pooling("pool_forward", "max", (2, 2), (2, 2), (0, 0), spec="fails")
    room = np.zeros((1, 2, 2, 2), np.float32)
    living = worker().call("tests.cudnn.in_child:plain")
    with pytest.raises(EmulationError, match="cudnnSetPoolingNdDescriptor must succeed for fails"):
        call(description, x, room, fail={"cudnnSetPoolingNdDescriptor": (0, 3000)})
    assert worker().call("tests.cudnn.in_child:plain") == living
    out, _ = call(description, x, room)
    np.testing.assert_array_equal(out, pooled(x, "max", (2, 2), (2, 2), (0, 0)))


def test_from_python_without_a_module() -> None:
    shape, *geometry = POOLS[2]
    x = numbers(shape, dtype=np.float32)
    wanted = pooled(x, "max", *geometry)
    description = Pooling("pool_forward", "max", *geometry)
    arrays = [x, np.zeros(wanted.shape, np.float32)]
    out = worker().call("tests.cudnn.in_child:call_from_python", description, arrays)
    np.testing.assert_array_equal(out, wanted)
