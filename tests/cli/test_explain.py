"""`convc explain`: reasons, what stands beside a call, pins, layers that nobody has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.cli.command_line import Result, error_of

Convc = Callable[..., Result]


def test_explain_gives_every_algorithm_a_reason(convc: Convc, models: Path) -> None:
    layer, mean = convc("explain", models / "tiny.cvc", "--json").document["layers"]
    assert [c["reason"] for c in mean["candidates"] if not c["chosen"]] == [
        "the axis must be the last alone, 3; got [2, 3]"
    ]
    assert layer["key"].startswith("conv2d-f32-n1c4h8w8-k8r3s3")
    assert sum(c["chosen"] for c in layer["candidates"]) == 1
    assert all(c["reason"] for c in layer["candidates"])
    # The convolution's own name, not that of the relu it absorbed.
    assert layer["node"] == "c"
    assert layer["key"] in convc("explain", models / "tiny.cvc").out


def test_explain_shows_what_stands_beside_a_library_s_call(convc: Convc, models: Path) -> None:
    flags = ("explain", models / "tiny.cvc", "--target", "cuda", "--sm", "90", "--cudnn")
    rows = convc(*flags, "prefer", "--json").document["layers"][0]["candidates"]
    (chosen,) = (c for c in rows if c["chosen"])
    (beside,) = (c for c in rows if c["beside"])
    assert (chosen["algorithm"], chosen["workspace_bytes"]) == ("cudnn", 256 << 20)
    assert (chosen["workspace_at_most"], beside["workspace_at_most"]) == (True, False)
    assert beside["algorithm"] != "cudnn"
    assert beside["reason"].startswith("for devices whose cudnn refuses the layer; estimate")
    shown = convc(*flags, "prefer").out
    assert "+ stands beside the call marked *" in shown
    assert shown.count("at most 256.0 MiB") == 1
    required = convc(*flags, "require", "--json").document["layers"][0]["candidates"]
    assert not any(c["beside"] for c in required)
    assert "+ stands beside" not in convc(*flags, "require").out


def test_a_layer_is_pinned_by_its_own_name(convc: Convc, models: Path) -> None:
    flags = ("--algo-for", "c=direct", "--layer", "c", "--json")
    (layer,) = convc("explain", models / "tiny.cvc", *flags).document["layers"]
    (chosen,) = (c for c in layer["candidates"] if c["chosen"])
    pinned, behind = chosen["reason"].split("; ")
    assert (chosen["algorithm"], pinned) == ("direct", "pinned by --algo-for c")
    assert behind.startswith("one kernel with 'm', estimated ")
    result = convc("explain", models / "tiny.cvc", "--algo-for", "r=direct", "--json")
    assert error_of(result)[:2] == (2, "UnknownNameError")


def test_explain_refuses_a_layer_that_nobody_has(convc: Convc, models: Path) -> None:
    result = convc("explain", models / "tiny.cvc", "--layer", "fc*", "--json")
    assert error_of(result)[:2] == (2, "UnknownNameError")
