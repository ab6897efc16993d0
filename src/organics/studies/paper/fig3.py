"""Figure 3: the rectified circuit of two dimensions with equal, short and long `tau_y`."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from organics.circuit.circuit import Circuit, State
from organics.files.plain import rounded
from organics.plots import BLACK, COLUMN, PURPLE, letter, style
from organics.rest.closed_form import closed_form
from organics.simulation.ode import simulate
from organics.studies.harness.target import Check, Job, Outcome
from organics.studies.paper.portraits import (
    ARRIVED,
    Case,
    Panel,
    count_check,
    count_in_words,
    counts,
    draw_panels,
    examine_all,
    point_checks,
    shared_legend,
)

PAPER = dict.fromkeys("abc", (1, 1))
"""Numbers of fixed points, and of stable ones, in the paper's panels."""

SAME_POINT = 1e-12
"""Largest difference of the fixed points from the closed form, which does not depend on time
constants."""

_START = (-1.0, 2.0)  # y and a where the trajectories begin
_TIME, _SHOWN = 600.0, 120.0  # ms


def cases() -> list[Case]:
    """The three panels: `tau_y` equal to, shorter and longer than `tau_a`, in ms."""
    return [
        Case(
            name,
            rf"$\tau_y={tau_y:g}\ {relation}\ \tau_a={tau_a:g}$ ms",
            Circuit([[1.0]], tau_y=tau_y, tau_a=tau_a, rectified=True),
            1.0,
        )
        for name, tau_y, relation, tau_a in (
            ("a", 2.0, "=", 2.0),
            ("b", 2.0, "<", 10.0),
            ("c", 10.0, ">", 2.0),
        )
    ]


def compute(job: Job) -> Outcome:
    """The fixed points, their eigenvalues, and trajectories from a common start."""
    with jax.enable_x64(True):
        panels = [_with_path(panel) for panel in examine_all(cases(), 5 if job.quick else 15)]
    rates = [panel.numbers["fixed_points"][0]["eigenvalues"][0][0] for panel in panels]
    return Outcome(
        here=f"{count_in_words(counts(panels))}; largest real parts "
        f"{', '.join(f'{rate:.3f}' for rate in rates)} per ms",
        checks=[
            count_check(panels, PAPER, count_in_words(PAPER)),
            *point_checks(panels),
            *path_checks([panel.numbers for panel in panels]),
        ],
        numbers={"panels": [panel.numbers for panel in panels]},
        data=panels,
    )


def path_checks(panels: Sequence[dict[str, Any]]) -> list[Check]:
    """Whether in each panel the fixed point equals the closed form and is reached."""
    off = max(panel["from_closed_form"] for panel in panels)
    ends = max(panel["path"]["ends_at"] for panel in panels)
    return [
        Check(
            what="the fixed point is divisive normalization of the drive in all panels",
            here=f"off by at most {off:.1e}",
            holds=off <= SAME_POINT,
            tolerance=f"at most {SAME_POINT:g}",
        ),
        Check(
            what="trajectories from one and the same distant state end there in all panels",
            here=f"{ends:.1e} from it after {_TIME:g} ms",
            holds=ends <= ARRIVED,
            tolerance=f"at most {ARRIVED:g}",
        ),
    ]


@style()
def draw(outcome: Outcome) -> Figure:
    """Phase portraits of the rectified circuit with a trajectory, and the same trajectory
    against time, for three pairs of time constants.
    """
    figure = Figure(figsize=(2 * COLUMN, 3.9))
    upper, lower = figure.subplots(2, 3, sharey="row", height_ratios=(3, 2))
    draw_panels(outcome.data, upper)
    for panel, plane, course, name in zip(outcome.data, upper, lower, "def", strict=True):
        path = panel.numbers["path"]
        plane.plot(path["y"], path["a"], color=PURPLE, label="trajectory", zorder=3)
        plane.plot(path["y"][0], path["a"][0], "s", color=PURPLE, markersize=3, zorder=3)
        course.plot(path["t"], path["y"], color=BLACK, label="$y$")
        course.plot(path["t"], path["a"], ":", color=BLACK, label="$a$")
        course.set(xlabel="time (ms)", xlim=(0, _SHOWN), ylim=(-1.2, 2.2))
        letter(course, name)
    for ax in upper[1:]:
        ax.set_ylabel("")
    lower[0].set_ylabel("potential")
    lower[0].legend(loc="upper right", ncols=2)
    shared_legend(figure, upper)
    return figure


def _with_path(panel: Panel) -> Panel:
    circuit, z = panel.case.circuit, jnp.full(1, panel.case.z)
    start = State(*(jnp.full(1, value) for value in _START))
    times = jnp.concatenate([jnp.linspace(0.0, _SHOWN, 241), jnp.asarray([_TIME])])
    path = simulate(circuit, z, times, start, rtol=1e-9, atol=1e-12)
    rest = closed_form(circuit, z)
    last = np.concatenate([path.state.y[-1] - rest.y, path.state.a[-1] - rest.a])
    course = {"t": times[:-1], "y": path.state.y[:-1, 0], "a": path.state.a[:-1, 0]}
    [point] = panel.portrait.fixed_points
    numbers = {
        "from_closed_form": max(abs(point.y - rest.y.item()), abs(point.a - rest.a.item())),
        "path": {**rounded(course, 4), "ends_at": float(np.linalg.norm(last))},
    }
    return panel._replace(numbers=panel.numbers | numbers)
