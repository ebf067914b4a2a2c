"""Program -> machine code, manifest and weights: everything that a packaged module is linked from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tvm

from convc.lowering import package
from convc.lowering.entry import ENTRY, Offsets, entry_function, offset_of
from convc.lowering.memory import Lifetime, plan_arena
from convc.lowering.program import Kernel, Program
from convc.runtime import manifest as form
from convc.schedules.backend import backend_of
from convc.target import Target
from convc.toolchain import installed_version

__all__ = ["Built", "build"]

_WEIGHT_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Built:
    """Machine code with what goes beside it into the file.

    Attributes:
        objects: contents of relocatable object files.
        manifest: without the weights' hash, which `export` fills in.
        weights: (offset, array) in ascending order.
    """

    objects: tuple[bytes, ...]
    manifest: form.Manifest
    weights: tuple[tuple[int, np.ndarray], ...]

    def export(self, destination: Path) -> form.Manifest:
        """Link the packaged module at `destination` and return its manifest."""
        with TemporaryDirectory(prefix="convc-") as folder:
            paths = []
            for index, content in enumerate(self.objects):
                path = Path(folder) / f"part{index}.o"
                path.write_bytes(content)
                paths.append(path)
            return package.link(paths, self.manifest, self.weights, destination)


def build(
    program: Program,
    target: Target,
    *,
    graph_sha256: str = "",
    options: Mapping[str, str] | None = None,
    convc_version: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Built:
    """Return the program's machine code.

    Args:
        program: the calls.
        target: the machine.
        graph_sha256: hash of the graph it came from, for the manifest.
        options: what the user asked for, for the manifest.
        convc_version: for the manifest.
        progress: called with (kernels scheduled, kernels in all).
    """
    arena_offsets, arena_bytes = _place_buffers(program)
    weight_offsets, weights_bytes = _place_weights(program)
    # A space of names each: an arena buffer may be called like a weight, an input or an output.
    offsets = {"arena": arena_offsets, "weights": weight_offsets}
    kernels: dict[str, Kernel] = {c.kernel.symbol: c.kernel for c in program.calls}
    functions = {}
    for done, (symbol, kernel) in enumerate(kernels.items()):
        progress(done, len(kernels))
        functions[symbol] = kernel.make()
    functions[ENTRY] = entry_function(program, offsets, weights_bytes, arena_bytes)
    objects = backend_of(target).compile(tvm.IRModule(functions), target)
    progress(len(kernels), len(kernels))
    manifest = form.Manifest(
        name=program.name,
        convc=convc_version,
        tvm=installed_version("apache-tvm") or "",
        tvm_ffi=installed_version("apache-tvm-ffi") or "",
        target=_target_info(target),
        entry=ENTRY,
        inputs=tuple(form.Tensor(*t) for t in program.inputs),
        outputs=tuple(form.Tensor(*t) for t in program.outputs),
        arena_bytes=arena_bytes,
        weights_bytes=weights_bytes,
        graph_sha256=graph_sha256,
        threads=target.cores,
        steps=tuple(_steps(program, offsets)),
        options=dict(options or {}),
    )
    weights = tuple((weight_offsets[name], array) for name, array in program.weights.items())
    return Built(objects, manifest, weights)


def _target_info(target: Target) -> form.TargetInfo:
    code: tuple[str, ...] = ()
    if target.device is not None:
        gpu = target.device
        code = tuple(f"sm_{sm}" for sm in gpu.every_sm)
        code += (f"ptx_{min(gpu.every_sm)}",) if gpu.ptx else ()
    return form.TargetInfo(target.kind, target.triple, target.mcpu, target.features, code)


def _place_buffers(program: Program) -> tuple[dict[str, int], int]:
    """Return the arena's plan: a buffer lives from the first call that touches it to the last."""
    lifetimes: dict[str, Lifetime] = {}
    for index, call in enumerate(program.calls):
        for argument in call.arguments:
            buffer = argument.buffer
            if buffer.space == "arena":
                first = lifetimes[buffer.name].first if buffer.name in lifetimes else index
                lifetimes[buffer.name] = Lifetime(buffer.nbytes, first, index)
    return plan_arena(lifetimes)


def _place_weights(program: Program) -> tuple[dict[str, int], int]:
    offsets, end = {}, 0
    for name, array in program.weights.items():
        offsets[name] = end
        end = -(-(end + array.nbytes) // _WEIGHT_ALIGNMENT) * _WEIGHT_ALIGNMENT
    return offsets, end


def _steps(program: Program, offsets: Offsets) -> list[form.Step]:
    steps = []
    for call in program.calls:
        arguments = []
        for argument in call.arguments:
            view, buffer = argument.view, argument.buffer
            arguments.append(
                form.Argument(
                    buffer.space,
                    view.shape,
                    view.dtype,
                    buffer.index,
                    offset_of(buffer, offsets) + view.offset,
                    () if view.is_compact else view.strides,
                )
            )
        steps.append(
            form.Step(
                symbol=call.kernel.symbol,
                node=call.node,
                op=call.op,
                algorithm=call.algorithm,
                reason=call.reason,
                knobs=dict(call.knobs),
                key=call.spec,
                flops=call.flops,
                nbytes=call.nbytes,
                arguments=tuple(arguments),
            )
        )
    return steps
