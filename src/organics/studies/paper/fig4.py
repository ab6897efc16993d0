"""Figure 4: how fast the paper's Algorithm 1 converges to the steady state.

The reference is the end of a simulation from a random state, polished by Newton's method; neither
uses the algorithm.
"""

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from organics.circuit.circuit import Circuit, State, random_drive
from organics.files.plain import as_number, rounded
from organics.linear.jacobian import imbalance_jacobian
from organics.machine.lapack import single_threaded_lapack
from organics.plots import BLUE, COLUMN, GREY, ORANGE, letter, style
from organics.rest.algorithm1 import algorithm_1_start, algorithm_1_step
from organics.simulation.resting import settle
from organics.studies.harness.target import Check, Job, Outcome
from organics.studies.paper.portraits import shared_legend
from organics.trials import trial

ITERATIONS = 15
"""The first is the algorithm's start."""

TOLERATED = {5: 1e-2, ITERATIONS: 1e-4}
"""Bounds on the mean error at two iterations: invisible on the axis of the paper's figure, where
the first errors reach a few units, and a hundredth of that."""

TRUTH = 1e-13
"""Largest residual of a reference state."""

_N = 10
_EXAMPLE = 0  # index of the circuit shown
_NEWTON_STEPS = 4
_PATIENCE = 4000.0  # ms by which a simulation must have come to rest
_LAST = 200  # iteration at which every circuit has converged
_CONVERGED = 1e-9


def compute(job: Job) -> Outcome:
    """Errors of the iterates of 100 random circuits, and all iterates of one."""
    circuits = 20 if job.quick else 100
    with jax.enable_x64(True), single_threaded_lapack():
        drawn, drives, starts = _draw_circuits(job.seed, jnp.arange(circuits))
        ends, rested = settle(drawn, drives, starts, _PATIENCE)
        truth, residual = jax.device_get(_polish(drawn, drives, ends))
        W_r, ends, iterates = jax.device_get((drawn.W_r, ends, _iterate(drawn, drives)))
    errors = {
        name: np.linalg.norm(found - true[:, None], axis=2)
        for name, found, true in zip(State._fields, iterates, truth, strict=True)
    }
    example = {name: x[_EXAMPLE, :ITERATIONS] for name, x in iterates._asdict().items()}
    numbers = rounded(
        {
            "circuits": circuits,
            "neurons": f"{_N} + {_N}",
            "simulations_at_rest": rested.sum(),
            "largest_residual": np.max(residual),
            "iteration": np.arange(1, ITERATIONS + 1),
            "error": {name: _summary(values[:, :ITERATIONS]) for name, values in errors.items()},
            f"largest_error_at_{_LAST}": max(values[:, -1].max() for values in errors.values()),
            "example": {
                "W_r": W_r[_EXAMPLE],
                "simulated": {name: x[_EXAMPLE] for name, x in ends._asdict().items()},
                "iterates": example,
            },
        }
    )
    error = numbers["error"]
    return Outcome(
        here=", ".join(
            f"mean error of {name} {as_number(mean[4]):.1e} at iteration 5, "
            f"{as_number(mean[-1]):.1e} at {ITERATIONS}"
            for name, mean in ((name, error[name]["mean"]) for name in State._fields)
        ),
        checks=checks(numbers),
        numbers=numbers,
    )


def checks(numbers: dict[str, Any]) -> list[Check]:
    """Checks of the convergence and of the residuals of the reference."""
    circuits, error = numbers["circuits"], numbers["error"]
    means = {name: [*map(as_number, error[name]["mean"])] for name in State._fields}
    falling = all(after < before for mean in means.values() for before, after in pairwise(mean))
    residual = as_number(numbers["largest_residual"])
    last = as_number(numbers[f"largest_error_at_{_LAST}"])
    return [
        Check(
            what="a simulation from a random state comes to rest, at a steady state",
            here=f"{numbers['simulations_at_rest']} of {circuits}, largest residual after Newton "
            f"{residual:.1e}",
            holds=numbers["simulations_at_rest"] == circuits and residual <= TRUTH,
            tolerance=f"all, residual at most {TRUTH:g}",
        ),
        Check(
            what="the mean error decreases with every iteration",
            here=", ".join(
                f"{name} {mean[0]:.2g} to {mean[-1]:.1e}" for name, mean in means.items()
            ),
            holds=falling,
            paper="decreases",
            tolerance="every difference negative",
        ),
        *(
            Check(
                what=f"the mean error has vanished at iteration {iteration}",
                here=", ".join(f"{name} {mean[iteration - 1]:.1e}" for name, mean in means.items()),
                holds=all(mean[iteration - 1] <= most for mean in means.values()),
                paper="about 0",
                tolerance=f"at most {most:g}",
            )
            for iteration, most in TOLERATED.items()
        ),
        Check(
            what="the algorithm converges in every circuit",
            here=f"largest error {last:.1e} at iteration {_LAST}",
            holds=last <= _CONVERGED,
            paper="all",
            tolerance=f"at most {_CONVERGED:g}",
        ),
    ]


@style()
def draw(outcome: Outcome) -> Figure:
    """a, b: error of the iterates, mean, standard deviation and largest over random circuits,
    on a linear scale as in the paper and on a logarithmic one. c: recurrent weights of one
    circuit. d, e: its iterates, and what a simulation comes to. f: the last iterate against the
    simulation.
    """
    figure = Figure(figsize=(2 * COLUMN, 4.4))
    axes = figure.subplots(2, 3)
    numbers = outcome.numbers
    example = numbers["example"]
    _draw_errors(axes[0, 0], numbers, logarithmic=False)
    _draw_errors(axes[0, 1], numbers, logarithmic=True)
    axes[0, 0].set(ylim=(0, None))
    axes[0, 1].set(yscale="log")
    shared_legend(figure, axes[0, :2])
    letter(axes[0, 0], "a", f"{numbers['circuits']} circuits")
    letter(axes[0, 1], "b", "the same, logarithmic")
    _draw_matrix(figure, axes[0, 2], np.array(example["W_r"]))
    letter(axes[0, 2], "c", r"one circuit: $W_r$")
    for ax, name, panel in zip(axes[1, :2], State._fields, "de", strict=True):
        curves, simulated = np.array(example["iterates"][name]), example["simulated"][name]
        shades = matplotlib.colormaps["cividis"](np.linspace(0, 0.9, curves.shape[1]))
        for curve, end, shade in zip(curves.T, simulated, shades, strict=True):
            ax.plot(numbers["iteration"], curve, ".-", color=shade, markersize=3, linewidth=0.8)
            ax.plot(ITERATIONS + 1, end, "<", color=shade, markersize=3, clip_on=False)
        ax.set(xlabel="iteration", ylabel=f"${name}$", xlim=(0, ITERATIONS + 1))
        letter(ax, panel, f"its ${name}$, simulated (◂)")
    _draw_overlap(axes[1, 2], example)
    letter(axes[1, 2], "f", f"after {ITERATIONS} iterations")
    return figure


def _draw_errors(ax: Axes, numbers: dict[str, Any], logarithmic: bool) -> None:
    iteration = np.array(numbers["iteration"])
    for name, colour in (("y", BLUE), ("a", ORANGE)):
        error = {kind: np.array(values) for kind, values in numbers["error"][name].items()}
        mean, deviation = error["mean"], error["deviation"]
        label = {kind: kind if name == "y" else None for kind in ("largest", "median", "± s.d.")}
        ax.plot(iteration, mean, ".-", color=colour, markersize=4, label=f"${name}$, mean")
        ax.plot(iteration, error["largest"], ":", color=colour, label=label["largest"])
        if logarithmic:  # a band around the mean would have no lower end
            ax.plot(iteration, error["median"], "--", color=colour, label=label["median"])
        else:
            band = np.maximum(mean - deviation, 0), mean + deviation
            ax.fill_between(
                iteration, *band, color=colour, alpha=0.25, linewidth=0, label=label["± s.d."]
            )
    ax.set(xlabel="iteration", ylabel="error", xlim=(0.5, ITERATIONS + 0.5))


def _draw_matrix(figure: Figure, ax: Axes, W_r: Float[np.ndarray, "n n"]) -> None:
    limit = np.abs(W_r).max()
    image = ax.imshow(W_r, cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set(xticks=[], yticks=[], xlabel="from neuron", ylabel="to neuron")
    figure.colorbar(image, ax=ax, shrink=0.9).outline.set_visible(False)


def _draw_overlap(ax: Axes, example: dict[str, Any]) -> None:
    for name, colour, marker in (("y", BLUE, "o"), ("a", ORANGE, "s")):
        last, simulated = example["iterates"][name][-1], example["simulated"][name]
        ax.plot(
            simulated, last, marker, color=colour, markersize=4, fillstyle="none", zorder=3,
            label=f"${name}$",
        )  # fmt: skip
    ax.axline((0, 0), slope=1, color=GREY, linewidth=0.8)
    ax.set(xlabel="simulated", ylabel="Algorithm 1")
    ax.legend(loc="upper left")


def _summary(errors: Float[np.ndarray, "circuits iterations"]) -> dict[str, Any]:
    return {
        "mean": errors.mean(axis=0),
        "deviation": errors.std(axis=0),
        "median": np.median(errors, axis=0),
        "largest": errors.max(axis=0),
    }


@partial(jax.jit, static_argnums=0)
def _draw_circuits(seed: int, indices):
    """Circuits and drives of `organics.trials`, and a random state of each, `y` of norm 1.

    Started farther away, a circuit with general recurrence can diverge.
    """

    def one(index):
        circuit, z = trial(seed, index, _N)
        k_y, k_a = jr.split(jr.fold_in(jr.key(seed + 1), index))
        a = circuit.c + jr.uniform(k_a, (_N,), float)
        return circuit, z, State(random_drive(k_y, _N), a)

    return jax.vmap(one)(indices)


@jax.jit
def _polish(circuits: Circuit, drives, states: State):
    """Plain Newton steps, and the final residual."""

    def one(circuit, z, state):
        x = jnp.concatenate(state)
        for _ in range(_NEWTON_STEPS):
            here = State(*jnp.split(x, 2))
            imbalance = jnp.concatenate(circuit.imbalance(here, z))
            x = x - jnp.linalg.solve(imbalance_jacobian(circuit, here), imbalance)
        here = State(*jnp.split(x, 2))
        return here, jnp.linalg.norm(jnp.concatenate(circuit.imbalance(here, z)))

    return jax.vmap(one)(circuits, drives, states)


@jax.jit
def _iterate(circuits: Circuit, drives) -> State:
    """Iterates of Algorithm 1, of shape (circuits, iterations, n)."""

    def one(circuit, z):
        step = lambda state, _: (algorithm_1_step(circuit, state, z), state)  # noqa: E731
        return jax.lax.scan(step, algorithm_1_start(circuit, z), length=_LAST)[1]

    return jax.vmap(one)(circuits, drives)
