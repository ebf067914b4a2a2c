from __future__ import annotations

import pytest
import typer

from convc.cli.parameters import (
    parse_algo_for,
    parse_duration,
    parse_shape,
    parse_shapes,
    split_assignment,
)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("500ms", 0.5), ("2m", 120), ("1.5h", 5400), ("20us", 2e-5)]
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-15)


@pytest.mark.parametrize("text", ["5", "", "s", "-1s", "1 year", "1e3s"])
def test_a_duration_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        parse_duration(text)
    assert caught.value.message == (
        f"a duration must be a number with a unit (us, ms, s, m, h), as in 500ms; got '{text}'."
    )


def test_a_shape_splits_on_the_last_colon() -> None:
    assert parse_shape("Input:0:1x3x8x8") == ("Input:0", (1, 3, 8, 8))
    assert parse_shape("7") == (None, (7,))


@pytest.mark.parametrize("text", ["x:", "x:1,2", ":1x2", "x:0x2", "x:1x-2", "x:1x2x", "x"])
def test_a_malformed_shape_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        parse_shape(text)
    assert caught.value.message.startswith("--shape must look like NAME:1x3x224x224, ")
    assert caught.value.message.endswith(f"; got '{text}'.")


def test_a_nameless_shape_belongs_to_the_only_input() -> None:
    assert parse_shapes(["1x2", "b:3"], lambda: ["a"]) == {"a": (1, 2), "b": (3,)}
    with pytest.raises(typer.BadParameter) as caught:
        parse_shapes(["1x2"], lambda: ["a", "b"])
    assert caught.value.message == "--shape must name its input, one of a, b; got '1x2'."
    with pytest.raises(typer.BadParameter) as caught:
        parse_shapes(["a:1", "a:2"], lambda: ["a"])
    assert caught.value.message == "--shape must be given once per input; got 'a' twice."


def test_named_shapes_do_not_read_the_model() -> None:
    def fail() -> list[str]:
        raise AssertionError("the model was read")

    assert parse_shapes(["a:1x2"], fail) == {"a": (1, 2)}
    assert parse_shapes(None, fail) is None


def test_algo_for_splits_on_the_last_equals_sign() -> None:
    assert parse_algo_for(["a=b=direct", "fc.*=im2col"]) == {"a=b": "direct", "fc.*": "im2col"}
    with pytest.raises(typer.BadParameter) as caught:
        parse_algo_for(["direct"])
    assert caught.value.message == "--algo-for must look like 'layer3.*=direct'; got 'direct'."


def test_an_assignment_finds_the_longest_name_first() -> None:
    assert split_assignment("a=b=1.npy", ["a", "a=b"], "-i") == ("a=b", "1.npy")
    assert split_assignment("ones", ["x"], "-i") == ("x", "ones")
    with pytest.raises(typer.BadParameter) as caught:
        split_assignment("z=ones", ["x", "y"], "-i")
    assert (
        caught.value.message == "-i must look like NAME=VALUE with NAME one of x, y; got 'z=ones'."
    )


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--threads", "0"), "--threads must be greater than or equal to 1; got '0'."),
        (("--threads", "many"), "--threads must be a valid integer; got 'many'."),
        (("--max-error", "nan"), "--max-error must be greater than or equal to 0; got 'nan'."),
        (("--dtype", "fp8"), "--dtype must be one of 'fp64', 'fp32', 'fp16', 'bf16'; got 'fp8'."),
    ],
)
def test_a_refused_value_is_repeated(convc, models, flags: tuple[str, str], text: str) -> None:
    result = convc("explain", models / "tiny.cvc", *flags)
    assert (result.code, result.err.splitlines()[0]) == (2, f"error: {text}")
