"""`organics dispersion`"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from organics.cli.answer import Answer
from organics.cli.circuits import (
    FIGURES,
    about,
    check_outputs,
    describe,
    load,
    naming_file,
    one_drive,
)
from organics.printing import numbers

_ROWS = 20  # of the table
_POINTS = 41
_KINDS = {
    "turing": "a still pattern (Turing)",
    "wave": "a pattern that oscillates (Hopf, at a finite wavelength)",
    "rhythm": "all neurons oscillate together (Hopf)",
    "uniform": "all neurons leave the state together",
}


@dataclass(frozen=True)
class Dispersion:
    """Which waves grow on a circuit that is the same at every position, and how fast: the
    dispersion relation at its uniform state.

    `W` and `W_r` are convolutions with a periodic border, or `W_r` is the identity; drive, gains
    and time constants are the same at all positions. Over a parameter, from `--from` to `--to`,
    also where waves begin to grow.

    Example: organics dispersion examples/ring_of_waves.json --parameter W_r --from 0 --to 2
    """

    file: Annotated[Path, tyro.conf.Positional]
    """Circuit file, .json."""
    drive: int = 0
    """Which of the file's input drives, from 0."""
    parameter: str | None = None
    """A factor on the drive ("z") or the weights ("W", "W_r"), or an array of equal entries
    ("tau_a")."""
    low: Annotated[float | None, tyro.conf.arg(name="from")] = None
    """Smallest value of the parameter."""
    high: Annotated[float | None, tyro.conf.arg(name="to")] = None
    """Largest value of the parameter."""
    points: int | None = None
    """Number of values of the parameter; by default 41."""
    check: bool = False
    """Exit with 1 unless the uniform state is stable, at all values of the parameter."""
    out: tuple[Path, ...] = ()
    """Files to write: a figure (.png, .svg, .pdf), or the values (.csv, .npz)."""
    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        self._require()
        ((circuit, drives),) = load(
            self.file, only_circuits="areas are not the same at every position"
        )
        z = one_drive(drives, self.drive)
        return self._of_one(circuit, z) if self.parameter is None else self._over(circuit, z)

    def _of_one(self, circuit: Any, z: Any) -> Answer:
        from organics import plots
        from organics.errors import NoSteadyState
        from organics.linear_stability.dispersion import dispersion

        with naming_file(self.file):
            found = dispersion(circuit, z)
        if not found.point.converged:
            residual = float(found.point.residual)
            raise NoSteadyState(
                f"no uniform steady state was found (best residual {residual:.2e})."
            )
        waves, order = _waves(found)
        for path in self.out:
            if path.suffix.lower() in FIGURES:
                drawn = plots.dispersion_curves(found.wavenumbers, found.eigenvalues)
                plots.save_figure(drawn, path)
            else:
                _write(path, waves)
        document = about(self.file, circuit) | {
            "z": found.point.z,
            **_uniform(found),
            "stable": found.stable,
            "spectral_abscissa": found.spectral_abscissa,
            "leading": _as_document(found.leading) | {"travels": found.travels},
            "waves": waves
            | {
                "turing_factor": None if found.turing is None else found.turing.ravel()[order],
                "hopf_factor": None if found.hopf is None else found.hopf.ravel()[order],
            },
        }
        text = [f"{self.file}: {describe(circuit)}", _state_in_words(found), _table(waves)]
        text.append(_verdict(found))
        return Answer(document, text, found.stable or not self.check, self.out)

    def _over(self, circuit: Any, z: Any) -> Answer:
        import numpy as np

        from organics import plots
        from organics.branches.waves import wave_onsets

        assert self.parameter is not None and self.low is not None and self.high is not None
        bounds = self.low, self.high
        self._require_line(circuit, z, bounds)
        scan = wave_onsets(circuit, z, self.parameter, bounds, points=self.points or _POINTS)
        rows = [
            {
                "value": value,
                "stable": one.stable,
                **_uniform(one),
                **_as_document(one.leading),
                "travels": one.travels,
            }
            for value, one in zip(scan.values, scan.found, strict=True)
        ]
        rates = np.array([np.real(one.eigenvalues[:, :, 0]) for one in scan.found])
        for path in self.out:
            if path.suffix.lower() in FIGURES:
                wavenumbers = scan.found[0].wavenumbers
                drawn = plots.wave_growth(scan.parameter, scan.values, wavenumbers, rates)
                plots.save_figure(drawn, path)
            else:
                names = "rate", "frequency_hz", "speed"
                columns = {name: np.array([row[name] for row in rows]) for name in names}
                columns["wavenumber"] = np.array([1 / one.leading.wavelength for one in scan.found])
                _write(path, {scan.parameter: scan.values} | columns)
        document = about(self.file, circuit) | {
            "parameter": scan.parameter,
            "values": rows,
            "onsets": [
                {"value": one.value, "rising": one.rising, **_as_document(one.wave)}
                for one in scan.onsets
            ],
            "ends": scan.ends,
        }
        text: list[Any] = [f"{self.file}: {describe(circuit)}", _scan_table(scan.parameter, rows)]
        for one in scan.onsets:
            side = "above" if one.rising else "below"
            words = f"{_KINDS[one.wave.kind]}, {_size_in_words(one.wave)}"
            text.append(f"{side} {scan.parameter} = {one.value:.8g}: {words}")
        for value in scan.ends:
            near = f"near {scan.parameter} = {value:.8g}"
            text.append(f"{near} the uniform state is lost; beyond is another")
        if not scan.onsets:
            text.append("no onset between these values")
        stable = all(row["stable"] for row in rows)
        return Answer(document, text, stable or not self.check, self.out)

    def _require_line(self, circuit: Any, z: Any, bounds: tuple[float, float]) -> None:
        """Refuse, in the words of the command line, bounds that do not fit."""
        from organics.branches.continuation import as_system, require_valid_range
        from organics.branches.family import as_line
        from organics.branches.waves import require_wave_parameter

        require_wave_parameter(self.parameter)
        assert self.parameter is not None
        if self.parameter not in ("W", "W_r"):
            line = as_line(as_system(circuit, z, self.parameter), self.parameter)
            require_valid_range(line, bounds, "from` and `to")
        elif self.parameter == "W" and bounds[0] < 0:
            raise ValueError(f"`from` must be >= 0 for a factor on `W`, not {bounds[0]:g}.")

    def _require(self) -> None:
        check_outputs(self.out, (*FIGURES, ".csv", ".npz"), [self.file])
        given = self.low is not None, self.high is not None
        if self.parameter is None:
            if any(given) or self.points is not None:
                raise ValueError("`from`, `to` and `points` need a `parameter`, such as z.")
            return
        if self.low is None or self.high is None:
            raise ValueError(f"`parameter` {self.parameter} needs `from` and `to`.")
        if not self.low < self.high:
            raise ValueError(f"`from` must be below `to`, not {self.low:g} and {self.high:g}.")
        if self.points is not None and not 2 <= self.points <= 100_000:
            raise ValueError(f"`points` must be from 2 to 100,000, not {self.points}.")


def _waves(found: Any) -> tuple[dict[str, Any], Any]:
    """All waves, from the longest to the shortest, with the eigenvalue that grows fastest; and
    which they are."""
    import numpy as np

    wavenumbers = found.wavenumbers.ravel()
    order = np.argsort(wavenumbers, kind="stable")
    fastest = found.eigenvalues[:, :, 0].ravel()[order]
    oscillates = found.oscillates.ravel()[order]
    columns = {
        "periods": found.periods.reshape(-1, 2)[order].astype(int),
        "wavenumber": wavenumbers[order],
        "rate": fastest.real,
        "frequency_hz": 1000 * np.where(oscillates, np.abs(fastest.imag), 0) / (2 * np.pi),
    }
    return columns, order


def _write(path: Path, columns: dict[str, Any]) -> None:
    from organics.cli.tables import write_table

    write_table(path, columns)


def _uniform(found: Any) -> dict[str, Any]:
    """The state of one site."""
    return {"y": found.point.state.y, "a": found.point.state.a, "residual": found.point.residual}


def _as_document(wave: Any) -> dict[str, Any]:
    """A wave; the uniform one has no wavelength."""
    infinite = wave.wavelength == float("inf")
    return {
        "kind": wave.kind,
        "periods": wave.periods,
        "wavelength": None if infinite else wave.wavelength,
        "rate": wave.rate,
        "frequency_hz": 1000 * wave.frequency,
        "speed": wave.speed,
    }


def _state_in_words(found: Any) -> str:
    state = found.point.state
    return (
        f"uniform state: y {numbers(state.y)}, a {numbers(state.a)}, "
        f"residual {float(found.point.residual):.1e}"
    )


def _table(waves: dict[str, Any]) -> Any:
    """The fastest wave of each band of wavelengths."""
    import numpy as np
    from rich.table import Table

    x, rate = waves["wavenumber"], waves["rate"]
    distinct = np.unique(np.round(x, 12))
    edges = [band[0] for band in np.array_split(distinct, min(_ROWS, len(distinct)))]
    band = np.searchsorted(edges, np.round(x, 12), side="right")
    table = Table(box=None, pad_edge=False)
    for name in ("periods/neuron", "wavelength", "rate (1/ms)", "frequency (Hz)"):
        table.add_column(name, justify="right")
    for i in range(1, len(edges) + 1):
        (which,) = np.nonzero(band == i)
        best = which[np.argmax(rate[which])]
        length = f"{1 / x[best]:.4g}" if x[best] else "uniform"
        hertz = waves["frequency_hz"][best]
        table.add_row(f"{x[best]:.4g}", length, f"{rate[best]:+.4e}", f"{hertz:.4g}")
    return table


def _scan_table(name: str, rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    few = min(_ROWS, len(rows))
    title = f"{few} of {len(rows)} values; --json has all" if few < len(rows) else None
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for column in (name, "uniform state", "fastest: rate (1/ms)", "wavelength", "frequency (Hz)"):
        table.add_column(column, justify="right")
    for row in (rows[i * (len(rows) - 1) // (few - 1)] for i in range(few)):
        length = "uniform" if row["wavelength"] is None else f"{row['wavelength']:.4g}"
        words = "stable" if row["stable"] else "NOT stable"
        rate, hertz = f"{row['rate']:+.4e}", f"{row['frequency_hz']:.4g}"
        table.add_row(f"{row['value']:.6g}", words, rate, length, hertz)
    return table


def _verdict(found: Any) -> str:
    wave, one_way = found.leading, found.travels
    if found.stable:
        return f"stable: all waves decay, most slowly {_wave_in_words(wave, one_way)}"
    if found.spectral_abscissa < 0:
        return "NOT known to be stable: a channel rests at y = 0, where the equations have a kink"
    return f"NOT stable: {_KINDS[wave.kind]}, {_wave_in_words(wave, one_way)}"


def _size_in_words(wave: Any) -> str:
    infinite = wave.wavelength == float("inf")
    length = "" if infinite else f"wavelength {wave.wavelength:.4g} neurons, "
    return f"{length}{1000 * wave.frequency:.4g} Hz"


def _wave_in_words(wave: Any, one_way: bool) -> str:
    words = f"{_size_in_words(wave)}, rate {wave.rate:+.4g} 1/ms"
    if not wave.speed:
        return words
    if one_way:
        along = f" along {wave.periods}" if wave.periods[0] else ""
        return f"{words}, moving at {wave.speed:+.4g} neurons per ms{along}"
    return f"{words}, standing or moving either way at {abs(wave.speed):.4g} neurons per ms"


COMMANDS = Dispersion
