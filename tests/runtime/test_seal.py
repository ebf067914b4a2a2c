from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from convc.errors import InputError, PackageError
from convc.runtime import load, read_manifest
from convc.runtime.elf import find_sections

NAMES = (".convc.manifest", ".convc.weights", ".text")


def failure(path: Path, data: bytes, **options: object) -> str:
    path.write_bytes(data)
    with pytest.raises(PackageError) as caught:
        read_manifest(path, **options)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize("where", [".text", ".convc.manifest", "seal", "section table"])
def test_one_flipped_bit_outside_the_weights_is_found(
    affine_file: Path, tmp_path: Path, where: str
) -> None:
    data = bytearray(affine_file.read_bytes())
    if where == "seal":
        place = len(data) - 1
    elif where == "section table":
        place = len(data) - 64 - 8
    else:
        section = find_sections(bytes(data), NAMES)[where]
        place = section.offset + section.size // 2
    data[place] ^= 4
    message = failure(tmp_path / "flipped.so", bytes(data))
    assert message.startswith("module must have the SHA-256 in its seal, ")


def test_a_module_without_its_seal(affine_file: Path, tmp_path: Path) -> None:
    message = failure(tmp_path / "cut.so", affine_file.read_bytes()[:-64])
    assert message.startswith("module must end with its seal; got ")
    assert message.endswith("The file is cut short, damaged, or was changed by another program.")


def test_bytes_put_in_before_the_seal(affine_file: Path, tmp_path: Path) -> None:
    data = affine_file.read_bytes()
    message = failure(tmp_path / "longer.so", data[:-64] + b"\0" + data[-64:])
    assert message == (
        f"module must have the {len(data) - 64} bytes that its seal names; got {len(data) - 63}."
        " The file is damaged."
    )


def test_expected_sha256(affine_file: Path, tmp_path: Path) -> None:
    data = affine_file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    assert read_manifest(affine_file, expect_sha256=digest.upper()).name == "affine"
    assert load(affine_file, threads=1, expect_sha256=digest).manifest.name == "affine"
    other = "0" * 64
    assert failure(tmp_path / "same.so", data, expect_sha256=other) == (
        f"module must have SHA-256 {other}; got {digest}. It is another file, or was changed."
    )
    with pytest.raises(
        InputError, match=r"^expect_sha256 must be 64 hexadecimal digits; got 'abc'"
    ):
        read_manifest(affine_file, expect_sha256="abc")


def test_load_refuses_damaged_weights_if_asked(affine_file: Path, tmp_path: Path) -> None:
    data = bytearray(affine_file.read_bytes())
    data[find_sections(bytes(data), NAMES)[".convc.weights"].offset] ^= 1
    path = tmp_path / "damaged.so"
    path.write_bytes(data)
    with pytest.raises(PackageError, match=r"^weights of .* must have SHA-256 "):
        load(path, threads=1, verify_checksums=True)
