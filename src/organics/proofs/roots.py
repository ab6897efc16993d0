"""Isolates the positive roots of a polynomial with rational coefficients in bounded time.

Descartes' rule of signs on an interval `(a, b)`: the roots in it are at most as many as the sign
changes of the coefficients of `(1 + x)^d p((a + b x) / (1 + x))`, and exactly as many if that is
none or one. Intervals with more are divided. All steps are exact and short; their number is bounded
by the degree and the requested digits.

Source: Collins & Akritas 1976.
"""

from typing import Any

from flint import arb, arb_poly, fmpq, fmpq_poly

from organics.proofs.precision import precision


def positive_roots(polynomial: fmpq_poly, bits: int) -> list[arb] | None:
    """A ball around each positive root, to `bits` binary digits.

    In increasing order; a multiple root counts once. `None` if two roots agree to that many digits.
    The polynomial must not be zero.
    """
    p = _squarefree(polynomial)
    if p.degree() < 1:
        return []
    magnitudes = [abs(value) for value in p.coeffs()]
    low = _power_of_2(-_exponent_above(magnitudes[::-1]))
    inside = _isolate(p, low, _power_of_2(_exponent_above(magnitudes)), bits)
    return None if inside is None else [_refine(p, *interval, bits) for interval in inside]


def _squarefree(polynomial: fmpq_poly) -> fmpq_poly:
    """The polynomial with each of its roots once, and without the root 0."""
    p = polynomial // polynomial.gcd(polynomial.derivative())
    return fmpq_poly(p.coeffs()[1:]) if p.coeffs()[0] == 0 else p


def _exponent_above(magnitudes: list[fmpq]) -> int:
    """`k` such that no root is as large as `2^k`, from the coefficients' magnitudes, rising."""
    *others, leading = magnitudes
    return _exponent(1 + max(others) / leading)  # Cauchy's bound


def _middle(low: fmpq, high: fmpq) -> fmpq:
    """A number between two positive ones: their mean, or if they are far apart a power of 2."""
    apart = _exponent(high) - _exponent(low)
    return _power_of_2(_exponent(low) + apart // 2) if apart > 2 else (low + high) / 2


def _exponent(value: fmpq) -> int:
    """`k` such that a positive number is below `2^k` and above `2^(k - 2)`."""
    return int(value.p).bit_length() - int(value.q).bit_length() + 1


def _power_of_2(k: int) -> fmpq:
    return fmpq(2**k) if k >= 0 else fmpq(1, 2**-k)


def _isolate(p: fmpq_poly, low: fmpq, high: fmpq, bits: int) -> list[tuple[fmpq, fmpq]] | None:
    """Increasing intervals, each with one root, for all roots between two positive numbers."""
    pending, found = [(low, high)], []
    while pending:
        low, high = pending.pop()
        changes = _sign_changes(p, low, high)
        if changes == 1:
            found.append((low, high))
        if changes < 2:
            continue
        middle = _middle(low, high)
        if (high - low) * 2**bits < low:
            return None
        if p(middle) == 0:
            found.append((middle, middle))
        pending += [(middle, high), (low, middle)]
    return sorted(found)


def _sign_changes(p: fmpq_poly, low: fmpq, high: fmpq) -> int:
    """Descartes' bound on the number of roots strictly between two numbers."""
    from_0_to_1: Any = p(fmpq_poly([low, high - low]))
    coefficients = from_0_to_1.coeffs()[::-1]
    moved: Any = fmpq_poly(coefficients)(fmpq_poly([1, 1]))
    signs = [value > 0 for value in moved.coeffs() if value != 0]
    return sum(a != b for a, b in zip(signs, signs[1:], strict=False))


def _refine(p: fmpq_poly, low: fmpq, high: fmpq, bits: int) -> arb:
    """A ball around the only root strictly between two numbers, which may be roots themselves."""
    rising = (p(low) if p(low) != 0 else p.derivative()(low)) < 0  # just above `low`
    with precision(2 * bits):
        in_balls = arb_poly(p)
        while (high - low) * 2**bits > low:
            middle = _middle(low, high)
            value: Any = in_balls(arb(middle))
            value = p(middle) if value.contains(0) else value
            if value == 0:
                low = high = middle
            elif (value > 0) == rising:
                high = middle
            else:
                low = middle
    return arb(low).union(arb(high))
