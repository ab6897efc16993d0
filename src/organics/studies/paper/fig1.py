"""Figure 1: phase portraits of the two-dimensional circuit with positive drive."""

import jax
from matplotlib.figure import Figure

from organics.plots import COLUMN, style
from organics.studies.harness.target import Job, Outcome
from organics.studies.paper.portraits import (
    count_check,
    count_in_words,
    counts,
    draw_panels,
    examine_all,
    one_neuron_circuits,
    point_checks,
    shared_legend,
)

PAPER = {letter: (3, 1) if letter == "b" else (1, 1) for letter in "abcdef"}
"""Fixed points, and stable ones, that the paper's panels show."""


def compute(job: Job) -> Outcome:
    """All fixed points of the six circuits, and simulations."""
    with jax.enable_x64(True):
        panels = examine_all(one_neuron_circuits(1.0), across=5 if job.quick else 15)
    return Outcome(
        here=count_in_words(counts(panels)),
        checks=[count_check(panels, PAPER, count_in_words(PAPER)), *point_checks(panels)],
        numbers={"panels": [panel.numbers for panel in panels]},
        data=panels,
    )


@style()
def draw(outcome: Outcome) -> Figure:
    """Streamlines, the nullclines of y and a, stable fixed points (stars), saddles (crosses) and
    other unstable ones (circles), for three recurrent weights.
    """
    figure = Figure(figsize=(2 * COLUMN, 4.6))
    axes = figure.subplots(2, 3, sharex=True, sharey=True)
    draw_panels(outcome.data, axes.ravel())
    for row, model in zip(axes, ("main model", "rectified model"), strict=True):
        row[0].set_ylabel(f"{model}\n$a$")
        for ax in row[1:]:
            ax.set_ylabel("")
    for ax in axes[0]:
        ax.set_xlabel("")
    shared_legend(figure, axes.ravel())
    return figure
