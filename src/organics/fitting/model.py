"""What a circuit predicts of a recording, with the derivatives that a fit needs."""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

from organics.circuit.circuit import Circuit, State
from organics.fitting.parameters import Parameters
from organics.linear.jacobian import jacobian
from organics.rest.closed_form import closed_form
from organics.rest.search import steady_state
from organics.simulation.noise import Noise

_RELAXATION_STEPS = 3000  # a circuit that needs more is none to be fitted


def circuit_of(arrays: dict[str, Any], rectified: bool) -> Circuit:
    """The circuit with these parameters."""
    names = ("W", "W_r", "b", "b0", "sigma", "tau_y", "tau_a")
    given = {name: arrays[name] for name in names if name in arrays}
    return Circuit(**given, rectified=rectified)


def noise_of(arrays: dict[str, Any]) -> Noise:
    """The noise with these levels."""
    return Noise(arrays["noise_y"], arrays["noise_a"])


class AtRest(NamedTuple):
    """A circuit at rest, as linear theory sees it, for each of k stimuli.

    Attributes
        mean: what the channels show, shape (k, p).
        seen: its derivative by `(y, a)`, shape (k, p, 2n).
        J: the Jacobian, shape (k, 2n, 2n).
        Q: the rate at which noise adds variance, shape (k, 2n).
    """

    mean: Float[Array, "k p"]
    seen: Float[Array, "k p m"]
    J: Float[Array, "k m m"]
    Q: Float[Array, "k m"]


class Model(eqx.Module):
    """The circuit of a fit under the stimuli of a recording.

    Attributes
        parameters: bijections.
        drives: of the stimuli, shape (k, n).
        channels: of the recording; static.
        rectified: whether the circuit is; static.
    """

    parameters: Parameters
    drives: Float[Array, "k n"]
    channels: tuple = eqx.field(static=True)
    rectified: bool = eqx.field(static=True)

    def at_rest(self, u: Float[Array, " p"], near: State) -> tuple[AtRest, State, Bool[Array, ""]]:
        """The prediction, the steady states, and whether every stimulus has one.

        For identity recurrence they have a closed form; else Newton's method begins at `near`, one
        state for each stimulus.
        """
        circuit = circuit_of(self.parameters.arrays(u), self.rectified)

        def one(z, near):
            if circuit.has_identity_recurrence:
                state, converged = closed_form(circuit, z), jnp.bool_(True)
            else:
                point = steady_state(circuit, z, start=jax.lax.stop_gradient(near))
                state, converged = point.state, point.converged
            return state, converged

        states, converged = jax.vmap(one)(self.drives, near)
        return self.linearized(u, states), states, jnp.all(converged)

    def linearized(self, u: Float[Array, " p"], states: State) -> AtRest:
        """The prediction for given steady states, one for each stimulus."""
        arrays = self.parameters.arrays(u)
        circuit, noise = circuit_of(arrays, self.rectified), noise_of(arrays)

        def one(state):
            mean, seen = self.readout(state, arrays["gain"])
            Q = jnp.square(jnp.concatenate(noise.amplitudes(circuit, state)))
            return AtRest(mean, seen, jacobian(circuit, state), Q)

        return jax.vmap(one)(states)

    def from_rest(self, u: Float[Array, " p"]) -> tuple[State, Bool[Array, ""]]:
        """The steady states that the circuit reaches, and whether every stimulus has one."""
        circuit = circuit_of(self.parameters.arrays(u), self.rectified)
        search = partial(steady_state, circuit, relaxation_steps=_RELAXATION_STEPS)
        points = jax.vmap(lambda z: search(z).found)(self.drives)
        return points.state, jnp.all(points.converged)

    def readout(self, state: State, gains: Float[Array, " g"]) -> tuple[Array, Array]:
        """What the channels show at a state, shape (p,), and its derivative, shape (p, 2n)."""
        y, a = state
        n, zero = y.shape[-1], jnp.zeros_like(y)
        unit = jnp.eye(n, dtype=y.dtype)
        means, slopes, unknown = [], [], 0
        for quantity, i, gain_known in self.channels:
            positive = jax.nn.relu(y[i])
            mean, by_y, by_a = {
                "y": (y[i], unit[i], zero),
                "a": (a[i], zero, unit[i]),
                "rate": (jnp.square(positive), 2 * positive * unit[i], zero),
                "lfp": (jnp.mean(y), jnp.full_like(y, 1 / n), zero),
            }[quantity]
            gain = jnp.ones_like(y[0]) if gain_known else gains[unknown]
            unknown += not gain_known
            means.append(gain * mean)
            slopes.append(gain * jnp.concatenate([by_y, by_a]))
        return jnp.stack(means), jnp.stack(slopes)

    def is_stable(self, J: Float[Array, "k m m"]) -> Bool[Array, ""]:
        """Whether every steady state is; for identity recurrence it is by the theorem."""
        if self.parameters.recurrence == "identity":
            return jnp.bool_(True)
        return jnp.all(jnp.linalg.eigvals(jax.lax.stop_gradient(J)).real < 0)


def linear_response(
    rest: AtRest, change: AtRest, frequencies: Float[Array, " f"], folded: Float[Array, " f"]
) -> tuple[Complex[Array, "k f s s"], Complex[Array, "k f s s p"]]:
    """Cross-spectra of the channels, and their derivatives by p parameters.

    `change` holds those of `rest`, on a last axis. With `H = (iw - J)^-1`, `S = H Q H*`,

        dS = H dJ S + S dJ^T H* + H dQ H*,

    so that one inverse serves all parameters. At high frequencies `S` tends to `Q / w^2`: `folded`
    is by how much the sum of `1 / w^2` over the frequencies that sampling folds back exceeds that
    of the frequency itself.
    """

    n_f, (s, m) = len(frequencies), rest.seen.shape[1:]

    def one(rest: AtRest, change: AtRest):
        p = change.J.shape[-1]
        identity = jnp.eye(m, dtype=rest.J.dtype)
        w = 2 * jnp.pi * frequencies[:, None, None]
        H = jnp.linalg.inv(jax.lax.complex(-rest.J[None] + 0 * w, w * identity[None]))
        seen = rest.seen.astype(H.dtype)[None]
        G = seen @ H  # from noise to channels, shape (f, s, m)
        X = H @ (rest.Q.astype(H.dtype)[None, :, None] * G.conj().swapaxes(1, 2))
        # few large products instead of many small ones
        by_J = _times(G.reshape(-1, m), change.J.reshape(m, -1)).reshape(n_f, s, m, p)
        half = jnp.einsum("fcjp,fjd->fcdp", by_J, X)
        by_seen = _times(X.swapaxes(1, 2).reshape(-1, m), change.seen.swapaxes(0, 1).reshape(m, -1))
        half += by_seen.reshape(n_f, s, s, p).swapaxes(1, 2)
        pairs = G[:, :, None] * G.conj()[:, None]
        level = _times(pairs.reshape(-1, m), change.Q).reshape(n_f, s, s, p)
        fold = folded[:, None, None]
        weighted = rest.seen * rest.Q[None]
        S = seen @ X + (fold * (weighted @ rest.seen.T)[None]).astype(H.dtype)
        tail = jnp.einsum("cip,di->cdp", change.seen, weighted)
        by_Q = jnp.einsum("ci,di,ip->cdp", rest.seen, rest.seen, change.Q)
        tail = (tail + tail.swapaxes(0, 1) + by_Q)[None]
        added = (fold[..., None] * tail).astype(H.dtype)
        return S, half + half.conj().swapaxes(1, 2) + level + added

    return jax.vmap(one)(rest, change)


def _times(z: Complex[Array, "i j"], x: Float[Array, "j k"]) -> Complex[Array, "i k"]:
    """The product of a complex and a real matrix."""
    return jax.lax.complex(z.real @ x, z.imag @ x)
