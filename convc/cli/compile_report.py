"""What `convc compile` says about what it made, as a document and as lines."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from convc.cli.manifest_view import areas_text
from convc.cli.render import console, count, mebibytes, seconds

if TYPE_CHECKING:
    from convc.compiler import CompiledModel
    from convc.runtime.manifest import Step
    from convc.verify import VerifyReport

__all__ = ["document", "show", "why_not_here"]


def why_not_here(compiled: CompiledModel) -> str:
    """Return why the module cannot run on this machine although it was built; empty if nothing is known to be missing."""
    from convc.runtime import host
    from convc.runtime.driver import look
    from convc.runtime.variants import choose

    manifest, cpu = compiled.manifest, host.cpu()
    if choose(manifest, cpu.machine, cpu.features) is None:
        return f"this machine is {cpu.machine} ({cpu.name}), the module is for {manifest.target.triple} {manifest.target.mcpu}"
    return look().problem if manifest.target.device else ""


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())


def document(
    model: Path,
    path: Path,
    compiled: CompiledModel,
    reports: dict[str, VerifyReport],
    stages: dict[str, float],
    total: float,
) -> dict[str, object]:
    """Return the document that --json prints; times in seconds, errors by LLVM's name of the CPU."""
    manifest = compiled.manifest
    return {
        "model": str(model),
        "module": str(path),
        "module_bytes": _size(path),
        "target": manifest.target,
        "threads": manifest.threads,
        "steps": len(manifest.steps),
        "algorithms": _algorithms(compiled),
        "fallback_layers": [s.node for s in manifest.steps if s.otherwise],
        "fallback_bytes": _fallback_bytes(compiled),
        "tuning": compiled.planned.tuning,
        "untuned": [name for name, _ in compiled.plan.untuned],
        "batch_sizes": compiled.batch_sizes,
        "areas": [a.size for a in manifest.areas],
        "flops": sum(s.flops for s in manifest.steps),
        "weights_bytes": manifest.weights_bytes,
        "arena_bytes": manifest.arena_bytes,
        "max_relative_error": _worst(reports),
        "reference": next((r.reference for r in reports.values()), None),
        "verified": {mcpu: r.max_relative_error for mcpu, r in reports.items()},
        "stages_seconds": stages,
        "seconds": total,
    }


def _target(compiled: CompiledModel) -> str:
    target, threads = compiled.manifest.target, compiled.manifest.threads
    if target.device:
        return " ".join((target.kind, *target.device, *target.options))
    return f"{target.kind} {target.mcpu}, {threads} thread{'s' if threads > 1 else ''}"


def _worst(reports: dict[str, VerifyReport]) -> float | None:
    return max((r.max_relative_error for r in reports.values()), default=None)


def _which(compiled: CompiledModel, reports: dict[str, VerifyReport]) -> str:
    """Return which of several CPUs' code was verified, and which this machine cannot run."""
    from convc.runtime.variants import every_variant

    names = [v.target.mcpu for v in every_variant(compiled.manifest)]
    if len(names) == 1:
        return ""
    left = [name for name in names if name not in reports]
    also = f"; not {', '.join(left)}, which this machine cannot run" if left else ""
    return f", for {', '.join(reports)}{also}"


def _algorithms(compiled: CompiledModel) -> dict[str, int]:
    return dict(Counter(s.algorithm for s in compiled.manifest.steps if s.algorithm).most_common())


def _own(compiled: CompiledModel) -> list[Step]:
    """Return the steps of convc's own that stand beside a library's."""
    return [own for step in compiled.manifest.steps for own in step.otherwise]


def _fallback_bytes(compiled: CompiledModel) -> int:
    """Return what their weights take of the module, where they are not the library's own."""
    shared = {
        (a.offset) for s in compiled.manifest.steps for a in s.arguments if a.space == "weights"
    }
    windows = {
        (a.offset, a.extent) for s in _own(compiled) for a in s.arguments if a.space == "weights"
    }
    return sum(extent for offset, extent in windows if offset not in shared)


def _fallback(compiled: CompiledModel) -> str:
    layers = sum(bool(step.otherwise) for step in compiled.manifest.steps)
    return f"convc's own kernel beside {layers} of cuDNN's calls, for devices that refuse them; {mebibytes(_fallback_bytes(compiled))} of the weights are for it (--no-fallback leaves it out)"


def _tuning(compiled: CompiledModel) -> str:
    planned = compiled.planned
    if planned.records or not compiled.plan.untuned:
        return planned.tuning
    return "no records of this device; chosen by estimate. `convc tune MODEL` measures"


def show(
    path: Path,
    compiled: CompiledModel,
    reports: dict[str, VerifyReport],
    stages: dict[str, float],
    total: float,
) -> None:
    """Print the same for people."""
    manifest = compiled.manifest
    flops = sum(s.flops for s in manifest.steps)
    rows = [
        ("module", f"{path} ({mebibytes(_size(path))}), {_target(compiled)}"),
        ("layers", f"{len(compiled.source.compute_nodes)} in the model, {len(manifest.steps)} steps after fusion, {count(flops)}FLOP"),
        ("algorithms", ", ".join(f"{n} x {a}" for a, n in _algorithms(compiled).items()) or "no choice to make"),
        *([("fallback", _fallback(compiled))] if _own(compiled) else []),
        ("tuning", _tuning(compiled)),
        ("memory", f"weights {mebibytes(manifest.weights_bytes)}, arena {mebibytes(manifest.arena_bytes)}"),
        ("time", f"{seconds(total)}: " + ", ".join(f"{stage} {seconds(s)}" for stage, s in stages.items())),
    ]  # fmt: skip
    if sizes := compiled.batch_sizes:
        text = (
            f"any number of samples, in runs of {', '.join(map(str, sizes))}; below: of {sizes[0]}"
        )
        rows.insert(1, ("batch", text))
    for text in areas_text(manifest):
        rows.insert(1, ("areas", f"{text}; below: for the first"))
    if reports:
        first = next(iter(reports.values()))
        verdict = (
            f"max error {_worst(reports):.2g} of the output's magnitude, against {first.reference} on one random input; "
            f"{first.tolerance:.2g} is allowed"
        )
        rows.append(("verified", verdict + _which(compiled, reports)))
    else:
        rows.append(("verified", f"no ({why_not_here(compiled) or '--no-verify'})"))
    for name, value in rows:
        console().print(f"{name:<10}  {value}", markup=False)
