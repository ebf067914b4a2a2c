"""cuDNN as one candidate among convc's own algorithms: a call of the library through the shim that is linked into the module.

THE ALGORITHM   cuDNN's, of the engine that its heuristics rank first among those that the knobs admit, or that a record names
WHEN            1-D, 2-D, 3-D, any stride, dilation and group, the same padding at both ends; transposed as a gradient of the data
COST            one call; what cuDNN does is not known without a device, so the estimate is a roofline with a share of it
ACCURACY        float32 without tensor cores (`strict`) and without FFT or Winograd (unless `transforms`), else as convc's own; the order
                of sums is the engine's
SOURCE          NVIDIA cuDNN 9 graph API, cudnn_graph.h

Channels last is one block of all channels: (N, 1, H, W, C). Layers in a row that have it hand each other no copies.

A model that needs cuDNN where it runs must have been asked for: only a record, a pin or a policy that names it chooses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from tvm import te, tirx

from convc.errors import ToolchainError
from convc.ir.epilogue import Step
from convc.ir.types import numpy_dtype
from convc.runtime.libraries.cudnn import CALL, CALL_PLAN, POLICIES, Description, find_cudnn
from convc.schedules import packing
from convc.schedules.algorithm import Operands, Problem
from convc.schedules.blocked_epilogue import blocked_extras
from convc.schedules.cuda import cudnn_settings
from convc.schedules.cuda.behind_call import schedule_behind
from convc.schedules.cuda.compiler import LIBRARY
from convc.schedules.cuda.model import LAUNCH_SECONDS, memory_cycles
from convc.schedules.layout import PLAIN, Halo, Layout
from convc.schedules.library_call import library_call
from convc.schedules.plain_epilogue import plain_extras
from convc.schedules.plan import Knobs, Unsupported
from convc.schedules.policy import Policy
from convc.schedules.properties import Properties, direct_error
from convc.schedules.rank import raised, raised_weight
from convc.schedules.scalar import apply_steps
from convc.target import Target

__all__ = ["ALGORITHM", "Cudnn", "schedule", "settings_of"]

_TYPES: Final = ("float32", "float16", "bfloat16", "float64")
# Of the peak of the units used, what a good engine reaches (llama.cpp's own SIMT kernels on an RTX 4090: 47 %). Not measured.
_SHARE: Final = 0.5
# Knobs of this name and a number are cuDNN's own settings of an engine.
_SETTING: Final = "setting_"


class Cudnn:
    """See the module's text."""

    name = "cudnn"
    by_record = True
    refusable = True
    ways = POLICIES
    before: Final = {"channels_last": 0, "compiles": 0}
    build_seconds = 0.0  # no more than a kernel of convc's
    # With a float32 bias cuDNN 9.28 offers no engine for an H200 in half precision, channels first, and channels last only one that it
    # compiles where the module runs.
    narrow_bias = "bias rounded to {}: cuDNN's engines take no other"
    on_request = "taken by a tuned record, a pin, or a policy that names it: a module with it needs cuDNN where it runs"

    def supports(self, problem: Problem, target: Target) -> Unsupported | None:
        """Return why not, or None."""
        spec = problem.spec
        n = spec.rank
        if spec.dtype not in _TYPES:
            return Unsupported(f"element type must be {', '.join(_TYPES)}; got {spec.dtype}")
        if spec.pads[:n] != spec.pads[n:]:
            return Unsupported(f"pads must be equal at both ends of an axis; got {spec.pads}")
        if not spec.data[0]:
            return Unsupported("data must not be empty")
        wide = "float64" if spec.dtype == "float64" else "float32"
        if problem.accumulator != wide:
            return Unsupported(f"sums must be {wide}; got {problem.accumulator}")
        if any(p >= s for p, s in zip(spec.output_padding, spec.strides, strict=False)):
            return Unsupported(
                f"output_padding must be less than the stride; got {spec.output_padding} for strides {spec.strides}"
            )
        _, rest = _split(problem)
        if rest and numpy_dtype(spec.dtype).itemsize < 4:
            # Between cuDNN and what follows it the sums would be rounded to the narrow type once more.
            return Unsupported(
                f"epilogue on {spec.dtype} must be one that cuDNN fuses (bias, add, then relu or clip); got {rest[0]} outside of it"
            )
        return None

    def knobs(self, problem: Problem, target: Target) -> Knobs:
        """Return cuDNN's heuristics among all engines that keep the element type's arithmetic; half precision channels last."""
        return cudnn_settings.usual(problem)

    def space(self, problem: Problem, target: Target) -> Iterator[Knobs]:
        """Yield cuDNN's first choices, channels first and last, then with transforms, deterministic ones, by shrinking workspaces."""
        return cudnn_settings.space(problem)

    def searches(self, problem: Problem, target: Target, policy: Policy) -> list[Knobs]:
        """Return cuDNN's own search in each order, see `cudnn_settings.searches`."""
        return cudnn_settings.searches(problem, policy)

    def missing(self) -> str:
        """Return what this machine lacks to run cuDNN, and how to get it; "" if nothing."""
        try:
            found = find_cudnn()
        except ToolchainError as error:
            return str(error)
        return "" if found else "cuDNN 9 must be found; got none. Install it with `pip install nvidia-cudnn-cu13`"  # fmt: skip

    def cycles(self, problem: Problem, target: Target, knobs: Knobs) -> float:
        """Return the roofline's clocks: of the products on the units that the type uses, or of the bytes."""
        spec, gpu = problem.spec, target.gpu
        per_clock = 2.0 * gpu.sms * gpu.fp32_lanes
        if spec.dtype == "float64":
            per_clock /= 2
        elif spec.dtype != "float32" and gpu.tf32_macs:
            per_clock = 4.0 * gpu.sms * gpu.tf32_macs
        elif not knobs["strict"] and gpu.tf32_macs:
            per_clock = 2.0 * gpu.sms * gpu.tf32_macs
        work = max(spec.flops / (_SHARE * per_clock), memory_cycles(gpu, spec.nbytes))
        _, rest = _split(problem)
        return work + (2 if rest else 1) * LAUNCH_SECONDS * gpu.clock_hz

    def properties(self, problem: Problem, target: Target, knobs: Knobs) -> Properties:
        """Return what the knobs promise, the workspace's limit, and weights packed at run time; of transforms cuDNN does not say which."""
        facts = cudnn_settings.promised(problem.spec, knobs, direct_error(problem))
        packed = packing.nbytes(self.name, problem, target, knobs)
        taken = None if facts.taken is None else facts.taken + packed
        return replace(facts, workspace=facts.workspace + packed, taken=taken)

    def operands(self, problem: Problem, target: Target, knobs: Knobs) -> Operands:
        """Return plain layouts, or blocks of all channels."""
        if not _is_last(knobs):
            return Operands(PLAIN, Halo(), PLAIN)
        spec = problem.spec
        return Operands(Layout(spec.in_channels), Halo(), Layout(spec.out_channels))

    def pack(self, weight: np.ndarray, problem: Problem, knobs: Knobs) -> np.ndarray:
        """Return the weights as they are, or with the channels that are summed over last."""
        return np.ascontiguousarray(np.moveaxis(raised_weight(weight), 1, -1) if _is_last(knobs) else weight)  # fmt: skip

    def compute(self, problem: Problem, target: Target, knobs: Knobs) -> list[te.Tensor]:
        """Return data, weight, extras..., result: the call, and what of the epilogue it does not fuse."""
        last = _is_last(knobs)
        spec = raised(problem.spec) if last else problem.spec
        fused, rest = _split(problem)
        order = self.operands(problem, target, knobs)
        result = order.result.physical(spec.output)
        x = te.placeholder(order.data.physical(spec.data), spec.dtype, name="data")
        k, c, *taps = spec.weight
        w = te.placeholder((k, *taps, c) if last else spec.weight, spec.dtype, name="weight")
        extras = blocked_extras(problem, 1, spec.out_channels, result) if last else plain_extras(problem)  # fmt: skip
        inside = sum(s.takes_operand for s in fused)
        text = str(_description(problem, knobs, fused))

        y = library_call(CALL, text, [x, w, *extras[:inside]], result, spec.dtype)

        def bias(sums: te.Tensor, b: te.Tensor) -> te.Tensor:
            def biased(n: Any, k: Any, *p: Any) -> Any:
                return sums(n, k, *p) + (b[k, p[-1]] if last else b[k])

            return te.compute(sums.shape, biased, name="bias_add")

        return [x, w, *extras, apply_steps(y, rest, extras[inside:], bias)]

    def in_way(self, knobs: Knobs, way: str) -> Knobs:
        """Return the knobs with one of cuDNN's or Theano's names for how to choose, and nothing that a record's measurement allowed.

        That is its engine, and engines that transform or are compiled where they run: nobody has asked for those by the name.

        Example:
            >>> ALGORITHM.in_way({"policy": 0, "engine": 45, "rank": 2, "setting_2": 5}, "small")
            {'policy': 4, 'engine': -1, 'rank': 0, 'transforms': 0, 'compiles': 0}
        """
        own = {name: value for name, value in knobs.items() if not self.is_setting(name)}
        usual = {"engine": -1, "rank": 0, "transforms": 0, "compiles": 0}
        return {**own, "policy": POLICIES.index(way), **usual}

    def settled(self, knobs: Knobs, words: str) -> Knobs:
        """Return the knobs that name the engine and its settings which cuDNN has taken, so that nothing is searched where a module runs.

        Args:
            knobs: by which it was chosen.
            words: of the shim's `CALL_PLAN`.

        Example:
            >>> ALGORITHM.settled({"engine": -1, "rank": 2}, "engine=45;knobs=2:5,14:6;workspace=0")
            {'engine': 45, 'rank': 2, 'needed_bytes': 0, 'setting_2': 5, 'setting_14': 6}
        """
        fields = dict(part.split("=") for part in words.split(";"))
        pairs = [pair.split(":") for pair in fields["knobs"].split(",") if pair]
        settings = {f"{_SETTING}{name}": int(value) for name, value in pairs}
        return {
            **knobs,
            "engine": int(fields["engine"]),
            cudnn_settings.NEEDED: int(fields["workspace"]),
            **settings,
        }

    def is_setting(self, name: str) -> bool:
        """Whether the knob is a setting of an engine, or the memory that it took."""
        return name.startswith(_SETTING) or name == cudnn_settings.NEEDED

    def question(
        self, problem: Problem, knobs: Knobs, arguments: Sequence[Any]
    ) -> tuple[str, list[Any]]:
        """Return the shim's function that says which engine a call takes, the call's description and its tensors."""
        fused, _ = _split(problem)
        operands = 2 + sum(step.takes_operand for step in fused)
        text = str(_description(problem, knobs, fused))
        return CALL_PLAN.removeprefix("__tvm_ffi_"), [text, *arguments[:operands], arguments[-1]]


def settings_of(knobs: Knobs) -> tuple[tuple[int, int], ...]:
    """Return cuDNN's numbers of an engine's settings and their values among the knobs, in the order of the knobs' names.

    Example:
        >>> settings_of({"engine": 45, "setting_14": 6, "setting_2": 5})
        ((14, 6), (2, 5))
    """
    own = sorted(name for name in knobs if name.startswith(_SETTING))
    return tuple((int(name.removeprefix(_SETTING)), knobs[name]) for name in own)


def _is_last(knobs: Knobs) -> bool:
    # Records from before there was a choice lack it.
    return bool(knobs.get("channels_last", 0))


def _split(problem: Problem) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Return the steps that cuDNN fuses (a bias, a residual behind it, then relu or clip), and the others."""
    steps = problem.epilogue
    # A residual without a bias before it: cuDNN 9.19 offers no engine on an H200.
    if problem.spec.transposed or (steps and steps[0].name == "add"):
        return (), steps
    count, seen = 0, set()
    for step in steps:
        if step.name in seen or step.name not in ("bias", "add"):
            break
        seen.add(step.name)
        count += 1
    if count < len(steps) and steps[count].name in ("relu", "clip"):
        count += 1
    return steps[:count], steps[count:]


def _description(problem: Problem, knobs: Knobs, fused: tuple[Step, ...]) -> Description:
    # Blocks of a line are an image of height 1, see `View.raised`.
    spec = raised(problem.spec) if _is_last(knobs) else problem.spec
    return Description(
        "data_gradient" if spec.transposed else "forward",
        spec.strides,
        spec.pads[: spec.rank],
        spec.dilations,
        steps=tuple(":".join((s.name, *map(repr, s.arguments))) for s in fused),
        strict=bool(knobs["strict"]),
        transforms=bool(knobs["transforms"]),
        # Records from before there was a choice lack it.
        compiles=bool(knobs.get("compiles", 0)),
        rank=knobs["rank"],
        policy=POLICIES[knobs["policy"]],
        deterministic=bool(knobs["deterministic"]),
        workspace=knobs["workspace_mib"] << 20,
        channels_last=_is_last(knobs),
        engine=None if knobs["engine"] < 0 else knobs["engine"],
        knobs=settings_of(knobs),
        spec=problem.key,
    )


def schedule(func: tirx.PrimFunc, knobs: Knobs, target: Target) -> tirx.PrimFunc:
    """Return the call as it is, and what follows it as one kernel."""
    return schedule_behind(func, target).with_attr(LIBRARY, "cudnn")


ALGORITHM = Cudnn()
