"""Figures show the data they are given, with units, and leave nothing behind."""

from functools import cache

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from organics import plots
from organics.circuit.circuit import Circuit
from organics.planar import portrait

FIGURE_1B = Circuit([[1.0]], [[2.0]])
RECTIFIED = Circuit([[1.0]], [[2.0]], rectified=True)


def lines_by_marker(axes, marker):
    return [line for line in axes.get_lines() if line.get_marker() == marker]


def shown(lines):
    """The points of some lines, sorted."""
    return sorted(tuple(point) for line in lines for point in line.get_xydata())


@cache
def figure_1b():
    return portrait(FIGURE_1B, 1.0)


def draw_all():
    """One figure of each kind, by name."""
    rng = np.random.default_rng(0)
    t = np.linspace(0, 10, 5)
    frequencies = np.geomspace(1e-3, 1, 20)
    return {
        "phase_portrait": plots.phase_portrait(*figure_1b()),
        "trajectory": plots.trajectory(t, rng.normal(size=(5, 3)), rng.normal(size=(5, 3))),
        "spectrum_plane": plots.spectrum_plane(np.array([-1 + 1j, -1 - 1j])),
        "power_spectra": plots.power_spectra(frequencies, np.ones((20, 2)), labels=["y", "a"]),
        "training_curves": plots.training_curves(metrics(4)),
        "abscissa_histogram": plots.abscissa_histogram({"layer 1": np.array([-0.3, -0.2])}),
    }


def metrics(epochs):
    names = ("loss", "validation_loss", "accuracy", "validation_accuracy")
    names += ("gradient_norm_mean", "gradient_norm_max")
    return [
        {"epoch": epoch, **{name: 0.1 * i + 0.01 * epoch + 0.1 for i, name in enumerate(names)}}
        for epoch in range(1, epochs + 1)
    ]


@pytest.mark.parametrize(
    ("circuit", "z", "stars", "circles"),
    [
        (FIGURE_1B, 1.0, 1, 2),
        (FIGURE_1B, 0.0, 2, 1),
        (RECTIFIED, 1.0, 1, 0),
        (RECTIFIED, 0.0, 1, 1),
        (RECTIFIED, -1.0, 1, 2),
    ],
)
def test_phase_portrait_marks_the_fixed_points(circuit, z, stars, circles):
    plane, curves, points = portrait(circuit, z)
    (axes,) = plots.phase_portrait(plane, curves, points).axes
    stable = lines_by_marker(axes, "*")
    unstable = lines_by_marker(axes, "o") + lines_by_marker(axes, "X")
    assert (len(shown(stable)), len(shown(unstable))) == (stars, circles)
    assert shown(stable) == sorted((p.y, p.a) for p in points if p.stable)
    assert shown(unstable) == sorted((p.y, p.a) for p in points if not p.stable)
    assert all(to_hex(line.get_color()) == "#ff0000" for line in stable)
    assert all(to_hex(line.get_color()) == "#000000" for line in unstable)


def test_phase_portrait_shows_plane_and_nullclines():
    plane, curves, points = figure_1b()
    (axes,) = plots.phase_portrait(plane, curves, points).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("$y$", "$a$")
    assert axes.get_xlim() == (plane.y[0], plane.y[-1])
    assert axes.get_ylim() == (plane.a[0], plane.a[-1])
    drawn = [line.get_xydata() for line in lines_by_marker(axes, "None")]
    assert len(drawn) == len(curves.y) + len(curves.a) == 3
    for curve in (*curves.y, *curves.a):
        assert any(np.array_equal(curve, data) for data in drawn)
    assert axes.collections, "streamlines"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [r"$\dot y = 0$", r"$\dot a = 0$", "stable", "saddle", "unstable"]


def test_panels_share_one_figure():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    for axes, z in ((left, 1.0), (right, -1.0)):
        drawn = plots.phase_portrait(*portrait(FIGURE_1B, z), axes=axes, legend=False)
        assert drawn is figure and axes.get_legend() is None
    assert len(shown(lines_by_marker(left, "*"))) == len(shown(lines_by_marker(right, "*"))) == 1


@pytest.mark.parametrize("n", [1, 3, 20])
def test_trajectory(n):
    t = np.linspace(0, 50, 11)
    y, a = np.random.default_rng(n).normal(size=(2, 11, n))
    figure = plots.trajectory(t, y, a)
    upper, lower = figure.axes[:2]
    assert (upper.get_ylabel(), lower.get_ylabel()) == ("$y$", "$a$")
    assert lower.get_xlabel() == "time (ms)"
    for axes, values in ((upper, y), (lower, a)):
        assert len(axes.get_lines()) == n
        for i, line in enumerate(axes.get_lines()):
            np.testing.assert_array_equal(line.get_xydata(), np.column_stack([t, values[:, i]]))
    # neurons are told apart by a legend if they are few, by a colour bar if many
    assert (upper.get_legend() is not None) == (n == 3)
    assert len(figure.axes) == (3 if n == 20 else 2)


def test_spectrum_plane():
    values = np.array([[-1 + 2j, -1 - 2j], [0.5 + 0j, 0 + 0j]])
    (axes,) = plots.spectrum_plane(values).axes
    assert axes.get_xlabel() == r"$\mathrm{Re}\,\lambda$ (1/ms)"
    assert axes.get_ylabel() == r"$\mathrm{Im}\,\lambda$ (1/ms)"
    assert shown(lines_by_marker(axes, "o")) == [(-1, -2), (-1, 2)]
    assert shown(lines_by_marker(axes, "D")) == [(0, 0), (0.5, 0)]
    assert any(list(line.get_xdata()) == [0, 0] for line in axes.get_lines()), "imaginary axis"


def test_labelled_spectra_have_a_colour_each():
    (axes,) = plots.spectrum_plane({"a": [-1 + 1j, 2 + 0j], "b": [3 + 0j], "c": [-2 + 0j]}).axes
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["a", "b", "c"]
    colours = {line.get_color() for line in axes.get_lines() if line.get_marker() in ("o", "D")}
    assert len(colours) == 3
    assert shown(lines_by_marker(axes, "D")) == [(2, 0), (3, 0)]


def test_power_spectra():
    f, g = np.geomspace(1e-3, 1, 30), np.geomspace(1e-2, 0.5, 7)
    power, measured = np.stack([1 / f, 1 / f**2], 1), np.ones((7, 2))
    figure = plots.power_spectra(f, power, labels=["$y_1$", "$a_1$"], estimate=(g, measured))
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlabel() == "frequency (Hz)" and axes.get_ylabel() == "power density (1/Hz)"
    dots = lines_by_marker(axes, ".")
    theory = [line for line in axes.get_lines() if line not in dots]
    assert len(dots) == len(theory) == 2
    for i, (line, dot) in enumerate(zip(theory, dots, strict=True)):
        np.testing.assert_array_equal(line.get_ydata(), power[:, i] / 1000)
        np.testing.assert_array_equal(line.get_xdata(), 1000 * f)
        assert line.get_color() == dot.get_color()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["$y_1$", "$a_1$"]
    assert plots.power_spectra(f, power).axes[0].get_legend() is None


@pytest.mark.parametrize("epochs", [1, 5])
def test_training_curves(epochs):
    lines = metrics(epochs)
    figure = plots.training_curves(lines)
    loss, accuracy, gradient = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "loss", "accuracy (%)", "gradient norm",
    ]  # fmt: skip
    assert gradient.get_xlabel() == "epoch"
    for axes, names in (
        (loss, ("loss", "validation_loss")),
        (accuracy, ("accuracy", "validation_accuracy")),
        (gradient, ("gradient_norm_mean", "gradient_norm_max")),
    ):
        for drawn, name in zip(axes.get_lines(), names, strict=True):
            expected = [(line["epoch"], line[name]) for line in lines]
            np.testing.assert_array_equal(drawn.get_xydata(), expected)
    ticks = gradient.get_xticks()
    assert np.array_equal(ticks, np.round(ticks))


def test_abscissa_histogram():
    rng = np.random.default_rng(0)
    values = {"layer 1": rng.normal(-0.3, 0.01, 400), "layer 2": rng.normal(-0.2, 0.02, 300)}
    (axes,) = plots.abscissa_histogram(values, bins=20).axes
    assert axes.get_xlabel() == r"$\max\,\mathrm{Re}\,\lambda$ (1/ms)"
    assert axes.get_ylabel() == "test inputs"
    (border,) = axes.get_lines()
    assert list(border.get_xdata()) == [0, 0]
    assert axes.get_xlim()[0] < -0.3 and axes.get_xlim()[1] > 0
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["layer 1", "layer 2", "border of stability"]
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), 20)
    highest = np.histogram(values["layer 1"], edges)[0].max()
    assert axes.patches[0].get_xy()[:, 1].max() == highest


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: plots.trajectory(np.arange(2.0), np.ones((2, 1)), np.full((2, 1), np.nan)), "`a`"),
        (lambda: plots.spectrum_plane(np.array([complex(np.inf, 0)])), "`eigenvalues`.*finite"),
        (lambda: plots.power_spectra(np.zeros(2), np.ones((2, 1))), "`frequencies`.*> 0.*0.0"),
        (lambda: plots.power_spectra(np.ones(2), -np.ones((2, 1))), "`power`.*> 0.*-1.0"),
        (lambda: plots.power_spectra(np.ones(2), np.ones((2, 2)), labels=["y"]), "`labels`.*2"),
        (lambda: plots.training_curves([]), "`lines`.*at least one"),
        (lambda: plots.training_curves([{"epoch": 1}]), "`lines`.*'loss'.*'epoch'"),
        (lambda: plots.training_curves([metrics(1)[0] | {"loss": np.nan}]), "`loss`.*finite"),
        (lambda: plots.training_curves(metrics(1), axes=Figure().subplots(1, 2)), "`axes`.*3"),
        (lambda: plots.abscissa_histogram({}), "`abscissae`.*at least one"),
        (lambda: plots.abscissa_histogram({"x": np.zeros(0)}), "`abscissae`.*at least one"),
        (lambda: plots.abscissa_histogram({"x": np.array([np.nan])}), "`x`.*finite"),
    ],
)
def test_refusals(draw, words):
    with pytest.raises(ValueError, match=words):
        draw()


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_every_figure_is_saved_and_the_same_data_give_the_same_file(tmp_path, suffix, start):
    """Each figure as SVG, which holds all that is drawn; one figure in the other formats."""
    first, second = tmp_path / f"1.{suffix}", tmp_path / f"2.{suffix.upper()}"
    figures, again = draw_all(), draw_all()
    for name, figure in figures.items():
        plots.save_figure(figure, first)
        content = first.read_bytes()
        assert content.startswith(start)
        if suffix == "svg" or name == "trajectory":
            plots.save_figure(again[name], second)
            assert content == second.read_bytes(), name
    assert len(list(tmp_path.iterdir())) == 2


def test_vector_text_stays_text(tmp_path):
    figure = plots.trajectory(np.arange(3.0), np.ones((3, 1)), np.ones((3, 1)))
    plots.save_figure(figure, tmp_path / "f.svg")
    assert "time (ms)</text>" in (tmp_path / "f.svg").read_text()
    plots.save_figure(figure, tmp_path / "f.pdf")
    assert b"/Type3" not in (tmp_path / "f.pdf").read_bytes()


def test_nothing_is_cut_off():
    for name, figure in draw_all().items():
        figure.draw_without_rendering()
        inside = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert inside.x0 >= -0.01 and inside.y0 >= -0.01, name
        assert inside.x1 <= width + 0.01 and inside.y1 <= height + 0.01, name
        assert width == plots.COLUMN


def test_save_refuses(tmp_path):
    figure = Figure()
    for name in ("figure.jpg", "figure"):
        with pytest.raises(ValueError, match=r"`path` must end in .png, .svg or .pdf.*figure"):
            plots.save_figure(figure, tmp_path / name)
    with pytest.raises(FileNotFoundError, match="folder .*nowhere"):
        plots.save_figure(figure, tmp_path / "nowhere" / "f.png")
    assert not list(tmp_path.iterdir())


def test_settings_of_the_user_are_kept_and_not_followed(tmp_path):
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        figure = plots.spectrum_plane(np.array([-1 + 0j]))
        plots.save_figure(figure, tmp_path / "f.svg")
        assert dict(matplotlib.rcParams) == before
    assert figure.axes[0].xaxis.label.get_size() == plots.STYLE["axes.labelsize"]
    assert "</text>" in (tmp_path / "f.svg").read_text()


def test_a_table_has_every_text_and_refuses_a_short_row():
    figure = plots.table(["network", "here"], [["ORGaNICs", "97.1 %"], ["LSTM", "a " * 60]])
    shown = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert all(word in shown for word in ("network", "97.1 %", "LSTM")) and shown.count("a ") > 50
    with pytest.raises(ValueError, match="2 entries each, not 1"):
        plots.table(["network", "here"], [["ORGaNICs"]])
