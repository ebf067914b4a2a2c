"""Many convolutions compiled into one module: the cost of loading and linking is paid once."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convc.ir import ConvSpec, Graph, GraphBuilder, Step, TensorType
from convc.ir.ops.conv import ConvAttributes, ConvTransposeAttributes
from convc.ir.reference import interpret
from convc.ir.types import numpy_dtype
from convc.lowering.build import build
from convc.lowering.emit import emit
from convc.runtime import load
from convc.schedules.algorithm import Problem
from convc.schedules.backend import backend_of
from convc.schedules.plan import Choice, Plan
from convc.target import Target


@dataclass(frozen=True)
class Case:
    """One convolution with the algorithm that computes it; without knobs, the algorithm's own.

    Attributes:
        wide_bias: whether the bias of a convolution in half precision is float32.
    """

    algorithm: str
    spec: ConvSpec
    epilogue: tuple[Step, ...] = ()
    knobs: tuple[tuple[str, int], ...] | None = None
    wide_bias: bool = False

    @property
    def problem(self) -> Problem:
        return Problem(self.spec, self.epilogue)

    def resolved_knobs(self, target: Target) -> dict[str, int]:
        if self.knobs is not None:
            return dict(self.knobs)
        return dict(backend_of(target).algorithm(self.algorithm).knobs(self.problem, target))


@dataclass(frozen=True)
class Result:
    """One convolution's operands and its compiled and exact result."""

    case: Case
    knobs: Mapping[str, int]
    data: np.ndarray
    weight: np.ndarray
    actual: np.ndarray
    expected: np.ndarray


def conv_node(
    b: GraphBuilder, data: str, weight: str, spec: ConvSpec, epilogue=(), extras=(), name=None
) -> str:
    """Add the convolution that `spec` describes."""
    if spec.transposed:
        attributes = ConvTransposeAttributes(
            spec.strides, spec.pads, spec.dilations, spec.group, spec.output_padding, epilogue
        )
        return b.add("conv_transpose", [data, weight, *extras], attributes, name=name)
    attributes = ConvAttributes(spec.strides, spec.pads, spec.dilations, spec.group, epilogue)
    return b.add("conv", [data, weight, *extras], attributes, name=name)


def whole_numbers(rng: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Return whole numbers in [-4, 4] as float32."""
    return rng.integers(-4, 5, tuple(shape)).astype(np.float32)


class ConvModule:
    """The compiled convolutions, run on one thread or more; weights and biases are whole numbers."""

    def __init__(
        self, cases: Sequence[Case], target: Target, seed: int = 0, threads: int = 1
    ) -> None:
        self.cases = tuple(cases)
        self.knobs = [case.resolved_knobs(target) for case in self.cases]
        rng = np.random.default_rng(seed)
        self.graph = self._graph(rng)
        choices = {
            f"y{i}": Choice(case.algorithm, knobs, "test")
            for i, (case, knobs) in enumerate(zip(self.cases, self.knobs, strict=True))
        }
        built = build(emit(self.graph, Plan(choices), target), target)
        self.manifest = built.manifest
        with tempfile.TemporaryDirectory() as folder:
            built.export(Path(folder) / "convolutions.so")
            self.module = load(Path(folder) / "convolutions.so", threads=threads)

    def _graph(self, rng: np.random.Generator) -> Graph:
        b = GraphBuilder("convolutions")
        outputs = {}
        for i, case in enumerate(self.cases):
            spec = case.spec
            dtype = numpy_dtype(spec.dtype)
            data = b.input(f"x{i}", TensorType(spec.data, spec.dtype))
            weight = b.constant(whole_numbers(rng, spec.weight).astype(dtype), f"w{i}")
            extras = []
            for step in case.epilogue:
                if step.name == "bias":
                    bias = whole_numbers(rng, (spec.out_channels,))
                    extras.append(
                        b.constant(bias if case.wide_bias else bias.astype(dtype), f"b{i}")
                    )
                elif step.takes_operand:
                    residual = TensorType(spec.output, spec.dtype)
                    extras.append(b.input(f"r{i}_{len(extras)}", residual))
            outputs[f"y{i}"] = conv_node(b, data, weight, spec, case.epilogue, extras, f"y{i}")
        return b.finish(outputs)

    def run(self, *, exact: bool, seed: int = 1) -> list[Result]:
        """Return every convolution's result on whole numbers, or on normal data."""
        rng = np.random.default_rng(seed)
        inputs = {
            n.name: (
                whole_numbers(rng, n.type.shape)
                if exact
                else rng.standard_normal(n.type.shape).astype(np.float32)
            ).astype(numpy_dtype(n.type.dtype))
            for n in self.graph.inputs
        }
        actual, expected = self.module.run(inputs), interpret(self.graph, inputs)
        return [
            Result(
                case,
                self.knobs[i],
                inputs[f"x{i}"],
                self.graph[self.graph[f"y{i}"].inputs[1]].value,
                actual[f"y{i}"],
                expected[f"y{i}"],
            )
            for i, case in enumerate(self.cases)
        ]
