"""A recurrent layer linearized at moments of sequences."""

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from organics.kernels.equations import Options, project, step
from organics.linear.jacobian import eigenvalues


@runtime_checkable
class InSteps(Protocol):
    """What this module needs of an `ORGaNICs` layer; its states have leaves of shape (..., n)."""

    cells: tuple[Any, ...]
    options: Options
    dt: float

    def initial_state(self) -> Any:
        """The state before the first step."""

    def step(self, x: Float[Array, "*batch m"], state: Any) -> Any:
        """The state one step after `state`."""


def spectra(
    layer: InSteps,
    x: Float[Array, "batch time m"],
    lengths: Int[ArrayLike, " batch"] | None = None,
) -> tuple[Float[np.ndarray, "batch circuits"], Float[np.ndarray, "batch circuits"]]:
    """Spectral abscissa, in 1/ms, and step radius, as in `Trajectory`, at one moment of each
    sequence: the last moment of the first sequence, ever earlier ones of the others. NaN where
    numbers overflow. `lengths` are the numbers of steps, by default all.
    """
    batch, time, _ = x.shape
    time = time if lengths is None else np.asarray(lengths)
    times = time - 1 - np.arange(batch) * time // batch
    spectrum = eigenvalues(np.asarray(jacobians(layer, *_moments(layer, x, times))))
    return np.max(np.real(spectrum), axis=-1) / layer.dt, np.max(np.abs(1 + spectrum), axis=-1)


@eqx.filter_jit
def states(layer: InSteps, x: Float[Array, "time m"]) -> Any:
    """The state before each step, arrays (time, n)."""

    def body(state, x):
        return layer.step(x, state), state

    return jax.lax.scan(body, layer.initial_state(), x)[1]


@eqx.filter_jit
def _moments(
    layer: InSteps, x: Float[Array, "batch time m"], times: Int[ArrayLike, " batch"]
) -> tuple[Float[Array, "batch m"], Any]:
    """The input of one step of each sequence, and the state before it, arrays (batch, n)."""

    def at(x, time):
        return x[time], jax.tree.map(lambda leaf: leaf[time], states(layer, x))

    return jax.vmap(at)(x, times)


@eqx.filter_jit
def jacobians(
    layer: InSteps, x: Float[Array, "moments m"], states: Any
) -> Float[Array, "moments circuits four_n four_n"]:
    """Jacobian of one step minus the identity, (4 n, 4 n), of each circuit with its input fixed;
    without rounding products."""
    options = layer.options.in_full

    def at(x, state):
        found = []
        after = layer.step(x, state)
        for i, (cell, before) in enumerate(zip(layer.cells, state, strict=True)):
            weights = cell.weights()
            fed = x if i == 0 else after[i - 1].y
            projected = project(options, weights, cell.inputs(fed)[None, None])[0]
            advance = lambda s, w=weights, p=projected: step(options, w, p, s[None])[0]  # noqa: E731
            J = jax.jacfwd(advance)(jnp.concatenate(before))
            found.append(J - jnp.eye(J.shape[0], dtype=J.dtype))
        return jnp.stack(found)

    return jax.vmap(at)(x, states)
