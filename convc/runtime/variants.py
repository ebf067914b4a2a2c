"""Which of a module's variants a machine runs.

A module may hold code for several CPUs, each with its own plan and its own entry function. The loader takes, of those whose
instruction sets this CPU has, the one that needs most of them; the first of equals. No code is loaded to decide this.

With a symbolic batch, each has code for several numbers of samples, which `by_size` lists; a run uses them all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from convc.errors import unknown_name
from convc.runtime.manifest import Manifest, Sized, TargetInfo, Tensor, Variant

__all__ = [
    "by_area",
    "by_size",
    "choose",
    "every_variant",
    "fits",
    "named",
    "only",
    "ports",
    "runnable",
]


def every_variant(manifest: Manifest) -> tuple[Variant, ...]:
    """Return all variants, the manifest's own first."""
    first = Variant(**{name: getattr(manifest, name) for name in Variant.__struct_fields__})
    return (first, *manifest.variants)


def fits(target: TargetInfo, machine: str, features: Collection[str]) -> bool:
    """Return whether a CPU of an architecture (LLVM's name) with these instruction sets can run code for `target`.

    Example:
        >>> v3 = TargetInfo("llvm", "x86_64-linux-gnu", "x86-64-v3", ("avx2", "fma"))
        >>> fits(v3, "x86_64", {"avx2", "fma", "avx512f"}), fits(v3, "x86_64", {"avx2"}), fits(v3, "aarch64", {"avx2", "fma"})
        (True, False, False)
    """
    return target.triple.partition("-")[0] == machine and set(target.features) <= set(features)


def choose(manifest: Manifest, machine: str, features: Collection[str]) -> Variant | None:
    """Return the best variant for a CPU, or None if it can run none of them."""
    return next(iter(runnable(manifest, machine, features)), None)


def runnable(manifest: Manifest, machine: str, features: Collection[str]) -> tuple[Variant, ...]:
    """Return all variants that a CPU can run, the one that it takes first."""
    fitting = [v for v in every_variant(manifest) if fits(v.target, machine, features)]
    return tuple(sorted(fitting, key=lambda v: len(v.target.features), reverse=True))


def named(manifest: Manifest, mcpu: str) -> Variant:
    """Return the variant for the CPU that LLVM calls `mcpu`.

    Raises:
        UnknownNameError: if there is none.
    """
    by_name = {v.target.mcpu: v for v in every_variant(manifest)}
    if mcpu not in by_name:
        raise unknown_name("module's CPU", mcpu, tuple(by_name))
    return by_name[mcpu]


def only(manifest: Manifest, variant: Variant) -> Manifest:
    """Return the manifest of the module as if it had this one variant."""
    return msgspec.structs.replace(
        manifest,
        variants=(),
        **{name: getattr(variant, name) for name in variant.__struct_fields__},
    )


def by_size(manifest: Manifest) -> dict[int, Manifest]:
    """Return number of samples -> manifest of the module as if it had that one fixed size, the manifest's own CPU's, largest first.

    Without a symbolic batch there is one, for 0.

    Example:
        >>> info = TargetInfo("llvm", "x86_64-linux-gnu", "znver4")
        >>> x, one = Tensor("x", (8, 3), "float32", rows=1), Sized(batch=1, entry="v1_main")
        >>> m = Manifest(name="m", convc="", tvm="", tvm_ffi="", target=info, batch=8, inputs=(x,), outputs=(), smaller=(one,))
        >>> {n: (part.entry, part.inputs[0].shape) for n, part in by_size(m).items()}
        {8: ('main', (8, 3)), 1: ('v1_main', (1, 3))}
    """
    parts: tuple[Manifest | Sized, ...] = (manifest, *manifest.smaller)
    return {
        part.batch: msgspec.structs.replace(
            manifest,
            batch=0,
            entry=part.entry,
            arena_bytes=part.arena_bytes,
            workspace_bytes=part.workspace_bytes,
            steps=part.steps,
            smaller=(),
            inputs=ports(manifest.inputs, part.batch),
            outputs=ports(manifest.outputs, part.batch),
        )
        for part in parts
    }


def by_area(manifest: Manifest) -> list[Manifest]:
    """Return the manifest of the module as if it had that one area, for each area in the manifest's order."""
    fields = ("entry", "inputs", "outputs", "arena_bytes", "workspace_bytes", "steps")
    return [
        msgspec.structs.replace(
            manifest, areas=(), open=(), **{f: getattr(area, f) for f in fields}
        )
        for area in manifest.areas
    ]


def ports(tensors: Iterable[Tensor], size: int) -> tuple[Tensor, ...]:
    """Return inputs or outputs with the fixed shapes that they have at a number of samples."""
    return tuple(
        msgspec.structs.replace(t, shape=(t.rows * size, *t.shape[1:]), rows=0) if t.rows else t
        for t in tensors
    )
