"""`convc run`: one inference."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convc.cli.parameters import (
    ChecksumsOption,
    ExpectOption,
    JsonOption,
    QuietOption,
    SeedOption,
    ThreadsOption,
    TraceOption,
    VerboseOption,
    existing_file,
    split_assignment,
)
from convc.cli.render import Column, Output, console, print_json, seconds, table
from convc.cli.sources import module_file

if TYPE_CHECKING:
    import numpy as np

    from convc.inputs import ArraySignature

__all__ = ["ModuleArgument", "load_array", "run"]


class NanPolicy(StrEnum):
    """Typer shows an enum's values as the flag's choices."""

    ALLOW = "allow"
    ERROR = "error"


ModuleArgument = Annotated[
    Path, typer.Argument(metavar="MODULE", help="A compiled module (.so).", show_default=False)
]
InputOption = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", metavar="[NAME=]VALUE", help="An input: a .npy file, random, ones or zeros; repeatable. Default: random.", show_default=False),
]  # fmt: skip


def run(
    module: ModuleArgument,
    inputs: InputOption = None,
    out: Annotated[Path | None, typer.Option("-o", "--output", metavar="OUT.npz", help="Save all outputs.", show_default=False)] = None,
    print_top: Annotated[int, typer.Option("--print-top", min=0, metavar="N", help="Print the N greatest values of each output.")] = 0,
    trace: TraceOption = None,
    verify_checksums: ChecksumsOption = False,
    expect_sha256: ExpectOption = None,
    threads: ThreadsOption = None,
    seed: SeedOption = 0,
    nan: Annotated[NanPolicy, typer.Option("--nan", help="Whether inputs and outputs may contain NaN.")] = NanPolicy.ALLOW,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:  # fmt: skip
    """Run a module once."""
    from convc.npz import save_npz
    from convc.runtime import load
    from convc.runtime.trace import write_trace

    output = Output(json, quiet, verbose)
    if out is not None and out.suffix != ".npz":
        raise typer.BadParameter(f"-o must name a file that ends in .npz; got '{out}'.")
    loaded = load(
        module_file(module),
        threads=threads,
        nan=nan.value,
        verify_checksums=verify_checksums,
        expect_sha256=expect_sha256,
    )
    fed = _inputs(loaded.inputs, inputs or [], seed)
    began = time.perf_counter()
    results = loaded.run(fed)
    spent = time.perf_counter() - began
    if out is not None:
        save_npz(out, results)
    if trace is not None:
        write_trace(trace, loaded.manifest, loaded.profile(fed, repeats=1))
    if output.json:
        rows = [
            {
                "name": name,
                **_statistics(value),
                "top": [{"index": i, "value": v} for i, v in _top(value, print_top)],
            }
            for name, value in results.items()
        ]
        print_json({"module": str(module), "seconds": spent, "outputs": rows, "saved": out})
        return
    screen = console()
    for name, value in results.items():
        facts = _statistics(value)
        range_text = ", ".join(
            f"{k} {facts[k]:.6g}" for k in ("min", "max", "mean") if facts[k] is not None
        )
        shape = "x".join(map(str, value.shape))
        screen.print(
            f"{name}: {value.dtype} {shape}, {range_text}, {facts['nan']} NaN", markup=False
        )
        top = _top(value, print_top)
        if top:
            columns = (Column("index", right=True), Column("value", right=True))
            cells = [(", ".join(map(str, index)), f"{v:.6g}") for index, v in top]
            screen.print(table(None, columns, cells))
    output.note(f"{seconds(spent)} for this first run; `convc bench` measures")


def _inputs(
    signatures: Sequence[ArraySignature], texts: list[str], seed: int
) -> dict[str, np.ndarray]:
    import numpy as np

    from convc.inputs import FILLS, fill

    names = [s.name for s in signatures]
    asked: dict[str, str] = {}
    for text in texts:
        name, value = split_assignment(text, names, "-i")
        if name in asked:
            raise typer.BadParameter(f"-i must be given once per input; got '{name}' twice.")
        asked[name] = value
    generator = np.random.default_rng(seed)
    fed: dict[str, np.ndarray] = {}
    for signature in signatures:
        value = asked.get(signature.name, "random")
        if value in FILLS:
            fed[signature.name] = fill(value, signature.shape, signature.dtype, generator)
        elif value.endswith(".npy"):
            fed[signature.name] = load_array(Path(value))
        else:
            raise typer.BadParameter(
                f"-i {signature.name} must be a .npy file or one of {', '.join(FILLS)}; got '{value}'."
            )
    return fed


def load_array(path: Path) -> np.ndarray:
    """Return the array in a .npy file."""
    import numpy as np

    try:
        return np.load(existing_file(path, "an input"), allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        with path.open("rb") as file:
            begins = file.read(6)
        # NumPy's own words are about pickles that nobody asked for.
        found = str(error) if b"NUMPY" in begins and "pickle" not in str(error) else f"one that begins with {begins!r}"  # fmt: skip
        found = "one of Python objects" if b"NUMPY" in begins and "pickle" in str(error) else found
        raise typer.BadParameter(
            f"'{path}' must be a NumPy array file of numbers; got {found}. Write it with numpy.save."
        ) from None


def _statistics(value: np.ndarray) -> dict[str, Any]:
    """Return shape, type, and the range and mean of the finite elements."""
    import numpy as np

    wide = value.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    summary = {"min": np.min, "max": np.max, "mean": np.mean}
    return {
        "shape": value.shape,
        "dtype": str(value.dtype),
        **{name: float(f(finite)) if finite.size else None for name, f in summary.items()},
        "nan": int(np.isnan(wide).sum()),
        "infinite": int(np.isinf(wide).sum()),
    }


def _top(value: np.ndarray, count: int) -> list[tuple[tuple[int, ...], float]]:
    """Return the greatest values with their indices, greatest first; equal ones in order."""
    import numpy as np

    order = np.argsort(-value.astype(np.float64), axis=None, kind="stable")[:count]
    indices = [tuple(int(i) for i in np.unravel_index(flat, value.shape)) for flat in order]
    return [(index, float(value[index])) for index in indices]
