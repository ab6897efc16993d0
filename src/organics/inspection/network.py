"""A trained network looked into: where it rests for each constant input of its task."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from organics.arguments import require_sizes
from organics.circuit.circuit import State
from organics.circuit.values import in_float64
from organics.data.tasks import Condition, Stream, batch
from organics.inspection.fixed_points import FixedPoint, fixed_points
from organics.inspection.step_map import StepMap
from organics.linear_stability.spectrum import stability
from organics.machine.lapack import single_threaded_lapack
from organics.models.target import Marks
from organics.nn import ORGaNICs, circuit_at
from organics.proofs.gated import Attraction, prove_attraction
from organics.rest.search import given_state
from organics.training.config import TaskConfig
from organics.training.evaluation import load_model
from organics.training.run_folder import RunFolder
from organics.training.task import Trials

_PART = 3  # of the stream; training, validation and test have others
_NEAR = 0.5  # largest distance of an output from a pattern that it stands for


class AtRest(NamedTuple):
    """A fixed point, and what the network says there.

    Attributes
        point: of the steps, gates included.
        said: the outputs of the network, (k,).
        circuit_abscissa: largest real part of the eigenvalues of the topmost circuit of ORGaNICs,
            its gains held, at the fixed point, in 1/ms; None for other layers, and for
            those with `rectification="outside"`, which are no circuits.
        attraction: the proof, if one was asked for.
    """

    point: FixedPoint
    said: Float[np.ndarray, " k"]
    circuit_abscissa: float | None
    attraction: Attraction | None


class Rest(NamedTuple):
    """The fixed points that were found for one constant input."""

    condition: Condition
    found: list[AtRest]


class Plane(NamedTuple):
    """The plane of the first two principal components of the layer's outputs in trials.

    Attributes
        mean, axes: the origin (n,), and the components (2, n).
        explained: the share of the variance along each, (2,).
        courses: the trials in it, (trials, steps, 2); NaN after the end of a trial.
    """

    mean: Float[np.ndarray, " n"]
    axes: Float[np.ndarray, "2 n"]
    explained: Float[np.ndarray, " 2"]
    courses: Float[np.ndarray, "trials steps 2"]

    def place(self, output: Float[np.ndarray, " n"]) -> Float[np.ndarray, " 2"]:
        """Where an output lies."""
        return self.axes @ (output - self.mean)


class Inspection(NamedTuple):
    """What was found in a network.

    Attributes
        task: its name.
        rests: for each constant input.
        plane: of the outputs.
        patterns: of the flip-flop, the eight outputs that are to be held, with the number, in the
            first of `rests`, of the stable fixed point that stands for each; None if there is none.
    """

    task: str
    rests: list[Rest]
    plane: Plane
    patterns: list[tuple[np.ndarray, int | None]]


def inspect(
    path: str | Path, *, trials: int = 32, starts: int = 64, seed: int = 0, prove: bool = False
) -> Inspection:
    """Look into the network of a run on trials made on the fly.

    Runs it on some trials, and searches for fixed points of its steps for each input of the task
    that stays constant, from states of these trials. Computed in float64.

    Arguments
        path: the folder of the run.
        trials: how many are run.
        starts: how many of their states are starting points, for each input.
        seed: of the trials, and of the choice of states.
        prove: also prove that the stable fixed points of ORGaNICs with one circuit exist and
            attract.

    Raises `ValueError` if it is not the folder of such a run, or has no model, or is damaged; if a
    number is out of range; and, for a proof, for a layer of another kind.
    """
    require_sizes(trials=trials, starts=starts)
    stream = Stream(seed, _PART)
    folder = RunFolder.open(path)
    config = folder.config
    if not isinstance(config, TaskConfig):
        raise ValueError(
            f"the run in {path} must be on trials made on the fly, such as the flip-flop; it is "
            "not."
        )
    folder.verify()
    task = Trials(dataclasses.replace(config, backend="scan", memory="more", products="full"))
    model = load_model(folder, task=task)
    if prove and not (isinstance(model.layer, ORGaNICs) and len(model.layer.cells) == 1):
        raise ValueError("`prove` must only be given for ORGaNICs with one circuit.")
    if prove and model.layer.cells[0].modulation is not None:
        raise ValueError("`prove` must not be given for modulated time constants.")
    with jax.enable_x64(True), single_threaded_lapack():
        made = task.load()
        model = in_float64(model)
        steps = StepMap(model.layer)
        shown = batch(made, stream.key(), trials, np.float64)
        courses = np.asarray(_courses(steps, shown.inputs))
        within = _within(shown.marks, courses.shape[:2])
        states = courses[within]
        outputs = np.asarray(_outputs(steps, jnp.asarray(states)))
        plane = _principal_plane(outputs, within)
        chosen = np.random.default_rng(seed).choice(len(states), min(starts, len(states)), False)
        rests = [
            Rest(
                condition,
                [
                    _at_rest(model, steps, condition.input, point, prove)
                    for point in fixed_points(steps, condition.input, states[chosen])
                ],
            )
            for condition in made.conditions()
        ]
    wanted = getattr(getattr(made, "task", made), "patterns", list)()
    return Inspection(made.name, rests, plane, _held(wanted, rests[0].found))


def _at_rest(model: Any, steps: StepMap, x: Any, point: FixedPoint, prove: bool) -> AtRest:
    said = np.asarray(model.readout(jnp.asarray(point.output)))
    layer = model.layer
    if not isinstance(layer, ORGaNICs):
        return AtRest(point, said, None, None)
    attraction = None
    if prove and point.stable:
        cell = layer.cells[0]
        inputs = np.asarray(cell.inputs(jnp.asarray(x)))
        attraction = prove_attraction(cell.weights(), layer.options, inputs, point.state)
    return AtRest(point, said, _abscissa(layer, steps, x, point), attraction)


def _abscissa(layer: ORGaNICs, steps: StepMap, x: Any, point: FixedPoint) -> float | None:
    options = layer.options
    if options.rectified and options.rectified_after:
        return None
    state = steps.state(jnp.asarray(point.state))
    circuit, z = circuit_at(layer, jnp.asarray(x), state)
    # a fixed point of the steps is a steady state of its circuit, perhaps one of several
    rest = given_state(circuit, z, State(state[-1].y, state[-1].a))
    return float(stability(rest).spectral_abscissa)


def _held(wanted: Any, found: list[AtRest]) -> list[tuple[np.ndarray, int | None]]:
    """For each pattern the stable fixed point nearest to it, if that is near."""
    stable = [i for i, rest in enumerate(found) if rest.point.stable]
    held = []
    for pattern in wanted:
        distances = {i: float(np.max(np.abs(found[i].said - pattern))) for i in stable}
        near = [i for i in sorted(stable, key=distances.__getitem__) if distances[i] < _NEAR]
        held.append((pattern, near[0] if near else None))
    return held


def _within(marks: Marks | None, shape: tuple[int, int]) -> Bool[np.ndarray, "trials steps"]:
    """Which steps are before the end of their trial: those up to the last one that counts."""
    if marks is None:
        return np.ones(shape, bool)
    counts = np.broadcast_to(np.asarray(marks.loss) > 0, shape)
    return np.logical_or.accumulate(counts[:, ::-1], axis=1)[:, ::-1]


def _principal_plane(
    outputs: Float[np.ndarray, "k n"], within: Bool[np.ndarray, "trials steps"]
) -> Plane:
    mean = outputs.mean(axis=0)
    _, sizes, axes = np.linalg.svd(outputs - mean, full_matrices=False)
    if len(axes) < 2:  # a layer of one unit
        axes, sizes = np.vstack([axes, np.zeros_like(axes)]), np.append(sizes, 0.0)
    total = max(float(np.sum(sizes**2)), np.finfo(float).tiny)
    courses = np.full((*within.shape, 2), np.nan)
    courses[within] = (outputs - mean) @ axes[:2].T
    return Plane(mean, axes[:2], sizes[:2] ** 2 / total, courses)


@eqx.filter_jit
def _courses(steps: StepMap, inputs: Any) -> Any:
    return jax.vmap(steps.course)(inputs)


@eqx.filter_jit
def _outputs(steps: StepMap, states: Any) -> Any:
    return jax.vmap(steps.output)(states)
