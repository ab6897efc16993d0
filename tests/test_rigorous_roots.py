"""Positive roots of polynomials with rational coefficients, against products of known roots."""

import pytest
from flint import arb, ctx, fmpq, fmpq_poly
from hypothesis import given
from hypothesis import strategies as st

from organics.proofs import roots as rigorous_roots
from organics.proofs.roots import positive_roots

sizes = st.builds(
    lambda mantissa, exponent: fmpq(mantissa) * (fmpq(2) ** exponent),
    st.integers(1, 2**53),
    st.integers(-300, 300),
)


def product(roots):
    p = fmpq_poly([1])
    for root in roots:
        p = p * fmpq_poly([-root, 1])
    return p


@given(
    positive=st.lists(sizes, max_size=4, unique=True),
    negative=st.lists(sizes, max_size=2),
    complex_pair=st.none() | st.tuples(sizes, sizes),
    multiplicity=st.integers(1, 3),
    zero=st.booleans(),
)
def test_each_positive_root_is_found_once(positive, negative, complex_pair, multiplicity, zero):
    p = product([*positive * multiplicity, *(-x for x in negative)])
    if complex_pair is not None:  # x^2 - 2 h x + h^2 + w^2, not too close to the real axis
        h, w = complex_pair
        w = max(w, h / 2**90)
        p = p * fmpq_poly([h * h + w * w, -2 * h, 1])
    p = p * fmpq_poly([0, 1]) if zero else p
    with ctx.workprec(300):
        found = positive_roots(p, 200)
        assert found is not None and len(found) == len(positive)
        for ball, root in zip(found, sorted(positive), strict=True):
            assert ball.contains(arb(root)) and ball.rad() <= abs(ball) * arb(2) ** -198


def test_an_irrational_root():
    with ctx.workprec(200):
        (root,) = positive_roots(fmpq_poly([-2, 0, 1]), 150)
        assert root.overlaps(arb(2).sqrt()) and root.rad() < arb(2) ** -148


@pytest.mark.parametrize("sign", [1, -1])
def test_a_root_between_two_others_that_bound_its_interval(sign):
    between = fmpq(17, 10)
    p = sign * product([fmpq(1), between, fmpq(3)])
    with ctx.workprec(200):
        ball = rigorous_roots._refine(p, fmpq(1), fmpq(3), 100)
        assert ball.contains(arb(between)) and ball.rad() < arb(2) ** -98


def test_roots_too_close_for_the_digits_are_not_told_apart():
    close = product([fmpq(1, 3), fmpq(1, 3) + fmpq(1, 2**100)]) * fmpq_poly([3, 1])
    assert positive_roots(close, 60) is None
    assert len(positive_roots(close, 140)) == 2
    assert positive_roots(fmpq_poly([7]), 60) == []


def test_the_work_is_bounded_whatever_the_coefficients(monkeypatch):
    """Coefficients over a thousand decades: so many divisions and no more."""
    calls = []
    counted = rigorous_roots._sign_changes
    monkeypatch.setattr(rigorous_roots, "_sign_changes", lambda *x: calls.append(x) or counted(*x))
    coefficients = [fmpq(3 + k * k) * (fmpq(10) ** (137 * k * (-1) ** k % 1000)) for k in range(12)]
    signs = [fmpq((-1) ** (k * (k + 1) // 2)) for k in range(12)]
    found = positive_roots(
        fmpq_poly([c * s for c, s in zip(coefficients, signs, strict=True)]), 100
    )
    assert found is not None and len(calls) < 2 * 11 * (100 + 64)
