"""Inline PTX to C++: each asm statement becomes a block of calls to `native/ptx.h`.

An instruction that is not known here is an error with its text, never left out: a kernel that is tested is tested whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

__all__ = ["UnknownInstructionError", "translate_assembly"]

_STATEMENT: Final = re.compile(r"\b(?:__asm__\s+__volatile__|asm\s+volatile|__asm__|asm)\s*\(")
_STRING: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_OPERAND: Final = re.compile(r'\s*"([^"]*)"\s*\((.*)\)\s*$', re.DOTALL)
_NAME: Final = re.compile(r"[A-Za-z_$][\w$]*")
_REGISTERS_OF: Final = {"pred": "bool", "16": "uint16_t", "32": "uint32_t", "64": "uint64_t"}
_CODE: Final = re.compile(
    r"//[^\n]*|/\*.*?\*/|" + _STATEMENT.pattern, re.DOTALL
)  # comments are stepped over, and #define __asm__ has no parenthesis


class UnknownInstructionError(NotImplementedError):
    """A PTX instruction that the emulation does not know."""


@dataclass
class _Block:
    """One asm statement on its way to C++."""

    operands: list[str]
    lines: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def read(self, text: str) -> str:
        """Return the C++ expression of an operand's bits."""
        text = text.strip()
        if text.startswith("%"):
            return f"ptx::bits(ptx_{int(text[1:])})"
        if text in self.names:
            return self.names[text]
        if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)", text):
            return text
        raise UnknownInstructionError(f"operand '{text}'")

    def address(self, text: str) -> str:
        """Return the expression of `[operand]` or `[operand + bytes]`."""
        inner = text.strip().removeprefix("[").removesuffix("]")
        base, plus, offset = inner.partition("+")
        return f"({self.read(base)} + {int(offset)})" if plus else self.read(base)

    def write(self, text: str, value: str) -> str:
        """Return the statement that gives an operand its bits."""
        text = text.strip()
        target = f"ptx_{int(text[1:])}" if text.startswith("%") else self.names[text]
        return f"ptx::assign({target}, {value});"


def translate_assembly(code: str) -> str:
    """Return the source with every asm statement replaced.

    Raises:
        UnknownInstructionError: for an instruction or operand that is not emulated.
    """
    out, position = [], 0
    while match := _CODE.search(code, position):
        out.append(code[position : match.start()])
        if match.group().startswith("/"):
            out.append(match.group())
            position = match.end()
            continue
        end = _closing(code, match.end())
        out.append(_statement(code[match.end() : end]))
        # The lines stay where they were, so that messages name the lines of the CUDA source.
        out.append("\n" * code.count("\n", match.start(), end))
        position = end + 1
    return "".join((*out, code[position:]))


def _closing(code: str, position: int) -> int:
    depth, quoted = 1, False
    while True:
        character = code[position]
        if character == '"' and code[position - 1] != "\\":
            quoted = not quoted
        elif not quoted:
            depth += (character == "(") - (character == ")")
            if depth == 0:
                return position
        position += 1


def _split(text: str, separator: str) -> list[str]:
    """Split at the separator where it stands outside of brackets, strings and `::` of a name."""
    parts, depth, quoted, current = [], 0, False, ""
    for index, character in enumerate(text):
        if character == '"' and text[index - 1 : index] != "\\":
            quoted = not quoted
        if not quoted:
            depth += (character in "([{") - (character in ")]}")
        if character == separator and depth == 0 and not quoted:
            parts.append(current)
            current = ""
        else:
            current += character
    return [*parts, current]


def _statement(body: str) -> str:
    sections = _split(body, ":")
    text = "".join(_STRING.findall(sections[0])).replace("\\n", "\n").replace("\\t", " ")
    block = _Block([])
    declarations = []
    for section in sections[1:3]:
        for operand in _split(section, ","):
            if match := _OPERAND.match(operand):
                declarations.append(f"auto&& ptx_{len(block.operands)} = ({match[2]});")
                block.operands.append(match[1])
    for instruction in _instructions(text):
        block.lines.append(_instruction(block, instruction))
    body = " ".join((*declarations, *block.lines))
    return f"{{ using namespace cuda_emulation; {body} }}"


def _instructions(text: str) -> Iterator[str]:
    text = re.sub(r"//[^\n]*", "", text)
    # Braces that open a scope stand at the start of an instruction; those of a vector operand do not.
    for part in text.split(";"):
        stripped = part.strip().lstrip("{").strip()
        if stripped and stripped != "}":
            yield " ".join(stripped.removeprefix("}").split())


def _instruction(block: _Block, text: str) -> str:
    if text.startswith(".reg"):
        return _declaration(block, text)
    guard = ""
    if match := re.match(r"@(!?)(%?[\w$]+)\s+(.*)", text):
        guard = f"if ({match[1]}{block.read(match[2])}) "
        text = match[3]
    name, _, rest = text.partition(" ")
    for pattern, make in _TABLE:
        if match := re.fullmatch(pattern, name):
            arguments = [a.strip() for a in _split(rest, ",")] if rest.strip() else []
            return f"{guard}{{ {make(block, match, arguments)} }}"
    raise UnknownInstructionError(
        f"inline PTX instruction '{text}' is not emulated; add a row to tests/cuda_emulation/inline_ptx.py."
    )


def _declaration(block: _Block, text: str) -> str:
    kind, names = re.fullmatch(r"\.reg\s+\.(\w+)\s+(.*)", text).groups()
    c_type = _REGISTERS_OF["pred" if kind == "pred" else kind.lstrip("busf")]
    made = []
    for name in names.split(","):
        clean = f"reg_{_NAME.fullmatch(name.strip()).group().replace('$', '_')}"
        block.names[name.strip()] = clean
        made.append(f"{c_type} {clean} = 0;")
    return " ".join(made)


def _vector(text: str) -> list[str]:
    return [part.strip() for part in text.strip().removeprefix("{").removesuffix("}").split(",")]


# ---- instructions -----------------------------------------------------------------------------------------------


def _copy(block: _Block, _: re.Match[str], a: list[str]) -> str:
    valid = block.read(a[3]) if len(a) > 3 else block.read(a[2])
    return (
        f"copy_async({block.address(a[0])}, ptx::global({block.address(a[1])}), {block.read(a[2])},"
        f" {valid}, __LINE__);"
    )


def _ldmatrix(block: _Block, match: re.Match[str], a: list[str]) -> str:
    targets = _vector(a[0])
    writes = " ".join(block.write(t, f"r_[{i}]") for i, t in enumerate(targets))
    return (
        f"uint32_t r_[4]; ptx::ldmatrix({'true' if match[2] else 'false'}, {match[1]},"
        f" static_cast<uint32_t>({block.address(a[1])}), r_, __LINE__); {writes}"
    )


def _mma(block: _Block, match: re.Match[str], a: list[str]) -> str:
    d_type, a_type, b_type = match[2], match[3], match[4]
    vectors = [_vector(part) for part in a]
    per_register = {"tf32": 1, "f16": 2, "bf16": 2, "s8": 4, "u8": 4}[a_type]
    columns = int(match[1])
    sizes = [
        2 if d_type == "f16" else 4,
        columns // (2 * per_register),
        columns // (4 * per_register),
    ]
    if [len(v) for v in vectors] != [*sizes, sizes[0]]:
        raise UnknownInstructionError(f"{match.group()} with {[len(v) for v in vectors]} registers")
    inputs = " ".join(
        f"const uint32_t {name}_[] = {{{', '.join(block.read(r) for r in registers)}}};"
        for name, registers in zip("abc", vectors[1:], strict=True)
    )
    writes = " ".join(block.write(t, f"d_[{i}]") for i, t in enumerate(vectors[0]))
    types = ", ".join(f"ptx::Type::{t}" for t in (d_type, a_type, b_type))
    return (
        f"{inputs} uint32_t d_[4]; ptx::mma_16x8({types}, {sizes[1]}, {sizes[2]}, d_, a_, b_, c_,"
        f" __LINE__); {writes}"
    )


def _wgmma(block: _Block, match: re.Match[str], a: list[str]) -> str:
    registers, (scale_a, scale_b, transposed_a, transposed_b) = _vector(a[0]), a[4:]
    if (scale_a, scale_b) != ("1", "1") or {transposed_a, transposed_b} - {"0", "1"}:
        raise UnknownInstructionError(f"{match.group()} with {a[4:]}")
    n = int(match[1])
    if len(registers) != n // 2 or match[2] != match[3]:
        raise UnknownInstructionError(f"{match.group()} with {len(registers)} registers")
    places = ", ".join(f"&ptx_{int(r[1:])}" for r in registers)
    return (
        f"float* const d_[] = {{{places}}}; ptx::wgmma_64(ptx::Type::{match[2]}, {n}, d_,"
        f" {{{block.read(a[1])}, {transposed_a} != 0}}, {{{block.read(a[2])}, {transposed_b} != 0}},"
        f" {block.read(a[3])}, __LINE__);"
    )


def _wgmma_bytes(block: _Block, match: re.Match[str], a: list[str]) -> str:
    registers, n = _vector(a[0]), int(match[1])
    # PTX ISA: of integers N is 8, 24, or a multiple of 16.
    if len(registers) != n // 2 or len(a) != 4 or (n % 16 and n not in (8, 24)):
        raise UnknownInstructionError(f"{match.group()} with {len(registers)} registers")
    places = ", ".join(f"&ptx_{int(r[1:])}" for r in registers)
    types = f"ptx::Type::{match[2]}, ptx::Type::{match[3]}"
    return (
        f"int* const d_[] = {{{places}}}; ptx::wgmma_64_bytes({types}, {n}, d_,"
        f" {{{block.read(a[1])}, false}}, {{{block.read(a[2])}, false}}, {block.read(a[3])}, __LINE__);"
    )


def _compare(block: _Block, match: re.Match[str], a: list[str]) -> str:
    sign = {"ne": "!=", "eq": "==", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}[match[1]]
    c_type = {"b": "uint", "u": "uint", "s": "int"}[match[2]] + match[3] + "_t"
    return block.write(
        a[0],
        f"static_cast<{c_type}>({block.read(a[1])}) {sign} static_cast<{c_type}>({block.read(a[2])})",
    )


def _move(block: _Block, match: re.Match[str], a: list[str]) -> str:
    if a[0].startswith("{"):
        low, high = _vector(a[0])
        half = int(match[1]) // 2
        return f"const auto v_ = {block.read(a[1])}; {block.write(low, 'v_')} {block.write(high, f'v_ >> {half}')}"
    if a[1].startswith("{"):
        low, high = _vector(a[1])
        bits = match[1]
        value = f"static_cast<uint{bits}_t>({block.read(low)}) | static_cast<uint{bits}_t>({block.read(high)}) << {int(bits) // 2}"
        return block.write(a[0], value)
    return block.write(a[0], block.read(a[1]))


def _memory(block: _Block, match: re.Match[str], a: list[str]) -> str:
    """ld and st, of one register or of a vector."""
    load, shared = match[1] == "ld", match[2] == "shared"
    of_cluster = "::cluster" in match.group()
    where, registers = (a[1], _vector(a[0])) if load else (a[0], _vector(a[1]))
    size = int(match[3]) // 8
    total = size * len(registers)
    address = block.address(where)
    pointer = (
        f"{'cluster' if of_cluster else 'shared'}_pointer(static_cast<uint32_t>({address}), {total}, __LINE__)"
        if shared
        else f"reinterpret_cast<char*>(static_cast<uint64_t>({address}))"
    )
    parts = [f"char* at_ = {pointer};"]
    for index, register in enumerate(registers):
        if load:
            parts.append(
                f"{{ uint{8 * size}_t v_; memcpy(&v_, at_ + {index * size}, {size}); {block.write(register, 'v_')} }}"
            )
        else:
            parts.append(
                f"{{ uint{8 * size}_t v_ = {block.read(register)}; memcpy(at_ + {index * size}, &v_, {size}); }}"
            )
    return " ".join(parts)


def _dot(block: _Block, match: re.Match[str], a: list[str]) -> str:
    types = ", ".join({"s32": "int8_t", "u32": "uint8_t"}[t] for t in match.groups())
    return block.write(a[0], f"ptx::dot_4<{types}>({', '.join(block.read(x) for x in a[1:])})")


_Maker = Callable[[_Block, "re.Match[str]", list[str]], str]

# Instruction name (whole) -> what it becomes. PTX ISA 8 and later.
_TABLE: Final[tuple[tuple[str, _Maker], ...]] = (
    (r"cp\.async\.c[ag]\.shared(?:::cta)?\.global(?:\.L2::\w+)*", _copy),
    (r"cp\.async\.commit_group", lambda b, m, a: "commit_copies();"),
    (r"cp\.async\.wait_group", lambda b, m, a: f"wait_copies({b.read(a[0])});"),
    (r"cp\.async\.wait_all", lambda b, m, a: "commit_copies(); wait_copies(0);"),
    (r"ldmatrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?\.shared(?:::cta)?\.b16", _ldmatrix),
    (r"mma\.sync\.aligned\.m16n8k(\d+)\.row\.col(?:\.satfinite)?\.(f16|f32|s32)\.(\w+)\.(\w+)\.\w+", _mma),
    (r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k16\.f32\.(f16|bf16)\.(\w+)", _wgmma),
    (r"wgmma\.mma_async\.sync\.aligned\.m64n(\d+)k32\.s32\.(u8|s8)\.(u8|s8)", _wgmma_bytes),
    (r"wgmma\.fence\.sync\.aligned", lambda b, m, a: "fence_registers();"),
    (r"fence\.proxy\.async(?:\.shared::cta)?", lambda b, m, a: "fence_proxy();"),
    (r"wgmma\.commit_group\.sync\.aligned", lambda b, m, a: "commit_products();"),
    (r"wgmma\.wait_group\.sync\.aligned", lambda b, m, a: f"wait_products({b.read(a[0])});"),
    (r"cvt\.rna\.tf32\.f32", lambda b, m, a: b.write(a[0], f"ptx::round_to_tf32({b.read(a[1])})")),
    (r"cvta\.to\.shared\.u64", lambda b, m, a: b.write(a[0], f"shared_address(ptx::global({b.read(a[1])}))")),
    (r"cvta\.to\.global\.u64", lambda b, m, a: b.write(a[0], b.read(a[1]))),
    (r"cvt\.u32\.u64|cvt\.u64\.u32", lambda b, m, a: b.write(a[0], b.read(a[1]))),
    (r"setp\.(ne|eq|lt|le|gt|ge)\.([bus])(32|64)", _compare),
    (r"selp\.[bus](?:16|32|64)", lambda b, m, a: b.write(a[0], f"{b.read(a[3])} ? {b.read(a[1])} : {b.read(a[2])}")),
    (r"mov\.[bufs](16|32|64)", _move),
    (r"(ld|st)\.(shared|global)(?:::cta|::cluster)?(?:\.nc|\.relaxed|\.weak|\.L1::\w+|\.L2::\w+|\.c[agsvw])*(?:\.v[248])?\.[busf](8|16|32|64)", _memory),
    (r"mapa\.shared::cluster\.u32", lambda b, m, a: b.write(a[0], f"cluster_address({b.read(a[1])}, {b.read(a[2])}, __LINE__)")),
    (r"barrier\.cluster\.arrive(?:\.release)?(?:\.aligned)?", lambda b, m, a: "cluster_arrive(__LINE__);"),
    (r"barrier\.cluster\.wait(?:\.acquire)?(?:\.aligned)?", lambda b, m, a: "cluster_wait(__LINE__);"),
    (r"dp4a\.([su]32)\.([su]32)", _dot),
    (r"(?:barrier|bar)\.(?:cta\.)?sync(?:\.aligned)?", lambda b, m, a: "block_barrier(__LINE__);" if a == ["0"] else _refuse(m)),
    (r"(?:membar|fence)\..*|prefetch\..*", lambda b, m, a: ""),
)  # fmt: skip


def _refuse(match: re.Match[str]) -> str:
    raise UnknownInstructionError(f"{match.group()} of a barrier other than 0")
