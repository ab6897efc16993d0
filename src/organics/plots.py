"""Figures: arrays in, a Matplotlib `Figure` out. Nothing is computed here, no file is read.

Each function draws into a new figure of a printed column's width, or into the `axes` it is given.
One style applies while a figure is drawn or saved. `pyplot` and its global state are not used, so
figures need no display and are freed like any other object.
"""

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from jaxtyping import Array, Complex, Float, Real
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from organics.branches.branch import Branch, Diagram
from organics.files.atomic import write_atomically
from organics.planar import FixedPoint2D, Nullclines, PhasePlane

__all__ = [
    "BLACK",
    "BLUE",
    "COLOURS",
    "COLUMN",
    "GREEN",
    "GREY",
    "ORANGE",
    "PURPLE",
    "SKY",
    "STYLE",
    "VERMILION",
    "abscissa_histogram",
    "bifurcation_diagram",
    "coherences",
    "dispersion_curves",
    "event_plane",
    "figure_of",
    "letter",
    "phase_portrait",
    "power_spectra",
    "rest_plane",
    "rhythm_frequencies",
    "save_figure",
    "spectrum_plane",
    "style",
    "table",
    "training_curves",
    "trajectory",
    "wave_growth",
]

COLUMN = 3.4  # width of a printed column, in inches
_CHARACTERS = 115  # of a table, in the width of two columns

# Okabe and Ito's colours, which readers with any kind of colour vision can distinguish
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK, GREY = "#CC79A7", "#56B4E9", "#000000", "#999999"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, BLACK)

STYLE: Any = {
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "figure.constrained_layout.use": True,
    "figure.dpi": 150,
    "font.size": 8,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.5,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,  # text stays text
    "savefig.dpi": 300,
    "svg.fonttype": "none",
    "svg.hashsalt": "organics",  # the same figure gives the same file
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}


def __dir__() -> list[str]:
    return __all__


@contextmanager
def style() -> Iterator[None]:
    """The project's style, on top of Matplotlib's defaults; restores the previous settings at the
    end."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as `.png`, `.svg` or `.pdf`, whole or not at all.

    Raises `ValueError` for another suffix, `OSError` if the file cannot be written.
    """
    path = Path(path)
    undated = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    kind = path.suffix.lower()
    if kind not in undated:
        raise ValueError(f"`path` must end in .png, .svg or .pdf to hold a figure: {path}")
    content = io.BytesIO()
    with style():
        figure.savefig(content, format=kind[1:], metadata=undated[kind])
    write_atomically(path, content.getvalue())


@style()
def phase_portrait(
    plane: PhasePlane,
    nullclines: Nullclines,
    fixed_points: Sequence[FixedPoint2D],
    *,
    axes: Axes | None = None,
    legend: bool = True,
) -> Figure:
    """Phase portrait of a two-dimensional circuit: `phase_portrait(*portrait(circuit, z))`.

    Streamlines of the velocity, both nullclines, the stable fixed points as red stars, saddles as
    black crosses and other unstable ones as black circles.
    """
    axes = _axes(axes, height=3.2)
    axes.streamplot(
        plane.y, plane.a, plane.dy, plane.da, color="0.7", density=1.0, linewidth=0.5, arrowsize=0.6
    )
    for curves, colour, name in ((nullclines.y, BLUE, "y"), (nullclines.a, ORANGE, "a")):
        for i, curve in enumerate(curves):
            label = rf"$\dot {name} = 0$" if i == 0 else None
            axes.plot(*curve.T, color=colour, label=label, zorder=3)
    kinds = ["saddle" if point.kind == "saddle" else "unstable" for point in fixed_points]
    kinds = ["stable" if p.stable else kind for p, kind in zip(fixed_points, kinds, strict=True)]
    for label, marker, size, colour in (
        ("stable", "*", 10, "red"),
        ("saddle", "X", 6, "black"),
        ("unstable", "o", 5, "black"),
    ):
        points = [(p.y, p.a) for p, kind in zip(fixed_points, kinds, strict=True) if kind == label]
        if points:
            y, a = zip(*points, strict=True)
            axes.plot(
                y, a, marker, color=colour, markersize=size, markeredgecolor="white",
                markeredgewidth=0.5, label=label, zorder=4,
            )  # fmt: skip
    axes.set(
        xlabel="$y$", ylabel="$a$", xlim=plane.y[[0, -1]].tolist(), ylim=plane.a[[0, -1]].tolist()
    )
    if legend:
        _legend_above(axes)
    return figure_of(axes)


@style()
def trajectory(
    t: Real[Array | np.ndarray, " t"],
    y: Real[Array | np.ndarray, "t n"],
    a: Real[Array | np.ndarray, "t n"],
    *,
    axes: Sequence[Axes] | np.ndarray | None = None,
) -> Figure:
    """Membrane potentials against time in ms: `y` above, `a` below, a line for each neuron."""
    t, y, a = _finite("t", t), _finite("y", y), _finite("a", a)
    upper, lower = _stacked(axes, 2, height=3.0)
    n = y.shape[1]
    few = n <= len(COLOURS)
    shades = matplotlib.colormaps["cividis"](np.linspace(0, 0.9, n))
    for i in range(n):
        colour = COLOURS[i] if few else shades[i]
        upper.plot(t, y[:, i], color=colour, label=f"neuron {i + 1}")
        lower.plot(t, a[:, i], color=colour)
    upper.set(ylabel="$y$", xlim=(t[0], t[-1]))
    lower.set(ylabel="$a$", xlabel="time (ms)", xlim=(t[0], t[-1]))
    if few and n > 1:
        _legend_above(upper)
    elif not few:
        shades = ListedColormap(shades)
        scale = ScalarMappable(Normalize(0.5, n + 0.5), shades)
        bar = figure_of(upper).colorbar(scale, ax=[upper, lower], label="neuron", aspect=40)
        bar.ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        bar.outline.set_visible(False)
    return figure_of(upper)


@style()
def spectrum_plane(
    eigenvalues: Complex[Array | np.ndarray, "*shape"] | Mapping[str, Any],
    *,
    axes: Axes | None = None,
) -> Figure:
    """Eigenvalues, in 1/ms, in the complex plane, the unstable ones in another colour and shape.

    Those of a mapping from labels to arrays have a colour for each label.
    """
    axes = _axes(axes, height=2.8)
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=1)
    axes.axhline(0, color=GREY, linewidth=0.4, zorder=1)

    def dots(values: np.ndarray, colour: str, marker: str, label: str | None) -> None:
        if len(values):
            axes.plot(
                np.real(values), np.imag(values), marker, color=colour, label=label,
                markersize=4, markeredgewidth=0, alpha=0.7,
            )  # fmt: skip

    if isinstance(eigenvalues, Mapping):
        for i, (name, some) in enumerate(eigenvalues.items()):
            values, colour = _finite("eigenvalues", some).ravel(), COLOURS[i % len(COLOURS)]
            stable = np.real(values) < 0
            dots(values[stable], colour, "o", name)
            dots(values[~stable], colour, "D", None if np.any(stable) else name)
    else:
        values = _finite("eigenvalues", eigenvalues).ravel()
        dots(values[np.real(values) < 0], BLUE, "o", r"$\mathrm{Re}\,\lambda < 0$")
        dots(values[np.real(values) >= 0], VERMILION, "D", r"$\mathrm{Re}\,\lambda \geq 0$")
    axes.set(xlabel=r"$\mathrm{Re}\,\lambda$ (1/ms)", ylabel=r"$\mathrm{Im}\,\lambda$ (1/ms)")
    axes.margins(0.08)
    _legend_above(axes)
    return figure_of(axes)


@style()
def dispersion_curves(
    wavenumbers: Float[Array | np.ndarray, "*waves"],
    eigenvalues: Complex[Array | np.ndarray, "*waves k"],
    *,
    axes: Sequence[Axes] | np.ndarray | None = None,
) -> Figure:
    """Rate of growth and frequency of each wave, whose first of k eigenvalues in 1/ms is the
    fastest, against its periods per neuron; growing ones in another colour and shape.

    Draws into two axes, one above the other.
    """
    upper, lower = _stacked(axes, 2, height=3.2)
    x = _finite("wavenumbers", wavenumbers).ravel()
    fastest = _finite("eigenvalues", eigenvalues)[..., 0].ravel()
    upper.axhline(0, color=GREY, linewidth=0.6)
    for which, colour, marker in (
        (np.real(fastest) < 0, BLUE, "."),
        (np.real(fastest) >= 0, VERMILION, "D"),
    ):
        for panel, y in (
            (upper, np.real(fastest)),
            (lower, 1000 * np.abs(np.imag(fastest)) / (2 * np.pi)),
        ):
            panel.plot(x[which], y[which], marker, color=colour, markersize=3, markeredgewidth=0)
    upper.set(ylabel="rate (1/ms)")
    lower.set(xlabel="periods per neuron", ylabel="frequency (Hz)")
    return figure_of(upper)


@style()
def wave_growth(
    name: str,
    values: Float[Array | np.ndarray, " k"],
    wavenumbers: Float[Array | np.ndarray, "*waves"],
    rates: Float[Array | np.ndarray, "k *waves"],  # noqa: F821
    *,
    axes: Axes | None = None,
) -> Figure:
    """Rates of growth in 1/ms over a parameter's values and the waves' periods per neuron, with a
    line between those that decay and those that grow. Of equally long waves the fastest counts."""
    axes = _axes(axes, height=2.8)
    lengths = np.round(_finite("wavenumbers", wavenumbers).ravel(), 12)
    order = np.argsort(lengths, kind="stable")
    x, first = np.unique(lengths[order], return_index=True)
    rates = _finite("rates", rates).reshape(len(values), -1)[:, order]
    fastest = np.maximum.reduceat(rates, first, axis=1)
    most = np.max(np.abs(fastest))
    image = axes.pcolormesh(
        values, x, fastest.T, cmap="RdBu_r", vmin=-most, vmax=most, shading="nearest",
        rasterized=True,
    )  # fmt: skip
    if len(x) > 1 and np.min(fastest) < 0 < np.max(fastest):
        axes.contour(values, x, fastest.T, levels=[0.0], colors="black", linewidths=0.8)
    bar = figure_of(axes).colorbar(image, ax=axes, label="rate (1/ms)")
    bar.outline.set_visible(False)
    axes.set(xlabel=name, ylabel="periods per neuron")
    return figure_of(axes)


@style()
def power_spectra(
    frequencies: Float[Array | np.ndarray, " f"],
    power: Float[Array | np.ndarray, "f channels"],
    *,
    labels: Sequence[str] | None = None,
    estimate: tuple[Any, Any] | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Power spectral densities, in 1/Hz, against frequency in Hz, both on logarithmic scales.

    Arguments
        frequencies: positive frequencies, in kHz, as `organics.power_spectrum` has them.
        power: density of each channel, positive, in 1/kHz.
        labels: name of each channel.
        estimate: measured frequencies and densities, shapes (g,) and (g, channels), of the same
            channels; drawn as dots.
    """
    frequencies, power = _positive("frequencies", frequencies), _positive("power", power)
    channels = power.shape[1]
    if labels is not None and len(labels) != channels:
        raise ValueError(f"`labels` must be {channels} names, one a channel, not {len(labels)}.")
    axes = _axes(axes, height=2.6)
    colours = [COLOURS[i % len(COLOURS)] for i in range(channels)]
    if estimate is not None:
        measured_at, measured = (_positive("estimate", array) for array in estimate)
        for i, colour in enumerate(colours):
            axes.plot(
                1000 * measured_at,
                measured[:, i] / 1000,
                ".",
                color=colour,
                markersize=3,
                alpha=0.5,
            )
    for i, colour in enumerate(colours):
        label = labels[i] if labels else None
        axes.plot(1000 * frequencies, power[:, i] / 1000, color=colour, label=label)
    axes.set(
        xscale="log", yscale="log", xlabel="frequency (Hz)", ylabel="power density (1/Hz)",
        xlim=(1000 * frequencies.min(), 1000 * frequencies.max()),
    )  # fmt: skip
    if labels:
        _legend_above(axes)
    return figure_of(axes)


@style()
def coherences(
    frequencies: Float[Array | np.ndarray, " f"],
    coherence: Float[Array | np.ndarray, "f pairs"],
    *,
    labels: Sequence[str],
    axes: Axes | None = None,
) -> Figure:
    """Coherence of pairs of neurons, from 0 to 1, against frequency in Hz, a line for each.

    `frequencies` are positive and in kHz, as `organics.coherence` has them.
    """
    frequencies, coherence = _positive("frequencies", frequencies), _finite("coherence", coherence)
    if len(labels) != coherence.shape[1]:
        raise ValueError(f"`labels` must be {coherence.shape[1]} names, not {len(labels)}.")
    axes = _axes(axes, height=2.6)
    for i, (name, values) in enumerate(zip(labels, coherence.T, strict=True)):
        axes.plot(1000 * frequencies, values, color=COLOURS[i % len(COLOURS)], label=name)
    axes.set(
        xscale="log", xlabel="frequency (Hz)", ylabel="coherence", ylim=(0, 1.02),
        xlim=(1000 * frequencies.min(), 1000 * frequencies.max()),
    )  # fmt: skip
    _legend_above(axes)
    return figure_of(axes)


@style()
def training_curves(
    lines: Sequence[Mapping[str, Any]], *, axes: Sequence[Axes] | np.ndarray | None = None
) -> Figure:
    """Loss, accuracy and gradient norm against the epoch, from the lines of a run's
    `metrics.jsonl`.

    Each line, one an epoch, has the numbers `epoch`, `loss`, `validation_loss`, `accuracy`,
    `validation_accuracy` (fractions), `gradient_norm_mean` and `gradient_norm_max` (over the
    epoch's steps). Runs that predict numbers have `squared_error` in place of `accuracy`.

    Raises `ValueError` if there is no line, or a number is missing or not finite.
    """
    if not lines:
        raise ValueError("`lines` must have at least one line, that of the first epoch.")
    column = lambda name: _finite(name, [_entry(line, name) for line in lines])  # noqa: E731
    figure = "squared_error" if "squared_error" in lines[0] else "accuracy"
    loss, accuracy, gradient = _stacked(axes, 3, height=4.4)
    epoch, dots = column("epoch"), {"marker": ".", "markersize": 4}
    for prefix, label, colour in (("", "training", BLUE), ("validation_", "validation", ORANGE)):
        loss.plot(epoch, column(f"{prefix}loss"), color=colour, label=label, **dots)
        accuracy.plot(epoch, column(f"{prefix}{figure}"), color=colour, **dots)
    gradient.plot(epoch, column("gradient_norm_mean"), color=GREEN, label="mean", **dots)
    gradient.plot(epoch, column("gradient_norm_max"), ":", color=GREEN, label="largest", **dots)
    loss.set(ylabel="loss")
    if figure == "accuracy":
        accuracy.set(ylabel="accuracy (%)")
        accuracy.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    else:
        accuracy.set(ylabel="squared error", yscale="log")
    gradient.set(ylabel="gradient norm", xlabel="epoch", yscale="log")
    gradient.set_xlim(epoch.min() - 0.5, epoch.max() + 0.5)
    gradient.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _legend_above(loss)
    _legend_above(gradient)
    return figure_of(loss)


@style()
def abscissa_histogram(
    abscissae: Mapping[str, Any],
    *,
    of: str = "test inputs",
    bins: int = 50,
    axes: Axes | None = None,
) -> Figure:
    """Histogram of the spectral abscissa `max Re lambda`, in 1/ms, over test inputs.

    `abscissae` has the values, one for each test input, by the name of the layer; `of` is the label
    of the vertical axis. The line at 0 is the border of stability.
    """
    values = {name: _finite(name, array) for name, array in abscissae.items()}
    if not values or any(array.size == 0 for array in values.values()):
        raise ValueError("`abscissae` must have at least one value for at least one layer.")
    axes = _axes(axes, height=2.4)
    together = np.concatenate([array.ravel() for array in values.values()])
    edges = np.histogram_bin_edges(together, bins).tolist()
    for i, (name, array) in enumerate(values.items()):
        colour = COLOURS[i % len(COLOURS)]
        axes.hist(array.ravel(), edges, color=colour, histtype="stepfilled", alpha=0.6, label=name)
    axes.axvline(0, color=BLACK, linewidth=0.8, linestyle="--", label="border of stability")
    axes.set(xlabel=r"$\max\,\mathrm{Re}\,\lambda$ (1/ms)", ylabel=of)
    _legend_above(axes)
    return figure_of(axes)


_EVENTS = {"fold": ("s", BLACK), "hopf": ("o", VERMILION), "branch point": ("^", PURPLE),
           "pitchfork": ("^", PURPLE), "nonsmooth fold": ("D", BLACK),
           "switch": ("|", GREY), "multiple bifurcation": ("X", PURPLE)}  # fmt: skip

_POINTS = {"cusp": ("D", BLACK), "bogdanov-takens": ("*", PURPLE), "generalized hopf": ("P", SKY)}


@style()
def bifurcation_diagram(diagram: Diagram, *, neuron: int = 0, axes: Axes | None = None) -> Figure:
    """The `neuron`-th number of the states against the parameter: stable branches solid, unstable
    ones dashed, events marked, limit cycles by their extremes."""
    axes = _axes(axes, height=2.8)
    for branch in diagram.branches:
        for where, line in ((branch.stable, "-"), (~branch.stable, "--")):
            for piece in _runs(where):
                parameter, x = _up_to_events(branch, piece)
                axes.plot(parameter, x[:, neuron], line, color=BLUE)
    for cycle in diagram.cycles:
        for piece in (*_runs(cycle.stable), *_runs(~cycle.stable)):
            line = "-" if cycle.stable[piece.start] else "--"
            for extreme in (cycle.low, cycle.high):
                axes.plot(cycle.parameter[piece], extreme[piece, neuron], line, color=GREEN)
    named: set[str] = set()
    for event in diagram.events:
        marker, colour = _EVENTS[event.kind]
        label = None if event.kind in named else event.kind
        named.add(event.kind)
        axes.plot(
            event.parameter, event.x[neuron], marker, color=colour, label=label, markersize=4,
            markerfacecolor=colour if event.confirmed else "white", zorder=4,
        )  # fmt: skip
    axes.set(xlabel=diagram.parameter, ylabel=rf"$y_{{{neuron + 1}}}$", xlim=diagram.bounds)
    if named:
        _legend_above(axes)
    return figure_of(axes)


@style()
def event_plane(diagram: Diagram, *, axes: Axes | None = None) -> Figure:
    """Curves of folds and of Hopf points in the plane of two parameters, with the points where they
    change. Subcritical Hopf points are dashed."""
    axes = _axes(axes, height=2.8)
    named: set[str] = set()
    for curve in diagram.curves:
        colour = _EVENTS[curve.kind][1]
        unstable = np.zeros(len(curve.values), bool)
        if curve.kind == "hopf":
            unstable = np.asarray(curve.first_lyapunov) > 0
        for piece in (*_runs(~unstable), *_runs(unstable)):
            line = "--" if unstable[piece.start] else "-"
            joined = slice(max(0, piece.start - 1), piece.stop)
            label = None if curve.kind in named else curve.kind
            named.add(curve.kind)
            axes.plot(*curve.values[joined].T, line, color=colour, label=label)
        for point in curve.points:
            marker, tone = _POINTS[point.kind]
            label = None if point.kind in named else point.kind
            named.add(point.kind)
            axes.plot(*point.values, marker, color=tone, label=label, markersize=5, zorder=4)
    axes.set(xlabel=diagram.parameter, ylabel=diagram.second or "", xlim=diagram.bounds)
    if diagram.second_bounds is not None:
        axes.set_ylim(*diagram.second_bounds)
    if named:
        _legend_above(axes)
    return figure_of(axes)


@style()
def rhythm_frequencies(diagram: Diagram, *, axes: Axes | None = None) -> Figure:
    """Frequencies in Hz against the parameter: of limit cycles, stable ones solid; of the ringing
    of stable steady states, whose least damped mode it is, dotted; Hopf points marked."""
    axes = _axes(axes, height=2.4)
    for branch in diagram.branches:
        leading = branch.eigenvalues[:, 0]
        rings = branch.stable & (np.abs(np.imag(leading)) > 0)
        hertz = 1000 * np.abs(np.imag(leading)) / (2 * np.pi)
        for piece in _runs(rings):
            axes.plot(branch.parameter[piece], hertz[piece], ":", color=BLUE)
    for cycle in diagram.cycles:
        for piece in (*_runs(cycle.stable), *_runs(~cycle.stable)):
            line = "-" if cycle.stable[piece.start] else "--"
            axes.plot(cycle.parameter[piece], 1000 / cycle.period[piece], line, color=GREEN)
    marker, colour = _EVENTS["hopf"]
    for event in diagram.events:
        if event.frequency_hz is not None:
            axes.plot(event.parameter, event.frequency_hz, marker, color=colour, markersize=4)
    axes.set(xlabel=diagram.parameter, ylabel="frequency (Hz)", xlim=diagram.bounds)
    axes.set_ylim(bottom=0)
    return figure_of(axes)


@style()
def rest_plane(
    courses: Real[np.ndarray, "trials steps 2"],
    explained: Real[np.ndarray, " 2"],
    points: Mapping[str, Sequence[tuple[Any, bool]]],
) -> Figure:
    """Trials and fixed points in a plane of a network's states, one panel for each constant input.

    `courses` are the trials, `explained` the shares of the variance along the axes. `points` are,
    for each input by name, places and whether they are stable: stars, or else open circles.
    """
    columns = min(2, len(points))
    rows = -(-len(points) // columns)
    figure = Figure(figsize=(COLUMN * (1 if columns == 1 else 1.5), 2.6 * rows))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, (name, found) in zip(panels.flat, points.items(), strict=False):
        axes.plot(*courses.transpose(2, 1, 0), color="0.8", linewidth=0.4, zorder=1)
        for (first, second), stable in found:
            marker, colour = ("*", VERMILION) if stable else ("o", "black")
            axes.plot(
                first, second, marker, color=colour, markersize=9 if stable else 4,
                markerfacecolor=colour if stable else "none", zorder=3,
            )  # fmt: skip
        axes.set_title(name, fontsize="medium")
    for axes in panels.flat[len(points) :]:
        axes.set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel(f"first component ({explained[0]:.0%})")
    for axes in panels[:, 0]:
        axes.set_ylabel(f"second ({explained[1]:.0%})")
    return figure


def _runs(where: np.ndarray) -> Iterator[slice]:
    """The pieces of consecutive true entries."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], where.astype(int), [0]])))
    for first, last in edges.reshape(-1, 2):
        yield slice(int(first), int(last))


def _up_to_events(branch: Branch, piece: slice) -> tuple[np.ndarray, np.ndarray]:
    """A piece of a branch, with the events next to its ends."""
    parameter, x = branch.parameter[piece], branch.x[piece]
    for end, beyond in ((0, piece.start - 1), (-1, piece.stop)):
        if not 0 <= beyond < len(branch.parameter):
            continue
        neighbours = sorted([piece.start if end == 0 else piece.stop - 1, beyond])
        low, high = (branch.x[i] for i in neighbours)
        between = [event for event in branch.events
                   if np.all((event.x - low) * (event.x - high) <= 1e-9)]  # fmt: skip
        if between:
            at = 0 if end == 0 else len(parameter)
            parameter = np.insert(parameter, at, between[0].parameter)
            x = np.insert(x, at, between[0].x, axis=0)
    return parameter, x


@style()
def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Figure:
    """Rows of text under column names; as wide as the text, at most two printed columns, with
    longer text broken into lines.

    Raises `ValueError` if a row has another number of entries than there are columns.
    """
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"`rows` must have {len(columns)} entries each, not {len(row)}: {row}")
    most = max(12, _CHARACTERS // len(columns))
    cells = [[textwrap.fill(text, most) for text in row] for row in (columns, *rows)]
    widths = [max(len(line) for row in cells for line in row[i].splitlines() or [""])
              for i in range(len(columns))]  # fmt: skip
    heights = [max(text.count("\n") + 1 for text in row) for row in cells]
    total, lines = sum(widths) + 2 * len(widths), sum(heights) + 0.6 * len(heights)
    figure = Figure(figsize=(total * 2 * COLUMN / _CHARACTERS, 0.135 * lines + 0.1))
    figure.set_layout_engine("none")  # the text decides all positions
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, total), ylim=(lines, 0))
    axes.set_axis_off()
    y = 0.0
    for i, (row, height) in enumerate(zip(cells, heights, strict=True)):
        x = 1.0
        for text, width in zip(row, widths, strict=True):
            weight = "bold" if i == 0 else "normal"
            for k, line in enumerate(text.splitlines()):
                axes.text(x, y + 1.1 + k, line, fontsize=7, fontweight=weight)
            x += width + 2
        y += height + 0.6
        axes.axhline(y, color=BLACK if i == 0 else "0.85", linewidth=0.6)
    return figure


def letter(axes: Axes, name: str, title: str = "") -> None:
    """A panel's letter, in bold, and its title."""
    axes.set_title(rf"$\bf{{{name}}}$  {title}", loc="left", fontsize=8)


def _axes(axes: Axes | None, height: float) -> Axes:
    return Figure(figsize=(COLUMN, height)).add_subplot() if axes is None else axes


def _stacked(axes: Sequence[Axes] | np.ndarray | None, count: int, height: float) -> list[Axes]:
    if axes is None:
        figure = Figure(figsize=(COLUMN, height))
        axes = list(figure.subplots(count, sharex=True))
        figure.align_ylabels(axes)
    if len(axes) != count:
        raise ValueError(f"`axes` must be {count} axes, from top to bottom, not {len(axes)}.")
    return list(axes)


def figure_of(axes: Axes) -> Figure:
    """The figure that axes belong to, or to a part of which they do."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _legend_above(axes: Axes) -> None:
    labels = axes.get_legend_handles_labels()[1]
    longest = max((len(label) for label in labels if "$" not in label), default=1)
    columns = max(1, min(len(labels), 4, 50 // longest))
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, columnspacing=1.2)


def _entry(line: Mapping[str, Any], name: str) -> Any:
    if name not in line:
        raise ValueError(f"`lines` must have {name!r} in each line; one has {sorted(line)}.")
    return line[name]


def _finite(name: str, values: Any) -> np.ndarray:
    array: np.ndarray = np.asarray(values)
    if not np.all(np.isfinite(array)):
        bad = array[~np.isfinite(array)]
        raise ValueError(f"`{name}` must be finite to be drawn; {bad.size} entries are not.")
    return array


def _positive(name: str, values: Any) -> np.ndarray:
    array = _finite(name, values)
    if not np.all(array > 0):
        raise ValueError(f"`{name}` must be > 0 for a logarithmic scale, not {array.min()}.")
    return array
