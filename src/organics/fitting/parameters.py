"""The parameters of a fit: constrained values as functions of free coordinates.

Positive parameters are fitted as logarithms, recurrent weights as they are, if they may be
negative. Fixed values, bounds
and ties change which coordinates there are, not the model.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from organics.arguments import nearest, require_among
from organics.names import FittedRecurrence

UNITS = {"tau_y": "ms", "tau_a": "ms"}
_ITERATIONS = 24  # of an inverse square root: enough for a condition number of 1e12


class Entry(NamedTuple):
    """One number among the parameters: of which array, and where in it."""

    group: str
    place: tuple
    name: str


class Parameters(eqx.Module):
    """Arrays as functions of the free coordinates `u`.

    The q numbers of all arrays have coordinates `v = base + spread @ u`. Tied numbers have equal
    rows in `spread`, fixed ones rows of zeros. Bounded numbers are a logistic function of `v`,
    positive ones then an exponential.

    Attributes
        entries: of all q numbers; static.
        shapes: of the arrays, by name; static.
        recurrence: what `W_r` is; static.
        base, spread: shapes (q,) and (q, p).
        positive, bounded: which numbers are, shape (q,).
        low, high: the bounds, of logarithms where positive, shape (q,).
    """

    entries: tuple = eqx.field(static=True)
    shapes: tuple = eqx.field(static=True)
    recurrence: FittedRecurrence = eqx.field(static=True)
    base: Float[Array, " q"]
    spread: Float[Array, "q p"]
    positive: Bool[Array, " q"]
    bounded: Bool[Array, " q"]
    low: Float[Array, " q"]
    high: Float[Array, " q"]

    @property
    def free(self) -> int:
        """The number p of free coordinates."""
        return self.spread.shape[1]

    def coordinates(self, u: Float[Array, " p"]) -> Float[Array, " q"]:
        """Logarithms of positive numbers, others as they are; within their bounds."""
        v = self.base + self.spread @ u
        inside = jnp.where(self.bounded, v, 0)
        within = self.low + (self.high - self.low) * jax.nn.sigmoid(inside)
        return jnp.where(self.bounded, within, v)

    def arrays(self, u: Float[Array, " p"]) -> dict[str, Array]:
        """The parameters by name, `W_r` included unless it is the identity."""
        coordinates = self.coordinates(u)
        logarithms = jnp.where(self.positive, coordinates, 0)
        values = jnp.where(self.positive, jnp.exp(logarithms), coordinates)
        found, start = {}, 0
        for name, shape in self.shapes:
            size = int(np.prod(shape))
            found[name] = values[start : start + size].reshape(shape)
            start += size
        if self.recurrence == "half":
            found["W_r"] = half(found["W_r"])
        return found

    def reported(self, u: Float[Array, " p"]) -> Float[Array, " q"]:
        """What intervals are computed of: `coordinates`, with the numbers of `W_r` itself."""
        coordinates = self.coordinates(u)
        if self.recurrence != "half":
            return coordinates
        at = [i for i, entry in enumerate(self.entries) if entry.group == "W_r"]
        return coordinates.at[jnp.array(at)].set(self.arrays(u)["W_r"].ravel())

    def groups(self) -> list[list[int]]:
        """Of each free coordinate, the indices of the entries that it moves."""
        spread = np.asarray(self.spread)
        return [np.flatnonzero(spread[:, i]).tolist() for i in range(self.free)]


def half(A: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """`(I + K) / 2` for `K = A (I + A^T A)^(-1/2)`, which has a norm below 1: a bijection from all
    matrices. No circuit with such a `W_r` has its steady states run away (theory 19.5)."""
    identity = jnp.eye(len(A), dtype=A.dtype)

    def denman_beavers(pair, _):
        root, inverse = pair
        return ((root + jnp.linalg.inv(inverse)) / 2, (inverse + jnp.linalg.inv(root)) / 2), None

    start = (identity + A.T @ A, identity)
    (_, inverse), _ = jax.lax.scan(denman_beavers, start, None, length=_ITERATIONS)
    return (identity + A @ inverse) / 2


def unhalf(W_r: np.ndarray) -> np.ndarray:
    """`A` of `half`, by NumPy. Raises `ValueError` if there is none."""
    left, s, right = np.linalg.svd(2 * W_r - np.eye(len(W_r)))
    if not s.max() < 1:
        raise ValueError(f"`W_r` must be (I + K) / 2 with |K| < 1, not with |K| = {s.max():.6g}.")
    return (left * (s / np.sqrt(1 - s**2))) @ right


def parameters(
    start: Mapping[str, np.ndarray],
    labels: Mapping[str, Sequence],
    recurrence: FittedRecurrence,
    *,
    fixed: Mapping[str, float | np.ndarray | None],
    bounds: Mapping[str, tuple],
    ties: Sequence[str],
) -> Parameters:
    """The parameters of a fit that starts, with `u = 0`, at `start`.

    Arguments
        start: an array for each parameter.
        labels: of each, the names of its entries along each axis.
        fixed: values that are kept, by the name of an array or of an entry, such as "tau_y" and
            "tau_y[2]"; `None` for a number that is free after all.
        bounds: lowest and highest value, by name.
        ties: names of what is one number, such as "tau_y", or several joined by "+".

    A start outside of its bounds, or within 2 % of their distance (of logarithms, where positive)
    from one, moves to 2 % inside.

    Raises `ValueError`, naming the argument, for a name that is none, for recurrent weights unless
    they are "free", for a value out of its domain, bounds or a tie of fixed numbers, or a tie of
    unlike ones.
    """
    require_among("recurrence", recurrence, FittedRecurrence)
    if isinstance(ties, str):
        raise ValueError(f"`ties` must be a sequence of names, such as ({ties!r},), not {ties!r}.")
    _require_no_recurrence(recurrence, fixed=fixed, bounds=bounds, ties="+".join(ties).split("+"))
    entries = entries_of({name: array.shape for name, array in start.items()}, labels)
    values = np.array([start[e.group][e.place] for e in entries], float)
    positive = np.array([e.group != "W_r" or recurrence == "feedback" for e in entries])
    free = np.ones(len(entries), bool)
    for name, value in fixed.items():
        at = _matching("fixed", name, entries)
        if value is None:
            free[at] = True
            continue
        shape = start[name].shape if name in start else ()
        given = broadcast("fixed", name, value, shape).ravel()
        bad = ~np.isfinite(given) | (positive[at] & (given < 0))
        # a weight may be 0, which means that there is no connection
        bad |= (given == 0) & [entries[i].group not in ("W", "W_r") for i in at]
        if bad.any():
            raise ValueError(f"`fixed` must give {name!r} a value in its domain, not {value!r}.")
        values[at], free[at] = given, False
    low, high = np.full(len(entries), -np.inf), np.full(len(entries), np.inf)
    for name, pair in bounds.items():
        lowest, highest = _pair(name, pair)
        at = [i for i in _matching("bounds", name, entries) if free[i]]
        if not at:
            raise ValueError(
                f"`bounds` must not name fixed numbers, as {name!r} does: {name}=free in `--fix`, "
                "or None in `fixed`, frees what is fixed by convention."
            )
        least = 0 if positive[at].all() else -np.inf
        if not least <= lowest < highest < np.inf or not np.isfinite(lowest):
            raise ValueError(
                f"`bounds` of {name!r} must be two finite rising numbers in its domain, not "
                f"{lowest!r} and {highest!r}."
            )
        low[at], high[at] = lowest, highest
    bounded = np.isfinite(high)
    with np.errstate(divide="ignore"):
        low, high, coordinates = (
            np.where(positive, np.log(np.maximum(x, 0)), x) for x in (low, high, values)
        )
    low = np.where(bounded & ~np.isfinite(low), high - 30, low)
    low, high = np.where(bounded, low, 0), np.where(bounded, high, 1)
    share = np.clip((coordinates - low) / (high - low), 0.02, 0.98)
    base = np.where(bounded, np.log(share / (1 - share)), coordinates)
    spread = _spread(entries, free, _tied(ties, entries, free, bounded, positive, low, high))
    base = np.where(free & (spread.sum(axis=1) > 0), _common(base, spread), base)
    as_array = lambda x: jnp.asarray(x, float)  # noqa: E731
    return Parameters(
        entries=entries,
        shapes=tuple((name, array.shape) for name, array in start.items()),
        recurrence=recurrence,
        base=as_array(base),
        spread=as_array(spread),
        positive=jnp.asarray(positive),
        bounded=jnp.asarray(bounded),
        low=as_array(low),
        high=as_array(high),
    )


def entries_of(
    shapes: Mapping[str, tuple[int, ...]], labels: Mapping[str, Sequence]
) -> tuple[Entry, ...]:
    """All numbers of arrays of these shapes."""
    return tuple(
        Entry(name, index, _named(name, labels[name], index))
        for name, shape in shapes.items()
        for index in np.ndindex(*shape)
    )


def _require_no_recurrence(recurrence: FittedRecurrence, **names: Iterable[str]) -> None:
    """Raises `ValueError` for a name of recurrent weights that are no numbers to choose."""
    why = {
        "identity": "which is I for identity recurrence",
        "half": "as (I + K) / 2 with |K| < 1 is no choice of each entry: try recurrence 'free'",
    }
    for argument, every in names.items():
        for name in every:
            if name.partition("[")[0] == "W_r" and recurrence in why:
                raise ValueError(f"`{argument}` must not name {name!r}, {why[recurrence]}.")


def _pair(name: str, given: Any) -> tuple[float, float]:
    try:
        if isinstance(given, str):
            raise TypeError
        lowest, highest = map(float, given)
    except (TypeError, ValueError):
        raise ValueError(f"`bounds` of {name!r} must be two numbers, not {given!r}.") from None
    return lowest, highest


def broadcast(argument: str, name: str, value: Any, shape: tuple) -> np.ndarray:
    """A value for each number of an array. Raises `ValueError` if the shapes differ."""
    try:
        given = np.asarray(value, float)
    except (TypeError, ValueError):
        raise ValueError(f"`{argument}` must give {name!r} numbers, not {value!r}.") from None
    if given.shape not in ((), shape):
        raise ValueError(
            f"`{argument}` must give {name!r} one number or shape {shape}, not {given.shape}."
        )
    return np.broadcast_to(given, shape).copy()


def _named(name: str, labels: Sequence, index: tuple) -> str:
    return f"{name}[{','.join(axis[i] for axis, i in zip(labels, index, strict=True))}]"


def _matching(argument: str, name: str, entries: Sequence[Entry]) -> list[int]:
    """The entries that a name means: all of an array, or one."""
    found = [i for i, e in enumerate(entries) if name in (e.group, e.name)]
    if not found:
        known = [*dict.fromkeys(e.group for e in entries), *(e.name for e in entries)]
        groups = ", ".join(dict.fromkeys(e.group for e in entries))
        raise ValueError(
            f"`{argument}` must name parameters ({groups}, or one number as in "
            f"{entries[0].name}), not {name!r}{nearest(name, known) or '.'}"
        )
    return found


def _tied(ties, entries, free, *kinds) -> Iterator[list[int]]:
    """The indices of the entries of each tie."""
    for tie in ties:
        at = sorted({i for name in re.split(r"\+", tie) for i in _matching("ties", name, entries)})
        if not all(free[i] for i in at):
            raise ValueError(f"`ties` must not name fixed numbers, as {tie!r} does.")
        alike = {tuple(float(kind[i]) for kind in kinds) for i in at}
        if len(alike) > 1:
            raise ValueError(f"`ties` must be of numbers with the same bounds, not {tie!r}.")
        yield at


def _spread(entries, free, ties) -> np.ndarray:
    """One column for each free number or tie."""
    owner = np.arange(len(entries))
    for at in ties:
        owner[np.isin(owner, owner[at])] = owner[at].min()
    owners = [i for i in dict.fromkeys(owner) if free[i]]
    return np.stack([(owner == i) & free for i in owners], axis=1).astype(float) if owners else (
        np.zeros((len(entries), 0))
    )  # fmt: skip


def _common(base: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """The mean of the coordinates of each tie."""
    known = np.where(np.isfinite(base), base, 0)
    return spread @ ((spread.T @ known) / np.maximum(spread.sum(axis=0), 1))
