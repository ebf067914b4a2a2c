"""Moves of channels in blocks, every lane of every vector, against NumPy."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tvm
from tvm import te

from convc.schedules.backend import backend_of
from convc.schedules.channel_moves import Run, compute, runs_of
from convc.schedules.llvm.compiler import build
from convc.target import parse_target

RNG = np.random.default_rng(0)


def concatenation(*channels):
    return tuple((i, c) for i, count in enumerate(channels) for c in range(count))


def shuffle(groups, channels):
    return tuple((0, j * (channels // groups) + i) for i in range(channels // groups) for j in range(groups))  # fmt: skip


# name -> (channels of each operand, picks)
MOVES = {
    "parts that fill no blocks": ((12, 20, 7), concatenation(12, 20, 7)),
    "whole blocks": ((16, 32), concatenation(16, 32)),
    "a part inside one vector": ((3, 2, 5), concatenation(3, 2, 5)),
    "a slice": ((40,), tuple((0, c) for c in range(9, 37))),
    "every third": ((40,), tuple((0, c) for c in range(1, 40, 3))),
    "two groups": ((24,), shuffle(2, 24)),
    "eight groups": ((48,), shuffle(8, 48)),
    "two images by turns": ((29, 30), tuple((c % 2, 5 + c // 2) for c in range(46))),
    "any": ((19, 33, 8), tuple((int(o), int(RNG.integers((19, 33, 8)[o]))) for o in RNG.integers(3, size=50))),
    "one channel again and again": ((5,), ((0, 3),) * 21),
}  # fmt: skip


def blocked(x, block):
    """Return (N, C, ...) as (N, C / b, ..., b), zeros beyond the last channel."""
    n, c, *spatial = x.shape
    padded = np.pad(x, [(0, 0), (0, -c % block), *[(0, 0)] * len(spatial)])
    return np.ascontiguousarray(np.moveaxis(padded.reshape(n, -1, block, *spatial), 2, -1))


@pytest.mark.parametrize("spatial", [(3, 5), (7,), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("block", [4, 16])
def test_every_lane(block, spatial):
    target = parse_target("llvm")
    functions, given = {}, {}
    for number, (name, (channels, picks)) in enumerate(MOVES.items()):
        data = [RNG.standard_normal((2, c, *spatial)).astype(np.float32) for c in channels]
        arrays = [blocked(x, block) for x in data]
        x = [te.placeholder(a.shape, "float32", name=f"x{i}") for i, a in enumerate(arrays)]
        func = te.create_prim_func([*x, compute(x, picks, block)])
        scheduled = backend_of(target).schedule_channels(func, picks, target)
        functions[f"move{number}"] = scheduled.with_attr("global_symbol", f"move{number}")
        wanted = np.stack([data[i][:, c] for i, c in picks], 1)
        given[name] = (arrays, blocked(wanted, block))
    module = build(tvm.IRModule(functions), target)
    for number, (name, (arrays, wanted)) in enumerate(given.items()):
        result = tvm.runtime.tensor(np.full(wanted.shape, np.nan, np.float32))
        module[f"move{number}"](*map(tvm.runtime.tensor, arrays), result)
        np.testing.assert_array_equal(result.numpy(), wanted, err_msg=name)


def test_runs_are_long_and_say_the_picks():
    assert runs_of(concatenation(12, 20)) == (
        Run(0, at=0, stride=1, begin=0, step=1, count=12),
        Run(1, at=12, stride=1, begin=0, step=1, count=20),
    )
    assert runs_of(shuffle(4, 24)) == tuple(Run(0, j, 4, 6 * j, 1, 6) for j in range(4))
    for name, (_, picks) in MOVES.items():
        said = {
            run.at + i * run.stride: (run.operand, run.begin + i * run.step)
            for run in runs_of(picks)
            for i in range(run.count)
        }
        assert said == dict(enumerate(picks)), name


def test_no_vector_is_taken_apart():
    """Each vector of the result is stored whole: taken apart, a move takes ten times as long."""
    target = parse_target(mcpu="x86-64-v4")
    x = [te.placeholder((1, 2, 4, 4, 16), "float32", name=f"x{i}") for i in range(2)]
    picks = concatenation(20, 28)
    func = te.create_prim_func([*x, compute(x, picks, 16)])
    scheduled = backend_of(target).schedule_channels(func, picks, target)
    assembly = build(
        tvm.IRModule({"move": scheduled.with_attr("global_symbol", "move")}), target
    ).mod.inspect_source("s")
    assert re.search(r"vmov[au]p[sd]\t%zmm\d+, \d*\(", assembly), "no vector is stored whole"
    assert "vmovss" not in assembly
    assert "vextractps" not in assembly
    assert "vinsertps" not in assembly
