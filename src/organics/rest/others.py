"""Whether a steady state is the only one, and others found from many starts.

With `v = sqrt(a) y` the steady states of the main model are the zeros, in all of R^n, of

    G(v) = y - (1 - s) (W_r y) - b z,    s = sqrt((b0 sigma)^2 + W v^2),    y = v / s,

Newton's method can start from states of any size, as `a > 0` holds by construction.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from organics.circuit.circuit import Circuit, State
from organics.rest.point import OperatingPoint, require_point
from organics.rest.search import given_state

STARTS = 200
_STEPS = 60
_FRACTIONS = (1.0, 0.5, 0.2, 0.05, 0.01)  # of a Newton step; the best one is taken
_BALANCED = 1e-9  # relative to the terms of each equation
_SAME = 1e-6  # relative distance of two finds of one state
_ROUNDING = 4 * np.finfo(float).eps


class Others(NamedTuple):
    """What is known about the other steady states.

    Attributes
        unique: `True` if there provably is no other, `False` if others were found, `None` if none
            was found but some may exist.
        why: the reason, in words.
        points: those found, by rising `|a|`.
    """

    unique: bool | None
    why: str
    points: list[OperatingPoint]


def other_states(point: OperatingPoint, *, seed: int = 0) -> Others:
    """Other steady states than that of `point`, as far as a quick search finds them.

    The steady state is provably unique for `W_r = I`, and, if all neurons share one pool (equal
    entries of `W`, equal `b0 sigma`), for a nonsingular `W_r` with `|2 W_r - I| <= 1`. For n = 1
    all states are known. Otherwise Newton's method starts from states of all sizes; if it finds no
    other, that is no proof. The rectified model with n > 1 is not searched.

    Computed in float64, on concrete values.
    """
    circuit, state = require_point(point).system, point.state
    drive = np.asarray(point.z, np.float64)
    if circuit.has_identity_recurrence:
        return Others(True, "with W_r = I there is one steady state", [])
    if _is_shared_pool_without_poles(circuit):
        return Others(True, "with one pool and |2 W_r - I| <= 1 there is one steady state", [])
    planar = circuit.n == 1 and np.asarray(circuit.recurrent).item() >= 0
    if planar:
        from organics.planar import fixed_points_2d

        points = fixed_points_2d(circuit, drive)
        found = [State(jnp.full(1, p.y), jnp.full(1, p.a)) for p in points]
    elif circuit.rectified:
        return Others(None, "others may exist: the rectified model is not searched", [])
    else:
        found = _search(circuit, drive, seed)
    found = [other for other in found if _distance(other, state) > _SAME]
    found.sort(key=lambda other: float(np.linalg.norm(other.a)))
    others = [given_state(circuit, drive, other, tolerance=_BALANCED) for other in found]
    if planar:
        return Others(not others, "as all are known with one neuron", others)
    from_starts = f"found by Newton's method from {STARTS} starts"
    if others:
        return Others(False, f"{from_starts}; there may be more", others)
    return Others(None, f"others may exist: none was {from_starts}", [])


def _arrays(circuit: Circuit) -> list[np.ndarray]:
    """`W`, `W_r`, `c` and `b` in float64."""
    arrays = circuit.pool, circuit.recurrent, _c(circuit), circuit.b
    return [np.asarray(x, np.float64) for x in arrays]


_c = jax.jit(lambda circuit: circuit.c)  # one program, instead of one for each step


def _is_shared_pool_without_poles(circuit: Circuit) -> bool:
    W, W_r, c, _ = _arrays(circuit)
    if circuit.rectified or not (np.all(W[0, 0] == W) and W[0, 0] > 0 and np.all(c == c[0])):
        return False
    regular = np.linalg.cond(W_r) < 1e12
    return bool(regular and np.linalg.norm(2 * W_r - np.eye(circuit.n), 2) <= 1)


def _distance(one: State, other: State) -> float:
    """The largest difference of `sqrt(a) y`, `a` of two states, relative to their sizes."""
    pairs = [
        (np.sqrt(np.asarray(s.a, np.float64)) * np.asarray(s.y, np.float64), np.asarray(s.a))
        for s in (one, other)
    ]
    return max(
        float(np.linalg.norm(a - b) / max(np.linalg.norm(a) + np.linalg.norm(b), 1e-300))
        for a, b in zip(*pairs, strict=True)
    )


def _search(circuit: Circuit, z: Float[np.ndarray, " n"], seed: int) -> list[State]:
    """Zeros of `G` found by Newton's method from starts of all sizes, each once."""
    W, W_r, c, b = _arrays(circuit)
    d = b * z
    rng = np.random.default_rng(seed)
    v = rng.normal(size=(STARTS, circuit.n)) * 10 ** rng.uniform(-1.5, 3.5, (STARTS, 1))
    v[0] = d
    with np.errstate(all="ignore"):
        for _ in range(_STEPS):
            v = _newton_step(v, W, W_r, c, d)
        G, terms, s = _reduced(v, W, W_r, c, d)[:3]
        good = np.all(np.abs(G) <= _BALANCED * terms, axis=1) & np.all(np.isfinite(v), axis=1)
        # where `W_r y` cancels, the terms say nothing: their rounding must change `v` little
        DG, singular = _derivative(v, W, W_r, c, d)
        moved = (np.abs(np.linalg.inv(DG)) @ terms[..., None])[..., 0]
        small = _ROUNDING * np.linalg.norm(moved, axis=1) <= _SAME * np.linalg.norm(v, axis=1)
        good &= small & ~singular
    states: list[State] = []
    for v_i, s_i in zip(v[good], s[good], strict=True):
        state = State(jnp.asarray(v_i / s_i, circuit.dtype), jnp.asarray(s_i**2, circuit.dtype))
        if all(_distance(state, known) > _SAME for known in states):
            states.append(state)
    return states


def _reduced(v, W, W_r, c, d):
    """`G`, the size of its terms, `s`, `y` and `W_r y` at each row of `v`."""
    s = np.sqrt(c + v**2 @ W.T)
    y = v / s
    u = y @ W_r.T
    terms = np.abs(y) + (1 + s) * (np.abs(y) @ np.abs(W_r).T) + np.abs(d)
    return y - (1 - s) * u - d, terms, s, y, u


def _derivative(v, W, W_r, c, d):
    """`dG/dv` at each row, replaced by the identity where singular; and where that is."""
    _, _, s, y, u = _reduced(v, W, W_r, c, d)
    identity = np.eye(v.shape[1])
    S = W * v[:, None, :] / s[:, :, None]  # ds/dv
    Y = (identity - y[:, :, None] * S) / s[:, :, None]  # dy/dv
    DG = Y - (1 - s)[:, :, None] * (W_r @ Y) + u[:, :, None] * S
    singular = ~np.isfinite(DG).all(axis=(1, 2)) | (np.linalg.det(np.nan_to_num(DG)) == 0)
    DG[singular] = identity
    return DG, singular


def _newton_step(v, W, W_r, c, d):
    """Each row after the fraction of a step that leaves the smallest residual."""
    G = _reduced(v, W, W_r, c, d)[0]
    DG, _ = _derivative(v, W, W_r, c, d)
    move = np.linalg.solve(DG, -G[..., None])[..., 0]
    tried = np.stack([v + part * move for part in _FRACTIONS])
    left = np.stack([np.linalg.norm(_reduced(one, W, W_r, c, d)[0], axis=1) for one in tried])
    best = np.argmin(np.where(np.isfinite(left), left, np.inf), axis=0)
    return tried[best, np.arange(len(v))]
