"""CONVERTERS: every ONNX operator version that convc takes. A new operator is one function and one row in one family file."""

from __future__ import annotations

from typing import Final, NamedTuple

from convc.frontend.onnx.converter import Converter, display_domain
from convc.frontend.onnx.operators import (
    activations,
    arithmetic,
    attention_microsoft,
    blocks,
    constants,
    control,
    conv,
    einsum,
    fused_microsoft,
    gather,
    join_split,
    linear,
    logic,
    losses,
    normalization,
    norms,
    order,
    pool,
    quantize,
    quantize_microsoft,
    recurrent,
    reduce,
    reshape,
    resize,
    sample,
    select,
    sequence,
    signal,
    softmax,
)
from convc.frontend.onnx.refusal import Unsupported

__all__ = ["CONVERTERS", "FAMILIES", "SupportedOperator", "find_converter", "supported_operators"]

FAMILIES: Final = (
    activations,
    arithmetic,
    attention_microsoft,
    blocks,
    constants,
    control,
    conv,
    einsum,
    fused_microsoft,
    gather,
    join_split,
    linear,
    losses,
    logic,
    normalization,
    norms,
    order,
    pool,
    quantize,
    quantize_microsoft,
    recurrent,
    reduce,
    reshape,
    resize,
    sample,
    select,
    sequence,
    signal,
    softmax,
)

CONVERTERS: Final[tuple[Converter, ...]] = tuple(row for family in FAMILIES for row in family.ROWS)

# What to do about a domain that nobody but its maker reads.
_WAYS_OUT: Final = {
    "com.microsoft.nchwc": "layouts of one machine; save the model with ORT_ENABLE_EXTENDED at most, not ORT_ENABLE_ALL"
}

_BY_VERSION: Final = {(r.domain, r.op_type, since): r for r in CONVERTERS for since in r.since}


def find_converter(domain: str, op_type: str, version: int | None) -> Converter | Unsupported:
    """Return the row of an operator at a since_version (None: onnx has no such operator), or why there is none.

    Example:
        >>> find_converter("", "Conv", 11).op_type, find_converter("acme", "Relu", 1).reason
        ('Conv', 'no rule for domain "acme"')
    """
    if version is not None and (domain, op_type, version) in _BY_VERSION:
        return _BY_VERSION[domain, op_type, version]
    if all(row.domain != domain for row in CONVERTERS):
        way_out = f" ({_WAYS_OUT[domain]})" if domain in _WAYS_OUT else ""
        return Unsupported(f'no rule for domain "{domain}"{way_out}')
    if version is None:
        return Unsupported(f"{display_domain(domain)} has no such operator at the model's opset")
    known = [v for d, op, v in _BY_VERSION if (d, op) == (domain, op_type)]
    if not known:
        return Unsupported("not implemented")
    if version > max(known):
        return Unsupported(
            f"convc knows {op_type} up to version {max(known)}; the model uses {version}"
        )
    return Unsupported(
        f"convc knows {op_type} at versions {sorted(known)}; the model uses {version}"
    )


class SupportedOperator(NamedTuple):
    """One line of `convc ops`."""

    domain: str
    op_type: str
    since: tuple[int, ...]
    note: str


def supported_operators() -> list[SupportedOperator]:
    """Return every operator with all its versions, sorted by domain and name.

    Example:
        >>> supported_operators()[0]
        SupportedOperator(domain='ai.onnx', op_type='Abs', since=(6, 13), note='')
    """
    versions: dict[tuple[str, str], list[int]] = {}
    notes: dict[tuple[str, str], str] = {}
    for row in CONVERTERS:
        key = (display_domain(row.domain), row.op_type)
        versions.setdefault(key, []).extend(row.since)
        notes.setdefault(key, row.note)
    return [
        SupportedOperator(*key, tuple(sorted(versions[key])), notes[key])
        for key in sorted(versions)
    ]
