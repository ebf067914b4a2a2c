"""python -m benchmarks.training: forward and backward of ResNet-18 beside PyTorch eager (CPU, oneDNN), in one process, in rotation.

Both compute the loss and the gradient of every parameter from the same numbers; the differences between their gradients are
printed with the times. The optimiser's step is neither's: NumPy or PyTorch would do it alike.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.arguments import check_rounds, say
from benchmarks.interleave import Contestant, Timing, interleave
from benchmarks.machine_pace import machine_reference
from benchmarks.training_networks import CLASSES, initial, loss_of_torch, resnet18
from convc.cli.layer_table import layer_rows, layer_table
from convc.cli.render import Column, seconds, table
from convc.compiler import compile
from convc.errors import ConvcError, InputError
from convc.runtime.threads import check_threads

__all__ = ["gradients_of_torch", "main"]

Array = np.ndarray


def gradients_of_torch(
    inputs: Mapping[str, Array], names: Sequence[str], threads: int
) -> Callable[[], dict[str, Array]]:
    """Return the call that computes loss and gradients with PyTorch.

    Raises:
        InputError: if PyTorch is not installed.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "torch must be installed to compare with it; got none. `pip install torch`, or `--vs none`."
        ) from None
    torch.set_num_threads(threads)
    x, target = (torch.from_numpy(inputs[n].copy()) for n in ("x", "target"))
    p: dict[str, Any] = {n: torch.from_numpy(inputs[n].copy()).requires_grad_() for n in names}

    def call() -> dict[str, Array]:
        loss = loss_of_torch(x, target, p)
        found = torch.autograd.grad(loss, list(p.values()))
        return {"loss": loss.detach().numpy()} | {
            f"d {n}": g.numpy() for n, g in zip(p, found, strict=True)
        }

    return call


def _differences(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> list[tuple[float, str]]:
    """Return the largest difference of each gradient, relative to its greatest element, and whose it is, smallest first."""
    return sorted(
        (float(np.abs(ours[n] - theirs[n]).max() / max(np.abs(theirs[n]).max(), 1e-30)), n)
        for n in theirs
    )


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--rounds", type=int, default=5, help="blocks of calls of each, in rotation"
    )
    parser.add_argument("--vs", choices=("torch", "none"), default="torch")
    parser.add_argument(
        "--profile", type=int, default=0, metavar="N", help="also print convc's N slowest steps"
    )
    return parser.parse_args(words)


def _run(a: argparse.Namespace, screen: Console) -> None:
    rounds, threads = check_rounds(a.rounds), check_threads(a.threads)
    training = resnet18(a.batch, a.size)
    rng = np.random.default_rng(1)
    target = np.eye(CLASSES, dtype=np.float32)[rng.integers(0, CLASSES, a.batch)]
    inputs = {"x": rng.normal(size=(a.batch, 3, a.size, a.size)).astype(np.float32)}
    inputs |= {"target": target, **initial(training.parameters)}
    say("compiling")
    model = compile(training.graph, threads=threads)
    module = model.load(threads=threads)
    calls: dict[str, Callable[[], Mapping[str, Array]]] = {"convc": lambda: module.run(inputs)}
    if a.vs == "torch":
        calls["torch"] = gradients_of_torch(inputs, list(training.parameters), threads)
    say("comparing")
    results = {name: call() for name, call in calls.items()}
    if "torch" in results:
        found = _differences(results["convc"], results["torch"])
        # A pre-activation that is nearly zero has another sign in the one than in the other, now and then; the median has none.
        middle, (worst, name) = found[len(found) // 2][0], found[-1]
        screen.print(f"differences, of each gradient's maximum: median {middle:.1e}, largest {worst:.1e} in '{name}'")  # fmt: skip
    contestants = [Contestant(name, call) for name, call in calls.items()]
    timings = interleave(
        contestants,
        rounds,
        reference=machine_reference(threads),
        progress=lambda i, n: say(f"round {i + 1} of {n}"),
    )
    say("")
    screen.print(_table(timings, a))
    if a.profile:
        steps = layer_rows(module.profile(inputs, repeats=3), None)
        slowest = sorted(steps, key=lambda row: -row.seconds)[: a.profile]
        screen.print(layer_table(slowest, None))


def _table(timings: Mapping[str, Timing], a: argparse.Namespace) -> Any:
    ours = timings["convc"].median
    title = (
        f"ResNet-18, loss and gradients, batch {a.batch}, {a.size} x {a.size}, {a.threads} threads"
    )
    rows = [
        (n, seconds(t.median), seconds(min(t.samples)), f"{100 * t.spread:.1f} %", str(len(t.samples)), f"{ours / t.median:.2f}")
        for n, t in timings.items()
    ]  # fmt: skip
    names = ("", "median", "min", "spread", "calls", "convc / it")
    return table(title, tuple(Column(n) for n in names), rows)


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit code."""
    screen = Console(highlight=False, width=160)
    try:
        _run(_arguments(words), screen)
    except ConvcError as error:
        screen.print(f"error: {error}", markup=False)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
