"""Waves on a uniform circuit: the eigenvalues of a circuit that is the same everywhere.

On a ring or torus whose weights, drives and parameters do not depend on position, there is a state
that does not, either. It is the steady state of the circuit of one site, whose weights are the sums
of the kernels. Around it waves of different lengths do not interact: the Jacobian of `n` positions
and `c` channels falls apart into one 2c x 2c matrix for each wave, with the factors by which the
kernels multiply it, `w_r` and `w`, in place of `W_r` and `W`. With one channel its trace and
determinant are

    trace = -A / tau_y - N / tau_a,    tau_y tau_a det = A N + w_r(0) w s y^2,
    A = 1 - (1 - s) w_r,    N = 1 - w y^2,    s = sqrt(a),

so that a still pattern begins to grow where the determinant vanishes (Turing), and an oscillating
one where the trace does (Hopf), whichever comes first.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Bool, Complex, Float

from organics.circuit.circuit import Circuit, State, as_drive
from organics.circuit.values import Values
from organics.circuit.weights import Convolution, Weights
from organics.linear.jacobian import descending
from organics.linear_stability.kinks import of_open_sign
from organics.printing import Lines, in_html, in_words, numbers, verdict
from organics.rest.point import OperatingPoint
from organics.rest.search import steady_state

_NONE: dict[str, Any] = {"turing": None, "hopf": None}


class Wave(NamedTuple):
    """A wave and what becomes of it while it is small.

    Attributes
        periods: how often it repeats over the height and over the width of the torus; the first
            that is not 0 is positive.
        wavelength: in neurons; infinite for the uniform state.
        rate: at which it grows, in 1/ms; negative if it decays.
        frequency: with which it oscillates at a place, in kHz.
        speed: of its crests, in neurons per ms, positive towards larger positions along `periods`;
            0 if it does not oscillate, or for the uniform state. On symmetric weights the wave in
            the opposite direction grows as fast, and both may add up to a standing one; the speed
            is then positive.
    """

    periods: tuple[int, int]
    wavelength: float
    rate: float
    frequency: float
    speed: float

    @property
    def kind(self) -> str:
        """What it becomes if it grows: "turing", a still pattern; "wave", one that oscillates, from
        a Hopf point at a finite wavelength; "rhythm", all neurons oscillating together, or
        "uniform", all of them leaving the state together, for the uniform state.
        """
        if np.isinf(self.wavelength):
            return "rhythm" if self.frequency else "uniform"
        return "wave" if self.frequency else "turing"


class Dispersion(NamedTuple):
    """The eigenvalues of a uniform circuit for each wave, and where patterns begin.

    Attributes
        point: the circuit of one site at rest, with c neurons, one for each channel.
        periods: how often each wave repeats over the height and over the width, negative for the
            opposite direction; shape (height, width, 2), ordered as in `numpy.fft.fft2`.
        eigenvalues: of each wave, by falling real part, in 1/ms; shape (height, width, 2c).
        turing, hopf: for one channel at rest with symmetric weights, the factor `w_r` of each wave
            at which its determinant or its trace vanishes: the wave grows if its own `w_r` is
            beyond (above, for `sqrt(a) < 1`) the nearer of both. Infinite where `sqrt(a) = 1`.
            Shape (height, width); else `None`.
    """

    point: OperatingPoint
    periods: Float[np.ndarray, "height width 2"]
    eigenvalues: Complex[np.ndarray, "height width two_c"]
    turing: Float[np.ndarray, "height width"] | None
    hopf: Float[np.ndarray, "height width"] | None

    @property
    def spectral_abscissa(self) -> float:
        """Largest real part of all, in 1/ms: that of the large circuit at its uniform state."""
        return float(np.real(self.eigenvalues).max())

    @property
    def stable(self) -> bool:
        """Whether the uniform state is a steady state and all waves decay. False where that is not
        known: if a channel of the rectified model is at `y = 0`, where the equations have a kink.
        """
        decays = self.spectral_abscissa < 0 and not self.at_kink
        return bool(self.point.converged) and decays

    @property
    def at_kink(self) -> bool:
        """Whether a channel of the rectified model is at `y = 0`."""
        site, z, state = self.point.system, self.point.z, self.point.state
        return site.rectified and bool(np.any(of_open_sign(site, z, state)))

    @property
    def wavenumbers(self) -> Float[np.ndarray, "height width"]:
        """Of each wave, in periods per neuron."""
        return np.linalg.norm(self.periods / self.eigenvalues.shape[:2], axis=2)

    @property
    def oscillates(self) -> Bool[np.ndarray, "height width"]:
        """Whether the fastest eigenvalue of each wave has an imaginary part, beyond rounding."""
        size = np.max(np.abs(self.eigenvalues), axis=2)
        imaginary = np.abs(np.imag(self.eigenvalues[:, :, 0]))
        return imaginary > _rounding(self.point.system) * size

    @property
    def leading(self) -> Wave:
        """The wave that grows fastest, or decays most slowly."""
        row, column = np.unravel_index(
            np.argmax(np.real(self.eigenvalues[:, :, 0])), self.eigenvalues.shape[:2]
        )
        rate = float(self.eigenvalues[row, column, 0].real)
        per_neuron = float(self.wavenumbers[row, column])
        # in cycles per ms; 0, not -0, of what stands still
        turns = float(self.eigenvalues[row, column, 0].imag) / (2 * np.pi)
        turns = turns if self.oscillates[row, column] else 0.0
        periods = (int(self.periods[row, column, 0]), int(self.periods[row, column, 1]))
        if periods < (0, 0):  # the same wave is that of the opposite periods, turning the other way
            periods, turns = (-periods[0], -periods[1]), -turns
        return Wave(
            periods=periods,
            wavelength=1 / per_neuron if per_neuron else float("inf"),
            rate=rate,
            frequency=abs(turns),
            speed=self._speed(self.eigenvalues[row, column], turns, per_neuron),
        )

    def _speed(self, here: Complex[np.ndarray, " two_c"], turns: float, per_neuron: float) -> float:
        """Of a wave with these eigenvalues; of two that mirror each other, that of either."""
        if not turns or not per_neuron:
            return 0.0
        return (abs(turns) if self._is_mirrored(here) else -turns) / per_neuron

    def _is_mirrored(self, here: Complex[np.ndarray, " two_c"]) -> bool:
        """Whether the wave in the opposite direction grows as fast, up to rounding."""
        apart = np.min(np.abs(here - here[0].conj()))
        return bool(apart <= _rounding(self.point.system) * np.max(np.abs(here)))

    @property
    def travels(self) -> bool:
        """Whether the leading wave moves, and its mirror image grows more slowly or not at all; if
        this is false and it oscillates, both may add up to a standing wave."""
        wave = self.leading
        if not wave.speed:
            return False
        height, width, _ = self.eigenvalues.shape
        here = self.eigenvalues[wave.periods[0] % height, wave.periods[1] % width]
        return not self._is_mirrored(here)

    def lines(self) -> Lines:
        """The result as a verdict and lines of text."""
        wave = self.leading
        rows = (
            ("largest real part", numbers(self.spectral_abscissa, "1/ms")),
            ("wavelength", numbers(wave.wavelength, "neurons")),
            ("frequency", numbers(1000 * wave.frequency, "Hz")),
        )
        words = verdict(
            self.stable, "the uniform state is stable", "the uniform state is NOT stable"
        )
        return Lines(words, rows + self.point.lines().rows)

    def __str__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        return in_html(self)


def dispersion(
    circuit: Circuit, z: 'Float[ArrayLike, " n"]', *, start: State | None = None
) -> Dispersion:
    """The eigenvalues of a circuit that is the same at every position, at its uniform state, wave
    by wave: those of the whole Jacobian, in the time of a Fourier transform.

    `W`, and `W_r` unless it is the identity, are `Convolution`s with `border="periodic"`; drive,
    gains and time constants are the same at all positions of a channel. `start` is a state of one
    site, shape (c,), to search from, where there may be several.

    Source: as Turing 1952, with the two populations of Rawat et al. 2024.

    Raises `ValueError` if the circuit or `z` is not as above.
    """
    if not isinstance(circuit, Circuit):
        raise ValueError(f"`circuit` must be a `Circuit`, not {circuit!r}.")
    image = _image(circuit)
    sites = image.height * image.width
    drive = _of_site("z", as_drive(circuit, z), sites)
    transfers = [_transfer(name, w, image) for name, w in _weights(circuit)]
    one = Circuit(
        W=transfers[0][0, 0].real.astype(circuit.dtype),
        W_r=None if len(transfers) == 1 else transfers[1][0, 0].real.astype(circuit.dtype),
        rectified=circuit.rectified,
        **{
            name: _of_site(name, getattr(circuit, name), sites)
            for name in ("b", "b0", "sigma", "tau_y", "tau_a")
        },
    )
    point = steady_state(one, drive, start=start)
    pool = transfers[0]
    recurrent = transfers[1] if len(transfers) == 2 else np.eye(image.channels)[None, None]
    J = _jacobians(one, point.state, pool, np.broadcast_to(recurrent, pool.shape))
    down, across = (np.fft.fftfreq(k, 1 / k) for k in (image.height, image.width))
    return Dispersion(
        point=point,
        periods=np.stack(np.meshgrid(down, across, indexing="ij"), axis=-1),
        eigenvalues=descending(np.linalg.eigvals(J)),
        **(_onsets(one, point.state, pool, recurrent) if bool(point.converged) else _NONE),
    )


def _rounding(circuit: Circuit) -> float:
    """Of eigenvalues and transfers, relative to the largest, with room."""
    return 1e-9 if circuit.dtype == np.float64 else 1e-5


def _weights(circuit: Circuit) -> list[tuple[str, Weights]]:
    both = [("W", circuit.pool)]
    return both if circuit.has_identity_recurrence else [*both, ("W_r", circuit.recurrent)]


def _image(circuit: Circuit) -> Convolution:
    for name, weights in _weights(circuit):
        if not isinstance(weights, Convolution) or weights.border != "periodic":
            raise ValueError(
                f'`{name}` must be a `Convolution` with `border="periodic"`, so that the circuit '
                "is the same everywhere, not "
                + {"Convolution": '`border="zeros"`.', "Dense": "a matrix."}.get(
                    type(weights).__name__, f"{type(weights).__name__}."
                )
            )
    assert isinstance(circuit.W, Convolution)
    return circuit.W


def _transfer(name: str, weights: Weights, image: Convolution) -> np.ndarray:
    """The factors of each wave as matrices, (height, width, channels, channels)."""
    assert isinstance(weights, Convolution)
    size = weights.channels, weights.height, weights.width
    if size != (image.channels, image.height, image.width):
        raise ValueError(
            f"`{name}` must be on the image of `W`, {image.channels} x {image.height} x "
            f"{image.width}, not on {' x '.join(map(str, size))}."
        )
    waves = np.moveaxis(np.asarray(weights.transfer(), complex), (0, 1), (2, 3))
    return waves if waves.shape[2:] == (image.channels,) * 2 else waves * np.eye(image.channels)


def _of_site(name: str, values: Values, sites: int) -> np.ndarray:
    each = np.asarray(values, np.float64).reshape(-1, sites)
    differs = np.max(np.abs(each - each[:, :1]), axis=1)
    if np.any(differs > 1e-6 * np.abs(each[:, 0])):
        raise ValueError(
            f"`{name}` must be the same at all positions of a channel, as waves interact "
            "otherwise: use `stability`, or `organics analyze`."
        )
    return np.asarray(values).reshape(-1, sites)[:, 0]


def _jacobians(circuit: Circuit, state: State, pool: np.ndarray, recurrent: np.ndarray):
    """One matrix for each wave, shape (height, width, 2c, 2c)."""
    a, q = (np.asarray(part, np.float64) for part in (state.a, circuit.rectify(state.y)))
    s, one = np.sqrt(a), np.eye(len(a))
    heard = recurrent[0, 0].real @ q
    active = np.asarray(circuit.active(state.y), np.float64)
    tau_y, tau_a = (np.asarray(tau, np.float64)[:, None] for tau in circuit.time_constants)
    from_a = np.broadcast_to(-np.diag(heard / (2 * s)) / tau_y, pool.shape)
    rows = [
        [((1 - s)[:, None] * recurrent * active - one) / tau_y, from_a],
        [2 * pool * (a * q) / tau_a, (pool * q**2 - one) / tau_a],
    ]
    return np.concatenate([np.concatenate(row, axis=-1) for row in rows], axis=-2)


def _onsets(circuit: Circuit, state: State, pool: np.ndarray, recurrent: np.ndarray) -> Any:
    size = np.max(np.abs(pool))
    least = _rounding(circuit)
    symmetric = np.all(np.abs(np.imag(pool)) <= least * size)
    symmetric &= np.all(np.abs(np.imag(recurrent)) <= least * np.max(np.abs(recurrent)))
    if circuit.n > 1 or not symmetric or bool(np.any(circuit.active(state.y) == 0)):
        return _NONE
    y, a = (float(part[0]) for part in state)
    s, w = np.sqrt(a), np.real(pool[:, :, 0, 0])
    N = 1 - w * y**2
    ratio = float(circuit.tau_y[0] / circuit.tau_a[0])
    with np.errstate(divide="ignore"):
        return {
            "turing": (1 + recurrent[0, 0, 0, 0].real * w * s * y**2 / N) / np.float64(1 - s),
            "hopf": (1 + ratio * N) / np.float64(1 - s),
        }
