"""Straight-line programs: additions, subtractions and products of numbers or vectors, without loops; each value computed once."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

__all__ = ["Builder", "Program", "Step", "Value", "evaluate", "slots"]

# A value: its number counted from 1, negative for its opposite, 0 for zero.
Value: TypeAlias = int


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on values: a + b, a - b, a x b, or a * factor."""

    operation: str
    a: Value
    b: Value = 0
    factor: float = 0.0

    @property
    def operands(self) -> tuple[Value, ...]:
        return (self.a, self.b) if self.b else (self.a,)


@dataclass(frozen=True, slots=True)
class Program:
    """A straight-line program.

    Attributes:
        inputs: how many; they are values 1 .. inputs.
        steps: step i computes value inputs + 1 + i.
        outputs: values, possibly negated.
    """

    inputs: int
    steps: tuple[Step, ...]
    outputs: tuple[Value, ...]


class Builder:
    """Collects steps, each different one once, signs moved to where they cost nothing.

    Example:
        >>> b = Builder(2)
        >>> b.add(1, 2), b.add(2, 1), b.add(1, -2), b.add(-1, 2), b.add(-1, -2)
        (3, 3, 4, -4, -3)
        >>> b.finish([4]).steps
        (Step(operation='-', a=1, b=2, factor=0.0),)
    """

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.steps: list[Step] = []
        self.known: dict[Step, Value] = {}

    def _value(self, step: Step) -> Value:
        if step not in self.known:
            self.steps.append(step)
            self.known[step] = self.inputs + len(self.steps)
        return self.known[step]

    def add(self, a: Value, b: Value) -> Value:
        """Return a + b."""
        if not a or not b:
            return a or b
        if a < 0 and b < 0:
            return -self.add(-a, -b)
        if a > 0 and b > 0:
            return self._value(Step("+", min(a, b), max(a, b)))
        minuend, subtrahend = max(a, b), -min(a, b)
        opposite = Step("-", subtrahend, minuend)
        if opposite in self.known:
            return -self.known[opposite]
        return self._value(Step("-", minuend, subtrahend))

    def scale(self, a: Value, factor: float) -> Value:
        """Return a times a constant."""
        if not a or not factor:
            return 0
        sign = 1 if (a > 0) == (factor > 0) else -1
        if abs(factor) == 1:
            return sign * abs(a)
        return sign * self._value(Step("*", abs(a), factor=abs(factor)))

    def multiply(self, a: Value, b: Value) -> Value:
        """Return a times b."""
        if not a or not b:
            return 0
        sign = 1 if (a > 0) == (b > 0) else -1
        return sign * self._value(Step("x", *sorted((abs(a), abs(b)))))

    def finish(self, outputs: Sequence[Value]) -> Program:
        """Return the program of these outputs, without steps that none of them needs."""
        needed = {abs(v) for v in outputs}
        for number in range(self.inputs + len(self.steps), self.inputs, -1):
            if number in needed:
                needed.update(self.steps[number - self.inputs - 1].operands)
        numbers = {v: v for v in range(self.inputs + 1)}
        steps: list[Step] = []
        for number, step in enumerate(self.steps, self.inputs + 1):
            if number in needed:
                steps.append(replace(step, a=numbers[step.a], b=numbers[step.b]))
                numbers[number] = self.inputs + len(steps)
        renumbered = tuple(numbers[v] if v >= 0 else -numbers[-v] for v in outputs)
        return Program(self.inputs, tuple(steps), renumbered)


def _uses(program: Program) -> Counter[int]:
    uses = Counter(abs(v) for v in program.outputs if v)
    for step in program.steps:
        uses.update(step.operands)
    return uses


def evaluate(
    program: Program,
    read: Callable[[int], Any],
    write: Callable[[int, Any], None],
    *,
    keep: Callable[[int, Any], Any] = lambda number, value: value,
    factor: Callable[[float], Any] = lambda value: value,
) -> None:
    """Run a program on any kind of value.

    Args:
        program: what to run.
        read: position of an input -> its value; called once, before its first use.
        write: takes position and value of an output, as soon as it is known.
        keep: takes number and value of a result that is used more than once, and returns what stands for it.
        factor: constant -> what values are multiplied with.

    Example:
        >>> b = Builder(2)
        >>> evaluate(b.finish([b.add(1, -2), -1]), [3.0, 4.0].__getitem__, lambda *output: print(output))
        (1, -3.0)
        (0, -1.0)
    """
    uses = _uses(program)
    positions: dict[int, list[tuple[int, int]]] = {}
    for position, v in enumerate(program.outputs):
        if v:
            positions.setdefault(abs(v), []).append((position, v))
        else:
            write(position, factor(0.0))
    values: dict[int, Any] = {}

    def define(number: int, value: Any) -> None:
        values[number] = value = keep(number, value) if uses[number] > 1 else value
        for position, v in positions.get(number, ()):
            write(position, value if v > 0 else -value)

    def operand(number: int) -> Any:
        if number not in values:
            define(number, read(number - 1))
        return values[number]

    for number, step in enumerate(program.steps, program.inputs + 1):
        a = operand(step.a)
        b = operand(step.b) if step.b else factor(step.factor)
        define(
            number, a + b if step.operation == "+" else a - b if step.operation == "-" else a * b
        )
    for number in positions:
        operand(number)  # inputs that are outputs, and nothing else


def slots(program: Program) -> dict[int, int]:
    """Return a place for each value that `evaluate` keeps; values that are needed at the same time have different ones.

    Example:
        >>> b = Builder(2)
        >>> total, difference = b.add(1, 2), b.add(1, -2)
        >>> slots(b.finish([total, difference, b.multiply(total, difference)]))
        {1: 0, 2: 1, 3: 2, 4: 3}
    """
    uses = _uses(program)
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for number in range(program.inputs + len(program.steps), program.inputs, -1):
        # A result that is used once is computed where it is used: its operands must live until then.
        moment = last.get(number, number) if uses[number] == 1 else number
        for operand in program.steps[number - program.inputs - 1].operands:
            first[operand] = number
            last[operand] = max(last.get(operand, 0), moment)
    born = {v: v if v > program.inputs else first.get(v, 0) for v in uses if uses[v] > 1}
    placed: dict[int, int] = {}
    occupied: list[tuple[int, int]] = []
    free: list[int] = []
    for number in sorted(born, key=lambda v: (born[v], v)):
        while occupied and occupied[0][0] < born[number]:
            free.append(heapq.heappop(occupied)[1])
        placed[number] = free.pop() if free else len(occupied)
        heapq.heappush(occupied, (last.get(number, number), placed[number]))
    return placed
