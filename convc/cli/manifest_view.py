"""What `convc inspect` shows of a module: its manifest, and the memory that a run takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from convc.cli.render import Column, Output, console, count, mebibytes, print_json, table

if TYPE_CHECKING:
    from convc.runtime.manifest import Manifest, Step, Tensor

__all__ = ["areas_text", "show_manifest", "show_memory"]


def show_manifest(file: Path, manifest: Manifest, layers: bool, output: Output) -> None:
    """Show everything that a module says about itself.

    Args:
        file: the module's file.
        manifest: the file's.
        layers: one row per step too.
        output: how to answer.
    """
    total = sum(step.flops for step in manifest.steps)
    algorithms = dict(Counter(s.algorithm for s in manifest.steps if s.algorithm).most_common())
    if output.json:
        import msgspec

        document = msgspec.to_builtins(manifest)
        if not layers:
            document["steps"] = len(manifest.steps)
        print_json(
            {
                "kind": "module",
                "file": str(file),
                "flops": total,
                "algorithms": algorithms,
                **document,
            }
        )
        return
    screen = console()
    target = manifest.target
    sizes = [manifest.batch, *(s.batch for s in manifest.smaller)] if manifest.batch else []
    rows = (
        ("module", f"{manifest.name} ({file}, {mebibytes(file.stat().st_size)})"),
        ("target", f"{target.kind} {target.mcpu}, {target.triple}; needs {', '.join(target.features) or 'nothing special'}"),
        *(("device", _device(manifest)) for _ in target.device[:1]),
        ("made by", f"convc {manifest.convc}, apache-tvm {manifest.tvm}, apache-tvm-ffi {manifest.tvm_ffi}"),
        *(("input", f"{t.name}: {t.dtype} {_extents(t)}") for t in manifest.inputs if not manifest.areas or t.name not in manifest.areas[0].filled),
        *(("output", f"{t.name}: {t.dtype} {_extents(t)}{_counted(t)}") for t in manifest.outputs),
        *(("batch", f"N is any number; code for {', '.join(map(str, sizes))}, below: {sizes[0]}") for _ in sizes[:1]),
        *(("areas", f"{text}; steps and memory: of the first") for text in areas_text(manifest)),
        ("steps", f"{len(manifest.steps)}: {', '.join(f'{n} x {a}' for a, n in algorithms.items())}"),
        ("cost", f"{count(total)}FLOP a run"),
        ("memory", f"weights {mebibytes(manifest.weights_bytes)}, arena {mebibytes(manifest.arena_bytes)}"),
        ("threads", f"planned for {manifest.threads}"),
        *(("option", f"{name} = {value}") for name, value in manifest.options.items()),
        ("graph", f"sha256 {manifest.graph_sha256}"),
        ("weights", f"sha256 {manifest.weights_sha256}"),
    )  # fmt: skip
    for name, value in rows:
        screen.print(f"{name:<8} {value}", markup=False)
    if layers:
        columns = (
            Column("step"),
            Column("op"),
            Column("algorithm"),
            Column("FLOP", True),
            Column("knobs"),
            Column("reason"),
        )
        screen.print(
            table(
                None,
                columns,
                [
                    (s.node, s.op, _algorithm(s), count(s.flops), " ".join(f"{k}={v}" for k, v in s.knobs.items()), s.reason)
                    for s in manifest.steps
                ],
            )
        )  # fmt: skip


def _algorithm(step: Step) -> str:
    """Return what computes a step, and what does where a device refuses that."""
    own = max(step.otherwise, key=lambda s: (s.flops, bool(s.algorithm)), default=None)
    return step.algorithm if own is None else f"{step.algorithm}, else {own.algorithm}"


def _device(manifest: Manifest) -> str:
    """Return what a device's code is, and for each number of samples how its kernels are launched."""
    code = " ".join((*manifest.target.device, *manifest.target.options))
    sizes = (manifest, *manifest.smaller)
    early = ", ".join(
        f"{part.early}{f' of batch {part.batch}' if part.batch else ''}" for part in sizes
    )
    return f"{code}; kernels that begin while the one before ends: {early}"


def _counted(tensor: Tensor) -> str:
    """Return how much of an output is there, where that is data."""
    return f", of axis {tensor.axis} as much as '{tensor.count}' says" if tensor.count else ""


def areas_text(manifest: Manifest) -> tuple[str, ...]:
    """Return what a module with an open height and width takes, as one sentence; none for others."""
    if not manifest.areas:
        return ()
    low, (high, wide) = manifest.least, manifest.areas[0].size
    made = ", ".join(f"{a.height} x {a.width}" for a in manifest.areas)
    return (
        f"any height and width from {low[0]} x {low[1]} to {high} x {wide}, on code for {made}",
    )


def _extents(tensor: Tensor) -> str:
    """Return a port's shape, its symbolic extent as N."""
    rows = {0: [], 1: ["N"]}.get(tensor.rows, [f"{tensor.rows}N"])
    return "x".join(map(str, [*rows, *tensor.shape[len(rows) :]]))


def _of(document: Mapping[str, object]) -> str:
    return f", batch {document['batch']}" if "batch" in document else ""


# What a part of the planned memory is.
_ON_CPU: Final = {
    "weights": "mapped from the file, read-only; once for all contexts and processes",
    "arena": "of each context",
    "workspace": "of each thread of each context",
    "input": "the caller's",
    "output": "the caller's",
    "peak": "one context with one thread; each more adds its arena, inputs and outputs",
}
_ON_DEVICE: Final = {
    "weights": "on the device, once for all contexts of a module; mapped from the file on the host",
    "arena": "of each context, on the device",
    "workspace": "of each context, on the device",
    "input": "the caller's, and as much of each context on the device",
    "output": "the caller's, and as much of each context on the device",
    "peak": "on the device, one context; each more adds all but the weights",
}


def show_memory(file: Path, manifest: Manifest, output: Output) -> None:
    """Show the planned memory of one context on one thread, part by part; a test compares the sum with what the system counts.

    Args:
        file: the module's file.
        manifest: the file's.
        output: how to answer.
    """
    from convc.runtime.manifest import buffer_bytes
    from convc.runtime.variants import every_variant, ports

    documents = []
    parts = [(v, part) for v in every_variant(manifest) for part in (v, *v.smaller)]
    for variant, part in parts:
        documents.append(
            {
                "mcpu": variant.target.mcpu,
                **({"device": list(variant.target.device)} if variant.target.device else {}),
                **({"batch": part.batch} if part.batch else {}),
                "weights_bytes": buffer_bytes(manifest.weights_bytes),
                "arena_bytes": buffer_bytes(part.arena_bytes),
                "workspace_bytes": part.workspace_bytes,
                "input_bytes": sum(t.nbytes for t in ports(manifest.inputs, part.batch)),
                "output_bytes": sum(t.nbytes for t in ports(manifest.outputs, part.batch)),
            }
        )
        documents[-1]["peak_bytes"] = sum(
            v for k, v in documents[-1].items() if k != "batch" and isinstance(v, int)
        )
    if output.json:
        print_json({"kind": "memory", "file": str(file), "variants": documents})
        return
    meaning = _ON_DEVICE if manifest.target.device else _ON_CPU
    for document in documents:
        made_for = ", ".join(manifest.target.device) or document["mcpu"]
        columns = (Column(f"{manifest.name}, {made_for}{_of(document)}"), Column("bytes", True), Column("", True), Column("what"))  # fmt: skip
        rows = [
            (name, str(size), mebibytes(size), text)
            for name, text in meaning.items()
            if isinstance(size := document[f"{name}_bytes"], int)
        ]
        console().print(table(None, columns, rows))
