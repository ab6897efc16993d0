"""`organics simulate`"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from organics.cli.answer import Answer, note
from organics.cli.circuits import (
    FIGURES,
    about,
    check_correlation_time,
    check_noise,
    check_outputs,
    describe,
    is_hierarchy,
    load,
    one_drive,
)
from organics.machine.memory import require_memory
from organics.names import Method
from organics.printing import numbers
from organics.settings import Needs

_STEP = 0.02  # ms, with noise
_MOST_SAMPLES = 10_000_000
_BYTES = 170  # for each number of an answer in JSON; as text it takes a quarter
_FINEST = 20_001  # times used to detect a rhythm
_SEEN = 1.0  # ms: changes of the drive that far apart are not missed, see `simulate`


@dataclass(frozen=True)
class Simulate:
    """Trajectory of a circuit or hierarchy under an input drive, with or without noise, and where
    it ends.

    The drive is one of the file's, changed by --step, or comes from a table.

    Example: organics simulate examples/figure3b.json --step 50:2 --out trajectory.png values.csv
    """

    file: Annotated[Path, tyro.conf.Positional]
    """Circuit file, .json or .npz."""
    drive: int = 0
    """Which of the file's input drives, from 0."""
    drive_table: Path | None = None
    """A .csv file with the drive: times in ms, then a column for each neuron; linear between the
    times, constant beyond them."""
    step: tuple[str, ...] = ()
    """TIME:FACTOR: from TIME (ms) on, the drive is FACTOR times the original one."""
    initial: tuple[str, ...] = ("rest",)
    """Initial state: "rest" (of the circuit without input), "steady" (under the initial drive), or
    2n numbers, all y and then all a (of a hierarchy, area by area; in the published form 4n, p and
    t last)."""
    duration: float = 100.0
    """Simulated time in ms."""
    samples: int = 201
    """Number of evenly spaced times to report, including both ends."""
    method: Method = "explicit"
    """Solver without noise; "implicit" is for stiff circuits."""
    max_steps: Annotated[int, Needs("from 1", lambda value: value >= 1)] = 1_000_000
    """Give up after so many steps, without noise."""
    noise: float = 0.0
    """Level of additive noise in the principal neurons."""
    noise_a: float = 0.0
    """Level of additive noise in the modulator neurons; it must not push `a` below 0."""
    tau_f: float | None = None
    """Correlation time of the noise in ms: it is low-pass filtered; white by default."""
    dt: float | None = None
    """Largest step with noise, in ms; 0.02 by default. Without noise the steps are chosen by their
    errors."""
    seed: int = 0
    """Seed of the noise."""
    check: bool = False
    """Exit with 1 unless the trajectory ends at rest: each equation balances to 1e-4 of its
    terms."""
    out: tuple[Path, ...] = ()
    """Files to write: a figure (.png, .svg, .pdf), or the values (.csv, .npz)."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        self._require()
        from organics.cli.courses import Course, steps, table

        changes = steps(self.step, self.duration)
        ((circuit, drives),) = load(self.file)
        import numpy as np

        from organics.circuit.areas import joined

        drive = np.asarray(one_drive(drives, self.drive))[None]
        over_time = (np.zeros(1), drive)
        if self.drive_table is not None:
            over_time = table(self.drive_table, circuit.n)
        course = Course(*over_time, *changes)
        longest = min(self._longest, course.shortest)
        self._require_memory(len(joined(circuit.time_constants)), longest)
        first, last = course(0.0), course(self.duration)
        start = _start(circuit, first, self.initial)
        if self.noise or self.noise_a:
            drive = first if course.constant else course
            result, comes_to = self._noisy(circuit, drive, start, longest)
        else:
            result, comes_to = self._smooth(circuit, course, start)
        constant = course.last_change(self.duration) <= self.duration
        return self._answer(circuit, last, result, comes_to, constant)

    def _require(self) -> None:
        check_outputs(self.out, (*FIGURES, ".csv", ".npz"), [self.file, self.drive_table])
        if not 0 < self.duration < float("inf"):
            raise ValueError(f"`duration` must be finite and > 0 ms, not {self.duration}.")
        if not 2 <= self.samples <= _MOST_SAMPLES:
            raise ValueError(f"`samples` must be from 2 to {_MOST_SAMPLES:,}, not {self.samples}.")
        check_noise(noise=self.noise, noise_a=self.noise_a)
        check_correlation_time(self.tau_f)
        if self.tau_f is not None and not (self.noise or self.noise_a):
            raise ValueError(f"`tau_f` must be left out without noise, not {self.tau_f}.")
        solver = self.method, self.max_steps
        if (self.noise or self.noise_a) and solver != (Simulate.method, Simulate.max_steps):
            raise ValueError("`method` and `max_steps` must be left out with noise.")
        if self.drive_table is not None and self.drive != Simulate.drive:
            raise ValueError(f"`drive` must be left out with a table, not {self.drive}.")
        if self.dt is not None and not 0 < self.dt < float("inf"):
            raise ValueError(f"`dt` must be finite and > 0 ms, not {self.dt}.")
        if self.dt is not None and not (self.noise or self.noise_a):
            raise ValueError(
                f"`dt` must be left out without noise, not {self.dt}: the steps are then chosen by "
                "their errors, and cannot be unstable."
            )

    @property
    def _longest(self) -> float:
        return _STEP if self.dt is None else self.dt

    def _require_memory(self, m: int, longest: float) -> None:
        samples = f"a trajectory of {self.samples:,} samples"
        require_memory(_BYTES * self.samples * (1 + m), "samples", samples)
        if self.noise or self.noise_a:
            steps = self.duration / longest
            require_memory(8 * steps * m, "dt", f"the noise of {steps:.3g} steps")

    def _noisy(self, circuit, drive, start, longest: float):
        import warnings

        import jax.random as jr

        from organics.simulation.noise import Noise, simulate_noisy

        interval = self.duration / (self.samples - 1)
        save_every = math.ceil(interval / longest)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            result = simulate_noisy(
                circuit,
                drive,
                Noise(self.noise, self.noise_a, tau_f=self.tau_f),
                interval / save_every,
                save_every * (self.samples - 1),
                start,
                key=jr.key(self.seed),
                save_every=save_every,
            )
        for warning in said:
            note(f"organics: {warning.message}")
        return result, None

    def _smooth(self, circuit, course, start):
        """The trajectory at more times than are reported, and where it ends."""
        import numpy as np

        from organics.circuit.areas import joined
        from organics.simulation.ode import DIVERGENCE, NONE, reasons, require_ok, simulate
        from organics.simulation.settling import Settling, settling

        fastest = float(joined(circuit.time_constants).min()) / 2
        times = _Times(self.duration, self.samples, fastest)
        drive = course(0.0) if course.constant else course
        options: dict[str, Any] = {"method": self.method, "max_steps": self.max_steps}
        if course.shortest < _SEEN:
            options["max_step"] = course.shortest
        result = simulate(circuit, drive, times.all, start, throw=False, **options)
        if int(result.failure) not in (NONE, DIVERGENCE):
            require_ok(result, reasons(result, self.method, self.max_steps))
        since = course.last_change(self.duration)
        comes_to = None
        if int(result.failure) == DIVERGENCE:
            comes_to = Settling("diverges", 0.0)
        elif np.sum(times.all[times.even] >= since) >= 8 and not is_hierarchy(circuit):
            end = course(self.duration)
            comes_to = settling(circuit, end, _rows(result, times.even), since=since)
            if len(times.fine) and comes_to.kind != "rests":
                rhythm = settling(circuit, end, _rows(result, times.fine), since=since)
                kind = comes_to.kind
                if kind in ("oscillates", "moves"):
                    kind = "oscillates" if rhythm.frequency_hz else "moves"
                comes_to = Settling(kind, rhythm.frequency_hz)
        return _rows(result, times.reported), comes_to

    def _answer(self, circuit, z, result, comes_to, constant) -> Answer:
        import jax
        import numpy as np

        from organics.circuit.areas import joined, named
        from organics.rest.system import driven_by
        from organics.simulation.settling import TOLERANCE, unrest

        t, values = np.asarray(result.t), {k: np.asarray(x) for k, x in named(result.state)}
        good = np.all([np.all(np.isfinite(x), axis=1) for x in values.values()], axis=0)
        if not good.any():
            raise ArithmeticError("the first step overflows; try a smaller `initial` or drive.")
        beyond = t[np.argmin(good)] if not good.all() else None
        t, values = t[good], {name: x[good] for name, x in values.items()}
        for path in self.out:
            _write(path, t, values)
        last = jax.tree.map(lambda x: x[len(t) - 1], result.state)
        residual = math.hypot(*np.asarray(joined(circuit.imbalance(last, z))).tolist())
        off = float(unrest(driven_by(circuit, z), joined(last)))
        at_rest = constant and off <= TOLERANCE  # not on its way with a slow drive
        document = about(self.file, circuit) | {
            "z": z,
            "noise": self.noise,
            "noise_a": self.noise_a,
            "tau_f_ms": self.tau_f,
            "t": t,
            **_as_document(result.state, good),
            "residual": residual,
            "at_rest": at_rest,
            "comes_to": None if comes_to is None else comes_to.kind,
            "frequency_hz": comes_to.frequency_hz if comes_to and beyond is None else None,
            "diverges_by_ms": beyond,
        }
        state = comes_to or ("at rest" if at_rest else "moving")
        line = f"after {t[-1]:g} ms: {state} (residual {residual:.2e})"
        if beyond is not None:
            line = f"{state}: beyond all bounds by {beyond:g} ms; the sample at {t[-1]:g} ms is"
        text = [
            f"{self.file}: {describe(circuit)}",
            line,
            *(f"{name} = {numbers(x[-1])}" for name, x in values.items()),
        ]
        return Answer(document, text, at_rest or not self.check, self.out)


def _start(circuit, z, words: tuple[str, ...]) -> Any:
    """The initial state; None for the state of rest without input."""
    import jax.numpy as jnp

    from organics.circuit.areas import joined
    from organics.rest.search import steady_state

    if words == ("rest",):
        return None
    if words == ("steady",):
        steady = steady_state(circuit, z)
        if not steady.converged:
            raise ValueError("`initial` steady: no steady state was found for the first drive.")
        return steady.state
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    m = len(joined(circuit.time_constants))
    if len(values) != m or not all(map(math.isfinite, values)):
        raise ValueError(
            f'`initial` must be "rest", "steady" or {m} numbers, all y and then all a, '
            f"not {' '.join(words)!r}."
        )
    return circuit.split(jnp.asarray(values))


class _Times:
    """Times at which a simulation is saved, and places among them.

    Attributes
        all: the times, in ms.
        reported: places of those that are reported.
        even: places of evenly spaced times, at most `_FINEST` unless more are reported.
        fine: of the last ones, close enough for any rhythm; none if the even ones are.
    """

    def __init__(self, duration: float, samples: int, close: float):
        import numpy as np

        interval = duration / (samples - 1)
        each = min(math.ceil(interval / close), max(_FINEST // (samples - 1), 1))
        even = np.linspace(0, duration, each * (samples - 1) + 1)
        parts = math.ceil(interval / each / close)
        last = min(max(_FINEST // parts, 8), len(even) - 1) if parts > 1 else 0
        first = len(even) - 1 - last
        self.all = np.concatenate(
            [even[:first], np.linspace(even[first], duration, last * parts + 1)]
        )
        at = np.arange(len(even))
        self.even = np.where(at < first, at, first + (at - first) * parts)
        self.all[self.even] = even
        self.reported = self.even[::each]
        self.fine = np.arange(first, len(self.all)) if last else np.arange(0)


def _rows(result, places) -> Any:
    """A trajectory at some of its times."""
    import equinox as eqx
    import jax

    fewer = jax.tree.map(lambda x: x[places], (result.t, result.state))
    return eqx.tree_at(lambda path: (path.t, path.state), result, fewer)


def _as_document(state, good) -> dict[str, Any]:
    """The rows of a trajectory that are good, for `--json`."""
    import numpy as np

    areas = [
        {name: np.asarray(x)[good] for name, x in area._asdict().items()}
        for area in ([state] if hasattr(state, "y") else state)
    ]
    return areas[0] if hasattr(state, "y") else {"areas": areas}


def _write(path: Path, t, values) -> None:
    """Write a figure or the values, depending on the suffix."""
    import numpy as np

    if path.suffix.lower() in FIGURES:
        from organics.plots import save_figure, trajectory

        kinds = [[x for name, x in values.items() if name[0] == kind] for kind in "ya"]
        save_figure(trajectory(t, *(np.concatenate(x, axis=1) for x in kinds)), path)
    else:
        from organics.cli.tables import write_table

        columns = {_column(name): x for name, x in values.items()}
        write_table(path, {"t": t} | columns)


def _column(name: str) -> str:
    """The name of a column: `area2_y` for "y of area 2"."""
    kind, _, area = name.partition(" of area ")
    return f"area{area}_{kind}" if area else kind


COMMANDS = Simulate
