"""Rounded bytes of neighbouring points stored together, narrowed by the instructions that saturate.

Rewrite:
    y[0:16] = uint8(min(bits(max(a, least) + magic), greatest)); y[16:32] = uint8(min(bits(max(b, least) + magic), greatest))
    -->
    y[0:32] = packuswb(packssdw(cvtps2dq(a), cvtps2dq(b)), ...)       # in order: the packs work on quarters of a vector

Four vectors take 4 conversions, 2 + 1 packs and a permutation; by themselves a maximum, a sum, a minimum and a store that narrows, two
instructions, each. The conversion makes the least int32 of what is beyond, and of NaN, so sums must be below 2^31: the knob `packs`.
MobileNetV2 on one thread of a Zen 4: 0.93 of the time.
"""

from __future__ import annotations

from typing import Any, Final

import tvm_ffi
from tvm import tirx
from tvm.ir import StringImm
from tvm.sym.analyzer import Analyzer

from convc.schedules.rounded import Rounded, unrounded

__all__ = ["marked", "together"]

_MARK: Final = "convc.byte_stores"
_LANES: Final = 16

# How many vectors of 16 bytes one call stores, the most first.
_GROUPS: Final = (4, 2)


def marked(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a scheduled function whose stores of rounded bytes `together` is to join."""
    return func.with_attr(_MARK, 1)


def together(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Return a marked function, its vectors being vectors and its loops unrolled, with stores of 64 or 32 bytes for those of 16."""
    if _MARK not in (func.attrs or {}):
        return func
    kinds: set[tuple[str, int]] = set()

    def joined(sequence: Any) -> Any:
        written: list[Any] = []
        run: list[tuple[Any, Rounded]] = []
        for statement in sequence.seq:
            found = _rounded_store(statement)
            if run and (found is None or not _follows(run[-1][0], statement)):
                written += _written(run, kinds)
                run = []
            if found is None:
                written.append(statement)
            else:
                run.append((statement, found))
        written += _written(run, kinds)
        if len(written) == len(sequence.seq):
            return sequence
        return tirx.SeqStmt(written) if len(written) > 1 else written[0]

    body = tvm_ffi.structural_map(func.body, (tirx.SeqStmt, joined))
    for dtype, count in sorted(kinds):
        code = StringImm(_function(dtype, count))
        body = tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", code, body)
    return func.with_body(body)


def _rounded_store(statement: Any) -> Rounded | None:
    """Return what a statement stores, if that are 16 rounded bytes."""
    if not isinstance(statement, tirx.BufferStore) or len(statement.indices) != 1:
        return None
    index = statement.indices[0]
    whole = isinstance(index, tirx.Ramp) and _is(index.stride, 1) and _is(index.lanes, _LANES)
    return unrounded(statement.value) if whole else None


def _is(value: Any, number: int) -> bool:
    return int(value) == number if isinstance(value, tirx.IntImm) else value == number


def _follows(before: Any, after: Any) -> bool:
    if not before.buffer.same_as(after.buffer):
        return False
    distance = Analyzer().simplify(after.indices[0].base - before.indices[0].base)
    return isinstance(distance, tirx.IntImm) and int(distance) == _LANES


def _written(run: list[tuple[Any, Rounded]], kinds: set[tuple[str, int]]) -> list[Any]:
    """Return the statements for stores behind one another: in groups, and what is left as it was."""
    statements: list[Any] = []
    while run:
        count = next((n for n in _GROUPS if n <= len(run)), 1)
        group, run = run[:count], run[count:]
        store, first = group[0]
        alike = {(r.dtype, r.zero, r.least, r.greatest) for _, r in group}
        if count == 1 or len(alike) > 1:
            statements += [statement for statement, _ in group]
            continue
        kinds.add((first.dtype, count))
        lanes = count * _LANES
        ends = [tirx.Broadcast(tirx.const(end, first.dtype), lanes) for end in (first.least, first.greatest)]  # fmt: skip
        zero = tirx.Broadcast(tirx.const(first.zero, "int16"), 2 * _LANES)
        value = tirx.call_pure_extern(
            f"{first.dtype}x{lanes}", _name(first.dtype, count), *(r.value for _, r in group), zero, *ends
        )  # fmt: skip
        place = tirx.Ramp(store.indices[0].base, 1, lanes)
        statements.append(tirx.BufferStore(store.buffer, value, [place]))
    return statements


def _name(dtype: str, count: int) -> str:
    return f"convc_{dtype}_of_{count}"


def _function(dtype: str, count: int) -> str:
    """Return the function in LLVM's language."""
    signed = dtype == "int8"
    pack = f"@llvm.x86.avx512.pack{'ss' if signed else 'us'}wb.512"
    least, greatest = ("smin", "smax") if signed else ("umin", "umax")
    bytes_, wide = f"<{16 * count} x i8>", "<64 x i8>"
    floats = ", ".join(f"<16 x float> %y{i}" for i in range(count))
    convert = "@llvm.x86.avx512.mask.cvtps2dq.512"
    lines = [
        f"  %i{i} = call <16 x i32> {convert}(<16 x float> %y{i}, <16 x i32> zeroinitializer, i16 -1, i32 4)"
        for i in range(count)
    ]
    for pair in range(count // 2):
        a, b = 2 * pair, 2 * pair + 1
        lines += [
            f"  %p{pair} = call <32 x i16> @llvm.x86.avx512.packssdw.512(<16 x i32> %i{a}, <16 x i32> %i{b})",
            f"  %z{pair} = call <32 x i16> @llvm.sadd.sat.v32i16(<32 x i16> %p{pair}, <32 x i16> %zero)",
        ]
    # Of each quarter the packs make four bytes of every vector, one after the other.
    order = ", ".join(f"i32 {4 * quarter + i}" for i in range(count) for quarter in range(4))
    last = f"%z{count // 2 - 1}"
    lines += [
        f"  %b = call {wide} {pack}(<32 x i16> %z0, <32 x i16> {last})",
        f"  %d = bitcast {wide} %b to <16 x i32>",
        f"  %s = shufflevector <16 x i32> %d, <16 x i32> poison, <{4 * count} x i32> <{order}>",
        f"  %r = bitcast <{4 * count} x i32> %s to {bytes_}",
        f"  %g = call {bytes_} @llvm.{greatest}.v{16 * count}i8({bytes_} %r, {bytes_} %least)",
        f"  %l = call {bytes_} @llvm.{least}.v{16 * count}i8({bytes_} %g, {bytes_} %greatest)",
        f"  ret {bytes_} %l",
    ]
    head = f"define linkonce_odr hidden {bytes_} @{_name(dtype, count)}({floats}, <32 x i16> %zero, {bytes_} %least, {bytes_} %greatest) alwaysinline {{"
    declared = [
        f"declare <16 x i32> {convert}(<16 x float>, <16 x i32>, i16, i32)",
        "declare <32 x i16> @llvm.x86.avx512.packssdw.512(<16 x i32>, <16 x i32>)",
        "declare <32 x i16> @llvm.sadd.sat.v32i16(<32 x i16>, <32 x i16>)",
        f"declare {wide} {pack}(<32 x i16>, <32 x i16>)",
        *(f"declare {bytes_} @llvm.{f}.v{16 * count}i8({bytes_}, {bytes_})" for f in (least, greatest)),
    ]  # fmt: skip
    return "\n".join([*declared, head, *lines, "}"]) + "\n"
