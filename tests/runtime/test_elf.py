from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from convc.errors import PackageError
from convc.runtime import Manifest, read_manifest
from convc.runtime.elf import find_sections
from convc.runtime.seal import check_seal
from tests.runtime.runtime_modules import resealed

NAMES = (".convc.manifest", ".convc.weights")
HEADER = 64


def outcome(data: bytes, *, sealed: bool = False) -> str:
    """Return what reading the bytes gives; anything but sections or PackageError fails the test."""
    try:
        sections = find_sections(data, NAMES)
        if sealed:
            check_seal(data, sections[".convc.weights"])
    except PackageError:
        return "refused"
    assert all(s.offset + s.size <= len(data) for s in sections.values())
    return "read"


def test_finds_the_bytes(affine_file: Path) -> None:
    data = affine_file.read_bytes()
    sections = find_sections(data, (*NAMES, ".text", ".nothing"))
    assert set(sections) == {*NAMES, ".text"}
    manifest = sections[".convc.manifest"]
    assert json.loads(data[manifest.offset :][: manifest.size])["arena_bytes"] == 4096
    assert sections[".convc.weights"].offset % 4096 == 0
    assert sections[".convc.weights"].size == 4096 + 4 * 64


def test_every_truncation_is_refused(affine_file: Path) -> None:
    data = affine_file.read_bytes()
    # Behind the section table is only the seal, so every shorter file lacks a part of one of them.
    cuts = {*range(200), *range(0, len(data), 997), *range(len(data) - 200, len(data))}
    assert [cut for cut in sorted(cuts) if outcome(data[:cut], sealed=True) != "refused"] == []


def test_random_damage_never_escapes(affine_file: Path, tmp_path: Path) -> None:
    original = affine_file.read_bytes()
    table = int.from_bytes(original[0x28:0x30], "little")
    manifest = find_sections(original, NAMES)[".convc.manifest"]
    rng = random.Random(11)
    regions = (
        range(HEADER),
        range(table, len(original)),
        range(manifest.offset, manifest.offset + manifest.size),
    )
    refused = 0
    for trial in range(600):
        data = bytearray(original)
        region = regions[trial % len(regions)]
        for _ in range(rng.randint(1, 4)):
            data[rng.choice(region)] = rng.randrange(256)
        path = tmp_path / "damaged.so"
        path.write_bytes(resealed(data))
        try:
            assert isinstance(read_manifest(path, verify_checksums=True), Manifest)
        except PackageError as error:
            refused += bool(str(error))
    assert refused > 100


@pytest.mark.parametrize("field", [0x28, 0x30, 0x3A, 0x3C, 0x3E])
@pytest.mark.parametrize("value", [0, 1, 0x7F, 0xFFFE, 0xFFFF, 0xFFFFFFFFFFFFFFFF])
def test_extreme_header_fields(affine_file: Path, field: int, value: int) -> None:
    data = bytearray(affine_file.read_bytes())
    size = 8 if field == 0x28 else 2
    data[field : field + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
    assert outcome(bytes(data)) in ("read", "refused")


def test_extended_numbering(affine_file: Path) -> None:
    """With more than 65279 sections, count and name table index are in the first section's size and link."""
    data = bytearray(affine_file.read_bytes())
    table = int.from_bytes(data[0x28:0x30], "little")
    data[table + 0x20 : table + 0x28] = data[0x3C:0x3E] + bytes(6)
    data[table + 0x28 : table + 0x2C] = data[0x3E:0x40] + bytes(2)
    data[0x3C:0x3E], data[0x3E:0x40] = b"\0\0", b"\xff\xff"
    assert find_sections(bytes(data), NAMES) == find_sections(affine_file.read_bytes(), NAMES)


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (b"", "an empty file"),
        (b"MZ", "4d 5a"),
        (b"\x7fELF\x01\x01\x01" + bytes(80), "7f 45 4c 46 01 01 01"),
    ],
)
def test_other_files(data: bytes, got: str) -> None:
    with pytest.raises(PackageError) as caught:
        find_sections(data, NAMES)
    assert (
        str(caught.value)
        == f"module must be a 64-bit little-endian ELF file (7f 45 4c 46 02 01 01 ...); got {got}."
    )
