"""Program -> machine code, manifest and weights: everything that a packaged module is linked from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import tvm
from tvm import tirx

from convc.ir.types import Shape
from convc.lowering import package
from convc.lowering.entry import ENTRY, Offsets, entry_functions, offset_of
from convc.lowering.memory import Lifetime, plan_arena
from convc.lowering.program import Call, Program
from convc.runtime import manifest as form
from convc.schedules.backend import backend_of
from convc.schedules.findings import collect
from convc.schedules.part_names import part_prefix
from convc.target import Target
from convc.toolchain import installed_version

__all__ = ["Batch", "Built", "build", "build_variants"]

_WEIGHT_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Batch:
    """A symbolic batch as it is compiled.

    Attributes:
        sizes: numbers of samples that there is code for, largest first.
        inputs, outputs: name -> rows of the leading axis for each sample; those that do not depend on the batch are left out.
    """

    sizes: tuple[int, ...]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


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

    def export(self, destination: Path, compiler: str = "g++") -> form.Manifest:
        """Link the packaged module at `destination` with a C++ compiler's driver and return its manifest."""
        with TemporaryDirectory(prefix="convc-") as folder:
            paths = []
            for index, content in enumerate(self.objects):
                path = Path(folder) / f"part{index}.o"
                path.write_bytes(content)
                paths.append(path)
            return package.link(paths, self.manifest, self.weights, destination, compiler=compiler)


def build(program: Program, target: Target) -> Built:
    """Return the machine code of one program for one CPU, as `build_variants`."""
    return build_variants([(program, target)])


def build_variants(
    parts: Sequence[tuple[Program, Target]],
    *,
    batch: Batch | None = None,
    graph_sha256: str = "",
    options: Mapping[str, str] | None = None,
    convc_version: str = "",
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
    alternatives: bool = False,
) -> Built:
    """Return the machine code of one model for one or several CPUs.

    Args:
        parts: the model's program for each CPU, and for each batch size, a CPU's one after the other, largest first. The weights
            of all are one block, in which equal arrays lie once.
        batch: the sizes and ports of a symbolic batch.
        graph_sha256: hash of the graph it came from, for the manifest.
        options: what the user asked for, for the manifest.
        convc_version: for the manifest.
        progress: called with (kernels done, kernels in all, what is at hand): those scheduled, and those that another compiler makes.
        alternatives: the parts are programs for one target in place of one another: what they have in common is compiled once.
    """
    weights = _Weights(shared=len(parts) > 1)
    # All placed before any code is made: every entry function is told the size of the whole.
    weight_offsets = [weights.place(program) for program, _ in parts]
    kernels = [program.kernels for program, _ in parts]
    total = len({s for k in kernels for s in k}) if alternatives else sum(map(len, kernels))

    def compilers(finished: int, more: int, what: str) -> None:
        progress(done + finished, total + more, what)

    objects: list[bytes] = []
    made: list[form.Variant] = []
    done = 0
    for numbers in [range(len(parts))] if alternatives else _compiled_together(parts):
        functions: dict[str, tirx.PrimFunc] = {}
        placed: list[tuple[int, Offsets, int]] = []
        for number in numbers:
            program = parts[number][0]
            arena_offsets, arena_bytes = _place_buffers(program)
            # A space of names each: an arena buffer may be called like a weight, an input or an output.
            offsets = {"arena": arena_offsets, "weights": weight_offsets[number]}
            placed.append((number, offsets, arena_bytes))
            prefix = "" if alternatives else part_prefix(number)
            for symbol, kernel in kernels[number].items():
                if prefix + symbol in functions:
                    continue
                progress(done, total, "")
                func = kernel.make()
                functions[prefix + symbol] = (
                    func.with_attr("global_symbol", prefix + symbol) if prefix else func
                )
                done += 1
            # A device's launches are recorded and ordered as one function's.
            whole = parts[number][1].device is not None
            functions |= entry_functions(
                program, offsets, weights.nbytes, arena_bytes, part_prefix(number), prefix, whole=whole
            )  # fmt: skip
        target = parts[numbers[0]][1]
        with collect() as found:
            module = tvm.IRModule(functions)
            objects += backend_of(target).compile(module, target, compilers)
        made += [
            form.Variant(
                target=_target_info(target),
                batch=batch.sizes[number % len(batch.sizes)] if batch else 0,
                entry=part_prefix(number) + ENTRY,
                arena_bytes=arena_bytes,
                workspace_bytes=found.workspace_bytes,
                early=found.early[number],
                steps=tuple(
                    _steps(
                        parts[number][0].calls, offsets, "" if alternatives else part_prefix(number)
                    )
                ),
            )
            for number, offsets, arena_bytes in placed
        ]
    progress(total, total, "")
    step = len(batch.sizes) if batch else 1
    variants = [_joined(made[i : i + step]) for i in range(0, len(made), step)]
    (program, target), first = parts[0], variants[0]
    rows, rows_out = (batch.inputs, batch.outputs) if batch else ({}, {})
    manifest = form.Manifest(
        name=program.name,
        convc=convc_version,
        tvm=installed_version("apache-tvm") or "",
        tvm_ffi=installed_version("apache-tvm-ffi") or "",
        target=first.target,
        batch=first.batch,
        entry=first.entry,
        inputs=tuple(form.Tensor(*t, rows.get(t[0], 0)) for t in program.inputs),
        outputs=tuple(_output(program, t, rows_out.get(t[0], 0)) for t in program.outputs),
        arena_bytes=first.arena_bytes,
        workspace_bytes=first.workspace_bytes,
        early=first.early,
        weights_bytes=weights.nbytes,
        graph_sha256=graph_sha256,
        threads=target.cores,
        steps=first.steps,
        smaller=first.smaller,
        options=dict(options or {}),
        variants=tuple(variants[1:]),
    )
    return Built(tuple(objects), manifest, tuple(weights.arrays))


def _compiled_together(parts: Sequence[tuple[Program, Target]]) -> list[range]:
    """Return which parts share an object: a library holds one block of a device's kernels, so all that are for a device do."""
    if parts[0][1].device is not None:
        return [range(len(parts))]
    return [range(number, number + 1) for number in range(len(parts))]


def _output(program: Program, port: tuple[str, Shape, str], rows: int) -> form.Tensor:
    count, axis = program.counts.get(port[0], ("", 0))
    return form.Tensor(*port, rows, count, axis)


def _joined(sizes: Sequence[form.Variant]) -> form.Variant:
    """Return the variant of one CPU from those for each of its batch sizes, largest first."""
    first, *others = sizes
    fields = form.Sized.__struct_fields__
    smaller = (form.Sized(**{name: getattr(v, name) for name in fields}) for v in others)
    return msgspec.structs.replace(first, smaller=tuple(smaller))


def _target_info(target: Target) -> form.TargetInfo:
    device = target.device
    code, options = (device.code, device.options) if device is not None else ((), ())
    return form.TargetInfo(target.kind, target.triple, target.mcpu, target.features, code, options)


def _place_buffers(program: Program) -> tuple[dict[str, int], int]:
    """Return the arena's plan: a buffer lives from the first call that touches it to the last."""
    lifetimes: dict[str, Lifetime] = {}
    for index, call in enumerate(program.calls):
        for argument in (a for c in (call, *call.otherwise) for a in c.arguments):
            buffer = argument.buffer
            if buffer.space == "arena":
                first = lifetimes[buffer.name].first if buffer.name in lifetimes else index
                lifetimes[buffer.name] = Lifetime(buffer.nbytes, first, index)
    return plan_arena(lifetimes)


@dataclass(slots=True)
class _Weights:
    """The weights of all variants in one block; an array that another variant has already placed is not placed again."""

    shared: bool
    arrays: list[tuple[int, np.ndarray]] = field(default_factory=list)
    nbytes: int = 0
    _placed: dict[bytes, int] = field(default_factory=dict)

    def place(self, program: Program) -> dict[str, int]:
        """Return the offset of each of the program's weights."""
        offsets, new = {}, {}
        for name, array in program.weights.items():
            # One variant's weights are not hashed: a second's work for some models, and nothing to share it with.
            key = (
                hashlib.sha256(array.reshape(-1).view(np.uint8).data).digest()
                if self.shared
                else b""
            )
            offset = self._placed.get(key)
            if offset is None:
                offset = self.nbytes
                self.arrays.append((offset, array))
                end = offset + array.nbytes
                self.nbytes = -(-end // _WEIGHT_ALIGNMENT) * _WEIGHT_ALIGNMENT
                if self.shared:
                    new[key] = offset
            offsets[name] = offset
        self._placed |= new
        return offsets


def _steps(calls: Sequence[Call], offsets: Offsets, prefix: str) -> list[form.Step]:
    steps = []
    for call in calls:
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
                symbol=prefix + call.kernel.symbol,
                node=call.node,
                op=call.op,
                algorithm=call.algorithm,
                reason=call.reason,
                knobs=dict(call.knobs),
                key=call.spec,
                flops=call.flops,
                nbytes=call.nbytes,
                arguments=tuple(arguments),
                otherwise=tuple(_steps(call.otherwise, offsets, prefix)),
            )
        )
    return steps
