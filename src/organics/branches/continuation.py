"""`continuation`: how steady states move with a parameter, and where they change."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from organics.arguments import require_whole
from organics.branches.arclength import ONCE, rows, stacked
from organics.branches.branch import CycleBranch, Diagram, Event
from organics.branches.cycle_search import cycles_from
from organics.branches.family import NAMES, Family, Line, Parameter, as_family, require_parameter
from organics.branches.search import curves_of, switch, through, without_twins
from organics.branches.two_parameters import curves_through
from organics.circuit.areas import Areas
from organics.circuit.circuit import Circuit, State, as_drive
from organics.circuit.values import Values
from organics.errors import NoSteadyState
from organics.rest.balance import judge
from organics.rest.point import OperatingPoint
from organics.rest.search import steady_state
from organics.rest.system import Driven, DrivenCircuit, System, driven_by

MOST = 5000
"""Points of a branch on each side of its start."""
MOST_CYCLES = 300
"""Cycles of a branch."""
_BALANCED = 1e-6  # relative imbalance of a state that is taken as a start


def continuation(
    system: Areas | System,
    z: "Values | None",
    parameter: Parameter,
    bounds: "tuple[float, float]",
    *,
    second: "tuple[Parameter, tuple[float, float]] | None" = None,
    start: Any = None,
    switching: bool = True,
    cycles: bool = False,
    most: int = MOST,
) -> Diagram:
    """The branches of steady states over one parameter, with folds, Hopf points and branch points.

    Each branch is followed in both directions, through folds, up to the bounds or to infinity; at
    branch points the other branch is followed, too. In the rectified model it goes on where neurons
    fall silent or become active, with other equations: these points are events, too.

    Arguments
        system: a circuit; or another `System`, such as `SSN.driven(x)`, with `z=None`.
        z: the circuit's input drive, (n,).
        parameter: "z", a factor on the drive; an entry, such as "W_r[0,1]" or "z[2]"; an array
            whose entries are equal, such as "tau_a"; or a direction, arrays by name, of which the
            parameter's multiple is added to the system.
        bounds: smallest and largest value of the parameter.
        second: a second parameter and its bounds: the folds and Hopf points are followed over both
            parameters, with cusps, Bogdanov-Takens and generalized Hopf points.
        start: a steady state of the system as it is, or several: each a `State`, an operating point
            or an array (m,). By default that of `steady_state(circuit, z)`, or at the nearest bound
            if the circuit's own value is out of bounds. "rest", for a factor on the drive, is the
            rest without input, at the factor 0.
        switching: whether to follow the other branch at branch points.
        cycles: whether to follow the limit cycles that are born at Hopf points.
        most: largest number of points on each side of a start.

    Computed in float64, which must be switched on: `jax.config.update("jax_enable_x64", True)`.

    Raises `ValueError` if the parameter does not exist, if the system is not valid within the
    bounds, or if a start is no steady state; `NoSteadyState` if none is found to start from.

    Source: Keller 1977; Kuznetsov, Elements of Applied Bifurcation Theory; di Bernardo et al. 2008
    (the rectified model).
    """
    require_whole("most", most)
    bounds = require_bounds(bounds)
    system = as_system(system, z, parameter, *(second or ())[:1])
    family, (line,) = as_family(system, (parameter,))
    require_valid_range(line, bounds)
    both, other, limits = _second(system, parameter, second)
    starts = _starts(system, family, line, bounds, start)
    curve = curves_of(stacked(family, 1), bounds[1] - bounds[0], 1)
    one = rows(curve, 0)
    traced = without_twins(one, through(stacked(one, len(starts)), starts, bounds, most))
    found = Diagram(line.name, bounds, traced.branches, [], traced.interrupted)
    try:
        if switching:
            traced = switch(one, traced, bounds, most)
            found = found._replace(branches=traced.branches, interrupted=traced.interrupted)
        hopfs = [event for event in found.events if event.kind == "hopf"]
        if cycles and hopfs and not found.interrupted:
            sure = [event for event in hopfs if event.confirmed]
            orbits, interrupted = cycles_from(one, sure, bounds, min(most, MOST_CYCLES))
            left = [] if interrupted else _without(hopfs, orbits)
            found = found._replace(cycles=orbits, without_cycles=left, interrupted=interrupted)
        if both is not None and not found.interrupted:
            curves, interrupted = curves_through(
                both, found.events, other.value, (bounds, limits), most
            )
            found = found._replace(
                second=other.name, second_bounds=limits, curves=curves, interrupted=interrupted
            )
    except KeyboardInterrupt:  # between walks, as while a program is compiled
        return found._replace(interrupted=True)
    return found


def _without(hopfs: list[Event], cycles: list[CycleBranch]) -> list[Event]:
    """The Hopf points from which no cycles come."""
    return [event for event in hopfs if not any(cycle.hopf is event for cycle in cycles)]


def _second(system: System, parameter: Parameter, second: Any) -> Any:
    """The family over both parameters, the second one's line and its bounds."""
    if second is None:
        return None, None, None
    try:
        name, bounds = second
    except (TypeError, ValueError):
        raise ValueError(f"`second` must be a parameter and its bounds, not {second!r}.") from None
    bounds = require_bounds(bounds, "second")
    family, (_, other) = as_family(system, (parameter, name))
    require_valid_range(other, bounds, "second")
    if not bounds[0] <= other.value <= bounds[1]:
        raise ValueError(
            f"`second` must include {other.value:g}, the system's own {other.name}, not {bounds}."
        )
    return family, other, bounds


def continuations(
    circuits: Circuit,
    drives: "Values",
    parameter: Parameter,
    bounds: "tuple[float, float]",
    *,
    start: Any = None,
    most: int = MOST,
) -> list[Diagram]:
    """The branch of each of many circuits, as `continuation` without switching, all in one batch.

    Arguments
        circuits: k circuits of one size, stacked, as `jax.vmap` makes them.
        drives: (k, n).
        parameter, bounds, most: as in `continuation`.
        start: "rest" as there; or a state of each circuit, `State` of two arrays (k, n). By default
            what `steady_state` finds.

    Raises `ValueError` as `continuation` does, naming the circuit, and `NoSteadyState`.
    """
    require_whole("most", most)
    bounds = require_bounds(bounds)
    drives = np.asarray(drives)
    if np.ndim(circuits.b) != 2 or drives.shape != np.shape(circuits.b):
        raise ValueError(
            f"`circuits` must be stacked, with one drive each, not with `b` of shape "
            f"{np.shape(circuits.b)} and `drives` of shape {drives.shape}."
        )
    states = None if start is None or isinstance(start, str) else np.concatenate([*start], axis=1)
    given = [start] * len(drives) if states is None else states
    systems, families, starts, line = [], [], [], None
    for i, z in enumerate(drives):
        with _of_circuit(i):
            systems.append(as_system(rows(circuits, i), z, parameter))
            family, (line,) = as_family(systems[-1], (parameter,))
            families.append((family, line))
    assert line is not None
    lines = [line for _, line in families]
    for i in np.flatnonzero(~_are_valid(lines, bounds)):
        with _of_circuit(int(i)):
            require_valid_range(lines[i], bounds)
    for i, (system, (family, own)) in enumerate(zip(systems, families, strict=True)):
        with _of_circuit(i):
            starts.append(_starts(system, family, own, bounds, given[i])[0])
    families = [family for family, _ in families]
    family = jax.tree.map(lambda *leaves: np.stack(leaves), *families)
    curves = curves_of(family, bounds[1] - bounds[0], len(starts))
    traced = through(curves, np.stack(starts), bounds, most)
    return [Diagram(line.name, bounds, [branch], [], traced.interrupted)
            for branch in traced.branches]  # fmt: skip


@contextmanager
def _of_circuit(i: int) -> Iterator[None]:
    """Errors about one of many circuits, named."""
    try:
        yield
    except (ValueError, NoSteadyState) as error:
        raise type(error)(f"circuit {i}: {error}") from None


def _are_valid(lines: list[Line], bounds: tuple) -> np.ndarray:
    """Whether the circuit on each line is valid at both bounds, all at once."""
    stacked_lines = [
        jax.tree.map(lambda *leaves: np.stack(leaves), *(getattr(line, part) for line in lines))
        for part in ("base", "slope")
    ]
    valid = [_valid_at(*stacked_lines, value) for value in bounds]
    return np.logical_and(*map(np.asarray, valid))


@partial(jax.jit, compiler_options=ONCE)
@partial(jax.vmap, in_axes=(0, 0, None))
def _valid_at(base: DrivenCircuit, slope: DrivenCircuit, value):
    at = jax.tree.map(lambda b, s: b + value * s, base, slope)
    return at.circuit.valid


def as_system(system: Any, z: Any, *parameters: Parameter) -> System:
    """The system with its drive, in float64, all arrays NumPy's; an identity `W_r` becomes a matrix
    if a parameter is in it."""
    if jax.dtypes.canonicalize_dtype(float) != np.float64:
        raise ValueError(
            "`system` must be in float64, which JAX is not set to: "
            "`jax.config.update('jax_enable_x64', True)`."
        )
    if isinstance(system, Areas):
        for name, one in zip(NAMES, parameters, strict=False):
            require_parameter(name, one)
        names = [name for p in parameters for name in ([p] if isinstance(p, str) else p)]
        system = driven_by(system, as_drive(system, z)).with_matrices(*map(str, names))
    elif not isinstance(system, System) or z is not None:
        raise ValueError(
            "`system` must be a circuit or hierarchy with its drive `z`, or a `System` with "
            "`z=None`, not "
            f"{type(system).__name__} with {'a' if z is not None else 'no'} drive."
        )
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), system)


def require_bounds(bounds: Any, name: str = "bounds") -> tuple:
    """Two finite numbers, the first below the second."""
    try:
        low, high = (float(value) for value in bounds)
    except (TypeError, ValueError):
        raise ValueError(f"`{name}` must be two numbers, not {bounds!r}.") from None
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"`{name}` must be finite, the first below the second, not {bounds}.")
    return low, high


def require_valid_range(line: Line, bounds: tuple, name: str = "bounds") -> None:
    """Refuse bounds at which the system is not valid. Domains are convex, so the ends suffice."""
    for value in bounds:
        system = jax.tree.map(lambda b, s, v=value: b + v * s, line.base, line.slope)
        try:
            system.require_valid()
        except ValueError as error:
            raise ValueError(
                f"`{name}` must leave the system valid; it is not at {line.name} = {value:g}: "
                f"{error} Its own value is {line.value:g}."
            ) from None


def _starts(system: System, family: Family, line: Line, bounds: tuple, start: Any) -> Any:
    """The points `(x, value)` from which branches are followed."""
    if isinstance(start, str):
        if start != "rest" or not isinstance(system, DrivenCircuit) or line.name != system.drive:
            raise ValueError(
                f'`start` must be states, or "rest" for a factor on the drive, not {start!r}.'
            )
        if not bounds[0] <= 0 <= bounds[1]:
            raise ValueError(f"`bounds` must include 0 to start from rest, not {bounds}.")
        return np.concatenate([np.zeros_like(system.z), system.circuit.c, [0.0]])[None]
    if start is None:
        if not isinstance(system, Driven):
            raise ValueError(
                "`start` must be given for a system that is neither circuit nor hierarchy."
            )
        value = float(np.clip(line.value, *bounds))
        at: Any = family.at(value)
        point = steady_state(at.circuit, at.z)
        if not point.converged:
            point = _any_state(at.circuit, at.z)
        if point is None:
            raise NoSteadyState(
                f"no steady state was found at {line.name} = {value:g} to start from, by "
                "`steady_states` neither: give a `start`, or other `bounds`."
            )
        return np.append(_as_vector(point, _size(system)), value)[None]
    if not bounds[0] <= line.value <= bounds[1]:
        raise ValueError(
            f"`bounds` must include {line.value:g}, the system's own {line.name}, at which `start` "
            f"is to be a steady state, not {bounds}."
        )
    several = isinstance(start, Sequence) and not isinstance(start, State)
    m = _size(system)
    states = [_as_vector(one, m) for one in (start if several else [start])]
    if not states:
        raise ValueError("`start` must be at least one state.")
    for i, x in enumerate(states):
        judged = judge(system, x)
        if not judged.error < _BALANCED:
            where = f"start[{i}]" if several else "start"
            raise ValueError(
                f"`{where}` must be a steady state of the system as it is; its equations are off "
                f"by {float(judged.error):.2g} of their terms. `steady_state` finds one."
            )
    return np.stack([np.append(x, line.value) for x in states])


def _any_state(circuit: Areas, z: Any) -> OperatingPoint | None:
    """A steady state that is not found from rest; a stable one, if there is one."""
    from organics.enumeration.states import MOST, steady_states  # proofs are slow to import

    if len(z) > MOST:
        return None
    found = steady_states(circuit, z).states
    chosen = next((one for one in found if one.stable), found[0] if found else None)
    return None if chosen is None else chosen.point


def _size(system: System) -> int:
    """The number of numbers in a state."""
    (m,) = jax.eval_shape(lambda system: system.time_constants(), system).shape
    return m


def _as_vector(start: Any, m: int) -> Float[np.ndarray, " m"]:
    state = start.state if isinstance(start, OperatingPoint) else start
    if isinstance(state, tuple):  # `y` and `a`, of one circuit or of each area
        state = np.concatenate([np.atleast_1d(part) for part in jax.tree.leaves(state)])
    try:
        x = np.asarray(state, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"`start` must be a state, not {type(start).__name__}.") from None
    if x.shape != (m,) or not np.all(np.isfinite(x)):
        raise ValueError(f"`start` must be finite and of shape ({m},), not {x.shape}.")
    return x
