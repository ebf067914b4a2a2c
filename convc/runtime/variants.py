"""Which of a module's variants a machine runs.

A module may hold code for several CPUs, each with its own plan and its own entry function. The loader takes, of those whose
instruction sets this CPU has, the one that needs most of them; the first of equals. No code is loaded to decide this.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from convc.errors import unknown_name
from convc.runtime.manifest import Manifest, TargetInfo, Variant

__all__ = ["choose", "every_variant", "fits", "named", "only", "runnable"]


def every_variant(manifest: Manifest) -> tuple[Variant, ...]:
    """Return all variants, the manifest's own first."""
    first = Variant(
        target=manifest.target,
        entry=manifest.entry,
        arena_bytes=manifest.arena_bytes,
        workspace_bytes=manifest.workspace_bytes,
        steps=manifest.steps,
    )
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
