"""Generator of fast Fourier transforms as straight-line programs: additions, subtractions and products, each value computed once.

The transform of a tile of t_h x t_w real points, chosen so that every bin is complex and all bins are alike:

    rows       S[h] = sum over j of x[j] exp(-2 pi i (2h + 1/2) j / t_w)      h = 0 .. t_w/2 - 1
    columns    V[e] = sum over i of S[i] exp(-2 pi i e i / t_h)               e = 0 .. t_h - 1

Bins at whole frequencies would be real at 0 and t_w/2 and complex elsewhere. Half a bin aside none is real, and the t_w/2 even ones
say everything, for x is real. Their product is the convolution modulo x^t_w + 1 instead of x^t_w - 1: what wraps around changes its
sign, and overlap-save discards what wraps around. A row is one complex transform of half its length:

    S[h] = sum over j < t_w/2 of (x[j] - i x[j + t_w/2]) exp(-pi i j / t_w) exp(-2 pi i h j / (t_w/2))

COST    split radix: 4 n log2(n) - 6 n + 8 real operations for n complex points; an odd factor p costs about p of them a point
SOURCE  Duhamel and Hollmann 1984 (split radix); Frigo, PLDI'99 (programs as shared expressions, unused results dropped)
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

__all__ = [
    "FACTORS",
    "Program",
    "column_forward",
    "column_inverse",
    "column_product",
    "evaluate",
    "row_forward",
    "row_inverse",
    "slots",
]

# Prime factors that a transform's length may have.
FACTORS: Final = (2, 3, 5, 7)

# A value: its number counted from 1, negative for its opposite, 0 for zero.
Value: TypeAlias = int
Complex: TypeAlias = tuple[Value, Value]
Step: TypeAlias = tuple[str, Value, float]


@dataclass(frozen=True, slots=True)
class Program:
    """A straight-line program.

    Attributes:
        inputs: how many; they are values 1 .. inputs.
        steps: (operation, a, b); step i computes value inputs + 1 + i. `+ - x` take two values, `*` a value and a factor.
        outputs: values, possibly negated or zero.
    """

    inputs: int
    steps: tuple[Step, ...]
    outputs: tuple[Value, ...]


class _Builder:
    """Collects steps, each different one once, signs moved to where they cost nothing."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.steps: list[Step] = []
        self.known: dict[Step, Value] = {}

    def _value(self, operation: str, a: Value, b: float) -> Value:
        step = (operation, a, b)
        if step not in self.known:
            self.steps.append(step)
            self.known[step] = self.inputs + len(self.steps)
        return self.known[step]

    def add(self, a: Value, b: Value) -> Value:
        if not a or not b:
            return a or b
        if a < 0 and b < 0:
            return -self.add(-a, -b)
        if a > 0 and b > 0:
            return self._value("+", min(a, b), max(a, b))
        minuend, subtrahend = max(a, b), -min(a, b)
        if ("-", subtrahend, minuend) in self.known:
            return -self._value("-", subtrahend, minuend)
        return self._value("-", minuend, subtrahend)

    def scale(self, a: Value, factor: float) -> Value:
        if not a or not factor:
            return 0
        sign = 1 if (a > 0) == (factor > 0) else -1
        return sign * (abs(a) if abs(factor) == 1 else self._value("*", abs(a), abs(factor)))

    def product(self, a: Value, b: Value) -> Value:
        sign = 1 if (a > 0) == (b > 0) else -1
        return sign * self._value("x", *sorted((abs(a), abs(b)))) if a and b else 0

    def finish(self, outputs: Sequence[Value]) -> Program:
        """Return the program of these outputs, without steps that none of them needs."""
        needed = {abs(v) for v in outputs}
        for index in range(len(self.steps) - 1, -1, -1):
            operation, a, b = self.steps[index]
            if self.inputs + 1 + index in needed:
                needed |= {a} if operation == "*" else {a, int(b)}
        numbers = {v: v for v in range(self.inputs + 1)}
        steps: list[Step] = []
        for index, (operation, a, b) in enumerate(self.steps):
            if self.inputs + 1 + index in needed:
                steps.append((operation, numbers[a], b if operation == "*" else numbers[int(b)]))
                numbers[self.inputs + 1 + index] = self.inputs + len(steps)
        renumbered = tuple(numbers[v] if v >= 0 else -numbers[-v] for v in outputs)
        return Program(self.inputs, tuple(steps), renumbered)

    # ---- complex arithmetic -----------------------------------------------------------------------------------------

    def plus(self, x: Complex, y: Complex) -> Complex:
        return self.add(x[0], y[0]), self.add(x[1], y[1])

    def minus(self, x: Complex, y: Complex) -> Complex:
        return self.add(x[0], -y[0]), self.add(x[1], -y[1])

    def turn(self, x: Complex, numerator: int, denominator: int) -> Complex:
        """Return x exp(2 pi i numerator / denominator)."""
        c, s = _circle(numerator % denominator, denominator)
        re = self.add(self.scale(x[0], c), self.scale(x[1], -s))
        return re, self.add(self.scale(x[0], s), self.scale(x[1], c))

    def times(self, x: Complex, y: Complex) -> Complex:
        re = self.add(self.product(x[0], y[0]), -self.product(x[1], y[1]))
        return re, self.add(self.product(x[0], y[1]), self.product(x[1], y[0]))

    def fourier(self, x: Sequence[Complex], sign: int) -> list[Complex]:
        """Return sum over j of x[j] exp(sign 2 pi i j k / n)."""
        n = len(x)
        if n == 1:
            return list(x)
        if n == 2:
            return [self.plus(x[0], x[1]), self.minus(x[0], x[1])]
        if n % 4 == 0:
            return self._split_radix(x, sign)
        p = next(f for f in FACTORS if n % f == 0)
        return self._prime(x, sign) if n == p else self._mixed_radix(x, sign, p)

    def _split_radix(self, x: Sequence[Complex], sign: int) -> list[Complex]:
        n, q = len(x), len(x) // 4
        even, one, three = (self.fourier(x[a::b], sign) for a, b in ((0, 2), (1, 4), (3, 4)))
        result: list[Complex] = [(0, 0)] * n
        for k in range(q):
            a, b = self.turn(one[k], sign * k, n), self.turn(three[k], sign * 3 * k, n)
            total, difference = self.plus(a, b), self.turn(self.minus(a, b), sign, 4)
            result[k], result[k + 2 * q] = self.plus(even[k], total), self.minus(even[k], total)
            result[k + q] = self.plus(even[k + q], difference)
            result[k + 3 * q] = self.minus(even[k + q], difference)
        return result

    def _mixed_radix(self, x: Sequence[Complex], sign: int, p: int) -> list[Complex]:
        n, q = len(x), len(x) // p
        parts = [self.fourier(x[r::p], sign) for r in range(p)]
        result: list[Complex] = [(0, 0)] * n
        for k in range(q):
            column = [self.turn(parts[r][k], sign * r * k, n) for r in range(p)]
            result[k::q] = self.fourier(column, sign)
        return result

    def _prime(self, x: Sequence[Complex], sign: int) -> list[Complex]:
        n, half = len(x), len(x) // 2
        sums = [self.plus(x[j], x[n - j]) for j in range(1, half + 1)]
        differences = [self.minus(x[j], x[n - j]) for j in range(1, half + 1)]
        first = x[0]
        for total in sums:
            first = self.plus(first, total)
        result = [first] * n
        for k in range(1, half + 1):
            even, odd = x[0], (0, 0)
            for j in range(1, half + 1):
                c, s = _circle(j * k % n, n)
                total, difference = sums[j - 1], differences[j - 1]
                even = self.plus(even, (self.scale(total[0], c), self.scale(total[1], c)))
                odd = self.plus(odd, (self.scale(difference[0], s), self.scale(difference[1], s)))
            turned = self.turn(odd, sign, 4)
            result[k], result[n - k] = self.plus(even, turned), self.minus(even, turned)
        return result


def _circle(numerator: int, denominator: int) -> tuple[float, float]:
    """Return (cos, sin) of 2 pi numerator / denominator, with the circle's symmetries exact."""
    octant, rest = divmod(8 * numerator, denominator)
    if octant % 2:  # measured from the nearer axis
        rest = denominator - rest
    angle = math.pi / 4 * rest / denominator
    c, s = math.cos(angle), math.sin(angle)
    # (cos, sin) of the angle in each octant, by those of its distance to the nearer axis.
    turned = ((c, s), (s, c), (-s, c), (-c, s), (-c, -s), (-s, -c), (s, -c), (c, -s))
    return turned[octant]


def _pairs(values: Sequence[Value]) -> list[Complex]:
    return list(zip(values[::2], values[1::2], strict=True))


def _flat(values: Sequence[Sequence[Value]]) -> list[Value]:
    return [v for group in values for v in group]


@cache
def row_forward(t: int) -> Program:
    """Return x[t] -> S[t/2][re, im]."""
    b, half = _Builder(t), t // 2
    x = [b.turn((1 + j, -(1 + j + half)), -j, 2 * t) for j in range(half)]
    return b.finish(_flat(b.fourier(x, -1)))


@cache
def row_inverse(t: int, m: int) -> Program:
    """Return S[t/2][re, im] -> the first m of x[t], t/2 times too large."""
    b, half = _Builder(t), t // 2
    points = b.fourier(_pairs(range(1, t + 1)), 1)
    x = [b.turn(point, j, 2 * t) for j, point in enumerate(points)]
    return b.finish([x[j][0] if j < half else -x[j - half][1] for j in range(m)])


@cache
def column_forward(t: int, products: int) -> Program:
    """Return S[t][re, im] -> V[t][3]: (re, im, re + im) for three products a bin, (-im, re, im) for four."""
    b = _Builder(2 * t)
    bins = b.fourier(_pairs(range(1, 2 * t + 1)), -1)
    if products == 3:
        return b.finish(_flat([(re, im, b.add(re, im)) for re, im in bins]))
    return b.finish(_flat([(-im, re, im) for re, im in bins]))


@cache
def column_inverse(t: int, m: int, products: int) -> Program:
    """Return M[t][products of a bin, or re and im] -> the first m of S[t][re, im], t times too large.

    Three products are (Vr (Ui - Ur), Vi (Ui + Ur), (Vr + Vi) Ur); re = third - second, im = third + first.
    """
    planes = 3 if products == 3 else 2
    b = _Builder(planes * t)
    if products == 3:
        bins = [(b.add(i + 2, -(i + 1)), b.add(i + 2, i)) for i in range(1, 3 * t + 1, 3)]
    else:
        bins = _pairs(range(1, 2 * t + 1))
    return b.finish(_flat(b.fourier(bins, 1)[:m]))


@cache
def column_product(t: int, m: int) -> Program:
    """Return S[t][re, im], U[t][re, im] -> the first m of S'[t][re, im], t times too large, where V' = V U bin by bin."""
    b = _Builder(4 * t)
    values = _pairs(range(1, 4 * t + 1))
    bins = b.fourier(values[:t], -1)
    bins = [b.times(v, u) for v, u in zip(bins, values[t:], strict=True)]
    return b.finish(_flat(b.fourier(bins, 1)[:m]))


_OPERATIONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "x": lambda a, b: a * b,
}


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
        >>> evaluate(row_forward(2), [3.0, 4.0].__getitem__, lambda *output: print(output))  # 3 - 4i
        (0, 3.0)
        (1, -4.0)
    """
    uses = _uses(program)
    positions: dict[int, list[tuple[int, int]]] = {}
    for position, v in enumerate(program.outputs):
        positions.setdefault(abs(v), []).append((position, v))
    values: dict[int, Any] = {}

    def define(number: int, value: Any) -> None:
        values[number] = value = keep(number, value) if uses[number] > 1 else value
        for position, v in positions.get(number, ()):
            write(position, value if v > 0 else -value)

    def operand(number: int) -> Any:
        if number not in values:
            define(number, read(number - 1))
        return values[number]

    for number, (operation, a, b) in enumerate(program.steps, program.inputs + 1):
        right = factor(b) if operation == "*" else operand(int(b))
        define(number, _OPERATIONS[operation](operand(a), right))
    for number in positions:
        operand(number)  # inputs that are outputs, and nothing else


def _operands(step: Step) -> tuple[int, ...]:
    operation, a, b = step
    return (a,) if operation == "*" else (a, int(b))


def _uses(program: Program) -> Counter[int]:
    uses = Counter(abs(v) for v in program.outputs)
    for step in program.steps:
        uses.update(_operands(step))
    return uses


def slots(program: Program) -> dict[int, int]:
    """Return a place for each value that `evaluate` keeps; values that are needed at the same time have different ones.

    Example:
        >>> sorted(set(slots(row_forward(16)).values()))[-1] < 32
        True
    """
    uses = _uses(program)
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for number in range(program.inputs + len(program.steps), program.inputs, -1):
        # A result that is used once is computed where it is used: its operands must live until then.
        moment = last.get(number, number) if uses[number] == 1 else number
        for operand in _operands(program.steps[number - program.inputs - 1]):
            first[operand] = number
            last[operand] = max(last.get(operand, 0), moment)
    born = {v: v if v > program.inputs else first.get(v, 0) for v in uses if uses[v] > 1 and v}
    placed: dict[int, int] = {}
    occupied: list[tuple[int, int]] = []
    free: list[int] = []
    for number in sorted(born, key=lambda v: (born[v], v)):
        while occupied and occupied[0][0] < born[number]:
            free.append(heapq.heappop(occupied)[1])
        placed[number] = free.pop() if free else len(occupied)
        heapq.heappush(occupied, (last.get(number, number), placed[number]))
    return placed
