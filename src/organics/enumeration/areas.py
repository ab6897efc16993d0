"""A search for all steady states of a hierarchy with feedback.

Newton's method starts from the state that `steady_state` finds; from where the branch of steady
states over `gamma`, which begins at the closed form and goes through its folds, passes the
hierarchy's own value; and from random states.

For balanced feedback with `gamma > 0`, identity recurrence, `W_ii > 0` and drives that cannot be
negative, `R` is between `y` and `gamma y`, so that `y_i <= W_ii^-1/2`, `sqrt(a_i) y_i` and `a_i`
are bounded on the way from `gamma = 1`. The signs of `det(-J)` at all steady states therefore add
up to what they do there, where there is one, a stable one: to 1. A pair of missing states with
opposite signs raises no alarm.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from organics.branches.continuation import continuation
from organics.circuit.areas import joined
from organics.circuit.gated import GatedHierarchy
from organics.circuit.hierarchy import Hierarchy
from organics.circuit.values import Values
from organics.errors import NoSteadyState
from organics.linear.jacobian import determinant_sign
from organics.rest.balance import judge
from organics.rest.newton import newton
from organics.rest.search import steady_state
from organics.rest.system import Driven, DrivenHierarchy, driven_by

_TOLERANCE = 2e-12  # of the balance of each equation
_SAME = 1e-5  # distance of two finds of one state, in the system's units of length
_BATCH = 64  # random starts at once
_BATCHES = 4, 1  # of these, up to and beyond so many numbers:
_FEW = 40
_FOLLOWED = 60  # numbers up to which branches over `gamma` are followed
_FURTHEST = 3.0  # multiple of the change of `gamma` up to which they are
_BEYOND = 30.0  # factor by which a random `a` may exceed the largest one known

CLOSED_FORM, CONTINUED, RANDOM = "from the closed form", "continued in gamma", "from a random start"
BALANCED = "from a state of the balanced form"


class FoundAreas(NamedTuple):
    """States as numbers, how each was found, and the sign of `det(-J)` at each. `expected` is the
    sum of the signs of all steady states, `None` if it is not known."""

    x: Float[np.ndarray, "k m"]
    how: list[str]
    signs: list[int]
    expected: int | None


def search_areas(hierarchy: Hierarchy, z: Values, seed: int) -> FoundAreas:
    """The steady states that the starts lead to, each once."""
    z = jnp.asarray(z, hierarchy.dtype)
    system = DrivenHierarchy(hierarchy, z)
    rng = np.random.default_rng(seed)
    point = steady_state(hierarchy, z)
    first = np.asarray(joined(point.state), np.float64)
    found: list[tuple[np.ndarray, str, int]] = []
    start = partial(_add_ends, system, found)
    start(_padded(first[None]), CLOSED_FORM)
    if len(first) <= _FOLLOWED:
        start(_padded(_on_the_branch(hierarchy, z)), CONTINUED)
    known = found[0][0] if found else first
    for _ in range(_BATCHES[0] if len(first) <= _FEW else _BATCHES[1]):
        start(_random(hierarchy, known, rng), RANDOM)
    x = np.array([x for x, _, _ in found]).reshape(-1, len(first))
    expected = _expected_degree(hierarchy, z, x)
    return FoundAreas(x, [how for _, how, _ in found], [sign for _, _, sign in found], expected)


def search_gated(gated: GatedHierarchy, z: Values, seed: int) -> FoundAreas:
    """Those of the published form: near the states of the balanced one, which they are where
    `floor = 0`, and from random states. Gates and trackers start at rest."""
    z = jnp.asarray(z, gated.dtype)
    system = driven_by(gated, z)
    balanced = search_areas(gated.hierarchy, z, seed)
    rng = np.random.default_rng(seed)
    found: list[tuple[np.ndarray, str, int]] = []
    known = np.asarray(joined(steady_state(gated.hierarchy, z).state), np.float64)
    ways = [(balanced.x, BALANCED), (_random(gated.hierarchy, known, rng), RANDOM)]
    for starts, how in ways:
        if len(starts):
            state = jax.vmap(gated.complete)(gated.hierarchy.split(jnp.asarray(_padded(starts))))
            _add_ends(system, found, np.asarray(joined(state)), how)
    m = len(system.time_constants())
    x = np.array([x for x, _, _ in found]).reshape(-1, m)
    return FoundAreas(x, [how for _, how, _ in found], [sign for _, _, sign in found], None)


def _add_ends(system: Driven, found: list, starts: Float[np.ndarray, "k m"], how: str) -> None:
    """Add the states to which Newton's method leads, each once."""
    for x, sign, good in zip(*map(np.asarray, _ends(system, starts)), strict=True):
        units = np.asarray(system.lengths(jnp.asarray(x)))
        if good and all(np.max(np.abs(x - known) / units) > _SAME for known, _, _ in found):
            found.append((x, how, int(sign)))


def _expected_degree(hierarchy: Hierarchy, z, x: Float[np.ndarray, "k m"]) -> int | None:
    """The sum of the signs of all steady states; `None` if it is not known, or if some `y` is 0,
    where `J` is that of one side."""
    if hierarchy.form != "balanced" or not hierarchy.has_identity_recurrence:
        return None
    positive = all(np.all(np.asarray(M) >= 0) for M in (z, *hierarchy.feedforward))
    pooled = all(np.all(np.asarray(area.pool.diagonal()) > 0) for area in hierarchy.areas)
    smooth = all(np.all(np.asarray(state.y) > 0) for state in hierarchy.split(x))
    known = positive and pooled and smooth and np.all(np.asarray(hierarchy.gamma) > 0)
    return 1 if known else None


@jax.jit
def _ends(
    system: Driven, starts: Float[Array, "k m"]
) -> tuple[Float[Array, "k m"], Float[Array, " k"], Bool[Array, " k"]]:
    """Where Newton's method ends from each start, the sign there, and whether it converged."""

    def end(start):
        found, *_ = newton(system, _TOLERANCE, judge(system, start), jnp.bool_(True))
        sign = determinant_sign(*jax.scipy.linalg.lu_factor(-system.jacobian(found.x)))
        return found.x, sign, found.converged

    return jax.vmap(end)(starts)


def _padded(starts: Float[np.ndarray, "k m"]) -> Float[np.ndarray, "b m"]:
    """As many starts as in a batch, the last one repeated, so that one program serves all."""
    return starts[np.minimum(np.arange(_BATCH), len(starts) - 1)]


def _on_the_branch(hierarchy: Hierarchy, z: Float[Array, " n"]) -> Float[np.ndarray, "k m"]:
    """Where the branch over `gamma` that begins at the closed form passes the hierarchy's own."""
    gamma = np.asarray(hierarchy.gamma, np.float64)
    known = 1.0 if hierarchy.form == "balanced" else 0.0
    change = gamma - known
    begin = steady_state(_with_gamma(hierarchy, np.full_like(gamma, known)), z)
    last = np.asarray(joined(begin.state), np.float64)[None]
    falling = change < 0
    furthest = min([_FURTHEST, *(-0.999 * known / change[falling])])
    if not np.any(change) or not begin.converged or furthest < 1:
        return last
    try:
        found = continuation(begin.system, z, {"gamma": change}, (0.0, furthest), start=begin)
    except (NoSteadyState, ValueError):
        return last
    if found.interrupted:
        raise KeyboardInterrupt  # `continuation` returns what it has
    crossings = [last]
    for branch in found.branches:
        ahead = branch.parameter - 1
        for i in np.flatnonzero(ahead[1:] * ahead[:-1] <= 0):
            part = ahead[i] / (ahead[i] - ahead[i + 1]) if ahead[i] != ahead[i + 1] else 0.0
            crossings.append((branch.x[i] + part * (branch.x[i + 1] - branch.x[i]))[None])
    return np.concatenate(crossings)[:_BATCH]


def _with_gamma(hierarchy: Hierarchy, gamma: Float[np.ndarray, " k"]) -> Hierarchy:
    h = hierarchy
    return Hierarchy(h.areas, h.feedforward, h.feedback, gamma, h.g, h.form)


def _random(
    hierarchy: Hierarchy, known: Float[np.ndarray, " m"], rng: np.random.Generator
) -> Float[np.ndarray, "b m"]:
    """A batch of random states."""
    parts = []
    largest = max(float(np.max(state.a)) for state in hierarchy.split(known))
    for area in hierarchy.areas:
        c = np.asarray(area.c)
        high = np.log(_BEYOND * max(largest, float(c.max())) / c)
        common = rng.uniform(size=(_BATCH, 1))  # pools are shared: most `a` are alike
        a = c * np.exp(np.clip(common + 0.1 * rng.normal(size=(_BATCH, area.n)), 0, 1) * high)
        most = 1 / np.sqrt(np.maximum(np.max(np.asarray(area.pool.diagonal())), 1e-6))
        y = rng.uniform(0, most, (_BATCH, area.n))
        parts += [y, a]
    return np.concatenate(parts, axis=1)
