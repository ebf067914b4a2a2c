from __future__ import annotations

import hashlib
import io
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import pytest

from convc.errors import LoweringError, PackageError, ToolchainError
from convc.lowering.package import link, write_weights
from convc.runtime import Manifest, Tensor, read_manifest
from tests.runtime import runtime_modules

MANIFEST = runtime_modules.manifest_of(
    "plain", (), [Tensor("x", (4,), "float32")], [Tensor("y", (4,), "float32")], weights_bytes=4096
)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runtime_modules.objects((), MANIFEST, tmp_path_factory.mktemp("code"))[0]


def weights() -> list[tuple[int, np.ndarray]]:
    return [(0, np.arange(8, dtype=np.float32)), (256, np.ones((2, 3), np.int8))]


def test_equal_input_gives_equal_bytes(code: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second" / "deeper"
    first.mkdir()
    second.mkdir(parents=True)
    moved = second / "renamed.o"
    moved.write_bytes(code.read_bytes())
    link([code], MANIFEST, weights(), first / "a.so")
    link([moved], MANIFEST, iter(weights()), second / "b.so")
    assert (first / "a.so").read_bytes() == (second / "b.so").read_bytes()


def test_no_path_in_the_file(code: Path, tmp_path: Path) -> None:
    link([code], MANIFEST, weights(), tmp_path / "a.so")
    data = (tmp_path / "a.so").read_bytes()
    assert str(tmp_path).encode() not in data
    assert b".convc-" not in data
    assert b"payload" not in data


def test_manifest_as_written(code: Path, tmp_path: Path) -> None:
    written = link([code], MANIFEST, weights(), tmp_path / "a.so")
    assert read_manifest(tmp_path / "a.so", verify_checksums=True) == written
    assert msgspec.structs.replace(written, weights_sha256="") == MANIFEST


def test_payload_is_not_loaded_and_the_stack_not_executable(code: Path, tmp_path: Path) -> None:
    link([code], MANIFEST, weights(), tmp_path / "a.so")
    table = subprocess.run(
        ["readelf", "-SlW", tmp_path / "a.so"], capture_output=True, text=True, check=True
    ).stdout
    (line,) = (line for line in table.splitlines() if ".convc.weights" in line)
    # name type address offset size entry-size [flags] link info align: no flags at all
    assert line.split("PROGBITS")[1].split()[4:] == ["0", "0", "4096"]
    (stack,) = (line for line in table.splitlines() if "GNU_STACK" in line)
    assert " RW " in stack


def test_failed_link_leaves_the_old_file(tmp_path: Path) -> None:
    broken, destination = tmp_path / "broken.o", tmp_path / "a.so"
    broken.write_bytes(b"not an object")
    destination.write_bytes(b"old")
    with pytest.raises(LoweringError) as caught:
        link([broken], MANIFEST, weights(), destination)
    assert str(caught.value).startswith("`g++ -shared -fPIC ")
    assert "` must succeed; got exit code 1:\n" in str(caught.value)
    assert "broken.o" in str(caught.value)
    assert destination.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.so", "broken.o"]


def test_no_compiler(code: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolchainError) as caught:
        link([code], MANIFEST, weights(), tmp_path / "a.so", compiler="no-such-g++")
    assert (
        str(caught.value)
        == "linking a module must find the compiler 'no-such-g++'; got none on PATH. Install it with `apt-get install g++`."
    )


def test_no_room_on_the_disk(code: Path, tmp_path: Path) -> None:
    full = tmp_path / "full-g++"
    full.write_text(
        "#!/bin/sh\necho \"as: can't write 15 bytes: 'No space left on device'\" >&2\nexit 1\n"
    )
    full.chmod(0o755)
    with pytest.raises(ToolchainError) as caught:
        link([code], MANIFEST, weights(), tmp_path / "a.so", compiler=str(full))
    text = str(caught.value)
    assert text.startswith("linking a module must have room for its files; got ")
    assert f"bytes free in '{tmp_path}'" in text
    assert "TMPDIR" in text


def test_contradicting_manifest(code: Path, tmp_path: Path) -> None:
    wrong: Manifest = msgspec.structs.replace(MANIFEST, arena_bytes=-1)
    with pytest.raises(PackageError, match=r"^module's arena_bytes must be at least 0; got -1\.$"):
        link([code], wrong, weights(), tmp_path / "a.so")


def test_other_weights_than_promised(code: Path, tmp_path: Path) -> None:
    promised = msgspec.structs.replace(MANIFEST, weights_sha256="00")
    with pytest.raises(
        LoweringError, match=r"^weights must have the manifest's SHA-256 00; got [0-9a-f]{64}\.$"
    ):
        link([code], promised, weights(), tmp_path / "a.so")


def test_weights_are_placed_and_padded() -> None:
    file = io.BytesIO()
    digest = write_weights(file, weights(), 320)
    data = file.getvalue()
    assert digest == hashlib.sha256(data).hexdigest()
    assert data == np.arange(8, dtype=np.float32).tobytes() + bytes(224) + b"\1" * 6 + bytes(58)


def test_arrays_are_taken_one_by_one() -> None:
    alive: list[int] = []

    def stream():
        for number in range(3):
            alive.append(number)
            yield 64 * number, np.full(16, number, np.float32)

    file = io.BytesIO()
    write_weights(file, stream(), 192)
    assert alive == [0, 1, 2]
    assert file.getvalue()[128:132] == np.float32(2).tobytes()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            [(0, np.zeros(32, np.int8)), (16, np.zeros(4, np.int8))],
            "weights of 4 bytes must lie between byte 32 and 64; got offset 16.",
        ),
        (
            [(64, np.zeros(1, np.int8))],
            "weights of 1 bytes must lie between byte 0 and 64; got offset 64.",
        ),
        (
            [(0, np.zeros((4, 4), np.float32)[:, :2])],
            "weights at byte 0 must be C-contiguous; got strides (16, 4).",
        ),
    ],
)
def test_weights_that_do_not_fit(given: list[tuple[int, np.ndarray]], message: str) -> None:
    with pytest.raises(LoweringError) as caught:
        write_weights(io.BytesIO(), given, 64)
    assert str(caught.value) == message
