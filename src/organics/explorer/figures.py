"""The figures of the explorer: Bokeh models without data, which the page's scripts fill.

A glyph is found by its name. Colours that depend on light or dark are in the page's style.
"""

from typing import Any

_Y, _A, _PATH, _MUTED = "#3b8bc9", "#d9822b", "#9a6fc4", "#8a8f98"


def plane() -> dict[str, Any]:
    """Figures for n = 1 by name: portrait, time course, eigenvalues, power spectrum."""
    portrait = _figure("y", "a", x_range=(-1, 1), y_range=(-1, 1))
    _draw(portrait.segment, "flow", "x0 y0 x1 y1", _MUTED, alpha=0.6)
    heads = {"marker": "triangle", "angle": "angle", "size": 5, "line_color": None}
    _draw(portrait.scatter, "flow_heads", "x y angle", _MUTED, alpha=0.6, **heads)
    _draw(portrait.line, "y_nullcline", "x y", _Y, line_width=2)
    _draw(portrait.line, "a_nullcline", "x y", _A, line_width=2)
    _draw(portrait.line, "trajectories", "x y", _PATH, line_width=2)
    _draw(portrait.scatter, "starts", "x y", _PATH, size=5)
    _draw_by_stability(portrait, "fixed_points", size=12)
    course = _figure("time (ms)", "y, a")
    _draw(course.line, "course_y", "x y", _Y, line_width=2)
    _draw(course.line, "course_a", "x y", _A, line_width=2)
    return {"portrait": portrait, "course": course} | _linear(_Y)


def contrasts() -> dict[str, Any]:
    """Figures for n neurons by name: steady state, responses, eigenvalues, power spectrum."""
    state = _figure("neuron", "y, a")
    _draw(state.scatter, "state_y", "x y", size=8)
    _draw(state.scatter, "state_a", "x y", size=8, marker="square", fill_alpha=0)
    responses = _figure("contrast", "y", x_axis_type="log")
    _draw(responses.multi_line, "responses", "xs ys", line_width=1.5)
    _draw(responses.scatter, "responses_now", "x y", size=7)
    return {"state": state, "responses": responses} | _linear(None)


def neuron_colors(n: int) -> list[str]:
    """Colours of n neurons, visible on light and on dark."""
    from bokeh.palettes import Turbo256, linear_palette  # pyright: ignore[reportMissingImports]

    return list(linear_palette(Turbo256[30:230], n))


def _linear(color: str | None) -> dict[str, Any]:
    """Figures of linear theory, which both pages have."""
    from bokeh.models import Span  # pyright: ignore[reportMissingImports]

    eigenvalues = _figure("real part (1/ms)", "imaginary part (1/ms)")
    eigenvalues.add_layout(Span(location=0, dimension="height", line_color=_MUTED))
    eigenvalues.scatter([0], [0], marker="cross", size=8, color=_MUTED)  # so it is in view
    _draw_by_stability(eigenvalues, "eigenvalues", size=10)
    axes = {"x_axis_type": "log", "y_axis_type": "log"}
    spectrum = _figure("frequency (Hz)", "power of y (1/Hz)", **axes)
    _draw(spectrum.multi_line, "spectra", "xs ys", color, line_width=2)
    return {"eigenvalues": eigenvalues, "spectrum": spectrum}


def _draw(glyph: Any, name: str, columns: str, color: str | None = None, **style: Any) -> None:
    """A glyph without data; its source has the colours, too, if none is given."""
    source = _empty(columns if color else f"{columns} color")
    places = [column for column in columns.split() if column not in style]
    glyph(*places, source=source, name=name, **({"color": color or "color"} | style))


def _draw_by_stability(figure: Any, name: str, size: int) -> None:
    """Points whose colours the script chooses."""
    figure.scatter(
        "x",
        "y",
        fill_color="fill",
        line_color="color",
        source=_empty("x y fill color"),
        name=name,
        size=size,
        line_width=2,
    )


def _empty(columns: str) -> Any:
    from bokeh.models import ColumnDataSource  # pyright: ignore[reportMissingImports]

    return ColumnDataSource({column: [] for column in columns.split()})


def _figure(x: str, y: str, **options: Any) -> Any:
    from bokeh.plotting import figure  # pyright: ignore[reportMissingImports]

    made = figure(
        x_axis_label=x,
        y_axis_label=y,
        sizing_mode="stretch_both",
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_drag=None,  # else a finger on the figure would not scroll the page
        toolbar_location="above",
        **options,
    )
    made.toolbar.logo = None
    made.toolbar.autohide = True
    return made
