"""A recurrent layer as a dynamical system: its circuit at a moment, and along a sequence."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from organics.arguments import require_sizes
from organics.circuit.circuit import Circuit
from organics.kernels.equations import products, project, velocity
from organics.linear.jacobian import eigenvalues
from organics.nn.arguments import as_input, require_finite, require_type
from organics.nn.moments import jacobians, states
from organics.nn.recurrent import Cell, CellState, ORGaNICs, require_recurrent


def circuit_at(
    layer: ORGaNICs, x: Float[Array, " m"], state: tuple[CellState, ...], index: int = -1
) -> tuple[Circuit, Float[Array, " n"]]:
    """The circuit of the layer at a moment of a sequence, and its input drive.

    If the gains `b`, `b0` of `state` and the input `x`, (m,), stay constant, the layer's steps are
    Euler steps of `dt` ms of this circuit: `steady_state`, `stability`, `certify` and `energy` then
    say where it is heading. Modulated time constants are those of the moment. They move with the
    state, but where it rests the linearization is that of the constants there, so with the identity
    it is stable whatever they are. `index` selects the circuit of a stack, by default the topmost;
    a circuit above the lowest is driven by the `y` of the one below after this step.

    Raises `ValueError` for a layer with `rectification="outside"` (unless `W_r` is the identity),
    which is not a `Circuit`, for an `index` out of range, or for arrays of another shape or type or
    not finite.
    """
    require_recurrent(layer)
    if layer.options.rectified and layer.options.rectified_after:
        raise ValueError(
            "`layer` has `rectification='outside'`, relu(W_r y): its steps are not those of a "
            "`Circuit`, which has W_r relu(y)."
        )
    count = len(layer.cells)
    if not isinstance(index, int | np.integer) or not -count <= index < count:
        raise ValueError(f"`index` must be from {-count} to {count - 1}, not {index}.")
    x = as_input(x, (layer.input_size,))
    chosen = range(count)[index]
    for below in layer.step(x, state)[:chosen]:
        x = below.y
    cell, gains = layer.cells[chosen], state[chosen]
    weights = cell.weights()
    z = cell.W_zx @ cell.bounded_input(x)
    rates, _ = _right_hand_sides(layer, cell, x, gains)
    tau_y, tau_a = layer.dt / rates.reshape(4, -1)[:2]
    circuit = Circuit(
        W=weights.normalization,
        W_r=weights.recurrent,
        b=gains.b,
        b0=gains.b0,
        sigma=cell.sigma,
        tau_y=tau_y,
        tau_a=tau_a,
        rectified=layer.options.rectified,
    )
    return circuit, jax.nn.relu(z) if layer.options.rectified_drive else z


def velocity_at(
    layer: ORGaNICs, x: Float[Array, " m"], state: tuple[CellState, ...]
) -> Float[Array, " d"]:
    """The right-hand sides of all equations, each times its time constant: of the circuits one
    after another, y, a, b0 and b. 0 where the state rests, however slow it is."""
    found = []
    for cell, before in zip(layer.cells, state, strict=True):
        rates, moved = _right_hand_sides(layer, cell, x, before)
        found.append(moved)
        x = before.y + (rates * moved)[: cell.size]  # after the step it drives the circuit above
    return jnp.concatenate(found)


def _right_hand_sides(
    layer: ORGaNICs, cell: Cell, x: Float[Array, " m"], state: CellState
) -> tuple[Float[Array, " four_n"], Float[Array, " four_n"]]:
    """Of one circuit: step size over time constants, and what `velocity_at` says of it."""
    weights, options, packed = cell.weights(), layer.options.in_full, jnp.concatenate(state)[None]
    found = products(options, weights, project(options, weights, cell.inputs(x)[None]), packed)
    return found.rates.reshape(-1), velocity(weights.offset, packed, found)[0]


class Trajectory(NamedTuple):
    """A layer's path through a sequence; leading axis: the chosen moments.

    Attributes
        times: number of steps before each moment.
        states: the state of each circuit at that moment.
        spectral_abscissa: largest real part, in 1/ms, of the Jacobian of all equations, gates
            included, at the moment's state and input; (moments, circuits). Only a diagnostic: along
            a transient no stability follows from it.
        step_radius: largest magnitude of the eigenvalues of one Euler step there.
        step_stable: whether that is below 1, so that the linearized step brings neighbouring states
            closer.

    If the numbers overflow, abscissa and radius are NaN, and `step_stable` is false.
    """

    times: np.ndarray
    states: tuple[CellState, ...]
    spectral_abscissa: Float[np.ndarray, "moments circuits"]
    step_radius: Float[np.ndarray, "moments circuits"]
    step_stable: Bool[np.ndarray, "moments circuits"]


def trajectory(layer: ORGaNICs, x: Float[Array, "time m"], every: int = 1) -> Trajectory:
    """The layer's states along the sequence `x`, (time, m), and its spectrum, at every `every`-th
    step.

    Raises `ValueError` unless `every` is a whole number above 0 and `x` one finite sequence of the
    layer's type.
    """
    require_sizes(every=every)
    require_recurrent(layer)
    x = as_input(x, ("time", layer.input_size), further="Give it one sequence at a time.")
    require_type("x", x, layer.cells[0].log_W.dtype)
    require_finite("x", x)
    times = np.arange(0, x.shape[0], every)
    inputs, chosen = _rows((x, states(layer, x)), times)
    J = np.asarray(jacobians(layer, inputs, chosen))
    spectrum = eigenvalues(J)
    radius = np.max(np.abs(1 + spectrum), axis=-1)
    abscissa = np.max(np.real(spectrum), axis=-1) / layer.dt
    return Trajectory(times, chosen, abscissa, radius, radius < 1)


@jax.jit  # one program instead of many small ones
def _rows(arrays: Any, indices: Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[indices], arrays)


def spectral_abscissa(
    layer: ORGaNICs, x: Float[Array, "batch m"], states: tuple[CellState, ...]
) -> Float[np.ndarray, "batch circuits"]:
    """Largest real part of each circuit's full Jacobian, in 1/ms, for a batch of moments.

    `x` is (batch, m), and the arrays of `states` are (batch, n). NaN where a Jacobian is not
    finite.
    """
    J = np.asarray(jacobians(layer, x, states))
    return np.max(np.real(eigenvalues(J)), axis=-1) / layer.dt
