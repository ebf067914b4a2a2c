"""Open heights and widths of an ONNX model: which sizes are asked for, a graph for each largest one, and the module that holds them.

    shapes = {"x": (1, 3, "H=64..512", "W=64..512")}

The model is imported for each area that code is made for, for two sizes in between, odd and even, and for the least: what the shape rules
say of those sizes is compared with what the import says, and nodes, attributes and constants must be the same. So a size that is written
into the model, or that something but a Resize is computed from, is named.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

import msgspec
import numpy as np

from convc.errors import ConvcError, InvalidModelError, ShapeError
from convc.ir.area import open_area
from convc.ir.area_graph import AreaGraph, Extents
from convc.ir.graph import CONSTANT, Graph
from convc.ir.types import Shape
from convc.lowering.build import Built
from convc.lowering.program import Program
from convc.runtime.manifest import Area, Open, Resampling, Tensor

__all__ = ["Areas", "Range", "areas_of", "between", "opened", "with_areas"]

Shapes = Mapping[str, Sequence[int | str]]


@dataclass(frozen=True, slots=True)
class Range:
    """The heights or widths that are asked for."""

    low: int
    high: int


@dataclass(frozen=True)
class Areas:
    """A model with an open height and width.

    Attributes:
        inputs: that have them.
        sources: the model as it is, of each size: the largest areas, the largest first, and last a size in between.
        graphs: those made right for every smaller size, without the last.
        least: the smallest height and width.
    """

    inputs: tuple[str, ...]
    sources: tuple[Graph, ...]
    graphs: tuple[AreaGraph, ...]
    least: tuple[int, int]


def areas_of(shapes: Shapes | None) -> tuple[Range, Range] | None:
    """Return the heights and widths that shapes ask for, None if none is open.

    Raises:
        InvalidModelError: for a shape that is not N, C, H, W with two ranges, or one extent each, or for several ranges.

    Example:
        >>> areas_of({"x": (1, 3, "H=64..512", 256)}), areas_of({"x": ("N", 3, 8, 8)})
        ((Range(low=64, high=512), Range(low=256, high=256)), None)
    """
    found = {name: s for name, s in (shapes or {}).items() if any(isinstance(d, str) for d in s[1:])}  # fmt: skip
    if not found:
        return None
    ranges = set()
    for name, shape in found.items():
        text = f"[{', '.join(map(str, shape))}]"
        if len(shape) != 4 or not all(isinstance(d, int) for d in shape[:2]):
            raise InvalidModelError(f"input '{name}' must be N, C, H, W with numbers for N and C to have an open height or width; got {text}.")  # fmt: skip
        ranges.add(tuple(_range(name, d) for d in shape[2:]))
    if len(ranges) > 1:
        raise InvalidModelError(f"inputs must have one range of heights and widths; got {dict(found)}.")  # fmt: skip
    height, width = ranges.pop()
    return height, width


def _range(name: str, extent: int | str) -> Range:
    if isinstance(extent, int):
        return Range(extent, extent)
    parsed = re.fullmatch(r"[^=]+=(\d+)\.\.(\d+)", extent)
    if not parsed or not 1 <= int(parsed[1]) <= int(parsed[2]):
        raise InvalidModelError(f"input '{name}' must have a range for an open height or width, as in H=64..512; got {extent}.")  # fmt: skip
    return Range(int(parsed[1]), int(parsed[2]))


def between(low: tuple[int, int], high: tuple[int, int]) -> tuple[int, int]:
    """Return a size inside a range, odd where that is possible: what is right for whole tiles only shows there.

    Example:
        >>> between((64, 64), (512, 256)), between((8, 8), (8, 8))
        ((289, 161), (8, 8))
    """
    sizes = ((b + t + 1) // 2 | 1 for b, t in zip(low, high, strict=True))
    return tuple(max(b, min(s, t)) for s, b, t in zip(sizes, low, high, strict=True))  # type: ignore[return-value]


def opened(
    load: Callable[[Mapping[str, Shape]], Graph],
    shapes: Shapes,
    wanted: tuple[Range, Range],
    areas: Sequence[tuple[int, int]] | None,
    progress: Callable[[str, int, int], None],
) -> Areas:
    """Return the model for the areas, by default the largest and one of half its height and width if the range reaches so far.

    Args:
        load: imports the model for fixed shapes.
        shapes: as asked for.
        wanted: heights and widths.
        areas: largest heights and widths to make code for, instead of the default.
        progress: called with ("import", imports that are done, all of them).

    Raises:
        ShapeError: naming the node, if one needs a height and width at compile time, or has one written into it.
        InvalidModelError: if areas do not reach the largest height and width.
    """
    (low_h, high_h), (low_w, high_w) = ((r.low, r.high) for r in wanted)
    whole, half = (high_h, high_w), (-(-high_h // 2), -(-high_w // 2))
    sizes = {tuple(a) for a in areas} if areas else {whole, *([half] if half[0] >= low_h and half[1] >= low_w else [])}  # fmt: skip
    if whole not in sizes:
        raise InvalidModelError(f"areas must have one of {high_h} x {high_w}, the largest height and width; got {sorted(sizes)}.")  # fmt: skip
    outside = sorted(a for a in sizes if not (low_h <= a[0] <= high_h and low_w <= a[1] <= high_w))
    if outside:
        raise InvalidModelError(f"areas must be from {low_h} x {low_w} to {high_h} x {high_w}; got {outside[0][0]} x {outside[0][1]}.")  # fmt: skip
    names = tuple(n for n, s in shapes.items() if any(isinstance(d, str) for d in s[1:]))

    # Known before the largest says what the least is that it can do, so that it may be one too many.
    count, done = len(sizes) + len(_others((low_h, low_w), whole)), itertools.count()

    def at(size: tuple[int, int]) -> Graph:
        progress("import", next(done), count)
        bound = {n: (*s[:2], *size) if n in names else tuple(s) for n, s in shapes.items()}
        return load(bound)  # type: ignore[arg-type]

    ordered = sorted(sizes, key=lambda a: -a[0] * a[1])
    first = at(whole)
    largest = open_area(first, names)

    def smaller(size: tuple[int, int]) -> Graph:
        try:
            return at(size)
        except ConvcError as error:
            where = " ".join(getattr(error, "__notes__", ()))
            raise ShapeError(f"model must run for every height and width; it runs for {whole}, and not for {size}: {error} {where}") from error  # fmt: skip

    rest = [smaller(size) for size in ordered[1:]]  # type: ignore[arg-type]
    graphs = (largest, *(open_area(graph, names) for graph in rest))
    least = tuple(map(max, (low_h, low_w), largest.least))
    others = {size: smaller(size) for size in _others(least, whole)}  # type: ignore[arg-type]
    for size, graph in others.items():
        _same(first, whole, graph, size)
        _compare(largest, graph, size)
    for part in graphs[1:]:
        _agree(largest, part, names[0])
    last = others[between(least, whole)]  # type: ignore[index]
    return Areas(names, (first, *rest, last), graphs, least)  # type: ignore[arg-type]


def _others(least: tuple[int, int], whole: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Return sizes at which the model must be what it is at the largest: between, odd; one more, even; the least.

    Example:
        >>> _others((8, 8), (64, 32))
        ((37, 21), (38, 22), (8, 8))
    """
    size = between(least, whole)
    even = tuple(min(s + 1, t) for s, t in zip(size, whole, strict=True))
    return tuple(dict.fromkeys((size, even, least)))  # type: ignore[arg-type]


# What of these differs from size to size has rules in `ir.area_rules`.
_BY_RULE: Final = ("slice", "resample", "reshape")


def _same(whole: Graph, at: tuple[int, int], other: Graph, size: tuple[int, int]) -> None:
    """Raise ShapeError at the first node, attribute or constant that the model has at one size and not at another."""

    def refuse(what: str) -> ShapeError:
        return ShapeError(
            f"{what} must be the same for every height and width; it is not for {at} and {size}: it was computed from them. "
            "Give height and width numbers, and compile once for each size."
        )

    for name in [n.name for n in whole.nodes] + [n.name for n in other.nodes]:
        one, two = whole.by_name.get(name), other.by_name.get(name)
        if one is None or two is None:
            raise refuse(f"%{name} ({(one or two).op})")  # type: ignore[union-attr]
        if one.op == CONSTANT == two.op:
            resampled = all(user.op == "resample" for user in whole.users[name])
            if not resampled and not np.array_equal(
                one.value, two.value, equal_nan=one.type.is_float
            ):
                raise refuse(f"constant %{name}")
            continue
        if (one.op, one.inputs) != (two.op, two.inputs):
            raise refuse(f"%{name} ({one.op})")
        if one.op not in _BY_RULE and one.attributes != two.attributes:
            raise refuse(f"attributes of %{name} ({one.op})")


def _compare(largest: AreaGraph, smaller: Graph, size: tuple[int, int]) -> None:
    """Raise ShapeError at the first value whose extents are not those that the shape rules give."""
    for name, extents in largest.values.items():
        node = smaller.by_name.get(name)
        if node is None or node.type.rank != 4 or node.type.shape[2:] == extents.at(*size):
            continue
        raise ShapeError(
            f"%{name} must have {extents.at(*size)} rows and columns for a height and width of {size}; got {node.type}: a height or "
            f"width is written into {node.op} '{name}'. Give height and width numbers, and compile once for each size."
        )


def _agree(largest: AreaGraph, part: AreaGraph, given: str) -> None:
    """Raise ShapeError at the first value that has other extents on the code for a smaller area."""
    size = part.graph[given].type.shape[2:]
    pairs: dict[str, tuple[Extents | None, Extents | None]] = {
        f"%{n}": (largest.values[n], e) for n, e in part.values.items() if n in largest.values
    }
    for one, other in zip(largest.graph.outputs, part.graph.outputs, strict=True):
        pairs[f"output '{one.name}'"] = largest.values.get(one.value), part.values.get(other.value)
    for what, (ours, theirs) in pairs.items():
        cut = ours and Extents(ours.rows[: size[0]], ours.cols[: size[1]])
        if cut != theirs:
            raise ShapeError(
                f"{what} must have the same rows and columns for a height and width on the code for every area; that for {size} has others. "
                f"Make code for one area: --area {'x'.join(map(str, largest.graph[given].type.shape[2:]))}."
            )


def with_areas(built: Built, programs: Sequence[Program], areas: Areas) -> Built:
    """Return what was built of one program for each area, as one module."""
    manifest = built.manifest
    rows = [
        Area(
            height=opened.graph[areas.inputs[0]].type.shape[2],
            width=opened.graph[areas.inputs[0]].type.shape[3],
            entry=part.entry,
            inputs=tuple(Tensor(*t) for t in program.inputs),
            outputs=tuple(Tensor(*t) for t in program.outputs),
            masks={name: Open(e.rows, e.cols) for name, e in opened.masks.items()},
            crops={
                o.name: Open(opened.values[o.value].rows, opened.values[o.value].cols)
                for o in opened.graph.outputs
                if o.value in opened.values
            },
            resamplings=tuple(
                Resampling(places=places, weights=weights, axis=t.axis, scale=t.scale, extents=t.extents, results=t.results, **asdict(t.rules))
                for (places, weights), t in opened.taps.items()
            ),
            arena_bytes=part.arena_bytes,
            workspace_bytes=part.workspace_bytes,
            steps=part.steps,
        )
        for part, program, opened in zip((manifest, *manifest.variants), programs, areas.graphs, strict=True)
    ]  # fmt: skip
    whole = msgspec.structs.replace(
        manifest, variants=(), open=areas.inputs, least=areas.least, areas=tuple(rows)
    )
    return replace(built, manifest=whole)
