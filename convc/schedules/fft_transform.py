"""Generator of fast Fourier transforms as straight-line programs.

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

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final, TypeAlias

from convc.schedules.straight_line import Builder, Program, Value

__all__ = [
    "FACTORS",
    "column_filter",
    "column_forward",
    "column_inverse",
    "column_product",
    "row_forward",
    "row_inverse",
]

# Prime factors that a transform's length may have.
FACTORS: Final = (2, 3, 5, 7)

Complex: TypeAlias = tuple[Value, Value]


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


class _Fourier(Builder):
    """Complex arithmetic and transforms on a builder's values."""

    def plus(self, x: Complex, y: Complex) -> Complex:
        return self.add(x[0], y[0]), self.add(x[1], y[1])

    def minus(self, x: Complex, y: Complex) -> Complex:
        return self.add(x[0], -y[0]), self.add(x[1], -y[1])

    def turn(self, x: Complex, numerator: int, denominator: int) -> Complex:
        """Return x exp(2 pi i numerator / denominator).

        As two products and two sums, not as a rotation by tangents with fewer steps: Zen 4 adds beside its multipliers, and
        transforms of nothing but fused multiply-adds measured 10 to 20 % slower.
        """
        c, s = _circle(numerator % denominator, denominator)
        re = self.add(self.scale(x[0], c), self.scale(x[1], -s))
        return re, self.add(self.scale(x[0], s), self.scale(x[1], c))

    def times(self, x: Complex, y: Complex) -> Complex:
        re = self.add(self.multiply(x[0], y[0]), -self.multiply(x[1], y[1]))
        return re, self.add(self.multiply(x[0], y[1]), self.multiply(x[1], y[0]))

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
        result = [*even, *even]
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
        result = list(x)
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
            for j, (total, difference) in enumerate(zip(sums, differences, strict=True), 1):
                c, s = _circle(j * k % n, n)
                even = self.plus(even, (self.scale(total[0], c), self.scale(total[1], c)))
                odd = self.plus(odd, (self.scale(difference[0], s), self.scale(difference[1], s)))
            turned = self.turn(odd, sign, 4)
            result[k], result[n - k] = self.plus(even, turned), self.minus(even, turned)
        return result


def _pairs(values: Sequence[Value]) -> list[Complex]:
    return list(zip(values[::2], values[1::2], strict=True))


def _flat(groups: Iterable[Iterable[Value]]) -> list[Value]:
    return [v for group in groups for v in group]


@cache
def row_forward(t: int, points: int = 0) -> Program:
    """Return x[t] -> S[t/2][re, im]; of the first points alone where the others are zeros, as a filter's are.

    Example:
        >>> row_forward(2).outputs  # x[0] - i x[1]
        (1, -2)
        >>> [(p.inputs, len(p.steps)) for p in (row_forward(16), row_forward(16, 5))]
        [(16, 102), (5, 54)]
    """
    points = points or t
    b, half = _Fourier(points), t // 2
    values = [*range(1, points + 1), *[0] * (t - points)]
    x = [b.turn((values[j], -values[j + half]), -j, 2 * t) for j in range(half)]
    return b.finish(_flat(b.fourier(x, -1)))


@cache
def row_inverse(t: int, m: int) -> Program:
    """Return S[t/2][re, im] -> the first m of x[t], t/2 times too large."""
    b, half = _Fourier(t), t // 2
    points = b.fourier(_pairs(range(1, t + 1)), 1)
    x = [b.turn(point, j, 2 * t) for j, point in enumerate(points)]
    return b.finish([x[j][0] if j < half else -x[j - half][1] for j in range(m)])


@cache
def column_forward(t: int, products: int, *, negated: bool = True) -> Program:
    """Return S[t][re, im] -> V[t][3]: (re, im, re + im) for three products a bin, (-im, re, im) for four; (re, im) if not `negated`."""
    b = _Fourier(2 * t)
    bins = b.fourier(_pairs(range(1, 2 * t + 1)), -1)
    if products == 3:
        return b.finish(_flat((re, im, b.add(re, im)) for re, im in bins))
    return b.finish(_flat((-im, re, im) if negated else (re, im) for re, im in bins))


@cache
def column_filter(t: int, points: int, form: int) -> Program:
    """Return S[points][re, im], zeros beyond them, -> what the products read of U = conj(V).

    Args:
        t: length of the transform.
        points: rows of the filter.
        form: 3: U[t] as (im - re, im + re, re); 4: re alone, whose quarter turns are the four of a bin; 2: (re, im).
    """
    b = _Fourier(2 * points)
    bins = b.fourier([*_pairs(range(1, 2 * points + 1)), *[(0, 0)] * (t - points)], -1)
    if form == 3:
        return b.finish(_flat((-b.add(re, im), b.add(re, -im), re) for re, im in bins))
    return b.finish(_flat((re,) if form == 4 else (re, -im) for re, im in bins))


@cache
def column_inverse(t: int, m: int, products: int) -> Program:
    """Return M[t][products of a bin, or re and im] -> the first m of S[t][re, im], t times too large.

    Three products are (Vr (Ui - Ur), Vi (Ui + Ur), (Vr + Vi) Ur); re = third - second, im = third + first.
    """
    planes = 3 if products == 3 else 2
    b = _Fourier(planes * t)
    if products == 3:
        bins = [(b.add(i + 2, -(i + 1)), b.add(i + 2, i)) for i in range(1, 3 * t + 1, 3)]
    else:
        bins = _pairs(range(1, 2 * t + 1))
    return b.finish(_flat(b.fourier(bins, 1)[:m]))


@cache
def column_product(t: int, m: int) -> Program:
    """Return S[t][re, im], U[t][re, im] -> the first m of S'[t][re, im], t times too large, where V' = V U bin by bin."""
    b = _Fourier(4 * t)
    values = _pairs(range(1, 4 * t + 1))
    bins = b.fourier(values[:t], -1)
    bins = [b.times(v, u) for v, u in zip(bins, values[t:], strict=True)]
    return b.finish(_flat(b.fourier(bins, 1)[:m]))
