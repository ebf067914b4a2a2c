from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from convc import bench as bench_module
from convc.bench import Latency, bench, noise_warnings
from convc.errors import InputError, ToolchainError
from convc.machine import Peak, measure_peak, remeasure_peak
from convc.runtime.manifest import Tensor


class Fake:
    """A module whose calls take as long as they are told, the last time repeated."""

    threads = 1

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)
        self.calls: list[int] = []

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return (Tensor("x", (2, 3), "float32"),)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.calls.append(id(inputs["x"]))
        pause = self.seconds[min(len(self.calls), len(self.seconds)) - 1]
        end = time.perf_counter() + pause
        while time.perf_counter() < end:
            pass
        return {"x": inputs["x"]}


def test_statistics_of_known_samples() -> None:
    latency = Latency.of([float(i) for i in range(1, 102)])
    assert (latency.median, latency.p90, latency.p99, latency.min) == (51.0, 91.0, 100.0, 1.0)
    assert (latency.mean, latency.iterations) == (51.0, 101)
    assert latency.cv == pytest.approx(np.sqrt((101**2 - 1) / 12) / 51)


def test_iterations_are_counted_and_the_first_call_is_not_among_them() -> None:
    module = Fake(0.02, 0.001)
    report = bench(module, warmup_seconds=0, iterations=7, flops=10**6, with_peak=False)
    assert report.latency.iterations == 7
    assert len(module.calls) == 8
    assert report.first_run_seconds >= 0.02
    assert 0.001 <= report.latency.median < 0.02
    assert report.gflops_per_second == pytest.approx(1e-3 / report.latency.median)
    assert report.percent_of_peak is None
    assert len(set(module.calls)) == 1, "every call gets the same arrays"


def test_duration_ends_the_measurement() -> None:
    stages: list[tuple[str, int, int]] = []
    report = bench(
        Fake(0.005),
        warmup_seconds=0.01,
        duration_seconds=0.15,
        with_peak=False,
        progress=lambda *step: stages.append(step),
    )
    assert 10 <= report.latency.iterations <= 50
    assert {stage for stage, _, _ in stages} == {"warm up", "measure"}
    assert stages[-1] == ("measure", 100, 100)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"iterations": 0}, "bench iterations must be at least 1; got 0."),
        ({"duration_seconds": 0}, "bench duration must be positive; got 0 s."),
    ],
)
def test_there_must_be_something_to_measure(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InputError) as caught:
        bench(Fake(0.0), **arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("samples", "load", "peaks", "text"),
    [
        ([1.0] * 9 + [2.0], 0.0, None, "latency varies by 27 % (standard deviation / mean); quiet is below 10 %."),
        ([1.0] * 8 + [1.3] * 2, 0.0, None, "p90 is 1.30 x the median; quiet is below 1.25 x."),
        ([1.0], 2.6, None, "the load average is 2.6 on 2 cores; other programs are running."),
        ([1.0], 0.0, (100.0, 90.0), "the machine's peak changed by -10 % during the measurement (100 to 90 GFLOP/s)."),
    ],
)  # fmt: skip
def test_noise_is_told(
    samples: list[float], load: float, peaks: tuple[float, float] | None, text: str
) -> None:
    assert text in noise_warnings(Latency.of(samples), load, 2, peaks)


def test_a_quiet_measurement_has_no_warnings() -> None:
    assert noise_warnings(Latency.of([1.0, 1.01]), 2.5, 2, (100.0, 104.0)) == ()
    assert noise_warnings(Latency.of([1.0, 1.01]), None, 2, None) == ()


def test_contestants_alternate_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "_BLOCK_SECONDS", 0.0)
    order: list[str] = []
    first, second = bench_module._measure(
        [lambda: order.append("a"), lambda: order.append("b")], 1.0, 2, None
    )
    assert "".join(order) == "aabbaabb", "one call settles each block, one is timed"
    assert len(first) == len(second) == 2


def test_onnxruntime_is_timed_on_the_same_inputs(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    text = '<ir_version: 8, opset_import: ["": 18]> g (float[2, 3] x) => (float[2, 3] y) { y = Relu(x) }'
    path = tmp_path / "relu.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    report = bench(Fake(0.002), warmup_seconds=0, iterations=5, with_peak=False, vs=path)
    assert report.peer is not None
    assert (report.peer.name, report.peer.version) == ("onnxruntime", ort.__version__)
    assert report.peer.ratio == report.latency.median / report.peer.latency.median


def test_without_onnxruntime_the_message_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ToolchainError) as caught:
        bench(Fake(0.0), iterations=1, with_peak=False, vs="model.onnx")
    assert str(caught.value) == (
        "comparing with onnxruntime must have the package 'onnxruntime'; got no such package. "
        "Run: pip install 'convc[verify]'"
    )


def test_the_peak_is_measured_once_and_is_plausible() -> None:
    peak = measure_peak(1)
    assert measure_peak(1) is peak
    again = remeasure_peak(1, 0.05)
    assert isinstance(again, Peak)
    # No core since 2013 does less than a 4-lane multiply-add at 1 GHz, none does more than 64 lanes' at 8 GHz; how far one measurement is
    # from the other is up to who else is on the machine.
    for found in (peak, again):
        assert 8 < found.gflops_per_second < 1024


def test_the_peak_kernel_is_multiply_adds_in_registers() -> None:
    from convc.machine import _compile_kernel

    kernel, chains, lanes = _compile_kernel()
    assert chains * lanes >= 32
    assert callable(kernel)
