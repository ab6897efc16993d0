"""All steady states of a circuit under one drive, with what is known about further ones."""

from functools import singledispatch
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float

from organics.arguments import require_flag, require_whole
from organics.circuit.areas import Areas, State, modulators, named
from organics.circuit.circuit import Circuit, as_drive
from organics.circuit.gated import GatedHierarchy
from organics.enumeration.degree import expected_degree
from organics.enumeration.enclosed import ALL, AT_LEAST, UNDECIDED, Enclosed
from organics.enumeration.reduced import Reduced
from organics.enumeration.search import Found, is_among, search
from organics.linear_stability.spectrum import Stability, stability
from organics.printing import Lines, in_html, in_words, numbers
from organics.rest.point import OperatingPoint
from organics.rest.search import given_state, steady_state
from organics.shared_pool.modes import why_not

if TYPE_CHECKING:
    from organics.proofs.proof import Proof

MOST = 100
"""Number of neurons up to which steady states are searched for."""
MOST_BOXES = 10_000_000
NOT_ASKED = "not asked for"
_ONE_POOL = 40  # neurons up to which the polynomial takes less time than a search
_TOLERANCE = 1e-9  # of the balance of each equation, as far states have few digits
_AT_KINK = 1e-12  # of `v`, in the rectified model
_SHOWN = 10  # states shown as text


class FoundState(NamedTuple):
    """One of the steady states.

    Attributes
        point: the circuit, its drive and the state.
        linear: its eigenvalues and stability.
        found_by: how it was found, in words.
        enclosed: whether it is proved to exist.
        proof: of its stability; `None` if none was asked for.
    """

    point: OperatingPoint
    linear: Stability
    found_by: str
    enclosed: bool
    proof: "Proof | None"

    @property
    def state(self) -> Any:
        """`y` and `a`; of a hierarchy a tuple of such states."""
        return self.point.state

    @property
    def stable(self) -> bool:
        """Whether it is linearly stable."""
        return bool(self.linear.stable)

    @property
    def unstable_dimensions(self) -> int:
        """Number of eigenvalues with a positive real part."""
        return int(np.sum(np.real(np.asarray(self.linear.eigenvalues)) > 0))

    @property
    def kind(self) -> str:
        """Whether it is stable, in words, and whether that is proved."""
        dimensions = self.unstable_dimensions
        plural = "" if dimensions == 1 else "s"
        unstable = f"NOT stable, {dimensions} unstable dimension{plural}"
        return ("stable" if self.stable else unstable) + (", proved" if self.proved else "")

    @property
    def proved(self) -> bool:
        """Whether it is proved to exist, and to be as stable as `stable` says."""
        if self.proof is None:
            return False
        exists = self.enclosed or self.proof.enclosure is not None
        return exists and self.proof.verdict == ("proved" if self.stable else "disproved")


class Degree(NamedTuple):
    """The sum of the signs of `det(-J)` over all steady states: what it must be, `None` if that is
    not known, and what it is over those found."""

    expected: int | None
    found: int


class SteadyStates(NamedTuple):
    """The steady states found, and what is known about further ones.

    Attributes
        states: by rising Euclidean norm of `a`.
        degree: the sum of their signs. If it is not as expected, states are missing.
        complete: whether nothing speaks for further states: the degree is as expected, or these
            are proved to be all. A pair of states that is missing changes no degree. Of a hierarchy
            only if they are proved to be all.
        proved: whether these are proved to be all.
        outcome: of the proof: "all, proved"; "at least these, proved", if boxes remain that were
            not examined; "undecided", if a box cannot be decided, as where two states meet, or if
            nothing bounds the states; "not asked for".
        why: the reason, in words.
        boxes: number of boxes examined.
        remaining: boxes in which further states may be, lower and upper corners, shape (m, 2, n).
            They are boxes of `sqrt(a) y`; in the rectified model, of the active neurons.
    """

    states: tuple
    degree: Degree
    complete: bool
    proved: bool
    outcome: str
    why: str
    boxes: int
    remaining: Float[np.ndarray, "m 2 n"]

    @property
    def verdict(self) -> str:
        """One line: how many, how many of them stable, and whether these are all."""
        count, stable = len(self.states), sum(state.stable for state in self.states)
        extent = self.outcome
        if extent == NOT_ASKED:
            extent = "no sign of others" if self.complete else "perhaps not all"
        return f"{count} steady state{'' if count == 1 else 's'}, {stable} stable; {extent}"

    def lines(self) -> Lines:
        """The result as a verdict and lines of text."""
        rows = [("why", self.why)]
        for i, state in enumerate(self.states[:_SHOWN]):
            rows.append((f"state {i}", f"{state.kind}; found {state.found_by}"))
            rows += [(f"  {name}", numbers(x)) for name, x in named(state.state)]
        if len(self.states) > _SHOWN:
            rows.append(("", f"and {len(self.states) - _SHOWN} more"))
        return Lines(self.verdict, tuple(rows))

    def __str__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        return in_html(self)


def steady_states(
    circuit: Areas,
    z: 'Float[ArrayLike, " n"]',
    *,
    prove: bool = False,
    max_boxes: int = MOST_BOXES,
    seed: int = 0,
) -> SteadyStates:
    """All steady states of a circuit or hierarchy for the constant input drive `z`, shape (n,).

    For `W_r = I` there is one. If all neurons share one pool and `W_r` is symmetric and positive
    semidefinite, `why` says which one is the principal state, which a theorem calls unique and
    stable: see `organics.principal_state`. If all neurons have the same pool (equal rows of `W`,
    equal `b0 sigma`), as one neuron alone has, the states of the main model are found exactly and
    are proved to be all, unless modes that are equal or not driven may have others. Otherwise they
    are searched for; `complete` then says whether their signs add up as they must.

    A hierarchy has one if feedback never acts (`Hierarchy.never_acts`) and all recurrence is the
    identity. Otherwise states are searched for from the closed form, along `gamma`, and from random
    states; whether they are all is not known. Those of a `GatedHierarchy` are searched for near
    those of its hierarchy, and cannot be proved.

    Arguments
        circuit: the main or the rectified model; unless there provably is one state, at most 100
            neurons, in all areas together.
        z: the input drive.
        prove: also prove that each state exists and is stable or unstable, and up to n = 8 that
            there are no others. Parameters and drive are the exact floating-point numbers.
        max_boxes: most boxes that a proof examines. What it has not examined by then remains.
        seed: of the random starts of the search.

    Computed in float64, on concrete values: the number of states is not known before.

    Raises `ValueError` if an argument is not as above.
    """
    require_flag("prove", prove)
    require_whole("max_boxes", max_boxes)
    require_whole("seed", seed, least=0)
    z = np.asarray(as_drive(circuit, z), np.float64)
    circuit.require_valid()
    circuit = circuit.known_identities()
    require_few(circuit, z)
    return _all(circuit, z, prove, max_boxes, seed)


@singledispatch
def _all(hierarchy: Any, z, prove: bool, max_boxes: int, seed: int) -> SteadyStates:
    """Those of a hierarchy."""
    del max_boxes
    if _has_one(hierarchy, z):
        states = (_described(steady_state(hierarchy, z), "in closed form", True, prove),)
        why = "feedback changes nothing, and with W_r = I there is one steady state of each area"
        return _result(states, Degree(1, 1), ALL, why, 0, _no_boxes(hierarchy))
    # imported where it is needed: branches take a tenth of a second
    from organics.enumeration.areas import search_areas

    found = search_areas(hierarchy, z, seed)
    states = [
        _described(given_state(hierarchy, z, hierarchy.split(jnp.asarray(x))), how, False, prove)
        for x, how in zip(found.x, found.how, strict=True)
    ]
    outcome = AT_LEAST if all(state.proved for state in states) else UNDECIDED
    degree = Degree(found.expected, sum(found.signs))
    result = _result(
        states, degree, outcome if prove else NOT_ASKED, _reason(degree), 0, _no_boxes(hierarchy)
    )
    return result._replace(complete=False)


@_all.register
def _(gated: GatedHierarchy, z, prove: bool, max_boxes: int, seed: int) -> SteadyStates:
    del max_boxes
    if prove:
        raise ValueError("`prove` must be False: nothing is proved about gates and trackers.")
    from organics.enumeration.areas import search_gated  # as above

    found = search_gated(gated, z, seed)
    states = [
        _described(given_state(gated, z, gated.split(jnp.asarray(x))), how, False, False)
        for x, how in zip(found.x, found.how, strict=True)
    ]
    degree = Degree(None, sum(found.signs))
    return _result(states, degree, NOT_ASKED, _reason(degree), 0, _no_boxes(gated))


@_all.register
def _(circuit: Circuit, z, prove: bool, max_boxes: int, seed: int) -> SteadyStates:
    if _has_one(circuit, z):
        point = steady_state(circuit, z)
        states = (_described(point, "in closed form", True, prove),)
        why = "with W_r = I there is one steady state"
        return _result(states, Degree(1, 1), ALL, why, 0, np.empty((0, 2, circuit.n)))
    system = Reduced.of(circuit, z)
    enclosed = _enclose(circuit, z, system, max_boxes if prove else None)
    if enclosed is None:
        return _searched(circuit, z, system, search(system, seed))
    found = None if enclosed.outcome == ALL else search(system, seed)
    return _enclosed(circuit, z, system, enclosed, found, prove)


def _has_one(circuit: Areas, z) -> bool:
    """Whether there is one steady state, in closed form."""
    return circuit.has_identity_recurrence and circuit.never_acts(z)


def require_few(circuit: Areas, z) -> None:
    """Refuse a system that may have several states and has more neurons than the search is made
    for."""
    n = sum(circuit.sizes)
    if n > MOST and not _has_one(circuit, z):
        raise ValueError(
            f"`circuit` must have at most {MOST} neurons, not {n}: with more, begin "
            "`steady_state(circuit, z, start=...)` where you expect a state."
        )


def _enclose(circuit: Circuit, z, system: Reduced, max_boxes: int | None) -> Enclosed | None:
    """What is proved of all states, with so many boxes; without boxes, where one pool tells it."""
    one_pool = not circuit.rectified and circuit.n <= _ONE_POOL and system.may_have_one_pool
    if max_boxes is None and not one_pool:
        return None
    # imported where they are needed: boxes take a twentieth of a second
    if max_boxes is None:
        from organics.enumeration.one_pool import enclose_one_pool

        return enclose_one_pool(circuit, z)
    from organics.enumeration.enclosure import enclose_all

    return enclose_all(circuit, z, system, max_boxes)


def _searched(circuit: Circuit, z, system: Reduced, found: Found) -> SteadyStates:
    states = [
        _described(_point(circuit, z, system, v), how, False, False)
        for v, how in zip(found.v, found.how, strict=True)
    ]
    degree = _degree(system, found.v, found.expected, found.signs)
    return _result(states, degree, NOT_ASKED, _reason(degree), 0, _no_boxes(circuit))


def _enclosed(
    circuit: Circuit, z, system: Reduced, enclosed: Enclosed, found: Found | None, prove: bool
) -> SteadyStates:
    """The states enclosed, and those that a search finds besides."""
    every = [(v, enclosed.how, True) for v in enclosed.v]
    if found is not None:
        others = zip(found.v, found.how, strict=True)
        every += [(v, how, False) for v, how in others if not is_among(v, enclosed.v)]
    states = [
        _described(_point(circuit, z, system, v), how, exists, prove) for v, how, exists in every
    ]
    outcome = enclosed.outcome
    if outcome == AT_LEAST and not all(state.proved for state in states):
        outcome = UNDECIDED
    v = np.array([v for v, _, _ in every]).reshape(-1, circuit.n)
    degree = _degree(system, v, expected_degree(system), system.signs(v))
    return _result(states, degree, outcome, enclosed.why, enclosed.boxes, enclosed.remaining)


def _degree(
    system: Reduced, v: Float[np.ndarray, "k n"], expected: int | None, signs: list[int]
) -> Degree:
    """With nothing expected if a state is at a kink, where the sign is that of one side."""
    kinked = system.rectified and np.any(np.abs(v) <= _AT_KINK)
    return Degree(None if kinked else expected, sum(signs))


def _result(states, degree: Degree, outcome: str, why: str, boxes: int, remaining) -> SteadyStates:
    states = sorted(states, key=lambda found: float(np.linalg.norm(modulators(found.state))))
    why += of_the_principal_state(states)
    agrees = degree.expected is not None and degree.expected == degree.found
    proved = outcome == ALL
    complete = proved or (agrees and outcome != UNDECIDED)
    return SteadyStates(tuple(states), degree, complete, proved, outcome, why, boxes, remaining)


def of_the_principal_state(states) -> str:
    """What the theorem on one pool says of one of the states, if anything."""
    i = principal(states)
    if i is None:
        return ""
    return f"; state {i} is the principal one, and stable by the theorem on one pool"


def principal(states) -> int | None:
    """The number of the principal state, if the theorem on one pool applies and it is there."""
    circuit = states[0].point.system if states else None
    if not isinstance(circuit, Circuit) or circuit.has_identity_recurrence or why_not(circuit):
        return None
    omega = np.linalg.eigvalsh(np.asarray(circuit.recurrent, np.float64))
    if omega[0] < 0:
        return None
    for i, found in enumerate(states):
        s = np.sqrt(float(found.state.a[0]))
        if np.all(1 - (1 - s) * omega > 0):
            return i
    return None


def _no_boxes(circuit: Areas) -> Float[np.ndarray, "0 2 n"]:
    return np.empty((0, 2, sum(circuit.sizes)))


def _point(circuit: Circuit, z, system: Reduced, v: Float[np.ndarray, " n"]) -> OperatingPoint:
    state = State(*(jnp.asarray(x, circuit.dtype) for x in system.state(v)))
    tolerance = _TOLERANCE if circuit.dtype == jnp.float64 else None
    return given_state(circuit, z, state, tolerance=tolerance)


def _described(point: OperatingPoint, found_by: str, enclosed: bool, prove: bool) -> FoundState:
    proof = None
    if prove:
        from organics.proofs.proof import prove as prove_one

        proof = prove_one(point)
    return FoundState(point, stability(point), found_by, enclosed, proof)


def _reason(degree: Degree) -> str:
    """Why a search is complete, or not."""
    expected, found = degree
    if expected is None:
        return "nothing tells whether there are others"
    if expected != found:
        return f"states are missing: the signs of det(-J) add up to {found}, not to {expected}"
    return (
        f"the signs of det(-J) add up to {expected}, as they must; others, if there are any, come "
        "in pairs of opposite signs"
    )
