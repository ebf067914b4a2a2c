"""The flags that verbs share, and the small languages of their values: shapes, durations, inputs, pinned algorithms."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

__all__ = [
    "AlgoForOption",
    "AlgoOption",
    "AreaOption",
    "BatchSizeOption",
    "CcOption",
    "ChecksumsOption",
    "EarlyOption",
    "ExpectOption",
    "FastMathOption",
    "JsonOption",
    "McpuOption",
    "ModelArgument",
    "MtripleOption",
    "PtxOption",
    "QuietOption",
    "SeedOption",
    "SmOption",
    "TargetOption",
    "ThreadsOption",
    "TraceOption",
    "VerboseOption",
    "existing_file",
    "parse_algo_for",
    "parse_areas",
    "parse_bytes",
    "parse_duration",
    "parse_shape",
    "parse_shapes",
    "split_assignment",
    "target_words",
]

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx model, or a graph's text form (.cvc).", show_default=False)]  # fmt: skip
TargetOption = Annotated[
    str,
    typer.Option(
        "--target", help="What to build for: `llvm`, this machine's or another CPU, or `cuda`."
    ),
]
SmOption = Annotated[
    str | None,
    typer.Option("--sm", metavar="90|80,90", help="cuda: compute capabilities to make code for, the first one planned for; default: the device here.", show_default=False),
]  # fmt: skip
PtxOption = Annotated[bool, typer.Option("--ptx", help="cuda: add code that newer devices' drivers can translate.")]  # fmt: skip
FastMathOption = Annotated[bool, typer.Option("--fast-math", help="cuda: approximate functions, denormals are zero.")]  # fmt: skip
EarlyOption = Annotated[str, typer.Option("--early", metavar="auto|on|off", help="cuda: whether kernels begin while the one before ends (sm 90 and later); auto: where most are short.", show_default="auto")]  # fmt: skip
McpuOption = Annotated[str, typer.Option("--mcpu", metavar="CPU[,CPU...]", help="CPU: `host`, x86-64-v2..v4, or LLVM's name (`convc targets`); several make one module with code for each.")]  # fmt: skip
MtripleOption = Annotated[str | None, typer.Option("--mtriple", help="Another kind of machine, such as aarch64-linux-gnu; needs --mcpu and its --cc.", show_default=False)]  # fmt: skip
CcOption = Annotated[str, typer.Option("--cc", metavar="COMPILER", help="The C++ compiler that links; for --mtriple a cross compiler, such as aarch64-linux-gnu-g++.")]  # fmt: skip
ChecksumsOption = Annotated[bool, typer.Option("--verify-checksums", help="Compare a module's weights with their SHA-256 too; all the rest of its file is always compared.")]  # fmt: skip
ExpectOption = Annotated[str | None, typer.Option("--expect-sha256", metavar="HEX", help="Refuse a module whose file has another SHA-256 (`sha256sum`).", show_default=False)]  # fmt: skip
TraceOption = Annotated[Path | None, typer.Option("--trace", metavar="FILE.json", help="Write a layer-by-layer trace for chrome://tracing or ui.perfetto.dev.", show_default=False)]  # fmt: skip
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Threads to use; default: as many as this process may.", show_default=False),
]  # fmt: skip
AlgoOption = Annotated[
    str,
    typer.Option(
        "--algo",
        help="Algorithm for every convolution, or `auto`; cudnn:WAY says how cuDNN chooses.",
    ),
]
AlgoForOption = Annotated[
    list[str] | None,
    typer.Option("--algo-for", metavar="NODE=ALGO", help="Algorithm for the layers whose name matches a glob; repeatable. cudnn:WAY says how cuDNN chooses (docs/cudnn.md).", show_default=False),
]  # fmt: skip
AreaOption = Annotated[list[str] | None, typer.Option("--area", metavar="HxW", help="Largest height and width to make code for, where --shape leaves them open; repeatable. A run takes the smallest that holds it. Default: the largest, and its half.", show_default=False)]  # fmt: skip
BatchSizeOption = Annotated[list[int] | None, typer.Option("--batch-size", min=1, help="Number of samples to make code for, where the model has a symbolic batch; repeatable. Any number runs, split into these. Default: 8 and 1; of `N=1..64` in --shape the ends, and 8.", show_default=False)]  # fmt: skip
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of random inputs.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print exactly one JSON document on stdout.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Results and errors only.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="More detail; full tracebacks.")
]

_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def target_words(target: str, sm: str | None, ptx: bool, fast_math: bool, early: str = "") -> str:
    """Return target and options as `parse_target` reads them, which also refuses what does not belong together.

    Example:
        >>> target_words("cuda", "90", True, False)
        'cuda -arch=90 -ptx'
        >>> target_words("cuda", "90", False, False, "off")
        'cuda -arch=90 -early=off'
    """
    words = [
        target,
        f"-arch={sm}" if sm else "",
        "-ptx" * ptx,
        "-fast-math" * fast_math,
        f"-early={early}" if early else "",
    ]
    return " ".join(filter(None, words))


def existing_file(path: Path, what: str) -> Path:
    """Return `path` if it is a file.

    Raises:
        BadParameter: if it is not.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise typer.BadParameter(f"{what} must be a file; got '{path}': {found}.")
    return path


def parse_duration(text: str) -> float:
    """Return seconds.

    Raises:
        BadParameter: if there is no number with a unit.

    Example:
        >>> parse_duration("500ms"), parse_duration("1.5m")
        (0.5, 90.0)
    """
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)(us|ms|s|m|h)", text.strip())
    if not found:
        raise typer.BadParameter(
            f"a duration must be a number with a unit ({', '.join(_UNITS)}), as in 500ms; got '{text}'."
        )
    return float(found[1]) * _UNITS[found[2]]


def parse_bytes(text: str) -> int:
    """Return a number of bytes.

    Raises:
        BadParameter: if there is no number with an optional K, M or G.

    Example:
        >>> parse_bytes("256M"), parse_bytes("0")
        (268435456, 0)
    """
    found = re.fullmatch(r"(\d+)([KMG]?)i?B?", text.strip())
    if not found:
        raise typer.BadParameter(f"a size must look like 256M or 4G; got '{text}'.")
    return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]]


def parse_shape(text: str) -> tuple[str | None, tuple[int | str, ...]]:
    """Return (input's name or None, shape). The name ends at the last colon, so that `Input:0:1x3` names `Input:0`.

    An extent is a number, or a name in capitals for one that is left open: `N`, or `N=1..64` with its range.

    Raises:
        BadParameter: if the extents are not such, joined by x.

    Example:
        >>> parse_shape("Input:0:1x3x224x224"), parse_shape("8x10"), parse_shape("x:N=1..64x3x8x8")
        (('Input:0', (1, 3, 224, 224)), (None, (8, 10)), ('x', ('N=1..64', 3, 8, 8)))
    """
    name, colon, extents = text.rpartition(":")
    extent = r"([1-9]\d*|[A-WYZ][A-WYZ0-9_]*(=[1-9]\d*\.\.[1-9]\d*)?)"
    if not re.fullmatch(rf"{extent}(x{extent})*", extents) or (colon and not name):
        raise typer.BadParameter(
            f"--shape must look like NAME:1x3x224x224, NAME:Nx3x224x224, NAME:N=1..64x3x224x224 or NAME:1x3xH=64..512xW=64..512; got '{text}'."
        )
    for low, high in re.findall(r"(\d+)\.\.(\d+)", extents):
        if int(low) > int(high):
            raise typer.BadParameter(f"--shape must give ranges from the least to the greatest extent; got {low}..{high} in '{text}'.")  # fmt: skip
    dims = (int(d) if d.isdigit() else d for d in extents.split("x"))
    return (name if colon else None), tuple(dims)


def parse_areas(texts: Sequence[str] | None) -> list[tuple[int, int]] | None:
    """Return heights and widths, or None if none are given.

    Raises:
        BadParameter: if one is not two positive numbers joined by x.

    Example:
        >>> parse_areas(["256x320"])
        [(256, 320)]
    """
    areas = []
    for text in texts or ():
        found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
        if not found:
            raise typer.BadParameter(f"--area must look like 256x256; got '{text}'.")
        areas.append((int(found[1]), int(found[2])))
    return areas or None


def parse_shapes(
    texts: Sequence[str] | None, input_names: Callable[[], Sequence[str]]
) -> dict[str, tuple[int | str, ...]] | None:
    """Return shapes by input name, or None if none are given.

    Args:
        texts: the flag's values.
        input_names: looks the model's inputs up; called only if a name is left out.

    Raises:
        BadParameter: if a name is left out and there are several inputs, or one comes twice.

    Example:
        >>> parse_shapes(["1x3x8x8"], lambda: ["x"])
        {'x': (1, 3, 8, 8)}
    """
    if not texts:
        return None
    shapes: dict[str, tuple[int | str, ...]] = {}
    for text in texts:
        name, shape = parse_shape(text)
        if name is None:
            names = input_names()
            if len(names) != 1:
                raise typer.BadParameter(
                    f"--shape must name its input, one of {', '.join(names)}; got '{text}'."
                )
            name = names[0]
        if name in shapes:
            raise typer.BadParameter(f"--shape must be given once per input; got '{name}' twice.")
        shapes[name] = shape
    return shapes


def parse_algo_for(texts: Sequence[str] | None) -> dict[str, str]:
    """Return algorithms by layer glob, in order.

    Raises:
        BadParameter: if one has no `=`.

    Example:
        >>> parse_algo_for(["layer3.*=direct", "fc=dense"])
        {'layer3.*': 'direct', 'fc': 'dense'}
    """
    pinned: dict[str, str] = {}
    for text in texts or ():
        glob, equals, algorithm = text.rpartition("=")
        if not (equals and glob and algorithm):
            raise typer.BadParameter(f"--algo-for must look like 'layer3.*=direct'; got '{text}'.")
        pinned[glob] = algorithm
    return pinned


def split_assignment(text: str, names: Sequence[str], flag: str) -> tuple[str, str]:
    """Return (name, value) of `name=value`; the name may be left out if there is only one.

    Names are looked for first, so that values and names may contain `=`.

    Raises:
        BadParameter: if no known name leads and there are several.

    Example:
        >>> split_assignment("x=a=b.npy", ["x", "y"], "-i"), split_assignment("ones", ["x"], "-i")
        (('x', 'a=b.npy'), ('x', 'ones'))
    """
    for name in sorted(names, key=len, reverse=True):
        if text.startswith(f"{name}="):
            return name, text[len(name) + 1 :]
    if len(names) == 1 and "=" not in text:
        return names[0], text
    raise typer.BadParameter(
        f"{flag} must look like NAME=VALUE with NAME one of {', '.join(names)}; got '{text}'."
    )
