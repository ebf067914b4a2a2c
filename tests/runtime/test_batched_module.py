"""Modules with a symbolic batch: any number of samples gives each sample's own result, on code for a few sizes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

import convc
from convc import dsl as cc
from convc.errors import InputError, PackageError
from convc.ir import Graph
from convc.ir.reference import interpret
from convc.runtime import Module, aligned_empty, load, read_manifest
from convc.runtime.batched_module import BatchedModule, split
from convc.runtime.manifest import check
from convc.verify import verify

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)


def network() -> Graph:
    x, w = cc.input("x", ("N", 3, 7, 5)), cc.parameter("w", (4, 3, 3, 3))
    h = cc.relu(cc.conv2d(x, w, pads=1))
    h = cc.conv2d(h, RNG.normal(size=(4, 4, 3, 3)), pads=1) + h
    return cc.graph(
        {"prob": cc.dense(cc.flatten(h), RNG.normal(size=(5, 140))), "rows": h.reshape(4, 35)},
        name="small",
    )


@pytest.fixture(scope="module")
def graph() -> Graph:
    return network()


@pytest.fixture(scope="module")
def file(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = convc.compile(graph, threads=1, batch_sizes=(3, 8))
    return model.export(tmp_path_factory.mktemp("batched") / "small.so")


@pytest.fixture
def module(file: Path) -> Module:
    module = load(file, threads=1)
    module.set_params({"w": WEIGHT})
    return module


def samples(n: int) -> np.ndarray:
    return RNG.normal(size=(n, 3, 7, 5)).astype(np.float32)


@pytest.mark.parametrize("n", [0, 1, 3, 4, 8, 13])
def test_any_number_of_samples(module, graph, n):
    x = samples(n)
    expected = interpret(graph, {"x": x, "w": WEIGHT})
    found = module.run({"x": x})
    for name, array in found.items():
        assert array.shape == expected[name].shape
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(module(x)[0], found["prob"])


def test_what_fills_up_is_never_seen(module):
    # Two samples on code for three: the third would be the repeat, and its results would be rows of their own.
    x = samples(2)
    out = aligned_empty((2, 5), np.float32)
    assert module.run({"x": x}, outputs={"prob": out})["prob"] is out
    np.testing.assert_array_equal(out, module(np.concatenate([x, x[-1:]]))[0][:2])


def test_split_takes_the_largest_first():
    assert list(split(20, (8, 3))) == [(0, 8), (8, 8), (16, 3), (19, 3)]
    for n in range(40):
        parts = list(split(n, (8, 3)))
        assert [at for at, _ in parts] == [sum(s for _, s in parts[:i]) for i in range(len(parts))]
        assert n <= sum(size for _, size in parts) < n + 3


def test_the_module_says_what_it_holds(file, module):
    assert isinstance(module, BatchedModule)
    assert module.batch_sizes == (8, 3)
    manifest = read_manifest(file)
    assert [(t.name, t.shape, t.rows) for t in manifest.inputs] == [
        ("x", (8, 3, 7, 5), 1),
        ("w", (4, 3, 3, 3), 0),
    ]
    assert [(t.shape, t.rows) for t in manifest.outputs] == [((8, 5), 1), ((32, 35), 4)]
    assert [manifest.batch, *(v.batch for v in manifest.smaller)] == [8, 3]
    # Weights lie once: the same plan for both sizes packs them alike.
    assert manifest.weights_bytes < 2 * 4 * (4 * 4 * 9 + 5 * 140) + 4096


def test_every_size_is_verified(module, graph):
    seen: list[int] = []
    run = module.run

    class Spy:
        inputs, batch_sizes = module.inputs, module.batch_sizes

        def run(self, inputs):
            seen.append(len(inputs["x"]))
            return run(inputs)

    report = verify(Spy(), graph)
    assert report.ok
    assert seen == [11, 4]


def test_profile_takes_one_run(module):
    names = [t.step.node for t in module.profile({"x": samples(3)}, repeats=1)]
    assert names
    with pytest.raises(InputError, match="one of the batch sizes 8, 3; got 4"):
        module.profile({"x": samples(4)}, repeats=1)


def test_wrong_inputs(module):
    with pytest.raises(
        InputError, match=r"'x' must have shape \(any, 3, 7, 5\); got \(2, 3, 7, 4\)"
    ):
        module(np.zeros((2, 3, 7, 4), np.float32))
    with pytest.raises(InputError, match=r"'prob' must have shape \(2, 5\); got \(3, 5\)"):
        module.run({"x": samples(2)}, outputs={"prob": aligned_empty((3, 5), np.float32)})
    with pytest.raises(InputError, match="x' must have dtype float32"):
        module(np.zeros((2, 3, 7, 5)))


def test_two_inputs_have_one_number_of_samples():
    sum = cc.graph({"y": cc.input("a", ("N", 3)) + cc.input("b", ("N", 3))})
    module = convc.compile(sum, threads=1, batch_sizes=(2,)).load(threads=1)
    a = np.ones((5, 3), np.float32)
    np.testing.assert_array_equal(module(a, 2 * a), 3 * a)
    with pytest.raises(InputError, match="one number of samples; got 'a' 5, 'b' 4"):
        module(a, a[:4])


def test_nan_is_refused_in_every_part(file):
    module = load(file, threads=1, nan="error")
    x = samples(4)
    x[3, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="'x' must have no NaN"):
        module.run({"x": x, "w": WEIGHT})


def test_what_compile_refuses(graph):
    with pytest.raises(InputError, match="batch_sizes must be positive"):
        convc.compile(graph, batch_sizes=(0, 4))
    fixed = cc.graph({"y": cc.input("x", (2, 3)) + 1.0})
    with pytest.raises(InputError, match="whose shapes are fixed"):
        convc.compile(fixed, batch_sizes=(4,))


def test_a_manifest_that_contradicts_itself(file):
    manifest = read_manifest(file)
    one = msgspec.structs.replace(manifest.smaller[0], batch=9)
    for wrong, text in (
        ({"smaller": (one, *manifest.smaller)}, r"batch sizes must be 8 and smaller; got \[8, 9, 3\]"),
        ({"inputs": (msgspec.structs.replace(manifest.inputs[0], rows=2),)}, "must have 2 rows a sample"),
    ):  # fmt: skip
        with pytest.raises(PackageError, match=text):
            check(msgspec.structs.replace(manifest, **wrong))
