"""Layers of bytes on a device: exact, and timed in several settings beside our kernel of the same layer in float16.

cuDNN is no peer: the shim has no integers. What a case must compute are the reference's integers; a layer's batch repeats a few images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.gpu.job import Job
from benchmarks.gpu.share import device_turn
from convc.ir import ConvSpec, Graph, GraphBuilder, TensorType
from convc.ir.ops.conv import ConvAttributes
from convc.ir.ops.quantized import QuantizedConvAttributes
from convc.ir.reference import interpret
from convc.runtime import load

__all__ = ["HALVES", "byte_layers", "run_byte_layer"]

# What the case in float16 is called; its knobs are what the model takes.
HALVES: Final = "float16"

# Distinct images of a batch, as of other layers.
_IMAGES: Final = 3

_PAD: Final = 117


def _operands(spec: ConvSpec) -> dict[str, np.ndarray]:
    """Return data of a few images, weights, bias and factor: all values that a byte has, and results all over it."""
    rng, k = np.random.default_rng(0), spec.out_channels
    few = spec.with_batch(min(spec.data[0], _IMAGES))
    terms = np.prod(spec.weight[1:])
    return {
        "x": rng.integers(0, 256, few.data).astype(np.uint8),
        "w": rng.integers(-128, 128, spec.weight).astype(np.int8),
        "b": rng.integers(-9000, 9000, k).astype(np.int32),
        "f": (rng.uniform(0.5, 1.5, k) / (2e2 * np.sqrt(terms))).astype(np.float32),
    }


def byte_layers(job: Job, images: int | None = None) -> Graph:
    """Return a layer for each case; `images`: of a batch of so many, and the layer of bytes alone, once."""
    b, spec = GraphBuilder(job.name), job.cases[0].spec
    arrays = _operands(spec)
    shape = spec.data if images is None else (images, *spec.data[1:])
    fields = (spec.strides, spec.pads, spec.dilations, spec.group)
    x = b.input("x", TensorType(shape, "uint8"))
    constants = [b.constant(arrays[n], n) for n in "wbf"]
    form = QuantizedConvAttributes(*fields, pad=_PAD, zero=3)
    outputs = {}
    for index, case in enumerate(job.cases if images is None else job.cases[:1]):
        name = f"y{index}"
        if case.algorithm == HALVES:
            halves = b.input("h", TensorType(spec.data, "float16"))
            weight = b.constant(arrays["w"].astype(np.float16), "wh")
            outputs[name] = b.add("conv", [halves, weight], ConvAttributes(*fields), name=name)
        else:
            outputs[name] = b.add("conv_quantized", [x, *constants], form, name=name)
    return b.finish(outputs)


def run_byte_layer(job: Job, folder: Path) -> dict[str, Any]:
    """Return a row for each case: whether it is right, and its time on the device."""
    spec = job.cases[0].spec
    few = _operands(spec)["x"]
    expected = interpret(byte_layers(job, len(few)), {"x": few})["y0"]
    inputs = {"x": np.resize(few, spec.data)}
    inputs["h"] = inputs["x"].astype(np.float16)
    with device_turn(folder, job):
        module = load(job.module(folder))
        outputs = module.run({p.name: inputs[p.name] for p in module.inputs})
        timed = module.profile({p.name: inputs[p.name] for p in module.inputs}, repeats=5)
    times = {t.step.node: t for t in timed if t.step.algorithm}
    cases = []
    for index, case in enumerate(job.cases):
        name = f"y{index}"
        # The yardstick in float16 is checked with the other layers, not here.
        right = case.algorithm == HALVES or np.array_equal(outputs[name], np.resize(expected, spec.output))  # fmt: skip
        cases.append({
            "algorithm": case.algorithm, "knobs": case.knobs, "key": case.key, "ok": bool(right),
            "seconds": times[name].median, "samples": times[name].seconds, "estimate": case.estimate, "default": case.default,
        })  # fmt: skip
    return {"cases": cases}
