"""The gated circuit as a recurrent layer on sequences."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from organics.arguments import (
    float_type,
    require_among,
    require_flag,
    require_positive,
    require_share,
    require_sizes,
    require_squares,
)
from organics.circuit.constraints import (
    at_most_one,
    cap_spectral_norm,
    orthogonal,
    semidefinite,
)
from organics.kernels import recurrence
from organics.kernels.equations import Modulation as ModulationWeights
from organics.kernels.equations import Options, Weights, project, step
from organics.names import (
    LARGEST_ANGLE,
    MODULATED,
    Backend,
    Drive,
    Memory,
    ProductType,
    Rectification,
    Recurrence,
    TimeConstants,
)
from organics.nn.arguments import (
    Built,
    as_built,
    as_input,
    require_as_built,
    require_execution,
    require_state,
)
from organics.nn.moments import spectra
from organics.nn.normalization import uniform_fan_in
from organics.nn.sequences import Lengths, as_lengths, as_rows, as_sequences

_MOST_MOMENTS = 64
# Computing the eigenvalues at a moment takes as long as training on this many time steps, times the
# number of neurons: 20 ms on one core for 64 neurons.
_STEPS_PER_NEURON = 200


class CellState(NamedTuple):
    """State of one layer's circuit: membrane potentials `y`, `a` and gains `b0`, `b`, all (..., n).

    `a` stays positive, and both gains stay in (0, 1].
    """

    y: Float[Array, "*batch n"]
    a: Float[Array, "*batch n"]
    b0: Float[Array, "*batch n"]
    b: Float[Array, "*batch n"]


class _Drawn(NamedTuple):
    """The initial parameters of a cell."""

    of_input: tuple[Array, ...]
    of_gates: tuple[Array, ...]
    W_r: Array | None
    log_W: Array
    raw_rates: Array | None
    start: CellState


class Modulation(eqx.Module):
    r"""What makes the rates of a circuit follow its input and its potentials: those of y, a, b0 and
    b, or that of y alone are

        dt / tau = largest_rates * sigmoid(raw_rates + T_x x + T_y y + T_a a).

    Attributes
        T_x: (s, n, m); each rate has its own (s = 4; of y alone 1), or all have the same (s = 1).
        T_y, T_a: (s, n, n).
        count: how many of the rates they move, 4 or 1.

    They begin at 0, where the circuit is the one with learned time constants.
    """

    T_x: Float[Array, "s n m"]
    T_y: Float[Array, "s n n"]
    T_a: Float[Array, "s n n"]
    count: int = eqx.field(static=True)

    def __init__(self, count: int, sums: int, input_size: int, size: int, dtype: np.dtype):
        self.T_x = jnp.zeros((sums, size, input_size), dtype)
        self.T_y = jnp.zeros((sums, size, size), dtype)
        self.T_a = jnp.zeros((sums, size, size), dtype)
        self.count = count


# compiled as one program instead of many small ones
@partial(jax.jit, static_argnums=(1, 2, 3, 5))
def _draw(
    key: PRNGKeyArray,
    input_size: int,
    size: int,
    recurrent: Recurrence,
    rates: "_LearnedRates | None",
    dtype,
) -> _Drawn:
    keys = iter(jr.split(key, 11))
    W_zx, W_b0x, W_bx = (
        uniform_fan_in(next(keys), (size, input_size), input_size, dtype) for _ in range(3)
    )
    of_gates = tuple(uniform_fan_in(next(keys), (size, size), size, dtype) for _ in range(4))
    k_r, k_W = next(keys), next(keys)
    log_W = jnp.log(jnp.maximum(jr.uniform(k_W, (size, size), dtype), 1e-8))
    return _Drawn(
        of_input=(W_zx / jnp.linalg.norm(W_zx, 2), W_b0x, W_bx),
        of_gates=of_gates,
        W_r=_draw_recurrent(k_r, size, recurrent, dtype),
        log_W=log_W * (1 - jnp.eye(size, dtype=dtype)),
        raw_rates=None if rates is None else _draw_rates(next(keys), size, rates, dtype),
        start=draw_start(next(keys), size, dtype),
    )


def _draw_recurrent(
    key: PRNGKeyArray, size: int, recurrent: Recurrence, dtype
) -> Float[Array, "n n"] | None:
    """Parameters of `W_r`: an orthogonal matrix; for "orthogonal" itself those of rotations in
    `size // 2` planes, by angles uniform from 0 to the largest one."""
    if recurrent == "identity":
        return None
    if recurrent != "orthogonal":
        return jax.nn.initializers.orthogonal()(key, (size, size), dtype)
    angles = jr.uniform(key, (size // 2,), dtype, maxval=LARGEST_ANGLE)
    first = 2 * np.arange(size // 2)
    return jnp.zeros((size, size), dtype).at[first, first + 1].set(jnp.tan(angles / 2))


class _Rates(NamedTuple):
    """How the rates of y, a, b0 and b are chosen.

    Attributes
        largest: the largest ones.
        time_constants: the layer's option.
        initial: least and largest initial time constant of y, in steps, if they are spread.
    """

    largest: tuple[float, float, float, float]
    time_constants: TimeConstants
    initial: tuple[float, float] | None

    @property
    def learned(self) -> bool:
        return self.time_constants != "fixed"


_SHORTEST, _LONGEST = 1.25, 5.0
"""Where time constants are spread, those of a, b0 and b begin between the first number over the
largest rate, and the second; in steps."""


class _LearnedRates(NamedTuple):
    """Between what the initial time constants are drawn, (4, 1); of y, a, b0, b."""

    least_rates: np.ndarray | None  # the largest rate times the shortest time constant
    ratio: np.ndarray | None  # of the longest to the shortest; None if they are not spread


def _learned(rates: _Rates, dtype) -> _LearnedRates | None:
    if not rates.learned or rates.initial is None:
        return _LearnedRates(None, None) if rates.learned else None
    largest = np.asarray(rates.largest)[:, None]
    low = np.full((4, 1), rates.initial[0])
    low[1:] = _SHORTEST / largest[1:]
    high = np.array([[rates.initial[1]], *[[_LONGEST]] * 3])
    return _LearnedRates((largest * low).astype(dtype), (high / low).astype(dtype))


def _draw_rates(key: PRNGKeyArray, size: int, rates: _LearnedRates, dtype) -> Float[Array, "4 n"]:
    if rates.ratio is None:
        return jr.normal(key, (4, size), dtype)
    spread = jr.uniform(key, (4, size), dtype)
    # log-uniform from the shortest to the longest
    return -jnp.log(rates.least_rates * rates.ratio**spread - 1)


_CONSTRAINTS: dict[Recurrence, Callable[[Array], Array]] = {
    "bounded": cap_spectral_norm,
    "semidefinite": semidefinite,
    "orthogonal": orthogonal,
}
"""From the parameters of `W_r` to `W_r`."""


class Cell(eqx.Module):
    r"""The weights of one circuit of n principal neurons with learned input gains; see `ORGaNICs`.

    Attributes
        W_zx, W_b0x, W_bx: from the input to the drive and to the gates of `b0` and `b`, (n, m).
        W_b0y, W_b0a, W_by, W_ba: from the potentials to the gates, (n, n).
        W_r: recurrent weights before any bound, (n, n); None is the identity.
        log_W: normalization weights, `W = min(exp(log_W), 1)`, (n, n).
        raw_rates: for y, a, b0, b, (4, n); None if rates are not learned:
            `dt / tau = largest_rates * sigmoid(raw_rates)`.
        modulation: what moves the rates with the input and the potentials; None if nothing does.
        start: the initial state, arrays (n,); not trained, see `trainable`.
    """

    W_zx: Float[Array, "n m"]
    W_b0x: Float[Array, "n m"]
    W_bx: Float[Array, "n m"]
    W_b0y: Float[Array, "n n"]
    W_b0a: Float[Array, "n n"]
    W_by: Float[Array, "n n"]
    W_ba: Float[Array, "n n"]
    W_r: Float[Array, "n n"] | None
    log_W: Float[Array, "n n"]
    raw_rates: Float[Array, "4 n"] | None
    modulation: Modulation | None
    start: CellState
    constraint: Recurrence = eqx.field(static=True)
    unit_drive: bool = eqx.field(static=True)
    sigma: float = eqx.field(static=True)
    largest_rates: tuple[float, float, float, float] = eqx.field(static=True)

    def __init__(
        self,
        input_size: int,
        size: int,
        recurrent: Recurrence,
        drive: Drive,
        rates: _Rates,
        sigma: float,
        initial_normalization: float,
        *,
        key: "PRNGKeyArray",
        dtype,
    ):
        learned = _learned(rates, dtype)
        drawn = _draw(key, input_size, size, recurrent, learned, dtype)
        self.W_zx, self.W_b0x, self.W_bx = drawn.of_input
        self.W_b0y, self.W_b0a, self.W_by, self.W_ba = drawn.of_gates
        self.W_r, self.log_W, self.raw_rates, self.start = drawn[2:]
        if initial_normalization < 1:
            self.log_W = self.log_W + math.log(initial_normalization)
        self.modulation = None
        if moved := MODULATED.get(rates.time_constants):
            self.modulation = Modulation(*moved, input_size, size, self.log_W.dtype)
        self.constraint = recurrent
        self.unit_drive = drive == "unit"
        self.sigma = sigma
        self.largest_rates = rates.largest

    @property
    def size(self) -> int:
        """Number of principal neurons, n."""
        return self.log_W.shape[0]

    @property
    def recurrent(self) -> Float[Array, "n n"] | None:
        """The recurrent weights as the circuit has them; None is the identity."""
        if self.W_r is None or self.constraint == "free":
            return self.W_r
        return _CONSTRAINTS[self.constraint](self.W_r)

    @property
    def rates(self) -> Float[Array, "4 n"]:
        """Step size over the time constants of y, a, b0, b; without modulation."""
        return self._largest * self._opened

    @property
    def _largest(self) -> Float[Array, "4 1"]:
        return jnp.asarray(self.largest_rates, self.log_W.dtype)[:, None]

    @property
    def _opened(self) -> Float[Array, "4 n"]:
        raw = self.raw_rates
        if raw is None:
            raw = jnp.ones((4, self.size), self.log_W.dtype)
        return jax.nn.sigmoid(raw)

    def bounded_input(self, x: Float[Array, "*batch m"]) -> Float[Array, "*batch m"]:
        """The input as the drive sees it: with a unit drive, scaled to `|W_zx x| <= 1`, up to the
        rounding of `x`, which matters where `W_zx` takes nearly all of it away."""
        if not self.unit_drive:
            return x
        # scaled by the largest entry first, so that the square does not overflow
        scale = jnp.maximum(jnp.max(jnp.abs(x), axis=-1, keepdims=True), 1)
        scale = jax.lax.stop_gradient(scale)
        x = x / scale
        # not by W_zx^T W_zx, though it is small: of nearly equal columns it has lost the rest
        square = jnp.sum(jnp.square(x @ self.W_zx.T), axis=-1, keepdims=True)
        least = jnp.maximum(jnp.square(1 / scale), jnp.finfo(x.dtype).tiny)
        return x * jax.lax.rsqrt(jnp.maximum(square, least))

    def inputs(self, x: Float[Array, "*batch m"]) -> Float[Array, "*batch inputs"]:
        """The inputs of the kernels: `x`, and with a unit drive also the input of the drive."""
        return jnp.concatenate([x, self.bounded_input(x)], axis=-1) if self.unit_drive else x

    def weights(self) -> Weights:
        """The weights as the kernels take them."""
        gates_input = self._of_x(jnp.concatenate([self.W_b0x, self.W_bx]))
        W_zx = self.W_zx
        if self.unit_drive:
            W_zx = jnp.concatenate([jnp.zeros_like(W_zx), W_zx], axis=1)
        return Weights(
            recurrent=self.recurrent,
            normalization=at_most_one(self.log_W),
            gates=jnp.block([[self.W_b0y, self.W_b0a], [self.W_by, self.W_ba]]),
            input=jnp.concatenate([W_zx, gates_input]),
            rates=self.rates,
            offset=jnp.full(self.size, self.sigma**2, self.log_W.dtype),
            modulation=self._modulation(),
        )

    def _of_x(self, weights: Float[Array, "rows m"]) -> Float[Array, "rows inputs"]:
        """Weights of `x` as weights of what `inputs` gives."""
        absent = [jnp.zeros_like(weights)] if self.unit_drive else []
        return jnp.concatenate([weights, *absent], axis=1)

    def _modulation(self) -> ModulationWeights | None:
        if self.modulation is None or self.raw_rates is None:
            return None
        T_x, T_y, T_a = self.modulation.T_x, self.modulation.T_y, self.modulation.T_a
        k, (s, n, m) = self.modulation.count, T_x.shape
        return ModulationWeights(
            raw=self.raw_rates[:k],
            opened=self._opened[:k],
            largest=jnp.broadcast_to(self._largest[:k], (k, n)),
            potentials=jnp.concatenate([T_y, T_a], axis=2).reshape(s * n, 2 * n),
            input=self._of_x(T_x.reshape(s * n, m)),
        )

    def initial_state(self) -> CellState:
        """The state before every sequence: drawn once for each layer and not trained."""
        return jax.lax.stop_gradient(self.start)


def draw_start(key: PRNGKeyArray, size: int, dtype: np.dtype) -> CellState:
    """The initial state of a circuit of `size` neurons: `y` of norm 1, `b0 = 1`."""
    y, a, b = (jr.uniform(k, (size,), dtype) for k in jr.split(key, 3))
    return CellState(y / jnp.linalg.norm(y), a, jnp.ones_like(y), b)


def trainable(model: PyTree) -> PyTree:
    """Which leaves of a model are trained: True for floating-point arrays except the initial states
    of recurrent layers, which have no gradient.

    Use it as a filter for `eqx.filter` and `eqx.partition`, and as the `mask` of optimizers with
    weight decay, which would otherwise shrink the initial states:
    `optax.adamw(1e-3, mask=trainable)`.
    """

    def of(node):
        leaves = jax.tree.map(eqx.is_inexact_array, node)
        return eqx.tree_at(lambda cell: cell.start, leaves, False) if _is_cell(node) else leaves

    return jax.tree.map(of, model, is_leaf=_is_cell)


def _is_cell(node) -> bool:
    return isinstance(node, Cell)


class ORGaNICs(eqx.Module):
    r"""A recurrent layer: circuits whose input gains are gated, advanced by Euler steps.

    At every step, with all right-hand sides at the old state and a learned `dt / tau` per neuron,

        tau_y  dy/dt  = -y  + b (W_zx x) + (1 - sqrt(a)) (W_r relu(y))
        tau_a  da/dt  = -a  + (b0 sigma)^2 + W (relu(y)^2 a)
        tau_b0 db0/dt = -b0 + sigmoid(W_b0x x + W_b0y y + W_b0a a)
        tau_b  db/dt  = -b  + sigmoid(W_bx x + W_by y + W_ba a)

    and the output is `y`. For constant gains the first two lines are a `Circuit`, which
    `circuit_at` returns.

    Arguments
        input_size, hidden_size: m and n.
        rectified: as above; False is the main model, with `y` in place of `relu(y)`.
        recurrent: "free"; "identity", `W_r = I`; or constrained by parameterisation: "bounded",
            spectral norm at most 1, or "semidefinite", symmetric with eigenvalues in [0, 1]. With
            "semidefinite", as with the identity, y is stable for any constant `a > 0`, because the
            eigenvalues of `D(1 - sqrt(a)) W_r` are those of a symmetric matrix and below 1. An
            eigenvalue -1 of `W_r` makes y grow where `a > 4`. Or "orthogonal", which keeps the norm
            of what it turns, so that activity may go round for many steps; not rectified, and with
            small `sigma` and `initial_normalization`.
        time_constants: "learned" for each neuron; "fixed"; or "modulated", learned and moved by the
            input and the potentials, `dt / tau = largest * sigmoid(raw + T_x x + T_y y + T_a a)`
            for y, a, b0 and b, with the largest ratios below. "modulated-y" moves only those of y,
            which is enough to hold a value, with 8 n^2 products a step instead of 14 n^2. So has
            "modulated-together", where all four rates of a neuron have the same `T_x`, `T_y` and
            `T_a`. These begin at 0. Where y alone is slowed down and is above 1, a may grow until
            it overflows; not where all are slowed down together.
        layers: circuits on top of each other, each fed by the `y` of the one below.
        rectification: of the recurrent input in the rectified model. "inside", `W_r relu(y)`, is
            the paper's equation and the `Circuit` that the library certifies; "outside",
            `relu(W_r y)`, is the paper's published code. For the identity they are the same.
        drive: "signed", `W_zx x` as in the equation; "rectified", `relu(W_zx x)` as in the
            published code, where for `x >= 0` a neuron with negative weights is silent; or "unit",
            `W_zx x` scaled down to norm 1 where it is larger, so that large inputs do not make the
            Euler steps unstable.
        sigma: semi-saturation constant, fixed.
        initial_normalization: the largest entry of `W` before training, in (0, 1]. A small one
            leaves `y` as it is, until training has made use of `W`.
        dt: duration of a step, in ms. It only sets the unit of the time constants.
        dt_tau_max_y, dt_tau_max_a, dt_tau_max_gates: the largest ratios of step size to time
            constant, in (0, 1]. The defaults are those of the paper's code, for 784 steps. Before
            training, memory reaches back about `1 / dt_tau_max` steps, so shorter sequences need
            larger values (see docs/how-to/steps.md).
        initial_time_constants: the least and the largest initial time constant of y, in steps,
            spread log-uniformly over the neurons, for memories of as many steps; those of a, b0 and
            b then begin below 5 steps. Needs `dt_tau_max_y` above 1 over the least, and the other
            two above 0.25. By default `raw` is drawn as in the paper's code.
        backend: "auto", "native" or "scan"; see `organics.kernels.recurrence`. Forward-mode
            derivatives (`jax.jvp`, `jax.jacfwd`), second derivatives (`jax.hessian`) and
            `jax.export` need "scan": on a CPU "auto" is usually "native", which only has gradients
            (`jax.grad`, `jax.jacrev`).
        memory: "more", or "less": training then takes longer, but memory grows only with the square
            root of the number of steps.
        products: "full", or "bfloat16", for float32 only: the factors of all matrix products,
            weights and what they multiply, are rounded to 8 bits, also on the way back; sums,
            states and the weights that are trained stay in float32. Quicker where the processor
            has such products (`organics info`: amx or avx512bf16), the same numbers up to the
            rounding of sums everywhere. What is linearized is not rounded. See docs/speed.md.
        dtype: of the parameters; JAX's default float if not given.

    Raises `ValueError`, naming the argument, for a value other than these.

    Source: Rawat et al. 2024, the discretised ORGaNICs with learned gains; their initialisation.
    """

    cells: tuple[Cell, ...]
    options: Options = eqx.field(static=True)
    dt: float = eqx.field(static=True)
    backend: Backend = eqx.field(static=True)
    memory: Memory = eqx.field(static=True)
    built: Built = eqx.field(static=True, repr=False)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        key: "PRNGKeyArray",
        rectified: bool = True,
        recurrent: Recurrence = "free",
        time_constants: TimeConstants = "learned",
        layers: int = 1,
        rectification: Rectification = "inside",
        drive: Drive = "signed",
        sigma: float = 1.0,
        initial_normalization: float = 1.0,
        dt: float = 1.0,
        dt_tau_max_y: float = 0.01,
        dt_tau_max_a: float = 0.01,
        dt_tau_max_gates: float = 0.1,
        initial_time_constants: tuple[float, float] | None = None,
        backend: Backend = "auto",
        memory: Memory = "more",
        products: ProductType = "full",
        dtype: "DTypeLike | None" = None,
    ):
        require_sizes(input_size=input_size, hidden_size=hidden_size, layers=layers)
        require_positive(sigma=sigma, dt=dt)
        require_flag("rectified", rectified)
        require_among("recurrent", recurrent, Recurrence)
        require_among("time_constants", time_constants, TimeConstants)
        require_among("rectification", rectification, Rectification)
        require_among("drive", drive, Drive)
        kind = float_type(dtype)
        require_squares(kind, sigma=sigma)
        execution = require_execution(backend, memory, products, kind)
        self.backend, self.memory, products = execution
        largest = {
            "dt_tau_max_y": dt_tau_max_y,
            "dt_tau_max_a": dt_tau_max_a,
            "dt_tau_max_gates": dt_tau_max_gates,
        }
        require_share(initial_normalization=initial_normalization, **largest)
        sizes = (input_size, *[hidden_size] * layers)
        most_y, most_a, most_gates = map(float, largest.values())
        rates = most_y, most_a, most_gates, most_gates
        spread = _as_spread(initial_time_constants, time_constants, largest, kind)
        chosen = _Rates(rates, time_constants, spread)
        self.cells = tuple(
            Cell(
                m, n, recurrent, drive, chosen, float(sigma), float(initial_normalization),
                key=k, dtype=kind,
            )
            for m, n, k in zip(sizes, sizes[1:], jr.split(key, layers), strict=False)
        )  # fmt: skip
        self.options = Options(
            rectified=rectified,
            rectified_after=rectification == "outside" and recurrent != "identity",
            rectified_drive=drive == "rectified",
            products=products,
        )
        self.dt = float(dt)
        self.built = as_built(self)

    @property
    def input_size(self) -> int:
        """Numbers per step, m."""
        return self.cells[0].W_zx.shape[1]

    @property
    def hidden_size(self) -> int:
        """Number of principal neurons of each circuit, n."""
        return self.cells[0].size

    @property
    def products(self) -> ProductType:
        """Numbers that matrix products are of."""
        return self.options.products

    @property
    def _dtype(self) -> jnp.dtype:
        return self.cells[0].log_W.dtype

    def initial_state(self) -> tuple[CellState, ...]:
        """The state before the first step, of each circuit from the bottom up; arrays (n,)."""
        return tuple(cell.initial_state() for cell in self.cells)

    def __call__(
        self,
        x: Float[Array, "*batch time m"],
        state: tuple[CellState, ...] | None = None,
        *,
        sequence: bool = True,
        lengths: Lengths | None = None,
    ) -> tuple[Float[Array, "..."], tuple[CellState, ...]]:
        """The `y` of the topmost circuit, and the final state of all.

        `x` has shape (time, m) or (batch, time, m). The outputs have shape (time, n) or (batch,
        time, n); with `sequence=False` only the last output is stored and returned, (n,) or (batch,
        n). `state` is the final state of an earlier call, by default `initial_state()`: a sequence
        given in parts gives the same results as the whole.

        `lengths` is the number of steps of each sequence, (batch,), or one number for (time, m).
        The final state is that after the last of these steps; later outputs are 0. Later entries of
        `x`, even NaN, affect neither values nor gradients.

        Under `jax.vmap` the native backend treats mapped sequences as a larger batch, and computes
        mapped layers side by side.

        Raises `ValueError` if `x`, `state` or `lengths` has the wrong shape or type; if (unless
        traced) `x` or `state` is not finite or a length not from 1 to the number of steps; or if
        the layer's arrays no longer match its options.
        """
        require_as_built(self, self.built)
        given = as_sequences(x, lengths, self.input_size, self._dtype)
        packed = self._pack(state, given.batch, given.batched)
        final = []
        outputs: Array | None = given.steps
        for i, (cell, packed_state) in enumerate(zip(self.cells, packed, strict=True)):
            assert outputs is not None  # only the topmost circuit may omit them
            wanted = sequence or i + 1 < len(self.cells)
            last, outputs = recurrence.run(
                self.options,
                cell.weights(),
                cell.inputs(outputs),
                packed_state,
                given.lengths,
                sequence=wanted,
                backend=self.backend,
                memory=self.memory,
            )
            final.append(_unpack(last, given.batched))
        if not sequence:
            return final[-1].y, tuple(final)
        assert outputs is not None
        return given.as_called(outputs), tuple(final)

    def step(
        self, x: Float[Array, "*batch m"], state: tuple[CellState, ...]
    ) -> tuple[CellState, ...]:
        """The state one Euler step after `state`, with the input `x`, (m,) or (batch, m).

        Raises `ValueError` as the call does.
        """
        require_as_built(self, self.built)
        rows, batched = as_rows(x, self.input_size, self._dtype)
        after = []
        for cell, before in zip(self.cells, self._pack(state, rows.shape[0], batched), strict=True):
            weights = cell.weights()
            projected = project(self.options, weights, cell.inputs(rows)[None])[0]
            packed = step(self.options, weights, projected, before)
            after.append(_unpack(packed, batched))
            rows = packed[:, : cell.size]
        return tuple(after)

    def monitor(self) -> dict[str, Float[Array, ""]]:
        """Spectral radius and norm of `W_r`, and norm of `W_zx`, each the largest over the
        circuits.

        Computed by repeated squaring, on any device; relative accuracy about 0.1 % for the radius
        (not of a matrix so far from normal that rounding changes its eigenvalues), 0.01 % for the
        norms.
        """
        require_as_built(self, self.built)
        matrices = [cell.recurrent for cell in self.cells]
        found = [
            jnp.eye(c.size, dtype=c.log_W.dtype) if W is None else W
            for W, c in zip(matrices, self.cells, strict=True)
        ]
        radii = [_spectral_radius(W) for W in found]
        norms = [_spectral_norm(W) for W in found]
        inputs = [_spectral_norm(cell.W_zx) for cell in self.cells]
        return {
            "recurrent_spectral_radius": jnp.max(jnp.stack(radii)),
            "recurrent_spectral_norm": jnp.max(jnp.stack(norms)),
            "input_spectral_norm": jnp.max(jnp.stack(inputs)),
        }

    def diagnose(
        self, x: Float[Array, "batch time m"], lengths: Int[Array, " batch"] | None = None
    ) -> dict[str, int | float]:
        """Measures of the states on some sequences, of these `lengths` or whole: the largest
        spectral abscissa (largest real part of the eigenvalues of the Jacobian of all equations, in
        1/ms) and the largest magnitude of the eigenvalues of an Euler step, over `spectral_moments`
        moments (at most 64, and as many as take about the time of a training step on these
        sequences); and the least, median and largest time constants of y, a, b0 and b over the
        neurons, in steps, without modulation. Values that overflow are not finite. The first two
        are only a diagnostic: along a transient no stability follows from them.
        """
        x = as_input(x, ("batch", "time", self.input_size), further="")
        lengths = as_lengths(lengths, x.shape[:-1])
        affordable = x.shape[0] * x.shape[1] // (_STEPS_PER_NEURON * self.hidden_size)
        moments = max(1, min(affordable, _MOST_MOMENTS, len(x)))
        abscissae, radii = spectra(
            self, x[:moments], None if lengths is None else lengths[:moments]
        )
        found = {
            "spectral_moments": moments,
            "largest_spectral_abscissa": float(abscissae.max()),
            "largest_step_radius": float(radii.max()),
        }
        with np.errstate(divide="ignore"):  # a rate that underflows to 0: infinite time constant
            steps = np.concatenate([1 / np.asarray(cell.rates) for cell in self.cells], axis=1)
        for name, values in zip(CellState._fields, steps, strict=True):
            found[f"tau_{name}_min"] = float(values.min())
            found[f"tau_{name}_median"] = float(np.median(values))
            found[f"tau_{name}_max"] = float(values.max())
        return found

    def _pack(
        self, state: tuple[CellState, ...] | None, batch: int, batched: bool
    ) -> list[Float[Array, "batch four_n"]]:
        """The state of each circuit as the kernels take it; the initial state by default."""
        state = self.initial_state() if state is None else state
        if not isinstance(state, tuple | list) or isinstance(state, CellState):
            raise ValueError(
                "`state` must be a tuple with one `CellState` for each circuit, not one of type "
                f"{type(state).__name__}."
            )
        if len(state) != len(self.cells):
            raise ValueError(
                f"`state` must have one part for each of the {len(self.cells)} circuits, "
                f"not {len(state)}."
            )
        size = self.hidden_size
        for i, cell_state in enumerate(state):
            if not isinstance(cell_state, tuple) or len(cell_state) != len(CellState._fields):
                raise ValueError(f"`state[{i}]` must be a `CellState`, not {cell_state!r}.")
            for name, part in zip(CellState._fields, cell_state, strict=True):
                require_state(
                    f"state[{i}].{name}", part, (size,), self._dtype, batch if batched else None
                )
        return [
            jnp.concatenate([jnp.broadcast_to(part, (batch, size)) for part in parts], axis=-1)
            for parts in state
        ]


def _as_spread(
    given: tuple[float, float] | None,
    time_constants: TimeConstants,
    largest: dict[str, float],
    dtype: np.dtype,
) -> tuple[float, float] | None:
    """`initial_time_constants`, checked."""
    name = "`initial_time_constants`"
    if given is None:
        return None
    if time_constants == "fixed":
        raise ValueError(f"{name} must not be given where `time_constants` is 'fixed'.")
    try:
        least, most = (float(value) for value in given)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be two numbers of steps, not {given!r}.") from None
    shortest = 1 / largest["dt_tau_max_y"]
    further = dtype.type(largest["dt_tau_max_y"] * least) > 1  # in the layer's type, too
    if not (shortest < least <= most < math.inf and further):
        raise ValueError(
            f"{name} must be two numbers of steps, the first above 1 / dt_tau_max_y = "
            f"{shortest:g} in {dtype} and at most the second, not {given}."
        )
    for other in ("dt_tau_max_a", "dt_tau_max_gates"):
        if not largest[other] > _SHORTEST / _LONGEST:
            raise ValueError(
                f"`{other}` must be above {_SHORTEST / _LONGEST:g} with `initial_time_constants`, "
                f"as a, b0 and b then begin below {_LONGEST:g} steps, not {largest[other]}."
            )
    return least, most


def _unpack(packed: Float[Array, "batch four_n"], batched: bool) -> CellState:
    return CellState(*jnp.split(packed if batched else packed[0], 4, axis=-1))


def _spectral_norm(W: Float[Array, "n m"]) -> Float[Array, ""]:
    W, largest = _scaled(W)
    return largest * jnp.sqrt(_spectral_radius(W.T @ W if W.shape[1] < W.shape[0] else W @ W.T))


_SQUARINGS = 12


def _spectral_radius(W: Float[Array, "n n"]) -> Float[Array, ""]:
    """By the norms of the powers 2^11 and 2^12, whose ratio grows with the radius alone; scaled at
    first and at each squaring so that nothing overflows."""
    W, largest = _scaled(jax.lax.stop_gradient(W))
    tiny = jnp.asarray(np.finfo(W.dtype).tiny, W.dtype)

    def square(carry, _):
        power, log = carry
        norm = jnp.maximum(jnp.linalg.norm(power), tiny)
        power, log = power / norm, log + jnp.log(norm)
        return (power @ power, 2 * log), log

    start = W, jnp.zeros((), W.dtype)
    _, logs = jax.lax.scan(square, start, length=_SQUARINGS + 1)
    return largest * jnp.exp((logs[-1] - logs[-2]) / 2 ** (_SQUARINGS - 1))


def _scaled(W: Float[Array, "n m"]) -> tuple[Float[Array, "n m"], Float[Array, ""]]:
    """A matrix over its largest entry, and that; 1 for a matrix of zeros."""
    largest = jnp.max(jnp.abs(W))
    largest = jnp.where(largest > 0, largest, 1)
    return W / largest, largest


def require_recurrent(layer: Any) -> None:
    """Refuse what is not a layer of circuits."""
    if not isinstance(layer, ORGaNICs):
        raise ValueError(f"`layer` must be an `ORGaNICs`, not {type(layer).__name__}.")
