"""Find sections of a 64-bit little-endian ELF file by name, trusting nothing in it.

A module's manifest and weights are sections that the dynamic loader ignores, so reading them needs the file's section table
and nothing else. The reader is ours because it ships with the runtime, which has no other use for pyelftools, and because it must
turn every kind of damage into one sentence: each number read from the file is compared with the file's size before use.

SOURCE  System V ABI, "Object Files": ELF header, section header, special section indexes (SHN_XINDEX, e_shnum = 0).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from convc.errors import PackageError

__all__ = ["Section", "find_sections"]

# e_ident[16] e_type e_machine e_version e_entry e_phoff e_shoff
# e_flags e_ehsize e_phentsize e_phnum e_shentsize e_shnum e_shstrndx
_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
# sh_name sh_type sh_flags sh_addr sh_offset sh_size sh_link sh_info sh_addralign sh_entsize
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_IDENT: Final = b"\x7fELF\x02\x01\x01"  # magic, ELFCLASS64, ELFDATA2LSB, EV_CURRENT
_SHT_NOBITS: Final = 8
_SHN_XINDEX: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class Section:
    """Where a section's bytes are in the file."""

    offset: int
    size: int


def find_sections(data: bytes | mmap.mmap, names: Iterable[str]) -> dict[str, Section]:
    """Return place and size of each section in `names` that the file has; the first one where a name occurs twice.

    Raises:
        PackageError: if `data` is not a 64-bit little-endian ELF file, is cut short, or points outside itself.
    """
    if len(data) < _HEADER.size or data[: len(_IDENT)] != _IDENT:
        got = bytes(data[: len(_IDENT)]).hex(" ") or "an empty file"
        raise PackageError(
            f"module must be a 64-bit little-endian ELF file ({_IDENT.hex(' ')} ...); got {got}."
        )
    fields = _HEADER.unpack_from(data, 0)
    table, entry_size, count, names_index = fields[6], fields[11], fields[12], fields[13]
    if entry_size != _SECTION.size:
        raise PackageError(
            f"module's section headers must have {_SECTION.size} bytes; got {entry_size}."
        )
    first = _section(data, table, 0)
    # With 65280 sections or more the header's fields overflow into the unused first section.
    count = count or first[5]
    names_index = first[6] if names_index == _SHN_XINDEX else names_index
    _check_range(data, "section table", table, count * _SECTION.size)
    if names_index >= count:
        raise PackageError(
            f"module's section name table must be one of {count} sections; got index {names_index}."
        )
    text = _range(data, "section name table", _section(data, table, names_index))
    wanted = {name.encode() + b"\0": name for name in names}
    found: dict[str, Section] = {}
    for index in range(count):
        header = _section(data, table, index)
        for key, name in wanted.items():
            if name not in found and _has_name(data, text, header[0], key):
                found[name] = _range(data, f"section {name}", header)
    return found


def _has_name(data: bytes | mmap.mmap, text: Section, start: int, key: bytes) -> bool:
    if start + len(key) > text.size:
        return False
    return data[text.offset + start : text.offset + start + len(key)] == key


def _section(data: bytes | mmap.mmap, table: int, index: int) -> tuple[int, ...]:
    offset = table + index * _SECTION.size
    _check_range(data, "section table", offset, _SECTION.size)
    return _SECTION.unpack_from(data, offset)


def _range(data: bytes | mmap.mmap, what: str, header: tuple[int, ...]) -> Section:
    kind, offset, size = header[1], header[4], header[5]
    if kind == _SHT_NOBITS:
        raise PackageError(f"module's {what} must have bytes in the file; got an empty kind.")
    _check_range(data, what, offset, size)
    return Section(offset, size)


def _check_range(data: bytes | mmap.mmap, what: str, offset: int, size: int) -> None:
    if offset + size > len(data):
        raise PackageError(
            f"module's {what} must end within the file's {len(data)} bytes; got {offset} + {size}."
            " The file is cut short or damaged."
        )
