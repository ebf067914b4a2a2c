"""One layer: convc's kernel alone and as a call, every algorithm that applies if asked for, and the peers, all in rotation.

A one-layer module begins and ends with a change of layout, which a network does not have around every layer. So convc's kernel is
timed by itself, as a step of its module; so is ONNX Runtime's, from its own profile, in microseconds. The calls of all engines, from
array to array, are timed too: that ratio exists for every peer, and all of them change layouts in it.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.interleave import Contestant, Timing, interleave
from benchmarks.layer_list import Layer
from benchmarks.layer_model import NODE, LayerModel
from benchmarks.machine_pace import machine_reference
from benchmarks.model_runs import largest_error
from benchmarks.onnx_file import open_model
from benchmarks.peers import Peer
from benchmarks.peers.onnxruntime_peer import KernelProfile
from convc.compiler import CompiledModel
from convc.compiler import compile as compile_model
from convc.errors import ConvcError
from convc.runtime import Module

__all__ = ["AlgorithmResult", "LayerResult", "measure_layer"]

_OPS: Final = ("conv", "conv_transpose")
_REPEATS: Final = 3
_CALL, _KERNEL, _ORT_KERNEL = "convc", "kernel", "onnxruntime kernel"
_WRONG: Final = 1e-2
_RULE: Final = f"must agree with float64 within {_WRONG:g} of the output's maximum"


class AlgorithmResult(msgspec.Struct, frozen=True):
    """One algorithm on one layer.

    Units:
        seconds, of the kernel alone. `error` is relative to the result's maximum.
    """

    algorithm: str
    chosen: bool
    estimate: float
    measured: float
    error: float
    knobs: dict[str, int]


class LayerResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one layer.

    Attributes:
        layer, kind, key: its id, class and convolution.
        threads: of every engine.
        algorithm: the one convc chose; "" if convc failed.
        us: microseconds of convc's kernel; None if it failed.
        call_us: microseconds of a call of convc's module, layout changes included.
        gflops: of the direct method per second of the kernel: "effective", above the peak for algorithms that save multiplications.
        percent_of_peak: the same relative to the machine's peak.
        error: largest difference from the float64 result, relative to its maximum.
        peer_us: microseconds of a peer's call.
        ratio: convc's call / the peer's call.
        kernel_ratio: convc's kernel / ONNX Runtime's; None if either was not measured.
        algorithms: every algorithm that applies, where asked for, else the chosen one.
        errors: by engine or algorithm, why there is no time.
    """

    layer: str
    kind: str
    key: str
    threads: int
    algorithm: str
    us: float | None
    call_us: float | None
    gflops: float | None
    percent_of_peak: float | None
    error: float | None
    peer_us: dict[str, float]
    ratio: dict[str, float]
    kernel_ratio: float | None
    algorithms: tuple[AlgorithmResult, ...]
    errors: dict[str, str]

    def beside(self, peak_gflops: float) -> LayerResult:
        """Return this with another peak of the machine."""
        share = None if self.gflops is None else 100 * self.gflops / peak_gflops
        return msgspec.structs.replace(self, percent_of_peak=share)


def _kernel_call(
    module: Module, model: LayerModel, samples: list[list[float]]
) -> Callable[[], object]:
    """Return a call that adds the kernel's times in it to `samples`."""

    def call() -> None:
        steps = [t for t in module.profile(model.feed, _REPEATS) if t.step.op in _OPS]
        samples.append([sum(t.seconds[i] for t in steps) for i in range(_REPEATS)])

    return call


class _Candidates:
    """The layer compiled with each algorithm: modules, errors, samples."""

    def __init__(self, model: LayerModel, threads: int) -> None:
        self.model = model
        self.threads = threads
        self.compiled: dict[str, CompiledModel] = {}
        self.modules: dict[str, Module] = {}
        self.samples: dict[str, list[list[float]]] = {}
        self.accuracy: dict[str, float] = {}
        self.errors: dict[str, str] = {}
        self.chosen = ""

    def add(self, algorithm: str | None) -> None:
        """Compile with one algorithm, None for convc's choice; a failure is kept as words."""
        pins = {NODE: algorithm} if algorithm else None
        try:
            compiled = compile_model(self.model.graph, threads=self.threads, algo_for=pins)
            module = compiled.load(threads=self.threads)
            (output,) = module.run(self.model.feed).values()
        # TVM's own errors are RuntimeErrors: a schedule that breaks on one shape must not end the whole run.
        except (ConvcError, RuntimeError) as error:
            self.errors[algorithm or "convc"] = " ".join(str(error).split())[:400]
            return
        name = compiled.plan[NODE].algorithm
        if algorithm is None:
            self.chosen = name
        self.compiled[name], self.modules[name] = compiled, module
        self.samples[name] = []
        error = self.accuracy[name] = largest_error([output], [self.model.reference])
        if error > _WRONG:
            self.errors[name] = f"{name} {_RULE}; got {error:.2g}."

    def add_others(self) -> None:
        """Compile with every algorithm that applies and is not the chosen one."""
        if not self.chosen:
            return
        for candidate in self.compiled[self.chosen].plan[NODE].candidates:
            if candidate.applies and candidate.algorithm != self.chosen:
                self.add(candidate.algorithm)

    def contestants(self) -> list[Contestant]:
        """Return the kernels, and the chosen one's module as a whole."""
        made = [
            Contestant(f"{_KERNEL} {name}", _kernel_call(module, self.model, self.samples[name]))
            for name, module in self.modules.items()
        ]
        if self.chosen:
            module = self.modules[self.chosen]
            made.append(Contestant(_CALL, lambda: module.run(self.model.feed)))
        return made

    def results(self, timings: Mapping[str, Timing]) -> tuple[AlgorithmResult, ...]:
        """Return one row per algorithm that ran, in the order of compilation."""
        rows = []
        for name, compiled in self.compiled.items():
            choice = compiled.plan[NODE]
            calls = [self.samples[name][i] for i in timings[f"{_KERNEL} {name}"].calls]
            estimate = next(c.seconds for c in choice.candidates if c.algorithm == name)
            rows.append(
                AlgorithmResult(
                    name,
                    name == self.chosen,
                    estimate or 0.0,
                    statistics.median(s for call in calls for s in call),
                    self.accuracy[name],
                    dict(choice.knobs),
                )
            )
        return tuple(rows)


def measure_layer(
    layer: Layer,
    peers: Sequence[Peer],
    threads: int,
    peak_gflops: float,
    *,
    all_algorithms: bool = False,
    rounds: int = 5,
    seed: int = 0,
) -> LayerResult:
    """Return one layer's times and errors.

    Args:
        layer: which.
        peers: to compare with.
        threads: of every engine.
        peak_gflops: of that many cores together.
        all_algorithms: measure all that apply, not only the chosen one.
        rounds: of blocks, see `benchmarks.interleave`.
        seed: of data, weights and order.
    """
    model = LayerModel(layer.spec, seed)
    candidates = _Candidates(model, threads)
    candidates.add(None)
    if all_algorithms:
        candidates.add_others()
    errors = dict(candidates.errors)
    contestants = candidates.contestants()
    with tempfile.TemporaryDirectory(prefix="convc-layer-") as folder:
        profile = None
        if peers:
            file = open_model(model.save_onnx(Path(folder) / f"{layer.name}.onnx"))
            inputs = list(model.feed.values())
            for peer in peers:
                try:
                    infer, outputs = peer.open(file, threads, inputs)
                except ConvcError as error:
                    errors[peer.name] = str(error)
                    continue
                error = largest_error(outputs, [model.reference])
                if error > _WRONG:
                    errors[peer.name] = f"{peer.name} {_RULE}; got {error:.2g}."
                    continue
                contestants.append(Contestant(peer.name, lambda infer=infer: infer(inputs)))
                if peer.name == "onnxruntime":
                    profile = KernelProfile(file, threads, Path(folder))
                    contestants.append(Contestant(_ORT_KERNEL, lambda p=profile: p.infer(inputs)))
        timings = interleave(contestants, rounds, seed=seed, reference=machine_reference(threads))
        ort_kernel = None
        if profile:
            calls = timings[_ORT_KERNEL].calls
            ort_kernel = profile.finish(("Conv", "FusedConv", "ConvTranspose"), calls)
    return _result(layer, candidates, timings, ort_kernel, errors, peers, peak_gflops)


def _result(
    layer: Layer,
    candidates: _Candidates,
    timings: Mapping[str, Timing],
    ort_kernel: float | None,
    errors: dict[str, str],
    peers: Sequence[Peer],
    peak_gflops: float,
) -> LayerResult:
    rows = candidates.results(timings)
    seconds = {name: timing.median for name, timing in timings.items()}
    best = next((row for row in rows if row.chosen), None)
    call = seconds.get(_CALL)
    peer_seconds = {p.name: seconds[p.name] for p in peers if p.name in seconds}
    gflops = layer.spec.flops / best.measured / 1e9 if best else None
    return LayerResult(
        layer=layer.name,
        kind=layer.kind,
        key=layer.spec.key,
        threads=candidates.threads,
        algorithm=candidates.chosen,
        us=1e6 * best.measured if best else None,
        call_us=None if call is None else 1e6 * call,
        gflops=gflops,
        percent_of_peak=None if gflops is None else 100 * gflops / peak_gflops,
        error=best.error if best else None,
        peer_us={name: 1e6 * value for name, value in peer_seconds.items()},
        ratio={} if call is None else {name: call / value for name, value in peer_seconds.items()},
        kernel_ratio=best.measured / ort_kernel if best and ort_kernel else None,
        algorithms=rows,
        errors=errors,
    )
