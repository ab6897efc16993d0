"""The hunt for a circuit without a stable steady state, by gradient ascent.

Free parameters are mapped into the bounds of the conjecture: `W`, `b`, `b0`, `sigma` in (0, 1),
`|z| <= 1`, spectral norm of `W_r` at most `l`; `tau_y = tau_a = 2 ms`, or each neuron's own within
a decade around that. `W_r` is any matrix, or a symmetric positive semidefinite one. From many
random starts at once, Adam maximizes the spectral abscissa of the steady state that the library
finds, through the implicit derivative of that state and the derivative of a simple eigenvalue.
Every second start maximizes `max Re lambda / (0.1/ms + |lambda|)` instead, which, unlike the
abscissa, hardly rises when the circuit slows down. A start stops if its steady state is lost.

Results are confirmed by the library's whole search, and by simulations from several states, one of
them next to the unstable steady state. A circuit is a violation only if the search finds no stable
steady state and no simulation comes to rest.
"""

from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, ScalarLike

from organics.circuit.circuit import Circuit, State
from organics.circuit.constraints import cap_spectral_norm, unit_interval
from organics.linear.jacobian import jacobian
from organics.rest.point import SteadyState
from organics.rest.search import steady_state
from organics.simulation.resting import comes_to_rest
from organics.studies.harness.pieces import Piece, kept

Kind = Literal["any", "semidefinite"]

RATE = 0.1  # of Adam
TAU = 2.0  # ms
SIMULATED = 8  # number of circuits simulated in each hunt, the worst ones
TIME = 4000.0  # ms
_FEW, _MANY = 300, 50_000  # steps of relaxation: on the way, and in the end
_SLOW = 0.1  # 1/ms, see above
_EDGE = 12.0  # limit of the free parameters: gains stay 6e-6 away from 0 and 1
_FIELDS = ("W", "W_r", "b", "b0", "sigma", "tau_y", "tau_a")

Free = dict[str, Array]


class Hunt(NamedTuple):
    """A hunt among circuits of n neurons with spectral norm at most `spectral_norm`.

    `free_tau` tells whether the time constants may vary, by a factor of sqrt(10) either way.
    """

    n: int
    spectral_norm: float
    kind: Kind
    starts: int
    steps: int
    free_tau: bool = False

    @property
    def name(self) -> str:
        """Name of its piece; determines the hunt, except for the seed."""
        tau = "-free-tau" if self.free_tau else ""
        return f"hunt-{self.title}{tau}-{self.starts}-starts-{self.steps}-steps"

    @property
    def title(self) -> str:
        """Kind, number of neurons and norm."""
        return f"{self.kind}-n{self.n}-norm{self.spectral_norm:g}"


def random_start(key: PRNGKeyArray, n: int) -> Free:
    """Free parameters of a circuit of n neurons and its drive, such that the gains are uniform."""
    keys = dict(zip((*_FIELDS, "z"), jr.split(key, len(_FIELDS) + 1), strict=True))
    free = {name: jr.normal(keys[name], (n,), float) for name in ("z", "tau_y", "tau_a")}
    free |= {name: jr.logistic(keys[name], (n,), float) for name in ("b", "b0", "sigma")}
    free["W"] = jr.logistic(keys["W"], (n, n), float)
    return free | {"W_r": jr.normal(keys["W_r"], (n, n), float)}


def constrained(
    free: Free, spectral_norm: ScalarLike, kind: Kind, free_tau: bool
) -> tuple[Circuit, Float[Array, " n"]]:
    """The circuit and drive, within the bounds, for given free parameters."""
    M = free["W_r"]
    W_r = cap_spectral_norm(M @ M.T if kind == "semidefinite" else M)
    size = jnp.linalg.norm(free["z"])
    reach = 0.5 if free_tau else 0.0  # decades either way
    tau_y, tau_a = (TAU * 10 ** (reach * jnp.tanh(free[name])) for name in ("tau_y", "tau_a"))
    # the bounds are open, and the sigmoid of a large number is 1
    b, b0, sigma = (unit_interval(jnp.clip(free[name], -_EDGE, _EDGE))
                    for name in ("b", "b0", "sigma"))  # fmt: skip
    circuit = Circuit(unit_interval(free["W"]), spectral_norm * W_r, b, b0, sigma, tau_y, tau_a)
    return circuit, free["z"] / jnp.maximum(size, 1)


class _Found(NamedTuple):
    abscissa: Float[Array, ""]
    steady: SteadyState


def _aim(
    free: Free,
    spectral_norm: ScalarLike,
    steps: ScalarLike,
    slowing: Array,
    kind: Kind,
    free_tau: bool,
) -> tuple[Float[Array, ""], _Found]:
    """The maximized quantity; the spectral abscissa; and the steady state."""
    circuit, z = constrained(free, spectral_norm, kind, free_tau)
    found = steady_state(circuit, z, relaxation_steps=steps).found
    rates = jnp.linalg.eigvals(jacobian(circuit, found.state))
    growth = jnp.real(rates)
    size = jnp.where(slowing, 1, _SLOW + jnp.abs(rates))
    return jnp.max(growth / size), _Found(jnp.max(growth), found)


@partial(jax.jit, static_argnames=("kind", "free_tau"))
def _step(
    starts: tuple[Free, Any, Array],
    spectral_norm: ScalarLike,
    steps: ScalarLike,
    change: ScalarLike,
    *,
    kind: Kind,
    free_tau: bool,
) -> tuple[Free, Any, _Found]:
    """One step of each ascent, if `change`; and the findings before it."""

    def one(free, moments, slowing):
        aim = jax.value_and_grad(_aim, has_aux=True)
        (_, found), gradient = aim(free, spectral_norm, steps, slowing, kind, free_tau)
        # there is no gradient without a steady state or at a multiple eigenvalue
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(gradient)]))
        go = change & found.steady.converged & finite
        move, later = _ADAM.update(jax.tree.map(jnp.negative, gradient), moments)
        chosen = partial(jax.tree.map, lambda new, old: jnp.where(go, new, old))
        return chosen(optax.apply_updates(free, move), free), chosen(later, moments), found

    return jax.vmap(one)(*starts)


_ADAM = optax.adam(RATE)


def hunt(folder: Path, seed: int, what: Hunt) -> Piece:
    """The curves of a hunt and the circuits at its end, worst first; kept in `folder`.

    `highest` and `median`: over the starts, the largest spectral abscissa so far, in 1/ms, at each
    step. Then for each start the circuit with the largest abscissa (or the one at which a stable
    steady state was lost): its parameters by name, its drive `z`, `abscissa`, whether a stable
    steady state was `found`, `converged`, and `rests`: 1 or 0, whether a simulation came to rest,
    -1 if there was none.
    """
    return kept(folder, what.name, partial(_hunt, seed, what))


def _hunt(seed: int, what: Hunt) -> Piece:
    keys = jr.split(jr.fold_in(jr.key(seed), what.n), what.starts)
    free = jax.jit(jax.vmap(lambda key: random_start(key, what.n)))(keys)
    moments = jax.vmap(_ADAM.init)(free)
    slowing = np.arange(what.starts) % 2 == 0
    norm = float(what.spectral_norm)
    highest, median = [], []
    best, best_abscissa = free, np.full(what.starts, -np.inf)
    step = partial(_step, kind=what.kind, free_tau=what.free_tau)
    with jax.numpy_dtype_promotion("standard"):  # Optax mixes types
        for _ in range(what.steps):
            before = free
            free, moments, found = step((free, moments, slowing), norm, _FEW, True)
            values = np.where(found.steady.converged, found.abscissa, -np.inf)
            best = _chosen(values > best_abscissa, before, best)
            best_abscissa = np.maximum(best_abscissa, values)
            highest.append(best_abscissa.max())
            median.append(np.median(best_abscissa))
        *_, found = step((free, moments, slowing), norm, _FEW, False)
        lost = ~np.asarray(found.steady.converged)
        free = _chosen(lost & (best_abscissa < 0), free, best)
        *_, found = step((free, moments, slowing), norm, _MANY, False)
    circuits, drives = jax.jit(
        jax.vmap(lambda free: constrained(free, what.spectral_norm, what.kind, what.free_tau))
    )(free)
    converged, abscissa = np.asarray(found.steady.converged), np.asarray(found.abscissa)
    stable = converged & (abscissa < 0)
    # unstable ones first, the most unstable before the others
    order = np.lexsort((-np.where(converged, abscissa, -np.inf), stable))
    chosen = order[: min(SIMULATED, int(np.sum(~stable)))]
    rests = np.full(what.starts, -1, np.int8)
    if len(chosen):
        pick = partial(jax.tree.map, lambda leaf: leaf[chosen])
        state = pick(found.steady.state)
        rests[chosen] = comes_to_rest(pick(circuits), pick(drives), state, TIME, seed=seed)
    end = {name: np.asarray(getattr(circuits, name))[order] for name in _FIELDS}
    return end | {
        "z": np.asarray(drives)[order],
        "highest": np.array(highest),
        "median": np.array(median),
        "abscissa": abscissa[order],
        "converged": converged[order],
        "found": stable[order],
        "rests": rests[order],
    }


@jax.jit
def _chosen(which: Array, yes: Free, no: Free) -> Free:
    def choose(a, b):
        return jnp.where(which.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, yes, no)


def circuit_of(piece: Piece, index: int, n: int | None = None) -> tuple[Circuit, Array]:
    """Circuit `index` of a hunt, and its drive; only its neuron `n` if that is given."""
    values = {name: piece[name][index] for name in (*_FIELDS, "z")}
    if n is not None:
        values = {name: x[n : n + 1, n : n + 1] if x.ndim == 2 else x[n : n + 1]
                  for name, x in values.items()}  # fmt: skip
    z = jnp.asarray(values.pop("z"))
    return Circuit(**values), z


def alone(piece: Piece, index: int) -> list[int]:
    """Neurons of a circuit that have no stable steady state even without input from others.

    Such a neuron makes the whole a trivial violation if nothing else reaches it.
    """
    search = eqx.filter_jit(steady_state)
    neurons = []
    for i in range(piece["z"].shape[1]):
        circuit, z = circuit_of(piece, index, i)
        found = search(circuit, z)
        growth = np.real(np.linalg.eigvals(np.asarray(jacobian(circuit, found.state)))).max()
        if not (bool(found.converged) and growth < 0):
            neurons.append(i)
    return neurons


class Found(NamedTuple):
    """A steady state, and its spectral abscissa in 1/ms."""

    abscissa: float
    state: State


def all_found(circuit: Circuit, z: Float[Array, " n"], seed: int, starts: int) -> list[Found]:
    """The steady states found by Powell's method, by rising abscissa.

    It starts where `steady_state` ended and from `starts` random states, with `a` over six decades,
    and solves for `log a`.
    """
    from scipy.optimize import root

    n = circuit.n

    @jax.jit
    def imbalance(x):
        dy, da = circuit.imbalance(State(x[:n], jnp.exp(x[n:])), z)
        return jnp.concatenate([dy, da / jnp.exp(x[n:])])

    rng, states, results = np.random.default_rng(seed), [], []
    slope = jax.jit(jax.jacfwd(imbalance))
    known = steady_state(circuit, z).state
    for k in range(starts + 1):
        random = np.concatenate([3 * rng.normal(size=n), np.log(10) * rng.uniform(-4, 2, n)])
        begin = np.concatenate([known.y, jnp.log(known.a)]) if k == 0 else random
        found = root(imbalance, begin, jac=slope, tol=1e-12)
        x = np.asarray(found.x)
        if not np.linalg.norm(imbalance(jnp.asarray(x))) < 1e-10:
            continue
        if not any(np.allclose(x, other, rtol=1e-5, atol=1e-6) for other in states):
            states.append(x)
            state = State(jnp.asarray(x[:n]), jnp.exp(jnp.asarray(x[n:])))
            growth = np.real(np.linalg.eigvals(np.asarray(jacobian(circuit, state)))).max()
            results.append(Found(float(growth), state))
    return sorted(results, key=lambda found: found.abscissa)
