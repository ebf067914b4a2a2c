from __future__ import annotations

import json

import msgspec
import pytest

from convc.errors import PackageError
from convc.runtime import Argument, Manifest, Step, TargetInfo, Tensor
from convc.runtime.manifest import check, decode, encode

X = Tensor("x", (2, 3), "float32")
WINDOW = Argument("input", (2, 3), "float32")


def manifest(**changes: object) -> Manifest:
    made = Manifest(
        name="net",
        convc="0.1.0",
        tvm="0.27.0.post1",
        tvm_ffi="0.1.14.post1",
        target=TargetInfo("llvm", "x86_64-linux-gnu", "znver4", ("avx512f", "fma")),
        inputs=(X,),
        outputs=(Tensor("y", (2, 3), "float32"),),
        arena_bytes=128,
        weights_bytes=256,
        threads=2,
        steps=(
            Step("k0", "conv1", "conv", "direct", "estimate", {"tile": 4}, arguments=(WINDOW,)),
        ),
        options={"fast_math": "no"},
    )
    return msgspec.structs.replace(made, **changes)


def test_round_trip() -> None:
    assert decode(encode(manifest())) == manifest()


def test_equal_manifests_have_equal_bytes() -> None:
    one = manifest(options={"a": "1", "b": "2"})
    other = manifest(options={"b": "2", "a": "1"})
    assert encode(one) == encode(other)


def test_unknown_fields_are_ignored() -> None:
    data = json.loads(encode(manifest())) | {"later": [1, 2]}
    assert decode(json.dumps(data).encode()) == manifest()


def test_strided_window_extent() -> None:
    assert Argument("output", (2, 3), "float32", strides=(8, 1)).extent == (1 + 8 + 2) * 4
    assert Argument("output", (0, 3), "float32", strides=(8, 1)).extent == 0


def with_argument(**changes: object) -> Manifest:
    argument = msgspec.structs.replace(WINDOW, **changes)
    return manifest(steps=(Step("k0", "conv1", "conv", arguments=(argument,)),))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (manifest(arena_bytes=-1), "module's arena_bytes must be at least 0; got -1."),
        (manifest(weights_bytes=-8), "module's weights_bytes must be at least 0; got -8."),
        (manifest(threads=0), "module's threads must be at least 1; got 0."),
        (manifest(inputs=(X, X)), "input names must differ; got x, x."),
        (
            manifest(inputs=(Tensor("x", (2, -3), "float32"),)),
            "input 'x' must have sizes >= 0; got shape (2, -3).",
        ),
        (
            with_argument(space="gpu"),
            "argument 0 of step 'k0' must be in one of input, output, weights, arena; got 'gpu'.",
        ),
        (
            with_argument(strides=(1,)),
            "argument 0 of step 'k0' must have one stride >= 0 per dimension of (2, 3); got (1,).",
        ),
        (
            with_argument(index=1),
            "argument 0 of step 'k0' must name one of 1 input buffers; got index 1.",
        ),
        (
            with_argument(space="arena", offset=6),
            "argument 0 of step 'k0' must start at a multiple of 4 bytes; got 6.",
        ),
        (
            with_argument(space="arena", offset=128),
            "argument 0 of step 'k0' must end within 128 bytes of arena; got 152.",
        ),
        (
            with_argument(space="weights", strides=(64, 1)),
            "argument 0 of step 'k0' must end within 256 bytes of weights; got 268.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_contradictions(broken: Manifest, message: str) -> None:
    with pytest.raises(PackageError) as caught:
        check(broken)
    assert str(caught.value) == message
    with pytest.raises(PackageError):
        decode(encode(broken))


def test_unknown_dtype() -> None:
    with pytest.raises(
        PackageError, match=r"^input 'x': element type must be one of .*; got 'f8'\.$"
    ):
        check(manifest(inputs=(Tensor("x", (1,), "f8"),)))


def test_newer_format_shows_both() -> None:
    data = json.loads(encode(manifest())) | {"format": 2, "steps": "of another kind"}
    with pytest.raises(PackageError) as caught:
        decode(json.dumps(data).encode())
    assert (
        str(caught.value)
        == "module must have a format from 1 to 1; got 2. Upgrade convc to read it."
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "module's manifest must be JSON of format 1; got Input data was truncated."),
        (
            b"{}",
            "module's manifest must be JSON of format 1; got Object missing required field `format`.",
        ),
        (
            b'{"format": "1"}',
            "module's manifest must be JSON of format 1; got Expected `int`, got `str` - at `$.format`.",
        ),
        (b'{"format": 0}', "module must have a format from 1 to 1; got 0."),
    ],
)
def test_damaged_text(data: bytes, message: str) -> None:
    with pytest.raises(PackageError) as caught:
        decode(data)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "data", [b'{"format": 1, "\xff": 1}', b'{"format": 1, "a": ' + b"[" * 99999]
)
def test_text_that_is_hard_to_parse(data: bytes) -> None:
    with pytest.raises(PackageError, match=r"^module's manifest must be JSON of format 1; got "):
        decode(data)
