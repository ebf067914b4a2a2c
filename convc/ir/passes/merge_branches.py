"""Write convolutions of one value that are added up as one convolution: RepVGG, MobileOne, FastViT, RepViT as they are trained.

Convolution is linear in its weights: sum_i a_i (x * W_i) + b is x * (sum_i a_i W_i) + b, where small filters stand inside the largest one
and x itself is a filter of one tap (Ding et al., RepVGG, CVPR 2021, section 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from convc.ir.epilogue import Step
from convc.ir.graph import CONSTANT, Graph, Node
from convc.ir.ops.conv import ConvAttributes
from convc.ir.ops.definition import Array
from convc.ir.passes.affine import IDENTITY, follow, is_finite
from convc.ir.passes.rewrite import Rewriter, read_once
from convc.ir.types import Shape, numpy_dtype

__all__ = ["merge_branches"]

_BIAS = (Step("bias"),)


@dataclass(frozen=True, slots=True)
class _Branch:
    """A convolution of the base, or with None the base itself, times a factor for each channel (or one for all)."""

    conv: Node | None
    scale: Array


@dataclass(frozen=True, slots=True)
class _Form:
    """A value as a sum of branches of one base, plus a shift; `inner` are the values on the way."""

    base: Node
    branches: tuple[_Branch, ...]
    shift: Array
    inner: tuple[str, ...] = ()

    @property
    def convs(self) -> list[Node]:
        return [b.conv for b in self.branches if b.conv is not None]

    def is_several(self) -> bool:
        """Whether there is something to merge: a lone convolution and its base are a layer with a residual."""
        bare = sum(b.conv is None and bool((b.scale == 1).all()) for b in self.branches)
        return bool(self.convs) and len(self.branches) - min(bare, 1) > 1


@dataclass(frozen=True, slots=True)
class _Filter:
    """Where a branch's filter begins, how its taps are spread, and how many there are, by axis."""

    begins: Shape
    dilations: Shape
    taps: Shape


@dataclass(frozen=True, slots=True)
class _Geometry:
    """The one convolution: attributes, and the extents of its filter."""

    attributes: ConvAttributes
    taps: Shape

    def places(self, branch: _Filter) -> tuple[slice, ...]:
        """Return where a branch's filter stands in this one."""
        a = self.attributes
        begins = [(a.pads[i] - b) // a.dilations[i] for i, b in enumerate(branch.begins)]
        return tuple(slice(b, b + n) for b, n in zip(begins, branch.taps, strict=True))


def _attributes(conv: Node) -> ConvAttributes:
    assert isinstance(conv.attributes, ConvAttributes), conv
    return conv.attributes


def _taps(conv: Node, graph: Graph) -> Shape:
    return graph[conv.inputs[1]].type.shape[2:]


def _conv_form(graph: Graph, node: Node) -> _Form | None:
    if node.op != "conv" or (a := _attributes(node)).epilogue not in ((), _BIAS):
        return None
    data, *constants = graph.operands(node)
    if any(c.op != CONSTANT for c in constants) or not node.type.is_float or not node.type.size:
        return None
    shift = constants[1].value.astype(np.float64) if a.epilogue else np.zeros(1)
    return _Form(data, (_Branch(node, np.ones(1)),), shift)


def _filter(graph: Graph, conv: Node | None, rank: int) -> _Filter:
    ones = (1,) * rank
    if conv is None:
        return _Filter((0,) * rank, ones, ones)
    a = _attributes(conv)
    return _Filter(a.pads[:rank] or (0,) * rank, a.dilations or ones, _taps(conv, graph))


def _geometry(graph: Graph, form: _Form, result: Node) -> _Geometry | None:
    """Return the convolution that does the work of all branches; None if there is none, or it would multiply more often than they do."""
    n = result.type.rank - 2
    a = _attributes(form.convs[0])
    alike = {(b.strides or (1,) * n, b.group, b.accumulate, b.algorithm) for b in map(_attributes, form.convs)}  # fmt: skip
    if len(alike) > 1:
        return None
    strides = a.strides or (1,) * n
    reads_base = len(form.convs) < len(form.branches)
    if reads_base and (form.base.type != result.type or max(strides) > 1):
        return None
    filters = [_filter(graph, b.conv, n) for b in form.branches]
    begins, ends, spreads, taps = [], [], [], []
    for i in range(n):
        # One tap has any dilation.
        spread = next((f.dilations[i] for f in filters if f.taps[i] > 1), 1)
        if any(f.taps[i] > 1 and f.dilations[i] != spread for f in filters):
            return None
        begin = max(f.begins[i] for f in filters)
        if any((begin - f.begins[i]) % spread for f in filters):
            return None
        count = max((begin - f.begins[i]) // spread + f.taps[i] for f in filters)
        reach = (result.type.shape[2 + i] - 1) * strides[i] + (count - 1) * spread + 1
        begins.append(begin)
        ends.append(max(0, reach - begin - form.base.type.shape[2 + i]))
        spreads.append(spread)
        taps.append(count)
    if math.prod(taps) > sum(math.prod(_taps(c, graph)) for c in form.convs):
        return None
    merged = replace(
        a, strides=strides, pads=(*begins, *ends), dilations=tuple(spreads), epilogue=()
    )
    return _Geometry(merged, tuple(taps))


def _weight(graph: Graph, form: _Form, geometry: _Geometry) -> Array:
    """Return the filter of all branches in float64."""
    first = graph[form.convs[0].inputs[1]]
    weight = np.zeros((*first.type.shape[:2], *geometry.taps))
    channels, of_group = first.type.shape[:2]
    ones = (1,) * len(geometry.taps)
    rows = np.arange(channels)
    for branch in form.branches:
        at = geometry.places(_filter(graph, branch.conv, len(ones)))
        if branch.conv is None:
            weight[(rows, rows % of_group, *(s.start for s in at))] += branch.scale
        else:
            own = graph[branch.conv.inputs[1]].value.astype(np.float64)
            weight[(slice(None), slice(None), *at)] += own * branch.scale.reshape(-1, 1, *ones)
    return weight


class _Forms:
    """The linear forms of a graph's values, and which of them others have taken up."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.known: dict[str, _Form] = {}
        self.taken: set[str] = set()

    def of(self, value: Node) -> _Form:
        """Return a value's form; of one that has other readers, itself."""
        form = self.known.get(value.name)
        if form is not None and read_once(self.graph, value.name):
            return replace(form, inner=(*form.inner, value.name))
        return _Form(value, (_Branch(None, np.ones(1)),), np.zeros(1))

    def _scaled(self, node: Node) -> _Form | None:
        """Return the form of a value times, or plus, a constant for each channel."""
        for value in self.graph.operands(node):
            affine = None if value.op == CONSTANT else follow(self.graph, IDENTITY, value, node)
            if affine is not None:
                form = self.of(value)
                branches = tuple(replace(b, scale=b.scale * affine.scale) for b in form.branches)
                return replace(
                    form, branches=branches, shift=form.shift * affine.scale + affine.shift
                )
        return None

    def _joined(self, node: Node) -> _Form | None:
        """Return the form of a sum or difference of two forms of one base."""
        operands = self.graph.operands(node)
        if any(o.type != node.type or o.op == CONSTANT for o in operands) or operands[0] is operands[1]:  # fmt: skip
            return None
        left, right = map(self.of, operands)
        if left.base.name != right.base.name:
            return None
        sign = -1.0 if node.op == "sub" else 1.0
        others = tuple(replace(b, scale=b.scale * sign) for b in right.branches)
        form = _Form(
            left.base,
            (*left.branches, *others),
            left.shift + right.shift * sign,
            (*left.inner, *right.inner),
        )
        return form if not form.convs or _geometry(self.graph, form, node) is not None else None

    def add(self, node: Node) -> None:
        form = _conv_form(self.graph, node)
        if node.op in ("add", "sub", "mul", "div") and node.type.rank > 2 and node.type.is_float:
            with np.errstate(all="ignore"):  # what is not finite is not merged
                form = self._scaled(node) or (
                    self._joined(node) if node.op in ("add", "sub") else None
                )
        if form is not None:
            self.known[node.name] = form
            self.taken.update(form.inner)

    def merged(self) -> dict[str, _Form]:
        """Return the values that are written as one convolution."""
        return {
            name: form
            for name, form in self.known.items()
            if name not in self.taken and form.is_several()
        }


def _write(r: Rewriter, node: Node, form: _Form, constants: Sequence[Array]) -> None:
    weight, shift = constants
    geometry = _geometry(r.graph, form, node)
    assert geometry is not None, "looked at when the sum was formed"
    # The layer that multiplies most is known by its name.
    main = max(form.convs, key=lambda c: math.prod(_taps(c, r.graph)))
    attributes = replace(geometry.attributes, epilogue=_BIAS if shift.any() else ())
    operands = [r.written[r.resolve(form.base.name)], r.constant(f"{main.name}_merged", weight)]
    if shift.any():
        operands.append(r.constant(f"{main.name}_bias", shift))
    r.forward(node, r.add(main.name, "conv", operands, attributes).name)


def merge_branches(graph: Graph) -> Graph:
    """Return the graph with sums of convolutions of one value, and of the value itself, as one convolution.

    Branches may be scaled and shifted by channel (batch normalisations) and subtracted; sums are float64 and rounded once.

    Rewrite:
        %w = constant dense([1.0, 2.0, 3.0]) : f32[1,1,1,3];  %v = constant splat(0.5) : f32[1,1,1,1]
        %s = constant splat(4.0) : f32[1,1,1,1];  %a = conv(%x, %w) {pads = [0, 1, 0, 1]}
        %b = conv(%x, %v);  %c = add(%a, %b);  %d = mul(%x, %s);  %y = add(%c, %d)
        -->
        %a_merged = constant dense([1.0, 6.5, 3.0]) : f32[1,1,1,3]
        %a = conv(%x, %a_merged) {strides = [1, 1], pads = [0, 1, 0, 1], dilations = [1, 1]}
    Unless:
        a value in between has another user or is a graph output; strides, groups or dilations differ; the one filter would have
        more taps than all (1 x 7 and 7 x 1); weights or bias would overflow; it is one convolution and its data, a residual.
    """
    if sum(n.op == "conv" for n in graph.nodes) < 1:
        return graph
    forms = _Forms(graph)
    for node in graph.nodes:
        forms.add(node)
    constants: dict[str, list[Array]] = {}
    gone: set[str] = set()
    merged = forms.merged()
    for name, form in merged.items():
        geometry = _geometry(graph, form, graph[name])
        if geometry is None:
            continue
        dtype = numpy_dtype(graph[name].type.dtype)
        shift = np.broadcast_to(form.shift, graph[name].type.shape[1:2])
        with np.errstate(all="ignore"):
            arrays = [_weight(graph, form, geometry).astype(dtype), shift.astype(dtype)]
        if all(map(is_finite, arrays)):
            constants[name] = arrays
            gone.update((*form.inner, name))
    if not constants:
        return graph
    r = Rewriter(graph)
    for node in graph.nodes:
        if node.name in constants:
            _write(r, node, merged[node.name], constants[node.name])
        elif node.name not in gone:
            r.keep(node)
    return r.finish()
