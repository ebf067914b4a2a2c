"""Train a small convolutional network on drawn digits: convc computes loss and gradients, NumPy takes the step.

    python examples/train_mnist_like.py

Two modules are compiled: one step (forward and backward in one graph, `convc.grad` writes the backward half), and the network
alone, to measure its accuracy. Parameters are inputs of both, so nothing is compiled again while they change.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np
from rich.console import Console

import convc
from convc import dsl as cc

Parameters = dict[str, np.ndarray]

BATCH, SIZE, CLASSES = 64, 20, 10

# Which of seven segments (top, two upper sides, middle, two lower sides, bottom) each digit lights.
_SEGMENTS = ("1110111", "0010010", "1011101", "1011011", "0111010",
             "1101011", "1101111", "1010010", "1111111", "1111011")  # fmt: skip
_STROKES = ((0, 0, 0, 6), (0, 0, 5, 0), (0, 6, 5, 6), (5, 0, 5, 6),
            (5, 0, 10, 0), (5, 6, 10, 6), (10, 0, 10, 6))  # fmt: skip


def draw(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return images (N, 1, 20, 20) of digits, moved, slanted, of two strengths, under noise."""
    images = rng.normal(0, 0.35, (len(labels), 1, SIZE, SIZE))
    for image, label in zip(images[:, 0], labels, strict=True):
        top, left = rng.integers(1, SIZE - 13), rng.integers(3, SIZE - 10)
        slant, thick = rng.uniform(-0.25, 0.25), rng.integers(1, 3)
        for lit, (y0, x0, y1, x1) in zip(_SEGMENTS[label], _STROKES, strict=True):
            if lit == "0":
                continue
            for t in np.linspace(0, 1, 12):
                y, x = y0 + t * (y1 - y0), x0 + t * (x1 - x0)
                row, col = top + round(y), left + round(x + slant * (5 - y))
                image[row : row + thick, col : col + thick] += 1 - image[row, col] * 0.5
    return images.astype(np.float32)


def batches(count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (images, labels)."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        labels = rng.integers(0, CLASSES, BATCH)
        yield draw(labels, rng), labels


SHAPES = {
    "stem.weight": (16, 1, 3, 3),
    "stem.bias": (16,),
    "body.weight": (32, 16, 3, 3),
    "body.bias": (32,),
    "head.weight": (CLASSES, 32 * 5 * 5),
    "head.bias": (CLASSES,),
}


def initial(seed: int = 0) -> Parameters:
    """Return He's normal initial weights, biases of zero."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(0, np.sqrt(2 / np.prod(s[1:])), s) if len(s) > 1 else np.zeros(s)).astype(
            np.float32
        )
        for name, s in SHAPES.items()
    }


def network(x: cc.Tensor, p: dict[str, cc.Tensor]) -> cc.Tensor:
    """Return the logits (N, 10)."""
    h = cc.relu(cc.conv2d(x, p["stem.weight"], p["stem.bias"], pads=1))
    h = cc.max_pool2d(h, 2, strides=2)
    h = cc.relu(cc.conv2d(h, p["body.weight"], p["body.bias"], pads=1))
    h = cc.max_pool2d(h, 2, strides=2)
    return cc.dense(cc.flatten(h), p["head.weight"], p["head.bias"])


def modules(threads: int) -> tuple[convc.CompiledModel, convc.CompiledModel]:
    """Return the module of a training step and the module of the network alone."""
    x, target = cc.input("x", (BATCH, 1, SIZE, SIZE)), cc.input("target", (BATCH, CLASSES))
    p = {name: cc.input(name, shape) for name, shape in SHAPES.items()}
    logits = network(x, p)
    loss = -cc.mean(cc.sum(cc.log_softmax(logits) * target, 1))
    gradients = convc.grad(loss, list(p.values()))
    outputs = {"loss": loss, **dict(zip((f"d {n}" for n in p), gradients, strict=True))}
    step = convc.compile(cc.graph(outputs, name="step"), threads=threads)
    return step, convc.compile(cc.graph({"logits": logits}, name="digits"), threads=threads)


def accuracy(model: convc.CompiledModel, p: Parameters, seed: int = 10_000) -> float:
    """Return the share of digits recognised, of 1280 never seen in training."""
    hits = [
        np.mean(model.run({"x": images, **p})["logits"].argmax(1) == labels)
        for images, labels in batches(20, seed)
    ]
    return float(np.mean(hits))


def train(steps: int, *, threads: int = 1, rate: float = 0.05, momentum: float = 0.9) -> float:
    """Train for so many steps of 64 digits, from `rate` down to none, print how it goes, and return the accuracy."""
    screen, begin = Console(highlight=False), time.perf_counter()
    step, model = modules(threads)
    screen.print(f"compiled in {time.perf_counter() - begin:.1f} s")
    p = initial()
    velocity = {name: np.zeros_like(v) for name, v in p.items()}
    for index, (images, labels) in enumerate(batches(steps, seed=1)):
        target = np.eye(CLASSES, dtype=np.float32)[labels]
        result = step.run({"x": images, "target": target, **p})
        # The steps grow smaller, so that what the last few images say does not decide: 98.7 % instead of 94.6.
        now = rate * (1 - index / steps)
        for name in p:
            velocity[name] = momentum * velocity[name] - now * result[f"d {name}"]
            p[name] = p[name] + velocity[name]
        if index % 50 == 0:
            screen.print(f"step {index:4d}   loss {float(result['loss']):.3f}")
    found = accuracy(model, p)
    screen.print(f"accuracy {100 * found:.1f} % after {time.perf_counter() - begin:.1f} s")
    return found


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(
        description="Train a small convolutional network on drawn digits."
    )
    parser.add_argument("--steps", type=int, default=300, help="steps of 64 digits")
    parser.add_argument("--threads", type=int, default=1, help="threads of the compiled modules")
    arguments = parser.parse_args()
    train(arguments.steps, threads=arguments.threads)


if __name__ == "__main__":
    main()
