"""The manifest of a packaged module: what it computes, for which machine, and its steps one by one.

The manifest is UTF-8 JSON in the ELF section `.convc.manifest` of the module's file, so it is read without running any of the
module's code. Unknown fields are ignored and new fields get defaults, so that a file of the same `FORMAT` stays readable.

CALLING CONVENTION of the entry function and of every step, all arguments contiguous and 64-byte aligned DLTensors:

    entry(weights: uint8[max(weights_bytes, 64)], arena: uint8[max(arena_bytes, 64)], input_0, ..., output_0, ...)
    step(argument_0, ..., argument_n)          with each argument a typed window into one of those buffers

Where the manifest gives a window strides, or an offset that is no multiple of 64, its kernel was built for exactly that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from convc.errors import PackageError
from convc.runtime.manifest_parts import (
    Area,
    Argument,
    Knob,
    Open,
    Resampling,
    Step,
    TargetInfo,
    Tensor,
)
from convc.runtime.manifest_rules import (
    check_argument,
    check_count,
    check_counts,
    check_resampling,
    check_type,
)

__all__ = [
    "ALIGNMENT",
    "FORMAT",
    "Area",
    "Argument",
    "Knob",
    "Manifest",
    "Open",
    "Resampling",
    "Sized",
    "Step",
    "TargetInfo",
    "Tensor",
    "Variant",
    "buffer_bytes",
    "check",
    "decode",
    "encode",
]

FORMAT: Final = 1
# Every buffer a kernel sees: one cache line, one AVX-512 register. TVM emits aligned vector loads for it.
ALIGNMENT: Final = 64


class Sized(msgspec.Struct, frozen=True, kw_only=True):
    """The code of a module with a symbolic batch for one CPU and one more number of samples."""

    batch: int
    entry: str
    arena_bytes: int = 0
    workspace_bytes: int = 0
    early: int = 0
    steps: tuple[Step, ...] = ()


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """The code of a module for one CPU: what differs between CPUs. All variants share the weights' section.

    `workspace_bytes` is the most scratch memory, outside the arena, that one thread takes at any time; `early` counts
    a device's kernels that begin while the one before ends (`--early`). With a symbolic batch,
    `batch` is the largest number of samples that there is code for, else 0; `smaller` are the others, in descending order.
    """

    target: TargetInfo
    batch: int = 0
    entry: str = "main"
    arena_bytes: int = 0
    workspace_bytes: int = 0
    early: int = 0
    steps: tuple[Step, ...] = ()
    smaller: tuple[Sized, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a packaged module except its code and its weights.

    The fields that a `Variant` has too are the first variant's; `variants` are the others. `convc.runtime.variants` chooses.
    A reader that knows of no symbolic batch finds a module of fixed shapes, those of the largest number of samples. One that knows of
    no open height and width finds the code of the largest area, whose masks are inputs; `open` names the inputs that have them, `least`
    the smallest height and width, `areas` all code, the largest area first.
    """

    format: int = FORMAT
    name: str
    convc: str
    tvm: str
    tvm_ffi: str
    target: TargetInfo
    batch: int = 0
    entry: str = "main"
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    arena_bytes: int = 0
    workspace_bytes: int = 0
    early: int = 0
    weights_bytes: int = 0
    weights_sha256: str = ""
    graph_sha256: str = ""
    threads: int = 1
    steps: tuple[Step, ...] = ()
    smaller: tuple[Sized, ...] = ()
    options: dict[str, str] = {}
    variants: tuple[Variant, ...] = ()
    open: tuple[str, ...] = ()
    least: tuple[int, int] = (1, 1)
    areas: tuple[Area, ...] = ()


class _Header(msgspec.Struct, frozen=True):
    """The one field that every format has, past and future."""

    format: int


def buffer_bytes(nbytes: int) -> int:
    """Return the size of the weights or arena buffer: never empty, so that it always has an address."""
    return max(nbytes, ALIGNMENT)


def encode(manifest: Manifest) -> bytes:
    """Return the manifest as JSON; equal manifests give equal bytes, whatever order their dicts were filled in."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1)


def decode(data: bytes | memoryview) -> Manifest:
    """Return the manifest in `data`, checked.

    Raises:
        PackageError: if the text is not a manifest, its format is newer than this convc, or it contradicts itself.
    """
    header = _decode(data, _Header)
    if header.format > FORMAT or header.format < 1:
        raise PackageError(
            f"module must have a format from 1 to {FORMAT}; got {header.format}."
            + (" Upgrade convc to read it." if header.format > FORMAT else "")
        )
    manifest = _decode(data, Manifest)
    check(manifest)
    return manifest


_Struct = TypeVar("_Struct", bound=msgspec.Struct)


def _decode(data: bytes | memoryview, kind: type[_Struct]) -> _Struct:
    try:
        return msgspec.json.decode(data, type=kind)
    # msgspec lets a wrong UTF-8 sequence and deep nesting through as Python's own errors.
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PackageError(
            f"module's manifest must be JSON of format {FORMAT}; got {error}."
        ) from None


def check(manifest: Manifest) -> None:
    """Raise if the manifest contradicts itself: a wrong size, an unknown type, a window outside its buffer.

    Raises:
        PackageError: names the field, the rule and the value.
    """
    check_count("weights_bytes", manifest.weights_bytes)
    check_count("threads", manifest.threads, least=1)
    for kind, tensors in (("input", manifest.inputs), ("output", manifest.outputs)):
        names = [tensor.name for tensor in tensors]
        if len(set(names)) != len(names):
            raise PackageError(f"{kind} names must differ; got {', '.join(names)}.")
        for tensor in tensors:
            check_type(f"{kind} '{tensor.name}'", tensor.shape, tensor.dtype)
            if tensor.rows and tensor.shape[:1] != (tensor.rows * manifest.batch,):
                raise PackageError(f"{kind} '{tensor.name}' must have {tensor.rows} rows a sample; got {tensor.shape}.")  # fmt: skip
    check_counts(manifest.outputs)
    sizes = {
        "input": [tensor.nbytes for tensor in manifest.inputs],
        "output": [tensor.nbytes for tensor in manifest.outputs],
        "weights": [buffer_bytes(manifest.weights_bytes)],
    }
    for variant in (manifest, *manifest.variants):
        found = [variant.batch, *(part.batch for part in variant.smaller)]
        if found[0] != manifest.batch or found != sorted({*found}, reverse=True) or 0 in found[1:]:
            raise PackageError(f"batch sizes must be {manifest.batch} and smaller; got {found}.")
        for part in (variant, *variant.smaller):
            _check_variant(part, sizes)
    for area in manifest.areas:
        _check_area(manifest, area, sizes["weights"])


def _check_area(manifest: Manifest, area: Area, weights: list[int]) -> None:
    for tensor in (*area.inputs, *area.outputs):
        check_type(f"'{tensor.name}'", tensor.shape, tensor.dtype)
    names = {tensor.name for tensor in (*area.inputs, *area.outputs)}
    unknown = {*area.masks, *area.crops, *manifest.open} - names
    unknown |= area.filled - names
    tables = (*area.masks.values(), *area.crops.values())
    if unknown or any((len(t.rows), len(t.cols)) != (area.height, area.width) for t in tables):
        raise PackageError(f"area {area.height} x {area.width} must have a table for each of its sizes; got {area.masks} and {area.crops}.")  # fmt: skip
    shapes = {tensor.name: tensor.shape for tensor in area.inputs}
    for row in area.resamplings:
        check_resampling(row, shapes, (area.height, area.width))
    sizes = {"input": [t.nbytes for t in area.inputs], "output": [t.nbytes for t in area.outputs], "weights": weights}  # fmt: skip
    _check_variant(area, sizes)


def _check_variant(
    variant: Manifest | Variant | Sized | Area, sizes: Mapping[str, list[int]]
) -> None:
    check_count("arena_bytes", variant.arena_bytes)
    check_count("workspace_bytes", variant.workspace_bytes)
    every = {**sizes, "arena": [buffer_bytes(variant.arena_bytes)]}
    for step in (s for run in variant.steps for s in (run, *run.otherwise)):
        for position, argument in enumerate(step.arguments):
            check_argument(f"argument {position} of step '{step.symbol}'", argument, every)
