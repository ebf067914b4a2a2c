"""Compile ResNet-50, check it twice, run it, and show where its time goes.

The model ships with the onnx package as a test: the real network's structure with constant weights, one input and the
expected output. Its outputs are all equal, so it is compiled a second time with seeded random weights and compared with the
float64 reference. Run it with `make demo`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from rich.console import Console

from convc.bench import bench
from convc.cli.layer_table import layer_rows, layer_table
from convc.cli.render import count, seconds
from convc.compiler import CompiledModel, compile, load_graph
from convc.inputs import random_inputs
from convc.ir.randomise import randomise
from convc.verify import compare, verify

LIGHT_MODELS = Path(onnx.__file__).parent / "backend/test/data/light"
TOLERANCE = 1e-4


def light_input(shape: tuple[int, ...]) -> np.ndarray:
    """Return the input that onnx's own tests give its light models (onnx/backend/test/runner, generate_dummy_data)."""
    size = int(np.prod(shape))
    return (np.arange(size).reshape(shape) / size).astype(np.float32)


def check_published_output(compiled: CompiledModel, expected_file: Path) -> float:
    """Return the module's error against the output that is published with the model."""
    module = compiled.load()
    (data,) = module.inputs
    (output,) = module.outputs
    actual = module.run({data.name: light_input(data.shape)})[output.name]
    expected = numpy_helper.to_array(onnx.load_tensor(expected_file)).reshape(actual.shape)
    return compare(output.name, actual, expected, TOLERANCE).max_relative_error


def main() -> int:
    """Run the demo and return the exit code."""
    screen = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    path = LIGHT_MODELS / "light_resnet50.onnx"

    screen.print(f"1. compile {path.name}", style="bold")
    published = check_published_output(compile(path), LIGHT_MODELS / "light_resnet50_output_0.pb")
    screen.print(f"   max error against the output published with the model: {published:.2g}")

    screen.print("2. compile the same network with random weights", style="bold")
    compiled = compile(randomise(load_graph(path), seed=0))
    module = compiled.load()
    report = verify(module, compiled.source, n=1, tolerance=TOLERANCE)
    screen.print(f"   max error against the float64 reference: {report.max_relative_error:.2g}")

    screen.print(f"3. run it on {module.threads} thread{'s' * (module.threads > 1)}", style="bold")
    fed = random_inputs(module.inputs)
    flops = sum(step.flops for step in module.manifest.steps)
    timing = bench(module, warmup_seconds=0.5, duration_seconds=2.0, inputs=fed, flops=flops)
    screen.print(layer_table(layer_rows(module.profile(fed), timing.peak), timing.peak))
    median = timing.latency.median
    screen.print(
        f"latency {seconds(median)} (p90 {seconds(timing.latency.p90)}), {count(flops)}FLOP, "
        f"{timing.gflops_per_second:.0f} GFLOP/s, {timing.percent_of_peak or 0:.0f} % of this machine's measured peak; "
        f"max error {max(published, report.max_relative_error):.2g}",
        style="bold",
    )
    for warning in timing.warnings:
        screen.print(f"warning: {warning}", style="yellow")
    exact = published <= TOLERANCE and report.ok
    screen.print("ok" if exact else f"WRONG: an error is above {TOLERANCE:g}")
    return 0 if exact else 4


if __name__ == "__main__":
    sys.exit(main())
