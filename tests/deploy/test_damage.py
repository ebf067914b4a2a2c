"""Damaged and hostile files: reading one gives an error in words, in Python and in C, and never runs or crashes anything."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from convc.errors import PackageError
from convc.runtime import read_manifest
from convc.runtime.elf import find_sections
from tests.deploy.command_server import exit_codes
from tests.deploy.toolbox import Programs, run
from tests.runtime.runtime_modules import resealed

SECTIONS = (".convc.manifest", ".convc.weights", ".text")


def damaged(
    original: bytes, count: int, seed: int, reseal_every: int = 2
) -> Iterator[tuple[bytes, bool]]:
    """Yield `count` copies of a module with a few bits, bytes or ranges changed, and whether the seal was made to fit again.

    `reseal_every` is of how many copies one is, 0 for none of them.
    """
    rng = random.Random(seed)
    sections = find_sections(original, SECTIONS)
    table = int.from_bytes(original[0x28:0x30], "little")
    regions = [
        range(64),
        range(table, len(original)),
        range(len(original)),
        *(range(s.offset, s.offset + s.size) for s in sections.values()),
    ]
    number = 0
    while number < count:
        data = bytearray(original)
        region = regions[number % len(regions)]
        match rng.randrange(5):
            case 0:
                data[rng.choice(region)] ^= 1 << rng.randrange(8)
            case 1:
                for _ in range(rng.randint(1, 8)):
                    data[rng.choice(region)] = rng.randrange(256)
            case 2:
                del data[rng.choice(region) :]
            case 3:
                start = rng.choice(region)
                data[start : start + rng.randint(1, 64)] = rng.randbytes(rng.randint(0, 64))
            case _:
                place = rng.choice(region)
                data[place : place + 8] = rng.choice((b"\xff" * 8, bytes(8), b"[" * 8, b"9" * 8))
        reseal = bool(reseal_every) and number % reseal_every == 1
        changed = resealed(data) if reseal else bytes(data)
        # A byte that was replaced by itself is no damage.
        if changed != original:
            number += 1
            yield changed, reseal


def statuses_in_c(programs: Programs, paths: list[Path]) -> list[int]:
    done = subprocess.run(
        [programs.driver, "inspect", *paths],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths)
    return [int(line.split()[0]) for line in lines]


def assert_each_is_refused(
    original: bytes, count: int, seed: int, folder: Path, programs: Programs
) -> None:
    """Without a new seal every change is found; with one, what is left is a file that says something else, or an error."""
    outcomes: Counter[tuple[bool, bool]] = Counter()
    batch: list[tuple[Path, bool, bool]] = []

    def compare_with_c() -> None:
        for (path, reseal, refused), status in zip(
            batch, statuses_in_c(programs, [b[0] for b in batch]), strict=True
        ):
            if not reseal:
                assert refused, f"{path} was taken"
                assert status != 0, f"{path} was taken by libconvc"
            outcomes[reseal, refused] += 1
        batch.clear()

    for number, (data, reseal) in enumerate(damaged(original, count, seed)):
        path = folder / f"{number % 500}.so"
        path.write_bytes(data)
        try:
            read_manifest(path, verify_checksums=True)
            refused = False
        except PackageError as error:
            refused = bool(str(error))
        batch.append((path, reseal, refused))
        if len(batch) == 500:
            compare_with_c()
    if batch:
        compare_with_c()
    # Both kinds were reached: the seal's own errors, and what stands behind it.
    assert outcomes[False, True] > count // 3
    assert outcomes[True, True] > count // 20


def test_damaged_files(module_file: Path, sanitized: Programs, tmp_path: Path) -> None:
    assert_each_is_refused(module_file.read_bytes(), 400, 17, tmp_path, sanitized)


def assert_the_command_refuses(original: bytes, count: int, seed: int, folder: Path) -> None:
    """`convc inspect`, a process for each file: exit code 5 and a sentence, never a signal, never a bug's report."""
    batch: list[Path] = []
    seen = 0

    def inspect() -> None:
        for path, (code, said) in zip(
            batch, exit_codes(["inspect", "--verify-checksums"], batch), strict=True
        ):
            assert (code, said[:7]) == (5, "error: "), f"{path}: {code} {said}"
        batch.clear()

    for data, _ in damaged(original, count, seed, reseal_every=0):
        path = folder / f"{len(batch)}.so"
        path.write_bytes(data)
        batch.append(path)
        seen += 1
        if len(batch) == 500:
            inspect()
    inspect()
    assert seen == count


def test_the_command_on_damaged_files(module_file: Path, tmp_path: Path) -> None:
    assert_the_command_refuses(module_file.read_bytes(), 60, 29, tmp_path)


@pytest.mark.slow
def test_the_command_on_ten_thousand_damaged_files(module_file: Path, tmp_path: Path) -> None:
    assert_the_command_refuses(module_file.read_bytes(), 10_000, 31, tmp_path)


@pytest.mark.slow
def test_ten_thousand_damaged_files(module_file: Path, sanitized: Programs, tmp_path: Path) -> None:
    assert_each_is_refused(module_file.read_bytes(), 10_000, 23, tmp_path, sanitized)


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"format": 1e99}',
        b'{"format": 99}',
        b'{"format": -1}',
        b'{"format": 99999999999999999999999}',
        b'{"format": 1, "name": "\xff\xfe", "steps": [{"symbol": "\\ud800"}]}',
        b'{"format": 1, "inputs": [{"name": "x", "dtype": "float32", "shape": [9223372036854775807, 9]}]}',
        b'{"format": 1, "inputs": [{"name": "x", "dtype": "float31", "shape": [1]}]}',
        b'{"format": 1, "inputs": [{"name": "x", "dtype": "float32", "shape": [-1]}]}',
        b'{"format": 1, "arena_bytes": -9223372036854775808}',
        b'{"format": 1, "entry": "main", "steps": [{"arguments": [{"space": "arena", "dtype": "int8", "shape": [65]}]}]}',
        b'{"format": 1, "entry": "main", "steps": [{"arguments": [{"space": "input", "dtype": "int8", "index": 7}]}]}',
    ],
)
def test_hostile_manifests(
    manifest: bytes, module_file: Path, sanitized: Programs, tmp_path: Path
) -> None:
    """With a seal that fits: what reads the manifest trusts nothing in it."""
    (tmp_path / "manifest").write_bytes(manifest)
    path = tmp_path / "hostile.so"
    run(
        [
            *("objcopy", "--update-section", f".convc.manifest={tmp_path / 'manifest'}"),
            *(module_file, path),
        ]
    )
    # objcopy drops what is behind the section table; a seal of any content is put there to be made to fit.
    path.write_bytes(resealed(path.read_bytes() + bytes(64)))
    with pytest.raises(PackageError) as caught:
        read_manifest(path)
    assert "seal" not in str(caught.value)
    (status,) = statuses_in_c(sanitized, [path])
    assert status == 3


def test_another_architecture(module_file: Path, tmp_path: Path) -> None:
    """Told by the manifest before anything is loaded; the ELF header's machine is under the seal."""
    data = bytearray(module_file.read_bytes())
    data[0x12:0x14] = (183).to_bytes(2, "little")  # EM_AARCH64
    (tmp_path / "other.so").write_bytes(data)
    with pytest.raises(PackageError, match=r"^module must have the SHA-256 in its seal"):
        read_manifest(tmp_path / "other.so")
