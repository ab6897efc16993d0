"""Shapes, initial distributions and constraints of a layer's parameters, compared with the paper.

The code's side is measured: a layer is built with several seeds, its arrays are examined, and its
free parameters are set to extremes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from organics.nn import trainable
from organics.studies.harness.target import Check, Outcome, Table

_SEEDS = 5
_EXTREMES = (5.0, 1e-3)  # size of extreme free parameters, beyond any in training
_RULE = "shape and training equal; the law possible; the constraint kept at extremes"


class Law(NamedTuple):
    """The distribution of a parameter's initial values.

    Attributes
        words: the law.
        holds: whether stacked arrays from several seeds are consistent with it.
    """

    words: str
    holds: Callable[[np.ndarray], Any]


class Parameter(NamedTuple):
    """The paper's description of one parameter.

    Attributes
        name: of it.
        where: returns the array of a layer.
        shape: its shape.
        learned: whether it is trained.
        law: how it is drawn at first.
        constraint: constraint on the circuit's value, in words; "" if none.
        value: returns the constrained value of a layer; None if it is the array itself.
        kept: whether a constrained value satisfies the constraint.
        departure: reason for a deliberate difference from the paper.
    """

    name: str
    where: Callable[[Any], Any]
    shape: tuple[int, ...]
    learned: bool
    law: Law
    constraint: str = ""
    value: Callable[[Any], Any] | None = None
    kept: Callable[[np.ndarray], Any] | None = None
    departure: str = ""


def compare(build: Callable[[jax.Array], Any], parameters: Sequence[Parameter]) -> Outcome:
    """Compare the layers that `build` makes from keys with the descriptions."""
    layers = [build(jr.key(seed)) for seed in range(_SEEDS)]
    rows, checks = [], []
    for p in parameters:
        drawn = np.stack([np.asarray(p.where(layer)) for layer in layers])
        shape, learned = drawn.shape[1:], _is_learned(layers[0], p)
        as_said = {
            "shape": shape == p.shape,
            "learned": learned == p.learned,
            "initialisation": bool(p.law.holds(drawn)),
            "constraint": _is_kept(layers, p),
        }
        differing = [name for name, holds in as_said.items() if not holds]
        checks.append(
            Check(
                p.name,
                "as in the paper" if not differing else f"other {', '.join(differing)}",
                not differing,
                f"{_times(p.shape)}, {p.law.words}" + (f", {p.constraint}" if p.constraint else ""),
                "; ".join(filter(None, (_RULE, p.departure))),
            )
        )
        rows.append(
            [
                p.name,
                _times(shape),
                "yes" if learned else "no",
                p.law.words if as_said["initialisation"] else f"not {p.law.words}",
                (p.constraint or "free") if as_said["constraint"] else f"not {p.constraint}",
                f"{drawn.min():.2g} to {drawn.max():.2g}",
                "yes" if not differing else "no",
            ]
        )
    agreeing = sum(bool(check.holds) for check in checks)
    columns = (
        "parameter",
        "shape",
        "learned",
        "drawn from",
        "constraint",
        "drawn here",
        "as paper",
    )
    return Outcome(
        here=f"{agreeing} of {len(checks)} parameters as in the paper",
        checks=checks,
        numbers={"rows": [dict(zip(columns, row, strict=True)) for row in rows]},
        table=Table(columns, rows),
    )


def _is_learned(layer: Any, parameter: Parameter) -> bool:
    """Whether the array is trained."""
    leaves = jax.tree.leaves(eqx.filter(layer, trainable(layer)))
    return any(leaf is parameter.where(layer) for leaf in leaves)


def _is_kept(layers: Sequence[Any], parameter: Parameter) -> bool:
    """Whether the constraint holds for the layers, and for extreme parameters."""
    if parameter.kept is None or parameter.value is None:
        return True
    rng = np.random.default_rng(0)

    def push(leaf, order):
        if not eqx.is_inexact_array(leaf):
            return leaf
        return jnp.asarray(order * rng.normal(size=leaf.shape), leaf.dtype)

    pushed = [
        jax.tree.map(lambda leaf, order=order: push(leaf, order), layer)
        for layer in layers
        for order in _EXTREMES
    ]
    return all(bool(parameter.kept(np.asarray(parameter.value(x)))) for x in (*layers, *pushed))


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "1"


# ---- laws ----------------------------------------------------------------------------------------


def uniform(low: float, high: float, words: str | None = None) -> Law:
    """Uniform between two numbers."""
    return Law(words or f"U({low:.3g}, {high:.3g})", lambda x: _uniform(x, low, high))


def off_diagonal(law: Law, transform: Callable = lambda x: x, words: str = "") -> Law:
    """A law for transformed off-diagonal entries, with a diagonal of 0."""

    def holds(stack: np.ndarray) -> bool:
        n = stack.shape[-1]
        on = np.eye(n, dtype=bool)
        return bool(np.all(stack[:, on] == 0) and law.holds(transform(stack[:, ~on])))

    return Law(words or f"{law.words}, diagonal 0", holds)


NORMAL = Law(
    "N(0, 1)", lambda x: abs(x.mean()) < 5 / x.size**0.5 and abs(x.std() - 1) < 4 / x.size**0.5
)
ORTHOGONAL = Law(
    "orthogonal",
    lambda stack: all(np.allclose(W.T @ W, np.eye(len(W)), atol=1e-5) for W in stack),
)
IDENTITY = Law("identity", lambda stack: all(np.array_equal(W, np.eye(len(W))) for W in stack))


def constant(value: float) -> Law:
    """One number."""
    return Law(f"{value:g}", lambda x: bool(np.all(x == value)))


def _uniform(x: np.ndarray, low: float, high: float) -> bool:
    """Whether values lie within the bounds and close to both, with mean and spread right to five
    standard errors."""
    width = high - low
    inside = low - 1e-6 * width <= x.min() and x.max() <= high + 1e-6 * width
    error = width / 12**0.5 / x.size**0.5
    reaches = max(x.min() - low, high - x.max()) < 20 * width / x.size
    centred = abs(x.mean() - (low + high) / 2) < 5 * error
    spread = abs(x.std() - width / 12**0.5) < 5 * error / 5**0.5
    return bool(inside and reaches and centred and spread)


def of_unit_norm(low: float, high: float) -> Law:
    """Uniform between two numbers of which the larger is 1, then scaled to spectral norm 1."""

    def holds(stack: np.ndarray) -> bool:
        norms = [np.linalg.norm(W if W.ndim == 2 else W[:, None], 2) for W in stack]
        largest = np.abs(stack).max(axis=tuple(range(1, stack.ndim)), keepdims=True)
        return bool(np.allclose(norms, 1, atol=1e-5) and _uniform(stack / largest, low, high))

    return Law(f"U({low:g}, {high:g}), then spectral norm 1", holds)
